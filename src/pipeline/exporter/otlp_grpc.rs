//! OTLP over gRPC (OTLP specification, "OTLP/gRPC").
//!
//! The request is already encoded, so the codec is two copies of bytes and no generated client is involved. The channel
//! connects by itself, and again after a failure; it is made at the first attempt because making one needs the Tokio
//! runtime that polls [`Exporter::export`]. What can be checked without it is checked at construction.

use std::error::Error as _;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::{self, Channel};
use tonic::{Code, Request, Status};

use super::endpoint::{self, Endpoint, Protocol};
use super::response::{delivered, excerpt, is_about_size, retry_info};
use super::{Exporter, Outcome, proxy, tls};
use crate::config::{Compression, OtlpConfig, Signal};
use crate::error::Error;

/// A longer answer is not read. An odd number, by which tonic's refusal to read it is told from a collector's to read us:
/// the two have the same code and the same words.
const MAX_RESPONSE: usize = (4 << 20) - 1;

/// The method that takes a signal.
fn export_path(signal: Signal) -> PathAndQuery {
    PathAndQuery::from_static(match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    })
}

/// Sends requests to an OTLP/gRPC endpoint.
#[derive(Debug)]
pub struct OtlpGrpcExporter {
    name: String,
    signal: Signal,
    endpoint: Endpoint,
    transport: transport::Endpoint,
    /// The way through a proxy, when there is one.
    tunnel: Option<Tunnel<HttpConnector>>,
    /// Ends the text of an error that a proxy may be to blame for.
    proxy_hint: String,
    channel: Option<Channel>,
    metadata: MetadataMap,
    timeout: Duration,
    compression: Compression,
}

impl OtlpGrpcExporter {
    /// Checks everything that can be checked without a connection. Reads certificate files for an `https` endpoint.
    pub fn new(config: &OtlpConfig) -> Result<Self, Error> {
        Self::through(config, &Matcher::from_env())
    }

    fn through(config: &OtlpConfig, proxies: &Matcher) -> Result<Self, Error> {
        let endpoint = Endpoint::parse(&config.endpoint, Protocol::Grpc)?;
        let failed = |error: transport::Error| {
            Error::configuration("otlp grpc exporter", endpoint.unreachable(&error))
        };
        let target = match endpoint.socket() {
            Some(socket) => format!("unix://{}", socket.display()),
            None => endpoint.origin(),
        };
        let mut transport = transport::Endpoint::from_shared(target)
            .and_then(|transport| transport.user_agent(endpoint::USER_AGENT))
            .map_err(failed)?
            .connect_timeout(config.timeout)
            // Load balancers forget idle connections without a word.
            .tcp_keepalive(Some(Duration::from_secs(30)));
        if endpoint.is_https() {
            transport = transport
                .tls_config(tls::Tls::load(config)?.into_tonic())
                .map_err(failed)?;
        }
        Ok(Self {
            name: format!("otlp grpc {}", endpoint.shown()),
            signal: config.signal,
            tunnel: proxy::tunnel(&endpoint, proxies),
            proxy_hint: proxy::hint(&endpoint, |name| std::env::var(name).ok()),
            endpoint,
            transport,
            channel: None,
            metadata: MetadataMap::from_headers(endpoint::headers(&config.headers)?),
            timeout: config.timeout,
            compression: config.compression,
        })
    }

    async fn attempt(&mut self, request: Bytes) -> Outcome {
        let (transport, tunnel) = (&self.transport, &self.tunnel);
        let channel = self.channel.get_or_insert_with(|| match tunnel {
            Some(tunnel) => transport.connect_with_connector_lazy(tunnel.clone()),
            None => transport.connect_lazy(),
        });
        let mut client = Grpc::new(channel.clone()).max_decoding_message_size(MAX_RESPONSE);
        if self.compression == Compression::Gzip {
            client = client.send_compressed(CompressionEncoding::Gzip);
        }
        let mut request = Request::new(request);
        *request.metadata_mut() = self.metadata.clone();
        let call = async {
            if let Err(error) = client.ready().await {
                return Outcome::Retryable {
                    after: None,
                    error: self.endpoint.unreachable(&error) + &self.proxy_hint,
                };
            }
            match client.unary(request, export_path(self.signal), Raw).await {
                Ok(response) => delivered(response.get_ref()),
                Err(status) => failed(&status, &self.endpoint, self.signal),
            }
        };
        let outcome = tokio::time::timeout(self.timeout, call).await;
        outcome.unwrap_or_else(|_| {
            // The connection may be one that died in silence; the next attempt makes a new one.
            self.channel = None;
            Outcome::Retryable {
                after: None,
                error: self.endpoint.timed_out(self.timeout),
            }
        })
    }
}

impl Exporter for OtlpGrpcExporter {
    fn name(&self) -> &str {
        &self.name
    }

    fn export(&mut self, request: Bytes, _items: usize) -> BoxFuture<'_, Outcome> {
        Box::pin(self.attempt(request))
    }
}

/// What a failed call means (OTLP specification, "OTLP/gRPC Response", table of retryable codes).
fn failed(status: &Status, endpoint: &Endpoint, signal: Signal) -> Outcome {
    // The collector did not say this: the connection failed under the call.
    if let Some(source) = status.source() {
        return Outcome::Retryable {
            after: None,
            error: endpoint.unreachable(source),
        };
    }
    if status.code() == Code::OutOfRange && status.message().ends_with(&own_limit()) {
        // Who has that much to say has taken the request; sending it again would double it.
        return Outcome::DELIVERED;
    }
    let error = describe(status, endpoint, signal);
    let after = retry_info(status.details());
    match status.code() {
        // tonic's servers refuse a long message with OutOfRange, which would be retried for nothing.
        Code::ResourceExhausted | Code::OutOfRange
            if after.is_none() && is_about_size(status.message()) =>
        {
            Outcome::TooLarge { error }
        }
        // A proxy's HTTP 413 has no code of its own.
        Code::Unknown if is_about_size(status.message()) => Outcome::TooLarge { error },
        // A proxy that gives up resets the stream, of which hyper makes a good end; tonic then misses the status. The
        // collector's own `Unknown` is not to be sent again.
        Code::Unknown if status.message().contains(NO_STATUS) => {
            Outcome::Retryable { after, error }
        }
        Code::ResourceExhausted if after.is_none() => Outcome::Rejected { error },
        Code::Unimplemented if signal.when_unsupported().is_some() => {
            Outcome::Unsupported { error }
        }
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Outcome::Retryable { after, error },
        _ => Outcome::Rejected { error },
    }
}

/// Part of tonic's error about an answer that ended without a `grpc-status`.
const NO_STATUS: &str = "missing grpc-status trailer";

/// How tonic's error ends about an answer that is longer than [`MAX_RESPONSE`].
fn own_limit() -> String {
    format!("the limit is: {MAX_RESPONSE} bytes")
}

/// `PermissionDenied from http://host:4317: no such tenant; check the credentials in ...`
fn describe(status: &Status, endpoint: &Endpoint, signal: Signal) -> String {
    let mut text = format!("{:?} from {}", status.code(), endpoint.shown());
    if !status.message().is_empty() {
        text = format!("{text}: {}", excerpt(status.message()));
    }
    match status.code() {
        Code::Unauthenticated | Code::PermissionDenied => {
            text.push_str("; check the credentials in OTEL_EXPORTER_OTLP_HEADERS");
        }
        Code::Unimplemented => {
            text.push_str("; ");
            let advice = signal.when_unsupported();
            text.push_str(advice.unwrap_or("is this an OTLP receiver that takes traces?"));
        }
        _ => {}
    }
    text
}

/// Bytes in, bytes out.
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, request: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(request.len());
        out.put(request);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, response: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(response.copy_to_bytes(response.remaining())))
    }
}

#[cfg(test)]
mod tests;
