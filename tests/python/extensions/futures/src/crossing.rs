//! Ways between threads and languages, and where they are broken off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use rvh_trace_client::{Context, python, task};
use tokio::sync::Notify;

use crate::trees::await_call;

/// Watches a Rust future, and breaks it off.
#[pyclass(frozen)]
#[derive(Default)]
pub(crate) struct Crossing {
    reached: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
    broken_off: Arc<Notify>,
}

#[pymethods]
impl Crossing {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// How many await points were passed.
    #[getter]
    fn reached(&self) -> usize {
        self.reached.load(Ordering::SeqCst)
    }

    /// How many futures have been dropped.
    #[getter]
    fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }

    /// Has the future that [`abandon`] made drop what it awaits.
    fn break_off(&self) {
        self.broken_off.notify_one();
    }
}

struct CountDrop(Arc<AtomicUsize>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A future with an await point of every kind, over and over: before number n it awaits Python's `point(n)`.
#[pyfunction]
pub(crate) fn steps<'py>(
    py: Python<'py>,
    crossing: &Crossing,
    point: Py<PyAny>,
    count: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let reached = crossing.reached.clone();
    let dropped = CountDrop(crossing.dropped.clone());
    python::future_into_py(py, "steps", async move {
        let _dropped = dropped;
        for number in 0..count {
            let awaited =
                Python::attach(|py| python::into_future(point.bind(py).call1((number,))?))?;
            awaited.await?;
            match number % 3 {
                0 => tokio::task::yield_now().await,
                1 => {
                    let _ = task::spawn(async { tokio::task::yield_now().await }).await;
                }
                _ => {
                    let _ = task::spawn_blocking(|| ()).await;
                }
            }
            reached.fetch_add(1, Ordering::SeqCst);
        }
        Ok(count)
    })
}

/// A future that awaits `callback()` until it is broken off; whether that happened.
#[pyfunction]
pub(crate) fn abandon<'py>(
    py: Python<'py>,
    crossing: &Crossing,
    callback: Py<PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let broken_off = crossing.broken_off.clone();
    python::future_into_py(py, "abandon", async move {
        tokio::select! {
            biased;
            () = broken_off.notified() => Ok(true),
            outcome = await_call(callback) => outcome.map(|_| false),
        }
    })
}

fn joined<T>(joined: Result<PyResult<T>, tokio::task::JoinError>) -> PyResult<T> {
    joined.unwrap_or_else(|error| Err(PyRuntimeError::new_err(error.to_string())))
}

/// `callback()` awaited on another Tokio task.
#[pyfunction]
pub(crate) fn call_in_task(py: Python<'_>, callback: Py<PyAny>) -> PyResult<Bound<'_, PyAny>> {
    python::future_into_py(py, "future", async move {
        joined(task::spawn(await_call(callback)).await)
    })
}

/// The same on a task that was not told where it belongs.
#[pyfunction]
pub(crate) fn call_in_bare_task(py: Python<'_>, callback: Py<PyAny>) -> PyResult<Bound<'_, PyAny>> {
    python::future_into_py(py, "future", async move {
        joined(tokio::spawn(await_call(callback)).await)
    })
}

/// A plain function called on a blocking thread, in a span.
#[pyfunction]
pub(crate) fn call_blocking(py: Python<'_>, callback: Py<PyAny>) -> PyResult<Bound<'_, PyAny>> {
    python::future_into_py(py, "future", async move {
        let called = task::spawn_blocking(move || {
            let _span = tracing::info_span!("blocking").entered();
            Python::attach(|py| {
                let _current = Context::current().enter_python();
                callback.call0(py)
            })
        });
        joined(called.await)
    })
}
