//! The rules of an HTTP server span that need no server, and the settings that bend them (HTTP semantic conventions 1.44).
//!
//! Everything here is decided from bytes and texts, on any thread, without Python and without an error: what a client sends
//! is left out if it makes no sense. What is configured is checked once, by [`crate::config::http_server`]; a setting that
//! is not in use costs a request one comparison.
//!
//! | module | what it decides |
//! |---|---|
//! | [`method`], [`host`], [`query`], [`header_value`] | what of a request a span shows |
//! | [`trusted_proxies`], [`forwarded`] | who the client was, and what it asked for, behind proxies |
//! | [`excluded_urls`], [`header_capture`], [`opt_in`], [`synthetic`] | what is recorded only if asked for, or not at all |
//! | [`outcome`] | what counts as an error |
//! | [`trace_response`] | what a response says of its trace |
//! | [`settings`], [`pattern`] | all of it, as configured |

pub mod excluded_urls;
pub mod forwarded;
pub mod header_capture;
pub mod header_value;
pub mod host;
pub mod method;
mod named_set;
pub mod opt_in;
pub mod outcome;
pub mod pattern;
pub mod query;
pub mod settings;
pub mod synthetic;
pub mod trace_response;
pub mod trusted_proxies;

pub use excluded_urls::ExcludedUrls;
pub use forwarded::{Forwarded, ForwardedHeaders};
pub use header_capture::{CapturedHeader, CapturedHeaders, Direction, HeaderCapture};
pub use header_value::latin1;
pub use host::split_host;
pub use method::is_known_method;
pub use opt_in::OptIn;
pub use outcome::{ErrorOutcomes, Outcome};
pub use pattern::Pattern;
pub use query::redact_query;
pub use settings::HttpServerSettings;
pub use synthetic::SyntheticType;
pub use trace_response::TraceResponseHeaders;
pub use trusted_proxies::{TrustedProxies, TrustedProxy};
