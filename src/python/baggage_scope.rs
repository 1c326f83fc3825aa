//! `BaggageScope`: what the context variable holds for the baggage of a `use_context`.
//!
//! An object for every scope, so that one that is left where it is not current (an async generator closed by another task)
//! can be marked as left: contexts that still hold it mean what was current before it.

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::prelude::*;

use super::span_context::Context;

/// See the module. It refers to nothing that could refer back to it, so the collector need not know it.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct BaggageScope {
    context: Py<Context>,
    /// What was held before, and is no scope that was left.
    previous: Option<Py<PyAny>>,
    is_left: AtomicBool,
}

impl BaggageScope {
    pub(super) fn new(context: Py<Context>, held: Option<Bound<'_, PyAny>>) -> Self {
        Self {
            context,
            previous: Self::open(held).map(Bound::unbind),
            is_left: AtomicBool::new(false),
        }
    }

    /// What was held before.
    pub(super) fn previous<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.previous
            .as_ref()
            .map(|previous| previous.bind(py).clone())
    }

    pub(super) fn leave(&self) {
        self.is_left.store(true, Ordering::Relaxed);
    }

    /// What is held, without the scopes that were left.
    fn open(mut held: Option<Bound<'_, PyAny>>) -> Option<Bound<'_, PyAny>> {
        while let Some(scope) = held.as_ref().and_then(|held| held.cast::<Self>().ok())
            && scope.get().is_left.load(Ordering::Relaxed)
        {
            held = scope.get().previous(scope.py());
        }
        held
    }

    /// The `Context` that is meant where `held` is held.
    pub(super) fn meant(held: Option<Bound<'_, PyAny>>) -> Option<Bound<'_, PyAny>> {
        let held = Self::open(held)?;
        Some(match held.cast::<Self>() {
            Ok(scope) => scope.get().context.bind(held.py()).clone().into_any(),
            Err(_) => held,
        })
    }
}
