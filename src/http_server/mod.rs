//! The rules of an HTTP server span that need no server (HTTP semantic conventions 1.44).

pub mod host;
pub mod method;
pub mod query;

pub use host::split_host;
pub use method::is_known_method;
pub use query::redact_query;
