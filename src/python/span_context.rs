//! `SpanContext` and `Context`: what crosses process borders, read-only.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::context;

/// What identifies a span to others. Read-only; compares by value.
#[pyclass(frozen, eq, module = "rvh_trace")]
#[derive(PartialEq)]
pub(super) struct SpanContext {
    pub(super) inner: context::SpanContext,
}

#[pymethods]
impl SpanContext {
    /// 32 lower-case hexadecimal digits; all zero when invalid.
    #[getter]
    fn trace_id(&self) -> String {
        self.inner.trace_id.to_string()
    }

    /// 16 lower-case hexadecimal digits; all zero when invalid.
    #[getter]
    fn span_id(&self) -> String {
        self.inner.span_id.to_string()
    }

    /// The W3C flags byte: bit 0 sampled, bit 1 random trace id.
    #[getter]
    fn trace_flags(&self) -> u8 {
        self.inner.flags.to_byte()
    }

    /// The `tracestate` header; empty when there is none.
    #[getter]
    fn trace_state(&self) -> &str {
        self.inner.trace_state.as_str()
    }

    /// Whether the sampled bit is set.
    #[getter]
    fn is_sampled(&self) -> bool {
        self.inner.is_sampled()
    }

    /// Whether it came from another process.
    #[getter]
    fn is_remote(&self) -> bool {
        self.inner.is_remote
    }

    /// Whether both ids are valid.
    #[getter]
    fn is_valid(&self) -> bool {
        self.inner.is_valid()
    }

    fn __repr__(&self) -> String {
        let Self { inner } = self;
        format!(
            "SpanContext(trace_id='{}', span_id='{}', is_sampled={}, is_remote={})",
            inner.trace_id,
            inner.span_id,
            python_bool(inner.is_sampled()),
            python_bool(inner.is_remote)
        )
    }

    fn __hash__(&self) -> u64 {
        u64::from_be_bytes(self.inner.span_id.to_bytes())
    }
}

pub(super) fn python_bool(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// What `extract` read from headers: a span context and baggage. Read-only.
#[pyclass(frozen, eq, module = "rvh_trace")]
#[derive(PartialEq)]
pub(super) struct Context {
    pub(super) inner: context::Context,
}

#[pymethods]
impl Context {
    /// The remote parent; invalid when the headers have none.
    #[getter]
    fn span_context(&self) -> SpanContext {
        SpanContext {
            inner: self.inner.span.clone(),
        }
    }

    /// The baggage members, decoded. A copy.
    #[getter]
    fn baggage<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let baggage = PyDict::new(py);
        for entry in self.inner.baggage.iter() {
            baggage.set_item(entry.key, entry.value)?;
        }
        Ok(baggage)
    }

    fn __repr__(&self) -> String {
        format!(
            "Context(trace_id='{}', span_id='{}', baggage_members={})",
            self.inner.span.trace_id,
            self.inner.span.span_id,
            self.inner.baggage.len()
        )
    }
}
