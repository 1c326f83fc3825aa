//! Where a collector is, and what to tell an operator when it cannot be reached.
//!
//! An endpoint may carry credentials, in its user part or in its query: what is logged has neither.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::InvalidUri;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

use super::response::excerpt;
use crate::config::{Signal, is_plain_url};
use crate::error::Error;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";

/// OTLP, "User Agent": names the exporter and its version.
pub(super) const USER_AGENT: &str =
    concat!("OTel-OTLP-Exporter-rvh_trace/", env!("CARGO_PKG_VERSION"));

/// The protocols, as far as advice about one must know the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Protocol {
    Http,
    Grpc,
}

/// A collector's address, checked.
#[derive(Debug)]
pub(super) struct Endpoint {
    url: Url,
    /// What to connect to instead of the URL's host.
    socket: Option<PathBuf>,
    shown: String,
    protocol: Protocol,
}

impl Endpoint {
    /// Checks that `text` is an `http://` or `https://` URL with a host, or `unix://` with the path of a socket.
    pub(super) fn parse(text: &str, protocol: Protocol) -> Result<Self, Error> {
        let wrong = |problem: String| {
            Error::configuration(
                ENDPOINT,
                format!(
                    "{problem}; give a URL like http://localhost:{}",
                    protocol.port()
                ),
            )
        };
        if !is_plain_url(text) {
            return Err(wrong("not ASCII".to_owned()));
        }
        let mut url = Url::parse(text).map_err(|error| wrong(format!("not a URL ({error})")))?;
        let mut socket = None;
        if url.scheme() == "unix" {
            let path = percent_decode_str(url.path()).decode_utf8_lossy();
            socket = Some(PathBuf::from(path.as_ref()));
            url = Url::parse("http://localhost").map_err(|error| wrong(error.to_string()))?;
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(format!(
                "scheme {:?} is not http or https",
                url.scheme()
            )));
        }
        let mut shown = url.clone();
        shown.set_query(None);
        shown.set_fragment(None);
        // These fail only on a URL without a host, which http and https cannot be.
        let _ = shown.set_username("");
        let _ = shown.set_password(None);
        let shown = match &socket {
            Some(_) => text.to_owned(),
            None => shown.as_str().trim_end_matches('/').to_owned(),
        };
        Ok(Self {
            url,
            socket,
            shown,
            protocol,
        })
    }

    /// Where to post to. A socket has no path, so it gets that of the signal.
    pub(super) fn uri(&self, signal: Signal) -> Result<Uri, Error> {
        let mut url = self.url.clone();
        if self.socket.is_some() {
            url.set_path(signal.path());
        }
        url.set_fragment(None);
        // Only a URL without a host has no place for them.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.as_str().parse().map_err(|error: InvalidUri| {
            Error::configuration(ENDPOINT, format!("not a URL for HTTP ({error})"))
        })
    }

    /// User and password of the URL, if it has them.
    pub(super) fn credentials(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let (user, password) = (self.url.username(), self.url.password());
        let decoded = |text: &str| percent_decode_str(text).collect();
        (!user.is_empty() || password.is_some())
            .then(|| (decoded(user), decoded(password.unwrap_or_default())))
    }

    /// The socket to connect to, if it is one.
    pub(super) fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// The URL without credentials, for logs.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    pub(super) fn is_https(&self) -> bool {
        self.url.scheme() == "https"
    }

    /// `scheme://host:port`, which is all that gRPC has use for.
    pub(super) fn origin(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// Whether the collector is on this machine, where no proxy has business.
    pub(super) fn is_loopback(&self) -> bool {
        match self.url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }

    /// The attempt took longer than it may.
    pub(super) fn timed_out(&self, timeout: Duration) -> String {
        format!(
            "no answer from {} within {} ms (OTEL_EXPORTER_OTLP_TIMEOUT){}",
            self.shown,
            timeout.as_millis(),
            self.protocol_hint()
        )
    }

    /// No answer came, for the reason in `error` and its sources: what happened and what to change.
    pub(super) fn unreachable(&self, error: &(dyn StdError + 'static)) -> String {
        let shown = &self.shown;
        let mut texts: Vec<String> = Vec::new();
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(advice) = self.advice(error) {
                return advice;
            }
            let text = error.to_string();
            // Wrappers like to repeat what they wrap.
            if !texts.iter().any(|seen| seen.contains(&text)) {
                texts.push(text);
            }
            next = error.source();
        }
        let chain = excerpt(&texts.join(": "));
        format!("no answer from {shown}: {chain}{}", self.protocol_hint())
    }

    fn advice(&self, error: &(dyn StdError + 'static)) -> Option<String> {
        let shown = &self.shown;
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return self.tls_advice(error);
        }
        if let Some(error) = error.downcast_ref::<io::Error>() {
            if self.socket.is_some() && error.kind() == io::ErrorKind::NotFound {
                return Some(format!(
                    "{shown} does not exist: is a collector listening on this socket? Set {ENDPOINT} to where it is"
                ));
            }
            if error.kind() == io::ErrorKind::ConnectionRefused {
                return Some(format!(
                    "connection refused: is a collector listening on {shown}? Set {ENDPOINT} to where it is"
                ));
            }
            // `source()` of an I/O error skips the very error it wraps.
            return self.advice(error.get_ref()?);
        }
        // The resolver's error type is private to hyper-util; its text has been this since hyper 0.10.
        if error.to_string() == "dns error" {
            let host = self.url.host_str().unwrap_or_default();
            return Some(format!(
                "{host} cannot be resolved: check {ENDPOINT} ({shown})"
            ));
        }
        None
    }

    fn tls_advice(&self, error: &rustls::Error) -> Option<String> {
        use rustls::{AlertDescription as Alert, CertificateError};
        let shown = &self.shown;
        match error {
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => Some(format!(
                "the certificate of {shown} is for another host ({error}): check the host in {ENDPOINT}"
            )),
            rustls::Error::InvalidCertificate(_) => Some(format!(
                "the certificate of {shown} is not trusted ({error}): set OTEL_EXPORTER_OTLP_CERTIFICATE to the \
                 certificate of its authority"
            )),
            rustls::Error::InvalidMessage(_) => Some(format!(
                "{shown} does not speak TLS: if it is meant to be plain, use http:// in {ENDPOINT}"
            )),
            rustls::Error::AlertReceived(
                Alert::CertificateRequired
                | Alert::BadCertificate
                | Alert::UnknownCA
                | Alert::AccessDenied,
            ) => Some(format!(
                "{shown} does not accept our client certificate ({error}): check OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE \
                 and OTEL_EXPORTER_OTLP_CLIENT_KEY"
            )),
            _ => None,
        }
    }

    /// Mixing up the two ports is the commonest mistake, and neither side says so.
    fn protocol_hint(&self) -> &'static str {
        match (self.protocol, self.url.port()) {
            (Protocol::Http, Some(4317)) => {
                "; port 4317 usually speaks gRPC: set OTEL_EXPORTER_OTLP_PROTOCOL=grpc or use port 4318"
            }
            (Protocol::Grpc, Some(4318)) => {
                "; port 4318 usually speaks HTTP: set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf or use port 4317"
            }
            _ => "",
        }
    }
}

impl Protocol {
    const fn port(self) -> u16 {
        match self {
            Self::Http => 4318,
            Self::Grpc => 4317,
        }
    }
}

/// The configured headers. A later header of the same name replaces an earlier one. Values are never repeated in an error:
/// they are usually secret.
pub(super) fn headers(pairs: &[(String, String)]) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::with_capacity(pairs.len());
    for (name, value) in pairs {
        let header = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Error::configuration(HEADERS, format!("{name:?} is not a header name")))?;
        let mut value = HeaderValue::from_str(value).map_err(|_| {
            Error::configuration(
                HEADERS,
                format!("the value of {name:?} has characters that are not printable ASCII"),
            )
        })?;
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    Ok(headers)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn endpoint(text: &str, protocol: Protocol) -> Endpoint {
        Endpoint::parse(text, protocol).unwrap()
    }

    #[test]
    fn a_bad_endpoint_is_named_and_answered_with_a_good_one() {
        for text in ["", "localhost:4318", "ftp://host", "http://", "/v1/traces"] {
            let error = Endpoint::parse(text, Protocol::Http)
                .map(|_| ())
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: "),
                "{text}: {error}"
            );
            assert!(error.ends_with("http://localhost:4318"), "{text}: {error}");
        }
    }

    #[test]
    fn credentials_in_an_endpoint_are_not_shown() {
        let endpoint = endpoint(
            "https://user:secret@host:9/v1/traces?api_key=secret#secret",
            Protocol::Http,
        );
        assert_eq!(endpoint.shown(), "https://host:9/v1/traces");
        assert_eq!(endpoint.origin(), "https://host:9");
    }

    #[test]
    fn loopback_is_known_by_name_and_by_number() {
        let is_loopback = |text| endpoint(text, Protocol::Http).is_loopback();
        for text in [
            "http://localhost:1",
            "http://a.localhost",
            "http://127.9.9.9",
            "http://[::1]:4318",
        ] {
            assert!(is_loopback(text), "{text}");
        }
        for text in [
            "http://collector",
            "http://10.0.0.1",
            "http://localhost.example",
        ] {
            assert!(!is_loopback(text), "{text}");
        }
    }

    #[test]
    fn the_wrong_port_for_the_protocol_is_pointed_out() {
        let error = io::Error::other("connection closed");
        let http = endpoint("http://host:4317", Protocol::Http).unreachable(&error);
        assert!(http.contains("OTEL_EXPORTER_OTLP_PROTOCOL=grpc"), "{http}");
        let grpc = endpoint("http://host:4318", Protocol::Grpc).timed_out(Duration::from_secs(1));
        assert!(
            grpc.contains("OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"),
            "{grpc}"
        );
        let right = endpoint("http://host:4318", Protocol::Http).unreachable(&error);
        assert_eq!(right, "no answer from http://host:4318: connection closed");
    }

    #[test]
    fn a_bad_header_is_named_without_its_value() {
        let pair = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        let error = headers(&pair("x-key", "sec\nret")).unwrap_err().to_string();
        assert!(
            error.contains("\"x-key\"") && !error.contains("sec"),
            "{error}"
        );
        let error = headers(&pair("x key", "secret")).unwrap_err().to_string();
        assert!(
            error.contains("\"x key\"") && !error.contains("secret"),
            "{error}"
        );
        let good = headers(&pair("Authorization", "Bearer x")).unwrap_or_default();
        assert_eq!(
            good.get("authorization").map(HeaderValue::as_bytes),
            Some(&b"Bearer x"[..])
        );
    }
}
