//! The kinds of telemetry that are exported.

/// What an exporter sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Aggregated measurements.
    Metrics,
}

impl Signal {
    /// What a request holds, for log lines.
    pub(crate) const fn items(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Metrics => "metrics",
        }
    }

    /// The path under a base URL (OTLP specification, "OTLP/HTTP Request").
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
        }
    }

    /// The endpoint variable that is used as it is.
    pub(crate) const fn endpoint_variable(self) -> &'static str {
        match self {
            Self::Traces => "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            Self::Metrics => "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        }
    }

    /// The other signals, whose full URLs are none of this one's.
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Traces => Self::Metrics,
            Self::Metrics => Self::Traces,
        }
    }
}
