//! The route that a request was dispatched to, from what the framework left in the scope.
//!
//! The rules are in `rvh_trace._routes`, in Python, where frameworks can be read.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::imports;
use super::request::item;
use super::server_span::ServerSpan;

/// The template, if there is one.
#[inline]
pub(super) fn of(slf: &Bound<'_, ServerSpan>) -> PyResult<Option<String>> {
    let told = ServerSpan::with(slf, |exchange| exchange.route.take());
    if let Some(route) = told {
        return Ok(Some(route.into()));
    }
    ServerSpan::scope(slf).map_or(Ok(None), |scope| in_scope(&scope))
}

fn in_scope(scope: &Bound<'_, PyDict>) -> PyResult<Option<String>> {
    let py = scope.py();
    // Starlette and FastAPI, FastAPI's frontends, Litestar, everybody else.
    let left = [
        pyo3::intern!(py, "endpoint"),
        pyo3::intern!(py, "fastapi"),
        pyo3::intern!(py, "path_template"),
        pyo3::intern!(py, "rvh_trace.http.route"),
    ];
    if left.iter().all(|key| item(scope, key).is_none()) {
        return Ok(None);
    }
    imports::route_template(py)?.call1((scope,))?.extract()
}
