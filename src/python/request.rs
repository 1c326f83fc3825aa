//! What a server span says of the request: read once from the ASGI scope (HTTP semantic conventions 1.44, "HTTP server").
//!
//! Nothing a client or a server put there can raise, and reading it runs no Python code: what has the wrong type is left
//! out, an iterator of headers is left alone, bytes that are no UTF-8 are taken for Latin-1.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::borrowed::{bytes, entry, header_pairs, int, item, members, with_str};
use super::method::Method;
use crate::context::Context;
use crate::http_server::{
    Forwarded, ForwardedHeaders, HttpServerSettings, OptIn, SyntheticType, latin1, redact_query,
    split_host,
};
use crate::propagation::{Carrier, Propagators};
use crate::span::Span as Recording;
use crate::wire::attribute::key;

/// A request: its scope and the list of its headers, borrowed.
pub(super) struct Request<'a, 'py> {
    scope: &'a Bound<'py, PyDict>,
    headers: Option<Borrowed<'a, 'py, PyAny>>,
}

/// The headers that matter; names are in lower case (ASGI, "HTTP Connection Scope").
#[derive(Default)]
pub(super) struct RequestHeaders<'a> {
    host: Option<&'a [u8]>,
    user_agent: Option<&'a [u8]>,
    traceparent: Option<&'a [u8]>,
    /// Whether there is more to propagate than one `traceparent`.
    propagates_more: bool,
    /// What trusted proxies say.
    forwarded: Option<Box<Forwarded<'a>>>,
}

impl<'a, 'py> Request<'a, 'py> {
    #[inline]
    pub(super) fn read(scope: &'a Bound<'py, PyDict>) -> Self {
        Self {
            scope,
            headers: entry!(scope, "headers"),
        }
    }

    /// One pass over the headers.
    #[inline]
    pub(super) fn headers(&self, settings: &HttpServerSettings) -> RequestHeaders<'_> {
        let mut found = RequestHeaders::default();
        let Some(headers) = &self.headers else {
            return found;
        };
        for pair in members(headers) {
            let [name, value, ..] = members(pair) else {
                continue;
            };
            // Most headers are none of ours; their length tells.
            let Some(name) = bytes(name).filter(|name| matches!(name.len(), 4 | 7 | 10 | 11))
            else {
                continue;
            };
            let Some(value) = bytes(value) else {
                continue;
            };
            match name.len() {
                4 if name == b"host" => _ = found.host.get_or_insert(value),
                7 if name == b"baggage" => found.propagates_more = true,
                10 if name == b"user-agent" => _ = found.user_agent.get_or_insert(value),
                10 if name == b":authority" => found.host = Some(value),
                10 if name == b"tracestate" => found.propagates_more = true,
                11 if name == b"traceparent" => {
                    found.propagates_more |= found.traceparent.replace(value).is_some();
                }
                _ => {}
            }
        }
        if !settings.trusted_proxies.is_empty() {
            found.forwarded = self.forwarded(settings).map(Box::new);
        }
        found
    }

    /// What trusted proxies say of the request.
    #[cold]
    fn forwarded(&self, settings: &HttpServerSettings) -> Option<Forwarded<'_>> {
        let headers: ForwardedHeaders<'_> = header_pairs(self.headers.as_ref()?).collect();
        let client = item(self.scope, pyo3::intern!(self.scope.py(), "client"));
        let peer = client.and_then(|pair| {
            let address = members(&pair).first().copied();
            with_str(address, str::to_owned)
        });
        Some(Forwarded::read(
            &headers,
            &settings.trusted_proxies,
            peer.as_deref(),
        ))
    }

    /// The context that the request brings.
    #[inline]
    pub(super) fn extract(
        &self,
        headers: &RequestHeaders<'_>,
        propagators: &Propagators,
    ) -> Context {
        if !propagators.only_w3c() {
            return self.extract_all(propagators);
        }
        match headers.traceparent {
            None if !headers.propagates_more => Context::default(),
            Some(traceparent) if !headers.propagates_more => {
                propagators.extract_traceparent(traceparent)
            }
            _ => self.extract_all(propagators),
        }
    }

    fn extract_all(&self, propagators: &Propagators) -> Context {
        match &self.headers {
            Some(headers) => propagators.extract(&HeaderList(headers)),
            None => Context::default(),
        }
    }

    /// `scheme://host/path`, for those who exclude URLs.
    #[cold]
    pub(super) fn url(&self, headers: &RequestHeaders<'_>) -> String {
        let py = self.scope.py();
        let entry = |key| with_str(item(self.scope, key), str::to_owned).unwrap_or_default();
        let host = headers.host.map(latin1).unwrap_or_default();
        let (scheme, path) = (
            entry(pyo3::intern!(py, "scheme")),
            entry(pyo3::intern!(py, "path")),
        );
        format!("{scheme}://{host}{path}")
    }

    /// What of the URL is not in the scope and is still needed when the request is over.
    #[inline]
    pub(super) fn forwarded_url(
        &self,
        headers: &RequestHeaders<'_>,
        settings: &HttpServerSettings,
    ) -> Option<Box<RequestUrl>> {
        let scheme = headers.forwarded.as_ref().and_then(|said| said.proto);
        let with_server = settings.opt_in.has(OptIn::SERVER_ADDRESS_ON_METRICS);
        if scheme.is_none() && !with_server {
            return None;
        }
        let mut server = None;
        if with_server {
            self.with_server(headers, |address, port| {
                let port = port.and_then(|port| port.try_into().ok());
                server = Some((Box::from(address), port));
            });
        }
        Some(Box::new(RequestUrl { scheme, server }))
    }

    /// Everything that is known when the request arrives, so that samplers and long requests show it.
    #[inline]
    pub(super) fn set_attributes(
        &self,
        span: &mut Recording,
        headers: &RequestHeaders<'_>,
        method: &Method,
        settings: &HttpServerSettings,
    ) {
        let (py, scope) = (self.scope.py(), self.scope);
        method.with_reported(py, |reported| {
            span.push_known_str(&key!("http.request.method"), reported);
        });
        method.with_original(py, |sent| {
            span.push_known_str(&key!("http.request.method_original"), sent);
        });
        with_str(entry!(scope, "path"), |path| {
            span.push_known_str(&key!("url.path"), path);
        });
        let forwarded = headers.forwarded.as_deref();
        if let Some(scheme) = forwarded.and_then(|said| said.proto) {
            span.push_known_str(&key!("url.scheme"), scheme);
        } else {
            with_str(entry!(scope, "scheme"), |scheme| {
                span.push_known_str(&key!("url.scheme"), scheme);
            });
        }
        if let Some(query) = entry!(scope, "query_string")
            && let Some(query) = bytes(&query)
            && !query.is_empty()
        {
            span.push_known_str(&key!("url.query"), &redact_query(&latin1(query)));
        }
        self.with_server(headers, |address, port| {
            span.push_known_str(&key!("server.address"), address);
            if let Some(port) = port {
                span.push_known_int(&key!("server.port"), port);
            }
        });
        self.set_client(span, forwarded, settings);
        with_str(entry!(scope, "http_version"), |version| {
            span.push_known_str(&key!("network.protocol.version"), version);
        });
        if let Some(user_agent) = headers.user_agent {
            span.push_known_str(&key!("user_agent.original"), &latin1(user_agent));
            if settings.opt_in.has(OptIn::USER_AGENT_SYNTHETIC_TYPE)
                && let Some(kind) = SyntheticType::of(user_agent)
            {
                span.push_known_str(&key!("user_agent.synthetic.type"), kind.as_str());
            }
        }
        if let Some(headers) = &self.headers
            && !settings.request_headers.is_empty()
        {
            let captured = settings.request_headers.collect(header_pairs(headers));
            captured.for_each(|key, value| span.set_attribute(key, value));
        }
    }

    /// The client as trusted proxies or the server know it, and the peer.
    #[inline]
    fn set_client(
        &self,
        span: &mut Recording,
        forwarded: Option<&Forwarded<'_>>,
        settings: &HttpServerSettings,
    ) {
        let said = forwarded.and_then(|said| said.client.as_deref().zip(Some(said.client_port)));
        let client_port = settings.opt_in.has(OptIn::CLIENT_PORT);
        if let Some((address, port)) = said {
            span.push_known_str(&key!("client.address"), address);
            if let Some(port) = port.filter(|_| client_port) {
                span.push_known_int(&key!("client.port"), port.into());
            }
        }
        let client = entry!(self.scope, "client");
        with_address(client, |address, port| {
            if said.is_none() {
                span.push_known_str(&key!("client.address"), address);
                if let Some(port) = port.filter(|_| client_port) {
                    span.push_known_int(&key!("client.port"), port);
                }
            }
            span.push_known_str(&key!("network.peer.address"), address);
            if let Some(port) = port {
                span.push_known_int(&key!("network.peer.port"), port);
            }
        });
    }

    /// What a trusted proxy was asked for, else `Host` if it names one, else what the server listens on (semantic conventions,
    /// "Setting `server.address`").
    #[inline]
    fn with_server(&self, headers: &RequestHeaders<'_>, mut then: impl FnMut(&str, Option<i64>)) {
        if let Some(forwarded) = &headers.forwarded
            && let Some(host) = &forwarded.host
        {
            then(host, forwarded.host_port.map(Into::into));
            return;
        }
        if let Some(host) = headers.host {
            let host = latin1(host);
            let (address, port) = split_host(&host);
            if !address.is_empty() {
                then(address, port.map(Into::into));
                return;
            }
        }
        let server = item(self.scope, pyo3::intern!(self.scope.py(), "server"));
        with_address(server, then);
    }
}

/// What of a URL a trusted proxy said, or metrics need.
pub(super) struct RequestUrl {
    scheme: Option<&'static str>,
    server: Option<(Box<str>, Option<u16>)>,
}

impl RequestUrl {
    /// Host and port, for those who want them on metrics.
    pub(super) fn server(&self) -> Option<(&str, Option<u16>)> {
        self.server
            .as_ref()
            .map(|(address, port)| (&**address, *port))
    }
}

/// Calls `then` with `url.scheme`.
#[inline]
pub(super) fn with_scheme(
    scope: &Bound<'_, PyDict>,
    url: Option<&RequestUrl>,
    then: impl FnOnce(&str),
) {
    if let Some(scheme) = url.and_then(|url| url.scheme) {
        then(scheme);
    } else {
        with_str(entry!(scope, "scheme"), then);
    }
}

/// All headers of a request, for propagators.
struct HeaderList<'a, 'b, 'py>(&'a Borrowed<'b, 'py, PyAny>);

impl Carrier for HeaderList<'_, '_, '_> {
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        for (header, value) in header_pairs(self.0) {
            if header == name.as_bytes() {
                each(value);
            }
        }
    }

    fn values_below(&self, prefix: &str, each: &mut dyn FnMut(&[u8], &[u8])) {
        for (header, value) in header_pairs(self.0) {
            if let Some(rest) = header.strip_prefix(prefix.as_bytes()) {
                each(rest, value);
            }
        }
    }
}

/// Calls `then` with the address and port of `scope["client"]` or `scope["server"]`; the port of a unix socket is absent.
#[inline]
fn with_address(pair: Option<Borrowed<'_, '_, PyAny>>, then: impl FnOnce(&str, Option<i64>)) {
    // Servers give a tuple or, after JSON, a list.
    if let Some(pair) = pair
        && let [address, port, ..] = members(&pair)
    {
        with_str(Some(*address), |address| {
            // An unnamed unix socket.
            if !address.is_empty() {
                then(address, self::port(port));
            }
        });
    }
}

/// A port: an `int`, or the digits that granian gives.
#[inline]
fn port(value: &Bound<'_, PyAny>) -> Option<i64> {
    int(value).or_else(|| {
        with_str(Some(value.as_borrowed()), |digits| {
            digits.parse::<u16>().ok()
        })?
        .map(Into::into)
    })
}
