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

/// Whether a URL is plain text with a plain host, which needs no tables of Unicode: the crate `idna` is built without them, and takes
/// others for granted to be there.
pub(crate) fn is_plain_url(text: &str) -> bool {
    let text = text.trim();
    // Of no host, but of a path.
    if text.starts_with("unix:") {
        return true;
    }
    let after_scheme = text.split_once(':').map_or(text, |(_, rest)| rest);
    let authority = after_scheme
        .trim_start_matches(['/', '\\'])
        .split(['/', '\\', '?', '#'])
        .next()
        .unwrap_or_default();
    // A host may be percent-encoded, and be anything then.
    let host = authority.rsplit('@').next().unwrap_or_default();
    text.bytes()
        .all(|byte| byte.is_ascii_graphic() || byte == b' ')
        && !host.contains('%')
}

/// What is wrong with a URL that is not [plain](is_plain_url).
const NOT_PLAIN: &str =
    "not ASCII: write the host in Punycode (xn--...), and percent-encode the rest";

fn parse_http_endpoint(text: &str) -> Result<Url, Problem> {
    if !is_plain_url(text) {
        return Err(NOT_PLAIN.into());
    }
    parse_url(text).ok_or_else(|| {
        "not an http or https URL, such as http://collector:4318, or unix:///path of a socket"
            .into()
    })
}

fn parse_grpc_endpoint(text: &str, insecure: bool) -> Result<Url, Problem> {
    // `host:port` has no scheme before its colon.
    if !is_plain_url(text) || !is_plain_url(&format!("http://{text}")) {
        return Err(NOT_PLAIN.into());
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_not_ascii_is_refused_in_whatever_dress() {
        for text in [
            "http://b\u{fc}cher.example:4318",
            "http://A\u{10cfa}A",
            "http://b%C3%BCcher.example",
            "http:b\u{fc}cher",
            "http:\\\\b%C3%BCcher",
            "HTTP://user@b%C3%BCcher",
            "http://a\t.example",
        ] {
            assert!(parse_http_endpoint(text).is_err(), "{text}");
            assert!(parse_grpc_endpoint(text, false).is_err(), "{text}");
        }
        assert!(parse_grpc_endpoint("b%C3%BCcher:4317", true).is_err());
        for text in [
            "http://xn--bcher-kva.example:4318/caf%C3%A9",
            "http://us%65r:pw@collector",
            " http://collector ",
            "unix:///tmp/caf\u{e9}.sock",
        ] {
            assert!(parse_http_endpoint(text).is_ok(), "{text}");
        }
        assert!(parse_grpc_endpoint("collector:4317", true).is_ok());
    }
}
