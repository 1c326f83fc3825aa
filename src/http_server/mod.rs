//! The rules of an HTTP server span that need no server (HTTP semantic conventions 1.44).

pub mod excluded_urls;
pub mod forwarded;
pub mod header_capture;
pub mod header_value;
pub mod host;
pub mod method;
pub mod pattern;
pub mod query;
pub mod trusted_proxies;

pub use excluded_urls::ExcludedUrls;
pub use forwarded::{Forwarded, ForwardedHeaders};
pub use header_capture::{CapturedHeader, CapturedHeaders, Direction, HeaderCapture};
pub use header_value::latin1;
pub use host::split_host;
pub use method::is_known_method;
pub use pattern::Pattern;
pub use query::redact_query;
pub use trusted_proxies::{TrustedProxies, TrustedProxy};
