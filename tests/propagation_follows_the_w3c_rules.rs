//! A service between two others: what it receives in HTTP headers, and what it sends on.
//!
//! Written as the W3C's own test harness for Trace Context sees a service: only headers go in and come out.

use http::{HeaderMap, HeaderName, HeaderValue};
use rvh_trace::context::{Context, SpanContext};
use rvh_trace::id::SpanId;
use rvh_trace::propagation::{Propagators, extract_headers, inject_headers};

const TRACE: &str = "12345678901234567890123456789012";
const PARENT: &str = "00-12345678901234567890123456789012-1234567890123456-01";

fn headers(lines: &[(&'static str, &[u8])]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let value = HeaderValue::from_bytes(value).unwrap_or(HeaderValue::from_static(""));
        headers.append(HeaderName::from_static(name), value);
    }
    headers
}

/// What the service sends on: a span of its own in the trace it was given, or in a new one.
fn sends_on(lines: &[(&'static str, &[u8])]) -> HeaderMap {
    let received = extract_headers(&Propagators::default(), &headers(lines));
    let span = if received.span.is_valid() {
        SpanContext {
            span_id: SpanId::random(),
            is_remote: false,
            ..received.span
        }
    } else {
        SpanContext::INVALID
    };
    let mut sent = HeaderMap::new();
    let context = Context {
        span,
        baggage: received.baggage,
    };
    inject_headers(&Propagators::default(), &context, &mut sent);
    sent
}

fn sent<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Whether the service goes on with the trace of these `traceparent` headers.
fn continues(traceparents: &[&[u8]]) -> bool {
    let lines: Vec<_> = traceparents
        .iter()
        .map(|value| ("traceparent", *value))
        .collect();
    sent(&sends_on(&lines), "traceparent").contains(TRACE)
}

#[test]
fn a_valid_parent_is_continued_with_a_span_of_our_own() {
    let sent_on = sends_on(&[("traceparent", PARENT.as_bytes())]);
    let traceparent = sent(&sent_on, "traceparent");
    assert!(
        traceparent.starts_with(&format!("00-{TRACE}-")) && traceparent.ends_with("-01"),
        "{traceparent}"
    );
    assert!(
        !traceparent.contains("1234567890123456-01"),
        "{traceparent} names the caller's span"
    );
    assert_eq!(sent_on.len(), 1, "nothing else was received: {sent_on:?}");
}

#[test]
fn an_invalid_parent_is_not_continued() {
    let invalid: &[&[u8]] = &[
        b"",
        b"ff-12345678901234567890123456789012-1234567890123456-01",
        b"00-00000000000000000000000000000000-1234567890123456-01",
        b"00-12345678901234567890123456789012-0000000000000000-01",
        b"00-1234567890123456789012345678901-1234567890123456-01",
        b"00-123456789012345678901234567890123-1234567890123456-01",
        b"00-12345678901234567890123456789012-1234567890123456-01.",
        b"00-12345678901234567890123456789012-1234567890123456-01-what-the-future-holds",
        b"00-12345678901234567890ABCDEF789012-1234567890123456-01",
        b"00-12345678901234567890123456789012-1234567890123456-.1",
        b"\xff0-12345678901234567890123456789012-1234567890123456-01",
    ];
    for header in invalid {
        assert!(!continues(&[header]), "{}", header.escape_ascii());
    }
    assert!(!continues(&[]));
    assert!(
        !continues(&[PARENT.as_bytes(), PARENT.as_bytes()]),
        "sent twice"
    );
    assert!(continues(&[PARENT.as_bytes()]));
}

#[test]
fn a_parent_of_a_later_version_is_continued_as_version_00() {
    for version in ["01", "cc", "fe"] {
        for rest in ["", "-", "-what-the-future-holds"] {
            let header = format!("{version}{}{rest}", &PARENT[2..]);
            let sent_on = sends_on(&[("traceparent", header.as_bytes())]);
            let traceparent = sent(&sent_on, "traceparent");
            assert!(
                traceparent.starts_with(&format!("00-{TRACE}-")),
                "{header}: {traceparent}"
            );
            assert_eq!(traceparent.len(), 55, "{header}: {traceparent}");
        }
        let header = format!("{version}{}.what-the-future-holds", &PARENT[2..]);
        assert!(!continues(&[header.as_bytes()]), "{header}");
    }
}

#[test]
fn the_random_bit_is_kept_and_unknown_bits_are_cleared() {
    for (received, expected) in [
        ("00", "-00"),
        ("01", "-01"),
        ("02", "-02"),
        ("03", "-03"),
        ("fc", "-00"),
        ("ff", "-03"),
    ] {
        let header = format!("{}{received}", &PARENT[..53]);
        let sent_on = sends_on(&[("traceparent", header.as_bytes())]);
        let traceparent = sent(&sent_on, "traceparent");
        assert!(traceparent.ends_with(expected), "{received}: {traceparent}");
    }
}

#[test]
fn tracestate_is_sent_on_in_order_and_never_without_its_parent() {
    let parent = ("traceparent", PARENT.as_bytes());
    let sent_on = sends_on(&[
        ("tracestate", b"foo=1,bar=2"),
        parent,
        ("tracestate", b"rojo=1, congo=2"),
    ]);
    assert_eq!(sent(&sent_on, "tracestate"), "foo=1,bar=2,rojo=1,congo=2");

    let sent_on = sends_on(&[("traceparent", b"00-invalid"), ("tracestate", b"foo=1")]);
    assert!(sent_on.is_empty(), "{sent_on:?}");
}

#[test]
fn a_damaged_tracestate_is_dropped_and_the_trace_goes_on() {
    let thirty_three = (0..33)
        .map(|n| format!("k{n}=1"))
        .collect::<Vec<_>>()
        .join(",");
    for state in [
        "foo =1",
        "FOO=1",
        "foo.bar=1",
        "foo@=1,bar",
        "foo=bar=baz",
        "foo=,bar=3",
        &thirty_three,
    ] {
        let sent_on = sends_on(&[
            ("traceparent", PARENT.as_bytes()),
            ("tracestate", state.as_bytes()),
        ]);
        assert!(sent(&sent_on, "traceparent").contains(TRACE), "{state}");
        assert_eq!(sent_on.get("tracestate"), None, "{state}");
    }
}

#[test]
fn at_least_512_characters_of_tracestate_are_sent_on() {
    let member = |key: char| format!("{key}={}", "v".repeat(126));
    let full = ('a'..='d').map(member).collect::<Vec<_>>().join(",");
    let (exact, over) = (&full[..full.len() - 3], format!("{full},e=1"));
    for (state, expected) in [(exact, exact), (&over, &full[..128 * 3 + 2])] {
        let sent_on = sends_on(&[
            ("traceparent", PARENT.as_bytes()),
            ("tracestate", state.as_bytes()),
        ]);
        assert_eq!(
            sent(&sent_on, "tracestate"),
            expected,
            "{} characters",
            state.len()
        );
    }
}

#[test]
fn baggage_travels_without_a_trace_and_malformed_members_stay_behind() {
    let sent_on = sends_on(&[
        (
            "baggage",
            b"userId=alice;secret, not a member,serverNode = DF%2028",
        ),
        ("baggage", b"emoji=%F0%9F%90%8D"),
    ]);
    assert_eq!(
        sent(&sent_on, "baggage"),
        "userId=alice;secret,serverNode=DF%2028,emoji=%F0%9F%90%8D"
    );
    assert_eq!(sent_on.len(), 1, "{sent_on:?}");
}
