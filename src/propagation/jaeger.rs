//! Jaeger's native format: `uber-trace-id`, and a header `uberctx-<name>` for each member of the baggage.
//!
//! `{trace id}:{span id}:{parent}:{flags}`, in hexadecimal, of which leading zeros may be left out; some senders percent-encode
//! the whole. The parent is deprecated: it is read over, and sent as 0. Bit 0 of the flags is sampled, and bit 1 beside it is
//! debug (Jaeger, "Propagation Format").

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};

use super::baggage::{Baggage, MAX_LEN, MAX_MEMBERS, token};
use super::hex::{parse_hex, parse_hex_u64};
use super::tracecontext::trim_ows;
use super::{Carrier, CarrierMut, only, remote};
use crate::context::{SpanContext, TraceFlags};

/// The header that identifies the caller's span.
pub const UBER_TRACE_ID: &str = "uber-trace-id";
/// What the names of the headers of baggage start with.
pub const UBERCTX: &str = "uberctx-";

/// No header is longer, all of it percent-encoded.
const MAX_HEADER: usize = 3 * (32 + 16 + 16 + 2 + 3);
/// Some readers take a plus sign for a space, and some do not.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Reads an `uber-trace-id` header value.
pub fn parse_uber_trace_id(header: &[u8]) -> Option<SpanContext> {
    let header = trim_ows(header);
    if header.len() > MAX_HEADER {
        return None;
    }
    let header: Cow<'_, [u8]> = percent_decode(header).into();
    let mut fields = header.split(|byte| *byte == b':');
    let (trace_id, span_id) = (fields.next()?, fields.next()?);
    let (_parent, flags) = (fields.next()?, fields.next()?);
    if fields.next().is_some() || flags.len() > 2 {
        return None;
    }
    let flags = match parse_hex(flags)? & 3 {
        3 => TraceFlags::DEBUG,
        1 => TraceFlags::SAMPLED,
        _ => TraceFlags::default(),
    };
    remote(parse_hex(trace_id)?, parse_hex_u64(span_id)?, flags)
}

/// The `uber-trace-id` header value of a valid context.
pub fn format_uber_trace_id(context: &SpanContext) -> String {
    let flags = if context.flags.contains(TraceFlags::DEBUG) {
        ":0:3"
    } else if context.is_sampled() {
        ":0:1"
    } else {
        ":0:0"
    };
    [
        &*context.trace_id.to_string(),
        ":",
        &*context.span_id.to_string(),
        flags,
    ]
    .concat()
}

pub(super) fn extract(carrier: &dyn Carrier) -> Option<SpanContext> {
    only(carrier, UBER_TRACE_ID, parse_uber_trace_id)
}

/// The members that came, within the limits of W3C's baggage.
pub(super) fn extract_baggage(carrier: &dyn Carrier) -> Baggage {
    let mut members = Vec::new();
    let mut len = 0;
    carrier.values_below(UBERCTX, &mut |key, value| {
        let with_separators = key.len() + value.len() + 2;
        if members.len() < MAX_MEMBERS
            && len + with_separators <= MAX_LEN + 1
            && let Some(key) = token(key)
        {
            len += with_separators;
            members.push((key.to_ascii_lowercase(), decoded(value)));
        }
    });
    members.into_iter().collect()
}

/// Octets that are not UTF-8 become U+FFFD, as in W3C's baggage.
fn decoded(value: &[u8]) -> String {
    let spaced: Vec<u8> = trim_ows(value)
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    percent_decode(&spaced).decode_utf8_lossy().into_owned()
}

pub(super) fn inject(context: &SpanContext, carrier: &mut dyn CarrierMut) {
    if context.is_valid() {
        carrier.set(UBER_TRACE_ID, &format_uber_trace_id(context));
    }
}

/// A header for each member. Properties stay behind: the format has none.
pub(super) fn inject_baggage(baggage: &Baggage, carrier: &mut dyn CarrierMut) {
    let mut len = 0;
    for entry in baggage.iter().take(MAX_MEMBERS) {
        let value = utf8_percent_encode(entry.value, ENCODED).to_string();
        let with_separators = entry.key.len() + value.len() + 2;
        if token(entry.key.as_bytes()).is_some() && len + with_separators <= MAX_LEN + 1 {
            len += with_separators;
            carrier.set_named(&[UBERCTX, entry.key].concat(), &value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::tests::{Lines, lines};
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn uber_trace_id_rules() {
        for (header, expected) in [
            (
                "80f198ee56343ba864fe8b2a57d3eff7:e457b5a2e4d86bd1:05e3ac9a4f6e3b90:1",
                "80f198ee56343ba864fe8b2a57d3eff7:e457b5a2e4d86bd1:0:1",
            ),
            (
                "3:2:1:0",
                "00000000000000000000000000000003:0000000000000002:0:0",
            ),
            (
                "3:2:0:3",
                "00000000000000000000000000000003:0000000000000002:0:3",
            ),
            (
                "3:2::01",
                "00000000000000000000000000000003:0000000000000002:0:1",
            ),
            // Debug alone is nothing, and bits that are not ours are not sent on.
            (
                "3:2:0:02",
                "00000000000000000000000000000003:0000000000000002:0:0",
            ),
            (
                "3:2:0:fd",
                "00000000000000000000000000000003:0000000000000002:0:1",
            ),
            (
                "AbC%3a0D%3A%30%3a1",
                "00000000000000000000000000000abc:000000000000000d:0:1",
            ),
            (
                " 3:2:0:1\t",
                "00000000000000000000000000000003:0000000000000002:0:1",
            ),
        ] {
            let context = parse_uber_trace_id(header.as_bytes()).unwrap_or_default();
            assert_eq!(format_uber_trace_id(&context), expected, "{header}");
        }
        let long = format!("{}:2:0:1", "1".repeat(33));
        let encoded = "%30".repeat(80);
        for header in [
            "",
            "::::",
            "3:2:0",
            "3:2:0:",
            "3:2:0:1:",
            "3:2:0:001",
            "3:2:0:g",
            "0:2:0:1",
            "3:0:0:1",
            ":2:0:1",
            "3::0:1",
            "3:12345678901234567:0:1",
            "3 :2:0:1",
            "%3:2:0:1",
            "3:2:0:1,3:2:0:1",
            &long,
            &encoded,
        ] {
            assert_eq!(parse_uber_trace_id(header.as_bytes()), None, "{header:?}");
        }
    }

    #[test]
    fn every_member_of_the_baggage_is_a_header() {
        let came = lines(&[
            ("uberctx-user", "a%20b+c"),
            ("uberctx-", "no name"),
            ("uberctx-a b", "no token"),
            ("xuberctx-x", "not ours"),
            ("uberctx-user", "later"),
            ("uberctx-raw", "\u{e9}=1,2"),
        ]);
        let baggage = extract_baggage(&came);
        assert_eq!((baggage.len(), baggage.get("user")), (2, Some("later")));
        let mut sent = Lines::default();
        inject_baggage(&baggage.with("plus", "1+1 é"), &mut sent);
        let expected = [
            ("uberctx-user", "later"),
            ("uberctx-raw", "%C3%A9%3D1%2C2"),
            ("uberctx-plus", "1%2B1%20%C3%A9"),
        ];
        assert_eq!(sent.0, lines(&expected).0);
        assert_eq!(extract_baggage(&sent).get("plus"), Some("1+1 é"));
    }

    #[test]
    fn no_more_baggage_is_carried_than_in_the_header_of_w3c() {
        let names: Vec<_> = (0..70).map(|n| format!("uberctx-k{n}")).collect();
        let many: Vec<_> = names.iter().map(|name| (&**name, "v")).collect();
        assert_eq!(extract_baggage(&lines(&many)).len(), MAX_MEMBERS);
        let value = "v".repeat(3000);
        let large: Vec<_> = names.iter().map(|name| (&**name, &*value)).collect();
        assert_eq!(extract_baggage(&lines(&large)).len(), 2);
        let mut sent = Lines::default();
        let pairs = names.iter().map(|name| (name.clone(), value.clone()));
        inject_baggage(&pairs.collect(), &mut sent);
        assert_eq!(sent.0.len(), 2);
    }

    proptest! {
        #[test]
        fn parsing_a_formatted_context_is_the_identity(trace in 1u128.., span in 1u64.., state in 0usize..3) {
            let states = [TraceFlags::default(), TraceFlags::SAMPLED, TraceFlags::DEBUG];
            let context = remote(trace, span, states[state]);
            let header = format_uber_trace_id(&context.clone().unwrap_or_default());
            prop_assert_eq!(parse_uber_trace_id(header.as_bytes()), context);
        }

        #[test]
        fn leading_zeros_may_be_left_out(trace in 1u128.., span in 1u64..) {
            let (long, short) = (format!("{trace:032x}:{span:016x}:0:1"), format!("{trace:x}:{span:x}:0:1"));
            prop_assert_eq!(parse_uber_trace_id(long.as_bytes()), parse_uber_trace_id(short.as_bytes()));
        }

        #[test]
        fn any_bytes_are_refused_or_sent_on_as_they_mean(header in vec(any::<u8>(), 0..70)) {
            if let Some(context) = parse_uber_trace_id(&header) {
                prop_assert_eq!(parse_uber_trace_id(format_uber_trace_id(&context).as_bytes()), Some(context));
            }
        }

        #[test]
        fn any_baggage_survives(members in vec(("[a-z0-9.-]{1,12}", any::<String>()), 0..10)) {
            let baggage: Baggage = members.into_iter().map(|(key, value)| (key, value.trim().to_owned())).collect();
            let mut sent = Lines::default();
            inject_baggage(&baggage, &mut sent);
            prop_assert_eq!(extract_baggage(&sent), baggage);
        }
    }
}
