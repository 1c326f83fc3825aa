//! Python async iterators that Rust reads as streams.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll};

use futures::Stream;
use futures::task::AtomicWaker;
use pyo3::prelude::*;

use super::awaitable::{PythonTask, into_future};
use super::future::call_soon;
use super::glue::glue;
use super::mailbox::post;
use super::runtime::task_locals;

/// Makes a Python async iterator, or async iterable, a Rust stream.
///
/// It is iterated over in one task from its beginning to its end, which starts at once and sees the same context
/// variables and the same current span as a coroutine that is [awaited](super::into_future). It is never more than
/// `read_ahead` items (1 if 0 is given) ahead of Rust.
///
/// An exception is the last item, the same object. When the stream is dropped the task is cancelled where it waits, and
/// the iterator is closed (`aclose()`), both in that task.
///
/// # Errors
///
/// As for [`into_future`](super::into_future).
///
/// ```no_run
/// use futures::StreamExt;
/// use pyo3::prelude::*;
/// use rvh_trace_client::python;
///
/// async fn count(rows: Py<PyAny>) -> PyResult<usize> {
///     let mut rows = Python::attach(|py| python::stream_from_py(rows.bind(py), 16))?;
///     let mut count = 0;
///     while let Some(row) = rows.next().await {
///         row?;
///         count += 1;
///     }
///     Ok(count)
/// }
/// ```
pub fn stream_from_py(iterable: &Bound<'_, PyAny>, read_ahead: usize) -> PyResult<PythonStream> {
    let py = iterable.py();
    let event_loop = task_locals(py)?.event_loop(py).unbind();
    let pipe = Arc::new(Pipe {
        read_ahead: read_ahead.max(1),
        event_loop,
        state: Mutex::default(),
        reader: AtomicWaker::new(),
    });
    let inlet = Inlet { pipe: pipe.clone() };
    let pump = glue(py)?.pump.bind(py).call1((iterable, inlet))?;
    Ok(PythonStream {
        task: Some(into_future(pump)?),
        pipe,
    })
}

#[derive(Default)]
struct State {
    items: VecDeque<Py<PyAny>>,
    /// The Python future that the iterator's task waits for while there is no room.
    parked: Option<Py<PyAny>>,
}

struct Pipe {
    read_ahead: usize,
    event_loop: Py<PyAny>,
    state: Mutex<State>,
    reader: AtomicWaker,
}

impl Pipe {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next item. Half of the room must be free before the other side is woken: that takes the GIL.
    fn pop(self: &Arc<Self>) -> Option<Py<PyAny>> {
        let mut state = self.state();
        let item = state.items.pop_front();
        let parked = if state.items.len() <= self.read_ahead / 2 {
            state.parked.take()
        } else {
            None
        };
        drop(state);
        if let Some(parked) = parked {
            let pipe = self.clone();
            post(move |py| resume(py, &pipe.event_loop, &parked));
        }
        item
    }
}

fn resume(py: Python<'_>, event_loop: &Py<PyAny>, parked: &Py<PyAny>) {
    let resumed = glue(py)
        .and_then(|glue| call_soon(event_loop.bind(py), (&glue.succeed, parked, py.None())));
    if let Err(error) = resumed {
        error.write_unraisable(py, None);
    }
}

/// A Python async iterator as a stream. See [`stream_from_py`].
#[must_use = "an async iterator is closed when this is dropped"]
pub struct PythonStream {
    /// `None` when the iterator is exhausted.
    task: Option<PythonTask>,
    pipe: Arc<Pipe>,
}

impl std::fmt::Debug for PythonStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PythonStream").finish_non_exhaustive()
    }
}

impl Stream for PythonStream {
    type Item = PyResult<Py<PyAny>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        self.pipe.reader.register(cx.waker());
        if let Some(item) = self.pipe.pop() {
            return Poll::Ready(Some(Ok(item)));
        }
        let Some(task) = &mut self.task else {
            return Poll::Ready(None);
        };
        let Poll::Ready(outcome) = Pin::new(task).poll(cx) else {
            return Poll::Pending;
        };
        // It may have put something down before it ended; what came of it is told after that.
        if let Some(item) = self.pipe.pop() {
            self.task = outcome.err().map(PythonTask::failed);
            return Poll::Ready(Some(Ok(item)));
        }
        self.task = None;
        Poll::Ready(outcome.err().map(Err))
    }
}

/// The side of Python.
#[pyclass(frozen)]
struct Inlet {
    pipe: Arc<Pipe>,
}

#[pymethods]
impl Inlet {
    /// Hands an item over. Whether there is room for another.
    fn put(&self, item: Py<PyAny>) -> bool {
        let has_room = {
            let mut state = self.pipe.state();
            state.items.push_back(item);
            state.items.len() < self.pipe.read_ahead
        };
        self.pipe.reader.wake();
        has_room
    }

    /// Has `future` done when there is room.
    fn park(&self, py: Python<'_>, future: Py<PyAny>) {
        let has_room = {
            let mut state = self.pipe.state();
            let has_room = state.items.len() <= self.pipe.read_ahead / 2;
            state.parked = Some(future);
            has_room
        };
        if has_room && let Some(future) = { self.pipe.state().parked.take() } {
            resume(py, &self.pipe.event_loop, &future);
        }
    }
}
