//! B3, of Zipkin: one header `b3`, or several, `X-B3-TraceId` and its like.
//!
//! Both forms are read whichever is written, the single one first (OpenTelemetry specification, "B3 Extract"). A caller may
//! leave the decision to us, may ask for everything (debug), and may send a decision without a trace; all three are kept, see
//! [`TraceFlags`]. The caller's own parent is read over and never sent (the same section).
//!
//! Trace ids of 16 digits are the lower half of an id whose upper half is zero. What is written has 32.

use super::hex::parse_hex_of;
use super::tracecontext::trim_ows;
use super::{Carrier, CarrierMut, only, remote};
use crate::context::{SpanContext, TraceFlags};

/// The header of the single form.
pub const B3: &str = "b3";
/// 16 or 32 digits.
pub const TRACE_ID: &str = "x-b3-traceid";
/// 16 digits.
pub const SPAN_ID: &str = "x-b3-spanid";
/// `1` or `0`; absent: left to the receiver.
pub const SAMPLED: &str = "x-b3-sampled";
/// `1`: debug, which implies sampled.
pub const FLAGS: &str = "x-b3-flags";

/// Reads a `b3` header value: `{trace id}-{span id}`, perhaps with `-{state}` and `-{parent}`, or a state alone.
pub fn parse_single(header: &[u8]) -> Option<SpanContext> {
    let mut fields = trim_ows(header).split(|byte| *byte == b'-');
    let first = fields.next()?;
    let Some(span_id) = fields.next() else {
        return decision_alone(state(first)?);
    };
    let flags = fields.next().map_or(Some(TraceFlags::DEFERRED), state)?;
    let is_parent = |parent| parse_hex_of(16, parent).is_some();
    if !fields.next().is_none_or(is_parent) || fields.next().is_some() {
        return None;
    }
    remote(trace_id(first)?, self::span_id(span_id)?, flags)
}

/// The `b3` header value; `None` if there is nothing to say.
pub fn format_single(context: &SpanContext) -> Option<String> {
    let state = match decision(context.flags) {
        None => "",
        Some(TraceFlags::DEBUG) => "d",
        Some(TraceFlags::SAMPLED) => "1",
        Some(_) => "0",
    };
    if !context.is_valid() {
        let alone = context.flags.contains(TraceFlags::DECISION_ALONE);
        return alone.then(|| state.to_owned());
    }
    let dash = if state.is_empty() { "" } else { "-" };
    Some(
        [
            &*context.trace_id.to_string(),
            "-",
            &*context.span_id.to_string(),
            dash,
            state,
        ]
        .concat(),
    )
}

/// What the caller says, in either form.
pub(super) fn extract(carrier: &dyn Carrier) -> Option<SpanContext> {
    let single = only(carrier, B3, parse_single);
    match single {
        Some(context) if context.is_valid() => Some(context),
        _ => extract_multi(carrier).or(single),
    }
}

fn extract_multi(carrier: &dyn Carrier) -> Option<SpanContext> {
    let is_debug = only(carrier, FLAGS, |flags| (flags == b"1").then_some(()));
    let flags = match is_debug {
        Some(()) => TraceFlags::DEBUG,
        // What is neither of the two is no decision.
        None => only(carrier, SAMPLED, sampled).unwrap_or(TraceFlags::DEFERRED),
    };
    let ids = only(carrier, TRACE_ID, trace_id).zip(only(carrier, SPAN_ID, span_id));
    match ids {
        Some((trace_id, span_id)) => remote(trace_id, span_id, flags),
        None if flags == TraceFlags::DEFERRED => None,
        None => decision_alone(flags),
    }
}

/// Writes the single form.
pub(super) fn inject_single(context: &SpanContext, carrier: &mut dyn CarrierMut) {
    if let Some(header) = format_single(context) {
        carrier.set(B3, &header);
    }
}

/// Writes the several headers. Debug implies sampled, which is then not said (B3, "Debug Flag").
pub(super) fn inject_multi(context: &SpanContext, carrier: &mut dyn CarrierMut) {
    if context.is_valid() {
        carrier.set(TRACE_ID, &context.trace_id.to_string());
        carrier.set(SPAN_ID, &context.span_id.to_string());
    } else if !context.flags.contains(TraceFlags::DECISION_ALONE) {
        return;
    }
    match decision(context.flags) {
        None => {}
        Some(TraceFlags::DEBUG) => carrier.set(FLAGS, "1"),
        Some(TraceFlags::SAMPLED) => carrier.set(SAMPLED, "1"),
        Some(_) => carrier.set(SAMPLED, "0"),
    }
}

fn trace_id(digits: &[u8]) -> Option<u128> {
    parse_hex_of(32, digits).or_else(|| parse_hex_of(16, digits))
}

fn span_id(digits: &[u8]) -> Option<u64> {
    parse_hex_of(16, digits).and_then(|value| value.try_into().ok())
}

fn state(state: &[u8]) -> Option<TraceFlags> {
    match state {
        b"d" => Some(TraceFlags::DEBUG),
        b"1" => Some(TraceFlags::SAMPLED),
        b"0" => Some(TraceFlags::default()),
        _ => None,
    }
}

/// `true` and `false` are what old senders write (B3, "Sampling State").
fn sampled(value: &[u8]) -> Option<TraceFlags> {
    match value {
        b"1" => Some(TraceFlags::SAMPLED),
        b"0" => Some(TraceFlags::default()),
        _ if value.eq_ignore_ascii_case(b"true") => Some(TraceFlags::SAMPLED),
        _ if value.eq_ignore_ascii_case(b"false") => Some(TraceFlags::default()),
        _ => None,
    }
}

/// [`TraceFlags::DEBUG`], [`TraceFlags::SAMPLED`] or neither; `None` if it was left open.
fn decision(flags: TraceFlags) -> Option<TraceFlags> {
    if flags.contains(TraceFlags::DEBUG) {
        Some(TraceFlags::DEBUG)
    } else if flags.is_sampled() {
        Some(TraceFlags::SAMPLED)
    } else {
        (!flags.contains(TraceFlags::DEFERRED)).then_some(TraceFlags::default())
    }
}

#[expect(clippy::unnecessary_wraps, reason = "what both readers return")]
fn decision_alone(state: TraceFlags) -> Option<SpanContext> {
    Some(SpanContext {
        // The trace that starts here has an id of ours, which is random.
        flags: state
            .union(TraceFlags::DECISION_ALONE)
            .union(TraceFlags::RANDOM),
        is_remote: true,
        ..SpanContext::INVALID
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::tests::{Lines, lines};
    use proptest::collection::vec;
    use proptest::prelude::*;

    const TRACE: &str = "80f198ee56343ba864fe8b2a57d3eff7";
    const SPAN: &str = "e457b5a2e4d86bd1";

    fn said(context: Option<&SpanContext>) -> Option<String> {
        context.and_then(format_single)
    }

    #[test]
    fn single_header_rules() {
        let (trace, span, parent) = (TRACE, SPAN, "05e3ac9a4f6e3b90");
        let low = &trace[16..];
        for (header, expected) in [
            (
                format!("{trace}-{span}-1-{parent}"),
                format!("{trace}-{span}-1"),
            ),
            (format!("{trace}-{span}-1"), format!("{trace}-{span}-1")),
            (format!("{trace}-{span}-0"), format!("{trace}-{span}-0")),
            (format!("{trace}-{span}-d"), format!("{trace}-{span}-d")),
            (format!("{trace}-{span}"), format!("{trace}-{span}")),
            (format!(" {trace}-{span}\t"), format!("{trace}-{span}")),
            (format!("{low}-{span}-1"), format!("{low:0>32}-{span}-1")),
            (
                format!("{trace}-{span}-1").to_uppercase(),
                format!("{trace}-{span}-1"),
            ),
            ("0".into(), "0".into()),
            ("1".into(), "1".into()),
            ("d".into(), "d".into()),
        ] {
            assert_eq!(
                said(parse_single(header.as_bytes()).as_ref()),
                Some(expected),
                "{header:?}"
            );
        }
        for header in [
            String::new(),
            "2".into(),
            "-".into(),
            trace.into(),
            format!("{trace}-"),
            format!("-{span}-1"),
            format!("{trace}-{span}-"),
            format!("{trace}-{span}-2"),
            format!("{trace}-{span}-D"),
            format!("{trace}-{span}-{parent}"),
            format!("{trace}-{span}-1-"),
            format!("{trace}-{span}-1-{trace}"),
            format!("{trace}-{span}-1-{parent}-"),
            format!("{}-{span}-1", &trace[1..]),
            format!("{}-{span}-1", &trace[..15]),
            format!("0{trace}-{span}-1"),
            format!("{trace}-{}-1", &span[1..]),
            format!("{trace}-0{span}-1"),
            format!("{}-{span}-1", "0".repeat(32)),
            format!("{}-{span}-1", "0".repeat(16)),
            format!("{trace}-{}-1", "0".repeat(16)),
            format!("{}g-{span}-1", &trace[1..]),
            format!("{trace}-{span}-1\u{e9}"),
        ] {
            assert_eq!(parse_single(header.as_bytes()), None, "{header:?}");
        }
    }

    #[test]
    fn several_headers_say_the_same() {
        for (state, expected) in [
            (("x-b3-sampled", "1"), "-1"),
            (("x-b3-sampled", "0"), "-0"),
            (("x-b3-sampled", "true"), "-1"),
            (("x-b3-sampled", "False"), "-0"),
            (("x-b3-flags", "1"), "-d"),
            // Neither is a decision.
            (("x-b3-sampled", "maybe"), ""),
            (("x-b3-flags", "0"), ""),
        ] {
            let sent = [("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), state];
            let expected = format!("{TRACE}-{SPAN}{expected}");
            assert_eq!(
                said(extract(&lines(&sent)).as_ref()),
                Some(expected),
                "{state:?}"
            );
        }
        let alone = lines(&[("x-b3-sampled", "0")]);
        assert_eq!(said(extract(&alone).as_ref()).as_deref(), Some("0"));
        for sent in [
            &[("x-b3-traceid", TRACE)][..],
            &[("x-b3-spanid", SPAN)],
            &[
                ("x-b3-traceid", TRACE),
                ("x-b3-spanid", SPAN),
                ("x-b3-spanid", SPAN),
            ],
            &[("x-b3-traceid", "x"), ("x-b3-spanid", SPAN)],
            &[],
        ] {
            assert_eq!(extract(&lines(sent)), None, "{sent:?}");
        }
    }

    #[test]
    fn the_single_header_goes_first_and_the_others_stand_in_for_a_broken_one() {
        let (other, multi) = (
            format!("{TRACE}-{}-0", "1".repeat(16)),
            format!("{TRACE}-{SPAN}-1"),
        );
        for (single, expected) in [(&*other, &*other), ("nonsense", &multi), ("0", &multi)] {
            let sent = lines(&[
                ("x-b3-traceid", TRACE),
                ("x-b3-spanid", SPAN),
                ("x-b3-sampled", "1"),
                ("b3", single),
            ]);
            assert_eq!(
                said(extract(&sent).as_ref()).as_deref(),
                Some(expected),
                "{single}"
            );
        }
    }

    #[test]
    fn debug_is_sent_in_place_of_sampled_and_no_parent_is() {
        let debug = parse_single(format!("{TRACE}-{SPAN}-d").as_bytes()).unwrap_or_default();
        assert!(debug.is_sampled());
        let mut sent = Lines::default();
        inject_multi(&debug, &mut sent);
        let expected = [
            ("x-b3-traceid", TRACE),
            ("x-b3-spanid", SPAN),
            ("x-b3-flags", "1"),
        ];
        assert_eq!(sent.0, lines(&expected).0);
    }

    proptest! {
        #[test]
        fn parsing_a_formatted_context_is_the_identity(
            trace in 1u128.., span in 1u64.., state in 0usize..4
        ) {
            let states = [TraceFlags::default(), TraceFlags::SAMPLED, TraceFlags::DEBUG, TraceFlags::DEFERRED];
            let context = remote(trace, span, states[state]);
            let header = said(context.as_ref()).unwrap_or_default();
            prop_assert_eq!(parse_single(header.as_bytes()), context.clone());
            let mut sent = Lines::default();
            inject_multi(&context.clone().unwrap_or_default(), &mut sent);
            prop_assert_eq!(extract(&sent), context);
        }

        #[test]
        fn any_bytes_are_refused_or_sent_on_as_they_mean(header in vec(any::<u8>(), 0..70)) {
            let context = parse_single(&header);
            prop_assert_eq!(said(context.as_ref()).and_then(|header| parse_single(header.as_bytes())), context);
        }

        #[test]
        fn so_are_headers_nearly_right(header in "[0-9a-fA-F]{15,17}-[0-9a-f]{15,17}(-[01d]?(-[0-9a-f]{16})?)?") {
            let context = parse_single(header.as_bytes());
            prop_assert_eq!(said(context.as_ref()).and_then(|header| parse_single(header.as_bytes())), context);
        }
    }
}
