//! The server span of an ASGI request.
//!
//! `RvhTraceMiddleware.__call__` is a Python `async def` (uvicorn takes anything else for an ASGI 2 application); the rest
//! is here. [`ServerInstrumentation::start`] reads the scope once and returns the span, which is also the `send` that
//! the application gets: it notes status and last message and returns the inner awaitable itself, so no coroutine frame
//! is added. The span's identity comes from the headers alone: what a server left in the context of a connection
//! (Kludex/uvicorn#2167) is ignored.

use std::borrow::Cow;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::PyTraverseError;
use pyo3::exceptions::PyBaseException;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString, PyTuple};

use super::convert::with_text;
use super::errors::guard;
use super::exception::Ending;
use super::span::{Body, Span};
use super::span_context::Context;
use super::{current, imports, lifecycle};
use crate::attribute::Value;
use crate::context;
use crate::http_server::{is_known_method, redact_query, split_host};
use crate::propagation::{Carrier, Propagators};
use crate::span::{Span as Recording, SpanKind, Status};
use crate::tracer::{Started, Tracer};

/// The name of a span whose method is not known (HTTP semantic conventions, "Name").
const UNKNOWN_METHOD_NAME: &str = "HTTP";

/// The headers that matter, borrowed from the scope's list.
#[derive(Default)]
struct RequestHeaders<'py> {
    host: Option<Bound<'py, PyBytes>>,
    user_agent: Option<Bound<'py, PyBytes>>,
    /// In order; a name may repeat.
    propagation: Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>,
}

impl<'py> RequestHeaders<'py> {
    /// One pass over the list; pairs that are not two `bytes` are skipped.
    fn read(headers: &Bound<'py, PyAny>, propagators: &Propagators) -> PyResult<Self> {
        let mut found = Self::default();
        if let Ok(list) = headers.cast_exact::<PyList>() {
            for pair in list.iter() {
                found.keep(&pair, propagators);
            }
        } else {
            for pair in headers.try_iter()? {
                found.keep(&pair?, propagators);
            }
        }
        Ok(found)
    }

    #[inline]
    fn keep(&mut self, pair: &Bound<'py, PyAny>, propagators: &Propagators) {
        let items = if let Ok(pair) = pair.cast_exact::<PyTuple>() {
            pair.get_item(0).ok().zip(pair.get_item(1).ok())
        } else {
            pair.get_item(0).ok().zip(pair.get_item(1).ok())
        };
        let Some((name, value)) = items else { return };
        let (Ok(name), Ok(value)) = (name.cast_into::<PyBytes>(), value.cast_into::<PyBytes>()) else { return };
        match name.as_bytes() {
            b"host" => {
                self.host.get_or_insert(value);
            }
            b"user-agent" => {
                self.user_agent.get_or_insert(value);
            }
            other => {
                if propagators.fields().any(|field| field.as_bytes() == other) {
                    self.propagation.push((name, value));
                }
            }
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
    if bytes.is_ascii() {
        return String::from_utf8_lossy(bytes);
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().copied().map(char::from).collect()),
    }
}

/// Calls `then` with the text of a scope entry, if it is a string.
fn scope_text<R>(scope: &Bound<'_, PyDict>, key: &Bound<'_, PyString>, then: impl FnOnce(&str) -> R) -> PyResult<Option<R>> {
    Ok(scope
        .get_item(key)?
        .and_then(|value| value.cast::<PyString>().map(|text| with_text(text, then)).ok()))
}

/// The address and port of `scope["client"]` or `scope["server"]`; the port of a unix socket is absent.
fn scope_address(scope: &Bound<'_, PyDict>, key: &Bound<'_, PyString>) -> PyResult<Option<(String, Option<i64>)>> {
    let Some(pair) = scope.get_item(key)? else { return Ok(None) };
    let (Ok(address), Ok(port)) = (pair.get_item(0), pair.get_item(1)) else { return Ok(None) };
    let Ok(address) = address.cast::<PyString>() else { return Ok(None) };
    let port = port.cast::<PyInt>().ok().and_then(|port| port.extract().ok());
    Ok(Some((with_text(address, str::to_owned), port)))
}

/// See the stub.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct ServerInstrumentation {}

#[pymethods]
impl ServerInstrumentation {
    #[new]
    fn new() -> Self {
        Self {}
    }

    /// The span of this request, or `None` when there is nothing to do: tracing is off and no context came in, or an
    /// outer middleware has a span for the same request.
    fn start<'py>(
        &self,
        py: Python<'py>,
        scope: &Bound<'py, PyDict>,
        send: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, ServerSpan>>> {
        guard(py, "starting a server span", || start(scope, send)).map(Option::flatten)
    }
}

fn start<'py>(scope: &Bound<'py, PyDict>, send: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, ServerSpan>>> {
    let py = scope.py();
    if serves_already(scope)? {
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
        Some(headers) => RequestHeaders::read(&headers, propagators)?,
        None => RequestHeaders::default(),
    };
    let context::Context { span: parent, baggage } = propagators.extract(&headers);

    let method = Method::read(scope, tracer)?;
    let started = match tracer {
        Some(tracer) => tracer.start(Some(&parent), SpanKind::Server, method.name()),
        None => Started::Parent,
    };
    if let (Some(tracer), Started::NonRecording(_) | Started::Parent) = (tracer, &started) {
        tracer.count_not_sampled();
    }
    let (span, recorded) = match started {
        Started::Recording(mut span) => {
            // An attribute that cannot be read does not cost the span.
            guard(py, "reading the request", || set_request_attributes(&mut span, scope, &headers, &method))?;
            (Span::new(Body::Recording(span)), true)
        }
        Started::NonRecording(context) => (Span::non_recording(context), false),
        Started::Parent if parent.is_valid() || !baggage.is_empty() => (Span::non_recording(parent), false),
        Started::Parent => return Ok(None),
    };
    let response = Response {
        send: Some(send.clone().unbind()),
        scope: Some(scope.clone().unbind()),
        root_path: recorded.then(|| scope.get_item(pyo3::intern!(py, "root_path"))).transpose()?.flatten().map(Bound::unbind),
        method,
        ..Response::default()
    };
    let server = ServerSpan { response: Mutex::new(response) };
    let server = Bound::new(py, PyClassInitializer::from(span).add_subclass(server))?;
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
        server.get().response().baggage = Some((context.unbind(), previous));
    }
    Ok(Some(server))
}

/// Whether an outer middleware has a live span for this very request.
fn serves_already(scope: &Bound<'_, PyDict>) -> PyResult<bool> {
    let Some(current) = current::span(scope.py())? else { return Ok(false) };
    let Ok(server) = current.cast::<ServerSpan>() else { return Ok(false) };
    Ok(server.get().response().scope.as_ref().is_some_and(|serving| serving.is(scope)))
}

/// The request method, and whether it is reported as it is.
#[derive(Default)]
struct Method {
    sent: String,
    known: bool,
}

impl Method {
    fn read(scope: &Bound<'_, PyDict>, tracer: Option<&Tracer>) -> PyResult<Self> {
        let sent = scope_text(scope, pyo3::intern!(scope.py(), "method"), str::to_owned)?.unwrap_or_default();
        let configured = tracer.and_then(|tracer| tracer.http().known_methods.as_deref());
        Ok(Self {
            known: is_known_method(&sent, configured),
            sent,
        })
    }

    /// What stands in the span's name.
    fn name(&self) -> &str {
        if self.known { &self.sent } else { UNKNOWN_METHOD_NAME }
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
    if method.known {
        span.push_attribute("http.request.method", &Value::Str(&method.sent));
    } else {
        span.push_attribute("http.request.method", &Value::Str("_OTHER"));
        span.push_attribute("http.request.method_original", &Value::Str(&method.sent));
    }
    scope_text(scope, pyo3::intern!(py, "path"), |path| span.push_attribute("url.path", &Value::Str(path)))?;
    scope_text(scope, pyo3::intern!(py, "scheme"), |scheme| span.push_attribute("url.scheme", &Value::Str(scheme)))?;
    if let Some(query) = scope.get_item(pyo3::intern!(py, "query_string"))?
        && let Ok(query) = query.cast::<PyBytes>()
        && !query.as_bytes().is_empty()
    {
        span.push_attribute("url.query", &Value::Str(&redact_query(&latin1(query.as_bytes()))));
    }
    set_server_address(span, scope, headers)?;
    if let Some((address, port)) = scope_address(scope, pyo3::intern!(py, "client"))? {
        span.push_attribute("client.address", &Value::Str(&address));
        span.push_attribute("network.peer.address", &Value::Str(&address));
        if let Some(port) = port {
            span.push_attribute("network.peer.port", &Value::Int(port));
        }
    }
    scope_text(scope, pyo3::intern!(py, "http_version"), |version| {
        span.push_attribute("network.protocol.version", &Value::Str(version));
    })?;
    if let Some(user_agent) = &headers.user_agent {
        span.push_attribute("user_agent.original", &Value::Str(&latin1(user_agent.as_bytes())));
    }
    Ok(())
}

/// `Host` if it names one, else what the server listens on (semantic conventions, "Setting `server.address`").
fn set_server_address(span: &mut Recording, scope: &Bound<'_, PyDict>, headers: &RequestHeaders<'_>) -> PyResult<()> {
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
    if let Some((address, port)) = scope_address(scope, pyo3::intern!(scope.py(), "server"))? {
        span.push_attribute("server.address", &Value::Str(&address));
        if let Some(port) = port {
            span.push_attribute("server.port", &Value::Int(port));
        }
    }
    Ok(())
}

/// What is known of the response so far, and what is held until it is over.
#[derive(Default)]
struct Response {
    send: Option<Py<PyAny>>,
    scope: Option<Py<PyDict>>,
    /// `root_path` as the server gave it; a mount lengthens the one in the scope.
    root_path: Option<Py<PyAny>>,
    method: Method,
    status: Option<i64>,
    trailers: bool,
    /// When the last message was handed to the server, while the application may still raise what made it a 5xx.
    ended_unix_ns: Option<u64>,
    baggage: Option<(Py<PyAny>, Option<Py<PyAny>>)>,
}

/// See the stub.
#[pyclass(frozen, extends = Span, module = "rvh_trace")]
pub(super) struct ServerSpan {
    response: Mutex<Response>,
}

impl ServerSpan {
    fn response(&self) -> MutexGuard<'_, Response> {
        self.response.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads one message on its way out. Whether it was the last one.
    fn note(&self, message: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = message.py();
        let Ok(message) = message.cast::<PyDict>() else { return Ok(false) };
        let flag = |key: &Bound<'_, PyString>| -> PyResult<bool> {
            message.get_item(key)?.map_or(Ok(false), |value| value.is_truthy())
        };
        let kind = message.get_item(pyo3::intern!(py, "type"))?;
        let Some(kind) = kind.as_ref().and_then(|kind| kind.cast::<PyString>().ok()) else { return Ok(false) };
        match kind.to_str().unwrap_or_default() {
            "http.response.start" => {
                let status = message.get_item(pyo3::intern!(py, "status"))?.and_then(|status| status.extract().ok());
                let trailers = flag(pyo3::intern!(py, "trailers"))?;
                let mut response = self.response();
                response.status = status;
                response.trailers = trailers;
                Ok(false)
            }
            "http.response.body" | "http.response.zerocopysend" => {
                Ok(!flag(pyo3::intern!(py, "more_body"))? && !self.response().trailers)
            }
            "http.response.pathsend" => Ok(!self.response().trailers),
            "http.response.trailers" => Ok(!flag(pyo3::intern!(py, "more_trailers"))?),
            _ => Ok(false),
        }
    }

    /// The last message is with the server: the request is over. A 5xx waits for the exception that may have made it.
    fn end_response(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let span = slf.as_super().get();
        if !span.is_live() || slf.get().response().ended_unix_ns.is_some() {
            return Ok(());
        }
        let ended_unix_ns = span.with_recording(py, |span| span.start_time().later_unix_ns());
        Self::write_response(slf)?;
        let mut response = slf.get().response();
        if response.status.is_some_and(|status| status >= 500) {
            response.ended_unix_ns = ended_unix_ns;
        } else {
            drop(response);
            span.with_recording(py, |span| span.end_at(ended_unix_ns.unwrap_or_default()));
            span.end_now(py);
        }
        Ok(())
    }

    /// Status, route and name, as they are when the response is over.
    fn write_response(slf: &Bound<'_, Self>) -> PyResult<()> {
        let py = slf.py();
        let route = Self::route(slf);
        let this = slf.get();
        let response = this.response();
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
                span.update_name(&format!("{} {route}", response.method.name()));
            }
        });
        drop(response);
        route.map(drop)
    }

    /// The template of the route that was dispatched to, from what the framework left in the scope.
    fn route(slf: &Bound<'_, Self>) -> PyResult<Option<String>> {
        let py = slf.py();
        let (scope, root_path) = {
            let response = slf.get().response();
            let Some(scope) = &response.scope else { return Ok(None) };
            (scope.clone_ref(py), response.root_path.as_ref().map(|path| path.clone_ref(py)))
        };
        let scope = scope.bind(py);
        if !scope.contains(pyo3::intern!(py, "route"))? && !scope.contains(pyo3::intern!(py, "endpoint"))? {
            return Ok(None);
        }
        imports::route_template(py)?.call1((scope, root_path))?.extract()
    }
}

#[pymethods]
impl ServerSpan {
    fn __call__<'py>(slf: &Bound<'py, Self>, message: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let send = {
            let response = this.response();
            response.send.as_ref().map(|send| send.bind(py).clone())
        };
        // After the request a late `send` goes nowhere, as servers treat it.
        let Some(send) = send else { return Ok(Bound::new(py, super::task::Ready::new(py.None()))?.into_any()) };
        let live = slf.as_super().get().is_live();
        let last = live && guard(py, "reading a response message", || this.note(message))?.unwrap_or_default();
        let sent = send.call1((message,))?;
        if last {
            guard(py, "ending a server span", || Self::end_response(slf))?;
        }
        Ok(sent)
    }

    /// The application has returned, or raised `error`: ends what is still open and restores the context.
    #[pyo3(signature = (error=None, /))]
    fn finish(slf: &Bound<'_, Self>, error: Option<&Bound<'_, PyBaseException>>) -> PyResult<()> {
        let py = slf.py();
        guard(py, "ending a server span", || {
            let written = Self::finish_span(slf, error);
            Span::leave(slf.as_super())?;
            // The request is over: what it held must not be kept by whoever keeps the span.
            let Response { send, scope, root_path, baggage, .. } = std::mem::take(&mut *slf.get().response());
            if let Some((context, previous)) = &baggage {
                current::leave_baggage(context.bind(py), previous.as_ref().map(|previous| previous.bind(py)))?;
            }
            drop((send, scope, root_path, baggage));
            written
        })
        .map(drop)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Ok(response) = self.response.try_lock() else { return Ok(()) };
        visit.call(response.send.as_ref())?;
        visit.call(response.scope.as_ref())?;
        visit.call(response.root_path.as_ref())?;
        if let Some((context, previous)) = &response.baggage {
            visit.call(context)?;
            visit.call(previous.as_ref())?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        let taken = self.response.try_lock().map(|mut response| std::mem::take(&mut *response));
        drop(taken);
    }
}

impl ServerSpan {
    fn finish_span(slf: &Bound<'_, Self>, error: Option<&Bound<'_, PyBaseException>>) -> PyResult<()> {
        let py = slf.py();
        let span = slf.as_super().get();
        if !span.is_live() {
            return Ok(());
        }
        let ending = Ending::of(error);
        let ended_unix_ns = slf.get().response().ended_unix_ns;
        let mut written = Ok(());
        if ended_unix_ns.is_none() {
            written = Self::write_response(slf);
        }
        let status = slf.get().response().status;
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
