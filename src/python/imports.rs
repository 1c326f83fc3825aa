//! Every Python object that the bindings look up, found once and kept.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

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
    Some(CACHE.get_or_init(py, || class.unbind()).bind(py))
}

macro_rules! imported {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $module:literal, $attribute:literal;)*) => {$(
        $(#[$doc])*
        #[inline]
        pub(super) fn $name(py: Python<'_>) -> PyResult<&Bound<'_, $type>> {
            static CACHE: PyOnceLock<Py<$type>> = PyOnceLock::new();
            CACHE.import(py, $module, $attribute)
        }
    )*};
}

imported! {
    /// `asyncio.Task`
    asyncio_task: PyType = "asyncio", "Task";
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
    /// An exception and the members of its group, as text.
    describe_exception: PyAny = "rvh_trace._exceptions", "describe";
    /// The route that a request was dispatched to.
    route_template: PyAny = "rvh_trace._routes", "route_template";
    /// Wraps a function, coroutine function or generator function in a span.
    traced_function: PyAny = "rvh_trace._decorator", "traced_function";
}
