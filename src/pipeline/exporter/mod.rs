//! Where finished spans, log records and collected metrics go. An exporter gets whole `ExportTraceServiceRequest`,
//! `ExportLogsServiceRequest` or `ExportMetricsServiceRequest` messages, already encoded; the transports are the same.
//!
//! Exporters live on the worker thread and never touch Python. One call is one attempt: the worker owns retries, the
//! deadline and the counting of losses.

mod connector;
pub mod console;
pub mod console_logs;
pub mod console_metrics;
mod endpoint;
#[doc(hidden)]
pub mod fuzzing;
pub mod lines;
pub mod memory;
pub mod otlp_grpc;
pub mod otlp_http;
pub mod output;
mod proxy;
mod response;
#[cfg(test)]
mod testing;
pub mod threaded;
mod tls;

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::config::{ExporterConfig, OutputFormat, Signal};
use crate::error::Error;

/// What came of one attempt to deliver one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The destination took the request.
    Delivered {
        /// What it said it refused (`partial_success.rejected_spans`, `rejected_data_points`, `rejected_log_records`).
        rejected: u64,
        /// What it said about them, or a warning without rejections.
        message: Option<String>,
    },
    /// Worth another attempt (OTLP specification, "Failures": retryable).
    Retryable {
        /// How long the destination asked us to wait.
        after: Option<Duration>,
        /// For the log and `stats()`.
        error: String,
    },
    /// Never going to be taken; sending it again is wrong.
    Rejected {
        /// For the log and `stats()`.
        error: String,
    },
    /// Refused because the destination does not take this signal at all.
    Unsupported {
        /// For the log and `stats()`.
        error: String,
    },
    /// Over the destination's size limit: worth splitting.
    TooLarge {
        /// For the log and `stats()`.
        error: String,
    },
    /// Not taken, and on disk until it is.
    Spooled {
        /// Why it was not taken.
        error: String,
    },
    /// Not taken, and there is no room for it on disk.
    SpoolFull {
        /// Why it was not taken.
        error: String,
    },
}

impl Outcome {
    /// Delivered whole.
    pub const DELIVERED: Self = Self::Delivered {
        rejected: 0,
        message: None,
    };
}

/// A destination for one encoded signal.
pub trait Exporter: Send {
    /// The name used in logs: `otlp http http://localhost:4318/v1/traces`.
    fn name(&self) -> &str;

    /// Called once, on the worker, when the first item is on its way.
    fn start(&mut self) {}

    /// Makes one attempt to deliver `request`, an encoded `ExportTraceServiceRequest` of `items` spans, or
    /// `ExportLogsServiceRequest` of as many log records, or `ExportMetricsServiceRequest` of as many metrics.
    ///
    /// The worker drops the future when the deadline passes, so it must be safe to drop at any await.
    fn export(&mut self, request: Bytes, items: usize) -> BoxFuture<'_, Outcome>;

    /// Writes out what is held back, at flush and at shutdown.
    fn flush(&mut self) {}

    /// [`Self::flush`], for an exporter that must wait for it. Safe to drop at any await, like [`Self::export`].
    fn force_flush(&mut self) -> BoxFuture<'_, ()> {
        self.flush();
        Box::pin(std::future::ready(()))
    }

    /// The last call: a flush, and nothing comes after it.
    fn shutdown(&mut self) -> BoxFuture<'_, ()> {
        self.force_flush()
    }

    /// Whether it tells by itself what it refuses, so that nobody else does.
    fn logs_refusals(&self) -> bool {
        false
    }

    /// Takes charge of a request for whose delivery there is no time left; whether it does. Then it is settled as spooled.
    fn keep(&mut self, _request: Bytes, _items: usize) -> BoxFuture<'_, bool> {
        Box::pin(std::future::ready(false))
    }

    /// Sends what it has taken charge of earlier, as far as the destination takes it now. Called for a flush, and at a
    /// shutdown to end in good order.
    fn catch_up(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// [`build`] for one of `count` destinations. What blocks does so on a thread of its own if there are others to hold up.
///
/// # Errors
///
/// As [`build`].
pub fn build_one_of(
    count: usize,
    config: &ExporterConfig,
    signal: Signal,
) -> Result<Box<dyn Exporter>, Error> {
    Ok(beside(count, config, build(config, signal)?))
}

fn beside(count: usize, config: &ExporterConfig, exporter: Box<dyn Exporter>) -> Box<dyn Exporter> {
    match config {
        ExporterConfig::Console | ExporterConfig::Output(_) if count > 1 => {
            Box::new(threaded::ThreadedExporter::off_worker(exporter))
        }
        _ => exporter,
    }
}

/// Finds out whether [`build_one_of`] can succeed. An exporter that has opened a file for that is to be used: the program may
/// leave its folder, or give up its rights, before the first span.
///
/// # Errors
///
/// As [`build`], and for a file that cannot be opened.
pub fn open(
    count: usize,
    config: &ExporterConfig,
    signal: Signal,
) -> Result<Option<Box<dyn Exporter>>, Error> {
    let ExporterConfig::Output(output) = config else {
        return build(config, signal).map(|_| None);
    };
    let exporter: Box<dyn Exporter> = if output.format == OutputFormat::Pretty {
        Box::new(console::ConsoleExporter::open(&output.stream)?)
    } else {
        let mut lines = lines::LinesExporter::new(output, signal);
        lines.open()?;
        Box::new(lines)
    };
    Ok(Some(beside(count, config, exporter)))
}

/// Makes the exporter of `signal` that `config` describes, on any thread: nothing connects before the first export.
///
/// # Errors
///
/// [`Error::Configuration`] names the setting: a malformed endpoint or header, a certificate that cannot be read or used.
pub fn build(config: &ExporterConfig, signal: Signal) -> Result<Box<dyn Exporter>, Error> {
    Ok(match config {
        ExporterConfig::OtlpHttp(config) => Box::new(otlp_http::OtlpHttpExporter::new(config)?),
        ExporterConfig::OtlpGrpc(config) => Box::new(otlp_grpc::OtlpGrpcExporter::new(config)?),
        ExporterConfig::Console => match signal {
            Signal::Traces => Box::new(console::ConsoleExporter::new()),
            Signal::Metrics => Box::new(console_metrics::ConsoleMetricsExporter::new()),
            Signal::Logs => Box::new(console_logs::ConsoleLogsExporter::new()),
        },
        ExporterConfig::Output(output) => match output.format {
            OutputFormat::Pretty => Box::new(console::ConsoleExporter::on(&output.stream)),
            _ => Box::new(lines::LinesExporter::new(output, signal)),
        },
        ExporterConfig::Custom(custom) => custom.build(),
    })
}
