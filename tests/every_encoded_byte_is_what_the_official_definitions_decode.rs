//! Whatever a span is made of, the official protobuf definitions decode exactly that, and nothing else.
//!
//! Each case does arbitrary things to spans and to a model of what the OpenTelemetry specification wants of them. The
//! model is an official `Span`; both are compared as the official encoder writes them, which is bit by bit, NaN included.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod exporters;
mod model;

use std::sync::Arc;

use exporters::{WATCHDOG, config, start};
use model::{Op, SpanModel, any_resource, any_spans, limits, official};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span as OtlpSpan};
use proptest::prelude::*;
use prost::Message;
use rvh_trace::attribute::Value;
use rvh_trace::clock::Start;
use rvh_trace::config::Config;
use rvh_trace::context::{SpanContext, TraceFlags};
use rvh_trace::id::{SpanId, TraceId};
use rvh_trace::pipeline::exporter::memory::{MemoryExporter, decode};
use rvh_trace::sampler::{Root, Sampler};
use rvh_trace::span::{Span, SpanKind, Status};
use rvh_trace::tracer::{Started, Tracer};
use rvh_trace::wire::request::SCHEMA_URL;

/// What arrives of the spans that `record` makes.
fn exported(mut config: Config, record: impl FnOnce(&'static Tracer)) -> Vec<ResourceSpans> {
    config.sampler = Sampler::Always(Root::On);
    config.batch.max_queue_bytes = usize::MAX / 2;
    let memory = MemoryExporter::new();
    let given = memory.clone();
    let tracer = Tracer::with_exporters(config, Arc::new(move || vec![Box::new(given.clone())]));
    record(tracer);
    assert_eq!(tracer.shutdown(WATCHDOG), Ok(()));
    let requests = memory.take().into_iter();
    requests
        .flat_map(|request| decode(&request).unwrap().resource_spans)
        .collect()
}

fn spans(resource_spans: Vec<ResourceSpans>) -> Vec<OtlpSpan> {
    let scopes = resource_spans
        .into_iter()
        .flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

/// The only span that arrives.
#[track_caller]
fn exported_span(config: Config, record: impl FnOnce(&mut Span)) -> OtlpSpan {
    let arrived = exported(config, |tracer| {
        let mut span = start(tracer, "name");
        record(&mut span);
        span.end();
    });
    let [span] = <[_; 1]>::try_from(spans(arrived)).unwrap();
    span
}

fn record(tracer: &'static Tracer, model: &SpanModel) -> SpanContext {
    let Started::Recording(mut span) =
        tracer.create(model.parent.as_ref(), model.kind, &model.name)
    else {
        unreachable!("every span is recorded");
    };
    span.begin(Start::at(model.start_unix_ns));
    for op in &model.ops {
        op.apply(&mut span);
    }
    let context = span.context().clone();
    span.end_at(model.end_unix_ns);
    // What comes after the end changes nothing.
    for op in &model.ops {
        op.apply(&mut span);
    }
    span.end();
    context
}

#[track_caller]
fn assert_same(arrived: &OtlpSpan, expected: &OtlpSpan) {
    if arrived.encode_to_vec() != expected.encode_to_vec() {
        assert_eq!(format!("{arrived:#?}"), format!("{expected:#?}"));
        unreachable!("they differ in the bits of a NaN");
    }
}

proptest! {
    #[test]
    fn every_field_of_any_span(models in any_spans(), limits in limits()) {
        let config = Config { limits, ..config() };
        let mut contexts = Vec::new();
        let arrived = exported(config, |tracer| contexts.extend(models.iter().map(|model| record(tracer, model))));
        let arrived = spans(arrived);
        prop_assert_eq!(arrived.len(), models.len());
        for ((mut span, model), context) in arrived.into_iter().zip(&models).zip(&contexts) {
            // Attributes are a map: their order says nothing.
            span.attributes.sort_by(|one, other| one.key.cmp(&other.key));
            assert_same(&span, &model.expected(context, &limits));
        }
    }

    #[test]
    fn resource_and_scope_stand_around_every_batch(resource in any_resource()) {
        let config = Config { resource: resource.clone(), ..config() };
        let mut arrived = exported(config, |tracer| start(tracer, "name").end());
        prop_assert_eq!(arrived.len(), 1);
        let arrived = arrived.remove(0);
        prop_assert_eq!(&arrived.schema_url, SCHEMA_URL);
        let attributes: Vec<_> = resource.attributes.iter().map(|(key, value)| official(key, &value.as_value())).collect();
        let seen = arrived.resource.unwrap();
        prop_assert_eq!(seen.dropped_attributes_count, 0);
        prop_assert_eq!(format!("{:?}", seen.attributes), format!("{attributes:?}"));

        prop_assert_eq!(arrived.scope_spans.len(), 1);
        let scope_spans = &arrived.scope_spans[0];
        prop_assert_eq!(&scope_spans.schema_url, SCHEMA_URL);
        let scope = scope_spans.scope.clone().unwrap();
        prop_assert_eq!((scope.name.as_str(), scope.version.as_str()), ("rvh_trace", env!("CARGO_PKG_VERSION")));
        prop_assert!(scope.attributes.is_empty());
    }
}

#[test]
fn lengths_on_both_sides_of_every_border_between_varints() {
    // Whatever stands before the text in a message, the message passes each border too.
    let around = |border: usize| border - 40..border + 3;
    let (two_bytes, three_bytes, four_bytes) =
        (0..200, around(1 << 14), around(1 << 21).step_by(5));
    for length in two_bytes.chain(three_bytes).chain(four_bytes) {
        let text = "x".repeat(length);
        let arrived = exported_span(config(), |span| {
            span.update_name(&text);
            span.push_attribute("text", &Value::Str(&text));
            span.push_attribute("bytes", &Value::Bytes(text.as_bytes()));
            span.push_attribute(
                "array",
                &Value::Array(vec![Value::Array(vec![Value::Str(&text)])]),
            );
            span.push_attribute(&format!("k{text}"), &Value::Bool(true));
            span.push_attribute(&format!("t{text}"), &Value::Str(&text));
            span.push_attribute(&format!("f{text}"), &Value::Float(0.5));
            span.push_attribute(&format!("i{text}"), &Value::Int(300));
            span.add_event(&text, 1, &[("text", Value::Str(&text))]);
            span.add_link(&SpanContext::INVALID, &[("text", Value::Str(&text))]);
            span.set_status(Status::Error, &text);
        });
        assert_eq!(arrived.name, text);
        let attributes = [
            official("text", &Value::Str(&text)),
            official("bytes", &Value::Bytes(text.as_bytes())),
            official(
                "array",
                &Value::Array(vec![Value::Array(vec![Value::Str(&text)])]),
            ),
            official(&format!("k{text}"), &Value::Bool(true)),
            official(&format!("t{text}"), &Value::Str(&text)),
            official(&format!("f{text}"), &Value::Float(0.5)),
            official(&format!("i{text}"), &Value::Int(300)),
        ];
        // Not `assert_eq`: a failure would print megabytes.
        assert!(
            arrived.attributes == attributes,
            "attributes of length {length}"
        );
        assert!(
            arrived.events[0].name == text,
            "event name of length {length}"
        );
        assert!(
            arrived.events[0].attributes == attributes[..1],
            "event of length {length}"
        );
        assert!(
            arrived.links[0].attributes == attributes[..1],
            "link of length {length}"
        );
        assert!(
            arrived.status.unwrap().message == text,
            "status of length {length}"
        );
    }
}

#[test]
fn sequences_are_kept_to_a_depth_of_sixteen() {
    let nested = |depth| (0..depth).fold(Value::Int(7), |value, _| Value::Array(vec![value]));
    let arrived = exported_span(config(), |span| {
        span.push_attribute("kept", &nested(16));
        span.push_attribute("cut", &nested(200));
    });
    let cut = (0..16).fold(Value::Array(vec![]), |value, _| Value::Array(vec![value]));
    assert_eq!(
        arrived.attributes,
        [official("kept", &nested(16)), official("cut", &cut)]
    );
}

#[test]
fn limits_count_characters_and_not_bytes() {
    let mut config = config();
    config.limits.value_length = Some(3);
    let (long, text) = ("ü🦀é!".to_owned(), Value::Str("ü🦀é"));
    let arrived = exported_span(config, |span| {
        span.update_name(&long);
        span.set_attribute(&long, &Value::Str(&long));
        span.set_attribute("fits", &text);
        span.set_attribute(
            "array",
            &Value::Array(vec![Value::Str(&long), Value::Int(123_456)]),
        );
        span.set_attribute("bytes", &Value::Bytes(&[0xff; 5]));
        span.add_event(&long, 1, &[("event", Value::Str(&long))]);
        span.add_link(&SpanContext::INVALID, &[("link", Value::Str(&long))]);
        span.set_status(Status::Error, &long);
    });
    let expected = [
        official(&long, &text),
        official("fits", &text),
        official(
            "array",
            &Value::Array(vec![text.clone(), Value::Int(123_456)]),
        ),
        official("bytes", &Value::Bytes(&[0xff; 3])),
    ];
    assert_eq!(arrived.attributes, expected);
    assert_eq!(arrived.events[0].attributes, [official("event", &text)]);
    assert_eq!(arrived.links[0].attributes, [official("link", &text)]);
    // Names and descriptions are not attributes.
    assert_eq!((&arrived.name, &arrived.events[0].name), (&long, &long));
    assert_eq!(arrived.status.unwrap().message, long);
}

#[test]
fn a_parent_without_a_valid_id_is_no_parent() {
    let valid = SpanContext {
        trace_id: TraceId::random(),
        span_id: SpanId::random(),
        flags: TraceFlags::SAMPLED,
        is_remote: true,
        ..SpanContext::INVALID
    };
    let half = [
        SpanContext {
            trace_id: TraceId::INVALID,
            ..valid.clone()
        },
        SpanContext {
            span_id: SpanId::INVALID,
            ..valid.clone()
        },
    ];
    let arrived = exported(config(), |tracer| {
        for parent in &half {
            let Started::Recording(mut span) =
                tracer.start(Some(parent), SpanKind::Internal, "root")
            else {
                unreachable!("every span is recorded");
            };
            span.end();
        }
    });
    for root in spans(arrived) {
        assert!(root.parent_span_id.is_empty(), "{root:?}");
        assert_ne!(root.trace_id, valid.trace_id.to_bytes());
        assert_eq!(
            root.flags, 0x103,
            "sampled and random, and known not to be remote"
        );
    }
}

#[test]
fn an_attribute_set_again_is_overwritten_even_at_the_limit() {
    let mut config = config();
    config.limits.attributes = 2;
    let arrived = exported_span(config, |span| {
        for number in 0..5 {
            Op::Set("a".into(), model::Val::Int(number)).apply(span);
            Op::Set(
                "b".into(),
                model::Val::Str("b".repeat(number.unsigned_abs() as usize * 100)),
            )
            .apply(span);
            Op::Set("over".into(), model::Val::Int(number)).apply(span);
        }
    });
    let long = "b".repeat(400);
    assert_eq!(
        arrived.attributes,
        [
            official("a", &Value::Int(4)),
            official("b", &Value::Str(&long))
        ]
    );
    assert_eq!(arrived.dropped_attributes_count, 5);
}
