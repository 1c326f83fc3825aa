//! Rust streams that Python iterates over.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{FutureExt as _, Stream, StreamExt as _};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration};
use pyo3::prelude::*;
use tokio::sync::{Notify, Semaphore};

use super::ending::Ending;
use super::future::{from_panic, future_into_py_without_span};
use super::glue::glue;
use super::mailbox::post;
use super::runtime::{Alive, UntilEnd, task_locals, with_locals};
use crate::SpanBuilder;
use crate::task::FutureExt as _;

/// Makes a Rust stream an async iterator in Python, inside of a span.
///
/// The span starts now and ends with the stream, which is polled inside of it. The stream is never more than
/// `read_ahead` items (1 if 0 is given) ahead of Python: it is polled for the next one only when there is room. Items
/// that are there are taken without a way through Tokio.
///
/// - The first `Err` is raised by the iterator, the same object, and ends it; so does a panic, as a `RuntimeError`.
/// - `aclose()` drops the stream and returns when that is done; so does the end of the iterator's life, which waits for
///   nothing.
/// - Cancelling a task that waits for an item loses none: the iterator may be asked again. If it is not, the span ends
///   as cancelled.
///
/// # Errors
///
/// As for [`future_into_py`](super::future_into_py).
///
/// ```no_run
/// use futures::stream;
/// use pyo3::prelude::*;
/// use rvh_trace_client::{Span, python};
///
/// #[pyfunction]
/// fn rows(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
///     python::stream_into_py(py, Span::builder("rows"), 16, stream::iter((0..100).map(Ok)))
/// }
/// ```
pub fn stream_into_py<'py, 'a, S, T>(
    py: Python<'py>,
    span: impl Into<SpanBuilder<'a>>,
    read_ahead: usize,
    stream: S,
) -> PyResult<Bound<'py, PyAny>>
where
    S: Stream<Item = PyResult<T>> + Send + 'static,
    T: for<'any> IntoPyObject<'any> + Send + 'static,
{
    let locals = task_locals(py)?;
    let alive = Alive::required()?;
    let context = span.into().start();
    let line = Arc::new(Line::new(read_ahead.max(1)));
    let end = Produced {
        line: line.clone(),
        ending: Ending::of(&context),
        alive: Some(alive),
    };
    let producer = with_locals(locals, produce(stream, end).in_context(context.clone()));
    let producer = pyo3_async_runtimes::tokio::get_runtime().spawn(UntilEnd::new(producer));
    let stream = RustStream {
        line,
        producer: producer.abort_handle(),
        context,
    };
    Bound::new(py, stream).map(Bound::into_any)
}

type Item = Box<dyn for<'py> FnOnce(Python<'py>) -> PyResult<Py<PyAny>> + Send>;

/// What lies between the stream and the iterator.
struct Line {
    state: Mutex<State>,
    /// A permit is room for one item.
    room: Semaphore,
    /// Something has changed for whoever waits on the side of Python.
    changed: Notify,
    /// Whether Python is done with it, or about to be: by its own will.
    is_closed: AtomicBool,
    /// Whether the last who waited on the side of Python was cancelled.
    is_abandoned: AtomicBool,
}

struct State {
    items: VecDeque<Item>,
    /// Nothing will be added.
    is_over: bool,
}

impl Line {
    fn new(room: usize) -> Self {
        Self {
            state: Mutex::new(State {
                items: VecDeque::new(),
                is_over: false,
            }),
            room: Semaphore::new(room.min(Semaphore::MAX_PERMITS)),
            changed: Notify::new(),
            is_closed: AtomicBool::new(false),
            is_abandoned: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, item: Item) {
        self.state().items.push_back(item);
        self.changed.notify_waiters();
    }

    /// Until `there` says so of the state.
    async fn until(&self, there: impl Fn(&State) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if there(&self.state()) {
                return;
            }
            changed.await;
        }
    }
}

/// Ends the line, and the span, when the stream is no more.
struct Produced {
    line: Arc<Line>,
    ending: Ending,
    alive: Option<Alive>,
}

impl Drop for Produced {
    fn drop(&mut self) {
        // A generator that is closed early is no more worth a word.
        let line = &self.line;
        if line.is_closed.load(Ordering::Relaxed) && !line.is_abandoned.load(Ordering::Relaxed) {
            self.ending.returned();
        }
        drop(std::mem::take(&mut self.ending));
        self.line.state().is_over = true;
        self.line.changed.notify_waiters();
        drop(self.alive.take());
    }
}

async fn produce<S, T>(stream: S, mut produced: Produced)
where
    S: Stream<Item = PyResult<T>> + Send + 'static,
    T: for<'any> IntoPyObject<'any> + Send + 'static,
{
    let line = produced.line.clone();
    let mut stream = Box::pin(stream);
    loop {
        let Ok(room) = line.room.acquire().await else {
            return;
        };
        let item = match AssertUnwindSafe(stream.next()).catch_unwind().await {
            Ok(None) => {
                drop(stream);
                produced.ending.returned();
                return;
            }
            Ok(Some(item)) => item,
            Err(panic) => Err(from_panic(&*panic)),
        };
        room.forget();
        match item {
            Ok(item) => line.push(Box::new(move |py| item.into_py_any(py))),
            Err(error) => {
                drop(stream);
                post(move |py| {
                    produced.ending.raised(py, &error);
                    line.push(Box::new(move |_| Err(error)));
                    drop(produced);
                });
                return;
            }
        }
    }
}

/// The async iterator.
#[pyclass(frozen, name = "RustStream", module = "rvh_trace_client")]
struct RustStream {
    line: Arc<Line>,
    producer: tokio::task::AbortHandle,
    context: crate::Context,
}

#[pymethods]
impl RustStream {
    fn __aiter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __anext__(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        glue(slf.py())?.advance.call1(slf.py(), (slf,))
    }

    /// The next item; itself if there is none yet.
    fn take(slf: &Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        let line = &slf.get().line;
        line.is_abandoned.store(false, Ordering::Relaxed);
        let (item, is_over) = {
            let mut state = line.state();
            (state.items.pop_front(), state.is_over)
        };
        match item {
            Some(item) => {
                line.room.add_permits(1);
                let item = std::panic::catch_unwind(AssertUnwindSafe(|| item(py)))
                    .unwrap_or_else(|panic| Err(from_panic(&*panic)));
                if item.is_err() {
                    slf.get().close();
                }
                // A coroutine cannot raise it; see PEP 479.
                item.map_err(|error| {
                    if error.is_instance_of::<PyStopAsyncIteration>(py) {
                        let wrapped =
                            PyRuntimeError::new_err("a Rust stream raised StopAsyncIteration");
                        wrapped.set_cause(py, Some(error));
                        return wrapped;
                    }
                    error
                })
            }
            None if is_over => Err(PyStopAsyncIteration::new_err(())),
            None => Ok(slf.clone().into_any().unbind()),
        }
    }

    /// Awaitable: until `take` has something to say.
    fn readable<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let line = self.line.clone();
        let readable = async move {
            line.until(|state| state.is_over || !state.items.is_empty())
                .await;
            Ok(())
        };
        future_into_py_without_span(py, readable.in_context(self.context.clone()))
    }

    /// Who waited was cancelled.
    fn abandon(&self) {
        self.line.is_abandoned.store(true, Ordering::Relaxed);
    }

    /// Drops the stream and what it has given; returns when that is done.
    fn aclose<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.close();
        let line = self.line.clone();
        future_into_py_without_span(py, async move {
            line.until(|state| state.is_over).await;
            Ok(())
        })
    }
}

impl RustStream {
    fn close(&self) {
        self.line.is_closed.store(true, Ordering::Relaxed);
        self.producer.abort();
        let items = std::mem::take(&mut self.line.state().items);
        drop(items);
    }
}

impl Drop for RustStream {
    fn drop(&mut self) {
        self.close();
    }
}
