//! What identifies a span to others: ids, flags and trace state, with the baggage that travels beside them.
//!
//! Cheap to clone: plain bytes, and shared text where a header brought any.

use std::sync::Arc;

use crate::id::{SpanId, TraceId};
use crate::propagation::Baggage;

/// The W3C trace flags byte (Trace Context level 2, section 3.2.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TraceFlags(u8);

impl TraceFlags {
    /// Bit 0: the caller may have recorded the trace.
    pub const SAMPLED: Self = Self(0x01);
    /// Bit 1: the rightmost seven bytes of the trace id are random.
    pub const RANDOM: Self = Self(0x02);

    /// Flags from their byte; bits that the specification does not define are dropped.
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte & (Self::SAMPLED.0 | Self::RANDOM.0))
    }

    /// The byte as it goes on the wire.
    pub const fn to_byte(self) -> u8 {
        self.0
    }

    /// Whether the sampled bit is set.
    pub const fn is_sampled(self) -> bool {
        self.0 & Self::SAMPLED.0 != 0
    }

    /// The same flags with the sampled bit as given.
    #[must_use]
    pub const fn with_sampled(self, sampled: bool) -> Self {
        Self(self.0 & !Self::SAMPLED.0 | sampled as u8)
    }
}

/// A `tracestate` header, already validated: sent on as it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TraceState(Option<Arc<str>>);

impl TraceState {
    /// No trace state.
    pub const EMPTY: Self = Self(None);

    /// Takes text that [`crate::propagation::tracecontext`] has validated.
    pub(crate) fn from_validated(header: &str) -> Self {
        Self((!header.is_empty()).then(|| Arc::from(header)))
    }

    /// The header value; empty when there is none.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether there is no member.
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// The part of a span that crosses process borders (OpenTelemetry specification, "`SpanContext`").
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SpanContext {
    /// The trace this span belongs to.
    pub trace_id: TraceId,
    /// The span itself.
    pub span_id: SpanId,
    /// Sampled and random bits.
    pub flags: TraceFlags,
    /// Whether it came from another process.
    pub is_remote: bool,
    /// Vendor state that travels with the trace.
    pub trace_state: TraceState,
}

impl SpanContext {
    /// The context of no span.
    pub const INVALID: Self = Self {
        trace_id: TraceId::INVALID,
        span_id: SpanId::INVALID,
        flags: TraceFlags::from_byte(0),
        is_remote: false,
        trace_state: TraceState::EMPTY,
    };

    /// Whether both ids are valid.
    pub fn is_valid(&self) -> bool {
        self.trace_id.is_valid() && self.span_id.is_valid()
    }

    /// Whether the sampled bit is set.
    pub const fn is_sampled(&self) -> bool {
        self.flags.is_sampled()
    }
}

/// Everything that propagation carries: the span context (invalid when there is none) and the baggage.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Context {
    /// The remote or local parent.
    pub span: SpanContext,
    /// W3C baggage.
    pub baggage: Baggage,
}
