//! Contexts on their way to an extension and back.

use std::ffi::c_void;
use std::sync::Arc;

use pyo3::prelude::*;
use rvh_trace_client::abi;

use super::super::{current, errors, propagate};
use super::{attached, guarded, unraised};
use crate::context::{Context, SpanContext, TraceFlags, TraceState};
use crate::id::{SpanId, TraceId};
use crate::propagation::Baggage;

/// What a context holds besides plain bytes.
struct Extra {
    trace_state: TraceState,
    baggage: Baggage,
}

/// A context, and whether spans below it link it instead of being its children.
#[derive(Default)]
pub(super) struct Place {
    pub(super) context: Context,
    pub(super) is_past: bool,
}

impl Place {
    /// What is current in Python.
    pub(super) fn current(py: Python<'_>) -> PyResult<Self> {
        let span = current::span(py)?;
        let span = span.as_ref().map(Bound::get);
        Ok(Self {
            context: Context {
                span: span.map(|span| span.clone_context(py)).unwrap_or_default(),
                baggage: propagate::current_baggage(py)?,
            },
            is_past: span.is_some_and(super::super::span::Span::is_past),
        })
    }

    /// [`Self::current`] of a thread that may not be attached.
    pub(super) fn current_if_attached() -> Option<Self> {
        let py = attached()?;
        let found = errors::guard(py, "reading the current span", || Self::current(py));
        let found = unraised(py, found)?;
        let Context { span, baggage } = &found.context;
        (span.is_valid() || !baggage.is_empty()).then_some(found)
    }

    /// What an extension says; `None` for null.
    ///
    /// # Safety
    ///
    /// Null, or a context of the interface whose `extra` is held.
    #[inline]
    #[expect(unsafe_code, reason = "a context is reached by a pointer")]
    pub(super) unsafe fn read(context: *const abi::Context) -> Option<Self> {
        // SAFETY: the caller's.
        let context = unsafe { context.as_ref()? };
        // SAFETY: null, or from `into_abi`, and held.
        let extra = unsafe { context.extra.cast::<Extra>().as_ref() };
        Some(Self {
            context: Context {
                span: SpanContext {
                    trace_id: TraceId::from_bytes(context.trace_id),
                    span_id: SpanId::from_bytes(context.span_id),
                    flags: TraceFlags::from_byte(context.flags),
                    is_remote: context.is_remote != 0,
                    trace_state: extra
                        .map(|extra| extra.trace_state.clone())
                        .unwrap_or_default(),
                },
                baggage: extra.map(|extra| extra.baggage.clone()).unwrap_or_default(),
            },
            is_past: context.is_past != 0,
        })
    }

    /// As it crosses the interface; whoever gets it holds its `extra`.
    #[inline]
    pub(super) fn into_abi(self) -> abi::Context {
        let Context { span, baggage } = self.context;
        let extra = if span.trace_state.is_empty() && baggage.is_empty() {
            std::ptr::null()
        } else {
            Arc::into_raw(Arc::new(Extra {
                trace_state: span.trace_state,
                baggage,
            }))
        };
        abi::Context {
            trace_id: span.trace_id.to_bytes(),
            span_id: span.span_id.to_bytes(),
            flags: span.flags.to_byte(),
            is_remote: span.is_remote.into(),
            is_past: self.is_past.into(),
            reserved: [0; 5],
            extra: extra.cast(),
        }
    }
}

#[expect(unsafe_code, reason = "writes through a pointer of the caller's")]
pub(super) unsafe extern "C" fn current(out: *mut abi::Context) -> bool {
    guarded("reading the current span", false, || {
        let Some(place) = Place::current_if_attached() else {
            return false;
        };
        // SAFETY: a place to write to.
        unsafe { out.write(place.into_abi()) };
        true
    })
}

#[expect(unsafe_code, reason = "counts by pointer")]
pub(super) unsafe extern "C" fn retain(extra: *const c_void) {
    if !extra.is_null() {
        // SAFETY: from `into_abi`, and held by the caller.
        unsafe { Arc::increment_strong_count(extra.cast::<Extra>()) };
    }
}

#[expect(unsafe_code, reason = "counts by pointer")]
pub(super) unsafe extern "C" fn release(extra: *const c_void) {
    if !extra.is_null() {
        // SAFETY: from `into_abi`; the caller's hold ends here.
        unsafe { Arc::decrement_strong_count(extra.cast::<Extra>()) };
    }
}
