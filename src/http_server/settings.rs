//! Everything that one middleware is told.

use super::excluded_urls::ExcludedUrls;
use super::header_capture::{Direction, HeaderCapture};
use super::opt_in::OptIn;
use super::outcome::ErrorOutcomes;
use super::trace_response::TraceResponseHeaders;
use super::trusted_proxies::TrustedProxies;

/// The settings of HTTP server instrumentation, checked. Shared by all requests, from any thread.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an option of its own"
)]
pub struct HttpServerSettings {
    /// Which requests are not traced.
    pub excluded_urls: ExcludedUrls,
    /// Which request headers become attributes.
    pub request_headers: HeaderCapture,
    /// Which response headers become attributes.
    pub response_headers: HeaderCapture,
    /// The values that `http.request.method` may take, in place of the standard ones; `None`: the standard ones.
    pub known_methods: Option<Vec<String>>,
    /// Whose word on the client is taken.
    pub trusted_proxies: TrustedProxies,
    /// Whether anybody may send requests: the caller's context becomes a link instead of the parent, its baggage is dropped.
    pub public_endpoint: bool,
    /// Which headers tell the client its trace.
    pub trace_response_headers: TraceResponseHeaders,
    /// What makes the status Error.
    pub error_outcomes: ErrorOutcomes,
    /// What else is recorded.
    pub opt_in: OptIn,
    /// Whether the span says where the time went: to the first byte, awaiting `receive`, awaiting `send`.
    pub phases: bool,
    /// Whether each message of a websocket is a span of its own.
    pub websocket_messages: bool,
    /// Whether the task factory is installed on every event loop that serves a request.
    pub task_spans: bool,
}

impl Default for HttpServerSettings {
    /// Nothing excluded, captured, trusted or opted in to; a 5xx and an exception are errors.
    fn default() -> Self {
        Self {
            excluded_urls: ExcludedUrls::default(),
            request_headers: HeaderCapture::none(Direction::Request),
            response_headers: HeaderCapture::none(Direction::Response),
            known_methods: None,
            trusted_proxies: TrustedProxies::default(),
            public_endpoint: false,
            trace_response_headers: TraceResponseHeaders::default(),
            error_outcomes: ErrorOutcomes::default(),
            opt_in: OptIn::default(),
            phases: false,
            websocket_messages: false,
            task_spans: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_shared_between_threads() {
        fn shared<T: Send + Sync>(_: &T) {}
        shared(&HttpServerSettings::default());
    }

    #[test]
    fn nothing_that_costs_is_on_by_default() {
        let settings = HttpServerSettings::default();
        assert!(settings.excluded_urls.is_empty() && settings.trusted_proxies.is_empty());
        assert!(settings.request_headers.is_empty() && settings.response_headers.is_empty());
        assert!(settings.trace_response_headers.is_empty() && settings.opt_in.is_empty());
        assert!(!settings.public_endpoint && !settings.phases);
        assert!(!settings.websocket_messages && !settings.task_spans);
    }
}
