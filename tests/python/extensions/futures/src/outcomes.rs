//! How a future may end.

use std::time::Duration;

use pyo3::exceptions::{PyBaseException, PyValueError};
use pyo3::prelude::*;
use rvh_trace_client::{Span, SpanKind, python};

/// A future without anything around it.
#[pyfunction]
pub(crate) fn bare(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    pyo3_async_runtimes::tokio::future_into_py(py, async { Ok(()) })
}

/// The same in a span.
#[pyfunction]
pub(crate) fn ready<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    python::future_into_py(py, name, async { Ok(()) })
}

/// The same without one.
#[pyfunction]
pub(crate) fn without_span<'py>(py: Python<'py>, value: Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
    python::future_into_py_without_span(py, async { Ok(value) })
}

#[pyfunction]
pub(crate) fn echo<'py>(
    py: Python<'py>,
    name: &str,
    value: Py<PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let span = Span::builder(name)
        .kind(SpanKind::Client)
        .attribute("key", 7);
    python::future_into_py(py, span, async move {
        tokio::task::yield_now().await;
        Ok(value)
    })
}

#[pyfunction]
pub(crate) fn raises<'py>(
    py: Python<'py>,
    name: &str,
    error: Bound<'py, PyBaseException>,
) -> PyResult<Bound<'py, PyAny>> {
    let error = PyErr::from_value(error.into_any());
    python::future_into_py(py, name, async move {
        tokio::task::yield_now().await;
        Err::<(), _>(error)
    })
}

#[pyfunction]
pub(crate) fn panics<'py>(
    py: Python<'py>,
    name: &str,
    message: String,
) -> PyResult<Bound<'py, PyAny>> {
    python::future_into_py(py, name, async move {
        tokio::task::yield_now().await;
        if message.is_empty() {
            panic!("a literal");
        }
        if message == "payload" {
            std::panic::panic_any(7);
        }
        if !message.is_empty() {
            panic!("{message}");
        }
        Ok(())
    })
}

struct Unconvertible {
    panics: bool,
}

impl<'py> IntoPyObject<'py> for Unconvertible {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, _py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if self.panics {
            panic!("cannot be converted");
        }
        Err(PyValueError::new_err("cannot be converted"))
    }
}

#[pyfunction]
pub(crate) fn returns_what_cannot_be_converted(
    py: Python<'_>,
    panics: bool,
) -> PyResult<Bound<'_, PyAny>> {
    python::future_into_py(
        py,
        "unconvertible",
        async move { Ok(Unconvertible { panics }) },
    )
}

#[pyfunction]
pub(crate) fn pending<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    python::future_into_py(py, name, std::future::pending::<PyResult<()>>())
}

#[pyfunction]
pub(crate) fn sleep<'py>(py: Python<'py>, name: &str, ms: u64) -> PyResult<Bound<'py, PyAny>> {
    python::future_into_py(py, name, async move {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        Ok(ms)
    })
}
