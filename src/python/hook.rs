//! `Hook`: a function of the application's that instrumentation calls.
//!
//! One that raises is called no more, and logged once: a mistake in a hook costs what it would have added, never the request.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::PyTraverseError;
use pyo3::call::PyCallArgs;
use pyo3::exceptions::{PyException, PyTypeError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::errors::to_python;
use crate::diagnostic::{self, Level};
use crate::error::Error;

/// See the module.
pub(super) struct Hook {
    /// What was given it.
    owner: &'static str,
    /// The argument it came by.
    name: &'static str,
    function: Option<Py<PyAny>>,
    failed: AtomicBool,
}

impl Hook {
    /// No function.
    pub(super) const fn unset() -> Self {
        Self {
            owner: "",
            name: "",
            function: None,
            failed: AtomicBool::new(false),
        }
    }

    /// The hook that the argument `name` of the middleware brought, if any.
    ///
    /// # Errors
    ///
    /// `ConfigurationError` if it cannot be called.
    pub(super) fn new(name: &'static str, function: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        Self::of("RvhTraceMiddleware", name, function)
    }

    /// The hook that the argument `name` of `owner` brought, if any.
    ///
    /// # Errors
    ///
    /// `ConfigurationError` if it cannot be called.
    pub(super) fn of(
        owner: &'static str,
        name: &'static str,
        function: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        if let Some(function) = function
            && !function.is_callable()
        {
            let got = function.get_type().name()?.to_string();
            let problem = format!("must be a function, not {got}");
            return Err(to_python(
                function.py(),
                &Error::configuration(name, problem),
            ));
        }
        Ok(Self {
            owner,
            name,
            function: function.map(|function| function.clone().unbind()),
            failed: AtomicBool::new(false),
        })
    }

    /// Whether there is anything to call.
    #[inline]
    pub(super) fn is_set(&self) -> bool {
        self.function.is_some() && !self.failed.load(Ordering::Relaxed)
    }

    /// Whether it was called and is not called any more.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Calls it; `None` if it is not set or raises.
    ///
    /// # Errors
    ///
    /// What is no `Exception`: an interrupt, or a request to exit, that arrived meanwhile.
    pub(super) fn call<'py>(
        &self,
        py: Python<'py>,
        arguments: impl PyCallArgs<'py>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(function) = self.function.as_ref().filter(|_| self.is_set()) else {
            return Ok(None);
        };
        match function.bind(py).call1(arguments) {
            Ok(result) => Ok(Some(result)),
            Err(error) if error.is_instance_of::<PyException>(py) => {
                self.fail(&error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Says once what is wrong with it and calls it no more.
    pub(super) fn fail(&self, problem: &str) {
        if !self.failed.swap(true, Ordering::Relaxed) {
            diagnostic::log(
                Level::Error,
                &format!(
                    "{} of {} is not called any more: {problem}",
                    self.name, self.owner
                ),
            );
        }
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(self.function.as_ref())
    }
}

/// An error for a hook that returned what it should not have.
pub(super) fn wrong_result(result: &Bound<'_, PyAny>, right: &str) -> PyErr {
    let got = result
        .get_type()
        .name()
        .map(|name| name.to_string())
        .unwrap_or_default();
    PyTypeError::new_err(format!("it must return {right}, not {got}"))
}
