//! The Python half, see `glue.py`, and what the loop calls with every result.

use std::ffi::CString;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

pyo3::import_exception!(asyncio, InvalidStateError);

/// What Python is given to call.
pub(super) struct Glue {
    /// Gives a future its result, if it still waits for one.
    pub(super) succeed: Py<PyAny>,
    /// Gives a future its exception, if it still waits for one.
    pub(super) fail: Py<PyAny>,
    /// Makes a task of an awaitable.
    pub(super) start: Py<PyAny>,
    /// The next item of a Rust stream, as a coroutine.
    pub(super) advance: Py<PyAny>,
    /// Fills a Rust stream from an async iterator.
    pub(super) pump: Py<PyAny>,
}

#[pyclass(frozen)]
struct Succeed;

#[pymethods]
impl Succeed {
    #[expect(clippy::unused_self, reason = "Python calls it with one")]
    fn __call__(&self, future: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = future.py();
        future
            .call_method1(pyo3::intern!(py, "set_result"), (value,))
            .map(drop)
            .or_else(|error| {
                // It was cancelled.
                if error.is_instance_of::<InvalidStateError>(py) {
                    Ok(())
                } else {
                    Err(error)
                }
            })
    }
}

static GLUE: PyOnceLock<Glue> = PyOnceLock::new();

/// The functions, made at the first call.
pub(super) fn glue(py: Python<'_>) -> PyResult<&Glue> {
    GLUE.get_or_try_init(py, || {
        // Not a module: one of this name may have come with another extension, in another version.
        let names = PyDict::new(py);
        names.set_item("__name__", "rvh_trace_client")?;
        let source = CString::new(include_str!("glue.py"))
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        py.run(&source, Some(&names), None)?;
        let function = |name| Ok::<_, PyErr>(names.as_any().get_item(name)?.unbind());
        Ok(Glue {
            succeed: Bound::new(py, Succeed)?.into_any().unbind(),
            fail: function("fail")?,
            start: function("start")?,
            advance: function("advance")?,
            pump: function("pump")?,
        })
    })
}
