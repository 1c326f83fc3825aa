//! `span_future`: a Rust future made awaitable, with a Python awaitable inside it.
//!
//! For work that lives in Rust. A round trip through Tokio costs about 100 us; everyone else wants `span(...).run()`.
//! Tokio is started by the first call, never at import.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyBaseException, PyRuntimeError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3_async_runtimes::TaskLocals;

use super::cell::AttachedCell;
use super::creation::new_span;
use super::span::Span;
use super::{current, imports};
use crate::bridge::WithContext;
use crate::id::process_generation;

/// The process generation that Tokio was started in, plus one; 0 before.
static TOKIO_GENERATION: AtomicU32 = AtomicU32::new(0);

/// How long the end of the process waits for what Tokio's threads still have to say to Python. What nobody awaits any more never says
/// anything.
const SETTLE: Duration = Duration::from_millis(250);

fn claim_tokio(py: Python<'_>) -> PyResult<()> {
    let here = process_generation() + 1;
    match TOKIO_GENERATION.compare_exchange(0, here, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            // pyo3-async-runtimes hands every result over on a blocking thread, which waits for the GIL: one is as fast as
            // hundreds, and what it does is done in order, so `settle_tokio` can wait for the last of it.
            runtime.enable_all().max_blocking_threads(1);
            pyo3_async_runtimes::tokio::init(runtime);
            let settle = wrap_pyfunction!(settle_tokio, py)?;
            py.import("atexit")?.call_method1("register", (settle,))?;
            Ok(())
        }
        Err(started) if started == here => Ok(()),
        Err(_) => Err(PyRuntimeError::new_err(
            "span_future() was used before os.fork(): Tokio's threads exist only in the parent process. Use span(...).run() \
             in forked workers, or fork before the first span_future()",
        )),
    }
}

/// Waits until no thread of Tokio's is about to attach to the interpreter: CPython before 3.14 ends a thread that does while it
/// finalises, and with it, through frames of Rust, the process.
#[pyfunction]
fn settle_tokio(py: Python<'_>) {
    if TOKIO_GENERATION.load(Ordering::Acquire) != process_generation() + 1 {
        return;
    }
    py.detach(|| {
        let runtime = pyo3_async_runtimes::tokio::get_runtime();
        let deadline = Instant::now() + SETTLE;
        // Whoever still waits for Python never gets an answer: those are left behind.
        while runtime.metrics().num_alive_tasks() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        runtime.spawn_blocking(move || drop(done));
        let _ = is_done.recv_timeout(SETTLE);
    });
}

/// A Rust future, made awaitable, that awaits `awaitable` inside a span.
#[pyfunction]
#[pyo3(signature = (name, awaitable, attributes=None, /, *, kind=None, links=None, **attrs))]
pub(super) fn span_future<'py>(
    py: Python<'py>,
    name: &Bound<'py, PyAny>,
    awaitable: &Bound<'py, PyAny>,
    attributes: Option<&Bound<'py, PyAny>>,
    kind: Option<&Bound<'py, PyAny>>,
    links: Option<&Bound<'py, PyAny>>,
    attrs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    claim_tokio(py)?;
    let locals = TaskLocals::with_running_loop(py)?;
    let span = new_span(py, name, attributes, kind, links, None, attrs)?;
    let context = imports::copy_context(py)?.call0()?;
    context.call_method1(
        pyo3::intern!(py, "run"),
        (span.getattr(pyo3::intern!(py, "__enter__"))?,),
    )?;
    // Not that of `span`: one that is not sampled stands back for its parent.
    let inside = current::span_in(&context)?.map(|span| span.get().clone_context(py));
    let task = imports::start_task(py)?.call1((locals.event_loop(py), awaitable, &context))?;
    // The span ends on the loop's thread, before the future that waits for it is resolved.
    let cancelled = Arc::new(AtomicBool::new(false));
    let end_span = Bound::new(
        py,
        EndSpan {
            span: span.unbind(),
            future: AttachedCell::new(None),
            cancelled: cancelled.clone(),
        },
    )?;
    task.call_method1(pyo3::intern!(py, "add_done_callback"), (&end_span,))?;
    let outcome = pyo3_async_runtimes::into_future_with_locals(&locals, task.clone())?;
    let cancel = CancelOnDrop {
        task: Some(task.unbind()),
        event_loop: locals.event_loop(py).unbind(),
    };
    let future = async move {
        let mut cancel = cancel;
        tracing::trace!(target: "rvh_trace::span_future", "awaiting");
        let outcome = outcome.await;
        cancel.task = None;
        if outcome.is_err() && (cancelled.load(Ordering::Acquire) || cancel.is_loop_closed()) {
            // The caller knows already, or nobody waits any more; pyo3-async-runtimes would print that it cannot say so to
            // a closed loop. It drops this future when the caller's is cancelled.
            std::future::pending::<()>().await;
        }
        outcome
    };
    let future = WithContext::child_of(&inside.unwrap_or_default(), future);
    let future = pyo3_async_runtimes::tokio::future_into_py_with_locals(py, locals, future)?;
    end_span
        .get()
        .future
        .with(py, |slot| *slot = Some(future.clone().unbind()));
    Ok(future)
}

/// Cancels the Python task when the Rust future is dropped before it has a result.
struct CancelOnDrop {
    task: Option<Py<PyAny>>,
    event_loop: Py<PyAny>,
}

impl CancelOnDrop {
    fn is_loop_closed(&self) -> bool {
        Python::try_attach(|py| self.event_loop.call_method0(py, "is_closed")?.is_truthy(py))
            .and_then(Result::ok)
            .unwrap_or(true)
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        let Some(task) = self.task.take() else { return };
        // Nothing to cancel when the interpreter is going away.
        let _ = Python::try_attach(|py| -> PyResult<()> {
            let cancel = task.getattr(py, "cancel")?;
            // A closed loop raises: its tasks are gone already.
            self.event_loop
                .call_method1(py, "call_soon_threadsafe", (cancel,))
                .map(drop)
        });
    }
}

/// The done callback that ends the span with the outcome of the task.
#[pyclass(frozen)]
struct EndSpan {
    span: Py<Span>,
    /// The future that the caller awaits. A cancellation reaches it here, on the loop's thread: at the end of the loop the
    /// way through Tokio would come too late, and pyo3-async-runtimes would print that the loop is closed.
    future: AttachedCell<Option<Py<PyAny>>>,
    cancelled: Arc<AtomicBool>,
}

#[pymethods]
impl EndSpan {
    fn __call__(&self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = task.py();
        // `exception()` raises CancelledError for a cancelled task, which is what the span should see.
        let raised = match task.call_method0(pyo3::intern!(py, "exception")) {
            Ok(raised) => raised.cast_into::<PyBaseException>().ok(),
            Err(cancelled) => Some(cancelled.into_value(py).into_bound(py)),
        };
        Span::finish_detached(self.span.bind(py), raised.as_ref())?;
        let future = self.future.with(py, Option::take).flatten();
        if let Some(future) = future
            && task
                .call_method0(pyo3::intern!(py, "cancelled"))?
                .is_truthy()?
        {
            self.cancelled.store(true, Ordering::Release);
            future.call_method0(py, pyo3::intern!(py, "cancel"))?;
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.span)?;
        self.future
            .with_collecting(|future| visit.call(future.as_ref()))
            .unwrap_or(Ok(()))
    }
}
