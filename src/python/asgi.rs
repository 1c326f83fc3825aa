//! The server span of an ASGI request.
//!
//! `RvhTraceMiddleware.__call__` is a Python `async def` (uvicorn takes anything else for an ASGI 2 application); the rest
//! is here. [`ServerInstrumentation::start`] reads the scope once and returns the span, whose `send` is what
//! the application gets: it notes status and last message and returns the inner awaitable itself, so no coroutine frame
//! is added. The span's identity comes from the headers alone: what a server left in the context of a connection
//! (Kludex/uvicorn#2167) is ignored.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::cell::AttachedCell;
use super::errors::guard;
use super::request::{Method, RequestHeaders, set_request_attributes, with_scope_text};
use super::server_span::{Response, ServerSpan};
use super::span::{Body, Span};
use super::span_context::Context;
use super::{current, lifecycle};
use crate::clock::Start;
use crate::context;
use crate::propagation::Propagators;
use crate::span::{Span as Recording, SpanKind};
use crate::tracer::Decision;

/// What `RvhTraceMiddleware` stands on: starts server spans.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct ServerInstrumentation {}

#[pymethods]
impl ServerInstrumentation {
    #[new]
    fn new() -> Self {
        Self {}
    }

    /// The span of this request, or `None` when there is nothing to do: it is no HTTP request, tracing is off and no
    /// context came in, or an outer middleware has a span for the same request.
    #[pyo3(signature = (scope, send, /))]
    #[expect(
        clippy::unused_self,
        reason = "the settings of a middleware belong to its instance"
    )]
    fn start<'py>(
        &self,
        scope: &Bound<'py, PyAny>,
        send: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, ServerSpan>>> {
        guard(scope.py(), "starting a server span", || start(scope, send)).map(Option::flatten)
    }
}

fn start<'py>(
    scope: &Bound<'py, PyAny>,
    send: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, ServerSpan>>> {
    let py = scope.py();
    // Every server gives a dict; a mapping that runs code when it is read is nothing to look into for a span.
    let Ok(scope) = scope.cast_exact::<PyDict>() else {
        return Ok(None);
    };
    if with_scope_text(scope, pyo3::intern!(py, "type"), |kind| kind == "http")? != Some(true)
        || serves_already(scope)?
    {
        return Ok(None);
    }
    let tracer = lifecycle::tracer();
    let default_propagators;
    let propagators = if let Some(tracer) = tracer {
        tracer.propagators()
    } else {
        default_propagators = Propagators::default();
        &default_propagators
    };
    let headers = match scope.get_item(pyo3::intern!(py, "headers"))? {
        Some(headers) => RequestHeaders::read(&headers)?,
        None => RequestHeaders::default(),
    };
    let context::Context {
        span: parent,
        baggage,
    } = match headers.propagation.as_slice() {
        [] => context::Context::default(),
        _ => propagators.extract(&headers),
    };
    let mut response = Response::default();
    response.send = Some(send.clone().unbind());
    let decision = tracer.map_or(Decision::Inherit, |tracer| tracer.decide(Some(&parent)));
    let body = match (decision, tracer) {
        (Decision::Record(context), Some(tracer)) => {
            response.method = Method::read(scope, tracer)?;
            let parent = Some(&parent).filter(|parent| parent.is_valid());
            let mut span = response.method.with_name(py, |name| {
                Recording::new(tracer, context, parent, SpanKind::Server, name)
            });
            span.begin(Start::now());
            // An attribute that cannot be read does not cost the span.
            guard(py, "reading the request", || {
                set_request_attributes(&mut span, scope, &headers, &response.method)
            })?;
            response.scope = Some(scope.clone().unbind());
            response.request_attributes = span.attribute_count();
            Body::Recording(span)
        }
        (decision, tracer) => {
            if let Some(tracer) = tracer {
                tracer.count_not_sampled();
            }
            match decision {
                Decision::Drop(context) => Body::NonRecording(context),
                _ if parent.is_valid() || !baggage.is_empty() => Body::NonRecording(parent),
                _ => return Ok(None),
            }
        }
    };
    let server = ServerSpan {
        response: AttachedCell::new(response),
    };
    let server = Bound::new(
        py,
        PyClassInitializer::from(Span::new(body)).add_subclass(server),
    )?;
    Span::enter(server.as_super())?;
    if !baggage.is_empty() {
        let context = Context {
            inner: context::Context {
                span: context::SpanContext::INVALID,
                baggage,
            },
        };
        let context = Bound::new(py, context)?.into_any();
        let previous = current::enter_baggage(&context)?.map(Bound::unbind);
        server.get().response.with(py, |response| {
            response.baggage = Some((context.unbind(), previous));
        });
    }
    Ok(Some(server))
}

/// Whether an outer middleware has a live span for this very request: the same scope, or a copy of it, which shares the
/// list of headers that the server made for the request.
fn serves_already(scope: &Bound<'_, PyDict>) -> PyResult<bool> {
    let py = scope.py();
    let Some(current) = current::span(py)? else {
        return Ok(false);
    };
    let Ok(server) = current.cast::<ServerSpan>() else {
        return Ok(false);
    };
    let serving = server.get().response.with(py, |response| {
        response.scope.as_ref().map(|scope| scope.bind(py).clone())
    });
    let Some(serving) = serving.flatten() else {
        return Ok(false);
    };
    if serving.is(scope) {
        return Ok(true);
    }
    let headers = pyo3::intern!(py, "headers");
    let (ours, theirs) = (serving.get_item(headers)?, scope.get_item(headers)?);
    Ok(ours
        .zip(theirs)
        .is_some_and(|(ours, theirs)| ours.is(&theirs)))
}
