//! The rules of an HTTP server span that need no server (HTTP semantic conventions 1.44).

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
pub use synthetic::SyntheticType;
pub use trace_response::TraceResponseHeaders;
pub use trusted_proxies::{TrustedProxies, TrustedProxy};
