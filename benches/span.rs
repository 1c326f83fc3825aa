//! A span from start to its bytes in the batch, beside the same span built and encoded with the official protobuf types.
//!
//! The baseline has neither clock nor queue nor limits, and does not look for the key that it overwrites.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

mod discard;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use discard::{assert_nothing_was_dropped, start, tracer};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Official};
use opentelemetry_proto::tonic::trace::v1::{Span as OtlpSpan, span::Event};
use prost::Message;
use rvh_trace::attribute::Value;
use rvh_trace::context::SpanContext;
use rvh_trace::id::{SpanId, TraceId};
use rvh_trace::sampler::{Root, Sampler};
use rvh_trace::span::SpanKind;

const ATTRIBUTES: [(&str, Value<'static>); 5] = [
    ("http.request.method", Value::Str("GET")),
    ("url.path", Value::Str("/items/42")),
    ("http.response.status_code", Value::Int(200)),
    ("cache.hit", Value::Bool(true)),
    ("queue.wait", Value::Float(0.25)),
];

const EVENT: [(&str, Value<'static>); 2] = [
    ("exception.type", Value::Str("ValueError")),
    ("exception.message", Value::Str("no such item")),
];

fn official(attributes: &[(&str, Value<'_>)]) -> Vec<KeyValue> {
    let official = |(key, value): &(&str, Value<'_>)| KeyValue {
        key: (*key).to_owned(),
        value: Some(AnyValue {
            value: match value {
                Value::Str(text) => Some(Official::StringValue((*text).to_owned())),
                Value::Int(int) => Some(Official::IntValue(*int)),
                Value::Bool(bool) => Some(Official::BoolValue(*bool)),
                Value::Float(float) => Some(Official::DoubleValue(*float)),
                _ => None,
            },
        }),
        ..KeyValue::default()
    };
    attributes.iter().map(official).collect()
}

fn official_span() -> OtlpSpan {
    OtlpSpan {
        trace_id: TraceId::random().to_bytes().to_vec(),
        span_id: SpanId::random().to_bytes().to_vec(),
        name: black_box("GET /items/{item_id}").to_owned(),
        kind: 1,
        start_time_unix_nano: black_box(1_700_000_000_000_000_000),
        end_time_unix_nano: black_box(1_700_000_000_000_001_000),
        flags: 0x103,
        ..OtlpSpan::default()
    }
}

fn empty(criterion: &mut Criterion) {
    let tracer = tracer(Sampler::default());
    let mut group = criterion.benchmark_group("span/empty");
    group.bench_function("ours", |bencher| bencher.iter(|| start(tracer).end()));
    group.bench_function("baseline: official types", |bencher| {
        bencher.iter(|| official_span().encode_to_vec());
    });
    group.bench_function("baseline: two clock readings and two ids", |bencher| {
        bencher.iter(|| {
            let started = std::time::Instant::now();
            black_box((TraceId::random(), SpanId::random()));
            started.elapsed()
        });
    });
    assert_nothing_was_dropped(tracer);
}

fn five_attributes_and_an_overwrite(criterion: &mut Criterion) {
    let tracer = tracer(Sampler::default());
    let mut group = criterion.benchmark_group("span/five attributes and an overwrite");
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            let mut span = start(tracer);
            for (key, value) in black_box(&ATTRIBUTES) {
                span.push_attribute(key, value);
            }
            span.set_attribute("http.response.status_code", black_box(&Value::Int(404)));
            span.end();
        });
    });
    group.bench_function("baseline: official types", |bencher| {
        bencher.iter(|| {
            let mut span = official_span();
            span.attributes = official(black_box(&ATTRIBUTES));
            span.attributes[2] =
                official(black_box(&[("http.response.status_code", Value::Int(404))])).remove(0);
            span.encode_to_vec()
        });
    });
    assert_nothing_was_dropped(tracer);
}

fn event(criterion: &mut Criterion) {
    let tracer = tracer(Sampler::default());
    let mut group = criterion.benchmark_group("span/with an event");
    group.bench_function("ours", |bencher| {
        bencher.iter(|| {
            let mut span = start(tracer);
            span.add_event(
                "exception",
                black_box(1_700_000_000_000_000_500),
                black_box(&EVENT),
            );
            span.end();
        });
    });
    group.bench_function("baseline: official types", |bencher| {
        bencher.iter(|| {
            let mut span = official_span();
            span.events.push(Event {
                time_unix_nano: black_box(1_700_000_000_000_000_500),
                name: "exception".to_owned(),
                attributes: official(black_box(&EVENT)),
                dropped_attributes_count: 0,
            });
            span.encode_to_vec()
        });
    });
    assert_nothing_was_dropped(tracer);
}

fn not_sampled(criterion: &mut Criterion) {
    let tracer = tracer(Sampler::ParentBased(Root::Off));
    let parent = SpanContext {
        trace_id: TraceId::random(),
        span_id: SpanId::random(),
        ..SpanContext::INVALID
    };
    let mut group = criterion.benchmark_group("span/not sampled");
    let start = |parent| {
        tracer.start(
            parent,
            SpanKind::Internal,
            black_box("GET /items/{item_id}"),
        )
    };
    group.bench_function("a root", |bencher| bencher.iter(|| start(black_box(None))));
    group.bench_function("a child", |bencher| {
        bencher.iter(|| start(black_box(Some(&parent))));
    });
    group.bench_function("baseline: an empty closure", |bencher| {
        bencher.iter(|| black_box("GET /items/{item_id}"));
    });
}

criterion_group!(
    benches,
    empty,
    five_attributes_and_an_overwrite,
    event,
    not_sampled
);
criterion_main!(benches);
