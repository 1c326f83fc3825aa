//! The settings of HTTP server instrumentation, from the keyword arguments of `RvhTraceMiddleware` and from variables.
//!
//! | argument | variable |
//! |---|---|
//! | `excluded_urls` | `OTEL_PYTHON_{FASTAPI,STARLETTE,DJANGO}_EXCLUDED_URLS`, else `OTEL_PYTHON_EXCLUDED_URLS` |
//! | `capture_request_headers` | `OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST` |
//! | `capture_response_headers` | `OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE` |
//! | `sanitize_headers` | `OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS` |
//! | `known_methods` | `OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS` |
//! | `trusted_proxies` | `RVH_TRACE_TRUSTED_PROXIES` |
//! | `public_endpoint` | `RVH_TRACE_PUBLIC_ENDPOINT` |
//! | `trace_response_headers` | `RVH_TRACE_RESPONSE_HEADERS` |
//! | `error_outcomes` | `RVH_TRACE_ERROR_OUTCOMES` |
//! | `opt_in` | `RVH_TRACE_OPT_IN` |
//! | `phases` | `RVH_TRACE_PHASES` |
//! | `websocket_messages` | `RVH_TRACE_WEBSOCKET_MESSAGES` |
//! | `flush_at_shutdown` | `RVH_TRACE_FLUSH_AT_SHUTDOWN` |
//! | `task_spans` | `RVH_TRACE_TASK_SPANS` |
//!
//! In a variable a list is separated by commas, so its patterns cannot have one. `none` alone is the empty list.

use super::source::{Problem, Variables, argument, is_none};
use crate::error::Error;
use crate::http_server::header_capture::credential_patterns;
use crate::http_server::{
    Direction, ErrorOutcomes, HeaderCapture, HttpServerSettings, OptIn, Pattern,
    TraceResponseHeaders,
};

const EXCLUDED_URLS: &str = "OTEL_PYTHON_EXCLUDED_URLS";
const REQUEST_HEADERS: &str = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST";
const RESPONSE_HEADERS: &str = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_RESPONSE";
const SANITIZE_FIELDS: &str = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS";

/// What a program says in code. Everything may be left out; the field names are the argument names that errors use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpServerArguments {
    /// `fastapi`, `starlette` or `django`, if it is one: its own variable of excluded URLs comes before the general one.
    pub framework: Option<String>,
    /// Regular expressions; a URL in which one is found is not traced.
    pub excluded_urls: Option<Vec<String>>,
    /// Regular expressions of whole names of request headers to capture, in any case.
    pub capture_request_headers: Option<Vec<String>>,
    /// Regular expressions of whole names of response headers to capture, in any case.
    pub capture_response_headers: Option<Vec<String>>,
    /// Regular expressions; a captured header in whose name one is found, in any case, shows `[REDACTED]`. An empty list shows
    /// everything; without one the well-known
    /// [headers with credentials](crate::http_server::header_capture::CREDENTIAL_HEADERS) are not shown.
    pub sanitize_headers: Option<Vec<String>>,
    /// The methods that `http.request.method` may name, in place of the standard ones.
    pub known_methods: Option<Vec<String>>,
    /// IP addresses, networks, `unix`, or `*`.
    pub trusted_proxies: Option<Vec<String>>,
    /// Whether the caller's context is no more than a link.
    pub public_endpoint: Option<bool>,
    /// `server-timing`, `traceresponse`.
    pub trace_response_headers: Option<Vec<String>>,
    /// `4xx`, `5xx`, `exception`, `disconnected`, `cancelled`.
    pub error_outcomes: Option<Vec<String>>,
    /// Names of opt-in attributes and metrics, as in [`OptIn`].
    pub opt_in: Option<Vec<String>>,
    /// Whether the phases of a request are recorded.
    pub phases: Option<bool>,
    /// Whether each websocket message is a span.
    pub websocket_messages: Option<bool>,
    /// Whether what waits is sent before the server hears that the application has shut down.
    pub flush_at_shutdown: Option<bool>,
    /// Whether tasks have spans, without a call of `install_task_factory`.
    pub task_spans: Option<bool>,
}

/// Reads the settings. `env` is asked for variables by name; the second result is the warnings, one for each variable that
/// was wrong.
///
/// # Errors
///
/// [`Error::Configuration`] for the first argument that is wrong; of a list of patterns with the place of the member,
/// counted from 0: `excluded_urls[2]`.
pub fn load(
    arguments: &HttpServerArguments,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(HttpServerSettings, Vec<String>), Error> {
    let mut variables = Variables::new(env);
    let (request_headers, response_headers) = header_captures(arguments, &mut variables)?;
    let settings = HttpServerSettings {
        excluded_urls: excluded_urls(arguments, &mut variables)?
            .into_iter()
            .collect(),
        request_headers,
        response_headers,
        known_methods: variables.list(
            ("known_methods", arguments.known_methods.as_ref()),
            "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS",
            parse_method,
            "the standard methods",
        )?,
        trusted_proxies: variables
            .list(
                ("trusted_proxies", arguments.trusted_proxies.as_ref()),
                "RVH_TRACE_TRUSTED_PROXIES",
                str::parse,
                "no proxy",
            )?
            .into_iter()
            .flatten()
            .collect(),
        public_endpoint: variables
            .switch(arguments.public_endpoint, &["RVH_TRACE_PUBLIC_ENDPOINT"]),
        trace_response_headers: variables
            .list(
                (
                    "trace_response_headers",
                    arguments.trace_response_headers.as_ref(),
                ),
                "RVH_TRACE_RESPONSE_HEADERS",
                str::parse,
                "none of them",
            )?
            .map_or_else(TraceResponseHeaders::default, FromIterator::from_iter),
        error_outcomes: variables
            .list(
                ("error_outcomes", arguments.error_outcomes.as_ref()),
                "RVH_TRACE_ERROR_OUTCOMES",
                str::parse,
                "5xx,exception",
            )?
            .map_or_else(ErrorOutcomes::default, FromIterator::from_iter),
        opt_in: variables
            .list(
                ("opt_in", arguments.opt_in.as_ref()),
                "RVH_TRACE_OPT_IN",
                str::parse,
                "none of them",
            )?
            .map_or_else(OptIn::default, FromIterator::from_iter),
        phases: variables.switch(arguments.phases, &["RVH_TRACE_PHASES"]),
        websocket_messages: variables.switch(
            arguments.websocket_messages,
            &["RVH_TRACE_WEBSOCKET_MESSAGES"],
        ),
        flush_at_shutdown: variables.switch_or(
            true,
            arguments.flush_at_shutdown,
            &["RVH_TRACE_FLUSH_AT_SHUTDOWN"],
        ),
        task_spans: variables.switch(arguments.task_spans, &["RVH_TRACE_TASK_SPANS"]),
    };
    Ok((settings, variables.warnings))
}

/// Methods are case-sensitive (RFC 9110, section 9.1).
pub(super) fn parse_method(method: &str) -> Result<String, Problem> {
    match http::Method::from_bytes(method.as_bytes()) {
        Ok(_) => Ok(method.to_owned()),
        Err(_) => Err("not an HTTP method".into()),
    }
}

/// A list of patterns. A wrong argument is named with its place: there is more than one, and they are hard to read.
fn patterns(
    (name, members): (&'static str, Option<&Vec<String>>),
    names: &[&'static str],
    parse: fn(&str) -> Result<Pattern, Problem>,
    variables: &mut Variables<'_>,
) -> Result<Option<Vec<Pattern>>, Error> {
    match members.map(Vec::as_slice) {
        Some([only]) if is_none(only) => return Ok(Some(Vec::new())),
        Some(members) => {
            let mut checked = Vec::new();
            for (place, member) in members.iter().enumerate() {
                let name = format!("{name}[{place}]");
                checked.extend(argument(&name, Some(member.as_str()), parse)?);
            }
            return Ok(Some(checked));
        }
        None => {}
    }
    for variable in names {
        let list = variables.list((name, None), variable, parse, "none of it")?;
        if list.is_some() {
            return Ok(list);
        }
    }
    Ok(None)
}

fn excluded_urls(
    arguments: &HttpServerArguments,
    variables: &mut Variables<'_>,
) -> Result<Vec<Pattern>, Error> {
    let names: &[&'static str] = match arguments.framework.as_deref() {
        Some("fastapi") => &["OTEL_PYTHON_FASTAPI_EXCLUDED_URLS", EXCLUDED_URLS],
        Some("starlette") => &["OTEL_PYTHON_STARLETTE_EXCLUDED_URLS", EXCLUDED_URLS],
        Some("django") => &["OTEL_PYTHON_DJANGO_EXCLUDED_URLS", EXCLUDED_URLS],
        _ => &[EXCLUDED_URLS],
    };
    let list = ("excluded_urls", arguments.excluded_urls.as_ref());
    patterns(list, names, Pattern::anywhere, variables).map(Option::unwrap_or_default)
}

fn header_captures(
    arguments: &HttpServerArguments,
    variables: &mut Variables<'_>,
) -> Result<(HeaderCapture, HeaderCapture), Error> {
    let warnings_before = variables.warnings.len();
    let sanitised = patterns(
        ("sanitize_headers", arguments.sanitize_headers.as_ref()),
        &[SANITIZE_FIELDS],
        Pattern::anywhere_in_any_case,
        variables,
    )?;
    let is_damaged = variables.warnings.len() > warnings_before;
    let sanitised = match sanitised {
        Some(patterns) if !is_damaged => patterns,
        // A slip in the list must not show what it was to hide.
        patterns => [patterns.unwrap_or_default(), credential_patterns()].concat(),
    };
    let mut capture = |direction, list, variable| {
        let captured = patterns(list, &[variable], Pattern::whole, variables)?;
        let captured = captured.unwrap_or_default();
        Ok(HeaderCapture::new(direction, &captured, &sanitised))
    };
    Ok((
        capture(
            Direction::Request,
            (
                "capture_request_headers",
                arguments.capture_request_headers.as_ref(),
            ),
            REQUEST_HEADERS,
        )?,
        capture(
            Direction::Response,
            (
                "capture_response_headers",
                arguments.capture_response_headers.as_ref(),
            ),
            RESPONSE_HEADERS,
        )?,
    ))
}

#[cfg(test)]
mod tests;
