//! Puts the spans of a Rust extension module into the trace of the Python service that calls it.
//!
//! Every extension module has a `tracing` world of its own, which nobody else sees. This crate finds [rvh_trace] in the
//! running interpreter and hands over to it what happens in Rust, so that one request is one trace. Two lines in the
//! module's initialisation do it:
//!
//! ```no_run
//! # #[cfg(feature = "tracing")] {
//! use tracing_subscriber::layer::SubscriberExt;
//!
//! let _ = rvh_trace_client::connect();
//! # let _ =
//! tracing_subscriber::registry().with(rvh_trace_client::layer());
//! # }
//! ```
//!
//! [rvh_trace]: https://pypi.org/project/rvh_trace/

pub mod abi;
mod attribute;
mod context;
mod headers;
mod host;
#[cfg(feature = "tracing")]
mod layer;
mod log;
#[cfg(feature = "opentelemetry")]
mod opentelemetry;
#[cfg(feature = "pyo3")]
pub mod python;
mod span;
pub mod task;

pub use attribute::{Attribute, Value};
pub use context::{Attached, Context, PythonScope};
pub use host::{ConnectError, connect, is_connected};
#[cfg(feature = "tracing")]
pub use layer::{LayerOptions, layer};
pub use log::{Severity, log};
pub use span::{Span, SpanBuilder, SpanKind, Status};
