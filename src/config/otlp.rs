//! How to reach an OTLP receiver.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::signal::Signal;
use super::source::{Problem, Variables, argument, without_password};
use super::{Arguments, endpoint, headers};
use crate::error::Error;

/// The signal's own variable, then the general one.
macro_rules! variables_of {
    ($signal:expr, $setting:literal) => {
        match $signal {
            Signal::Traces => &[
                concat!("OTEL_EXPORTER_OTLP_TRACES_", $setting),
                concat!("OTEL_EXPORTER_OTLP_", $setting),
            ],
            Signal::Metrics => &[
                concat!("OTEL_EXPORTER_OTLP_METRICS_", $setting),
                concat!("OTEL_EXPORTER_OTLP_", $setting),
            ],
            Signal::Logs => &[
                concat!("OTEL_EXPORTER_OTLP_LOGS_", $setting),
                concat!("OTEL_EXPORTER_OTLP_", $setting),
            ],
        }
    };
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Settings of one OTLP exporter, checked.
#[derive(Clone, PartialEq, Eq)]
pub struct OtlpConfig {
    /// What is sent.
    pub signal: Signal,
    /// With HTTP the URL to post to; with gRPC `scheme://host:port`; with either `unix:///path` of a socket.
    pub endpoint: String,
    /// With HTTP what a request is written in.
    pub encoding: Encoding,
    /// Sent with every request. Names are lower-case; names and values are legal in HTTP.
    pub headers: Vec<(String, String)>,
    /// How long one request may take.
    pub timeout: Duration,
    /// How requests are compressed.
    pub compression: Compression,
    /// Whether the endpoint is plain text: its scheme is not `https`.
    pub insecure: bool,
    /// PEM file of the authorities to trust; `None`: those of the system.
    pub certificate: Option<PathBuf>,
    /// PEM file of our own certificate. Set if and only if `client_key` is.
    pub client_certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub client_key: Option<PathBuf>,
}

impl fmt::Debug for OtlpConfig {
    /// Without secrets: header values hold API keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("OtlpConfig")
            .field("signal", &self.signal)
            .field("endpoint", &without_password("endpoint", &self.endpoint))
            .field("encoding", &self.encoding)
            .field("headers", &names)
            .field("timeout", &self.timeout)
            .field("compression", &self.compression)
            .field("insecure", &self.insecure)
            .field("certificate", &self.certificate)
            .field("client_certificate", &self.client_certificate)
            .field("client_key", &self.client_key)
            .finish()
    }
}

/// How a request body is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// `none`
    #[default]
    None,
    /// `gzip`
    Gzip,
}

/// What a request is written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Encoding {
    /// `http/protobuf`, and always with gRPC
    #[default]
    Protobuf,
    /// `http/json`
    Json,
}

/// The two transports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    Http,
    Grpc,
}

/// What the settings say about OTLP, whether or not it is used.
pub(super) struct Otlp {
    pub(super) protocol: Protocol,
    pub(super) config: OtlpConfig,
    /// Whether an endpoint was named, by argument or variable.
    pub(super) has_endpoint: bool,
}

/// Reads and checks the OTLP settings of a signal. `is_chosen`: an exporter setting names OTLP, so that it needs no endpoint.
pub(super) fn load(
    arguments: &Arguments,
    variables: &mut Variables<'_>,
    signal: Signal,
    is_chosen: bool,
) -> Result<Otlp, Error> {
    let (protocol, encoding) = variables
        .text(
            ("protocol", arguments.protocol.as_deref()),
            variables_of!(signal, "PROTOCOL"),
            parse_protocol,
            "http/protobuf",
        )?
        .unwrap_or((Protocol::Http, Encoding::Protobuf));
    let insecure = variables.switch(arguments.insecure, variables_of!(signal, "INSECURE"));
    let default_endpoint = endpoint::default(protocol, signal);
    let without_one = if is_chosen {
        default_endpoint
    } else {
        "no endpoint"
    };
    let transport = (protocol, insecure);
    let endpoint = endpoint::load(arguments, variables, signal, transport, without_one)?;
    let has_endpoint = endpoint.is_some();
    let endpoint = endpoint.unwrap_or_else(|| default_endpoint.to_owned());

    let timeout = variables.timeout(
        ("timeout_ms", arguments.timeout_ms),
        variables_of!(signal, "TIMEOUT"),
        DEFAULT_TIMEOUT,
    )?;
    let compression = variables
        .text(
            ("compression", arguments.compression.as_deref()),
            variables_of!(signal, "COMPRESSION"),
            parse_compression,
            "none",
        )?
        .unwrap_or_default();
    let certificate = file(
        variables,
        ("certificate", arguments.certificate.as_ref()),
        variables_of!(signal, "CERTIFICATE"),
        "the authorities of the system",
    )?;
    let (client_certificate, client_key) = client_identity(arguments, variables, signal)?;
    Ok(Otlp {
        protocol,
        config: OtlpConfig {
            signal,
            insecure: !endpoint.starts_with("https://"),
            endpoint,
            encoding,
            headers: headers::load(arguments, variables_of!(signal, "HEADERS"), variables)?,
            timeout,
            compression,
            certificate,
            client_certificate,
            client_key,
        },
        has_endpoint,
    })
}

fn parse_protocol(text: &str) -> Result<(Protocol, Encoding), Problem> {
    match text.to_ascii_lowercase().as_str() {
        "http/protobuf" => Ok((Protocol::Http, Encoding::Protobuf)),
        "http/json" => Ok((Protocol::Http, Encoding::Json)),
        "grpc" => Ok((Protocol::Grpc, Encoding::Protobuf)),
        _ => Err("not http/protobuf, http/json or grpc".into()),
    }
}

fn parse_compression(text: &str) -> Result<Compression, Problem> {
    match text.to_ascii_lowercase().as_str() {
        "none" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip),
        _ => Err("not gzip or none".into()),
    }
}

/// A file that must exist; its contents are the exporter's to check.
fn file(
    variables: &mut Variables<'_>,
    (name, path): (&'static str, Option<&PathBuf>),
    names: &[&'static str],
    default: &str,
) -> Result<Option<PathBuf>, Error> {
    let check = |path: PathBuf| {
        if path.is_file() {
            Ok(path)
        } else {
            Err("not a file".into())
        }
    };
    Ok(match argument(name, path, |path| check(path.clone()))? {
        Some(path) => Some(path),
        None => variables.read(names, |text| check(text.into()), default),
    })
}

/// The client's certificate and key: both or neither.
fn client_identity(
    arguments: &Arguments,
    variables: &mut Variables<'_>,
    signal: Signal,
) -> Result<(Option<PathBuf>, Option<PathBuf>), Error> {
    let certificate = file(
        variables,
        ("client_certificate", arguments.client_certificate.as_ref()),
        variables_of!(signal, "CLIENT_CERTIFICATE"),
        "no client certificate",
    )?;
    let key = file(
        variables,
        ("client_key", arguments.client_key.as_ref()),
        variables_of!(signal, "CLIENT_KEY"),
        "no client key",
    )?;
    let (present, missing, is_argument) = match (&certificate, &key) {
        (Some(_), None) => (
            "client_certificate",
            "client_key",
            arguments.client_certificate.is_some(),
        ),
        (None, Some(_)) => (
            "client_key",
            "client_certificate",
            arguments.client_key.is_some(),
        ),
        _ => return Ok((certificate, key)),
    };
    if is_argument {
        return Err(Error::configuration(
            present,
            format!("of no use without {missing}"),
        ));
    }
    let variable = format!("OTEL_EXPORTER_OTLP_{}", present.to_uppercase());
    variables.warn(
        &variable,
        format_args!("of no use without a {missing}"),
        "neither",
    );
    Ok((None, None))
}
