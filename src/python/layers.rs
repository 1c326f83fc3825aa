//! Layers written in Python, as the core sees them: which records they want, and how they are called.
//!
//! `rvh_trace._layers` knows the layers and calls them, on a Python thread of its own or, for immediate ones, wherever
//! [`deliver`] stands: at the end of what is done to a span, with no cell entered and nothing borrowed.

use std::time::{Duration, Instant};

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::errors::guard;
use super::testing::{attributes, hex, lower_name};
use super::{finalisation, imports, python_thread};
use crate::diagnostic::{self, Level};
use crate::error::Error;
use crate::layer::{self, Delivery, Flush, Host, Kind, Record};

/// Calls the immediate layers with what was done on this thread. One relaxed load without any.
#[inline]
pub(super) fn deliver(py: Python<'_>) {
    if layer::is_listening_immediately() {
        deliver_pending(py);
    }
}

#[cold]
fn deliver_pending(py: Python<'_>) {
    // What a layer does is for the call that is under way.
    let Some(_delivery) = Delivery::begin() else {
        return;
    };
    // A span may end because its coroutine dies, and that while an exception is on its way.
    let on_its_way = PyErr::take(py);
    while let Some(records) = layer::take_pending() {
        if finalisation::is_finalising() {
            break;
        }
        let called = guard(py, "calling layers", || call(py, &records));
        match called {
            // For the application, which gets it as soon as its own code goes on.
            Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => interrupt(),
            Err(error) => error.write_unraisable(py, None),
            Ok(_) => {}
        }
    }
    if let Some(error) = on_its_way {
        error.restore(py);
    }
}

#[expect(unsafe_code, reason = "a function of CPython")]
fn interrupt() {
    // SAFETY: may be called at any time; it does what a SIGINT does.
    unsafe { ffi::PyErr_SetInterrupt() };
}

#[expect(unsafe_code, reason = "a call that may not come back at exit")]
fn call(py: Python<'_>, records: &[u8]) -> PyResult<()> {
    let records = list(py, records)?;
    let arguments = [records.as_ptr()];
    let deliver = imports::deliver_to_layers(py)?.as_ptr();
    // SAFETY: attached; valid objects; a new reference or null with an error set.
    let returned = unsafe {
        let returned =
            finalisation::vectorcall(deliver, arguments.as_ptr(), 1, std::ptr::null_mut());
        Bound::from_owned_ptr_or_err(py, returned)
    };
    returned.map(drop)
}

/// Each record as its kind, whom it is for, and the fields of the class of that kind in `rvh_trace.layers`.
fn list<'py>(py: Python<'py>, records: &[u8]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for record in layer::decode(records) {
        list.append((record.kind as u8, record.targets, fields(py, record)?))?;
    }
    Ok(list)
}

fn fields(py: Python<'_>, record: Record) -> PyResult<Bound<'_, PyTuple>> {
    let mut span = record.span;
    let (trace_id, span_id) = (hex(&span.trace_id), hex(&span.span_id));
    match record.kind {
        Kind::NewSpan => {
            let kind = lower_name(span.kind().as_str_name(), "SPAN_KIND_");
            let parent = (!span.parent_span_id.is_empty()).then(|| hex(&span.parent_span_id));
            let attributes = attributes(py, &span.attributes)?;
            let start = span.start_time_unix_nano;
            (
                span.name, kind, trace_id, span_id, parent, start, attributes,
            )
                .into_pyobject(py)
        }
        Kind::Event => {
            let event = span.events.pop().unwrap_or_default();
            let attributes = attributes(py, &event.attributes)?;
            let unix_ns = event.time_unix_nano;
            (event.name, trace_id, span_id, unix_ns, attributes).into_pyobject(py)
        }
        Kind::Record => (trace_id, span_id, attributes(py, &span.attributes)?).into_pyobject(py),
        Kind::Close => {
            let status = span.status.take().unwrap_or_default();
            let code = lower_name(status.code().as_str_name(), "STATUS_CODE_");
            let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
            (
                span.name,
                trace_id,
                span_id,
                start,
                end,
                code,
                status.message,
            )
                .into_pyobject(py)
        }
    }
}

/// Which kinds of records the layers want: bits of `1 << kind`.
#[pyfunction]
pub(super) fn set_layers(batched: u8, immediate: u8) {
    layer::listen(
        Host {
            is_attached,
            start_thread,
        },
        batched,
        immediate,
    );
}

#[expect(unsafe_code, reason = "a question to the runtime")]
fn is_attached() -> bool {
    // SAFETY: may be called at any time, from any thread.
    unsafe { ffi::PyGILState_Check() == 1 }
}

fn start_thread() {
    python_thread::start(
        |py| {
            let run = py.import("rvh_trace._layers")?.getattr("run")?;
            Ok((run, PyTuple::empty(py)))
        },
        |error| {
            diagnostic::log(
                Level::Error,
                &format!("layers see nothing: their thread could not be started: {error}"),
            );
        },
    );
}

/// Waits for records; gives them and the number of the first. Those that were given before are delivered.
#[pyfunction]
pub(super) fn layer_records(py: Python<'_>) -> PyResult<(Bound<'_, PyList>, u64)> {
    let records = py.detach(layer::next);
    Ok((list(py, &records.bytes)?, records.first))
}

/// How many records were queued, and how many found no room.
#[pyfunction]
pub(super) fn read_layer_counts() -> (u64, u64) {
    (layer::position(), layer::dropped())
}

/// Says what is wrong with a layer.
#[pyfunction]
pub(super) fn log_layer(problem: &str) {
    diagnostic::log(Level::Error, problem);
}

/// Flushes, and has the layers told of everything before meanwhile, within the same `timeout`.
pub(super) fn while_flushing(
    timeout: Duration,
    flush: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let begun = Instant::now();
    let layers = Flush::begin();
    let flushed = flush();
    // A deadline past the end of time is none.
    let deadline = begun
        .checked_add(timeout)
        .unwrap_or_else(|| begun + Duration::from_secs(365 * 24 * 3600));
    match layers.wait(deadline) {
        0 => flushed,
        pending => flushed.and(Err(Error::Layers { timeout, pending })),
    }
}
