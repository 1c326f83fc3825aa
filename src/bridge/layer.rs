//! The `tracing` layer, and the subscriber that is made of it and a filter.
//!
//! A span or event that the filter leaves out costs a look at its call site's cached answer.

use tracing::{Level, Subscriber};
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::{LookupSpan, Registry};

use super::event::{EventLayer, Records};
use super::queue;
use super::tracer::Tracer;
use crate::config::BridgeConfig;
use crate::diagnostic;
use crate::error::Error;

/// tracing-opentelemetry's layer over `tracer`, without what costs attributes on every span: source location, thread, busy and
/// idle times. Each can be switched on again.
pub fn layer<S>(tracer: Tracer) -> OpenTelemetryLayer<S, Tracer>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
}

/// Makes what `config` describes the subscriber of the process's `tracing` and the logger of its `log`: spans go to `tracer`,
/// events to their span and, from the level on that was chosen, to the queue.
///
/// # Errors
///
/// [`Error::Configuration`] if the program has a `tracing` subscriber already.
pub fn install(tracer: Tracer, config: &BridgeConfig) -> Result<(), Error> {
    let subscriber = Registry::default()
        .with(config.filter.targets().clone())
        .with(layer(tracer))
        .with(EventLayer);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| {
        Error::configuration(
            "rust_log",
            "this program has a `tracing` subscriber of its own; add rvh_trace::bridge::layer to that one",
        )
    })?;
    if let Some(level) = config.events {
        queue::open(level);
    }
    let logger = Box::leak(Box::new(Records(config.filter.clone())));
    if log::set_logger(logger).is_ok() {
        log::set_max_level(log_level(config.filter.max_level()));
    } else {
        diagnostic::log(
            diagnostic::Level::Warn,
            "records of the `log` crate are not taken: this program has a logger of its own",
        );
    }
    Ok(())
}

fn log_level(level: LevelFilter) -> log::LevelFilter {
    match level.into_level() {
        None => log::LevelFilter::Off,
        Some(Level::ERROR) => log::LevelFilter::Error,
        Some(Level::WARN) => log::LevelFilter::Warn,
        Some(Level::INFO) => log::LevelFilter::Info,
        Some(Level::DEBUG) => log::LevelFilter::Debug,
        Some(Level::TRACE) => log::LevelFilter::Trace,
    }
}
