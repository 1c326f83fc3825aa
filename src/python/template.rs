//! `SpanTemplate`: what a function decorated with `@span(...)` or `@trace` makes a span of at every call.

use pyo3::PyTraverseError;
use pyo3::exceptions::PyTypeError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::cell::AttachedCell;
use super::deferred::{DeferredSpan, Pending};
use super::errors::guard;
use super::span::{Body, Span};
use super::{current, imports, lifecycle};
use crate::context;
use crate::span::Span as Recording;
use crate::tracer::Decision;

/// What a decorated function makes a span of at every call.
enum Template {
    Call(Pending),
    /// Encoded already: a call costs one copy.
    Encoded(Recording),
}

/// What a decorated function makes a span of at every call.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct SpanTemplate(AttachedCell<Template>);

#[pymethods]
impl SpanTemplate {
    /// A new span, made here.
    fn span<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Span>> {
        let tracer = lifecycle::tracer();
        let above = current::span(py)?;
        let given = above.as_ref().map(|parent| parent.get().clone_context(py));
        let parent = given.as_ref().filter(|given| given.is_valid());
        let body = self.0.with(py, |template| match template {
            Template::Call(pending) => Err(pending.clone_ref(py)),
            Template::Encoded(model) => Ok(
                match tracer.map(|tracer| (tracer, tracer.decide(given.as_ref()))) {
                    Some((tracer, Decision::Record(context))) => {
                        let mut span = model.copy_as(tracer, context, parent);
                        if let Some(above) = &above {
                            above.get().adopt(py, &mut span);
                        }
                        Body::Recording(span)
                    }
                    Some((tracer, decision)) => {
                        tracer.count_not_sampled();
                        match decision {
                            Decision::Drop(context) => Body::NonRecording(context),
                            _ => Body::NonRecording(parent.cloned().unwrap_or_default()),
                        }
                    }
                    None => Body::NonRecording(parent.cloned().unwrap_or_default()),
                },
            ),
        });
        match body {
            Some(Ok(body)) => Span::object(py, body),
            Some(Err(pending)) => pending.with_call(py, |call| call.make(py)),
            None => Bound::new(py, Span::non_recording(context::SpanContext::INVALID)),
        }
    }

    /// A new span, started here.
    fn start<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, Span>> {
        let span = self.span(py)?;
        guard(py, "starting a span", || Span::start_here(&span))?;
        Ok(span)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let visited = self.0.with_collecting(|template| match template {
            Template::Call(pending) => pending.traverse(&visit),
            Template::Encoded(_) => Ok(()),
        });
        visited.unwrap_or(Ok(()))
    }
}

/// `@span(...)`: the function with a span around every call.
pub(super) fn decorate<'py>(
    span: &Bound<'py, Span>,
    function: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = span.py();
    let pending = match span.cast::<DeferredSpan>() {
        Ok(deferred) => deferred
            .get()
            .pending
            .with(py, |pending| {
                pending.as_ref().map(|pending| pending.clone_ref(py))
            })
            .flatten(),
        Err(_) => None,
    };
    let template = match pending {
        Some(pending) => Some(Template::Call(pending)),
        None => span
            .get()
            .with_recording(py, |span| {
                span.is_created()
                    .then(|| span.copy_as(span.tracer(), span.context().clone(), None))
            })
            .flatten()
            .map(Template::Encoded),
    };
    let Some(template) = template else {
        return Err(PyTypeError::new_err(
            "a span that has started cannot decorate a function; use @span(...) directly",
        ));
    };
    let template = Bound::new(py, SpanTemplate(AttachedCell::new(template)))?;
    imports::traced_function(py)?.call1((function, template))
}
