//! The interface for other extension modules: the table of `rvh_trace_client::abi` and the capsule that holds it.
//!
//! What binds both sides is told there and in docs/decisions/0028. Here: no function unwinds, none waits for the GIL, and no
//! lock is held while Python code can run. A span of an extension goes through the same sampler, limits, queue and counters
//! as one of Python's.

mod attribute;
mod context;
mod log;
mod propagation;
mod scope;
mod span;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};

use pyo3::ffi;
use pyo3::prelude::*;
use rvh_trace_client::abi::{Api, CAPSULE, MAJOR};

use super::{errors, finalisation};
use crate::diagnostic;
use crate::tracer::Tracer;

pub(super) use span::SharedSpan;

/// Whether spans that are started may be recorded. Relaxed: a span that is started at the moment of a change may go
/// either way.
static ENABLED: AtomicU32 = AtomicU32::new(0);

struct Table(Api);

#[expect(unsafe_code, reason = "the table holds the address of a static")]
// SAFETY: nothing in the table changes; what `enabled` points to is atomic.
unsafe impl Sync for Table {}

static TABLE: Table = Table(Api {
    major: MAJOR,
    size: size_of::<Api>() as u32,
    enabled: &raw const ENABLED,
    current: context::current,
    context_retain: context::retain,
    context_release: context::release,
    inject: propagation::inject,
    extract: propagation::extract,
    span_start: span::start,
    span_retain: span::retain,
    span_release: span::release,
    span_set_attributes: span::set_attributes,
    span_set_name: span::set_name,
    span_set_status: span::set_status,
    span_add_event: span::add_event,
    span_add_link: span::add_link,
    span_end: span::end,
    log: log::log,
    python_enter: scope::enter,
    python_leave: scope::leave,
    python_set: scope::set,
    python_raised: scope::raised,
});

/// Puts the capsule where extensions look for it.
#[expect(unsafe_code, reason = "PyO3 makes capsules of values that it frees")]
pub(super) fn export(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let table = (&raw const TABLE.0).cast_mut().cast();
    // SAFETY: attached; the table and the name live as long as the process; a new reference or null with an error set.
    let capsule = unsafe {
        Bound::from_owned_ptr_or_err(
            module.py(),
            ffi::PyCapsule_New(table, CAPSULE.as_ptr(), None),
        )?
    };
    module.add("_C_API", capsule)
}

/// Tells extensions which tracer there is now.
pub(super) fn tell_enabled(tracer: Option<&Tracer>) {
    let enabled = tracer.is_some_and(Tracer::exports);
    ENABLED.store(enabled.into(), Ordering::Relaxed);
}

/// The proof that the calling thread is attached to the main interpreter, if it is.
#[expect(unsafe_code, reason = "PyO3 knows only of threads that it attached")]
fn attached<'py>() -> Option<Python<'py>> {
    if finalisation::is_finalising() {
        return None;
    }
    // SAFETY: all of these may be called by any thread while there is an interpreter. `PyGILState_Check` alone would not
    // do: once there are sub-interpreters, it says yes to everybody. The state is this thread's own, so it is valid.
    unsafe {
        let current = ffi::compat::PyThreadState_GetUnchecked();
        let is_attached = !current.is_null()
            && current == ffi::PyGILState_GetThisThreadState()
            && ffi::PyThreadState_GetInterpreter(current) == ffi::PyInterpreterState_Main();
        is_attached.then(|| Python::assume_attached())
    }
}

/// Runs what an extension has called: a panic is counted, logged once for `cause`, and `otherwise` returned.
#[inline]
fn guarded<T>(cause: &'static str, otherwise: T, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        swallow(cause, &*panic);
        otherwise
    })
}

#[cold]
fn swallow(cause: &'static str, panic: &(dyn Any + Send)) {
    diagnostic::swallowed(cause, || {
        let message = errors::panic_message(panic);
        format!("{cause} of an extension was ignored: internal error, please report it: {message}")
    });
}

/// What a guard gave. An error (in strict mode, or an interrupt) has nobody to be raised to.
#[inline]
fn unraised<T>(py: Python<'_>, result: PyResult<Option<T>>) -> Option<T> {
    result.unwrap_or_else(|error| {
        error.write_unraisable(py, None);
        None
    })
}

/// [`guarded`], for what uses Python: an error is swallowed too. No exception is set afterwards that was not before. Whether
/// there was none. Not generic: it is large.
#[cold]
fn guarded_attached(
    py: Python<'_>,
    cause: &'static str,
    run: &mut dyn FnMut() -> PyResult<()>,
) -> bool {
    guarded(cause, false, || {
        let set_before = PyErr::take(py);
        let result = unraised(py, errors::guard(py, cause, run));
        if let Some(error) = set_before {
            error.restore(py);
        }
        result.is_some()
    })
}
