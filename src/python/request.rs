//! What a server span says of the request: read once from the ASGI scope (HTTP semantic conventions 1.44, "HTTP server").
//!
//! Nothing a client or a server put there can raise: what has the wrong type is left out, bytes that are no UTF-8 are taken
//! for Latin-1.

use std::borrow::Cow;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString, PyTuple};

use super::convert::with_text;
use crate::attribute::Value;
use crate::http_server::{is_known_method, redact_query, split_host};
use crate::propagation::Carrier;
use crate::span::Span as Recording;
use crate::tracer::Tracer;

/// The name of a span whose method is not known (HTTP semantic conventions, "Name").
const UNKNOWN_METHOD_NAME: &str = "HTTP";

/// The headers that matter, out of the scope's list.
#[derive(Default)]
pub(super) struct RequestHeaders<'py> {
    host: Option<Bound<'py, PyBytes>>,
    user_agent: Option<Bound<'py, PyBytes>>,
    /// What propagators read, in order; a name may repeat.
    pub(super) propagation: Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>,
}

impl<'py> RequestHeaders<'py> {
    /// One pass over the list; pairs that are not two `bytes` are skipped.
    pub(super) fn read(headers: &Bound<'py, PyAny>) -> PyResult<Self> {
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
pub(super) fn with_scope_text<R>(
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
    // Servers give a tuple or, after JSON, a list.
    let items = match pair.cast_exact::<PyTuple>() {
        Ok(pair) => pair.get_item(0).ok().zip(pair.get_item(1).ok()),
        Err(_) => pair.get_item(0).ok().zip(pair.get_item(1).ok()),
    };
    let Some((address, port)) = items else {
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

/// The request method, and whether it is reported as it is.
#[derive(Default)]
pub(super) struct Method {
    sent: Option<Py<PyString>>,
    known: bool,
}

impl Method {
    pub(super) fn read(scope: &Bound<'_, PyDict>, tracer: &Tracer) -> PyResult<Self> {
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
    pub(super) fn with_name<R>(&self, py: Python<'_>, then: impl FnOnce(&str) -> R) -> R {
        if self.known {
            self.with_sent(py, then)
        } else {
            then(UNKNOWN_METHOD_NAME)
        }
    }
}

/// Everything that is known when the request arrives, so that samplers and long requests show it.
pub(super) fn set_request_attributes(
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
