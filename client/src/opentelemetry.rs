//! The place of a span for code that is traced through the `opentelemetry` crate.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};

use crate::context::Context;

impl Context {
    /// What the `opentelemetry` crate calls a context: the current one of that crate, with the span of this one in it.
    ///
    /// Trace state stays behind: it is rvh_trace that reads and writes headers. Costs two allocations, so it is made
    /// where code of that crate is called or a future is polled, not for every span.
    pub fn to_opentelemetry(&self) -> opentelemetry::Context {
        opentelemetry::Context::current().with_remote_span_context(SpanContext::new(
            TraceId::from_bytes(self.trace_id()),
            SpanId::from_bytes(self.span_id()),
            TraceFlags::new(self.trace_flags()),
            self.is_remote(),
            TraceState::default(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_flags_are_the_same() {
        let raw = crate::abi::Context {
            trace_id: [7; 16],
            span_id: [9; 8],
            flags: 1,
            ..Context::NO_PLACE
        };
        let context = Context::from_raw(raw, None).to_opentelemetry();
        let span = context.span().span_context().clone();
        assert_eq!(span.trace_id().to_bytes(), [7; 16]);
        assert_eq!(span.span_id().to_bytes(), [9; 8]);
        assert!(span.is_sampled() && !span.is_remote());
    }
}
