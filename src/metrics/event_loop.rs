//! The metrics of event loops.

use std::fmt;
use std::sync::Arc;

use opentelemetry::metrics::{Histogram, Meter};

use super::recording::Recording;

/// Seconds. A loop that has little to do is a millisecond late, which is the resolution of its timers.
const LAG_BOUNDS: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The instruments of event loops, for every thread.
pub struct EventLoopMetrics {
    recording: Arc<Recording>,
    lag: Histogram<f64>,
}

impl fmt::Debug for EventLoopMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventLoopMetrics").finish_non_exhaustive()
    }
}

impl EventLoopMetrics {
    pub(super) fn new(meter: &Meter, recording: Arc<Recording>) -> Self {
        Self {
            recording,
            lag: meter
                .f64_histogram("rvh_trace.loop.lag")
                .with_description("How late timers of the event loop fired.")
                .with_unit("s")
                .with_boundaries(LAG_BOUNDS.into())
                .build(),
        }
    }

    /// Records how late a timer fired. After a shutdown it does nothing.
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds are floating point; exact to the nanosecond for 104 days"
    )]
    pub fn record_lag(&self, lag_ns: u64) {
        if self.recording.is_on() {
            self.lag.record(lag_ns as f64 / 1e9, &[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::super::tests::collected;
    use crate::config::MetricsConfig;

    #[test]
    fn a_lag_is_recorded_in_seconds() {
        let metrics = Metrics::new(MetricsConfig::default());
        metrics.event_loop().record_lag(250_000_000);
        metrics.event_loop().record_lag(1_000);
        let points = collected(&metrics);
        assert_eq!(points.len(), 1);
        assert_eq!((points[0].count, points[0].max), (2, Some(0.25)));
        assert_eq!(points[0].explicit_bounds, super::LAG_BOUNDS);
        metrics.close();
        metrics.event_loop().record_lag(1_000);
        assert_eq!(collected(&metrics)[0].count, 2);
    }
}
