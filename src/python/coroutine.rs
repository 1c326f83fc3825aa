//! `SpanCoroutine`: a coroutine inside a span, for `.run`.
//!
//! To asyncio it is a coroutine (it has `send`, `throw`, `close` and `__await__`); its steps are one call into the wrapped
//! coroutine each. CPython's C task steps it through `tp_iternext`, so no method is looked up.

use std::sync::atomic::{AtomicU8, Ordering};

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyBaseException, PyStopIteration, PyTypeError};
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use super::cell::AttachedCell;
use super::finalisation::iter_send;
use super::span::Span;

/// An awaitable that is done: what `__aenter__` and `__aexit__` return.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct Ready(Py<PyAny>);

impl Ready {
    pub(super) fn new(value: Py<PyAny>) -> Self {
        Self(value)
    }
}

#[pymethods]
impl Ready {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        returned(self.0.bind(py))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.0)
    }
}

/// How an iterator says that it returned `value`: null without an exception for `None`, else `StopIteration(value)`.
#[inline]
#[expect(
    unsafe_code,
    reason = "PyO3 would instantiate the exception; asyncio reads the value without one"
)]
pub(super) fn returned(value: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
    let py = value.py();
    if value.is_none() {
        return Ok(None);
    }
    if value.is_instance_of::<PyTuple>() || value.is_instance_of::<PyBaseException>() {
        // Set bare, a tuple would be taken for the arguments and an exception for the instance.
        return Err(PyErr::from_value(
            py.get_type::<PyStopIteration>().call1((value,))?,
        ));
    }
    // SAFETY: attached; the type is immortal and `value` is valid; PyErr_SetObject takes its own references.
    unsafe { ffi::PyErr_SetObject(ffi::PyExc_StopIteration, value.as_ptr()) };
    Err(PyErr::fetch(py))
}

pub(super) const NEW: u8 = 0;
pub(super) const STARTED: u8 = 1;
pub(super) const DONE: u8 = 2;

/// A coroutine that runs inside a span.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct SpanCoroutine {
    /// The awaitable, until the first step; then what is stepped. `None` only after the collector has cleared it.
    inner: AttachedCell<Option<Py<PyAny>>>,
    span: Py<Span>,
    phase: AtomicU8,
}

/// How a coroutine is resumed.
pub(super) enum Step<'a, 'py> {
    Send(&'a Bound<'py, PyAny>),
    Throw(&'a Bound<'py, PyTuple>),
}

/// What came of it.
pub(super) enum Stepped<'py> {
    Yielded(Bound<'py, PyAny>),
    Returned(Bound<'py, PyAny>),
    Raised(PyErr),
}

impl<'py> Stepped<'py> {
    /// What came of `PyIter_Send`.
    ///
    /// # Safety
    ///
    /// Both are of one call, and `result` is taken.
    #[inline]
    #[expect(unsafe_code, reason = "PyIter_Send has no safe binding for coroutines")]
    pub(super) unsafe fn of(
        py: Python<'py>,
        outcome: ffi::PySendResult,
        result: *mut ffi::PyObject,
    ) -> Self {
        if matches!(outcome, ffi::PySendResult::PYGEN_ERROR) {
            return Self::Raised(PyErr::fetch(py));
        }
        // SAFETY: a new reference, unless the call failed.
        let result = unsafe { Bound::from_owned_ptr(py, result) };
        if matches!(outcome, ffi::PySendResult::PYGEN_NEXT) {
            Self::Yielded(result)
        } else {
            Self::Returned(result)
        }
    }
}

impl SpanCoroutine {
    /// `await`s `awaitable` inside `span`.
    pub(super) fn around<'py>(
        awaitable: &Bound<'py, PyAny>,
        span: Bound<'py, Span>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = awaitable.py();
        if !is_coroutine(awaitable)
            && !awaitable.hasattr(pyo3::intern!(py, "__await__"))?
            && !is_iterable_coroutine(awaitable)
        {
            return Err(PyTypeError::new_err(format!(
                "span(...).run() needs an awaitable, for example a called coroutine function, not {}",
                awaitable.get_type().name()?
            )));
        }
        let coroutine = Self {
            inner: AttachedCell::new(Some(awaitable.clone().unbind())),
            span: span.unbind(),
            phase: AtomicU8::new(NEW),
        };
        Bound::new(py, coroutine)
    }

    #[inline]
    fn inner<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.inner
            .with(py, |inner| {
                inner.as_ref().map(|inner| inner.bind(py).clone())
            })
            .flatten()
            .ok_or_else(|| PyTypeError::new_err("this coroutine was already collected"))
    }

    /// What `await` steps: a coroutine itself, or what any other awaitable's `__await__` returns.
    #[cold]
    fn open<'py>(&self, inner: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if is_coroutine(&inner) || inner.is_instance_of::<Self>() {
            return Ok(inner);
        }
        // A coroutine made of a generator has no `__await__`: `types.coroutine`, and before 3.12 what asyncio makes of an awaitable
        // that is none, and any generator.
        if is_generator(&inner) {
            return Ok(inner);
        }
        let opened = inner.call_method0(pyo3::intern!(inner.py(), "__await__"))?;
        let awaitable = self
            .inner
            .with(inner.py(), |slot| slot.replace(opened.clone().unbind()));
        drop(awaitable);
        Ok(opened)
    }

    #[inline]
    fn step<'py>(&self, py: Python<'py>, step: &Step<'_, 'py>) -> PyResult<Option<Py<PyAny>>> {
        let span = self.span.bind(py);
        let mut inner = self.inner(py)?;
        if self.phase.load(Ordering::Relaxed) == NEW {
            self.phase.store(STARTED, Ordering::Relaxed);
            Span::enter(span)?;
            inner = match self.open(inner) {
                Ok(opened) => opened,
                Err(error) => return self.finish(span, Stepped::Raised(error)),
            };
        }
        let stepped = match step {
            Step::Send(value) => send(&inner, value),
            Step::Throw(arguments) => throw(&inner, arguments),
        };
        match stepped {
            Stepped::Yielded(value) => Ok(Some(value.unbind())),
            ended => self.finish(span, ended),
        }
    }

    #[inline]
    fn finish(&self, span: &Bound<'_, Span>, ended: Stepped<'_>) -> PyResult<Option<Py<PyAny>>> {
        let py = span.py();
        let first = self.phase.swap(DONE, Ordering::Relaxed) != DONE;
        match ended {
            Stepped::Raised(error) => {
                if first {
                    Span::exit(span, Some(error.value(py)))?;
                }
                Err(error)
            }
            Stepped::Yielded(value) | Stepped::Returned(value) => {
                if first {
                    Span::exit(span, None)?;
                }
                returned(&value)
            }
        }
    }
}

pub(super) fn is_coroutine(object: &Bound<'_, PyAny>) -> bool {
    #[expect(unsafe_code, reason = "a type comparison without a safe binding")]
    // SAFETY: attached; only the type of a valid object is read.
    let exact = unsafe { ffi::PyCoro_CheckExact(object.as_ptr()) };
    exact != 0
}

#[cold]
fn is_generator(object: &Bound<'_, PyAny>) -> bool {
    #[expect(unsafe_code, reason = "a type comparison without a safe binding")]
    // SAFETY: attached; only the type of a valid object is read.
    let exact = unsafe { ffi::PyGen_CheckExact(object.as_ptr()) };
    exact != 0
}

/// Whether `await` takes it although it is a generator: one that `types.coroutine` has marked.
#[cold]
fn is_iterable_coroutine(object: &Bound<'_, PyAny>) -> bool {
    const CO_ITERABLE_COROUTINE: u32 = 0x100;
    let flags = || -> PyResult<u32> { object.getattr("gi_code")?.getattr("co_flags")?.extract() };
    is_generator(object) && flags().is_ok_and(|flags| flags & CO_ITERABLE_COROUTINE != 0)
}

#[inline]
#[expect(unsafe_code, reason = "PyIter_Send has no safe binding for coroutines")]
pub(super) fn send<'py>(inner: &Bound<'py, PyAny>, value: &Bound<'py, PyAny>) -> Stepped<'py> {
    let py = inner.py();
    let mut result = std::ptr::null_mut();
    // SAFETY: attached; both are valid objects. PyIter_Send falls back to the `send` method for whatever is not an
    // iterator or a coroutine, and sets `result` to a new reference unless it fails.
    let outcome = unsafe { iter_send(inner.as_ptr(), value.as_ptr(), &raw mut result) };
    // SAFETY: that call's, see above.
    unsafe { Stepped::of(py, outcome, result) }
}

pub(super) fn throw<'py>(
    inner: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyTuple>,
) -> Stepped<'py> {
    let py = inner.py();
    match inner.call_method1(pyo3::intern!(py, "throw"), arguments.clone()) {
        Ok(value) => Stepped::Yielded(value),
        Err(error) if error.is_instance_of::<PyStopIteration>(py) => {
            match error.value(py).getattr(pyo3::intern!(py, "value")) {
                Ok(value) => Stepped::Returned(value),
                Err(error) => Stepped::Raised(error),
            }
        }
        Err(error) => Stepped::Raised(error),
    }
}

impl Drop for SpanCoroutine {
    /// A coroutine that was destroyed while it was suspended ends its span here. Its scope must go: the token in it holds the
    /// context, which holds the span, and no collector looks into a span.
    fn drop(&mut self) {
        if *self.phase.get_mut() != DONE {
            let _ = Python::try_attach(|py| Span::finish_detached(self.span.bind(py), None));
        }
    }
}

#[pymethods]
impl SpanCoroutine {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[inline]
    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.step(py, &Step::Send(py.None().bind(py)))
    }

    fn send(&self, value: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let py = value.py();
        match self.step(py, &Step::Send(value))? {
            Some(yielded) => Ok(yielded),
            None => Err(PyStopIteration::new_err(())),
        }
    }

    #[pyo3(signature = (*args))]
    fn throw(&self, args: &Bound<'_, PyTuple>) -> PyResult<Py<PyAny>> {
        let py = args.py();
        match self.step(py, &Step::Throw(args))? {
            Some(yielded) => Ok(yielded),
            None => Err(PyStopIteration::new_err(())),
        }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner(py)?;
        let span = self.span.bind(py);
        // Some awaitables' iterators have no `close`; `await` skips it then, and so do we.
        let closed = match inner.getattr_opt(pyo3::intern!(py, "close"))? {
            Some(close) => close.call0().map(drop),
            None => Ok(()),
        };
        if self.phase.swap(DONE, Ordering::Relaxed) != DONE {
            Span::exit(span, closed.as_ref().err().map(|error| error.value(py)))?;
        }
        closed
    }

    /// Debuggers, `Task.get_stack` and `Task.print_stack` look at the wrapped coroutine through these.
    fn __getattr__<'py>(&self, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        self.inner(name.py())?.getattr(name)
    }

    #[getter]
    fn __name__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.inner(py)?.getattr(pyo3::intern!(py, "__name__"))
    }

    #[getter]
    fn __qualname__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.inner(py)?.getattr(pyo3::intern!(py, "__qualname__"))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "<rvh_trace.SpanCoroutine of {}>",
            self.inner(py)?.repr()?
        ))
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.span)?;
        self.inner
            .with_collecting(|inner| visit.call(inner.as_ref()))
            .unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        let inner = self.inner.with_collecting(Option::take);
        drop(inner);
    }
}
