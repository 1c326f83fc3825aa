//! OTLP over HTTP, in protobuf or JSON (OTLP specification, "OTLP/HTTP").
//!
//! One client and one kept-alive connection, reused. The client is built with the exporter, on any thread and outside
//! any runtime, so that nothing is left to go wrong later; its connections belong to the Tokio runtime that polls
//! [`Exporter::export`], and none exists before. Redirects are not followed: they would turn the POST into a GET or carry
//! the headers to a stranger. `HTTP_PROXY` and its like count, except for a collector on this machine.

use std::io::Write;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::write::GzEncoder;
use futures::future::BoxFuture;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use reqwest::{Client, Response, redirect};
use url::Url;

use super::endpoint::{self, Endpoint, Protocol};
use super::response::{self, excerpt, retry_after};
use super::{Exporter, Outcome, proxy, tls};
use crate::config::{Compression, Encoding, OtlpConfig, Signal};
use crate::error::Error;
use crate::wire::json;

/// A longer answer is not read: what a collector has to say fits in some hundred bytes.
const MAX_RESPONSE: usize = 4 << 20;

/// Sends requests to an OTLP/HTTP endpoint.
#[derive(Debug)]
pub struct OtlpHttpExporter {
    name: String,
    signal: Signal,
    endpoint: Endpoint,
    url: Url,
    encoding: Encoding,
    client: Client,
    timeout: Duration,
    compression: Compression,
    /// Ends the text of an error that a proxy may be to blame for.
    proxy_hint: String,
}

impl OtlpHttpExporter {
    /// Checks everything that can be checked without a connection. Reads certificate files for an `https` endpoint.
    pub fn new(config: &OtlpConfig) -> Result<Self, Error> {
        let endpoint = Endpoint::parse(&config.endpoint, Protocol::Http)?;
        let tls = if endpoint.is_https() {
            tls::Tls::load(config)?.into_rustls()
        } else {
            tls::none()?
        };
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(endpoint::USER_AGENT)
            .default_headers(endpoint::headers(&config.headers)?)
            .redirect(redirect::Policy::none())
            .timeout(config.timeout)
            .pool_max_idle_per_host(1);
        if endpoint.is_loopback() {
            builder = builder.no_proxy();
        }
        let mut url = endpoint.url().clone();
        #[cfg(unix)]
        if let Some(socket) = endpoint.socket() {
            builder = builder.unix_socket(socket);
            url.set_path(config.signal.path());
        }
        Ok(Self {
            name: format!("otlp http {}", endpoint.shown()),
            signal: config.signal,
            client: builder
                .build()
                .map_err(|error| Error::configuration("otlp http exporter", error.to_string()))?,
            proxy_hint: proxy::hint(&endpoint, |name| std::env::var(name).ok()),
            endpoint,
            url,
            encoding: config.encoding,
            timeout: config.timeout,
            compression: config.compression,
        })
    }

    async fn attempt(&self, request: Bytes) -> Outcome {
        let (request, content_type) = match self.encoding {
            Encoding::Protobuf => (request, "application/x-protobuf"),
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
                (json.into(), "application/json")
            }
        };
        let post = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, content_type);
        let post = match self.compression {
            Compression::Gzip => post.header(CONTENT_ENCODING, "gzip").body(gzip(&request)),
            Compression::None => post.body(request),
        };
        let error = match post.send().await {
            Ok(response) => return self.answer(response).await,
            Err(error) if error.is_timeout() => self.endpoint.timed_out(self.timeout),
            // The URL in its text may carry credentials.
            Err(error) => self.endpoint.unreachable(&error.without_url()),
        };
        Outcome::Retryable {
            after: None,
            error: error + &self.proxy_hint,
        }
    }

    async fn answer(&self, mut response: Response) -> Outcome {
        let status = response.status();
        // A body that breaks off is as good as none: the status has said what counts.
        let body = read(&mut response).await.unwrap_or_default();
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

async fn read(response: &mut Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > MAX_RESPONSE {
            return None;
        }
        body.extend_from_slice(&chunk);
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
