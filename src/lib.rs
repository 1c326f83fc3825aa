//! The Rust core of `rvh_trace`: distributed tracing for asyncio and ASGI services.
//!
//! # One idea
//!
//! A finished span *is* its OTLP bytes. A live [`span::Span`] is a small object; when it ends it is encoded once, on the
//! spot, as an OTLP `Span` message and appended under one short lock to a [`pipeline::batch`] bounded in bytes. One native
//! [`pipeline::worker`] thread, which never takes the GIL, swaps the batch out, puts resource and scope before it and
//! hands it to the [exporters](pipeline::exporter).
//!
//! # The house
//!
//! | module | what it holds |
//! |---|---|
//! | [`id`], [`clock`], [`attribute`], [`limits`], [`exception`], [`span`], [`log`], [`sampler`], [`context`] | the vocabulary: one noun a file |
//! | [`bridge`] | `tracing` spans and events and `log` records of Rust code, into the same batch |
//! | [`event_loop`] | the watch that finds blocked event loops |
//! | [`layer`] | what layers see of spans as they begin, change and end |
//! | [`http_server`] | the rules of HTTP server spans that need no server |
//! | [`propagation`] | W3C tracecontext and baggage, B3, Jaeger, X-Ray, Datadog: bytes in, context out, and back; never an error |
//! | [`wire`] | the OTLP writer: the only place that knows protobuf tags |
//! | [`metrics`] | the instruments of HTTP servers and event loops, and what the worker collects from them |
//! | [`tracer`] | what starts spans: sampler, limits, resource and the way out, tied together |
//! | [`pipeline`] | batch, worker, exporters |
//! | [`config`], [`resource`], [`stats`], [`error`], [`diagnostic`] | set-up, and what the library says about itself |
//! | `python` | the PyO3 bindings, with feature `python` |
//!
//! Arrows point one way: `python` uses `pipeline` and the vocabulary; nothing in the core knows Python.

pub mod attribute;
pub mod bridge;
pub mod clock;
pub mod config;
pub mod context;
pub mod diagnostic;
pub mod error;
pub mod event_loop;
pub mod exception;
pub mod http_server;
pub mod id;
pub mod layer;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod pipeline;
pub mod propagation;
pub mod resource;
pub mod sampler;
pub mod span;
pub mod stats;
mod sync;
pub mod ticks;
pub mod tracer;
pub mod wire;

#[cfg(feature = "python")]
mod python;
