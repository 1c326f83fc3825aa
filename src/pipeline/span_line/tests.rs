use opentelemetry_proto::tonic::common::v1::{ArrayValue, KeyValueList};
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{Status, span::SpanKind};
use proptest::prelude::*;

use super::*;

fn attribute(key: &str, of: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(of) }),
        ..KeyValue::default()
    }
}

fn text(text: &str) -> Value {
    Value::StringValue(text.to_owned())
}

fn span() -> Span {
    Span {
        trace_id: vec![0xab; 16],
        span_id: vec![0x12; 8],
        parent_span_id: vec![0x34; 8],
        name: "check out".to_owned(),
        kind: SpanKind::Client.into(),
        start_time_unix_nano: 1_000_000_000,
        end_time_unix_nano: 1_012_300_000,
        attributes: vec![
            attribute("cart.id", Value::IntValue(7)),
            attribute("a key", text("a \"b\"\n")),
        ],
        events: vec![Event {
            time_unix_nano: 1_003_200_000,
            name: "retry".to_owned(),
            attributes: vec![attribute("attempt", Value::IntValue(2))],
            ..Event::default()
        }],
        links: vec![Link::default()],
        status: Some(Status {
            code: StatusCode::Error.into(),
            message: "no stock".to_owned(),
        }),
        ..Span::default()
    }
}

fn compact(service: &str, span: &Span) -> String {
    let mut out = Vec::new();
    put_compact(&mut out, service, span);
    String::from_utf8_lossy(&out).into_owned()
}

fn json(service: &str, span: &Span) -> serde_json::Value {
    let mut out = Vec::new();
    put_json(&mut out, service, span);
    let newlines = out.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    assert!(newlines.map(|(at, _)| at).eq([out.len() - 1]));
    serde_json::from_slice(&out).unwrap_or_default()
}

#[test]
fn a_compact_line_holds_everything_in_order() {
    let line = "1970-01-01T00:00:01.012300Z 12.3ms shop check out trace_id=abababababababababababababababab \
                span_id=1212121212121212 parent_span_id=3434343434343434 kind=client status=error \
                status_description=\"no stock\" cart.id=7 \"a key\"=\"a \\\"b\\\"\\u000a\" links=1 \
                | +3.20ms retry attempt=2\n";
    assert_eq!(compact("shop", &span()), line);
}

#[test]
fn a_compact_line_of_a_plain_root_is_short() {
    let root = Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: "op".to_owned(),
        kind: SpanKind::Internal.into(),
        ..Span::default()
    };
    let line = "1970-01-01T00:00:00.000000Z 0ns shop op trace_id=01010101010101010101010101010101 \
                span_id=0202020202020202\n";
    assert_eq!(compact("shop", &root), line);
}

#[test]
fn a_json_line_is_an_object_with_all_of_the_span() {
    let mut span = span();
    span.attributes = vec![
        attribute("text", text("é\u{1}")),
        attribute("bool", Value::BoolValue(true)),
        attribute("int", Value::IntValue(i64::MIN)),
        attribute("double", Value::DoubleValue(0.5)),
        attribute("nan", Value::DoubleValue(f64::NAN)),
        attribute("bytes", Value::BytesValue(vec![0, 255])),
        attribute(
            "list",
            Value::ArrayValue(ArrayValue {
                values: vec![
                    AnyValue::default(),
                    AnyValue {
                        value: Some(text("b")),
                    },
                ],
            }),
        ),
        attribute(
            "map",
            Value::KvlistValue(KeyValueList {
                values: vec![attribute("k", Value::IntValue(1)), attribute("l", text(""))],
            }),
        ),
    ];
    span.dropped_events_count = 3;
    let expected = serde_json::json!({
        "time": "1970-01-01T00:00:01.012300Z",
        "service": "shop",
        "name": "check out",
        "kind": "client",
        "trace_id": "abababababababababababababababab",
        "span_id": "1212121212121212",
        "parent_span_id": "3434343434343434",
        "start_unix_ns": 1_000_000_000,
        "end_unix_ns": 1_012_300_000,
        "duration_ns": 12_300_000,
        "status": "error",
        "status_description": "no stock",
        "attributes": {
            "text": "é\u{1}", "bool": true, "int": i64::MIN, "double": 0.5, "nan": "NaN", "bytes": "AP8=",
            "list": [null, "b"], "map": {"k": 1, "l": ""},
        },
        "events": [{"unix_ns": 1_003_200_000, "name": "retry", "attributes": {"attempt": 2}}],
        "links": [{"trace_id": "", "span_id": "", "attributes": {}}],
        "dropped_events": 3,
    });
    assert_eq!(json("shop", &span), expected);
}

proptest! {
    #[test]
    fn whatever_a_span_holds_stays_on_its_line(
        service: String, name: String, key: String, word: String, start: u64, end: u64, double: f64,
    ) {
        let mut span = span();
        span.attributes = vec![attribute(&key, text(&word)), attribute("d", Value::DoubleValue(double))];
        (span.start_time_unix_nano, span.end_time_unix_nano) = (start, end);
        span.name.clone_from(&name);
        let line = compact(&service, &span);
        prop_assert!(line.ends_with('\n'));
        prop_assert!(!line.trim_end_matches('\n').chars().any(char::is_control));
        let read = json(&service, &span);
        prop_assert_eq!(&read["name"], &serde_json::Value::from(name));
        prop_assert_eq!(&read["attributes"][&key], &serde_json::Value::from(word));
    }
}
