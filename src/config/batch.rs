//! How spans wait for export.

use std::time::Duration;

use super::source::Variables;
use super::{Arguments, SpoolConfig, spool};
use crate::error::Error;

const MAX_EXPORT_BATCH_SIZE: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";

/// Settings of the batch and its worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BatchConfig {
    /// The time between two exports, at least 1 ms.
    pub schedule_delay: Duration,
    /// Spans that may wait; `None`: as many as fit `max_queue_bytes`. The specification's default of 2048 spans is a poor
    /// measure of memory, so it applies only when asked for.
    pub max_queue_spans: Option<usize>,
    /// Encoded bytes that may wait.
    pub max_queue_bytes: usize,
    /// Spans in one request, at most `max_queue_spans`.
    pub max_export_batch_size: usize,
    /// Encoded bytes of spans in one request; a larger span goes alone. OTLP receivers limit messages to 4 MiB by default.
    pub max_request_bytes: usize,
    /// How long one export may take, retries included.
    pub export_timeout: Duration,
    /// How long the exit of the process may be held up by what still waits; zero: not at all.
    pub exit_timeout: Duration,
    /// Where spans wait that a destination does not take; `None`: in memory alone.
    pub spool: Option<SpoolConfig>,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self {
            schedule_delay: Duration::from_secs(5),
            max_queue_spans: None,
            max_queue_bytes: 4 << 20,
            max_export_batch_size: 512,
            max_request_bytes: 2 << 20,
            export_timeout: Duration::from_secs(30),
            exit_timeout: Duration::from_secs(5),
            spool: None,
        }
    }
}

pub(super) fn load(
    arguments: &Arguments,
    variables: &mut Variables<'_>,
) -> Result<BatchConfig, Error> {
    let default = BatchConfig::default();
    let schedule_delay = variables.milliseconds(
        ("schedule_delay_ms", arguments.schedule_delay_ms),
        &["OTEL_BSP_SCHEDULE_DELAY"],
        default.schedule_delay,
    )?;
    let export_timeout = variables.timeout(
        ("export_timeout_ms", arguments.export_timeout_ms),
        &["OTEL_BSP_EXPORT_TIMEOUT"],
        default.export_timeout,
    )?;
    let exit_timeout = variables.milliseconds(
        ("exit_timeout_ms", arguments.exit_timeout_ms),
        &["RVH_TRACE_EXIT_TIMEOUT"],
        default.exit_timeout,
    )?;
    let max_queue_spans = variables
        .whole_number(
            ("max_queue_size", arguments.max_queue_size),
            &["OTEL_BSP_MAX_QUEUE_SIZE"],
            1,
            "no limit but that in bytes",
        )?
        .map(|spans| spans as usize);
    let max_queue_bytes = variables
        .whole_number(
            ("max_queue_bytes", arguments.max_queue_bytes),
            &[],
            1,
            default.max_queue_bytes,
        )?
        .map_or(default.max_queue_bytes, |bytes| bytes as usize);
    let mut max_export_batch_size = variables
        .whole_number(
            ("max_export_batch_size", arguments.max_export_batch_size),
            &[MAX_EXPORT_BATCH_SIZE],
            1,
            default.max_export_batch_size,
        )?
        .map_or(default.max_export_batch_size, |spans| spans as usize);
    let max_request_bytes = variables
        .whole_number(
            ("max_request_bytes", arguments.max_request_bytes),
            &[],
            1,
            default.max_request_bytes,
        )?
        .map_or(default.max_request_bytes, |bytes| bytes as usize);

    // A batch that the queue cannot hold would never be full (OpenTelemetry specification, "Batching processor").
    if let Some(queue) = max_queue_spans.filter(|queue| *queue < max_export_batch_size) {
        let problem =
            format!("{max_export_batch_size} is more than the {queue} spans that the queue holds");
        if arguments.max_export_batch_size.is_some() && arguments.max_queue_size.is_some() {
            return Err(Error::configuration("max_export_batch_size", problem));
        }
        if arguments.max_export_batch_size.is_none()
            && variables.value(MAX_EXPORT_BATCH_SIZE).is_some()
        {
            variables.warn(MAX_EXPORT_BATCH_SIZE, problem, queue);
        }
        max_export_batch_size = queue;
    }
    Ok(BatchConfig {
        // Zero means as soon as possible, not a worker that spins.
        schedule_delay: schedule_delay.max(Duration::from_millis(1)),
        max_queue_spans,
        max_queue_bytes,
        max_export_batch_size,
        max_request_bytes,
        export_timeout,
        exit_timeout,
        spool: spool::load(arguments, variables)?,
    })
}
