//! What a server span says of the request: read once from the ASGI scope (HTTP semantic conventions 1.44, "HTTP server").
//!
//! Nothing a client or a server put there can raise, and reading it runs no Python code: what has the wrong type is left
//! out, an iterator of headers is left alone, bytes that are no UTF-8 are taken for Latin-1.

use std::borrow::Cow;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyString};

use super::convert::{ascii, with_text};
use crate::context::Context;
use crate::http_server::{is_known_method, redact_query, split_host};
use crate::propagation::{Carrier, Propagators};
use crate::span::Span as Recording;
use crate::tracer::Tracer;
use crate::wire::attribute::key;

/// The name of a span whose method is not known (HTTP semantic conventions, "Name").
const UNKNOWN_METHOD_NAME: &str = "HTTP";

/// An entry of a scope or message.
///
/// Borrowed from the dict: it must not change while the entry is in use, so no Python code may run. A comparison of keys that
/// raises counts as "not there".
#[inline]
#[expect(
    unsafe_code,
    reason = "a dozen entries a request, each counted otherwise"
)]
pub(super) fn item<'a, 'py>(
    dict: &'a Bound<'py, PyDict>,
    key: &Bound<'py, PyString>,
) -> Option<Borrowed<'a, 'py, PyAny>> {
    // SAFETY: attached; a dict and a string; a borrowed reference, or null, perhaps with an error set.
    unsafe {
        let value = ffi::PyDict_GetItemWithError(dict.as_ptr(), key.as_ptr());
        if value.is_null() {
            if !ffi::PyErr_Occurred().is_null() {
                ffi::PyErr_Clear();
            }
            return None;
        }
        Some(Borrowed::from_ptr(dict.py(), value))
    }
}

/// The members of a list or tuple, as they are stored.
#[inline]
#[expect(
    unsafe_code,
    reason = "eleven headers a request, and a checked access counts a reference each"
)]
fn members<'a, 'py>(sequence: &'a Borrowed<'_, 'py, PyAny>) -> &'a [Borrowed<'a, 'py, PyAny>] {
    let object = sequence.as_ptr();
    // SAFETY: attached; a list or tuple keeps `ob_size` valid references in a row, which live while it is not changed, and
    // no Python code runs while they are read (see the module). `Borrowed` is a pointer to an object. An empty list may have
    // no row at all.
    unsafe {
        let first = if ffi::PyTuple_Check(object) != 0 {
            (&raw mut (*object.cast::<ffi::PyTupleObject>()).ob_item).cast()
        } else if ffi::PyList_Check(object) != 0 {
            (*object.cast::<ffi::PyListObject>()).ob_item
        } else {
            return &[];
        };
        let count = ffi::Py_SIZE(object).cast_unsigned();
        if count == 0 {
            return &[];
        }
        std::slice::from_raw_parts(first.cast::<Borrowed<'a, 'py, PyAny>>(), count)
    }
}

/// The contents of a `bytes` object, or of an instance of a subclass.
#[inline]
#[expect(unsafe_code, reason = "two checked calls a header otherwise")]
fn bytes<'a>(object: &'a Borrowed<'_, '_, PyAny>) -> Option<&'a [u8]> {
    let pointer = object.as_ptr();
    // SAFETY: attached; a `bytes` has `ob_size` bytes from `ob_sval` on, which never change and live as long as the borrow.
    unsafe {
        if ffi::PyBytes_Check(pointer) == 0 {
            return None;
        }
        let first = (&raw const (*pointer.cast::<ffi::PyBytesObject>()).ob_sval).cast::<u8>();
        let count = ffi::Py_SIZE(pointer).cast_unsigned();
        Some(std::slice::from_raw_parts(first, count))
    }
}

/// Calls `then` with the text of `value`, if it is a string.
#[inline]
pub(super) fn with_str<R>(
    value: Option<Borrowed<'_, '_, PyAny>>,
    then: impl FnOnce(&str) -> R,
) -> Option<R> {
    let value = value?;
    if let Some(text) = ascii(&value) {
        return Some(then(text));
    }
    value
        .cast::<PyString>()
        .ok()
        .map(|text| with_text(&text, then))
}

/// The headers that matter, out of the scope's list; names are in lower case (ASGI, "HTTP Connection Scope").
#[derive(Default)]
pub(super) struct RequestHeaders<'a> {
    host: Option<&'a [u8]>,
    user_agent: Option<&'a [u8]>,
    traceparent: Option<&'a [u8]>,
    /// Whether there is more to propagate than one `traceparent`.
    more: bool,
}

impl<'a> RequestHeaders<'a> {
    /// One pass over a list or tuple; pairs that are not two `bytes` are skipped.
    #[inline]
    pub(super) fn read(headers: &'a Borrowed<'_, '_, PyAny>) -> Self {
        let mut found = Self::default();
        for pair in members(headers) {
            let [name, value, ..] = members(pair) else {
                continue;
            };
            let Some(name) = bytes(name) else {
                continue;
            };
            // Most headers are none of ours; their length tells.
            if !matches!(name.len(), 4 | 7 | 10 | 11) {
                continue;
            }
            let Some(value) = bytes(value) else {
                continue;
            };
            match name {
                b"host" => _ = found.host.get_or_insert(value),
                b"user-agent" => _ = found.user_agent.get_or_insert(value),
                b"traceparent" => found.more |= found.traceparent.replace(value).is_some(),
                b"tracestate" | b"baggage" => found.more = true,
                _ => {}
            }
        }
        found
    }

    /// The context that the request brings.
    #[inline]
    pub(super) fn extract(
        &self,
        headers: Option<&Borrowed<'_, '_, PyAny>>,
        propagators: &Propagators,
    ) -> Context {
        match (self.traceparent, headers) {
            (None, _) if !self.more => Context::default(),
            (Some(traceparent), _) if !self.more => propagators.extract_traceparent(traceparent),
            (_, Some(headers)) => propagators.extract(&HeaderList(headers)),
            (_, None) => Context::default(),
        }
    }
}

/// All headers of a request, for propagators.
struct HeaderList<'a, 'b, 'py>(&'a Borrowed<'b, 'py, PyAny>);

impl Carrier for HeaderList<'_, '_, '_> {
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        for pair in members(self.0) {
            if let [header, value, ..] = members(pair)
                && bytes(header) == Some(name.as_bytes())
                && let Some(value) = bytes(value)
            {
                each(value);
            }
        }
    }
}

/// Header and query bytes as text: ASGI promises ASCII or Latin-1, clients send anything.
#[inline]
#[expect(
    unsafe_code,
    reason = "header values are ASCII nearly always, and validated byte by byte otherwise"
)]
fn latin1(bytes: &[u8]) -> Cow<'_, str> {
    if bytes.is_ascii() {
        // SAFETY: ASCII is UTF-8.
        return Cow::Borrowed(unsafe { std::str::from_utf8_unchecked(bytes) });
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().copied().map(char::from).collect()),
    }
}

/// Calls `then` with the address and port of `scope["client"]` or `scope["server"]`; the port of a unix socket is absent.
#[inline]
fn with_address(pair: Option<Borrowed<'_, '_, PyAny>>, then: impl FnOnce(&str, Option<i64>)) {
    // Servers give a tuple or, after JSON, a list.
    if let Some(pair) = pair
        && let [address, port, ..] = members(&pair)
    {
        with_str(Some(*address), |address| then(address, int(port)));
    }
}

/// The value of an `int` that fits.
#[inline]
pub(super) fn int(value: &Bound<'_, PyAny>) -> Option<i64> {
    value
        .cast::<PyInt>()
        .ok()
        .and_then(|value| value.extract().ok())
}

/// The request method, and whether it is reported as it is.
#[derive(Default)]
pub(super) struct Method {
    sent: Option<Py<PyString>>,
    known: bool,
}

impl Method {
    #[inline]
    pub(super) fn read(scope: &Bound<'_, PyDict>, tracer: &Tracer) -> Self {
        let configured = tracer.http().known_methods.as_deref();
        let method = item(scope, pyo3::intern!(scope.py(), "method"));
        let known = with_str(method, |sent| is_known_method(sent, configured));
        let sent = method.and_then(|sent| sent.to_owned().cast_into::<PyString>().ok());
        Self {
            known: known == Some(true),
            sent: sent.map(Bound::unbind),
        }
    }

    #[inline]
    fn with_sent<R>(&self, py: Python<'_>, then: impl FnOnce(&str) -> R) -> R {
        let mut then = Some(then);
        let sent = self.sent.as_ref().map(|sent| sent.bind(py).as_any());
        let done = with_str(sent.map(Bound::as_borrowed), |sent| {
            then.take().map(|then| then(sent))
        });
        match (done.flatten(), then) {
            (Some(done), _) => done,
            (None, Some(then)) => then(""),
            (None, None) => unreachable!("`then` is taken only to be called"),
        }
    }

    /// Calls `then` with what stands in the span's name.
    #[inline]
    pub(super) fn with_name<R>(&self, py: Python<'_>, then: impl FnOnce(&str) -> R) -> R {
        if self.known {
            self.with_sent(py, then)
        } else {
            then(UNKNOWN_METHOD_NAME)
        }
    }

    /// Lets go of it here and now.
    pub(super) fn forget(self, py: Python<'_>) {
        drop(self.sent.map(|sent| sent.into_bound(py)));
    }
}

/// Everything that is known when the request arrives, so that samplers and long requests show it.
pub(super) fn set_request_attributes(
    span: &mut Recording,
    scope: &Bound<'_, PyDict>,
    headers: &RequestHeaders<'_>,
    method: &Method,
) {
    let py = scope.py();
    method.with_sent(py, |sent| {
        if method.known {
            span.push_known_str(&key!("http.request.method"), sent);
        } else {
            span.push_known_str(&key!("http.request.method"), "_OTHER");
            span.push_known_str(&key!("http.request.method_original"), sent);
        }
    });
    with_str(item(scope, pyo3::intern!(py, "path")), |path| {
        span.push_known_str(&key!("url.path"), path);
    });
    with_str(item(scope, pyo3::intern!(py, "scheme")), |scheme| {
        span.push_known_str(&key!("url.scheme"), scheme);
    });
    if let Some(query) = item(scope, pyo3::intern!(py, "query_string"))
        && let Some(query) = bytes(&query)
        && !query.is_empty()
    {
        span.push_known_str(&key!("url.query"), &redact_query(&latin1(query)));
    }
    set_server_address(span, scope, headers);
    with_address(item(scope, pyo3::intern!(py, "client")), |address, port| {
        span.push_known_str(&key!("client.address"), address);
        span.push_known_str(&key!("network.peer.address"), address);
        if let Some(port) = port {
            span.push_known_int(&key!("network.peer.port"), port);
        }
    });
    with_str(item(scope, pyo3::intern!(py, "http_version")), |version| {
        span.push_known_str(&key!("network.protocol.version"), version);
    });
    if let Some(user_agent) = headers.user_agent {
        span.push_known_str(&key!("user_agent.original"), &latin1(user_agent));
    }
}

/// `Host` if it names one, else what the server listens on (semantic conventions, "Setting `server.address`").
fn set_server_address(
    span: &mut Recording,
    scope: &Bound<'_, PyDict>,
    headers: &RequestHeaders<'_>,
) {
    if let Some(host) = headers.host {
        let host = latin1(host);
        let (address, port) = split_host(&host);
        if !address.is_empty() {
            span.push_known_str(&key!("server.address"), address);
            if let Some(port) = port {
                span.push_known_int(&key!("server.port"), port.into());
            }
            return;
        }
    }
    with_address(
        item(scope, pyo3::intern!(scope.py(), "server")),
        |address, port| {
            span.push_known_str(&key!("server.address"), address);
            if let Some(port) = port {
                span.push_known_int(&key!("server.port"), port);
            }
        },
    );
}
