//! `MessageCoroutine`: the server's `receive()` or `send(message)`, with the span told what came of it.
//!
//! To asyncio it is a coroutine, as what it stands for nearly always is: applications make tasks of it. Results and
//! exceptions pass through untouched.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use super::cell::AttachedCell;
use super::channel::Direction;
use super::coroutine::{DONE, NEW, STARTED, Step, Stepped, is_coroutine, returned, send, throw};
use super::errors::guard;
use super::server_span::ServerSpan;
use crate::clock::monotonic_ns;

/// What an application awaits in place of the server's awaitable.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct MessageCoroutine {
    direction: Direction,
    /// The server's awaitable, until the first step; then what is stepped. `None` only after the collector has cleared it.
    inner: AttachedCell<Option<Py<PyAny>>>,
    span: Py<ServerSpan>,
    /// What is sent.
    message: Option<Py<PyAny>>,
    phase: AtomicU8,
    /// When the wait began, on the monotonic clock.
    began_ns: AtomicU64,
}

impl MessageCoroutine {
    /// Watches `awaitable`; what nobody could await is returned as it is.
    pub(super) fn watch<'py>(
        direction: Direction,
        span: &Bound<'py, ServerSpan>,
        awaitable: Bound<'py, PyAny>,
        message: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = span.py();
        if !is_coroutine(&awaitable) && !awaitable.hasattr(pyo3::intern!(py, "__await__"))? {
            return Ok(awaitable);
        }
        let watched = Self {
            direction,
            inner: AttachedCell::new(Some(awaitable.unbind())),
            span: span.clone().unbind(),
            message: message.map(|message| message.clone().unbind()),
            phase: AtomicU8::new(NEW),
            began_ns: AtomicU64::new(0),
        };
        Ok(Bound::new(py, watched)?.into_any())
    }

    fn inner<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.inner
            .with(py, |inner| {
                inner.as_ref().map(|inner| inner.bind(py).clone())
            })
            .flatten()
            .ok_or_else(|| PyRuntimeError::new_err("this coroutine was already collected"))
    }

    /// What `await` steps: a coroutine itself, or what any other awaitable's `__await__` returns.
    fn open<'py>(&self, inner: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if is_coroutine(&inner) {
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
        let mut inner = self.inner(py)?;
        if self.phase.load(Ordering::Relaxed) == NEW {
            self.phase.store(STARTED, Ordering::Relaxed);
            self.began_ns.store(monotonic_ns(), Ordering::Relaxed);
            inner = self.open(inner)?;
        }
        let stepped = match step {
            Step::Send(value) => send(&inner, value),
            Step::Throw(arguments) => throw(&inner, arguments),
        };
        match stepped {
            Stepped::Yielded(value) => Ok(Some(value.unbind())),
            Stepped::Returned(value) => {
                self.done(&value)?;
                returned(&value)
            }
            Stepped::Raised(error) => {
                self.phase.store(DONE, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    #[inline]
    fn done(&self, result: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = result.py();
        if self.phase.swap(DONE, Ordering::Relaxed) == DONE {
            return Ok(());
        }
        let began_ns = self.began_ns.load(Ordering::Relaxed);
        let span = self.span.bind(py);
        guard(py, "reading a message", || match self.direction {
            Direction::Receive => ServerSpan::received(span, result, began_ns),
            Direction::Send => match &self.message {
                Some(message) => ServerSpan::sent(span, message.bind(py), began_ns),
                None => Ok(()),
            },
        })
        .map(drop)
    }
}

#[pymethods]
impl MessageCoroutine {
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
        match self.step(value.py(), &Step::Send(value))? {
            Some(yielded) => Ok(yielded),
            None => Err(PyStopIteration::new_err(())),
        }
    }

    #[pyo3(signature = (*args))]
    fn throw(&self, args: &Bound<'_, PyTuple>) -> PyResult<Py<PyAny>> {
        match self.step(args.py(), &Step::Throw(args))? {
            Some(yielded) => Ok(yielded),
            None => Err(PyStopIteration::new_err(())),
        }
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.phase.store(DONE, Ordering::Relaxed);
        // Some awaitables' iterators have no `close`; `await` skips it then, and so do we.
        match self.inner(py)?.getattr_opt(pyo3::intern!(py, "close"))? {
            Some(close) => close.call0().map(drop),
            None => Ok(()),
        }
    }

    /// Debuggers look at the server's coroutine through these.
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

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.span)?;
        visit.call(self.message.as_ref())?;
        self.inner
            .with_collecting(|inner| visit.call(inner.as_ref()))
            .unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        let inner = self.inner.with_collecting(Option::take);
        drop(inner);
    }
}
