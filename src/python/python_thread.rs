//! Python threads that native code starts, whatever thread it runs on.
//!
//! Their first frame is one of Python's, so that at exit no Rust frame is beneath the user's code: CPython up to 3.13 ends
//! threads by unwinding them. Each is started by a native thread that lives for that moment alone, because whoever asks may
//! be in the middle of something, or must not wait for the GIL.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// A function and its arguments.
pub(super) type Body<'py> = (Bound<'py, PyAny>, Bound<'py, PyTuple>);

/// Starts a Python thread that runs what `make` gives. `failed` is told when there is no thread to be had, but not at the end
/// of the interpreter, when nobody reads what is said.
pub(super) fn start(
    make: impl for<'py> FnOnce(Python<'py>) -> PyResult<Body<'py>> + Send + 'static,
    failed: fn(&str),
) {
    let attached = move |py: Python<'_>| -> PyResult<()> {
        let (run, arguments) = make(py)?;
        // Not `threading.Thread`, whose `start` waits for the other thread.
        let started = py
            .import("_thread")?
            .call_method1("start_new_thread", (&run, &arguments));
        if started.is_err() {
            // CPython 3.12 starts no thread at exit (python/cpython#104690). This one lasts long enough for what a
            // process that has just begun has to do; that it has Rust frames matters after the deadline of the exit alone.
            run.call1(arguments)?;
        }
        Ok(())
    };
    let spawned = std::thread::Builder::new()
        .name("rvh-trace-start".into())
        .spawn(move || {
            if let Some(Err(error)) = Python::try_attach(attached) {
                failed(&error.to_string());
            }
        });
    if let Err(error) = spawned {
        failed(&error.to_string());
    }
}
