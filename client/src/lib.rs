//! Puts the spans of a Rust extension module into the trace of the Python service that calls it.
//!
//! Every extension module has a `tracing` world of its own, which nobody else sees. This crate finds rvh_trace in the
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
//! Where rvh_trace is not installed nothing happens: callsites are off, at the price of a look at one flag. The
//! extension needs no version in common with rvh_trace, neither of Rust nor of a crate: what crosses is a table of C
//! functions, see [`abi`].
//!
//! # What is the parent
//!
//! [`Context::current`]: what was attached last to the thread, be it by [`Context::attach`] or by entering a `tracing`
//! span; else the current span of Python, if the thread holds the GIL. A function that releases the GIL opens its span
//! before, or attaches what is current:
//!
//! ```ignore
//! #[pyfunction]
//! #[tracing::instrument]                    // opened while Python can be asked
//! fn compress(py: Python<'_>, level: u32) {
//!     py.detach(|| work(level));            // spans in here are its children
//! }
//! ```
//!
//! For another thread, take the context along:
//!
//! ```
//! use rvh_trace_client::Context;
//!
//! let context = Context::current();
//! std::thread::spawn(move || {
//!     let _current = context.attach();
//!     // spans in here are children of what was current there
//! });
//! ```
//!
//! Around a call of Python code, [`Context::enter_python`] makes the innermost span of Rust the current one of Python.
//!
//! # Records of the `log` crate
//!
//! They become events by way of `tracing-log`: call `tracing_log::LogTracer::init()` in the extension. With
//! `LayerOptions::log` events go to Python's `logging`.
//!
//! # Without `tracing`
//!
//! [`Span::builder`] starts spans by hand, and [`log()`] writes records; with `default-features = false` nothing else
//! is built.
//!
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `tracing` (default) | the layer |
//! | `http` | `Context::inject` into and `Context::extract` from `http::HeaderMap` |
//! | `opentelemetry` | `Context::to_opentelemetry` |
//! | `pyo3` | Rust futures and streams that Python awaits, and the reverse |
//!
//! # Processes
//!
//! A forked child starts spans of its own; those that were open at the fork end in the parent. Threads may outlive the
//! interpreter: what they do then is counted or dropped, never waited for.

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
