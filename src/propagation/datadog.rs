//! Datadog: `x-datadog-trace-id` and its like, ids in decimal.
//!
//! The header of the trace id has its lower 64 bits; the tag `_dd.p.tid` has the upper ones, in hexadecimal. A sampling priority
//! above 0 is sampled; without one the decision is ours. A parent of 0, as a browser sends it, names no span that could be a
//! parent: such headers count as absent.
//!
//! What Datadog sends beside ids and decision (a priority of -1 or 2, the origin, tags) travels on as Datadog's tracers send it
//! under W3C Trace Context: in the member `dd` of the trace state, as `s:2;o:rum;t.dm:-4`.

use super::hex::parse_hex_of;
use super::tracecontext::{tracestate_member, trim_ows};
use super::{Carrier, CarrierMut, only, remote};
use crate::context::{SpanContext, TraceFlags, TraceState};

/// Lower 64 bits of the trace id, in decimal.
pub const TRACE_ID: &str = "x-datadog-trace-id";
/// The caller's span, in decimal.
pub const PARENT_ID: &str = "x-datadog-parent-id";
/// -1 (the user rejects), 0 (rejected), 1 (kept) or 2 (the user keeps).
pub const SAMPLING_PRIORITY: &str = "x-datadog-sampling-priority";
/// The product that the trace began in.
pub const ORIGIN: &str = "x-datadog-origin";
/// `_dd.p.<name>=<value>`, separated by commas.
pub const TAGS: &str = "x-datadog-tags";

const TAG_PREFIX: &str = "_dd.p.";
/// What is longer is not read, and not written.
const MAX_TAGS: usize = 512;
/// Of a member of the trace state.
const MAX_STATE: usize = 256;

pub(super) fn extract(carrier: &dyn Carrier) -> Option<SpanContext> {
    let low = only(carrier, TRACE_ID, parse_id)?;
    let span_id = only(carrier, PARENT_ID, parse_id)?;
    let priority = only(carrier, SAMPLING_PRIORITY, parse_number::<i8>);
    let mut state = String::new();
    // The others are what the sampled flag says.
    if let Some(priority) = priority.filter(|priority| !matches!(priority, 0 | 1)) {
        push(&mut state, "s", &priority.to_string());
    }
    if let Some(origin) = only(carrier, ORIGIN, |origin| Some(encoded(origin))) {
        push(&mut state, "o", &origin);
    }
    let tags = only(carrier, TAGS, |tags| {
        (tags.len() <= MAX_TAGS).then(|| tags.to_vec())
    });
    let high = tags.map_or(0, |tags| read_tags(&tags, &mut state));
    let flags = match priority {
        None => TraceFlags::DEFERRED,
        Some(priority) => TraceFlags::default().with_sampled(priority > 0),
    };
    let mut context = remote(u128::from(high) << 64 | u128::from(low), span_id, flags)?;
    if !state.is_empty() {
        context.trace_state = TraceState::from_validated(&["dd=", &state].concat());
    }
    Some(context)
}

pub(super) fn inject(context: &SpanContext, carrier: &mut dyn CarrierMut) {
    if !context.is_valid() {
        return;
    }
    let [high, low] = halves(context);
    carrier.set(TRACE_ID, &low.to_string());
    carrier.set(
        PARENT_ID,
        &u64::from_be_bytes(context.span_id.to_bytes()).to_string(),
    );
    let state = tracestate_member(&context.trace_state, "dd").unwrap_or_default();
    let received = member(state, "s").and_then(|priority| priority.parse::<i8>().ok());
    let agrees = received.is_none_or(|priority| (priority > 0) == context.is_sampled());
    if !context.flags.contains(TraceFlags::DEFERRED) {
        let priority = received
            .filter(|_| agrees)
            .unwrap_or(i8::from(context.is_sampled()));
        carrier.set(SAMPLING_PRIORITY, &priority.to_string());
    }
    if let Some(origin) = member(state, "o") {
        carrier.set(ORIGIN, &decoded(origin));
    }
    let mut tags = String::new();
    if high != 0 {
        tags = format!("{TAG_PREFIX}tid={high:016x}");
    }
    for (name, value) in members(state) {
        // Who decided to keep it says nothing of a trace that somebody else decided on, or that is not kept.
        let keeps_decider = agrees && context.is_sampled();
        if let Some(name) = name.strip_prefix("t.")
            && (name != "dm" || keeps_decider)
            && is_tag_name(name.as_bytes())
        {
            let tag = [TAG_PREFIX, name, "=", &*decoded(value)].concat();
            if tags.len() + 1 + tag.len() <= MAX_TAGS {
                if !tags.is_empty() {
                    tags.push(',');
                }
                tags.push_str(&tag);
            }
        }
    }
    if !tags.is_empty() {
        carrier.set(TAGS, &tags);
    }
}

/// Upper and lower half of the trace id.
fn halves(context: &SpanContext) -> [u64; 2] {
    let id = u128::from_be_bytes(context.trace_id.to_bytes());
    [(id >> 64) as u64, id as u64]
}

/// Puts the tags into `state`; the upper half of the trace id.
fn read_tags(tags: &[u8], state: &mut String) -> u64 {
    let mut high = 0;
    for tag in tags.split(|byte| *byte == b',').map(trim_ows) {
        let Some(equals) = tag.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        let (name, value) = (&tag[..equals], &tag[equals + 1..]);
        let Some(name) = name.strip_prefix(TAG_PREFIX.as_bytes()) else {
            continue;
        };
        if name == b"tid" {
            let digits = parse_hex_of(16, value).and_then(|value| value.try_into().ok());
            high = digits.unwrap_or(high);
        } else if is_tag_name(name)
            && let Ok(name) = std::str::from_utf8(name)
        {
            push(state, &["t.", name].concat(), &encoded(value));
        }
    }
    high
}

/// What a trace state can hold and a tag be called. The upper half of the trace id is not kept a second time, and
/// `upstream_services` is no longer sent on.
fn is_tag_name(name: &[u8]) -> bool {
    !name.is_empty()
        && !matches!(name, b"tid" | b"upstream_services")
        && name
            .iter()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b',' | b';' | b':' | b'='))
}

/// Adds a member, if there is something in it and room for it.
fn push(state: &mut String, name: &str, value: &str) {
    if !value.is_empty() && state.len() + name.len() + value.len() + 2 <= MAX_STATE {
        if !state.is_empty() {
            state.push(';');
        }
        state.extend([name, ":", value]);
    }
}

fn members(state: &str) -> impl Iterator<Item = (&str, &str)> {
    state.split(';').filter_map(|member| member.split_once(':'))
}

fn member<'a>(state: &'a str, name: &str) -> Option<&'a str> {
    members(state).find_map(|(key, value)| (key == name).then_some(value))
}

/// A value as a trace state can hold it: `~` for an equals sign, `_` for whatever else it cannot.
fn encoded(value: &[u8]) -> String {
    let encode = |byte: &u8| match byte {
        b'=' => '~',
        b',' | b';' | b'~' => '_',
        b' '..=b'~' => char::from(*byte),
        _ => '_',
    };
    trim_ows(value).iter().map(encode).collect()
}

fn decoded(value: &str) -> String {
    value.replace('~', "=")
}

fn parse_id(digits: &[u8]) -> Option<u64> {
    parse_number(digits).filter(|id| *id != 0)
}

fn parse_number<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(trim_ows(digits)).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::tests::{Lines, lines};
    use proptest::prelude::*;

    const IDS: [(&str, &str); 2] = [
        ("x-datadog-trace-id", "1234567890123456789"),
        ("x-datadog-parent-id", "987654321"),
    ];

    fn sent_on(more: &[(&str, &str)]) -> Vec<(String, String)> {
        let received = lines(&[&IDS, more].concat());
        let mut sent = Lines::default();
        inject(&extract(&received).unwrap_or_default(), &mut sent);
        assert!(sent.0.starts_with(&lines(&IDS).0), "{:?}", sent.0);
        sent.0.split_off(IDS.len())
    }

    #[test]
    fn what_came_is_sent_on() {
        let priority = |priority| ("x-datadog-sampling-priority", priority);
        let tags = |tags| ("x-datadog-tags", tags);
        for same in [
            &[][..],
            &[priority("-1")],
            &[priority("0")],
            &[priority("1")],
            &[priority("2")],
            &[priority("1"), ("x-datadog-origin", "synthetics-browser")],
            &[
                priority("2"),
                tags("_dd.p.tid=640cfd8d00000000,_dd.p.dm=-4,_dd.p.usr.id=dXNlcg=="),
            ],
        ] {
            assert_eq!(sent_on(same), lines(same).0);
        }
        for (more, expected) in [
            // What is no priority leaves the decision to us.
            (&[priority("high")][..], &[][..]),
            (&[priority("1"), priority("1")], &[]),
            (&[priority("300")], &[]),
            (
                &[("x-datadog-origin", " r~u;m\u{e9} ")],
                &[("x-datadog-origin", "r_u_m__")],
            ),
            (
                &[tags(
                    "_dd.p.a=1,,=,b=2,_dd.p.=3,_dd.p.c:d=4,_dd.p.tid=XYZ,_dd.p.upstream_services=x,_dd.p.e= 5 ",
                )],
                &[tags("_dd.p.a=1,_dd.p.e=5")],
            ),
            (&[tags("_dd.p.tid=00000000000000000")], &[]),
        ] {
            assert_eq!(sent_on(more), lines(expected).0, "{more:?}");
        }
        let long = format!(
            "_dd.p.tid=640cfd8d00000000,_dd.p.a={}",
            "x".repeat(MAX_TAGS)
        );
        assert_eq!(sent_on(&[tags(&long)]), []);
    }

    #[test]
    fn ids_are_decimal_and_the_upper_half_is_a_tag() {
        let tag = ("x-datadog-tags", "_dd.p.tid=640cfd8d00000000");
        let context = extract(&lines(&[IDS[0], IDS[1], tag])).unwrap_or_default();
        assert_eq!(
            context.trace_id.to_string(),
            "640cfd8d00000000112210f47de98115"
        );
        assert_eq!(context.span_id.to_string(), "000000003ade68b1");
        for wrong in [
            "",
            "0",
            "-1",
            "0x1f",
            "1.0",
            "18446744073709551616",
            "\u{e9}",
            "1 2",
        ] {
            for at in 0..2 {
                let mut ids = IDS;
                ids[at].1 = wrong;
                assert_eq!(extract(&lines(&ids)), None, "{wrong:?}");
            }
        }
        assert_eq!(extract(&lines(&IDS[..1])), None);
        assert_eq!(extract(&lines(&[IDS[0], IDS[0], IDS[1]])), None);
    }

    #[test]
    fn the_rest_is_in_the_trace_state_as_datadog_has_it_there() {
        let received = lines(&[
            IDS[0],
            IDS[1],
            ("x-datadog-sampling-priority", "2"),
            ("x-datadog-origin", "a=b,c"),
            (
                "x-datadog-tags",
                "_dd.p.dm=-4,_dd.p.tid=640cfd8d00000000,_dd.p.x=y=z",
            ),
        ]);
        let context = extract(&received).unwrap_or_default();
        assert_eq!(
            context.trace_state.as_str(),
            "dd=s:2;o:a~b_c;t.dm:-4;t.x:y~z"
        );
    }

    #[test]
    fn a_decision_of_ours_replaces_the_priority_and_who_made_it() {
        let received = lines(&[
            IDS[0],
            IDS[1],
            ("x-datadog-sampling-priority", "2"),
            ("x-datadog-tags", "_dd.p.dm=-4,_dd.p.x=1"),
        ]);
        let mut context = extract(&received).unwrap_or_default();
        context.flags = context.flags.with_sampled(false);
        let mut sent = Lines::default();
        inject(&context, &mut sent);
        let expected = [
            ("x-datadog-sampling-priority", "0"),
            ("x-datadog-tags", "_dd.p.x=1"),
        ];
        assert_eq!(sent.0[2..], lines(&expected).0);
    }

    proptest! {
        #[test]
        fn extracting_what_was_injected_is_the_identity(trace in 1u128.., span in 1u64.., priority in -1i8..3) {
            prop_assume!(trace as u64 != 0);
            let flags = TraceFlags::default().with_sampled(priority > 0);
            let mut context = remote(trace, span, flags).unwrap_or_default();
            if !matches!(priority, 0 | 1) {
                context.trace_state = TraceState::from_validated(&format!("dd=s:{priority}"));
            }
            let mut sent = Lines::default();
            inject(&context, &mut sent);
            prop_assert_eq!(extract(&sent), Some(context));
        }

        #[test]
        fn any_text_makes_a_legal_trace_state(
            priority: String, origin: String, tags in "(_dd\\.p\\.)?\\PC{0,20}=?(,(_dd\\.p\\.)\\PC{0,20}=\\PC{0,300}){0,4}"
        ) {
            let received = lines(&[
                IDS[0], IDS[1],
                ("x-datadog-sampling-priority", &priority), ("x-datadog-origin", &origin), ("x-datadog-tags", &tags),
            ]);
            let context = extract(&received).unwrap_or_default();
            let state = context.trace_state.as_str();
            let read = super::super::tracecontext::parse_tracestate(std::iter::once(state.as_bytes()));
            prop_assert_eq!(read.as_str(), state);
            let mut sent = Lines::default();
            inject(&context, &mut sent);
            for (name, value) in &sent.0 {
                prop_assert!(value.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{}: {:?}", name, value);
            }
        }
    }
}
