//! What identifies a span to others: ids, flags and trace state, with the baggage that travels beside them.
//!
//! Cheap to clone: plain bytes, and shared text where a header brought any.

use std::sync::Arc;

use crate::id::{SpanId, TraceId};
use crate::propagation::Baggage;

/// The W3C trace flags byte (Trace Context level 2, section 3.2.2.3), and what other formats say beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TraceFlags(u8);

impl TraceFlags {
    /// Bit 0: the caller may have recorded the trace.
    pub const SAMPLED: Self = Self(0x01);
    /// Bit 1: the rightmost seven bytes of the trace id are random.
    pub const RANDOM: Self = Self(0x02);
    /// The caller asks for everything (B3 and Jaeger, "debug"); such a trace is sampled. Not in the byte.
    pub const DEBUG: Self = Self(0x80 | Self::SAMPLED.0);
    /// The caller left the decision to us (B3, "defer"; X-Ray, `Sampled=?`). Not in the byte.
    pub const DEFERRED: Self = Self(0x40);
    /// A decision for the trace that starts here: the caller named no trace (B3, `b3: 0`). Not in the byte.
    pub const DECISION_ALONE: Self = Self(0x20);

    /// Flags from their byte; bits that the specification does not define are dropped.
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte & (Self::SAMPLED.0 | Self::RANDOM.0))
    }

    /// The byte as it goes on the wire.
    pub const fn to_byte(self) -> u8 {
        self.0 & (Self::SAMPLED.0 | Self::RANDOM.0)
    }

    /// These flags and those of `other`.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the sampled bit is set.
    pub const fn is_sampled(self) -> bool {
        self.0 & Self::SAMPLED.0 != 0
    }

    /// The same flags, decided: with the sampled bit as given. What is not sampled is no longer debugged.
    #[must_use]
    pub const fn with_sampled(self, sampled: bool) -> Self {
        let kept = if sampled {
            Self::RANDOM.0 | Self::DEBUG.0
        } else {
            Self::RANDOM.0
        };
        Self(self.0 & kept | sampled as u8)
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
