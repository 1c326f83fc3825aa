//! How spans wait for export.

use std::time::Duration;

use super::source::Variables;
use super::{Arguments, Signal, SpoolConfig, spool};
use crate::error::Error;

/// Where the settings of one signal's batch come from; what both have in common is read from `Arguments`.
struct Source {
    schedule_delay: (&'static str, Option<f64>),
    max_queue_size: (&'static str, Option<i64>),
    max_export_batch_size: (&'static str, Option<i64>),
    export_timeout: (&'static str, Option<f64>),
    /// The variables, in that order.
    variables: [&'static str; 4],
    items: &'static str,
    default: BatchConfig,
}

/// Settings of a batch, of spans or of log records, and its worker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BatchConfig {
    /// The time between two exports, at least 1 ms.
    pub schedule_delay: Duration,
    /// Items that may wait; `None`: as many as fit `max_queue_bytes`. The specification's default of 2048 spans is a poor
    /// measure of memory, so it applies only when asked for.
    pub max_queue_spans: Option<usize>,
    /// Encoded bytes that may wait.
    pub max_queue_bytes: usize,
    /// Items in one request, at most `max_queue_spans`.
    pub max_export_batch_size: usize,
    /// Encoded bytes of items in one request; a larger one goes alone. OTLP receivers limit messages to 4 MiB by default.
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

/// The batch of spans.
pub(super) fn load(
    arguments: &Arguments,
    variables: &mut Variables<'_>,
) -> Result<BatchConfig, Error> {
    let source = Source {
        schedule_delay: ("schedule_delay_ms", arguments.schedule_delay_ms),
        max_queue_size: ("max_queue_size", arguments.max_queue_size),
        max_export_batch_size: ("max_export_batch_size", arguments.max_export_batch_size),
        export_timeout: ("export_timeout_ms", arguments.export_timeout_ms),
        variables: [
            "OTEL_BSP_SCHEDULE_DELAY",
            "OTEL_BSP_MAX_QUEUE_SIZE",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
            "OTEL_BSP_EXPORT_TIMEOUT",
        ],
        items: "spans",
        default: BatchConfig::default(),
    };
    let spool = spool::load(arguments, variables)?;
    Ok(BatchConfig {
        spool,
        ..load_from(source, arguments, variables)?
    })
}

/// The batch of log records, which has variables alone, but for the bounds in bytes: those are the arguments of spans.
pub(super) fn load_logs(
    arguments: &Arguments,
    variables: &mut Variables<'_>,
) -> Result<BatchConfig, Error> {
    let source = Source {
        schedule_delay: ("", None),
        max_queue_size: ("", None),
        max_export_batch_size: ("", None),
        export_timeout: ("", None),
        variables: [
            "OTEL_BLRP_SCHEDULE_DELAY",
            "OTEL_BLRP_MAX_QUEUE_SIZE",
            "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
            "OTEL_BLRP_EXPORT_TIMEOUT",
        ],
        items: Signal::Logs.items(),
        default: BatchConfig {
            schedule_delay: Duration::from_secs(1),
            ..BatchConfig::default()
        },
    };
    load_from(source, arguments, variables)
}

fn load_from(
    source: Source,
    arguments: &Arguments,
    variables: &mut Variables<'_>,
) -> Result<BatchConfig, Error> {
    let default = source.default;
    let [
        delay_variable,
        queue_variable,
        size_variable,
        timeout_variable,
    ] = source.variables;
    let schedule_delay = variables.milliseconds(
        source.schedule_delay,
        &[delay_variable],
        default.schedule_delay,
    )?;
    let export_timeout = variables.timeout(
        source.export_timeout,
        &[timeout_variable],
        default.export_timeout,
    )?;
    let exit_timeout = variables.milliseconds(
        ("exit_timeout_ms", arguments.exit_timeout_ms),
        &["RVH_TRACE_EXIT_TIMEOUT"],
        default.exit_timeout,
    )?;
    let max_queue_spans = variables
        .whole_number(
            source.max_queue_size,
            &[queue_variable],
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
            source.max_export_batch_size,
            &[size_variable],
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
        let problem = format!(
            "{max_export_batch_size} is more than the {queue} {} that the queue holds",
            source.items
        );
        let (name, argument) = source.max_export_batch_size;
        if argument.is_some() && source.max_queue_size.1.is_some() {
            return Err(Error::configuration(name, problem));
        }
        if argument.is_none() && variables.value(size_variable).is_some() {
            variables.warn(size_variable, problem, queue);
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
        spool: None,
    })
}
