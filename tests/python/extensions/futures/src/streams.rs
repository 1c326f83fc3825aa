//! Streams in both directions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::{Stream, StreamExt, stream};
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use rvh_trace_client::python::PythonStream;
use rvh_trace_client::{Context, python};
use tokio::sync::Mutex;

/// A stream of numbers, watched.
#[pyclass(frozen)]
#[derive(Default)]
pub(crate) struct Produced {
    count: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

struct CountDrop(Arc<AtomicUsize>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[pymethods]
impl Produced {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// How many items were produced.
    #[getter]
    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// How many streams have been dropped.
    #[getter]
    fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }

    /// An async iterator of the numbers below `length`, which then raises `error`, panics or ends.
    #[pyo3(signature = (name, length, read_ahead, error=None, panics=false))]
    fn numbers<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        length: usize,
        read_ahead: usize,
        error: Option<Bound<'py, PyBaseException>>,
        panics: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let error = error.map(|error| PyErr::from_value(error.into_any()));
        let count = self.count.clone();
        let dropped = CountDrop(self.dropped.clone());
        let numbers = stream::iter(0..length).then(move |number| {
            let _ = &dropped;
            let count = count.clone();
            async move {
                tokio::task::yield_now().await;
                count.fetch_add(1, Ordering::SeqCst);
                tracing::info_span!("produce", number).in_scope(|| Ok(number))
            }
        });
        let end: std::pin::Pin<Box<dyn Stream<Item = PyResult<usize>> + Send>> = match error {
            Some(error) => Box::pin(stream::iter([Err(error)])),
            None if panics => Box::pin(stream::once(async { panic!("in a stream") })),
            None => Box::pin(stream::empty()),
        };
        python::stream_into_py(py, name, read_ahead, numbers.chain(end))
    }

    /// An async iterator that never has an item.
    fn nothing<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let dropped = CountDrop(self.dropped.clone());
        let nothing = stream::once(async move {
            let _dropped = dropped;
            std::future::pending::<PyResult<()>>().await
        });
        python::stream_into_py(py, name, 1, nothing)
    }
}

/// Reads an async iterator, an item at a time.
#[pyclass(frozen)]
pub(crate) struct Reader(Arc<Mutex<Option<PythonStream>>>);

#[pymethods]
impl Reader {
    #[new]
    fn new(iterable: &Bound<'_, PyAny>, read_ahead: usize) -> PyResult<Self> {
        let stream = python::stream_from_py(iterable, read_ahead)?;
        Ok(Self(Arc::new(Mutex::new(Some(stream)))))
    }

    /// The next item as a tuple; an empty one at the end.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let stream = self.0.clone();
        python::future_into_py_without_span(py, async move {
            let item = match stream.lock().await.as_mut() {
                Some(stream) => stream.next().await,
                None => None,
            };
            item.transpose()
                .map(|item| item.into_iter().collect::<Vec<_>>())
        })
    }

    /// Drops the stream.
    fn close(&self) {
        if let Ok(mut stream) = self.0.try_lock() {
            drop(stream.take());
        }
    }
}

/// All that an async iterator gives, read in a span; and the span id that the reader saw.
#[pyfunction]
pub(crate) fn collect<'py>(
    py: Python<'py>,
    name: &str,
    iterable: Py<PyAny>,
    read_ahead: usize,
) -> PyResult<Bound<'py, PyAny>> {
    python::future_into_py(py, name, async move {
        let mut items = Vec::new();
        let mut stream =
            Python::attach(|py| python::stream_from_py(iterable.bind(py), read_ahead))?;
        while let Some(item) = stream.next().await {
            items.push(item?);
        }
        let _ = Context::current();
        Ok(items)
    })
}
