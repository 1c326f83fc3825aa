//! The task factory: a span for every task that is created inside a recorded one.
//!
//! A task span costs about half a microsecond; a task created elsewhere is created as if we were not there.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};

use super::convert::{ascii, with_name};
use super::coroutine::{Ready, SpanCoroutine};
use super::deferred::DeferredSpan;
use super::errors::guard;
use super::finalisation::vectorcall;
use super::span::{Body, Span};
use super::{current, imports, lifecycle};
use crate::span::SpanKind;
use crate::tracer::Started;

/// The keyword names of `asyncio.Task(coroutine, loop=...)`.
static TASK_KEYWORDS: PyOnceLock<Py<PyTuple>> = PyOnceLock::new();

/// Makes what tasks need, at import; see [`current::initialise`].
pub(super) fn initialise(py: Python<'_>) -> PyResult<()> {
    let _ = TASK_KEYWORDS.set(py, PyTuple::new(py, ["loop"])?.unbind());
    // Types that are not in the module are made at their first use otherwise.
    let _ = (py.get_type::<Ready>(), py.get_type::<DeferredSpan>());
    Ok(())
}

/// An asyncio task factory that puts tasks into spans.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct TaskFactory {
    /// The factory that was there before.
    inner: Option<Py<PyAny>>,
    enabled: AtomicBool,
}

impl TaskFactory {
    /// The coroutine to make the task of: wrapped in a span when one is being recorded here.
    #[inline]
    fn traced<'py>(
        coroutine: &Bound<'py, PyAny>,
        shares_context: bool,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = coroutine.py();
        let Some(parent) = current::span(py)? else {
            return Ok(None);
        };
        let Some(tracer) =
            lifecycle::tracer().filter(|_| parent.get().is_live() && !parent.get().is_past())
        else {
            return Ok(None);
        };
        let name = match coroutine.getattr_opt(pyo3::intern!(py, "__qualname__"))? {
            Some(name) => name,
            None => coroutine.get_type().name()?.into_any(),
        };
        // asyncio closes a forgotten generator in a task of its own, in whatever context is current.
        if ascii(&name) == Some("async_generator_athrow") || is_of_server(coroutine, &name)? {
            return Ok(None);
        }
        let started = with_name(&name, |name| {
            parent
                .get()
                .with_context(py, |parent| tracer.start(parent, SpanKind::Internal, name))
        })?;
        let Started::Recording(span) = started else {
            return Ok(None);
        };
        let span = Bound::new(py, Span::new(Body::Recording(span)))?.unbind();
        let inside = shares_context.then(|| span.clone_ref(py).into_any());
        let wrapped = SpanCoroutine::new(coroutine.clone().unbind(), span, inside, !shares_context);
        Ok(Some(Bound::new(py, wrapped)?.into_any()))
    }

    #[inline]
    #[expect(
        unsafe_code,
        reason = "a vectorcall with constant keyword names saves a dict for every task"
    )]
    fn new_task<'py>(
        event_loop: &Bound<'py, PyAny>,
        coroutine: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = event_loop.py();
        let task = imports::asyncio_task(py)?;
        let Some(keywords) = TASK_KEYWORDS.get(py) else {
            return task.call1((coroutine,));
        };
        let arguments = [coroutine.as_ptr(), event_loop.as_ptr()];
        // SAFETY: attached; one positional argument and one value for the one keyword name, all valid for the call; the
        // result is a new reference or null with an error set.
        unsafe {
            let result = vectorcall(task.as_ptr(), arguments.as_ptr(), 1, keywords.as_ptr());
            Bound::from_owned_ptr_or_err(py, result)
        }
    }
}

impl TaskFactory {
    /// What `loop.create_task` calls: makes the task, of the coroutine in a span if one is being recorded here.
    #[inline]
    pub(super) fn create_task<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        coroutine: &Bound<'py, PyAny>,
        kwargs: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = event_loop.py();
        let wrapped = if self.enabled.load(Ordering::Relaxed) {
            let shares_context = match kwargs {
                Some(kwargs) => kwargs
                    .get_item(pyo3::intern!(py, "context"))?
                    .is_some_and(|context| !context.is_none()),
                None => false,
            };
            guard(py, "starting a task span", || {
                Self::traced(coroutine, shares_context)
            })?
            .flatten()
        } else {
            None
        };
        let coroutine = wrapped.as_ref().unwrap_or(coroutine);
        match (&self.inner, kwargs) {
            (Some(inner), kwargs) => inner.bind(py).call((event_loop, coroutine), kwargs),
            (None, None) => Self::new_task(event_loop, coroutine),
            (None, Some(kwargs)) => {
                let kwargs = kwargs.copy()?;
                kwargs.set_item(pyo3::intern!(py, "loop"), event_loop)?;
                imports::asyncio_task(py)?.call((coroutine,), Some(&kwargs))
            }
        }
    }
}

/// Tasks that servers make for themselves while an application awaits `send`: the next request of a connection, its time-outs.
const SERVER_TASKS: [(&str, &str); 3] = [
    ("RequestResponseCycle.run_asgi", "uvicorn"),
    ("TCPServer._idle_timeout", "hypercorn"),
    ("EventWrapper.wait", "hypercorn"),
];

/// Whether a coroutine is a server's own, and none of the request in whose context it is made.
#[inline]
fn is_of_server(coroutine: &Bound<'_, PyAny>, name: &Bound<'_, PyAny>) -> PyResult<bool> {
    let Some(name) = ascii(name) else {
        return Ok(false);
    };
    let Some((_, server)) = SERVER_TASKS.iter().find(|(task, _)| *task == name) else {
        return Ok(false);
    };
    let py = coroutine.py();
    let Some(code) = coroutine.getattr_opt(pyo3::intern!(py, "cr_code"))? else {
        return Ok(false);
    };
    let file: String = code.getattr(pyo3::intern!(py, "co_filename"))?.extract()?;
    Ok(file.split(['/', '\\']).any(|part| part == *server))
}

// `create_task` is in `super::vectorcall`.
#[pymethods]
impl TaskFactory {
    #[new]
    #[pyo3(signature = (inner=None))]
    fn new(inner: Option<Py<PyAny>>) -> Self {
        Self {
            inner,
            enabled: AtomicBool::new(true),
        }
    }

    #[getter]
    fn inner(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.inner.as_ref().map(|inner| inner.clone_ref(py))
    }

    fn disable(&self) {
        self.enabled.store(false, Ordering::Relaxed);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(self.inner.as_ref())
    }
}
