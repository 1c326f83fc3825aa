use std::collections::HashSet;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::ScopeSpans;
use opentelemetry_proto::tonic::trace::v1::span::Link;
use proptest::prelude::*;

use super::*;

pub(crate) const TRACE: [u8; 16] = [0x4b; 16];
const MS: u64 = 1_000_000;

/// A span of [`TRACE`] that ran from one millisecond to another. Parent 0 is none.
pub(crate) fn span(id: u8, parent: u8, name: &str, from_ms: u64, to_ms: u64) -> Span {
    Span {
        trace_id: TRACE.to_vec(),
        span_id: vec![id; 8],
        parent_span_id: if parent == 0 {
            Vec::new()
        } else {
            vec![parent; 8]
        },
        name: name.into(),
        kind: SpanKind::Internal.into(),
        start_time_unix_nano: (1_000_000 + from_ms) * MS,
        end_time_unix_nano: (1_000_000 + to_ms) * MS,
        ..Span::default()
    }
}

/// The same with a parent in another process.
pub(crate) fn remote(span: Span) -> Span {
    Span {
        flags: HAS_IS_REMOTE | IS_REMOTE | 1,
        ..span
    }
}

pub(crate) fn request(service: &str, spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![string("service.name", service)],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn string(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn failed(span: Span, message: &str) -> Span {
    let status = Status {
        message: message.into(),
        code: StatusCode::Error.into(),
    };
    Span {
        status: Some(status),
        ..span
    }
}

fn draw(spans: Vec<Span>) -> String {
    render(&[request("shop", spans)], &RenderOptions::default())
}

#[test]
fn a_request_is_drawn_as_a_tree_with_bars_durations_and_what_matters() {
    let mut root = remote(span(1, 9, "GET /items/{id}", 0, 100));
    root.kind = SpanKind::Server.into();
    root.attributes = vec![
        string("http.request.method", "GET"),
        string("http.route", "/items/{id}"),
        attribute("http.response.status_code", Value::IntValue(500)),
        string("server.address", "localhost"),
        string("cart.id", "7"),
    ];
    root.links = vec![Link::default(), Link::default()];
    let mut query = failed(span(3, 2, "SELECT", 25, 50), "timed out");
    query.kind = SpanKind::Client.into();
    query.attributes = vec![string("db.system.name", "postgresql")];
    query.events = vec![Event {
        time_unix_nano: query.start_time_unix_nano + 1_500_000,
        name: "exception".into(),
        attributes: vec![
            string("exception.type", "TimeoutError"),
            string("exception.message", "no row\nin time"),
            string("exception.stacktrace", "Traceback ..."),
        ],
        ..Event::default()
    }];
    let mut render = span(4, 1, "render", 75, 100);
    render.status = Some(Status {
        code: StatusCode::Ok.into(),
        ..Status::default()
    });
    // In the order they end.
    let drawn = draw(vec![query, span(2, 1, "load", 25, 75), render, root]);
    let expected = "\
trace 4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b4b · shop · 4 spans · 100ms · 1 error
GET /items/{id} (server) ████████████████████████   100ms status=500 cart.id=7
│ ↗ 2 links
├─ load                        ████████████      50.0ms
│  └─ SELECT (client)          ██████            25.0ms ERROR timed out db=postgresql
│       • +1.50ms TimeoutError: no row in time
└─ render                                    ██████  25.0ms ✓
";
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(flat(&drawn), flat(expected), "\n{drawn}");
    // The bars start where the spans did, whatever stands before them.
    let column = |line: usize| {
        drawn
            .lines()
            .nth(line)
            .and_then(|line| line.chars().position(|c| c == '█'))
    };
    let at = |line| column(line).zip(column(1)).map(|(bar, first)| bar - first);
    assert_eq!(
        (at(3), at(4), at(6)),
        (Some(6), Some(6), Some(18)),
        "\n{drawn}"
    );
}

#[test]
fn siblings_stand_in_the_order_they_started() {
    let drawn = draw(vec![
        span(3, 1, "second", 5, 6),
        span(2, 1, "first", 1, 9),
        span(1, 0, "root", 0, 10),
    ]);
    let order: Vec<_> = ["root", "├─ first", "└─ second"]
        .map(|name| drawn.find(name))
        .into();
    assert!(
        order.is_sorted() && order[0].is_some(),
        "{order:?}\n{drawn}"
    );
}

#[test]
fn one_trace_through_two_services_is_one_tree_that_names_the_other_service() {
    let front = request(
        "shop",
        vec![span(2, 1, "call", 1, 9), span(1, 0, "GET /", 0, 10)],
    );
    let back = request(
        "stock",
        vec![
            span(4, 3, "load", 3, 4),
            remote(span(3, 2, "GET /stock", 2, 8)),
        ],
    );
    let drawn = render(&[back, front], &RenderOptions::default());
    for expected in [
        "· stock, shop · 4 spans",
        "\n└─ call",
        "   └─ [stock] GET /stock",
        "\n      └─ load",
    ] {
        assert!(drawn.contains(expected), "{expected}\n{drawn}");
    }
}

#[test]
fn traces_are_drawn_apart_in_the_order_of_their_first_spans() {
    let mut other = span(2, 0, "other", 0, 1);
    other.trace_id = vec![7; 16];
    let drawn = draw(vec![
        span(1, 0, "first", 0, 1),
        other,
        span(3, 1, "child", 0, 1),
    ]);
    let traces: Vec<_> = drawn.split("\n\n").collect();
    assert_eq!(traces.len(), 2, "\n{drawn}");
    assert!(
        traces[0].contains("first") && traces[0].contains("└─ child"),
        "\n{drawn}"
    );
    assert!(
        traces[1].starts_with("trace 0707") && traces[1].contains("other"),
        "\n{drawn}"
    );
}

#[test]
fn an_orphan_stands_at_the_top_and_says_whose_child_it_is() {
    let drawn = draw(vec![
        span(1, 0, "root", 0, 9),
        span(5, 0xab, "orphan", 1, 2),
        remote(span(6, 0xcd, "served", 3, 4)),
    ]);
    let line = |name| {
        drawn
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_default()
    };
    assert!(
        line("orphan").contains("(parent abababababababab is not here)"),
        "\n{drawn}"
    );
    assert!(
        line("served").ends_with("ms"),
        "a remote parent is no loss\n{drawn}"
    );
}

#[test]
fn circles_of_parents_are_cut_and_every_span_is_drawn_once() {
    let drawn = draw(vec![
        span(1, 2, "hen", 0, 1),
        span(2, 1, "egg", 1, 2),
        span(3, 3, "self", 2, 3),
        span(4, 1, "chick", 3, 4),
    ]);
    for name in ["hen", "egg", "self", "chick"] {
        assert_eq!(drawn.matches(name).count(), 1, "{name}\n{drawn}");
    }
    assert_eq!(
        drawn.matches("(its parents form a circle)").count(),
        2,
        "\n{drawn}"
    );
}

#[test]
fn a_chain_of_ten_thousand_spans_keeps_its_names_in_sight() {
    let id = |number: u64| number.to_be_bytes().to_vec();
    let chain: Vec<_> = (1..=10_000_u64)
        .map(|number| Span {
            span_id: id(number),
            parent_span_id: if number == 1 {
                Vec::new()
            } else {
                id(number - 1)
            },
            ..span(0, 0, &format!("n{number}"), 0, 1)
        })
        .collect();
    let drawn = draw(chain);
    assert_eq!(drawn.lines().count(), 10_001);
    assert!(
        drawn
            .lines()
            .last()
            .is_some_and(|line| line.contains("⋯ n10000")),
        "deepest"
    );
    assert!(drawn.len() < 10_000 * 300, "{}", drawn.len());
}

#[test]
fn text_from_outside_cannot_drive_the_terminal() {
    let mut evil = failed(
        span(1, 0, "a\x1b[2Jb\r\nc\u{202e}d", 0, 1),
        "\x1b]0;title\x07",
    );
    evil.attributes = vec![
        string("key\x1b[1m", "value\u{9b}31m"),
        string("error.type", "\x08\x08"),
    ];
    evil.events = vec![Event {
        name: "\x1bevent\n".into(),
        attributes: vec![string("\x1b", "\x1b")],
        ..Event::default()
    }];
    let drawn = render(
        &[request("\x1b[5mshop", vec![evil])],
        &RenderOptions::default(),
    );
    assert!(
        !drawn.contains(|c: char| c != '\n' && (c.is_control() || c == '\u{202e}')),
        "{drawn:?}"
    );
    assert_eq!(drawn.lines().count(), 3, "{drawn}");
}

#[test]
fn colour_changes_nothing_but_colour() {
    let trace = vec![
        failed(span(1, 0, "root", 0, 2), "broken"),
        span(2, 1, "child", 0, 1),
    ];
    let options = RenderOptions {
        color: true,
        ..RenderOptions::default()
    };
    let colored = render(&[request("shop", trace.clone())], &options);
    assert!(colored.contains("\x1b[31m ERROR"), "{colored:?}");
    assert_eq!(without_colors(&colored), draw(trace));
}

#[test]
fn many_events_are_counted_and_not_listed() {
    let mut busy = span(1, 0, "busy", 0, 1);
    let attempt = |number| Event {
        name: "retry".into(),
        attributes: vec![attribute("attempt", Value::IntValue(number))],
        ..Event::default()
    };
    busy.events = (0..20).map(attempt).collect();
    busy.dropped_events_count = 3;
    let drawn = draw(vec![busy]);
    assert!(
        drawn.contains("retry attempt=7\n") && !drawn.contains("attempt=8"),
        "{drawn}"
    );
    assert!(drawn.contains("• … and 15 events\n"), "{drawn}");
}

#[test]
fn values_of_every_type_are_short_text() {
    let list = |count| {
        let values = (0..count).map(|number| AnyValue {
            value: Some(Value::IntValue(number)),
        });
        Value::ArrayValue(ArrayValue {
            values: values.collect(),
        })
    };
    let mut one = span(1, 0, "one", 0, 1);
    one.attributes = vec![
        attribute("list", list(9)),
        attribute("bytes", Value::BytesValue(vec![0; 3])),
        attribute("yes", Value::BoolValue(true)),
        string("long", &"é".repeat(1000)),
        string("fifth", "hidden"),
    ];
    let options = RenderOptions {
        width: 200,
        color: false,
    };
    let drawn = render(&[request("shop", vec![one])], &options);
    let expected = format!(
        " list=[0, 1, 2, 3, …] bytes=3 bytes yes=true long={}…\n",
        "é".repeat(31)
    );
    assert!(drawn.ends_with(&expected), "{drawn}");
}

fn without_colors(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| {
        plain + part.split_once('m').map_or("", |(_, rest)| rest)
    })
}

prop_compose! {
    /// Spans with few ids, so that duplicates, circles and orphans are common, and with wild times and names.
    fn any_span()(
        ids in [0_u8..6, 0..6, 0..3],
        times in prop::array::uniform2(prop_oneof![Just(0), any::<u64>(), Just(u64::MAX), 1_000_u64..2_000]),
        flags: u32,
        enums in prop::array::uniform2(-1_i32..9),
        name in "\\PC{0,80}|.{0,20}",
        key in "http\\.route|error\\.type|.{0,40}",
        count in 0_usize..12,
        dropped: u32,
    ) -> Span {
        let id = |number: u8| vec![number; usize::from(number % 4) * 4];
        Span {
            trace_id: vec![ids[2]; usize::from(ids[2]) * 16],
            span_id: id(ids[0]),
            parent_span_id: id(ids[1]),
            name: name.clone(),
            kind: enums[0],
            flags,
            start_time_unix_nano: times[0],
            end_time_unix_nano: times[1],
            attributes: vec![string(&key, &name), string(&name, &key)],
            events: vec![Event { name: name.clone(), time_unix_nano: times[1], ..Event::default() }; count],
            links: vec![Link::default(); count],
            dropped_events_count: dropped,
            dropped_links_count: dropped,
            status: Some(Status { message: name, code: enums[1] }),
            ..Span::default()
        }
    }
}

proptest! {
    // Drawing is slow in a debug build.
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn anything_can_be_drawn_within_the_width(
        spans in prop::collection::vec(any_span(), 0..12),
        width in 0_usize..200,
        color: bool,
    ) {
        let drawn = render(&[request("shop", spans.clone())], &RenderOptions { width, color });
        let plain = without_colors(&drawn);
        let widest = plain.lines().map(|line| line.chars().count()).max().unwrap_or(0);
        prop_assert!(widest <= width.max(MIN_WIDTH), "{widest} > {width}\n{plain}");
        let traces: HashSet<_> = spans.iter().map(|span| &span.trace_id).collect();
        let headers = plain.lines().filter(|line| line.starts_with("trace ") && line.contains(" · shop · "));
        prop_assert!(headers.count() >= traces.len(), "{plain}");
        prop_assert!(plain.lines().count() >= spans.len() + traces.len(), "{plain}");
    }

    #[test]
    fn every_span_is_placed_exactly_once(spans in prop::collection::vec(any_span(), 0..40)) {
        let entries: Vec<_> = spans.iter().map(|span| Entry { service: "shop", span }).collect();
        let mut placed: Vec<_> = tree::rows(&entries, 3).iter().map(|row| row.index).collect();
        placed.sort_unstable();
        prop_assert_eq!(placed, (0..spans.len()).collect::<Vec<_>>());
    }
}
