//! Every Python object that the bindings look up, found once and kept.

use pyo3::PyTypeCheck;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};

/// `asyncio.CancelledError`, if asyncio was imported; before that nothing can be one.
pub(super) fn cancelled_error(py: Python<'_>) -> Option<&Bound<'_, PyType>> {
    static CACHE: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    if let Some(class) = CACHE.get(py) {
        return Some(class.bind(py));
    }
    let modules = py.import("sys").ok()?.getattr("modules").ok()?;
    let module = modules.get_item("asyncio.exceptions").ok()?;
    let class = module
        .getattr("CancelledError")
        .ok()?
        .cast_into::<PyType>()
        .ok()?;
    let _ = CACHE.set(py, class.unbind());
    CACHE.get(py).map(|class| class.bind(py))
}

/// Looks an attribute up once. Not under the lock of the cell: an import runs Python code, and a collection inside it may
/// end in a finaliser that comes here again.
#[inline]
fn imported<'py, T: PyTypeCheck>(
    py: Python<'py>,
    cell: &'static PyOnceLock<Py<T>>,
    module: &str,
    attribute: &str,
) -> PyResult<&'py Bound<'py, T>> {
    if let Some(object) = cell.get(py) {
        return Ok(object.bind(py));
    }
    let object = py.import(module)?.getattr(attribute)?.cast_into::<T>()?;
    // Somebody else may have come first; either object is the right one.
    let _ = cell.set(py, object.unbind());
    cell.get(py)
        .map(|object| object.bind(py))
        .ok_or_else(|| PyRuntimeError::new_err("an imported object was not kept"))
}

macro_rules! imported {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $module:literal, $attribute:literal;)*) => {$(
        $(#[$doc])*
        #[inline]
        pub(super) fn $name(py: Python<'_>) -> PyResult<&Bound<'_, $type>> {
            static CACHE: PyOnceLock<Py<$type>> = PyOnceLock::new();
            imported(py, &CACHE, $module, $attribute)
        }
    )*};
}

imported! {
    /// `sys.modules`
    modules: PyDict = "sys", "modules";
    /// `asyncio.Task`
    asyncio_task: PyType = "asyncio", "Task";
    /// `functools.partial`
    functools_partial: PyType = "functools", "partial";
    /// `asyncio._get_running_loop`: the loop, or `None`.
    running_loop: PyAny = "asyncio", "_get_running_loop";
    /// Installs the task factory on a loop, once.
    install_task_factory_once: PyAny = "rvh_trace.tasks", "install_task_factory_once";
    /// `asyncio.iscoroutine`
    is_coroutine: PyAny = "asyncio", "iscoroutine";
    /// `asyncio.current_task`
    current_task: PyAny = "asyncio", "current_task";
    /// `contextvars.copy_context`
    copy_context: PyAny = "contextvars", "copy_context";
    /// Starts an awaitable as a task of its own in a given context, or takes a future as it is.
    start_task: PyAny = "rvh_trace._future", "start_task";
    /// Base of the errors below.
    rvh_trace_error: PyType = "rvh_trace.errors", "RvhTraceError";
    /// A wrong argument at set-up.
    configuration_error: PyType = "rvh_trace.errors", "ConfigurationError";
    /// Spans were lost.
    export_error: PyType = "rvh_trace.errors", "ExportError";
    /// A deadline passed.
    export_timeout: PyType = "rvh_trace.errors", "ExportTimeout";
    /// Logs a record of another extension module.
    log_from_extension: PyAny = "rvh_trace._extension_log", "log";
    /// An exception and the members of its group, as text.
    describe_exception: PyAny = "rvh_trace._exceptions", "describe";
    /// The route that a request was dispatched to.
    route_template: PyAny = "rvh_trace._routes", "route_template";
    /// Wraps a function, coroutine function or generator function in a span.
    traced_function: PyAny = "rvh_trace._decorator", "traced_function";
}
