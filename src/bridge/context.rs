//! Our [`SpanContext`] as that of the `opentelemetry` crate, and back.
//!
//! Plain copies of ids and flags; only a trace state, which few traces have, is parsed and written again.

use std::str::FromStr;

use opentelemetry::trace::{self as api, TraceContextExt as _};
use opentelemetry::{Context, ContextGuard};

use crate::context::{SpanContext, TraceFlags, TraceState};
use crate::id::{SpanId, TraceId};

/// A span context for users of the `opentelemetry` crate.
pub fn to_api(context: &SpanContext) -> api::SpanContext {
    let trace_state = if context.trace_state.is_empty() {
        api::TraceState::NONE
    } else {
        // What was validated here may be refused there: it is lost, not the trace.
        api::TraceState::from_str(context.trace_state.as_str()).unwrap_or_default()
    };
    api::SpanContext::new(
        api::TraceId::from_bytes(context.trace_id.to_bytes()),
        api::SpanId::from_bytes(context.span_id.to_bytes()),
        api::TraceFlags::new(context.flags.to_byte()),
        context.is_remote,
        trace_state,
    )
}

/// A span context from users of the `opentelemetry` crate.
pub fn from_api(context: &api::SpanContext) -> SpanContext {
    let trace_state = if *context.trace_state() == api::TraceState::NONE {
        TraceState::EMPTY
    } else {
        TraceState::from_validated(&context.trace_state().header())
    };
    SpanContext {
        trace_id: TraceId::from_bytes(context.trace_id().to_bytes()),
        span_id: SpanId::from_bytes(context.span_id().to_bytes()),
        flags: TraceFlags::from_byte(context.trace_flags().to_u8()),
        is_remote: context.is_remote(),
        trace_state,
    }
}

/// The `opentelemetry` context whose span is the one that `span` identifies. Its attributes cannot be reached through it.
///
/// An invalid span context gives a context without a span: what starts in it is a root.
pub fn context_of(span: &SpanContext) -> Context {
    if span.is_valid() {
        Context::new().with_remote_span_context(to_api(span))
    } else {
        Context::new()
    }
}

/// Makes the span that `span` identifies the parent of what this thread starts until the guard is dropped.
///
/// ```
/// use rvh_trace::bridge;
/// use rvh_trace::context::SpanContext;
///
/// let _guard = bridge::attach(&SpanContext::INVALID);
/// // `tracing` spans made here are children of that span.
/// ```
#[must_use = "dropping the guard detaches the context"]
pub fn attach(span: &SpanContext) -> ContextGuard {
    context_of(span).attach()
}

/// The span that is current on this thread; invalid when there is none.
pub fn current() -> SpanContext {
    Context::map_current(|context| from_api(context.span().span_context()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn there_and_back_is_the_identity(trace_id: [u8; 16], span_id: [u8; 8], flags: u8, is_remote: bool, state in "[a-z]{0,4}") {
            let header = if state.is_empty() { String::new() } else { format!("{state}=1,other=two") };
            let context = SpanContext {
                trace_id: TraceId::from_bytes(trace_id),
                span_id: SpanId::from_bytes(span_id),
                flags: TraceFlags::from_byte(flags),
                is_remote,
                trace_state: TraceState::from_validated(&header),
            };
            prop_assert_eq!(from_api(&to_api(&context)), context);
        }
    }

    #[test]
    fn what_is_attached_is_current_until_the_guard_goes() {
        let span = SpanContext {
            trace_id: TraceId::random(),
            span_id: SpanId::random(),
            ..SpanContext::INVALID
        };
        let guard = attach(&span);
        assert_eq!(current(), span);
        drop(guard);
        assert_eq!(current(), SpanContext::INVALID);
    }
}
