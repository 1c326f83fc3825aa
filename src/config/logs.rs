//! Where log records go, how they wait, and how much one may hold.

use super::exporter::{self, ExporterConfig};
use super::signal::Signal;
use super::source::Variables;
use super::{Arguments, BatchConfig, batch};
use crate::error::Error;
use crate::limits::LogRecordLimits;

/// Settings of the log records of one process.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogsConfig {
    /// Where log records go; empty: nowhere, and none is kept.
    pub exporters: Vec<ExporterConfig>,
    /// How they wait for export.
    pub batch: BatchConfig,
    /// How much one may hold.
    pub limits: LogRecordLimits,
}

pub(super) fn load(
    arguments: &Arguments,
    variables: &mut Variables<'_>,
) -> Result<LogsConfig, Error> {
    let (exporters, _) = exporter::load(arguments, variables, Signal::Logs)?;
    let default = LogRecordLimits::default();
    let attributes = variables.whole_number(
        ("", None),
        &[
            "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT",
            "OTEL_ATTRIBUTE_COUNT_LIMIT",
        ],
        0,
        // As a `usize`, like the other defaults: another type would be another copy of the function.
        default.attributes as usize,
    )?;
    let value_length = variables.whole_number(
        ("", None),
        &[
            "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT",
            "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        ],
        0,
        "no limit",
    )?;
    Ok(LogsConfig {
        exporters,
        batch: batch::load_logs(arguments, variables)?,
        limits: LogRecordLimits {
            attributes: attributes.unwrap_or(default.attributes),
            value_length,
        },
    })
}
