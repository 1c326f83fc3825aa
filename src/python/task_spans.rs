//! The task factory on every loop that serves a request: `RvhTraceMiddleware(app, task_spans=True)`.
//!
//! Costs a call of `asyncio` and a comparison a request.

use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

use super::cell::AttachedCell;
use super::errors::guard;
use super::imports;

/// The loop that was looked at last. Weak: a loop that was closed is not to live on.
static LAST: AttachedCell<Option<Py<PyWeakrefReference>>> = AttachedCell::new(None);

/// Installs the task factory on the running loop unless that was done before. Never fails.
#[inline]
pub(super) fn ensure(py: Python<'_>) -> PyResult<()> {
    guard(py, "installing the task factory", || {
        let running = imports::running_loop(py)?.call0()?;
        let last = LAST.with(py, |last| last.as_ref().map(|last| last.bind(py).clone()));
        let seen = last.flatten().and_then(|last| last.upgrade());
        if running.is_none() || seen.is_some_and(|seen| seen.is(&running)) {
            return Ok(());
        }
        install(&running)
    })
    .map(drop)
}

#[cold]
fn install(running: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = running.py();
    imports::install_task_factory_once(py)?.call1((running,))?;
    let seen = PyWeakrefReference::new(running)?.unbind();
    let old = LAST.with(py, |last| last.replace(seen));
    drop(old.flatten().map(|old| old.into_bound(py)));
    Ok(())
}
