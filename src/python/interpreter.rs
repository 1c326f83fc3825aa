//! The interpreter that the native module belongs to: the main one.
//!
//! Types, interned strings and the context variable are made once a process, and Tokio's threads attach to the main
//! interpreter; in another one they would be objects of a stranger. PyO3 0.30 lets a module be imported anywhere, so it is
//! refused here, before the first type is made.

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

/// Exported first; adds nothing to the module.
pub(super) mod main_only {
    /// By this name, and by the method, `#[pymodule_export]` adds an item.
    pub(in super::super) static _PYO3_DEF: super::MainOnly = super::MainOnly;
}

pub(super) struct MainOnly;

impl MainOnly {
    #[expect(clippy::unused_self, reason = "the macro calls a method")]
    #[expect(unsafe_code, reason = "which interpreter runs")]
    pub(super) fn add_to_module(&self, _module: &Bound<'_, PyModule>) -> PyResult<()> {
        // SAFETY: the thread is attached, as the module shows; both return a pointer that is compared and no more.
        let is_main = unsafe { ffi::PyInterpreterState_Get() == ffi::PyInterpreterState_Main() };
        if is_main {
            return Ok(());
        }
        Err(PyImportError::new_err(
            "rvh_trace cannot be imported in a sub-interpreter: what it makes belongs to the main interpreter. Import it \
             there; mod_wsgi has WSGIApplicationGroup %{GLOBAL} for that, uWSGI the option single-interpreter",
        ))
    }
}
