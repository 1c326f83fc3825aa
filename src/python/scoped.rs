//! A tracer for the time of a block: what `rvh_trace.tracing` stands on.
//!
//! While it is entered it is the tracer of the process, as a test's is; see [`lifecycle`]. Each time it is entered it is
//! a new tracer with a queue, counters, a worker and files of its own, which end with the block.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::PyTraverseError;
use pyo3::exceptions::PyRuntimeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::errors::to_python;
use super::{arguments, lifecycle, stats};
use crate::tracer::{ExporterSource, Tracer};

/// What a block is traced by.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct ScopedTracer {
    /// Read for each block: what is made of them holds the program's own exporters where no collection sees them.
    kwargs: Py<PyDict>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Of this block, or of the last one.
    tracer: Option<&'static Tracer>,
    /// Whether the block is running or its last spans are being sent.
    is_in_use: bool,
    /// Between the end of the block and that of the flush.
    source: Option<ExporterSource>,
}

#[pymethods]
impl ScopedTracer {
    #[new]
    #[pyo3(signature = (**kwargs))]
    fn new(py: Python<'_>, kwargs: Option<Bound<'_, PyDict>>) -> PyResult<Self> {
        let kwargs = kwargs.unwrap_or_else(|| PyDict::new(py));
        // What is of a wrong type is said here.
        arguments::read(&kwargs)?;
        Ok(Self {
            kwargs: kwargs.unbind(),
            state: Mutex::default(),
        })
    }

    /// Makes this the process's tracer; what was before comes back with `leave`.
    fn enter(&self, py: Python<'_>) -> PyResult<()> {
        if std::mem::replace(&mut self.state().is_in_use, true) {
            return Err(PyRuntimeError::new_err(
                "this tracing(...) is in use already; call tracing(...) again for a block inside it or beside it",
            ));
        }
        let entered = self.begin(py);
        if entered.is_err() {
            self.state().is_in_use = false;
        }
        entered
    }

    /// Gives tracing back to whoever had it.
    fn leave(&self) {
        let mut state = self.state();
        if let Some(tracer) = state.tracer
            && let Some(source) = lifecycle::pop_tracer(tracer)
        {
            state.source = Some(source);
        }
    }

    /// Sends what is left and stops, within the exit timeout. Whether everything was delivered. Blocks; releases the GIL.
    #[pyo3(signature = (*, check=false))]
    fn shutdown(&self, py: Python<'_>, check: bool) -> PyResult<bool> {
        let Some(tracer) = self.state().tracer else {
            return Ok(true);
        };
        let result = py.detach(|| tracer.shutdown(tracer.exit_timeout()));
        let mut state = self.state();
        state.is_in_use = false;
        let source = state.source.take();
        drop(state);
        // Outside of the lock: the program's own exporters go with it.
        drop(source);
        lifecycle::report(py, result, check)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.kwargs)
    }

    /// What was counted in this block, or in the last one.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let tracer = self.state().tracer;
        stats::to_dict(py, tracer.map(Tracer::stats).unwrap_or_default())
    }
}

impl ScopedTracer {
    fn begin(&self, py: Python<'_>) -> PyResult<()> {
        let mut arguments = arguments::read(self.kwargs.bind(py))?;
        // The series of the service would begin anew with every block.
        arguments
            .metrics_exporter
            .get_or_insert_with(|| vec!["none".to_owned()]);
        // Opens files.
        let (tracer, source) = py
            .detach(|| lifecycle::new_scope(&arguments))
            .map_err(|error| to_python(py, &error))?;
        self.state().tracer = Some(tracer);
        lifecycle::push_scope(tracer, source);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
