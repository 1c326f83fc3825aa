//! W3C Trace Context: the `traceparent` and `tracestate` headers.
//!
//! Rules are cited by the specification's headings; where the editor's draft of June 2026 differs from Level 2 (the at sign
//! in `tracestate` keys), the draft is followed. `traceparent` is read and written without allocating; reading `tracestate`
//! allocates once, for the text that is carried on.

use crate::context::{SpanContext, TraceFlags, TraceState};
use crate::id::{SpanId, TraceId, nibble};

/// The header that identifies the caller's span.
pub const TRACEPARENT: &str = "traceparent";
/// The header that carries vendors' state.
pub const TRACESTATE: &str = "tracestate";

/// `tracestate` characters that are carried on: what "`tracestate` Limits" asks for at least. No more than that, because the
/// text is also sent with every exported span, and a client chooses it.
pub const TRACESTATE_MAX_LEN: usize = 512;

const TRACEPARENT_LEN: usize = 55;
const TRACESTATE_MAX_MEMBERS: usize = 32;
/// Members longer than this are the first to go ("`tracestate` Limits").
const TRACESTATE_LONG_MEMBER: usize = 128;
const TRACESTATE_MAX_KEY: usize = 256;
const TRACESTATE_MAX_VALUE: usize = 256;

/// Reads a `traceparent` header value. The result is remote and has no trace state.
///
/// `None` means that the header is invalid: the receiver starts a new trace and leaves `tracestate` alone.
#[inline]
pub fn parse_traceparent(header: &[u8]) -> Option<SpanContext> {
    let header = trim_ows(header);
    let (fields, rest) = header.split_first_chunk::<TRACEPARENT_LEN>()?;
    let version = hex_byte([fields[0], fields[1]])?;
    // A later version may append fields, each behind a dash ("Versioning of `traceparent`"). Version 00 has none.
    let ends_well = rest.is_empty() || (version != 0 && rest[0] == b'-');
    if version == 0xff || !ends_well || [fields[2], fields[35], fields[52]] != [b'-'; 3] {
        return None;
    }
    let trace_id = TraceId::from_hex(&fields[3..35])?;
    let span_id = SpanId::from_hex(&fields[36..52])?;
    let flags = TraceFlags::from_byte(hex_byte([fields[53], fields[54]])?);
    let context = SpanContext {
        trace_id,
        span_id,
        // Of a version we do not know, only the sampled bit has a meaning (the same section).
        flags: if version == 0 {
            flags
        } else {
            TraceFlags::default().with_sampled(flags.is_sampled())
        },
        is_remote: true,
        trace_state: TraceState::EMPTY,
    };
    context.is_valid().then_some(context)
}

/// The `traceparent` header value of a valid context, always version 00, as ASCII.
pub fn format_traceparent(context: &SpanContext) -> [u8; TRACEPARENT_LEN] {
    let mut header = *b"00-................................-................-0.";
    header[3..35].copy_from_slice(&context.trace_id.to_hex());
    header[36..52].copy_from_slice(&context.span_id.to_hex());
    // Only the two lowest bits are ever set.
    header[54] = b'0' + context.flags.to_byte();
    header
}

/// Reads the `tracestate` headers of a request, in order.
///
/// One illegal member, or a 33rd, discards the whole list: what remains of a damaged list cannot be trusted to be in
/// order. Duplicate keys are sent on as they came. A list over [`TRACESTATE_MAX_LEN`] characters loses whole members:
/// from the end first those over 128 characters, then any.
pub fn parse_tracestate<'a>(headers: impl Iterator<Item = &'a [u8]>) -> TraceState {
    let mut members = [&[][..]; TRACESTATE_MAX_MEMBERS];
    let mut count = 0;
    for member in headers.flat_map(|header| header.split(|byte| *byte == b',')) {
        let member = trim_ows(member);
        if member.is_empty() {
            continue;
        }
        if count == TRACESTATE_MAX_MEMBERS || !is_tracestate_member(member) {
            return TraceState::EMPTY;
        }
        members[count] = member;
        count += 1;
    }
    join_tracestate(&mut members[..count])
}

/// The value of the first member with this key.
pub(super) fn tracestate_member<'a>(state: &'a TraceState, key: &str) -> Option<&'a str> {
    state
        .as_str()
        .split(',')
        .find_map(|member| member.strip_prefix(key)?.strip_prefix('='))
}

/// The members of `front`, then those of `state` with other keys ("Mutating the `tracestate` Field"); whole members go that
/// are too many.
pub(super) fn tracestate_before(front: &TraceState, state: &TraceState) -> TraceState {
    let is_new = |member: &&str| {
        let key = member.split('=').next();
        key.is_some_and(|key| tracestate_member(front, key).is_none())
    };
    let kept = state.as_str().split(',').filter(is_new);
    let mut members = [&[][..]; TRACESTATE_MAX_MEMBERS];
    let mut count = 0;
    for (place, member) in members
        .iter_mut()
        .zip(front.as_str().split(',').chain(kept))
    {
        *place = member.as_bytes();
        count += 1;
    }
    join_tracestate(&mut members[..count])
}

/// Joins the members that fit. A member that must go becomes empty; empty members are not written.
fn join_tracestate(members: &mut [&[u8]]) -> TraceState {
    let mut len = members
        .iter()
        .map(|member| member.len() + 1)
        .sum::<usize>()
        .saturating_sub(1);
    for shortest_to_cut in [TRACESTATE_LONG_MEMBER + 1, 1] {
        for member in members.iter_mut().rev() {
            if len > TRACESTATE_MAX_LEN && member.len() >= shortest_to_cut {
                len = len.saturating_sub(member.len() + 1);
                *member = &[];
            }
        }
    }
    let mut joined = [0; TRACESTATE_MAX_LEN];
    let mut end = 0;
    for member in members.iter().filter(|member| !member.is_empty()) {
        if end > 0 {
            joined[end] = b',';
            end += 1;
        }
        joined[end..end + member.len()].copy_from_slice(member);
        end += member.len();
    }
    // Every member was found to be ASCII.
    std::str::from_utf8(&joined[..end]).map_or(TraceState::EMPTY, TraceState::from_validated)
}

/// Whether `member`, without white space around it, is `key=value` ("`list-members`").
fn is_tracestate_member(member: &[u8]) -> bool {
    let Some(equals) = member.iter().position(|byte| *byte == b'=') else {
        return false;
    };
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    let key_starts_well = key
        .first()
        .is_some_and(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'));
    key_starts_well
        && key.len() <= TRACESTATE_MAX_KEY
        && key.iter().all(
            |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@'),
        )
        && (1..=TRACESTATE_MAX_VALUE).contains(&value.len())
        && value
            .iter()
            .all(|byte| matches!(byte, b' '..=b'~') && *byte != b'=')
}

#[inline]
fn hex_byte([high, low]: [u8; 2]) -> Option<u8> {
    Some(nibble(high)? << 4 | nibble(low)?)
}

/// Removes optional white space, spaces and tabs, from both ends (RFC 9110, section 5.6.3).
#[inline]
pub(super) fn trim_ows(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn flags(header: &str) -> Option<u8> {
        parse_traceparent(header.as_bytes()).map(|context| context.flags.to_byte())
    }

    #[test]
    fn traceparent_rules() {
        let accepted = [
            (format!("00-{TRACE}-{SPAN}-00"), 0),
            (format!("00-{TRACE}-{SPAN}-01"), 1),
            (format!("00-{TRACE}-{SPAN}-03"), 3),
            (format!("00-{TRACE}-{SPAN}-ff"), 3),
            (format!(" \t00-{TRACE}-{SPAN}-01\t "), 1),
            // Of a higher version's flags only the sampled bit is used.
            (format!("01-{TRACE}-{SPAN}-03"), 1),
            (format!("cc-{TRACE}-{SPAN}-02-what-the-future-holds"), 0),
            (format!("fe-{TRACE}-{SPAN}-01-"), 1),
        ];
        for (header, expected) in accepted {
            assert_eq!(flags(&header), Some(expected), "{header:?}");
        }

        let refused = [
            String::new(),
            "00".into(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-0"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-011"),
            format!("01-{TRACE}-{SPAN}-01.more"),
            format!("01-{TRACE}-{SPAN}-011"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("ff-{TRACE}-{SPAN}-01-more"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
            format!("00-{TRACE}-{SPAN}-0A"),
            format!("0A-{TRACE}-{SPAN}-01"),
            format!("0g-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}_{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}_01"),
            format!("00-{}.-{SPAN}-01", &TRACE[1..]),
            format!("00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01"),
        ];
        for header in refused {
            assert_eq!(flags(&header), None, "{header:?}");
        }
    }

    #[test]
    fn a_parsed_parent_is_remote_and_stateless() {
        let context =
            parse_traceparent(format!("00-{TRACE}-{SPAN}-01").as_bytes()).unwrap_or_default();
        assert_eq!(context.trace_id.to_string(), TRACE);
        assert_eq!(context.span_id.to_string(), SPAN);
        assert!(context.is_remote && context.trace_state.is_empty());
    }

    #[test]
    fn what_is_sent_on_is_version_00() {
        let context =
            parse_traceparent(format!("42-{TRACE}-{SPAN}-ff-more").as_bytes()).unwrap_or_default();
        assert_eq!(
            format_traceparent(&context),
            *format!("00-{TRACE}-{SPAN}-01").as_bytes()
        );
    }

    fn state(headers: &[&str]) -> String {
        parse_tracestate(headers.iter().map(|header| header.as_bytes()))
            .as_str()
            .to_owned()
    }

    #[test]
    fn tracestate_rules() {
        let long_key = "k".repeat(256);
        let long_value = "v".repeat(256);
        let kept = [
            ("a=1", "a=1"),
            ("a=1,b=2", "a=1,b=2"),
            (" a=1\t, \tb=2 ", "a=1,b=2"),
            (",a=1,,b=2,", "a=1,b=2"),
            // Leading spaces belong to the value, trailing ones do not.
            ("a=  1  ,b=2", "a=  1,b=2"),
            ("a=b c!~", "a=b c!~"),
            ("0tenant@system=1", "0tenant@system=1"),
            ("a@@_-*/=1", "a@@_-*/=1"),
            ("a=1,a=2,a=1", "a=1,a=2,a=1"),
            (&format!("{long_key}=1"), &format!("{long_key}=1")),
            (&format!("a={long_value}"), &format!("a={long_value}")),
        ];
        for (header, expected) in kept {
            assert_eq!(state(&[header]), expected, "{header:?}");
        }

        let discarded = [
            "",
            ", \t,",
            "a",
            "=1",
            "a=",
            "a=,b=2",
            "a=  ,b=2",
            "a=1=2",
            "a =1",
            "A=1",
            "@a=1",
            "_a=1",
            "a.b=1",
            "a=\u{e9}",
            "a=1\t2",
            "a=\u{7f}",
            "good=1,B=2",
            &format!("{long_key}k=1"),
            &format!("a={long_value}v"),
        ];
        for header in discarded {
            assert_eq!(state(&[header]), "", "{header:?}");
        }
    }

    #[test]
    fn repeated_tracestate_headers_are_one_list() {
        assert_eq!(state(&["a=1", "", "b=2,c=3"]), "a=1,b=2,c=3");
        assert_eq!(state(&["a=1", "B=2"]), "");
    }

    #[test]
    fn a_33rd_member_discards_the_list() {
        let list = |members: usize| {
            (0..members)
                .map(|n| format!("k{n}=v"))
                .collect::<Vec<_>>()
                .join(",")
        };
        assert_eq!(state(&[&list(32)]), list(32));
        assert_eq!(state(&[&list(33)]), "");
        assert_eq!(state(&[&list(32), "one=more"]), "");
        assert_eq!(
            state(&[&format!("{},,", list(32))]),
            list(32),
            "empty members do not count"
        );
    }

    #[test]
    fn a_long_list_loses_its_long_members_first_and_then_its_last() {
        let of_len = |key: &str, len: usize| format!("{key}={}", "v".repeat(len - key.len() - 1));
        let (long, other_long) = (of_len("long", 129), of_len("other", 200));
        let short = ["a", "b", "c", "d", "e"].map(|key| of_len(key, 100));

        // 129 + 1 + 382 = 512 characters: nothing to cut.
        let fits = format!("{long},{},{}", of_len("x", 128), of_len("y", 253));
        assert_eq!(fits.len(), 512);
        assert_eq!(state(&[&fits]), fits);
        // One more, and the last of the long members goes.
        assert_eq!(
            state(&[&format!("{fits}z")]),
            format!("{long},{}", of_len("x", 128))
        );
        assert_eq!(
            state(&[&format!(
                "{long},{},{other_long},{}",
                short[..3].join(","),
                short[3]
            )]),
            short[..4].join(",")
        );
        // 128 characters are not long; without long members the list is cut from its end.
        let all = short.join(",");
        assert_eq!(state(&[&format!("{all},{}", of_len("f", 128))]), all);
        // The long members alone did not suffice.
        assert_eq!(
            state(&[&format!("{long},{all},f=1,{other_long},g=1,h=1")]),
            format!("{all},f=1,g=1")
        );
    }

    prop_compose! {
        fn valid_context()(trace in 1u128.., span in 1u64.., flags in 0u8..4) -> SpanContext {
            SpanContext {
                trace_id: TraceId::from_bytes(trace.to_be_bytes()),
                span_id: SpanId::from_bytes(span.to_be_bytes()),
                flags: TraceFlags::from_byte(flags),
                is_remote: true,
                trace_state: TraceState::EMPTY,
            }
        }
    }

    proptest! {
        #[test]
        fn parsing_a_formatted_traceparent_is_the_identity(context in valid_context()) {
            prop_assert_eq!(parse_traceparent(&format_traceparent(&context)), Some(context));
        }

        #[test]
        fn any_bytes_are_refused_or_sent_on_as_a_valid_traceparent(header in vec(any::<u8>(), 0..80)) {
            if let Some(context) = parse_traceparent(&header) {
                prop_assert_eq!(parse_traceparent(&format_traceparent(&context)), Some(context));
            }
        }

        #[test]
        fn one_damaged_byte_never_panics(context in valid_context(), at in 0usize..55, byte: u8) {
            let mut header = format_traceparent(&context);
            header[at] = byte;
            if let Some(context) = parse_traceparent(&header) {
                prop_assert!(context.is_valid());
            }
        }

        #[test]
        fn what_is_carried_on_of_any_tracestate_is_read_back_unchanged(
            headers in vec(vec(any::<u8>(), 0..40), 0..4)
        ) {
            let state = parse_tracestate(headers.iter().map(Vec::as_slice));
            prop_assert_eq!(parse_tracestate(std::iter::once(state.as_str().as_bytes())), state);
        }

        #[test]
        fn a_legal_tracestate_keeps_its_order_and_its_limit(
            members in vec("[a-z0-9][a-z0-9_*/@-]{0,40}=[ -+.-<>-~]{0,150}[!-+.-<>-~]", 0..33)
        ) {
            let state = parse_tracestate(members.iter().map(String::as_bytes));
            prop_assert!(state.as_str().len() <= TRACESTATE_MAX_LEN);
            if members.join(",").len() <= TRACESTATE_MAX_LEN {
                prop_assert_eq!(state.as_str(), members.join(","));
            } else {
                let mut sent = members.iter();
                for kept in state.as_str().split(',') {
                    prop_assert!(sent.any(|member| member == kept), "{kept} is out of order");
                }
            }
        }
    }
}
