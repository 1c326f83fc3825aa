//! The kinds of telemetry that are exported.

/// What an exporter sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Aggregated measurements.
    Metrics,
    /// Log records.
    Logs,
}

impl Signal {
    /// Every signal.
    const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// What a request holds, for log lines.
    pub(crate) const fn items(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Metrics => "metrics",
            Self::Logs => "log records",
        }
    }

    /// The path under a base URL (OTLP specification, "OTLP/HTTP Request").
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Traces => "/v1/traces",
            Self::Metrics => "/v1/metrics",
            Self::Logs => "/v1/logs",
        }
    }

    /// The endpoint variable that is used as it is.
    pub(crate) const fn endpoint_variable(self) -> &'static str {
        match self {
            Self::Traces => "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            Self::Metrics => "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            Self::Logs => "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
        }
    }

    /// The other signals, whose full URLs are none of this one's.
    pub(super) fn others(self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |other| *other != self)
    }

    /// What to do about a destination that does not take this signal; `None`: every receiver takes it, so that it was
    /// asked in the wrong way.
    pub(crate) const fn when_unsupported(self) -> Option<&'static str> {
        match self {
            Self::Traces => None,
            Self::Metrics => Some(
                "if it takes no metrics, set OTEL_METRICS_EXPORTER=none; if it does, check \
                 OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            ),
            Self::Logs => Some(
                "if it takes no logs, set OTEL_LOGS_EXPORTER=none; if it does, check OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
            ),
        }
    }
}
