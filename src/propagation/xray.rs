//! AWS X-Ray: `X-Amzn-Trace-Id: Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1`.
//!
//! The members come in any order; those that we do not know (`Self`, `Lineage`) are read over. Without `Sampled`, or with
//! `Sampled=?`, the decision is ours. A `Root` without a `Parent`, as a load balancer sends it, names no span that could be a
//! parent: it counts as absent.

use super::hex::parse_hex_of;
use super::tracecontext::trim_ows;
use super::{Carrier, CarrierMut, only, remote};
use crate::context::{SpanContext, TraceFlags};

/// The header, in lower case.
pub const X_AMZN_TRACE_ID: &str = "x-amzn-trace-id";

/// Reads an `X-Amzn-Trace-Id` header value.
pub fn parse_trace_header(header: &[u8]) -> Option<SpanContext> {
    let (mut root, mut parent, mut flags) = (None, None, TraceFlags::DEFERRED);
    for member in header.split(|byte| *byte == b';').map(trim_ows) {
        if let Some(value) = member.strip_prefix(b"Root=") {
            root = Some(parse_root(value)?);
        } else if let Some(value) = member.strip_prefix(b"Parent=") {
            parent = Some(u64::try_from(parse_hex_of(16, value)?).ok()?);
        } else if let Some(value) = member.strip_prefix(b"Sampled=") {
            flags = match value {
                b"1" => TraceFlags::SAMPLED,
                b"0" => TraceFlags::default(),
                _ => TraceFlags::DEFERRED,
            };
        }
    }
    remote(root?, parent?, flags)
}

/// `1-{8 digits, seconds since 1970}-{24 digits}`: together the trace id.
fn parse_root(root: &[u8]) -> Option<u128> {
    let (time, unique) = root.strip_prefix(b"1-")?.split_at_checked(8)?;
    let (time, unique) = (
        parse_hex_of(8, time)?,
        parse_hex_of(24, unique.strip_prefix(b"-")?)?,
    );
    Some(time << 96 | unique)
}

/// The `X-Amzn-Trace-Id` header value of a valid context.
pub fn format_trace_header(context: &SpanContext) -> String {
    let trace_id = context.trace_id.to_string();
    let (time, unique) = trace_id.split_at(8);
    let sampled = if context.is_sampled() {
        ";Sampled=1"
    } else if context.flags.contains(TraceFlags::DEFERRED) {
        ""
    } else {
        ";Sampled=0"
    };
    let span_id = context.span_id.to_string();
    ["Root=1-", time, "-", unique, ";Parent=", &*span_id, sampled].concat()
}

pub(super) fn extract(carrier: &dyn Carrier) -> Option<SpanContext> {
    only(carrier, X_AMZN_TRACE_ID, parse_trace_header)
}

pub(super) fn inject(context: &SpanContext, carrier: &mut dyn CarrierMut) {
    if context.is_valid() {
        carrier.set(X_AMZN_TRACE_ID, &format_trace_header(context));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const ROOT: &str = "Root=1-5759e988-bd862e3fe1be46a994272793";
    const PARENT: &str = "Parent=53995c3f42cd8ad8";

    #[test]
    fn trace_header_rules() {
        for (header, state) in [
            (format!("{ROOT};{PARENT};Sampled=1"), ";Sampled=1"),
            (format!("{ROOT};{PARENT};Sampled=0"), ";Sampled=0"),
            (format!("{ROOT};{PARENT};Sampled=?"), ""),
            (format!("{ROOT};{PARENT};Sampled="), ""),
            (format!("{ROOT};{PARENT}"), ""),
            (format!("Sampled=1;{PARENT};{ROOT}"), ";Sampled=1"),
            (format!(" {ROOT} ; {PARENT} ;\tSampled=1 ;"), ";Sampled=1"),
            (
                format!(
                    "Self=1-67891234-12456789abcdef012345678;{ROOT};{PARENT};Sampled=1;Lineage=a87bd80c:1;garbage;=;\u{e9}"
                ),
                ";Sampled=1",
            ),
            (
                format!(
                    "{};Sampled=1",
                    [ROOT, PARENT].join(";").replace("bd862e3f", "BD862E3F")
                ),
                ";Sampled=1",
            ),
        ] {
            let context = parse_trace_header(header.as_bytes()).unwrap_or_default();
            assert_eq!(
                format_trace_header(&context),
                format!("{ROOT};{PARENT}{state}"),
                "{header}"
            );
        }
        for header in [
            "",
            "Sampled=0",
            PARENT,
            // What a load balancer sends.
            ROOT,
            &format!("{ROOT};Parent=;Sampled=1"),
            &format!("{ROOT};{PARENT}0;Sampled=1"),
            &format!("{ROOT};Parent={};Sampled=1", "0".repeat(16)),
            &format!("{ROOT}0;{PARENT};Sampled=1"),
            &format!("Root=2-5759e988-bd862e3fe1be46a994272793;{PARENT};Sampled=1"),
            &format!("Root=1-5759e98-8bd862e3fe1be46a994272793;{PARENT}"),
            &format!("Root=1-5759e988bd862e3fe1be46a994272793;{PARENT}"),
            &format!("Root=1-5759e988-bd862e3fe1be46a99427279\u{e9};{PARENT}"),
            &format!("Root=1-00000000-000000000000000000000000;{PARENT}"),
            &format!("root=1-5759e988-bd862e3fe1be46a994272793;{PARENT}"),
        ] {
            assert_eq!(parse_trace_header(header.as_bytes()), None, "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_a_formatted_context_is_the_identity(trace in 1u128.., span in 1u64.., state in 0usize..3) {
            let states = [TraceFlags::default(), TraceFlags::SAMPLED, TraceFlags::DEFERRED];
            let context = remote(trace, span, states[state]);
            let header = format_trace_header(&context.clone().unwrap_or_default());
            prop_assert_eq!(parse_trace_header(header.as_bytes()), context);
        }

        #[test]
        fn any_bytes_are_refused_or_sent_on_as_they_mean(header in vec(any::<u8>(), 0..80)) {
            if let Some(context) = parse_trace_header(&header) {
                prop_assert_eq!(parse_trace_header(format_trace_header(&context).as_bytes()), Some(context));
            }
        }

        #[test]
        fn so_are_headers_nearly_right(header in "(Root=1-[0-9a-f]{7,9}-[0-9a-f]{24};?|Parent=[0-9a-f]{16};?|Sampled=[01?]?;?){0,4}") {
            if let Some(context) = parse_trace_header(header.as_bytes()) {
                prop_assert_eq!(parse_trace_header(format_trace_header(&context).as_bytes()), Some(context));
            }
        }
    }
}
