//! What the start of a response is for beside its status: captured headers, the hook, and headers that tell the client its
//! trace.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use super::borrowed::{header_pairs, item};
use super::convert::ascii;
use super::server_span::ServerSpan;
use super::span::Span;
use crate::http_server::{HttpServerSettings, TraceResponseHeaders, trace_response};

/// Does what is to be done with the message that starts a response; the one to send instead, if headers were added.
#[cold]
pub(super) fn decorate<'py>(
    slf: &Bound<'py, ServerSpan>,
    message: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = slf.py();
    let Some(instrumentation) = ServerSpan::instrumentation(slf) else {
        return Ok(None);
    };
    let (middleware, settings) = (instrumentation.get(), instrumentation.get().settings());
    let span = slf.as_super();
    let Ok(start) = message.cast::<PyDict>() else {
        return Ok(None);
    };
    if let Some(headers) = item(start, pyo3::intern!(py, "headers"))
        && !settings.response_headers.is_empty()
    {
        let captured = settings.response_headers.collect(header_pairs(&headers));
        span.get().with_recording(py, |span| {
            captured.for_each(|key, value| span.set_attribute(key, value));
        });
    }
    let decorated = add_headers(settings, span, start)?;
    let sent = decorated.as_ref().unwrap_or(start);
    middleware.hooks().response.call(py, (span, sent))?;
    Ok(decorated.map(Bound::into_any))
}

/// The message with the headers that tell the client its trace; a message of its own, because the application may send
/// the same one again. What is no plain message, or has headers that may be read only once, stays as it is.
fn add_headers<'py>(
    settings: &HttpServerSettings,
    span: &Bound<'py, Span>,
    start: &Bound<'py, PyDict>,
) -> PyResult<Option<Bound<'py, PyDict>>> {
    let py = start.py();
    let wanted = settings.trace_response_headers;
    let context = span.get().clone_context(py);
    let is_plain = start.is_exact_instance_of::<PyDict>() && is_http_response(start);
    if wanted.is_empty() || !context.is_valid() || !is_plain {
        return Ok(None);
    }
    let headers = match item(start, pyo3::intern!(py, "headers")) {
        None => PyList::empty(py),
        Some(before) => {
            if let Ok(before) = before.cast::<PyList>() {
                PyList::new(py, before.iter())?
            } else if let Ok(before) = before.cast::<PyTuple>() {
                before.to_list()
            } else {
                return Ok(None);
            }
        }
    };
    let add = |name: &str, value: &[u8]| {
        headers.append((PyBytes::new(py, name.as_bytes()), PyBytes::new(py, value)))
    };
    if wanted.has(TraceResponseHeaders::SERVER_TIMING) {
        add(
            trace_response::SERVER_TIMING,
            &trace_response::format_server_timing(&context),
        )?;
    }
    if wanted.has(TraceResponseHeaders::TRACERESPONSE) {
        add(
            trace_response::TRACERESPONSE,
            &trace_response::format_traceresponse(&context),
        )?;
    }
    add(trace_response::EXPOSE_HEADERS, wanted.exposed().as_bytes())?;
    let decorated = start.copy()?;
    decorated.set_item(pyo3::intern!(py, "headers"), headers)?;
    Ok(Some(decorated))
}

/// Whether the message starts an HTTP response. No script can read what the handshake of a websocket brings, and servers of
/// ASGI 2.0 take no headers there.
fn is_http_response(start: &Bound<'_, PyDict>) -> bool {
    item(start, pyo3::intern!(start.py(), "type"))
        .as_deref()
        .and_then(ascii)
        == Some("http.response.start")
}
