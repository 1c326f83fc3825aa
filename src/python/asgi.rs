//! The server span of an ASGI request.
//!
//! `RvhTraceMiddleware.__call__` is a Python `async def` (uvicorn takes anything else for an ASGI 2 application); the rest
//! is here. [`ServerInstrumentation::start`] reads the scope once and returns the span, whose `send` is what
//! the application gets: it notes status and last message and returns the inner awaitable itself, so no coroutine frame
//! is added. The span's identity comes from the headers alone: what a server left in the context of a connection
//! (Kludex/uvicorn#2167) is ignored.

use std::borrow::Cow;

use pyo3::PyTraverseError;
use pyo3::exceptions::PyBaseException;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString, PyTuple};

use super::cell::AttachedCell;
use super::convert::with_text;
use super::errors::guard;
use super::exception::Ending;
use super::span::{Body, Span};
use super::span_context::Context;
use super::{current, imports, lifecycle};
use crate::attribute::Value;
use crate::clock::Start;
use crate::context;
use crate::http_server::{is_known_method, redact_query, split_host};
use crate::propagation::{Carrier, Propagators};
use crate::span::{Span as Recording, SpanKind, Status};
use crate::tracer::{Decision, Tracer};

/// The name of a span whose method is not known (HTTP semantic conventions, "Name").
const UNKNOWN_METHOD_NAME: &str = "HTTP";

/// The headers that matter, out of the scope's list.
#[derive(Default)]
struct RequestHeaders<'py> {
    host: Option<Bound<'py, PyBytes>>,
    user_agent: Option<Bound<'py, PyBytes>>,
    /// What propagators read, in order; a name may repeat.
    propagation: Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>,
}

impl<'py> RequestHeaders<'py> {
    /// One pass over the list; pairs that are not two `bytes` are skipped.
    fn read(headers: &Bound<'py, PyAny>) -> PyResult<Self> {
        let mut found = Self::default();
        if let Ok(list) = headers.cast_exact::<PyList>() {
            for pair in list.iter() {
                found.keep(&pair);
            }
        } else {
            for pair in headers.try_iter()? {
                found.keep(&pair?);
            }
        }
        Ok(found)
    }

    #[inline]
    fn keep(&mut self, pair: &Bound<'py, PyAny>) {
        if let Ok(pair) = pair.cast_exact::<PyTuple>()
            && pair.len() >= 2
        {
            #[expect(
                unsafe_code,
                reason = "eleven headers a request, two checked calls each otherwise"
            )]
            // SAFETY: a tuple of at least two.
            let (name, value) = unsafe {
                (
                    pair.get_borrowed_item_unchecked(0),
                    pair.get_borrowed_item_unchecked(1),
                )
            };
            self.keep_pair(&name, &value);
        } else if let (Ok(name), Ok(value)) = (pair.get_item(0), pair.get_item(1)) {
            self.keep_pair(&name, &value);
        }
    }

    #[inline]
    fn keep_pair(&mut self, name: &Bound<'py, PyAny>, value: &Bound<'py, PyAny>) {
        let Ok(name) = name.cast::<PyBytes>() else {
            return;
        };
        let bytes = name.as_bytes();
        // Most headers are none of ours; their length tells.
        if !matches!(bytes.len(), 4 | 7 | 10 | 11) {
            return;
        }
        let Ok(value) = value.cast::<PyBytes>() else {
            return;
        };
        match bytes {
            b"host" => _ = self.host.get_or_insert_with(|| value.clone()),
            b"user-agent" => _ = self.user_agent.get_or_insert_with(|| value.clone()),
            b"traceparent" | b"tracestate" | b"baggage" => {
                self.propagation.push((name.clone(), value.clone()));
            }
            _ => {}
        }
    }
}

impl Carrier for RequestHeaders<'_> {
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        for (header, value) in &self.propagation {
            if header.as_bytes() == name.as_bytes() {
                each(value.as_bytes());
            }
        }
    }
}

/// Header and query bytes as text: ASGI promises ASCII or Latin-1, clients send anything.
fn latin1(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().copied().map(char::from).collect()),
    }
}

/// Calls `then` with the text of a scope entry, if it is a string.
#[inline]
fn with_scope_text<R>(
    scope: &Bound<'_, PyDict>,
    key: &Bound<'_, PyString>,
    then: impl FnOnce(&str) -> R,
) -> PyResult<Option<R>> {
    Ok(scope.get_item(key)?.and_then(|value| {
        value
            .cast::<PyString>()
            .map(|text| with_text(text, then))
            .ok()
    }))
}

/// Calls `then` with the address and port of `scope["client"]` or `scope["server"]`; the port of a unix socket is absent.
#[inline]
fn with_scope_address(
    scope: &Bound<'_, PyDict>,
    key: &Bound<'_, PyString>,
    then: impl FnOnce(&str, Option<i64>),
) -> PyResult<()> {
    let Some(pair) = scope.get_item(key)? else {
        return Ok(());
    };
    let (Ok(address), Ok(port)) = (pair.get_item(0), pair.get_item(1)) else {
        return Ok(());
    };
    if let Ok(address) = address.cast::<PyString>() {
        let port = port
            .cast::<PyInt>()
            .ok()
            .and_then(|port| port.extract().ok());
        with_text(address, |address| then(address, port));
    }
    Ok(())
}

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
    let mut response = Response {
        send: Some(send.clone().unbind()),
        ..Response::default()
    };
    let decision = tracer.map_or(Decision::Inherit, |tracer| tracer.decide(Some(&parent)));
    let body = match (decision, tracer) {
        (Decision::Record(context), Some(tracer)) => {
            response.method = Method::read(scope, tracer)?;
            let parent = Some(&parent).filter(|parent| parent.is_valid());
            let name = response.method.with_name(py, str::to_owned);
            let mut span = Recording::new(tracer, context, parent, SpanKind::Server, &name);
            span.begin(Start::now());
            // An attribute that cannot be read does not cost the span.
            guard(py, "reading the request", || {
                set_request_attributes(&mut span, scope, &headers, &response.method)
            })?;
            response.scope = Some(scope.clone().unbind());
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

/// The request method, and whether it is reported as it is.
#[derive(Default)]
struct Method {
    sent: Option<Py<PyString>>,
    known: bool,
}

impl Method {
    fn read(scope: &Bound<'_, PyDict>, tracer: &Tracer) -> PyResult<Self> {
        let sent = scope
            .get_item(pyo3::intern!(scope.py(), "method"))?
            .and_then(|sent| sent.cast_into::<PyString>().ok());
        let configured = tracer.http().known_methods.as_deref();
        Ok(Self {
            known: sent
                .as_ref()
                .is_some_and(|sent| with_text(sent, |sent| is_known_method(sent, configured))),
            sent: sent.map(Bound::unbind),
        })
    }

    fn with_sent<R>(&self, py: Python<'_>, then: impl FnOnce(&str) -> R) -> R {
        match &self.sent {
            Some(sent) => with_text(sent.bind(py), then),
            None => then(""),
        }
    }

    /// Calls `then` with what stands in the span's name.
    fn with_name<R>(&self, py: Python<'_>, then: impl FnOnce(&str) -> R) -> R {
        if self.known {
            self.with_sent(py, then)
        } else {
            then(UNKNOWN_METHOD_NAME)
        }
    }
}

/// Everything that is known when the request arrives, so that samplers and long requests show it.
fn set_request_attributes(
    span: &mut Recording,
    scope: &Bound<'_, PyDict>,
    headers: &RequestHeaders<'_>,
    method: &Method,
) -> PyResult<()> {
    let py = scope.py();
    method.with_sent(py, |sent| {
        if method.known {
            span.push_attribute("http.request.method", &Value::Str(sent));
        } else {
            span.push_attribute("http.request.method", &Value::Str("_OTHER"));
            span.push_attribute("http.request.method_original", &Value::Str(sent));
        }
    });
    with_scope_text(scope, pyo3::intern!(py, "path"), |path| {
        span.push_attribute("url.path", &Value::Str(path));
    })?;
    with_scope_text(scope, pyo3::intern!(py, "scheme"), |scheme| {
        span.push_attribute("url.scheme", &Value::Str(scheme));
    })?;
    if let Some(query) = scope.get_item(pyo3::intern!(py, "query_string"))?
        && let Ok(query) = query.cast::<PyBytes>()
        && !query.as_bytes().is_empty()
    {
        span.push_attribute(
            "url.query",
            &Value::Str(&redact_query(&latin1(query.as_bytes()))),
        );
    }
    set_server_address(span, scope, headers)?;
    with_scope_address(scope, pyo3::intern!(py, "client"), |address, port| {
        span.push_attribute("client.address", &Value::Str(address));
        span.push_attribute("network.peer.address", &Value::Str(address));
        if let Some(port) = port {
            span.push_attribute("network.peer.port", &Value::Int(port));
        }
    })?;
    with_scope_text(scope, pyo3::intern!(py, "http_version"), |version| {
        span.push_attribute("network.protocol.version", &Value::Str(version));
    })?;
    if let Some(user_agent) = &headers.user_agent {
        span.push_attribute(
            "user_agent.original",
            &Value::Str(&latin1(user_agent.as_bytes())),
        );
    }
    Ok(())
}

/// `Host` if it names one, else what the server listens on (semantic conventions, "Setting `server.address`").
fn set_server_address(
    span: &mut Recording,
    scope: &Bound<'_, PyDict>,
    headers: &RequestHeaders<'_>,
) -> PyResult<()> {
    if let Some(host) = &headers.host {
        let host = latin1(host.as_bytes());
        let (address, port) = split_host(&host);
        if !address.is_empty() {
            span.push_attribute("server.address", &Value::Str(address));
            if let Some(port) = port {
                span.push_attribute("server.port", &Value::Int(port.into()));
            }
            return Ok(());
        }
    }
    with_scope_address(
        scope,
        pyo3::intern!(scope.py(), "server"),
        |address, port| {
            span.push_attribute("server.address", &Value::Str(address));
            if let Some(port) = port {
                span.push_attribute("server.port", &Value::Int(port));
            }
        },
    )
}

/// What is known of the response so far, and what is held until it is over.
#[derive(Default)]
struct Response {
    send: Option<Py<PyAny>>,
    scope: Option<Py<PyDict>>,
    method: Method,
    status: Option<i64>,
    trailers: bool,
    /// When the last message was handed to the server, while the application may still raise what made it a 5xx.
    ended_unix_ns: Option<u64>,
    baggage: Option<(Py<PyAny>, Option<Py<PyAny>>)>,
}

/// The server span of a request.
#[pyclass(frozen, extends = Span, module = "rvh_trace")]
pub(super) struct ServerSpan {
    response: AttachedCell<Response>,
}

/// What a message to the server means for the span.
#[derive(PartialEq)]
enum Noted {
    Nothing,
    /// The last of the response.
    Last,
}

impl ServerSpan {
    /// Reads one message on its way out.
    #[inline]
    fn note(&self, message: &Bound<'_, PyAny>) -> PyResult<Noted> {
        let py = message.py();
        let Ok(message) = message.cast::<PyDict>() else {
            return Ok(Noted::Nothing);
        };
        let flag = |key: &Bound<'_, PyString>| -> PyResult<bool> {
            message
                .get_item(key)?
                .map_or(Ok(false), |value| value.is_truthy())
        };
        let trailers = || {
            self.response
                .with(py, |response| response.trailers)
                .unwrap_or_default()
        };
        let kind = message.get_item(pyo3::intern!(py, "type"))?;
        let Some(kind) = kind.as_ref().and_then(|kind| kind.cast::<PyString>().ok()) else {
            return Ok(Noted::Nothing);
        };
        let last = match kind.to_str().unwrap_or_default() {
            "http.response.start" => {
                let status = message
                    .get_item(pyo3::intern!(py, "status"))?
                    .and_then(|status| status.extract().ok());
                let trailers = flag(pyo3::intern!(py, "trailers"))?;
                self.response.with(py, |response| {
                    response.status = status;
                    response.trailers = trailers;
                });
                false
            }
            "http.response.body" | "http.response.zerocopysend" => {
                !flag(pyo3::intern!(py, "more_body"))? && !trailers()
            }
            "http.response.pathsend" => !trailers(),
            "http.response.trailers" => !flag(pyo3::intern!(py, "more_trailers"))?,
            _ => false,
        };
        Ok(if last { Noted::Last } else { Noted::Nothing })
    }

    /// `await send(message)`: notes the message and returns the inner awaitable itself.
    #[inline]
    pub(super) fn send<'py>(
        slf: &Bound<'py, Self>,
        message: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let send = this.response.with(py, |response| {
            response.send.as_ref().map(|send| send.bind(py).clone())
        });
        // After the request a late `send` goes nowhere, as servers treat it.
        let Some(send) = send.flatten() else {
            return Ok(Bound::new(py, super::task::Ready::new(py.None()))?.into_any());
        };
        let noted = if slf.as_super().get().is_live() {
            guard(py, "reading a response message", || this.note(message))?
                .unwrap_or(Noted::Nothing)
        } else {
            Noted::Nothing
        };
        let awaitable = send.call1((message,))?;
        if noted == Noted::Last {
            guard(py, "ending a server span", || Self::end_response(slf))?;
        }
        Ok(awaitable)
    }

    /// The last message is with the server: the request is over. A 5xx waits for the exception that may have made it.
    fn end_response(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let span = slf.as_super().get();
        let ended_before = slf
            .get()
            .response
            .with(py, |response| response.ended_unix_ns.is_some());
        if !span.is_live() || ended_before.unwrap_or_default() {
            return Ok(());
        }
        let ended_unix_ns = span.with_recording(py, |span| span.start_time().later_unix_ns());
        let written = Self::write_response(slf);
        let waits = slf.get().response.with(py, |response| {
            let waits = response.status.is_some_and(|status| status >= 500);
            if waits {
                response.ended_unix_ns = ended_unix_ns;
            }
            waits
        });
        if !waits.unwrap_or_default() {
            span.with_recording(py, |span| span.end_at(ended_unix_ns.unwrap_or_default()));
            span.end_now(py);
        }
        written
    }

    /// Status, route and name, as they are when the response is over.
    fn write_response(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let route = Self::route(slf);
        slf.get().response.with(py, |response| {
            slf.as_super().get().with_recording(py, |span| {
                if let Some(status) = response.status {
                    span.set_attribute("http.response.status_code", &Value::Int(status));
                    if status >= 500 {
                        span.set_attribute("error.type", &Value::Str(&status.to_string()));
                        span.set_status(Status::Error, "");
                    }
                }
                if let Ok(Some(route)) = &route {
                    span.set_attribute("http.route", &Value::Str(route));
                    response
                        .method
                        .with_name(py, |method| span.update_name(&format!("{method} {route}")));
                }
            })
        });
        route.map(drop)
    }

    /// The template of the route that was dispatched to, from what the framework left in the scope.
    fn route(slf: &Bound<'_, Self>) -> PyResult<Option<String>> {
        let py = slf.py();
        let scope = slf.get().response.with(py, |response| {
            response.scope.as_ref().map(|scope| scope.bind(py).clone())
        });
        let Some(scope) = scope.flatten() else {
            return Ok(None);
        };
        if !scope.contains(pyo3::intern!(py, "route"))?
            && !scope.contains(pyo3::intern!(py, "endpoint"))?
        {
            return Ok(None);
        }
        imports::route_template(py)?.call1((scope,))?.extract()
    }

    fn finish_span(
        slf: &Bound<'_, Self>,
        error: Option<&Bound<'_, PyBaseException>>,
    ) -> PyResult<()> {
        let py = slf.py();
        let span = slf.as_super().get();
        if !span.is_live() {
            return Ok(());
        }
        let ending = Ending::of(error);
        let ended_unix_ns = slf
            .get()
            .response
            .with(py, |response| response.ended_unix_ns)
            .flatten();
        let written = if ended_unix_ns.is_none() {
            Self::write_response(slf)
        } else {
            Ok(())
        };
        let status = slf
            .get()
            .response
            .with(py, |response| response.status)
            .flatten();
        span.with_recording(py, |span| {
            if let Ok(ending) = &ending {
                ending.write(span);
            }
            // Once a 5xx was sent, that is the error; the exception is how it came about (semantic conventions, `error.type`).
            if let Some(status) = status.filter(|status| *status >= 500) {
                span.set_attribute("error.type", &Value::Str(&status.to_string()));
            }
            match ended_unix_ns {
                Some(ended_unix_ns) => span.end_at(ended_unix_ns),
                None => span.end(),
            }
        });
        span.end_now(py);
        written.and(ending.map(drop))
    }
}

// `send` is in `super::vectorcall`.
#[pymethods]
impl ServerSpan {
    /// The application has returned, or raised `error`: ends what is still open and restores the context.
    #[pyo3(signature = (error=None, /))]
    fn finish(slf: &Bound<'_, Self>, error: Option<&Bound<'_, PyBaseException>>) -> PyResult<()> {
        let py = slf.py();
        guard(py, "ending a server span", || {
            let written = Self::finish_span(slf, error);
            Span::leave(slf.as_super())?;
            // The request is over: what it held must not be kept by whoever keeps the span.
            let held = slf
                .get()
                .response
                .with(py, std::mem::take)
                .unwrap_or_default();
            if let Some((context, previous)) = &held.baggage {
                current::leave_baggage(
                    context.bind(py),
                    previous.as_ref().map(|previous| previous.bind(py)),
                )?;
            }
            drop(held);
            written
        })
        .map(drop)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let visited = self.response.with_collecting(|response| {
            visit.call(response.send.as_ref())?;
            visit.call(response.scope.as_ref())?;
            match &response.baggage {
                Some((context, previous)) => visit
                    .call(context)
                    .and_then(|()| visit.call(previous.as_ref())),
                None => Ok(()),
            }
        });
        visited.unwrap_or(Ok(()))
    }

    fn __clear__(&self) {
        let held = self.response.with_collecting(std::mem::take);
        drop(held);
    }
}
