//! What code sees that uses the `opentelemetry` crate directly: every operation of its `Tracer` and `Span`.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod recorded;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{
    Event, Link, Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _,
    TracerProvider as _, get_active_span, mark_span_as_active,
};
use opentelemetry::{Array, Context, KeyValue, Value};
use recorded::{Recorded, attributes};
use rvh_trace::bridge::{TracerProvider, context};
use rvh_trace::context::SpanContext;
use rvh_trace::id::{SpanId, TraceId};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn linked() -> opentelemetry::trace::SpanContext {
    context::to_api(&SpanContext {
        trace_id: TraceId::random(),
        span_id: SpanId::random(),
        ..SpanContext::INVALID
    })
}

#[test]
fn everything_that_a_builder_says_is_exported() {
    let recorded = Recorded::new();
    let tracer = TracerProvider::new(recorded.api()).tracer("somebody");
    let to = linked();
    let strings = Array::String(vec!["a".into(), "b".into()]);
    let values: [(&str, Value, &str); 8] = [
        ("bool", true.into(), "true"),
        ("int", 7.into(), "7"),
        ("float", 0.5.into(), "0.5"),
        ("text", "x".into(), "\"x\""),
        (
            "bools",
            Value::Array(vec![true, false].into()),
            "[true, false]",
        ),
        ("ints", Value::Array(vec![1_i64, 2].into()), "[1, 2]"),
        ("floats", Value::Array(vec![1.5, 2.5].into()), "[1.5, 2.5]"),
        ("texts", Value::Array(strings), "[\"a\", \"b\"]"),
    ];
    let given = values
        .clone()
        .map(|(key, value, _)| KeyValue::new(key, value));
    let mut span = tracer
        .span_builder("op")
        .with_kind(SpanKind::Producer)
        .with_start_time(at(100))
        .with_attributes(given)
        .with_links(vec![Link::new(
            to.clone(),
            vec![KeyValue::new("why", 1)],
            0,
        )])
        .with_events(vec![Event::new(
            "built",
            at(101),
            vec![KeyValue::new("n", 2)],
            0,
        )])
        .start(&tracer);
    assert!(span.is_recording());
    span.add_event_with_timestamp("later", at(102), vec![]);
    span.end_with_timestamp(at(103));
    assert!(!span.is_recording());
    let spans = recorded.take();
    let span = spans.one("op");
    assert_eq!(span.kind, 4);
    assert_eq!(
        (span.start_time_unix_nano, span.end_time_unix_nano),
        (100_000_000_000, 103_000_000_000)
    );
    let expected = values.map(|(key, _, text)| (key, text.to_owned()));
    assert_eq!(attributes(&span.attributes), BTreeMap::from(expected));
    assert_eq!(span.links[0].span_id, to.span_id().to_bytes());
    assert_eq!(attributes(&span.links[0].attributes)["why"], "1");
    let events: Vec<_> = span
        .events
        .iter()
        .map(|event| (event.name.as_str(), event.time_unix_nano))
        .collect();
    assert_eq!(
        events,
        [("built", 101_000_000_000), ("later", 102_000_000_000)]
    );
}

#[test]
fn everything_that_is_said_later_is_exported_until_the_end() {
    let recorded = Recorded::new();
    let mut span = recorded.api().start("first name");
    let before = span.span_context().clone();
    span.update_name("op");
    span.set_attribute(KeyValue::new("key", 1));
    span.set_attributes([KeyValue::new("key", 2), KeyValue::new("other", 3)]);
    span.add_event("happened", vec![]);
    span.record_error(&std::io::Error::other("broken"));
    let to = linked();
    span.add_link(to.clone(), vec![]);
    span.set_status(Status::error("why"));
    span.set_status(Status::Unset);
    span.end();
    span.set_attribute(KeyValue::new("late", 1));
    span.update_name("late");
    span.end();
    assert_eq!(*span.span_context(), before);
    let spans = recorded.take();
    let span = spans.one("op");
    assert_eq!(span.span_id, before.span_id().to_bytes());
    let expected = [("key", "2".to_owned()), ("other", "3".to_owned())];
    assert_eq!(attributes(&span.attributes), BTreeMap::from(expected));
    let names: Vec<_> = span.events.iter().map(|event| &event.name).collect();
    assert_eq!(names, ["happened", "exception"]);
    for event in &span.events {
        assert!(event.time_unix_nano >= span.start_time_unix_nano);
        assert!(event.time_unix_nano <= span.end_time_unix_nano);
    }
    assert_eq!(span.links[0].span_id, to.span_id().to_bytes());
    let status = span.status.clone().unwrap();
    assert_eq!((status.code, status.message.as_str()), (2, "why"));
}

#[test]
fn ok_is_final() {
    let recorded = Recorded::new();
    recorded.api().in_span("op", |context| {
        context.span().set_status(Status::Ok);
        context.span().set_status(Status::error("too late"));
    });
    let status = recorded.take().one("op").status.clone().unwrap();
    assert_eq!((status.code, status.message.as_str()), (1, ""));
}

#[test]
fn a_span_that_is_dropped_ends_once() {
    let recorded = Recorded::new();
    drop(recorded.api().start("dropped"));
    let mut ended = recorded.api().start("ended");
    ended.end();
    drop(ended);
    assert_eq!(recorded.take().names(), ["dropped", "ended"]);
    let stats = recorded.stats();
    assert_eq!((stats.started, stats.ended), (2, 2));
}

#[test]
fn an_end_before_the_start_is_the_start() {
    let recorded = Recorded::new();
    let tracer = recorded.api();
    let mut span = tracer
        .span_builder("op")
        .with_start_time(at(100))
        .start(&tracer);
    span.end_with_timestamp(at(50));
    let mut old = tracer
        .span_builder("old")
        .with_start_time(UNIX_EPOCH - Duration::from_secs(1))
        .start(&tracer);
    old.end();
    let spans = recorded.take();
    assert_eq!(spans.one("op").end_time_unix_nano, 100_000_000_000);
    assert_eq!(spans.one("old").start_time_unix_nano, 0);
}

#[test]
fn the_active_span_is_the_parent_and_can_be_annotated() {
    let recorded = Recorded::new();
    let active = mark_span_as_active(recorded.api().start("outer"));
    let mut inner = recorded.api().start("inner");
    get_active_span(|span| span.set_attribute(KeyValue::new("seen", true)));
    inner.end();
    drop(active);
    let spans = recorded.take();
    assert_eq!(spans.parents()["inner"], "outer");
    assert_eq!(attributes(&spans.one("outer").attributes)["seen"], "true");
}

#[test]
fn a_span_is_shared_between_threads() {
    let recorded = Recorded::new();
    let context = Context::new().with_span(recorded.api().start("op"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    context.span().add_event("said", vec![]);
                }
            });
        }
    });
    context.span().end();
    let spans = recorded.take();
    let span = spans.one("op");
    assert_eq!((span.events.len(), span.dropped_events_count), (128, 272));
}
