//! How the span of a Rust future ends.

use pyo3::prelude::*;

use crate::{Context, Span};

/// Ends the span of a Rust future, once: as cancelled, if the future is dropped before it has a result.
#[derive(Debug, Default)]
pub(super) struct Ending(Option<Span>);

impl Ending {
    /// For the span of this context, if it is recorded.
    pub(super) fn of(context: &Context) -> Self {
        Self(context.span().cloned())
    }

    /// There is a result.
    pub(super) fn returned(&mut self) {
        if let Some(span) = self.0.take() {
            span.end();
        }
    }

    /// There is an exception, which is recorded as one that leaves a span in Python.
    pub(super) fn raised(&mut self, py: Python<'_>, error: &PyErr) {
        if let Some(span) = self.0.take() {
            span.record_python_exception(error.value(py));
            span.end();
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(span) = self.0.take() {
            span.set_attribute("rvh_trace.outcome", "cancelled");
            span.end();
        }
    }
}
