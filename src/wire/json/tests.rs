#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram,
    HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary,
    SummaryDataPoint, exemplar, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Event, Link};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message as _;

use super::*;

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Any::StringValue(value.into()))
}

/// A request with this span alone.
fn request(span: Span) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: vec![span],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

fn json_of(span: Span) -> String {
    String::from_utf8(traces(&request(span).encode_to_vec()).unwrap()).unwrap()
}

/// The JSON of the attributes of a span that has nothing else.
fn json_of_attributes(attributes: Vec<KeyValue>) -> String {
    let json = json_of(Span {
        attributes,
        ..Span::default()
    });
    let inner = json
        .strip_prefix(r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":["#)
        .and_then(|json| json.strip_suffix("]}]}]}]}"));
    inner.unwrap().to_owned()
}

/// Every key, in the order of the schema, with a value that shows the rule for its type (OTLP specification, "JSON Protobuf
/// Encoding"; protobuf documentation, "JSON Mapping").
#[test]
fn a_span_is_written_as_the_specification_says() {
    let span = Span {
        trace_id: (0..16).map(|byte| byte * 0x11).collect(),
        span_id: vec![0xab, 0xcd, 0xef, 1, 2, 3, 4, 5],
        trace_state: "a=b".into(),
        parent_span_id: vec![0xee; 8],
        flags: 0x101,
        name: "GET /\"é\"\n".into(),
        kind: 2,
        start_time_unix_nano: u64::MAX,
        end_time_unix_nano: 1_544_712_661_000_000_000,
        attributes: vec![text("k", "v")],
        dropped_attributes_count: 1,
        events: vec![Event {
            time_unix_nano: 3,
            name: "e".into(),
            attributes: vec![text("k", "v"), text("l", "w")],
            dropped_attributes_count: 2,
        }],
        dropped_events_count: 4,
        links: vec![
            Link {
                trace_id: vec![1; 16],
                span_id: vec![2; 8],
                trace_state: "c=d".into(),
                attributes: vec![text("k", "v")],
                dropped_attributes_count: 5,
                flags: 1,
            },
            Link::default(),
        ],
        dropped_links_count: 6,
        status: Some(Status {
            message: "no".into(),
            code: 2,
        }),
    };
    let expected = concat!(
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"#,
        r#""traceId":"00112233445566778899aabbccddeeff","#,
        r#""spanId":"abcdef0102030405","#,
        r#""traceState":"a=b","parentSpanId":"eeeeeeeeeeeeeeee","flags":257,"#,
        r#""name":"GET /\"é\"\u000a","kind":2,"#,
        r#""startTimeUnixNano":"18446744073709551615","endTimeUnixNano":"1544712661000000000","#,
        r#""attributes":[{"key":"k","value":{"stringValue":"v"}}],"droppedAttributesCount":1,"#,
        r#""events":[{"timeUnixNano":"3","name":"e","attributes":[{"key":"k","value":{"stringValue":"v"}},"#,
        r#"{"key":"l","value":{"stringValue":"w"}}],"droppedAttributesCount":2}],"droppedEventsCount":4,"#,
        r#""links":[{"traceId":"01010101010101010101010101010101","spanId":"0202020202020202","#,
        r#""traceState":"c=d","attributes":[{"key":"k","value":{"stringValue":"v"}}],"#,
        r#""droppedAttributesCount":5,"flags":1},{}],"droppedLinksCount":6,"#,
        r#""status":{"message":"no","code":2}}]}]}]}"#,
    );
    assert_eq!(json_of(span), expected);
}

#[test]
fn attribute_values_are_written_by_their_type() {
    for (value, expected) in [
        (Any::StringValue(String::new()), r#""stringValue":"""#),
        (
            Any::StringValue("\0\u{1f}\\/".into()),
            r#""stringValue":"\u0000\u001f\\/""#,
        ),
        (Any::BoolValue(true), r#""boolValue":true"#),
        (Any::BoolValue(false), r#""boolValue":false"#),
        (
            Any::IntValue(i64::MIN),
            r#""intValue":"-9223372036854775808""#,
        ),
        (Any::IntValue(0), r#""intValue":"0""#),
        (Any::DoubleValue(0.1), r#""doubleValue":0.1"#),
        (Any::DoubleValue(-0.0), r#""doubleValue":-0.0"#),
        (Any::DoubleValue(1e300), r#""doubleValue":1e300"#),
        (Any::DoubleValue(5e-324), r#""doubleValue":5e-324"#),
        (Any::DoubleValue(f64::NAN), r#""doubleValue":"NaN""#),
        (
            Any::DoubleValue(f64::INFINITY),
            r#""doubleValue":"Infinity""#,
        ),
        (
            Any::DoubleValue(f64::NEG_INFINITY),
            r#""doubleValue":"-Infinity""#,
        ),
        (Any::BytesValue(vec![]), r#""bytesValue":"""#),
        (Any::BytesValue(vec![0xff]), r#""bytesValue":"/w==""#),
        (Any::BytesValue(vec![0xfb, 0xef]), r#""bytesValue":"++8=""#),
        (
            Any::BytesValue(b"abcd".to_vec()),
            r#""bytesValue":"YWJjZA==""#,
        ),
    ] {
        let json = json_of_attributes(vec![attribute("k", value)]);
        assert_eq!(json, format!(r#"{{"key":"k","value":{{{expected}}}}}"#));
    }
    let nested = Any::ArrayValue(ArrayValue {
        values: vec![
            AnyValue {
                value: Some(Any::IntValue(1)),
            },
            AnyValue { value: None },
            AnyValue {
                value: Some(Any::KvlistValue(KeyValueList {
                    values: vec![text("k", "v")],
                })),
            },
        ],
    });
    let empty = Any::ArrayValue(ArrayValue::default());
    assert_eq!(
        json_of_attributes(vec![attribute("", empty)]),
        r#"{"key":"","value":{"arrayValue":{"values":[]}}}"#,
        "readers insist on these"
    );
    assert_eq!(
        json_of_attributes(vec![attribute("k", nested)]),
        concat!(
            r#"{"key":"k","value":{"arrayValue":{"values":[{"intValue":"1"},{},"#,
            r#"{"kvlistValue":{"values":[{"key":"k","value":{"stringValue":"v"}}]}}]}}}"#,
        )
    );
}

/// Every field of every kind of metric.
#[expect(clippy::too_many_lines, reason = "a list")]
fn metrics_request() -> ExportMetricsServiceRequest {
    let exemplar = |value| Exemplar {
        filtered_attributes: vec![text("f", "v")],
        time_unix_nano: 9,
        span_id: vec![0xab; 8],
        trace_id: vec![0xcd; 16],
        value: Some(value),
    };
    let number = |value| NumberDataPoint {
        attributes: vec![text("k", "v")],
        start_time_unix_nano: 1,
        time_unix_nano: u64::MAX,
        exemplars: vec![
            exemplar(exemplar::Value::AsInt(-7)),
            exemplar(exemplar::Value::AsDouble(0.5)),
        ],
        flags: 1,
        value: Some(value),
    };
    let metric = |name: &str, data| Metric {
        name: name.into(),
        description: "what".into(),
        unit: "s".into(),
        metadata: vec![text("m", "v")],
        data: Some(data),
    };
    let metrics = vec![
        metric(
            "gauge",
            Data::Gauge(Gauge {
                data_points: vec![
                    number(number_data_point::Value::AsDouble(1.5)),
                    number(number_data_point::Value::AsInt(i64::MIN)),
                ],
            }),
        ),
        metric(
            "sum",
            Data::Sum(Sum {
                data_points: vec![number(number_data_point::Value::AsInt(0))],
                aggregation_temporality: 2,
                is_monotonic: true,
            }),
        ),
        metric(
            "histogram",
            Data::Histogram(Histogram {
                data_points: vec![HistogramDataPoint {
                    attributes: vec![text("k", "v")],
                    start_time_unix_nano: 1,
                    time_unix_nano: 2,
                    count: 6,
                    sum: Some(0.0),
                    bucket_counts: vec![1, 0, u64::MAX],
                    explicit_bounds: vec![0.005, 10.0],
                    exemplars: vec![exemplar(exemplar::Value::AsDouble(1e-9))],
                    flags: 1,
                    min: Some(-1.5),
                    max: Some(1e300),
                }],
                aggregation_temporality: 1,
            }),
        ),
        metric(
            "exponential",
            Data::ExponentialHistogram(ExponentialHistogram {
                data_points: vec![ExponentialHistogramDataPoint {
                    attributes: vec![text("k", "v")],
                    start_time_unix_nano: 1,
                    time_unix_nano: 2,
                    count: 6,
                    sum: Some(3.5),
                    scale: -10,
                    zero_count: 4,
                    positive: Some(Buckets {
                        offset: i32::MIN,
                        bucket_counts: vec![1, 300, u64::MAX],
                    }),
                    negative: Some(Buckets {
                        offset: i32::MAX,
                        bucket_counts: vec![],
                    }),
                    flags: 1,
                    exemplars: vec![exemplar(exemplar::Value::AsInt(1))],
                    min: Some(1.0),
                    max: Some(2.0),
                    zero_threshold: 0.25,
                }],
                aggregation_temporality: 1,
            }),
        ),
        metric(
            "summary",
            Data::Summary(Summary {
                data_points: vec![SummaryDataPoint {
                    attributes: vec![text("k", "v")],
                    start_time_unix_nano: 1,
                    time_unix_nano: 2,
                    count: 3,
                    sum: 4.5,
                    quantile_values: vec![ValueAtQuantile {
                        quantile: 0.99,
                        value: 7.0,
                    }],
                    flags: 1,
                }],
            }),
        ),
    ];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: vec![text("service.name", "shop")],
                dropped_attributes_count: 1,
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(InstrumentationScope {
                    name: "scope".into(),
                    version: "1".into(),
                    attributes: vec![text("k", "v")],
                    dropped_attributes_count: 2,
                }),
                metrics,
                schema_url: "scope schema".into(),
            }],
            schema_url: "resource schema".into(),
        }],
    }
}

#[test]
fn every_kind_of_metric_reads_back_by_the_official_definitions() {
    let request = metrics_request();
    let json = metrics(&request.encode_to_vec()).unwrap();
    let read: ExportMetricsServiceRequest = serde_json::from_slice(&json).unwrap();
    assert_eq!(read, request);
    let json = String::from_utf8(json).unwrap();
    for part in [
        r#""asInt":"-9223372036854775808""#,
        r#""bucketCounts":["1","0","18446744073709551615"]"#,
        r#""explicitBounds":[0.005,10.0]"#,
        r#""aggregationTemporality":2,"isMonotonic":true"#,
        r#""scale":-10"#,
        r#""offset":-2147483648"#,
        r#""spanId":"abababababababab","traceId":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd""#,
    ] {
        assert!(json.contains(part), "{part} in {json}");
    }
}

#[test]
fn a_field_that_is_there_twice_has_its_last_value_and_unknown_ones_are_left_out() {
    let span = |name: &str| Span {
        name: name.into(),
        ..Span::default()
    };
    let mut bytes = span("first").encode_to_vec();
    bytes.extend(span("last").encode_to_vec());
    // Field 100: a varint, then eight bytes, a message and four bytes.
    for unknown in [
        &[0xa0, 6, 1][..],
        &[0xa1, 6, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0xa2, 6, 1, 0],
        &[0xa5, 6, 1, 2, 3, 4],
    ] {
        bytes.extend(unknown);
    }
    let mut out = Vec::new();
    let Kind::Message(resource_spans) = schema::TRACES.0[0].kind else {
        unreachable!()
    };
    let Kind::Message(scope_spans) = resource_spans.0[1].kind else {
        unreachable!()
    };
    let Kind::Message(span) = scope_spans.0[1].kind else {
        unreachable!()
    };
    put_message(&mut out, span, &bytes, 0).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), r#"{"name":"last"}"#);
}

#[test]
fn rubbish_and_endless_depth_are_refused() {
    for rubbish in [
        &b"\x0a\x7f"[..],
        b"\x0b",
        b"\x08\x01",
        b"\xff",
        b"\x0a\x02\x0a\x05",
    ] {
        assert_eq!(traces(rubbish), None, "{rubbish:?}");
    }
    assert_eq!(traces(b""), Some(b"{}".to_vec()));
    let mut deep = Any::IntValue(1);
    for _ in 0..200 {
        deep = Any::ArrayValue(ArrayValue {
            values: vec![AnyValue { value: Some(deep) }],
        });
    }
    let span = Span {
        attributes: vec![attribute("k", deep)],
        ..Span::default()
    };
    assert_eq!(traces(&request(span).encode_to_vec()), None);
}

#[test]
fn answers_are_read_with_numbers_as_strings_and_as_numbers() {
    for (body, expected) in [
        ("{}", None),
        ("", None),
        ("<html>", None),
        ("[1]", None),
        (r#"{"partialSuccess":null}"#, None),
        (r#"{"partialSuccess":{}}"#, Some((0, ""))),
        (
            r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"old"}}"#,
            Some((3, "old")),
        ),
        (
            r#"{"partialSuccess":{"errorMessage":"old","rejectedDataPoints":2}}"#,
            Some((2, "old")),
        ),
        (r#"{"partialSuccess":{"rejectedSpans":-1}}"#, Some((0, ""))),
        (r#"{"partialSuccess":{"rejectedSpans":"x"}}"#, Some((0, ""))),
    ] {
        let expected = expected.map(|(rejected, message)| (rejected, message.to_owned()));
        assert_eq!(partial_success(body.as_bytes()), expected, "{body}");
    }
    assert_eq!(
        status_message(br#"{"code":3,"message":"no such tenant"}"#).as_deref(),
        Some("no such tenant")
    );
    assert_eq!(status_message(b"no"), None);
}
