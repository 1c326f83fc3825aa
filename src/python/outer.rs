//! Another library's server span around ours: then there is one already, and ours would be the second.
//!
//! Seen only where `opentelemetry-sdk` is loaded and its span is current: opentelemetry-instrumentation-asgi, or Starlette's
//! own OpenTelemetry middleware, outside of `RvhTraceMiddleware`. Costs a comparison otherwise.

use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::borrowed::item;
use super::imports;
use crate::context::{SpanContext, TraceFlags};
use crate::id::{SpanId, TraceId};

/// The identity of the server span that is being recorded around this request by `opentelemetry-sdk`.
#[inline]
pub(super) fn server_span(py: Python<'_>) -> PyResult<Option<SpanContext>> {
    /// How many modules there were when it was not among them: while they are as many, it still is not.
    static MODULES_WITHOUT: AtomicUsize = AtomicUsize::new(usize::MAX);

    let modules = imports::modules(py)?;
    let count = modules.len();
    if count == MODULES_WITHOUT.load(Ordering::Relaxed) {
        return Ok(None);
    }
    if item(modules, pyo3::intern!(py, "opentelemetry.sdk.trace")).is_none() {
        MODULES_WITHOUT.store(count, Ordering::Relaxed);
        return Ok(None);
    }
    read(py, modules)
}

#[cold]
fn read(py: Python<'_>, modules: &Bound<'_, PyDict>) -> PyResult<Option<SpanContext>> {
    let Some(api) = modules.get_item(pyo3::intern!(py, "opentelemetry.trace"))? else {
        return Ok(None);
    };
    let span = api.call_method0(pyo3::intern!(py, "get_current_span"))?;
    // A span that has ended was left behind by an earlier request of the same connection.
    if !span
        .call_method0(pyo3::intern!(py, "is_recording"))?
        .is_truthy()?
    {
        return Ok(None);
    }
    let Some(kind) = span.getattr_opt(pyo3::intern!(py, "kind"))? else {
        return Ok(None);
    };
    if !kind.eq(api.getattr("SpanKind")?.getattr("SERVER")?)? {
        return Ok(None);
    }
    let context = span.call_method0(pyo3::intern!(py, "get_span_context"))?;
    let trace_id: u128 = context.getattr("trace_id")?.extract()?;
    let span_id: u64 = context.getattr("span_id")?.extract()?;
    let flags: u8 = context.getattr("trace_flags")?.extract()?;
    Ok(Some(SpanContext {
        trace_id: TraceId::from_bytes(trace_id.to_be_bytes()),
        span_id: SpanId::from_bytes(span_id.to_be_bytes()),
        flags: TraceFlags::from_byte(flags),
        ..SpanContext::INVALID
    }))
}
