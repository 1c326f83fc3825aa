//! HTTP proxies from the environment: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` by the scheme of the endpoint, and `NO_PROXY`,
//! also in lower case, with the rules of curl as hyper-util has them. gRPC goes through a tunnel (RFC 9110, section 9.3.6,
//! CONNECT), HTTP as `super::connector` says. A collector on this machine is never behind a proxy.

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::endpoint::Endpoint;
use crate::diagnostic::{self, Level};

/// The proxy that is meant for an endpoint, if we can talk to it: its scheme must be one of `schemes`.
pub(super) fn of(endpoint: &Endpoint, proxies: &Matcher, schemes: &[&str]) -> Option<Intercept> {
    if endpoint.is_loopback() || endpoint.socket().is_some() {
        return None;
    }
    let proxy = proxies.intercept(&endpoint.origin().parse().ok()?)?;
    if proxy
        .uri()
        .scheme_str()
        .is_some_and(|scheme| schemes.contains(&scheme))
    {
        return Some(proxy);
    }
    diagnostic::log_once(Level::Warn, "proxy-scheme", || {
        let schemes = schemes.join(":// and ");
        format!(
            "the proxy for {} is not used: this exporter goes through {schemes}:// proxies only. NO_PROXY silences this line",
            endpoint.shown()
        )
    });
    None
}

/// Makes connections to a gRPC endpoint through the proxy that is meant for it; `None` if there is none.
pub(super) fn tunnel(endpoint: &Endpoint, proxies: &Matcher) -> Option<Tunnel<HttpConnector>> {
    let proxy = of(endpoint, proxies, &["http"])?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let tunnel = Tunnel::new(proxy.uri().clone(), connector);
    Some(match proxy.basic_auth() {
        Some(credentials) => tunnel.with_auth(credentials.clone()),
        None => tunnel,
    })
}

/// Which of the variables that name a proxy applies to this endpoint, as advice; empty when none does.
pub(super) fn hint(endpoint: &Endpoint, env: impl Fn(&str) -> Option<String>) -> String {
    let of_scheme = if endpoint.is_https() {
        ["HTTPS_PROXY", "https_proxy"]
    } else {
        ["HTTP_PROXY", "http_proxy"]
    };
    let variables = of_scheme.into_iter().chain(["ALL_PROXY", "all_proxy"]);
    let is_set = |name: &&str| env(name).is_some_and(|value| !value.is_empty());
    match variables.into_iter().find(is_set) {
        Some(name) if !endpoint.is_loopback() => {
            format!(
                "; {name} is set: unless NO_PROXY names the host, it is the proxy that must be reached"
            )
        }
        _ => String::new(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::endpoint::Protocol;
    use super::*;

    fn goes_through(endpoint: &str, proxies: &Matcher) -> bool {
        tunnel(&Endpoint::parse(endpoint, Protocol::Grpc).unwrap(), proxies).is_some()
    }

    #[test]
    fn grpc_goes_through_the_proxy_of_its_scheme_unless_no_proxy_names_the_host() {
        let proxies = Matcher::builder()
            .http("http://proxy:3128")
            .no("internal.example")
            .build();
        for (endpoint, expected) in [
            ("http://collector:4317", true),
            ("https://collector:4317", false),
            ("http://internal.example:4317", false),
            ("http://localhost:4317", false),
            ("http://127.0.0.1:4317", false),
            ("unix:///run/collector.sock", false),
        ] {
            assert_eq!(goes_through(endpoint, &proxies), expected, "{endpoint}");
        }
        let socks = Matcher::builder().all("socks5://proxy:1080").build();
        assert!(!goes_through("http://collector:4317", &socks));
        assert!(!goes_through(
            "http://collector:4317",
            &Matcher::builder().build()
        ));
    }

    #[test]
    fn a_proxy_in_the_environment_is_mentioned_except_for_this_machine() {
        let set = |variable: &'static str| {
            move |name: &str| (name == variable).then(|| "http://proxy:3128".to_owned())
        };
        let hint_for = |url: &str, variable| {
            hint(
                &Endpoint::parse(url, Protocol::Http).unwrap(),
                set(variable),
            )
        };
        assert!(hint_for("http://collector:4318", "HTTP_PROXY").contains("HTTP_PROXY"));
        assert!(hint_for("https://collector:4318", "all_proxy").contains("all_proxy"));
        assert_eq!(hint_for("https://collector:4318", "HTTP_PROXY"), "");
        assert_eq!(hint_for("http://localhost:4318", "HTTP_PROXY"), "");
    }
}
