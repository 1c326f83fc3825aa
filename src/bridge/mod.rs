//! Rust's own instrumentation, in the same trace: `tracing` spans, `tracing` events, `log` records.
//!
//! Everything takes the road of every other span: a [`Tracer`] of this module implements the traits of the
//! `opentelemetry` crate over [`crate::span::Span`], so what tracing-opentelemetry makes of a `tracing` span is encoded
//! when it ends and appended to the one batch. No thread takes the GIL for it.
//!
//! ```no_run
//! use rvh_trace::bridge;
//! use rvh_trace::config::{Arguments, Config};
//! use tracing_subscriber::layer::SubscriberExt;
//!
//! # fn main() -> Result<(), rvh_trace::error::Error> {
//! let (config, _warnings) = Config::load(&Arguments::default(), &|name| std::env::var(name).ok())?;
//! let tracer = rvh_trace::tracer::Tracer::new(config)?;
//! let subscriber = tracing_subscriber::registry().with(bridge::layer(bridge::Tracer::new(tracer)));
//! # drop(subscriber);
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`tracer`], [`span`], [`context`] | the traits of `opentelemetry`, over ours |
//! | [`layer`] | the `tracing` layer, and the subscriber that [`install`] makes the process's |
//! | [`event`] | `tracing` events and `log` records, on their way to the queue |
//! | [`queue`] | the bounded queue of events that Python's `logging` gets |
//! | [`future`] | a future that is polled inside a span |
//! | [`suppression`] | threads that are never traced: our own |
//!
//! `opentelemetry`'s global tracer provider is left alone: it belongs to the program.

pub mod context;
pub mod event;
pub mod future;
pub mod layer;
pub mod queue;
pub mod span;
pub mod suppression;
pub mod tracer;

pub use context::{attach, context_of};
pub use future::WithContext;
pub use layer::{install, layer};
pub use queue::{Record, log};
pub use span::Span;
pub use suppression::suppress_thread;
pub use tracer::{Tracer, TracerProvider};
