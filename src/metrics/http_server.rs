//! The metrics of HTTP servers (semantic conventions 1.44, "HTTP metrics", "HTTP server").

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::metrics::{Histogram, Meter};

use super::active_requests::ActiveRequests;
use super::encoding::Exemplars;
use super::exemplar::{Distribution, Exemplar};
use super::recording::Recording;
use super::series::{Request, Table};
use crate::config::{ExemplarFilter, MetricsConfig};
use crate::diagnostic::{self, Level};

const DURATION: &str = "http.server.request.duration";
const ACTIVE_REQUESTS: &str = "http.server.active_requests";
const REQUEST_BODY_SIZE: &str = "http.server.request.body.size";
const RESPONSE_BODY_SIZE: &str = "http.server.response.body.size";

/// Seconds; the conventions prescribe them.
const DURATION_BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
/// Bytes. The conventions prescribe none, and the SDK's defaults end at 10,000. Empty bodies have a bucket of their own.
const SIZE_BOUNDS: [f64; 11] = [
    0.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

/// What was measured of one request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// From the start of the server span to its end, in nanoseconds.
    pub duration_ns: u64,
    /// Bytes of the request body that passed; `None`: not to be recorded.
    pub request_body_bytes: Option<u64>,
    /// Bytes of the response body that passed; `None`: not to be recorded.
    pub response_body_bytes: Option<u64>,
    /// The server span. Whether it becomes an exemplar is for `OTEL_METRICS_EXEMPLAR_FILTER` to say.
    pub exemplar: Option<Exemplar>,
}

/// The instruments of HTTP servers, for every thread.
///
/// A request costs [`record`](Self::record) once, 45 to 100 ns, and [`active_requests`](Self::active_requests) twice if it is
/// wanted.
pub struct HttpServerMetrics {
    recording: Arc<Recording>,
    exemplar_filter: ExemplarFilter,
    /// One short lock a request. The measurement is recorded under it, so that its exemplar is never taken before.
    table: Mutex<Table>,
    duration: Histogram<f64>,
    request_body: Histogram<u64>,
    response_body: Histogram<u64>,
    active_requests: ActiveRequests,
    cardinality_limit: usize,
}

impl fmt::Debug for HttpServerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServerMetrics").finish_non_exhaustive()
    }
}

impl HttpServerMetrics {
    pub(super) fn new(meter: &Meter, config: &MetricsConfig, recording: Arc<Recording>) -> Self {
        let size = |name: &'static str, description: &'static str| {
            meter
                .u64_histogram(name)
                .with_description(description)
                .with_unit("By")
                .with_boundaries(SIZE_BOUNDS.into())
                .build()
        };
        let active_requests = meter
            .i64_up_down_counter(ACTIVE_REQUESTS)
            .with_description("Number of active HTTP server requests.")
            .with_unit("{request}")
            .build();
        Self {
            recording,
            exemplar_filter: config.exemplar_filter,
            table: Mutex::new(Table::new(config.cardinality_limit)),
            duration: meter
                .f64_histogram(DURATION)
                .with_description("Duration of HTTP server requests.")
                .with_unit("s")
                .with_boundaries(DURATION_BOUNDS.into())
                .build(),
            request_body: size(REQUEST_BODY_SIZE, "Size of HTTP server request bodies."),
            response_body: size(RESPONSE_BODY_SIZE, "Size of HTTP server response bodies."),
            active_requests: ActiveRequests::new(active_requests, config.cardinality_limit),
            cardinality_limit: config.cardinality_limit,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a request that has ended. After a shutdown it does nothing.
    #[inline]
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds are floating point; exact to the nanosecond for 104 days, to the byte for 8 PiB"
    )]
    pub fn record(&self, request: &Request<'_>, measured: &Measured) {
        if !self.recording.is_on() {
            return;
        }
        let exemplar = measured
            .exemplar
            .as_ref()
            .filter(|exemplar| self.exemplar_filter.takes(exemplar));
        let mut table = self.table();
        let overflowed_before = table.has_overflowed();
        let series = table.of(request, |attributes| {
            Distribution::new(self.duration.bind(attributes))
        });
        series.is_used = true;
        let seconds = measured.duration_ns as f64 / 1e9;
        series
            .duration
            .record(seconds, seconds, &DURATION_BOUNDS, exemplar);
        for (size, instrument, distribution) in [
            (
                measured.request_body_bytes,
                &self.request_body,
                &mut series.request_body,
            ),
            (
                measured.response_body_bytes,
                &self.response_body,
                &mut series.response_body,
            ),
        ] {
            if let Some(bytes) = size {
                distribution
                    .get_or_insert_with(|| Distribution::new(instrument.bind(&series.attributes)))
                    .record(bytes, bytes as f64, &SIZE_BOUNDS, exemplar);
            }
        }
        if table.has_overflowed() && !overflowed_before {
            drop(table);
            self.warn_of_overflow();
        }
    }

    /// Counts requests that have begun, or with a negative number, ended. After a shutdown it does nothing.
    ///
    /// A request that a forked child inherits is the parent's to end.
    #[inline]
    pub fn active_requests(&self, method: &str, scheme: &str, requests: i64) {
        if self.recording.is_on() {
            self.active_requests.add(method, scheme, requests);
        }
    }

    #[cold]
    fn warn_of_overflow(&self) {
        diagnostic::log_once(Level::Warn, "metric-overflow", || {
            format!(
                "requests have more than {} combinations of method, scheme, status, route and error: further ones are \
                 measured together, as otel.metric.overflow. init_tracing(metric_cardinality_limit=...) sets the limit",
                self.cardinality_limit
            )
        });
    }

    /// Takes out the exemplars since the last call. `forgets`: also drops the series that were not used since then.
    pub(super) fn take_exemplars(&self, forgets: bool) -> Exemplars {
        let mut exemplars = Exemplars::default();
        let mut table = self.table();
        for series in table.iter_mut() {
            let attributes = &series.attributes;
            exemplars.put(DURATION, attributes, series.duration.take_samples());
            for (name, distribution) in [
                (REQUEST_BODY_SIZE, &mut series.request_body),
                (RESPONSE_BODY_SIZE, &mut series.response_body),
            ] {
                if let Some(distribution) = distribution {
                    exemplars.put(name, attributes, distribution.take_samples());
                }
            }
        }
        if forgets {
            table.forget_unused();
        }
        exemplars
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::super::tests::{REQUEST, collected};
    use super::*;
    use opentelemetry::KeyValue;

    #[test]
    fn a_series_between_its_making_and_its_first_measurement_is_not_exported() {
        let metrics = Metrics::new(MetricsConfig::default());
        metrics.http_server().record(&REQUEST, &Measured::default());
        let attributes = [KeyValue::new("http.request.method", "POST")];
        let _bound = metrics.http_server().duration.bind(&attributes);
        assert_eq!(collected(&metrics).len(), 1);
    }
}
