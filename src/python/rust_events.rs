//! What Rust code has logged, handed to the Python thread that gives it to `logging`.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use tracing::Level;

use super::lifecycle;
use crate::bridge::queue::{self, FieldValue, KeptRecord};
use crate::bridge::suppress_thread;

/// Whether `init_tracing` was told to hand events to `logging`.
#[pyfunction]
pub(super) fn has_rust_events() -> bool {
    lifecycle::application_tracer()
        .and_then(|tracer| tracer.config().bridge.as_ref())
        .is_some_and(|bridge| bridge.events.is_some())
}

/// Waits for events and takes them out; `None` when there will be no more. For the thread alone that hands them on: what
/// handlers of `logging` do in Rust is not logged again.
#[pyfunction]
pub(super) fn take_rust_events(py: Python<'_>) -> PyResult<Option<Bound<'_, PyList>>> {
    suppress_thread();
    let Some(records) = py.detach(queue::take) else {
        return Ok(None);
    };
    let events = PyList::empty(py);
    for record in &records {
        events.append(event(py, record)?)?;
    }
    Ok(Some(events))
}

/// Gives an event to `logging` on this thread.
pub(super) fn handle(py: Python<'_>, record: &KeptRecord) -> PyResult<()> {
    let module = py.import("rvh_trace._rust_logging")?;
    let event = module.getattr("Event")?.call1(event(py, record)?)?;
    module.getattr("handle")?.call1((event,)).map(drop)
}

/// Lets the thread go, once it has taken what is left.
#[pyfunction]
pub(super) fn close_rust_events(py: Python<'_>) {
    py.detach(queue::close);
}

/// The fields of `rvh_trace._rust_logging.Event`, in its order.
fn event<'py>(py: Python<'py>, record: &KeptRecord) -> PyResult<Bound<'py, PyTuple>> {
    let fields = PyDict::new(py);
    for (key, value) in &record.fields {
        match value {
            FieldValue::Text(text) => fields.set_item(&**key, &**text)?,
            FieldValue::Bool(bool) => fields.set_item(&**key, bool)?,
            FieldValue::Int(int) => fields.set_item(&**key, int)?,
            FieldValue::Float(float) => fields.set_item(&**key, float)?,
        }
    }
    let span = record
        .span
        .is_valid()
        .then_some((&record.span.trace_id, &record.span.span_id));
    (
        level_number(record.level),
        &*record.target,
        &*record.message,
        fields,
        span.map(|(trace_id, _)| trace_id.to_string()),
        span.map(|(_, span_id)| span_id.to_string()),
        record.span.is_sampled(),
        record.unix_ns,
        &*record.file,
        record.line,
        record.thread_id,
        record.thread_name.as_deref(),
    )
        .into_pyobject(py)
}

/// The number of a level in `logging`, which has none for `TRACE`.
fn level_number(level: Level) -> u8 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}
