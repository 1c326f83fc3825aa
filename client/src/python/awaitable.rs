//! Python awaitables that Rust awaits.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::sync::oneshot;

use super::future::{call_soon, is_closed};
use super::glue::glue;
use super::mailbox::post;
use super::runtime::task_locals;
use crate::Context;

pyo3::import_exception!(asyncio, CancelledError);

type Outcome = PyResult<Py<PyAny>>;

/// Runs a Python awaitable on its event loop, for a Rust future to await.
///
/// The loop is that of the Rust future that this is called in, or the running one; call it from any thread that knows
/// of its loop, see [`task::spawn`](crate::task::spawn). A coroutine becomes a task; it starts at once, whether the
/// result is awaited or not. It runs in context variables of its own, a copy of those that the Rust future was made in,
/// where what is [current](Context::current) now, such as the innermost `tracing` span, is the current span:
/// `rvh_trace.current_span()` is that of Rust and may be annotated, baggage is kept.
///
/// Dropping the result cancels the task. A task that is cancelled, or whose loop is closed before it begins, gives
/// `asyncio.CancelledError`. On a loop that is closed under a task that has begun, without cancelling it as
/// `asyncio.run` does, it stays where it is until the result is dropped, at the end of the process at the latest.
///
/// # Errors
///
/// `RuntimeError` if there is no event loop here, or it is closed.
///
/// ```no_run
/// use pyo3::prelude::*;
/// use rvh_trace_client::python;
///
/// async fn ask(callback: Py<PyAny>) -> PyResult<i64> {
///     let answer = Python::attach(|py| python::into_future(callback.bind(py).call0()?))?.await?;
///     Python::attach(|py| answer.extract(py))
/// }
/// ```
#[expect(
    clippy::needless_pass_by_value,
    reason = "as pyo3-async-runtimes has it, so that one may stand for the other"
)]
pub fn into_future(awaitable: Bound<'_, PyAny>) -> PyResult<PythonTask> {
    start(&awaitable).inspect_err(|_| close(&awaitable))
}

fn start(awaitable: &Bound<'_, PyAny>) -> PyResult<PythonTask> {
    let py = awaitable.py();
    let locals = task_locals(py)?;
    let event_loop = locals.event_loop(py);
    let variables = variables(&locals.context(py))?;
    let (sender, receiver) = oneshot::channel();
    let stage = Arc::new(Mutex::new(Stage::Waiting));
    let task = PythonTask {
        outcome: receiver,
        stage: stage.clone(),
        event_loop: Some(event_loop.clone().unbind()),
    };
    let options = PyDict::new(py);
    options.set_item(pyo3::intern!(py, "context"), &variables)?;
    let start = Start {
        given: Mutex::new(Some(Given {
            awaitable: awaitable.clone().unbind(),
            context: Context::current(),
            outcome: sender,
        })),
        event_loop: event_loop.clone().unbind(),
        variables: variables.unbind(),
        stage,
    };
    event_loop.call_method(
        pyo3::intern!(py, "call_soon_threadsafe"),
        (start,),
        Some(&options),
    )?;
    Ok(task)
}

/// A copy of context variables, or of the current ones if there are none.
fn variables<'py>(context: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = context.py();
    if context.is_none() {
        py.import("contextvars")?.call_method0("copy_context")
    } else {
        context.call_method0(pyo3::intern!(py, "copy"))
    }
}

/// A coroutine that never starts says so on standard error, unless it is closed.
fn close(awaitable: &Bound<'_, PyAny>) {
    let py = awaitable.py();
    if let Ok(close) = awaitable.getattr(pyo3::intern!(py, "close"))
        && awaitable
            .hasattr(pyo3::intern!(py, "cr_frame"))
            .unwrap_or(false)
    {
        let _ = close.call0();
    }
}

/// How far it has come.
enum Stage {
    /// The loop has not been there.
    Waiting,
    /// The task runs, or has run.
    Started(Py<PyAny>),
    /// Nobody waits for it any more.
    Dropped,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A Python awaitable that runs on its loop: the future of its result. See [`into_future`].
#[must_use = "a Python task is cancelled when this is dropped"]
pub struct PythonTask {
    outcome: oneshot::Receiver<Outcome>,
    stage: Arc<Mutex<Stage>>,
    event_loop: Option<Py<PyAny>>,
}

impl PythonTask {
    /// One that has failed.
    pub(super) fn failed(error: PyErr) -> Self {
        let (sender, outcome) = oneshot::channel();
        let _ = sender.send(Err(error));
        Self {
            outcome,
            stage: Arc::new(Mutex::new(Stage::Dropped)),
            event_loop: None,
        }
    }
}

impl std::fmt::Debug for PythonTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PythonTask").finish_non_exhaustive()
    }
}

impl Future for PythonTask {
    type Output = PyResult<Py<PyAny>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.outcome).poll(cx).map(|outcome| {
            outcome.unwrap_or_else(|_| Err(CancelledError::new_err("the event loop is closed")))
        })
    }
}

impl Drop for PythonTask {
    fn drop(&mut self) {
        let stage = std::mem::replace(&mut *lock(&self.stage), Stage::Dropped);
        // One that is done is not sent for: its outcome has been taken, or is there.
        let is_done = self.outcome.is_terminated() || self.outcome.try_recv().is_ok();
        if let Stage::Started(task) = stage
            && let Some(event_loop) = self.event_loop.take()
            && !is_done
        {
            post(move |py| cancel(event_loop.bind(py), task.bind(py)));
        }
    }
}

/// Cancels a task that nobody waits for any more.
fn cancel(event_loop: &Bound<'_, PyAny>, task: &Bound<'_, PyAny>) {
    let py = task.py();
    let _ = if is_closed(event_loop) {
        // It will not take another step: what its coroutine has to tidy up, it does now, and one that was not begun is
        // not warned about.
        task.call_method0(pyo3::intern!(py, "get_coro"))
            .map(|coroutine| close(&coroutine))
    } else {
        let cancel = task.getattr(pyo3::intern!(py, "cancel"));
        cancel.and_then(|cancel| call_soon(event_loop, (cancel,)))
    };
}

struct Given {
    awaitable: Py<PyAny>,
    context: Context,
    outcome: oneshot::Sender<Outcome>,
}

/// Called by the loop, in the context variables of the task that it makes.
#[pyclass(frozen)]
struct Start {
    given: Mutex<Option<Given>>,
    event_loop: Py<PyAny>,
    variables: Py<PyAny>,
    stage: Arc<Mutex<Stage>>,
}

#[pymethods]
impl Start {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let Some(given) = lock(&self.given).take() else {
            return Ok(());
        };
        if matches!(*lock(&self.stage), Stage::Dropped) {
            close(given.awaitable.bind(py));
            return Ok(());
        }
        given.context.set_in_python();
        let started = glue(py)?
            .start
            .call1(py, (&self.event_loop, &given.awaitable, &self.variables));
        let task = match started {
            Ok(task) => task,
            Err(error) => {
                let _ = given.outcome.send(Err(error));
                return Ok(());
            }
        };
        let finish = Finish {
            outcome: Mutex::new(Some(given.outcome)),
        };
        let task = task.into_bound(py);
        task.call_method1(pyo3::intern!(py, "add_done_callback"), (finish,))?;
        let is_dropped = {
            let mut stage = lock(&self.stage);
            let is_dropped = matches!(*stage, Stage::Dropped);
            if !is_dropped {
                *stage = Stage::Started(task.clone().unbind());
            }
            is_dropped
        };
        if is_dropped {
            task.call_method0(pyo3::intern!(py, "cancel"))?;
        }
        Ok(())
    }
}

impl Drop for Start {
    fn drop(&mut self) {
        // The loop was closed before it came to this.
        if let Some(given) = lock(&self.given).take() {
            Python::try_attach(|py| close(given.awaitable.bind(py)));
        }
    }
}

/// The done callback of the task.
#[pyclass(frozen)]
struct Finish {
    outcome: Mutex<Option<oneshot::Sender<Outcome>>>,
}

#[pymethods]
impl Finish {
    fn __call__(&self, task: &Bound<'_, PyAny>) {
        let outcome = task
            .call_method0(pyo3::intern!(task.py(), "result"))
            .map(Bound::unbind);
        if let Some(sender) = lock(&self.outcome).take() {
            let _ = sender.send(outcome);
        }
    }
}
