//! The server span of an ASGI request.
//!
//! `RvhTraceMiddleware.__call__` is a Python `async def` (uvicorn takes anything else for an ASGI 2 application); the rest
//! is here. [`ServerInstrumentation::start`] reads the scope once and returns the span with the `receive` and `send` that the
//! application gets: they note what passes and return the server's own awaitable, so no coroutine frame is added. The
//! span's identity comes from the headers alone: what a server left in the context of a connection (Kludex/uvicorn#2167)
//! is ignored.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::channel::{Channel, Direction};
use super::current::Scope;
use super::errors::guard;
use super::request::{Method, RequestHeaders, item, set_request_attributes, with_str};
use super::server_span::{Exchange, ServerSpan};
use super::span::Body;
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

// `start` is in `super::vectorcall`.
#[pymethods]
impl ServerInstrumentation {
    #[new]
    fn new() -> Self {
        Self {}
    }
}

impl ServerInstrumentation {
    /// The span of this request, the `receive` and the `send` for the application; `None` when there is nothing to do: it is
    /// no HTTP request, tracing is off and no context came in, or an outer middleware has a span for the same request.
    #[inline]
    #[expect(
        clippy::unused_self,
        reason = "the settings of a middleware belong to its instance"
    )]
    pub(super) fn start<'py>(
        &self,
        scope: &Bound<'py, PyAny>,
        receive: &Bound<'py, PyAny>,
        send: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        guard(scope.py(), "starting a server span", || {
            start(scope, receive, send)
        })
        .map(Option::flatten)
    }
}

#[inline]
fn start<'py>(
    scope: &Bound<'py, PyAny>,
    receive: &Bound<'py, PyAny>,
    send: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let py = scope.py();
    // Every server gives a dict; a mapping that runs code when it is read is nothing to look into for a span.
    let Ok(scope) = scope.cast_exact::<PyDict>() else {
        return Ok(None);
    };
    let kind = item(scope, pyo3::intern!(py, "type"));
    if with_str(kind, |kind| kind == "http") != Some(true) || serves_already(scope)? {
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
    let header_list = item(scope, pyo3::intern!(py, "headers"));
    let headers = header_list
        .as_ref()
        .map(RequestHeaders::read)
        .unwrap_or_default();
    let context::Context {
        span: parent,
        baggage,
    } = headers.extract(header_list.as_ref(), propagators);
    let decision = tracer.map_or(Decision::Inherit, |tracer| tracer.decide(Some(&parent)));
    let mut exchange = Exchange::default();
    let server = match (decision, tracer) {
        (Decision::Record(context), Some(tracer)) => {
            let method = Method::read(scope, tracer);
            let unused = ServerSpan::unused(py);
            let mut span = method.with_name(py, |name| {
                let parent = Some(&parent).filter(|parent| parent.is_valid());
                let buffer = ServerSpan::take_buffer(py, unused.as_ref());
                Recording::new_in(buffer, tracer, context, parent, SpanKind::Server, name)
            });
            span.begin(Start::now());
            set_request_attributes(&mut span, scope, &headers, &method);
            exchange.method = method;
            exchange.scope = Some(scope.clone().unbind());
            exchange.request_attributes = span.attribute_count();
            let server = ServerSpan::make(py, unused, Body::Recording(span))?;
            exchange.send = Some(Channel::open(Direction::Send, &server, send)?.unbind());
            server
        }
        (decision, tracer) => {
            if let Some(tracer) = tracer {
                tracer.count_not_sampled();
            }
            let body = match decision {
                Decision::Drop(context) => Body::NonRecording(context),
                _ if parent.is_valid() || !baggage.is_empty() => Body::NonRecording(parent),
                _ => return Ok(None),
            };
            ServerSpan::make(py, ServerSpan::unused(py), body)?
        }
    };
    let way_back = Scope::enter(server.as_super())?;
    server.as_super().get().enter_fresh(py, way_back);
    if !baggage.is_empty() {
        let context = Context {
            inner: context::Context {
                span: context::SpanContext::INVALID,
                baggage,
            },
        };
        let context = Bound::new(py, context)?.into_any();
        let previous = current::enter_baggage(&context)?.map(Bound::unbind);
        exchange.baggage = Some((context.unbind(), previous));
    }
    let for_application = match &exchange.send {
        Some(send) => send.bind(py).as_any().clone(),
        None => send.clone(),
    };
    ServerSpan::begin_exchange(&server, exchange);
    PyTuple::new(py, [server.into_any(), receive.clone(), for_application]).map(Some)
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
    let Some(serving) = ServerSpan::scope(server) else {
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
