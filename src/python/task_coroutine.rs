//! `TaskCoroutine`: the coroutine of a task, inside the task's span.
//!
//! To asyncio it is a coroutine (it has `send`, `throw`, `close` and `__await__`). Tasks step it through `am_send`, the way
//! CPython steps its own coroutines: no method is looked up and no `StopIteration` is made. A step costs two readings of
//! [`Ticks`] and one call.

mod slots;

use pyo3::exceptions::{PyBaseException, PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use super::cell::AttachedCell;
use super::coroutine::{Step, Stepped, is_coroutine, send, throw};
use super::creation::{LastTwo, is_unused};
use super::current::{self, Scope};
use super::errors::guard;
use super::span::{Body, Span};
use super::task_ending::{Fate, end_task};
use super::task_timings::Timings;
use crate::span::take_buffer;
use crate::ticks::Ticks;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    New,
    Started,
    Done,
}

struct State {
    /// What is stepped. `None` only after the collector has cleared it.
    inner: Option<Py<PyAny>>,
    span: Option<Py<Span>>,
    phase: Phase,
    /// Whether the task was given its context: other tasks may run in the same one, so inside and outside take turns, as with
    /// a generator. Otherwise the context ends with the task and there is nothing to restore.
    shares_context: bool,
    /// The way back from the span's scope, until the first step enters it: what the context of the task holds, if that is a
    /// copy of the one that the task was created in.
    way_back: Option<Scope>,
    /// What is current inside, between the steps of a task that shares its context.
    inside: Option<Py<PyAny>>,
    timings: Option<Timings>,
}

/// The coroutine of a task, inside the task's span.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct TaskCoroutine {
    state: AttachedCell<State>,
}

/// Objects of tasks that are over. Never of one that is not: being let go of is how a task is known to be destroyed.
static LAST: LastTwo<TaskCoroutine> = LastTwo::new();

/// What a new task may use again.
pub(super) struct Unused<'py> {
    coroutine: Option<Bound<'py, TaskCoroutine>>,
    span: Option<Bound<'py, Span>>,
}

impl Unused<'_> {
    /// A buffer for the span.
    #[inline]
    pub(super) fn take_buffer(&self, py: Python<'_>) -> Vec<u8> {
        self.span
            .as_ref()
            .map_or_else(take_buffer, |span| span.get().take_buffer(py))
    }
}

/// The context that a task runs in.
pub(super) enum TaskContext {
    /// A copy of the one it is created in, with the way back from a scope in it.
    Copied(Scope),
    /// Its own, made by whom we do not know.
    Unknown,
    /// One that it was given.
    Given,
}

impl TaskCoroutine {
    /// Lets tasks step it without `__next__`, and the collector look at it without PyO3. At import.
    pub(super) fn initialise(py: Python<'_>) {
        slots::fill(&py.get_type::<Self>());
    }

    /// The object of an earlier task, and its span, if nobody holds them.
    #[inline]
    pub(super) fn unused(py: Python<'_>) -> Unused<'_> {
        let coroutine = LAST.take_unused(py);
        let span = coroutine.as_ref().and_then(|coroutine| {
            let span = coroutine.get().state.with(py, |state| {
                let span = state.span.as_ref().filter(|span| is_unused(span))?;
                Some(span.bind(py).clone())
            });
            span.flatten()
        });
        Unused { coroutine, span }
    }

    /// Puts `coroutine` into a span, which has started.
    #[inline]
    pub(super) fn around<'py>(
        coroutine: &Bound<'py, PyAny>,
        unused: Unused<'py>,
        body: Body,
        context: TaskContext,
        timings: Option<Timings>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = coroutine.py();
        let span = if let Some(span) = unused.span {
            span.get().reuse(py, body);
            span
        } else {
            Span::object(py, body)?
        };
        let (shares_context, way_back) = match context {
            TaskContext::Copied(way_back) => (false, Some(way_back)),
            TaskContext::Unknown => (false, None),
            TaskContext::Given => (true, None),
        };
        let state = State {
            inner: Some(coroutine.clone().unbind()),
            inside: shares_context.then(|| span.clone().into_any().unbind()),
            span: Some(span.unbind()),
            phase: Phase::New,
            shares_context,
            way_back,
            timings,
        };
        let Some(unused) = unused.coroutine else {
            let state = AttachedCell::new(state);
            return Bound::new(py, Self { state });
        };
        let old = unused
            .get()
            .state
            .with(py, |old| std::mem::replace(old, state));
        if let Some(old) = old {
            drop((
                old.inner.map(|inner| inner.into_bound(py)),
                old.span.map(|span| span.into_bound(py)),
            ));
        }
        Ok(unused)
    }

    /// What is to be stepped and whether that is timed, if there is nothing else to do: it has started and has its context
    /// for itself.
    #[inline]
    fn plain<'py>(&self, py: Python<'py>) -> Option<(Bound<'py, PyAny>, bool)> {
        let plain = self.state.with(py, |state| {
            if state.phase == Phase::New || state.shares_context {
                return None;
            }
            let inner = state.inner.as_ref()?.bind(py).clone();
            Some((inner, state.timings.is_some()))
        });
        plain.flatten()
    }

    /// A step is over that began then and ended now.
    #[inline]
    fn count(&self, py: Python<'_>, from: Ticks) {
        let to = Ticks::now();
        self.state.with(py, |state| {
            if let Some(timings) = &mut state.timings {
                timings.count(from, to);
            }
        });
    }

    #[inline]
    fn step<'py>(slf: &Bound<'py, Self>, step: &Step<'_, 'py>) -> Stepped<'py> {
        let Some((inner, is_timed)) = slf.get().plain(slf.py()) else {
            return Self::take_turn(slf, step);
        };
        let from = is_timed.then(Ticks::now);
        let stepped = run(&inner, step);
        if let Some(from) = from {
            slf.get().count(slf.py(), from);
        }
        match stepped {
            Stepped::Yielded(_) => stepped,
            ended => Self::finish(slf, ended, Fate::Ran),
        }
    }

    /// The first step, and every step in a context that others use.
    fn take_turn<'py>(slf: &Bound<'py, Self>, step: &Step<'_, 'py>) -> Stepped<'py> {
        let py = slf.py();
        let state = &slf.get().state;
        let begun = state.with(py, |state| {
            let inner = state.inner.as_ref()?.bind(py).clone();
            let is_new = state.phase == Phase::New;
            if is_new {
                state.phase = Phase::Started;
            }
            let span = state.span.as_ref().map(|span| span.bind(py).clone());
            let way_back = state.way_back.take();
            Some((inner, is_new, state.shares_context, span, way_back))
        });
        let Some((inner, is_new, shares_context, span, way_back)) = begun.flatten() else {
            return Stepped::Raised(collected());
        };
        // asyncio throws into a task that was cancelled before its first step: no line of it runs.
        let is_thrown = is_new && matches!(step, Step::Throw(_));
        let mut outside = None;
        let entered = if shares_context {
            let inside = state.with(py, |state| state.inside.take()).flatten();
            let inside = inside.map(|inside| inside.into_bound(py));
            guard(py, "switching the current span", || {
                outside = current::swap_to(py, inside.as_ref())?;
                Ok(())
            })
        } else {
            enter(span, way_back)
        };
        if let Err(error) = entered {
            return Self::finish(slf, Stepped::Raised(error), Fate::Ran);
        }
        let from = Ticks::now();
        let stepped = run(&inner, step);
        let to = Ticks::now();
        if shares_context {
            let left = guard(py, "switching the current span", || {
                current::swap_to(py, outside.as_ref())
            });
            let left = match left {
                Ok(left) => left.flatten(),
                Err(error) => return Self::finish(slf, Stepped::Raised(error), Fate::Ran),
            };
            state.with(py, |state| state.inside = left.map(Bound::unbind));
        }
        let is_over = !matches!(stepped, Stepped::Yielded(_));
        if is_thrown && is_over {
            return Self::finish(slf, stepped, Fate::NeverStarted);
        }
        state.with(py, |state| {
            if let Some(timings) = &mut state.timings {
                timings.count(from, to);
            }
        });
        if is_over {
            Self::finish(slf, stepped, Fate::Ran)
        } else {
            stepped
        }
    }

    /// Ends the span with the first end of the coroutine.
    #[inline]
    fn finish<'py>(slf: &Bound<'py, Self>, ended: Stepped<'py>, fate: Fate) -> Stepped<'py> {
        let py = slf.py();
        let raised = match &ended {
            Stepped::Raised(error) => Some(error.value(py)),
            _ => None,
        };
        match Self::end(slf, raised, fate) {
            Ok(()) => ended,
            Err(error) => Stepped::Raised(error),
        }
    }

    #[inline]
    fn end(
        slf: &Bound<'_, Self>,
        raised: Option<&Bound<'_, PyBaseException>>,
        fate: Fate,
    ) -> PyResult<()> {
        let py = slf.py();
        let first = slf.get().state.with(py, |state| {
            if state.phase == Phase::Done {
                return None;
            }
            state.phase = Phase::Done;
            let span = state.span.as_ref()?.bind(py).clone();
            // A coroutine that is over holds nothing of the user's; of other objects that is not known.
            let inner = state.inner.as_ref()?.bind(py);
            let is_empty = is_coroutine(inner) && raised.is_none();
            let held = (state.inside.take(), state.way_back.take());
            Some((span, state.timings.take(), held, is_empty))
        });
        let Some((span, timings, (inside, way_back), is_empty)) = first.flatten() else {
            return Ok(());
        };
        drop(inside.map(|inside| inside.into_bound(py)));
        if let Some(way_back) = way_back {
            way_back.forget(py);
        }
        let ended = end_task(&span, Some(slf.as_any()), raised, fate, timings.as_ref());
        if is_empty {
            LAST.give(slf);
        }
        ended
    }

    fn inner<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.state.with(py, |state| {
            state.inner.as_ref().map(|inner| inner.bind(py).clone())
        });
        inner.flatten().ok_or_else(collected)
    }
}

/// Makes the span current in a context that ends with the task. Never fails.
#[inline]
fn enter(span: Option<Bound<'_, Span>>, way_back: Option<Scope>) -> PyResult<Option<()>> {
    let Some(span) = span else { return Ok(None) };
    let py = span.py();
    guard(py, "starting a task span", || {
        let way_back = Scope::enter_for_good(&span, way_back)?;
        span.get().enter_fresh(py, way_back);
        Ok(())
    })
}

#[inline]
fn run<'py>(inner: &Bound<'py, PyAny>, step: &Step<'_, 'py>) -> Stepped<'py> {
    match step {
        Step::Send(value) => send(inner, value),
        Step::Throw(arguments) => throw(inner, arguments),
    }
}

#[cold]
fn collected() -> PyErr {
    PyRuntimeError::new_err("this coroutine was already collected")
}

impl Drop for TaskCoroutine {
    /// A task that was destroyed while it was pending ends its span here.
    fn drop(&mut self) {
        let state = self.state.get_mut();
        let fate = match state.phase {
            Phase::New => Fate::NeverStarted,
            Phase::Started => Fate::Destroyed,
            Phase::Done => return,
        };
        let (span, timings) = (state.span.take(), state.timings.take());
        let _ = Python::try_attach(|py| {
            let span = span?.into_bound(py);
            end_task(&span, None, None, fate, timings.as_ref()).ok()
        });
    }
}

/// How a method that gives what was yielded says that the coroutine returned.
fn yielded(stepped: Stepped<'_>) -> PyResult<Bound<'_, PyAny>> {
    match stepped {
        Stepped::Yielded(value) => Ok(value),
        Stepped::Returned(value) => Err(PyErr::from_value(
            value.py().get_type::<PyStopIteration>().call1((value,))?,
        )),
        Stepped::Raised(error) => Err(error),
    }
}

#[pymethods]
impl TaskCoroutine {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        yielded(Self::step(slf, &Step::Send(slf.py().None().bind(slf.py()))))
    }

    fn send<'py>(slf: &Bound<'py, Self>, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        yielded(Self::step(slf, &Step::Send(value)))
    }

    #[pyo3(signature = (*args))]
    fn throw<'py>(
        slf: &Bound<'py, Self>,
        args: &Bound<'py, PyTuple>,
    ) -> PyResult<Bound<'py, PyAny>> {
        yielded(Self::step(slf, &Step::Throw(args)))
    }

    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let inner = slf.get().inner(py)?;
        let is_new = slf.get().state.with(py, |state| state.phase == Phase::New);
        // Some awaitables' iterators have no `close`; `await` skips it then, and so do we.
        let closed = match inner.getattr_opt(pyo3::intern!(py, "close"))? {
            Some(close) => close.call0().map(drop),
            None => Ok(()),
        };
        let fate = if is_new == Some(true) {
            Fate::NeverStarted
        } else {
            Fate::Ran
        };
        Self::end(
            slf,
            closed.as_ref().err().map(|error| error.value(py)),
            fate,
        )?;
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
            "<rvh_trace.TaskCoroutine of {}>",
            self.inner(py)?.repr()?
        ))
    }
}
