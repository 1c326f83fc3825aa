//! Where metrics go, how often, and how many series they may have.

use std::time::Duration;

use opentelemetry_sdk::metrics::Temporality;

use super::Arguments;
use super::exporter::{self, ExporterConfig};
use super::signal::Signal;
use super::source::{Problem, Variables};
use crate::error::Error;

/// Settings of the metrics of one process.
#[derive(Clone, PartialEq, Debug)]
pub struct MetricsConfig {
    /// Where metrics go; empty: nowhere, and nothing is measured.
    pub exporters: Vec<ExporterConfig>,
    /// The time between two exports, at least 1 ms.
    pub interval: Duration,
    /// How long one export may take, retries included.
    pub timeout: Duration,
    /// What a histogram's numbers count from: the start of the process or the last export.
    pub temporality: Temporality,
    /// Which measurements may become exemplars.
    pub exemplar_filter: ExemplarFilter,
    /// Whether the library's own counters are exported too, as the `otel.sdk.*` metrics.
    pub self_metrics: bool,
    /// Attribute sets that an instrument tells apart. What is beyond them is counted under `otel.metric.overflow`.
    pub cardinality_limit: usize,
}

/// Which measurements may become exemplars (metrics SDK specification, "`ExemplarFilter`").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ExemplarFilter {
    /// Those of a sampled span.
    #[default]
    TraceBased,
    /// All.
    AlwaysOn,
    /// None.
    AlwaysOff,
}

impl Default for MetricsConfig {
    /// The specification's defaults, without an exporter.
    fn default() -> Self {
        Self {
            exporters: Vec::new(),
            interval: Duration::from_secs(60),
            timeout: Duration::from_secs(30),
            temporality: Temporality::Cumulative,
            exemplar_filter: ExemplarFilter::default(),
            self_metrics: false,
            cardinality_limit: 2000,
        }
    }
}

pub(super) fn load(
    arguments: &Arguments,
    variables: &mut Variables<'_>,
) -> Result<MetricsConfig, Error> {
    let default = MetricsConfig::default();
    let (exporters, _) = exporter::load(arguments, variables, Signal::Metrics)?;
    let interval = variables.milliseconds(
        (
            "metric_export_interval_ms",
            arguments.metric_export_interval_ms,
        ),
        &["OTEL_METRIC_EXPORT_INTERVAL"],
        default.interval,
    )?;
    let timeout = variables.timeout(
        ("metric_export_timeout_ms", None),
        &["OTEL_METRIC_EXPORT_TIMEOUT"],
        default.timeout,
    )?;
    let temporality = variables.read(
        &["OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"],
        |text| {
            text.parse::<Temporality>()
                .map_err(|()| "not cumulative, delta or lowmemory".into())
        },
        "cumulative",
    );
    let exemplar_filter = variables.read(
        &["OTEL_METRICS_EXEMPLAR_FILTER"],
        parse_exemplar_filter,
        "trace_based",
    );
    let cardinality_limit = variables.whole_number(
        (
            "metric_cardinality_limit",
            arguments.metric_cardinality_limit,
        ),
        &[],
        1,
        default.cardinality_limit,
    )?;
    Ok(MetricsConfig {
        exporters,
        // Zero means as soon as possible, not a worker that spins.
        interval: interval.max(Duration::from_millis(1)),
        timeout,
        temporality: temporality.unwrap_or(default.temporality),
        exemplar_filter: exemplar_filter.unwrap_or_default(),
        self_metrics: variables.switch(arguments.self_metrics, &["RVH_TRACE_SELF_METRICS"]),
        cardinality_limit: cardinality_limit
            .map_or(default.cardinality_limit, |limit| limit as usize),
    })
}

fn parse_exemplar_filter(text: &str) -> Result<ExemplarFilter, Problem> {
    match text.to_ascii_lowercase().as_str() {
        "trace_based" => Ok(ExemplarFilter::TraceBased),
        "always_on" => Ok(ExemplarFilter::AlwaysOn),
        "always_off" => Ok(ExemplarFilter::AlwaysOff),
        _ => Err("not trace_based, always_on or always_off".into()),
    }
}
