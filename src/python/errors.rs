//! Three zones of errors. Set-up raises; the span path never does ([`guard`]); flush and shutdown report.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyType;

use super::{finalisation, imports};
use crate::diagnostic;
use crate::error::Error;

/// The one conversion from the core's errors to Python's.
pub(super) fn to_python(py: Python<'_>, error: &Error) -> PyErr {
    let class = match error {
        Error::Configuration { .. } => imports::configuration_error(py),
        Error::Timeout { .. } | Error::Layers { .. } => imports::export_timeout(py),
        Error::Export(_) => imports::export_error(py),
    };
    raise(class, error.to_string())
}

fn raise(class: PyResult<&Bound<'_, PyType>>, message: String) -> PyErr {
    class.map_or_else(
        |error| error,
        |class| PyErr::from_type(class.clone(), message),
    )
}

/// `RVH_TRACE_STRICT=1`: what [`guard`] swallows is raised, for tests.
static STRICT: AtomicBool = AtomicBool::new(false);

/// Reads `RVH_TRACE_STRICT` once, at import.
pub(super) fn read_strictness() {
    let strict = std::env::var_os("RVH_TRACE_STRICT").is_some_and(|value| value == "1");
    STRICT.store(strict, Ordering::Relaxed);
}

/// Runs what must not disturb the caller: an error or a panic is counted, logged once for `cause`, and `None` returned.
#[inline]
pub(super) fn guard<T>(
    py: Python<'_>,
    cause: &'static str,
    run: impl FnOnce() -> PyResult<T>,
) -> PyResult<Option<T>> {
    // Costs nothing until something unwinds.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => Ok(Some(value)),
        Ok(Err(error)) => swallow(py, cause, error).map(|()| None),
        Err(panic) => {
            let message = panic_message(&*panic);
            let error = raise(
                imports::rvh_trace_error(py),
                format!("internal error, please report it: {message}"),
            );
            swallow(py, cause, error).map(|()| None)
        }
    }
}

/// What a panic said.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

#[cold]
fn swallow(py: Python<'_>, cause: &'static str, error: PyErr) -> PyResult<()> {
    if STRICT.load(Ordering::Relaxed) {
        return Err(error);
    }
    if finalisation::is_finalising() {
        // PyO3 0.30 attaches to read an error, and panics when it cannot: outside of `catch_unwind`, that is the end of the
        // process. Nobody is left to be told.
        diagnostic::count_swallowed();
        return Ok(());
    }
    diagnostic::swallowed(cause, || {
        format!("{cause} was ignored: {error}. Later cases are counted in rvh_trace.stats()")
    });
    // An interrupt or a request to exit that arrived while our code ran belongs to the user.
    if error.is_instance_of::<PyException>(py) {
        Ok(())
    } else {
        Err(error)
    }
}
