//! Trace context and baggage across process borders: header bytes in, a [`Context`] out, and back.
//!
//! Nothing here fails or panics, whatever the bytes: a header that breaks its format's rules counts as absent. The
//! formats know nothing of requests; a [`Carrier`] hands them header values, a [`CarrierMut`] takes them. Callable from
//! any thread. Extracting a valid `traceparent` costs a few tens of nanoseconds and allocates nothing; `tracestate` and
//! `baggage` allocate when present.

pub mod baggage;
pub mod headers;
pub mod tracecontext;

pub use baggage::Baggage;
pub use headers::{extract_headers, inject_headers};

use crate::context::{Context, SpanContext};

/// Where incoming header values are read from.
pub trait Carrier {
    /// Calls `each` with every value of the header `name`, given in lower case, in the order they arrived.
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8]));
}

/// Where outgoing header values go.
pub trait CarrierMut {
    /// Sets the header `name`, in lower case, replacing what was there.
    fn set(&mut self, name: &'static str, value: &str);
}

/// A propagation format, named as in `OTEL_PROPAGATORS`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Propagator {
    /// `tracecontext`: W3C Trace Context, headers `traceparent` and `tracestate`.
    TraceContext,
    /// `baggage`: W3C Baggage, header `baggage`.
    Baggage,
}

impl Propagator {
    /// Every format there is.
    pub const ALL: [Self; 2] = [Self::TraceContext, Self::Baggage];

    /// Its name in `OTEL_PROPAGATORS`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TraceContext => "tracecontext",
            Self::Baggage => "baggage",
        }
    }

    /// The headers it sets, and must be able to read.
    pub const fn fields(self) -> &'static [&'static str] {
        match self {
            Self::TraceContext => &[tracecontext::TRACEPARENT, tracecontext::TRACESTATE],
            Self::Baggage => &[baggage::BAGGAGE],
        }
    }
}

/// The formats in use, each at most once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Propagators(Vec<Propagator>);

impl Default for Propagators {
    /// `tracecontext,baggage`, the default of `OTEL_PROPAGATORS`.
    fn default() -> Self {
        Self(Propagator::ALL.to_vec())
    }
}

impl FromIterator<Propagator> for Propagators {
    fn from_iter<I: IntoIterator<Item = Propagator>>(propagators: I) -> Self {
        let mut unique = Vec::new();
        for propagator in propagators {
            if !unique.contains(&propagator) {
                unique.push(propagator);
            }
        }
        Self(unique)
    }
}

impl Propagators {
    /// Whether this format is in use.
    pub fn has(&self, propagator: Propagator) -> bool {
        self.0.contains(&propagator)
    }

    /// The headers that [`inject`](Self::inject) may set.
    pub fn fields(&self) -> impl Iterator<Item = &'static str> {
        self.0
            .iter()
            .flat_map(|propagator| propagator.fields())
            .copied()
    }

    /// Reads the context that `carrier` brings; what is absent or malformed is empty in the result.
    pub fn extract(&self, carrier: &dyn Carrier) -> Context {
        let mut context = Context::default();
        for propagator in &self.0 {
            match propagator {
                Propagator::TraceContext => {
                    context.span = extract_span(carrier).unwrap_or_default();
                }
                Propagator::Baggage => {
                    if let Some(header) = joined(carrier, baggage::BAGGAGE) {
                        context.baggage = baggage::parse_baggage(std::iter::once(&*header));
                    }
                }
            }
        }
        context
    }

    /// [`Self::extract`] from a carrier that holds one `traceparent` and nothing else.
    #[inline]
    pub fn extract_traceparent(&self, header: &[u8]) -> Context {
        let span = if self.has(Propagator::TraceContext) {
            tracecontext::parse_traceparent(header).unwrap_or_default()
        } else {
            SpanContext::INVALID
        };
        Context {
            span,
            baggage: Baggage::default(),
        }
    }

    /// Writes `context` into `carrier`. An invalid span context, empty trace state and empty baggage set no header.
    pub fn inject(&self, context: &Context, carrier: &mut dyn CarrierMut) {
        for propagator in &self.0 {
            match propagator {
                Propagator::TraceContext => inject_span(&context.span, carrier),
                Propagator::Baggage => {
                    if let Some(header) = baggage::format_baggage(&context.baggage) {
                        carrier.set(baggage::BAGGAGE, &header);
                    }
                }
            }
        }
    }
}

fn extract_span(carrier: &dyn Carrier) -> Option<SpanContext> {
    let mut headers = 0;
    let mut parent = None;
    carrier.values(tracecontext::TRACEPARENT, &mut |header| {
        headers += 1;
        parent = tracecontext::parse_traceparent(header);
    });
    // Two callers cannot both be the parent, so neither is (W3C Trace Context, "`traceparent` Header").
    let mut span = parent.filter(|_| headers == 1)?;
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

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// Header lines, in order.
    #[derive(Default)]
    struct Lines(Vec<(&'static str, String)>);

    impl Carrier for Lines {
        fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
            for (_, value) in self.0.iter().filter(|(line, _)| *line == name) {
                each(value.as_bytes());
            }
        }
    }

    impl CarrierMut for Lines {
        fn set(&mut self, name: &'static str, value: &str) {
            self.0.retain(|(line, _)| *line != name);
            self.0.push((name, value.into()));
        }
    }

    fn lines(lines: &[(&'static str, &str)]) -> Lines {
        Lines(
            lines
                .iter()
                .map(|(name, value)| (*name, (*value).into()))
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
        assert_eq!(carrier.0, [("traceparent", PARENT.to_owned())]);
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
        assert_eq!(carrier.0, [("baggage", "k=v".to_owned())]);
        assert_eq!(only_baggage.fields().collect::<Vec<_>>(), ["baggage"]);
        assert!(!only_baggage.has(Propagator::TraceContext));
    }
}
