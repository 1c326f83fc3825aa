//! Trace context and baggage across process borders: header bytes in, a [`Context`] out, and back.
//!
//! Nothing here fails or panics, whatever the bytes: a header that breaks its format's rules counts as absent. The
//! formats know nothing of requests; a [`Carrier`] hands them header values, a [`CarrierMut`] takes them. Callable from
//! any thread. Extracting a valid `traceparent` costs a few tens of nanoseconds and allocates nothing; `tracestate`,
//! `baggage` and the headers of `jaeger` and `datadog` allocate when present.

pub mod b3;
pub mod baggage;
pub mod datadog;
pub mod headers;
mod hex;
pub mod jaeger;
mod propagator;
pub mod tracecontext;
pub mod xray;

pub use baggage::Baggage;
pub use headers::{extract_headers, inject_headers};
pub use propagator::{Propagator, Propagators};

use crate::context::{SpanContext, TraceFlags};
use crate::id::{SpanId, TraceId};

/// Where incoming header values are read from.
pub trait Carrier {
    /// Calls `each` with every value of the header `name`, given in lower case, in the order they arrived.
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8]));

    /// Calls `each` with what follows `prefix`, given in lower case, in the name of every header that begins so, and with the
    /// header's value.
    fn values_below(&self, prefix: &str, each: &mut dyn FnMut(&[u8], &[u8]));
}

/// Where outgoing header values go.
pub trait CarrierMut {
    /// Sets the header `name`, in lower case, replacing what was there.
    fn set(&mut self, name: &'static str, value: &str);

    /// [`Self::set`] for a name that is made at run time. It is an HTTP token, and in the case that somebody gave it.
    fn set_named(&mut self, name: &str, value: &str);
}

fn extract_span(carrier: &dyn Carrier) -> Option<SpanContext> {
    // Two callers cannot both be the parent, so neither is (W3C Trace Context, "`traceparent` Header").
    let mut span = only(
        carrier,
        tracecontext::TRACEPARENT,
        tracecontext::parse_traceparent,
    )?;
    if let Some(header) = joined(carrier, tracecontext::TRACESTATE) {
        span.trace_state = tracecontext::parse_tracestate(std::iter::once(&*header));
    }
    Some(span)
}

fn inject_span(span: &SpanContext, carrier: &mut dyn CarrierMut) {
    if !span.is_valid() {
        return;
    }
    if let Ok(traceparent) = std::str::from_utf8(&tracecontext::format_traceparent(span)) {
        carrier.set(tracecontext::TRACEPARENT, traceparent);
    }
    if !span.trace_state.is_empty() {
        carrier.set(tracecontext::TRACESTATE, span.trace_state.as_str());
    }
}

/// What `parse` makes of the header `name`. Of two callers neither is the parent, as W3C Trace Context has it for
/// `traceparent`: a header that came more than once is absent.
fn only<T>(
    carrier: &dyn Carrier,
    name: &str,
    mut parse: impl FnMut(&[u8]) -> Option<T>,
) -> Option<T> {
    let mut values = 0;
    let mut parsed = None;
    carrier.values(name, &mut |value| {
        values += 1;
        parsed = if values == 1 { parse(value) } else { None };
    });
    parsed
}

/// The context of a caller; `None` if an id is zero.
fn remote(trace_id: u128, span_id: u64, flags: TraceFlags) -> Option<SpanContext> {
    let context = SpanContext {
        trace_id: TraceId::from_bytes(trace_id.to_be_bytes()),
        span_id: SpanId::from_bytes(span_id.to_be_bytes()),
        flags,
        is_remote: true,
        ..SpanContext::INVALID
    };
    context.is_valid().then_some(context)
}

/// All values of a list header as one (RFC 9110, section 5.3), or `None` when there is none.
fn joined(carrier: &dyn Carrier, name: &str) -> Option<Vec<u8>> {
    let mut header: Option<Vec<u8>> = None;
    carrier.values(name, &mut |value| match &mut header {
        None => header = Some(value.to_vec()),
        Some(header) => {
            header.push(b',');
            header.extend_from_slice(value);
        }
    });
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// Header lines, in order.
    #[derive(Default)]
    pub(super) struct Lines(pub(super) Vec<(String, String)>);

    impl Carrier for Lines {
        fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
            for (_, value) in self.0.iter().filter(|(line, _)| line == name) {
                each(value.as_bytes());
            }
        }

        fn values_below(&self, prefix: &str, each: &mut dyn FnMut(&[u8], &[u8])) {
            for (line, value) in &self.0 {
                if let Some(rest) = line.strip_prefix(prefix) {
                    each(rest.as_bytes(), value.as_bytes());
                }
            }
        }
    }

    impl CarrierMut for Lines {
        fn set(&mut self, name: &'static str, value: &str) {
            self.set_named(name, value);
        }

        fn set_named(&mut self, name: &str, value: &str) {
            self.0.retain(|(line, _)| line != name);
            self.0.push((name.into(), value.into()));
        }
    }

    pub(super) fn lines(lines: &[(&str, &str)]) -> Lines {
        Lines(
            lines
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
        )
    }

    #[test]
    fn what_is_injected_is_extracted() {
        let sent = lines(&[
            ("traceparent", PARENT),
            ("tracestate", "a=1"),
            ("baggage", "k=v%20w;p=1"),
        ]);
        let context = Propagators::default().extract(&sent);
        let mut resent = Lines::default();
        Propagators::default().inject(&context, &mut resent);
        assert_eq!(resent.0, sent.0);
    }

    #[test]
    fn a_second_traceparent_starts_a_new_trace() {
        for second in [PARENT, "garbage"] {
            let sent = lines(&[
                ("traceparent", PARENT),
                ("traceparent", second),
                ("tracestate", "a=1"),
            ]);
            assert_eq!(
                Propagators::default().extract(&sent).span,
                SpanContext::INVALID,
                "{second}"
            );
            let sent = lines(&[
                ("traceparent", second),
                ("traceparent", PARENT),
                ("tracestate", "a=1"),
            ]);
            assert_eq!(
                Propagators::default().extract(&sent).span,
                SpanContext::INVALID,
                "{second}"
            );
        }
    }

    #[test]
    fn tracestate_is_not_looked_at_without_a_valid_traceparent() {
        let sent = lines(&[("traceparent", "00-bad"), ("tracestate", "a=1")]);
        assert_eq!(Propagators::default().extract(&sent), Context::default());
    }

    #[test]
    fn repeated_list_headers_are_joined_in_order() {
        let sent = lines(&[
            ("tracestate", "a=1"),
            ("traceparent", PARENT),
            ("baggage", "x=1"),
            ("tracestate", "b=2,c=3"),
            ("baggage", "y=2"),
        ]);
        let context = Propagators::default().extract(&sent);
        assert_eq!(context.span.trace_state.as_str(), "a=1,b=2,c=3");
        assert_eq!(
            baggage::format_baggage(&context.baggage).as_deref(),
            Some("x=1,y=2")
        );
    }

    #[test]
    fn nothing_is_injected_for_an_invalid_context() {
        let mut carrier = Lines::default();
        Propagators::default().inject(&Context::default(), &mut carrier);
        assert!(carrier.0.is_empty(), "{:?}", carrier.0);
    }

    #[test]
    fn an_empty_tracestate_sets_no_header() {
        let context = Propagators::default().extract(&lines(&[("traceparent", PARENT)]));
        let mut carrier = Lines::default();
        Propagators::default().inject(&context, &mut carrier);
        assert_eq!(carrier.0, lines(&[("traceparent", PARENT)]).0);
    }

    #[test]
    fn a_format_that_is_not_in_use_is_neither_read_nor_written() {
        let sent = lines(&[("traceparent", PARENT), ("baggage", "k=v")]);
        let only_baggage = Propagators::from_iter([Propagator::Baggage, Propagator::Baggage]);
        let context = only_baggage.extract(&sent);
        assert!(!context.span.is_valid() && !context.baggage.is_empty());

        let both = Propagators::default().extract(&sent);
        let mut carrier = Lines::default();
        only_baggage.inject(&both, &mut carrier);
        assert_eq!(carrier.0, lines(&[("baggage", "k=v")]).0);
        assert_eq!(only_baggage.fields().collect::<Vec<_>>(), ["baggage"]);
        assert!(!only_baggage.has(Propagator::TraceContext));
    }
}
