//! `CarriedCall`: a function on its way to a worker thread, with the context of whoever sends it there.
//!
//! Costs one copy of the context (constant time: contexts share what they hold), one object and two clock reads. Everything
//! the function does to its caller stays: it is called with the arguments as they come, and what it raises passes through
//! untouched, without a Python frame in between.

use pyo3::PyTraverseError;
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use super::errors::guard;
use super::span::Span;
use super::{current, imports};
use crate::clock::monotonic_ns;

/// Seconds that the calls a span made waited for a thread, all together.
const WAIT_TIME: &str = "rvh_trace.thread_pool.wait_time";

/// A call that a worker thread makes in the context it was sent from.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct CarriedCall {
    function: Py<PyAny>,
    /// A copy of the sender's; `None` for a function that brings its own.
    context: Option<Py<PyAny>>,
    /// The span that was current for the sender, if it is recorded.
    span: Option<Py<Span>>,
    sent_ns: u64,
}

/// `function`, to be called by a worker thread in the context of the caller of `carry`. Never fails.
#[pyfunction]
pub(super) fn carry<'py>(function: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    sent(function, true)
}

/// [`carry`] for those who bring the context along by themselves: only the wait is measured.
#[pyfunction]
pub(super) fn time_wait<'py>(function: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    sent(function, false)
}

fn sent<'py>(function: &Bound<'py, PyAny>, carries: bool) -> PyResult<Bound<'py, PyAny>> {
    let py = function.py();
    if function.is_instance_of::<CarriedCall>() {
        return Ok(function.clone());
    }
    let call = guard(py, "carrying context into a thread", || {
        let context = if carries && !brings_context(function)? {
            Some(copy_context(py)?.unbind())
        } else {
            None
        };
        let span = current::span(py)?.filter(|span| span.get().is_live());
        let call = CarriedCall {
            function: function.clone().unbind(),
            context,
            span: span.map(Bound::unbind),
            sent_ns: monotonic_ns(),
        };
        Ok(Bound::new(py, call)?.into_any())
    })?;
    Ok(call.unwrap_or_else(|| function.clone()))
}

/// Whether it is `context.run`, or a `functools.partial` of it, as `asyncio.to_thread` sends.
fn brings_context(function: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = function.py();
    if function
        .get_type()
        .is(imports::functools_partial(py)?.as_any())
    {
        return Ok(is_context_method(
            &function.getattr(pyo3::intern!(py, "func"))?,
        ));
    }
    Ok(is_context_method(function))
}

#[expect(unsafe_code, reason = "PyContext_CheckExact has no safe binding")]
fn is_context_method(function: &Bound<'_, PyAny>) -> bool {
    if !function.is_instance_of::<PyCFunction>() {
        return false;
    }
    // SAFETY: attached, and a built-in function or method: its self is null or valid, and only its type is read.
    unsafe {
        let owner = ffi::PyCFunction_GetSelf(function.as_ptr());
        !owner.is_null() && ffi::PyContext_CheckExact(owner) != 0
    }
}

#[expect(unsafe_code, reason = "contexts have no safe binding")]
fn copy_context(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    // SAFETY: attached; a new reference or null with an error set.
    unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_CopyCurrent()) }
}

/// A context that is entered, and left when this goes.
struct Entered<'py>(Bound<'py, PyAny>);

impl<'py> Entered<'py> {
    #[expect(unsafe_code, reason = "contexts have no safe binding")]
    fn enter(context: &Bound<'py, PyAny>) -> PyResult<Self> {
        // SAFETY: attached, and a context: it came from `copy_context`.
        if unsafe { ffi::PyContext_Enter(context.as_ptr()) } == 0 {
            return Ok(Self(context.clone()));
        }
        // An executor that makes the same call twice at once, as no executor of the standard library does.
        drop(PyErr::fetch(context.py()));
        // SAFETY: as above; a new reference or null with an error set.
        let copy = unsafe {
            Bound::from_owned_ptr_or_err(context.py(), ffi::PyContext_Copy(context.as_ptr()))?
        };
        // SAFETY: as above.
        if unsafe { ffi::PyContext_Enter(copy.as_ptr()) } == 0 {
            Ok(Self(copy))
        } else {
            Err(PyErr::fetch(context.py()))
        }
    }
}

impl Drop for Entered<'_> {
    #[expect(unsafe_code, reason = "contexts have no safe binding")]
    fn drop(&mut self) {
        // SAFETY: attached, and the context that this thread entered last: calls nest. No error is set here: PyO3 has
        // fetched what the function raised.
        if unsafe { ffi::PyContext_Exit(self.0.as_ptr()) } != 0 {
            drop(PyErr::fetch(self.0.py()));
        }
    }
}

#[pymethods]
impl CarriedCall {
    #[pyo3(signature = (*args, **kwargs))]
    fn __call__<'py>(
        &self,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = args.py();
        if let Some(span) = &self.span {
            let waited_ns = monotonic_ns().saturating_sub(self.sent_ns);
            #[expect(clippy::cast_precision_loss, reason = "a wait of 104 days is exact")]
            let seconds = waited_ns as f64 / 1e9;
            guard(py, "measuring the wait for a thread", || {
                span.get()
                    .with_recording(py, |span| span.add_to_float(WAIT_TIME, seconds));
                Ok(())
            })?;
        }
        let function = self.function.bind(py);
        let _entered = match &self.context {
            Some(context) => guard(py, "carrying context into a thread", || {
                Entered::enter(context.bind(py))
            })?,
            None => None,
        };
        function.call(args, kwargs)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "<rvh_trace.CarriedCall of {}>",
            self.function.bind(py).repr()?
        ))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.function)?;
        visit.call(self.context.as_ref())?;
        visit.call(self.span.as_ref())
    }
}
