//! OTLP over HTTP, in protobuf or JSON (OTLP specification, "OTLP/HTTP").
//!
//! One client and one kept-alive connection, reused. The client is built with the exporter, on any thread and outside
//! any runtime, so that nothing is left to go wrong later; its connections belong to the Tokio runtime that polls
//! [`Exporter::export`], and none exists before. Redirects are not followed: they would turn the POST into a GET or carry
//! the headers to a stranger. `HTTP_PROXY` and its like count, except for a collector on this machine. Decision 30 says why
//! it is hyper-util's client and not reqwest's.

use std::io::Write;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use flate2::write::GzEncoder;
use futures::future::BoxFuture;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, LOCATION, PROXY_AUTHORIZATION,
    RETRY_AFTER, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};

use super::connector::Connector;
use super::endpoint::{self, Endpoint, Protocol};
use super::response::{self, excerpt, retry_after};
use super::{Exporter, Outcome, proxy, tls};
use crate::config::{Compression, Encoding, OtlpConfig, Signal};
use crate::error::Error;
use crate::wire::json;

/// A longer answer is not read: what a collector has to say fits in some hundred bytes.
const MAX_RESPONSE: usize = 4 << 20;
/// How long a connection is kept that nothing is sent on.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// Sends requests to an OTLP/HTTP endpoint.
#[derive(Debug)]
pub struct OtlpHttpExporter {
    name: String,
    signal: Signal,
    endpoint: Endpoint,
    uri: Uri,
    /// Of every request.
    headers: HeaderMap,
    encoding: Encoding,
    client: Client<Connector, Full<Bytes>>,
    timeout: Duration,
    compression: Compression,
    /// Ends the text of an error that a proxy may be to blame for.
    proxy_hint: String,
}

impl OtlpHttpExporter {
    /// Checks everything that can be checked without a connection. Reads certificate files for an `https` endpoint.
    pub fn new(config: &OtlpConfig) -> Result<Self, Error> {
        Self::through(config, &Matcher::from_env())
    }

    /// [`Self::new`] with these proxies instead of those of the environment.
    pub(super) fn through(config: &OtlpConfig, proxies: &Matcher) -> Result<Self, Error> {
        let endpoint = Endpoint::parse(&config.endpoint, Protocol::Http)?;
        let uri = endpoint.uri(config.signal)?;
        let mut headers = headers(config, &endpoint)?;
        let proxy = proxy::of(&endpoint, proxies, &["http", "https"]);
        let has_tls = endpoint.is_https()
            || proxy
                .as_ref()
                .is_some_and(|proxy| proxy.uri().scheme_str() == Some("https"));
        let tls = if has_tls {
            tls::Tls::load(config)?.into_rustls()
        } else {
            tls::none()?
        };
        let mut connector = Connector::direct(tls.clone());
        #[cfg(unix)]
        if let Some(socket) = endpoint.socket() {
            connector = connector.on_socket(socket.to_owned());
        }
        if let Some(proxy) = proxy {
            let (through, credentials) =
                connector.through(&proxy, endpoint.is_https().then_some(tls));
            connector = through;
            if let Some(credentials) = credentials {
                headers.entry(PROXY_AUTHORIZATION).or_insert(credentials);
            }
        }
        Ok(Self {
            name: format!("otlp http {}", endpoint.shown()),
            signal: config.signal,
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(1)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .pool_timer(TokioTimer::new())
                .build(connector),
            proxy_hint: proxy::hint(&endpoint, |name| std::env::var(name).ok()),
            endpoint,
            uri,
            headers,
            encoding: config.encoding,
            timeout: config.timeout,
            compression: config.compression,
        })
    }

    async fn attempt(&self, request: Bytes) -> Outcome {
        let request = match self.encoding {
            Encoding::Protobuf => request,
            Encoding::Json => {
                let json = match self.signal {
                    Signal::Traces => json::traces(&request),
                    Signal::Metrics => json::metrics(&request),
                    Signal::Logs => json::logs(&request),
                };
                let Some(json) = json else {
                    let error = "the request cannot be written as JSON".to_owned();
                    return Outcome::Rejected { error };
                };
                json.into()
            }
        };
        let request = match self.compression {
            Compression::Gzip => gzip(&request).into(),
            Compression::None => request,
        };
        let mut post = Request::new(Full::new(request));
        *post.method_mut() = Method::POST;
        *post.uri_mut() = self.uri.clone();
        *post.headers_mut() = self.headers.clone();
        let deadline = Instant::now() + self.timeout;
        let error = match timeout_at(deadline, self.client.request(post)).await {
            Ok(Ok(response)) => return self.answer(response, deadline).await,
            Ok(Err(error)) => self.endpoint.unreachable(&error),
            Err(_) => self.endpoint.timed_out(self.timeout),
        };
        Outcome::Retryable {
            after: None,
            error: error + &self.proxy_hint,
        }
    }

    async fn answer(&self, mut response: Response<Incoming>, deadline: Instant) -> Outcome {
        let status = response.status();
        // A body that breaks off is as good as none: the status has said what counts.
        let body = timeout_at(deadline, read(response.body_mut())).await;
        let body = body.ok().flatten().unwrap_or_default();
        if status.is_success() {
            return self.delivered(&body);
        }
        let headers = response.headers();
        let error = self.failure(status, headers, &body);
        match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => {
                let after = headers
                    .get(RETRY_AFTER)
                    .and_then(|value| value.to_str().ok());
                Outcome::Retryable {
                    after: after.and_then(|value| retry_after(value, SystemTime::now())),
                    error,
                }
            }
            StatusCode::PAYLOAD_TOO_LARGE => Outcome::TooLarge { error },
            // A receiver of traces alone has no such path, and says so in one of these ways.
            StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED
                if self.signal.when_unsupported().is_some() =>
            {
                Outcome::Unsupported { error }
            }
            _ => Outcome::Rejected { error },
        }
    }

    /// Collectors answer in the encoding that they were asked in (OTLP specification, "OTLP/HTTP Response").
    fn delivered(&self, body: &[u8]) -> Outcome {
        match self.encoding {
            Encoding::Protobuf => response::delivered(body),
            Encoding::Json => response::delivered_json(body),
        }
    }

    /// `403 Forbidden from http://host:4318/v1/traces: no such tenant; check the credentials in ...`
    fn failure(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> String {
        let mut text = format!("{status} from {}", self.endpoint.shown());
        let message = match self.encoding {
            Encoding::Protobuf => response::failure_message(body),
            Encoding::Json => response::failure_message_json(body),
        };
        if !message.is_empty() {
            text = format!("{text}: {message}");
        }
        let unsupported = matches!(
            status,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
        );
        if unsupported && let Some(advice) = self.signal.when_unsupported() {
            return format!("{text}; {advice}");
        }
        let advice = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                "check the credentials in OTEL_EXPORTER_OTLP_HEADERS".to_owned()
            }
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                "check the path: collectors usually take spans at /v1/traces, which OTEL_EXPORTER_OTLP_ENDPOINT gets \
                 appended and OTEL_EXPORTER_OTLP_TRACES_ENDPOINT does not"
                    .to_owned()
            }
            _ if status.is_redirection() => {
                let location = headers.get(LOCATION).map_or(&b"elsewhere"[..], |value| value.as_bytes());
                let location = excerpt(&String::from_utf8_lossy(location));
                format!("redirects to {location} are not followed: set OTEL_EXPORTER_OTLP_ENDPOINT to the final address")
            }
            _ => return text,
        };
        format!("{text}; {advice}")
    }
}

impl Exporter for OtlpHttpExporter {
    fn name(&self) -> &str {
        &self.name
    }

    fn export(&mut self, request: Bytes, _items: usize) -> BoxFuture<'_, Outcome> {
        Box::pin(self.attempt(request))
    }
}

/// What every request says of itself and of us. A configured header replaces what is not about the body.
fn headers(config: &OtlpConfig, endpoint: &Endpoint) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(USER_AGENT, HeaderValue::from_static(endpoint::USER_AGENT));
    headers.extend(endpoint::headers(&config.headers)?);
    let content_type = match config.encoding {
        Encoding::Protobuf => "application/x-protobuf",
        Encoding::Json => "application/json",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if config.compression == Compression::Gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if let Some((user, password)) = endpoint.credentials()
        && !headers.contains_key(AUTHORIZATION)
    {
        let credentials = [user.as_slice(), b":", &password].concat();
        let value = format!("Basic {}", BASE64_STANDARD.encode(credentials));
        // Base64 has nothing that a header may not.
        if let Ok(mut value) = HeaderValue::try_from(value) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
    }
    Ok(headers)
}

async fn read(response: &mut Incoming) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(frame) = response.frame().await {
        if let Ok(chunk) = frame.ok()?.into_data() {
            if body.len() + chunk.len() > MAX_RESPONSE {
                return None;
            }
            body.extend_from_slice(&chunk);
        }
    }
    Some(body)
}

/// Compresses on the calling thread, which is the worker's own.
///
/// At the fastest level: spans repeat their keys, which every level finds, and level 6 was measured at 3.9 us of CPU a span,
/// many times the rest of an export.
fn gzip(request: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(
        Vec::with_capacity(request.len() / 4),
        flate2::Compression::fast(),
    );
    // Writing to a Vec cannot fail.
    let _ = encoder.write_all(request);
    encoder.finish().unwrap_or_default()
}

#[cfg(test)]
mod tests;
