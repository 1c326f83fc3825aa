//! Where OTLP goes: URLs for HTTP, targets for gRPC.

use url::{Position, Url};

use super::Arguments;
use super::otlp::Protocol;
use super::signal::Signal;
use super::source::{Problem, Variables, argument};
use crate::error::Error;

/// With HTTP a base URL, whatever its path (OTLP exporter specification, "Endpoint URLs for OTLP/HTTP").
const GENERAL_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// The endpoint of a receiver on this host.
pub(super) const fn default(protocol: Protocol, signal: Signal) -> &'static str {
    match (protocol, signal) {
        (Protocol::Http, Signal::Traces) => "http://localhost:4318/v1/traces",
        (Protocol::Http, Signal::Metrics) => "http://localhost:4318/v1/metrics",
        (Protocol::Http, Signal::Logs) => "http://localhost:4318/v1/logs",
        (Protocol::Grpc, _) => "http://localhost:4317",
    }
}

/// The endpoint that an argument or a variable names; `default` is what the caller uses if there is none.
pub(super) fn load(
    arguments: &Arguments,
    variables: &mut Variables<'_>,
    signal: Signal,
    (protocol, insecure): (Protocol, bool),
    default: &str,
) -> Result<Option<String>, Error> {
    let parse = |text: &str| match protocol {
        Protocol::Http => parse_http_endpoint(text),
        Protocol::Grpc => parse_grpc_endpoint(text, insecure),
    };
    // Whoever copies a full URL from a vendor's page into the program means it, and means one signal.
    let is_full = |url: &Url, signal: Signal| {
        protocol == Protocol::Http
            && !is_socket(url)
            && url.path().trim_end_matches('/').ends_with(signal.path())
    };
    let given = argument("endpoint", arguments.endpoint.as_deref(), parse)?
        .filter(|url| !signal.others().any(|other| is_full(url, other)));
    let names = [signal.endpoint_variable(), GENERAL_ENDPOINT];
    let (url, is_base) = match given {
        Some(url) => {
            let is_base = !is_full(&url, signal);
            (url, is_base)
        }
        None => match variables.read_named(&names, parse, default) {
            Some((name, url)) => (url, name == GENERAL_ENDPOINT),
            None => return Ok(None),
        },
    };
    Ok(Some(match protocol {
        // The signal's path is known; the one in the URL is the socket's.
        _ if is_socket(&url) => format!("unix://{}", url.path()),
        Protocol::Http if is_base => with_path(url, signal.path()).into(),
        Protocol::Http => url.into(),
        // gRPC chooses the path itself, and takes credentials from headers only.
        Protocol::Grpc => {
            let authority = &url[Position::BeforeHost..Position::AfterPort];
            format!("{}://{authority}", url.scheme())
        }
    }))
}

fn parse_http_endpoint(text: &str) -> Result<Url, Problem> {
    parse_url(text).ok_or_else(|| {
        "not an http or https URL, such as http://collector:4318, or unix:///path of a socket"
            .into()
    })
}

fn parse_grpc_endpoint(text: &str, insecure: bool) -> Result<Url, Problem> {
    let url = if text.contains("://") || text.starts_with("unix:") {
        parse_url(text)
    } else if text.contains('/') {
        None
    } else {
        // A given scheme wins over the switch (OTLP exporter specification, "Endpoint (OTLP/gRPC)").
        let scheme = if insecure { "http" } else { "https" };
        parse_url(&format!("{scheme}://{text}"))
    };
    url.ok_or_else(|| {
        "not host:port or an http or https URL, such as http://collector:4317, or unix:///path of a socket".into()
    })
}

fn parse_url(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_usable = if is_socket(&url) {
        // As gRPC's naming has it: `unix:///absolute` or `unix:/absolute`.
        cfg!(unix) && url.host_str().is_none_or(str::is_empty) && url.path().len() > 1
    } else {
        matches!(url.scheme(), "http" | "https") && url.has_host()
    };
    is_usable.then_some(url)
}

/// Whether it is the path of a Unix domain socket.
fn is_socket(url: &Url) -> bool {
    url.scheme() == "unix"
}

fn with_path(mut url: Url, path: &str) -> Url {
    let path = format!("{}{path}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}
