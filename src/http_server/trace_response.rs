//! Response headers that tell the client which trace its request became part of.

use super::named_set::named_set;
use crate::context::SpanContext;
use crate::propagation::tracecontext::format_traceparent;

/// The header of the W3C draft of June 2026, which browsers show to scripts. An application may send others of that name.
pub const SERVER_TIMING: &str = "server-timing";
/// The header of earlier drafts.
pub const TRACERESPONSE: &str = "traceresponse";
/// The header that lets scripts of another origin read the two (Fetch standard, "CORS protocol").
pub const EXPOSE_HEADERS: &str = "access-control-expose-headers";

const METRIC: &[u8; 11] = b"trace;desc=";
const IDENTITY_LEN: usize = 55;
const SERVER_TIMING_LEN: usize = METRIC.len() + IDENTITY_LEN;

named_set! {
    /// The headers to send; none unless asked for.
    pub struct TraceResponseHeaders(u8) {
        /// `Server-Timing: trace;desc=...`.
        SERVER_TIMING = "server-timing",
        /// `traceresponse: ...`.
        TRACERESPONSE = "traceresponse",
    }
}

impl Default for TraceResponseHeaders {
    fn default() -> Self {
        Self::NONE
    }
}

impl TraceResponseHeaders {
    /// The value of [`EXPOSE_HEADERS`] that makes them readable; empty if none is sent.
    pub const fn exposed(self) -> &'static str {
        match (self.has(Self::SERVER_TIMING), self.has(Self::TRACERESPONSE)) {
            (true, true) => "server-timing, traceresponse",
            (true, false) => SERVER_TIMING,
            (false, true) => TRACERESPONSE,
            (false, false) => "",
        }
    }
}

/// The value of `traceresponse`: `00-<trace-id>-<span-id>-<flags>`, as ASCII. The span is the server's own.
pub fn format_traceresponse(context: &SpanContext) -> [u8; IDENTITY_LEN] {
    format_traceparent(context)
}

/// The value of `Server-Timing`: one metric, `trace;desc=00-<trace-id>-<span-id>-<flags>`, as ASCII.
pub fn format_server_timing(context: &SpanContext) -> [u8; SERVER_TIMING_LEN] {
    let mut value = [0; SERVER_TIMING_LEN];
    let (metric, identity) = value.split_at_mut(METRIC.len());
    metric.copy_from_slice(METRIC);
    identity.copy_from_slice(&format_traceresponse(context));
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::propagation::tracecontext::parse_traceparent;
    use proptest::prelude::*;

    #[test]
    fn both_headers_name_the_span() {
        const IDENTITY: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03";
        let context = parse_traceparent(IDENTITY.as_bytes()).unwrap_or_default();
        assert_eq!(format_traceresponse(&context), IDENTITY.as_bytes());
        assert_eq!(
            format_server_timing(&context),
            format!("trace;desc={IDENTITY}").as_bytes()
        );
    }

    #[test]
    fn what_is_sent_is_exposed() {
        for (names, exposed) in [
            (&[][..], ""),
            (&["Server-Timing"], "server-timing"),
            (&["traceresponse"], "traceresponse"),
            (
                &["traceresponse", "server-timing"],
                "server-timing, traceresponse",
            ),
        ] {
            let headers: TraceResponseHeaders =
                names.iter().filter_map(|name| name.parse().ok()).collect();
            assert_eq!(headers.exposed(), exposed);
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_is_read_back(identity in "00-[0-9a-f]{31}[1-9]-[0-9a-f]{15}[1-9]-0[0-3]") {
            let context = parse_traceparent(identity.as_bytes()).unwrap_or_default();
            let value = format_server_timing(&context);
            prop_assert_eq!(value.strip_prefix(METRIC), Some(identity.as_bytes()));
        }
    }
}
