//! The current span of Rust as the current span of Python.

use std::ffi::c_void;

use super::{Attached, Context};
use crate::host::host;
use crate::span::Span;

/// Keeps a [`Context`] current in Python, in the `contextvars.Context` that it was entered in.
#[must_use = "the context is current only as long as this lives"]
#[derive(Debug)]
pub struct PythonScope {
    /// Null if nothing was entered.
    scope: *mut c_void,
    _call: Option<Attached>,
}

impl Context {
    /// Makes it current in Python until the scope is dropped, for Python code that is called meanwhile:
    /// `current_span()` gives the [span](Self::span), which Python code may annotate, and spans that it starts are its
    /// children.
    ///
    /// The calling thread must hold the GIL, and hold it again when the scope is dropped; else nothing happens.
    #[expect(unsafe_code, reason = "calls through the table")]
    pub fn enter_python(&self) -> PythonScope {
        let scope = host().map_or(std::ptr::null_mut(), |host| {
            // SAFETY: a handle that is held or null, and a context that lives through the call.
            unsafe { (host.python_enter)(self.span_ptr(), self.as_raw()) }
        });
        PythonScope {
            scope,
            _call: (!scope.is_null()).then(|| Attached::new(None)),
        }
    }

    /// As [`Self::enter_python`], in a `contextvars.Context` that ends with the work, such as that of a new task: there
    /// is no way back. Whether that was possible.
    #[expect(unsafe_code, reason = "calls through the table")]
    pub fn set_in_python(&self) -> bool {
        host().is_some_and(|host| {
            // SAFETY: a handle that is held or null, and a context that lives through the call.
            unsafe { (host.python_set)(self.span_ptr(), self.as_raw()) }
        })
    }

    fn span_ptr(&self) -> *mut c_void {
        self.span().map_or(std::ptr::null_mut(), Span::as_ptr)
    }
}

impl Drop for PythonScope {
    #[expect(unsafe_code, reason = "calls through the table")]
    fn drop(&mut self) {
        if !self.scope.is_null()
            && let Some(host) = host()
        {
            // SAFETY: what `python_enter` gave, once.
            unsafe { (host.python_leave)(self.scope) };
        }
    }
}
