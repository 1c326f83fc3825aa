//! Where each setting comes from, and what is said of a wrong one.

use super::*;
use crate::http_server::TrustedProxies;
use proptest::prelude::*;

const KNOWN_METHODS: &str = "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS";

#[expect(clippy::unnecessary_wraps, reason = "what an argument takes")]
fn strings(members: &[&str]) -> Option<Vec<String>> {
    Some(members.iter().map(|&member| member.to_owned()).collect())
}

/// The settings and the warnings, or one line for an argument that is wrong.
fn load_with(
    arguments: &HttpServerArguments,
    environment: &[(&str, &str)],
) -> Result<(HttpServerSettings, Vec<String>), String> {
    let env = |name: &str| {
        let found = environment.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    load(arguments, &env).map_err(|error| error.to_string())
}

/// The settings, when nothing may be wrong.
fn loaded(arguments: &HttpServerArguments, environment: &[(&str, &str)]) -> HttpServerSettings {
    let loaded = load_with(arguments, environment);
    let (settings, warnings) =
        loaded.unwrap_or_else(|error| (HttpServerSettings::default(), vec![error]));
    assert_eq!(warnings, [""; 0], "{environment:?}");
    settings
}

fn arguments(set: impl FnOnce(&mut HttpServerArguments)) -> HttpServerArguments {
    let mut arguments = HttpServerArguments::default();
    set(&mut arguments);
    arguments
}

fn proxies(list: &[&str]) -> TrustedProxies {
    list.iter().filter_map(|proxy| proxy.parse().ok()).collect()
}

/// What a setting shows: `true` once it is set to what [`every_argument`] and [`EVERY_VARIABLE`] say.
fn effects(settings: &HttpServerSettings) -> [bool; 13] {
    [
        settings.excluded_urls.excludes("http://shop/health"),
        settings.request_headers.look_up(b"X-Request-Id").is_some(),
        settings.response_headers.look_up(b"etag").is_some(),
        settings.known_methods.as_deref() == Some(&["PURGE".to_owned()]),
        settings.trusted_proxies == proxies(&["10.0.0.0/8", "unix"]),
        settings.public_endpoint,
        settings
            .trace_response_headers
            .has(TraceResponseHeaders::SERVER_TIMING),
        settings.error_outcomes == ErrorOutcomes::CLIENT_ERROR.union(ErrorOutcomes::CANCELLED),
        settings.opt_in == OptIn::CLIENT_PORT.union(OptIn::ACTIVE_REQUESTS_METRIC),
        settings.phases,
        settings.websocket_messages,
        !settings.flush_at_shutdown,
        settings.task_spans,
    ]
}

fn every_argument() -> HttpServerArguments {
    HttpServerArguments {
        framework: None,
        excluded_urls: strings(&["metrics", "/health$"]),
        capture_request_headers: strings(&["x-.*"]),
        capture_response_headers: strings(&["ETag"]),
        sanitize_headers: strings(&["request"]),
        known_methods: strings(&["PURGE"]),
        trusted_proxies: strings(&["10.0.0.0/8", "unix"]),
        public_endpoint: Some(true),
        trace_response_headers: strings(&["Server-Timing"]),
        error_outcomes: strings(&["4xx", "cancelled"]),
        opt_in: strings(&["client.port", "http.server.active_requests"]),
        phases: Some(true),
        websocket_messages: Some(true),
        flush_at_shutdown: Some(false),
        task_spans: Some(true),
    }
}

const EVERY_VARIABLE: [(&str, &str); 13] = [
    (EXCLUDED_URLS, "metrics, /health$"),
    (REQUEST_HEADERS, "x-.*"),
    (RESPONSE_HEADERS, "ETag"),
    (KNOWN_METHODS, "PURGE"),
    ("RVH_TRACE_TRUSTED_PROXIES", "10.0.0.0/8,unix"),
    ("RVH_TRACE_PUBLIC_ENDPOINT", "TRUE"),
    ("RVH_TRACE_RESPONSE_HEADERS", "Server-Timing"),
    ("RVH_TRACE_ERROR_OUTCOMES", "4xx,Cancelled"),
    (
        "RVH_TRACE_OPT_IN",
        "client.port,http.server.active_requests",
    ),
    ("RVH_TRACE_PHASES", "true"),
    ("RVH_TRACE_WEBSOCKET_MESSAGES", "true"),
    ("RVH_TRACE_FLUSH_AT_SHUTDOWN", "False"),
    ("RVH_TRACE_TASK_SPANS", "true"),
];

#[test]
fn every_setting_has_an_argument_and_a_variable() {
    let nothing = HttpServerArguments::default();
    assert_eq!(effects(&loaded(&nothing, &[])), [false; 13]);
    assert_eq!(effects(&loaded(&every_argument(), &[])), [true; 13]);
    for (place, variable) in EVERY_VARIABLE.into_iter().enumerate() {
        let mut expected = [false; 13];
        expected[place] = true;
        assert_eq!(
            effects(&loaded(&nothing, &[variable])),
            expected,
            "{variable:?}"
        );
        let empty = [(variable.0, " ")];
        assert_eq!(
            effects(&loaded(&nothing, &empty)),
            [false; 13],
            "{variable:?}"
        );
    }
}

#[test]
fn an_argument_wins_even_over_a_variable_that_is_wrong() {
    let wrong = EVERY_VARIABLE.map(|(name, _)| (name, "("));
    assert_eq!(effects(&loaded(&every_argument(), &wrong)), [true; 13]);
    let off = arguments(|arguments| {
        arguments.excluded_urls = strings(&[]);
        arguments.capture_request_headers = strings(&["none"]);
        arguments.public_endpoint = Some(false);
        arguments.error_outcomes = strings(&[]);
    });
    let settings = loaded(&off, &EVERY_VARIABLE);
    assert!(settings.excluded_urls.is_empty() && settings.request_headers.is_empty());
    assert!(!settings.public_endpoint && settings.error_outcomes.is_empty());
}

/// One wrong argument a line, with what the error must name and say.
#[test]
fn a_wrong_argument_is_an_error_that_says_what_would_be_right() {
    const PATTERN: &str = "not a regular expression without look-around and backreferences: ";
    let outcomes = "not 4xx, 5xx, exception, disconnected, cancelled, or none alone";
    let cases = [
        (
            arguments(|to| to.excluded_urls = strings(&["health", "("])),
            format!("excluded_urls[1]: \"(\" is {PATTERN}"),
        ),
        (
            arguments(|to| to.excluded_urls = strings(&[""])),
            "excluded_urls[0]: \"\" is not a regular expression; to match everything, use .*".into(),
        ),
        (
            arguments(|to| to.capture_request_headers = strings(&["x-(?!secret).*"])),
            format!("capture_request_headers[0]: \"x-(?!secret).*\" is {PATTERN}"),
        ),
        (
            arguments(|to| to.capture_response_headers = strings(&["a", "b", "*"])),
            format!("capture_response_headers[2]: \"*\" is {PATTERN}"),
        ),
        (
            arguments(|to| to.sanitize_headers = strings(&["[a"])),
            format!("sanitize_headers[0]: \"[a\" is {PATTERN}"),
        ),
        (
            arguments(|to| to.known_methods = strings(&["B AD"])),
            "known_methods: \"B AD\" is not an HTTP method".into(),
        ),
        (
            arguments(|to| to.trusted_proxies = strings(&["proxy"])),
            "trusted_proxies: \"proxy\" is not an IP address, a network such as 10.0.0.0/8, unix or *".into(),
        ),
        (
            arguments(|to| to.trace_response_headers = strings(&["traceparent"])),
            "trace_response_headers: \"traceparent\" is not server-timing, traceresponse, or none alone".into(),
        ),
        (
            arguments(|to| to.error_outcomes = strings(&["5xx", "none"])),
            format!("error_outcomes: \"none\" is {outcomes}"),
        ),
        (
            arguments(|to| to.opt_in = strings(&["client.address"])),
            "opt_in: \"client.address\" is not client.port, user_agent.synthetic.type, http.request.body.size, \
             http.response.body.size, http.server.active_requests, http.server.request.body.size, \
             http.server.response.body.size, server.address, or none alone"
                .into(),
        ),
    ];
    for (arguments, expected) in cases {
        let error = load_with(&arguments, &[]).err().unwrap_or_default();
        assert!(error.starts_with(&expected), "{error}");
    }
}

/// One wrong variable a line, with what is used instead.
#[test]
fn a_wrong_variable_is_one_warning_with_what_is_used_instead() {
    for (name, value, instead) in [
        (EXCLUDED_URLS, "(", "none of it"),
        (EXCLUDED_URLS, "a{2,health", "health"),
        (REQUEST_HEADERS, "*", "none of it"),
        (RESPONSE_HEADERS, "(,etag,[", "etag"),
        (SANITIZE_FIELDS, "(", "none of it"),
        (KNOWN_METHODS, "B AD", "the standard methods"),
        ("RVH_TRACE_TRUSTED_PROXIES", "proxy", "no proxy"),
        ("RVH_TRACE_TRUSTED_PROXIES", "10.0.0.1/8,::1", "::1"),
        ("RVH_TRACE_PUBLIC_ENDPOINT", "1", "false"),
        ("RVH_TRACE_RESPONSE_HEADERS", "x", "none of them"),
        ("RVH_TRACE_ERROR_OUTCOMES", "3xx", "5xx,exception"),
        ("RVH_TRACE_OPT_IN", "all", "none of them"),
        ("RVH_TRACE_PHASES", "on", "false"),
        ("RVH_TRACE_WEBSOCKET_MESSAGES", "yes", "false"),
    ] {
        let loaded = load_with(&HttpServerArguments::default(), &[(name, value)]);
        let warnings = loaded.map(|(_, warnings)| warnings).unwrap_or_default();
        assert_eq!(warnings.len(), 1, "{name}");
        assert!(
            warnings[0].starts_with(&format!("{name}: ")),
            "{warnings:?}"
        );
        assert!(
            warnings[0].ends_with(&format!("; using {instead}")),
            "{warnings:?}"
        );
    }
}

#[test]
fn the_variable_of_the_framework_comes_first() {
    let both = [
        ("OTEL_PYTHON_DJANGO_EXCLUDED_URLS", "own"),
        (EXCLUDED_URLS, "general"),
    ];
    for (framework, environment, own, general) in [
        (Some("django"), &both[..], true, false),
        (Some("fastapi"), &both, false, true),
        (Some("litestar"), &both, false, true),
        (None, &both, false, true),
        (Some("django"), &both[1..], false, true),
        (
            Some("django"),
            &[("OTEL_PYTHON_DJANGO_EXCLUDED_URLS", "none"), both[1]],
            false,
            false,
        ),
        (
            Some("fastapi"),
            &[("OTEL_PYTHON_FASTAPI_EXCLUDED_URLS", "own"), both[1]],
            true,
            false,
        ),
        (
            Some("starlette"),
            &[("OTEL_PYTHON_STARLETTE_EXCLUDED_URLS", "own"), both[1]],
            true,
            false,
        ),
    ] {
        let arguments = arguments(|to| to.framework = framework.map(str::to_owned));
        let urls = loaded(&arguments, environment).excluded_urls;
        assert_eq!(
            (urls.excludes("own"), urls.excludes("general")),
            (own, general),
            "{framework:?}"
        );
    }
}

#[test]
fn credentials_are_shown_only_if_the_list_says_so() {
    const EVERY_HEADER: (&str, &str) = (REQUEST_HEADERS, ".*");
    for (argument, variable, authorization, custom) in [
        (None, "", true, false),
        (None, "custom", false, true),
        (None, "none", false, false),
        // Damaged lists hide what they can still hide, and the well-known names.
        (None, "custom,(", true, true),
        (None, "(", true, false),
        (strings(&["custom"]), "(", false, true),
        (strings(&[]), "custom", false, false),
    ] {
        let arguments = arguments(|to| to.sanitize_headers = argument);
        let environment = [EVERY_HEADER, (SANITIZE_FIELDS, variable)];
        let headers =
            load_with(&arguments, &environment).map(|(settings, _)| settings.request_headers);
        let is_sanitised = |name: &str| {
            let headers = headers.as_ref().ok();
            headers
                .and_then(|headers| headers.look_up(name.as_bytes()))
                .map(|header| header.is_sanitised)
        };
        let found = (is_sanitised("authorization"), is_sanitised("x-custom"));
        assert_eq!(found, (Some(authorization), Some(custom)), "{variable}");
    }
}

proptest! {
    #[test]
    fn any_environment_loads(value: String, pattern in "[a-c,.*+?(){}|\\[\\]]{0,12}") {
        for value in [&value, &pattern] {
            let env = |_: &str| Some(value.clone());
            prop_assert!(load(&HttpServerArguments::default(), &env).is_ok());
        }
    }
}
