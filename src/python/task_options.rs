//! `TaskOptions`: what `install_task_factory` was told.

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::hook::{Hook, wrong_result};

/// What decides which tasks have spans, and what is on them.
pub(super) struct TaskOptions {
    /// Names the span of a coroutine.
    name: Hook,
    /// Whether a coroutine gets a span.
    filter: Hook,
    /// Whether tasks that are created where no span is recorded get one.
    pub(super) root_tasks: bool,
    /// Whether queue, run and suspended time are recorded.
    pub(super) timings: bool,
}

impl TaskOptions {
    /// The options, checked.
    ///
    /// # Errors
    ///
    /// `ConfigurationError` if a function cannot be called.
    pub(super) fn new(
        name: Option<&Bound<'_, PyAny>>,
        filter: Option<&Bound<'_, PyAny>>,
        root_tasks: bool,
        timings: bool,
    ) -> PyResult<Self> {
        const OWNER: &str = "install_task_factory";
        Ok(Self {
            name: Hook::of(OWNER, "name", name)?,
            filter: Hook::of(OWNER, "filter", filter)?,
            root_tasks,
            timings,
        })
    }

    /// Whether there is a function to call.
    pub(super) fn has_hooks(&self) -> bool {
        self.name.is_set() || self.filter.is_set()
    }

    /// Whether the coroutine is to have a span. A filter that raises keeps nothing away.
    pub(super) fn wants(&self, coroutine: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Some(wanted) = self.filter.call(coroutine.py(), (coroutine,))? else {
            return Ok(true);
        };
        match wanted.is_truthy() {
            Ok(wanted) => Ok(wanted),
            Err(error) => {
                self.filter.fail(&error.to_string());
                Ok(true)
            }
        }
    }

    /// The name that the application gives the span of a coroutine, if it does.
    pub(super) fn name<'py>(
        &self,
        coroutine: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(name) = self.name.call(coroutine.py(), (coroutine,))? else {
            return Ok(None);
        };
        if name.is_instance_of::<PyString>() {
            return Ok(Some(name));
        }
        self.name.fail(&wrong_result(&name, "a str").to_string());
        Ok(None)
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.name.traverse(visit)?;
        self.filter.traverse(visit)
    }
}
