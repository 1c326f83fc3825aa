//! The task factory: a span for every task that is created inside a recorded one.
//!
//! A task span with its timings costs about half a microsecond; a task without one is created as if we were not there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::PyTraverseError;
use pyo3::ffi;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

use super::arguments::argument;
use super::cell::AttachedCell;
use super::convert::{ascii, with_name};
use super::coroutine::{Ready, is_coroutine};
use super::current::{self, Scope};
use super::deferred::DeferredSpan;
use super::errors::guard;
use super::finalisation::vectorcall;
use super::span::{Body, Span};
use super::task_coroutine::{TaskContext, TaskCoroutine};
use super::task_options::TaskOptions;
use super::task_timings::Timings;
use super::{imports, layers, lifecycle};
use crate::clock::Start;
use crate::context::SpanContext;
use crate::span::SpanKind;
use crate::ticks;
use crate::tracer::Started;

/// The keyword names of `asyncio.Task(coroutine, loop=...)`.
static TASK_KEYWORDS: PyOnceLock<Py<PyTuple>> = PyOnceLock::new();

/// Makes what tasks need, at import; see [`current::initialise`].
pub(super) fn initialise(py: Python<'_>) -> PyResult<()> {
    let _ = TASK_KEYWORDS.set(py, PyTuple::new(py, ["loop"])?.unbind());
    ticks::initialise();
    TaskCoroutine::initialise(py);
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
    /// Shared, because hooks run while nothing of the factory is borrowed.
    options: AttachedCell<Arc<TaskOptions>>,
}

/// Where the span of a task belongs.
enum Place {
    /// Below the span that is current.
    Child,
    /// A trace of its own, because nothing is current.
    Root,
    /// A trace of its own that links the span that is current and over.
    Linked,
}

impl TaskFactory {
    /// The coroutine to make the task of: wrapped in a span when the task is to have one.
    #[inline]
    fn traced<'py>(
        &self,
        coroutine: &Bound<'py, PyAny>,
        keywords: Option<&Keywords<'_, 'py>>,
    ) -> PyResult<Option<Bound<'py, TaskCoroutine>>> {
        let py = coroutine.py();
        let value = current::value(py)?;
        let parent = value.clone().and_then(current::held);
        let options = self.options.with(py, |options| {
            let root = options.root_tasks;
            let place = match &parent {
                Some(parent) if parent.get().is_live() && !parent.get().is_past() => Place::Child,
                None if root => Place::Root,
                Some(parent) if root => surviving(py, parent.get()),
                _ => return None,
            };
            let hooks = options.has_hooks().then(|| Arc::clone(options));
            Some((place, hooks, options.timings))
        });
        let Some((place, hooks, is_timed)) = options.flatten() else {
            return Ok(None);
        };
        let Some(tracer) = lifecycle::tracer() else {
            return Ok(None);
        };
        if !is_coroutine(coroutine) && !is_traceable(coroutine)? {
            return Ok(None);
        }
        let mut name = qualified_name(coroutine)?;
        if is_of_server(coroutine, &name)? || (matches!(place, Place::Root) && is_of_loop(&name)) {
            return Ok(None);
        }
        if let Some(hooks) = hooks {
            if !hooks.wants(coroutine)? {
                return Ok(None);
            }
            name = hooks.name(coroutine)?.unwrap_or(name);
        }
        let unused = TaskCoroutine::unused(py);
        let started = with_name(&name, |name| {
            let create = |parent: Option<&SpanContext>| {
                let buffer = || unused.take_buffer(py);
                tracer.create_in(buffer, parent, SpanKind::Internal, name)
            };
            match &parent {
                Some(parent) => parent.get().with_context(py, create),
                None => create(None),
            }
        })?;
        let body = match started {
            Started::Recording(mut span) => {
                if let (Place::Linked, Some(parent)) = (&place, &parent) {
                    span.detach(&parent.get().clone_context(py));
                }
                span.begin_attended(Start::now());
                Body::Recording(span)
            }
            // Spans inside follow what was decided for the root.
            Started::NonRecording(context) if matches!(place, Place::Root) => {
                tracer.count_not_sampled();
                Body::NonRecording(context)
            }
            _ => return Ok(None),
        };
        let timings = (is_timed && matches!(body, Body::Recording(_))).then(Timings::new);
        let context = if keywords.is_some_and(Keywords::give_context) {
            TaskContext::Given
        } else if self.inner.is_some() {
            TaskContext::Unknown
        } else {
            TaskContext::Copied(Scope::back_to(py, value))
        };
        let made = TaskCoroutine::around(coroutine, unused, body, context, timings);
        layers::deliver(py);
        made.map(Some)
    }
}

/// What a task factory is called with by name, from the vectorcall convention.
pub(super) struct Keywords<'a, 'py> {
    pub(super) names: &'a Bound<'py, PyTuple>,
    pub(super) values: &'a [Borrowed<'a, 'py, PyAny>],
}

impl Keywords<'_, '_> {
    /// Whether the task gets a context that others may run in.
    #[inline]
    fn give_context(&self) -> bool {
        let named = self.names.iter_borrowed().zip(self.values);
        named
            .filter(|(_, value)| !value.is_none())
            .any(|(name, _)| ascii(&name) == Some("context"))
    }

    /// Whether they say nothing: uvloop always gives a context, and mostly none.
    #[inline]
    fn is_empty(&self) -> bool {
        match self.values {
            [] => true,
            [value] => {
                value.is_none()
                    && self.names.iter_borrowed().next().as_deref().and_then(ascii)
                        == Some("context")
            }
            _ => false,
        }
    }
}

/// Calls what makes tasks.
#[inline]
#[expect(unsafe_code, reason = "a vectorcall saves a dict for every task")]
fn call<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: &[*mut ffi::PyObject],
    positional: usize,
    names: Option<&Bound<'py, PyTuple>>,
) -> PyResult<Bound<'py, PyAny>> {
    let names = names.map_or(std::ptr::null_mut(), Bound::as_ptr);
    // SAFETY: attached; so many positional arguments, and one value for each name behind them, all valid for the call; the
    // result is a new reference or null with an error set.
    unsafe {
        let result = vectorcall(callable.as_ptr(), arguments.as_ptr(), positional, names);
        Bound::from_owned_ptr_or_err(callable.py(), result)
    }
}

impl TaskFactory {
    /// `asyncio.Task(coroutine, loop=event_loop, **keywords)`.
    #[inline]
    fn new_task<'py>(
        event_loop: &Bound<'py, PyAny>,
        coroutine: &Bound<'py, PyAny>,
        keywords: Option<&Keywords<'_, 'py>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = event_loop.py();
        let task = imports::asyncio_task(py)?;
        let names = match TASK_KEYWORDS.get(py) {
            Some(names) => names.bind(py),
            None => &PyTuple::new(py, ["loop"])?,
        };
        let arguments = [coroutine.as_ptr(), event_loop.as_ptr()];
        let Some(keywords) = keywords.filter(|keywords| !keywords.is_empty()) else {
            return call(task, &arguments, 1, Some(names));
        };
        let names: Vec<_> = names.iter().chain(keywords.names.iter()).collect();
        let names = PyTuple::new(py, names)?;
        let values = keywords.values.iter().map(|value| value.as_ptr());
        let arguments: Vec<_> = arguments.into_iter().chain(values).collect();
        call(task, &arguments, 1, Some(&names))
    }

    /// What `loop.create_task` calls: makes the task, of the coroutine in a span if one is being recorded here.
    #[inline]
    pub(super) fn create_task<'py>(
        &self,
        event_loop: &Bound<'py, PyAny>,
        coroutine: &Bound<'py, PyAny>,
        keywords: Option<&Keywords<'_, 'py>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = event_loop.py();
        let wrapped = if self.enabled.load(Ordering::Relaxed) {
            guard(py, "starting a task span", || {
                self.traced(coroutine, keywords)
            })?
            .flatten()
        } else {
            None
        };
        let coroutine = wrapped.as_ref().map_or(coroutine, Bound::as_any);
        let Some(inner) = &self.inner else {
            return Self::new_task(event_loop, coroutine, keywords);
        };
        let values = keywords.map_or(&[][..], |keywords| keywords.values);
        let arguments = [event_loop.as_ptr(), coroutine.as_ptr()].into_iter();
        let arguments: Vec<_> = arguments
            .chain(values.iter().map(|value| value.as_ptr()))
            .collect();
        let names = keywords.map(|keywords| keywords.names);
        call(inner.bind(py), &arguments, 2, names)
    }
}

/// The name of the function that a coroutine is of; for other objects, of their class.
#[inline]
#[expect(
    unsafe_code,
    reason = "a look-up by name would cost a tenth of the span"
)]
fn qualified_name<'py>(coroutine: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = coroutine.py();
    #[cfg(not(Py_3_14))]
    if is_coroutine(coroutine) {
        // SAFETY: attached; a coroutine begins like a generator (one macro makes both), which always has a qualified name.
        return Ok(unsafe {
            let generator = coroutine.as_ptr().cast::<ffi::PyGenObject>();
            Bound::from_borrowed_ptr(py, (*generator).gi_qualname)
        });
    }
    match coroutine.getattr_opt(pyo3::intern!(py, "__qualname__"))? {
        Some(name) => Ok(name),
        None => Ok(coroutine.get_type().name()?.into_any()),
    }
}

/// Where the span of a task belongs whose creator's span is not recorded, or not any more.
#[cold]
fn surviving(py: Python<'_>, parent: &Span) -> Place {
    if parent.with_recording(py, |_| ()).is_some() {
        Place::Linked
    } else {
        Place::Child
    }
}

/// Whether what is no `async def` coroutine may be wrapped: it is a coroutine to asyncio, and not in a span of a task already,
/// by another of our factories. Anything else is for asyncio to refuse.
#[cold]
fn is_traceable(coroutine: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = coroutine.py();
    if coroutine.is_instance_of::<TaskCoroutine>() {
        return Ok(false);
    }
    // asyncio closes a forgotten generator in a task of its own, in whatever context is current.
    let class = coroutine.get_type().name()?;
    if ascii(&class) == Some("async_generator_athrow") {
        return Ok(false);
    }
    imports::is_coroutine(py)?.call1((coroutine,))?.is_truthy()
}

/// Whether a coroutine is what `asyncio.Runner` runs to close its loop.
#[cold]
fn is_of_loop(name: &Bound<'_, PyAny>) -> bool {
    let name = ascii(name).unwrap_or_default();
    name.ends_with("Loop.shutdown_asyncgens") || name.ends_with("Loop.shutdown_default_executor")
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
    fn new(inner: Option<Py<PyAny>>) -> PyResult<Self> {
        Ok(Self {
            inner,
            enabled: AtomicBool::new(true),
            options: AttachedCell::new(Arc::new(TaskOptions::new(None, None, false, true)?)),
        })
    }

    /// Replaces every option, for the tasks that are created from now on.
    #[pyo3(signature = (*, name, filter, root_tasks, timings))]
    fn configure<'py>(
        &self,
        py: Python<'py>,
        name: Option<&Bound<'py, PyAny>>,
        filter: Option<&Bound<'py, PyAny>>,
        root_tasks: &Bound<'py, PyAny>,
        timings: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let options = TaskOptions::new(
            name,
            filter,
            argument(root_tasks, "root_tasks", "True or False")?,
            argument(timings, "timings", "True or False")?,
        )?;
        let old = self.options.with(py, |slot| {
            self.enabled.store(true, Ordering::Relaxed);
            std::mem::replace(slot, Arc::new(options))
        });
        drop(old);
        Ok(())
    }

    #[getter]
    fn inner(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.inner.as_ref().map(|inner| inner.clone_ref(py))
    }

    fn disable(&self) {
        self.enabled.store(false, Ordering::Relaxed);
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(self.inner.as_ref())?;
        self.options
            .with_collecting(|options| options.traverse(&visit))
            .unwrap_or(Ok(()))
    }
}
