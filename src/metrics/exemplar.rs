//! Measurements that stand for others, with the span they were made in. The SDK keeps none, so each series keeps its own:
//! the latest of each bucket since the last export.

use opentelemetry::metrics::BoundHistogram;

use crate::config::ExemplarFilter;
use crate::id::{SpanId, TraceId};

/// The span that a measurement was made in, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exemplar {
    /// Invalid when there is no span.
    pub trace_id: TraceId,
    /// Invalid when there is no span.
    pub span_id: SpanId,
    /// Whether the span is sampled.
    pub is_sampled: bool,
    /// When it was measured, in nanoseconds since the Unix epoch.
    pub unix_ns: u64,
}

impl ExemplarFilter {
    #[inline]
    pub(super) fn takes(self, exemplar: &Exemplar) -> bool {
        match self {
            Self::TraceBased => exemplar.is_sampled,
            Self::AlwaysOn => true,
            Self::AlwaysOff => false,
        }
    }
}

/// A measurement that is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample<T> {
    pub(super) value: T,
    pub(super) exemplar: Exemplar,
}

/// The samples of one series, by bucket. Empty until the first one.
pub(super) type Samples<T> = Vec<Option<Sample<T>>>;

/// The histogram of one series and its samples.
pub(super) struct Distribution<T> {
    histogram: BoundHistogram<T>,
    samples: Samples<T>,
}

impl<T: Copy> Distribution<T> {
    pub(super) fn new(histogram: BoundHistogram<T>) -> Self {
        Self {
            histogram,
            samples: Vec::new(),
        }
    }

    /// Records `value`, which is `number` as the bounds of the buckets see it.
    #[inline]
    pub(super) fn record(
        &mut self,
        value: T,
        number: f64,
        bounds: &[f64],
        exemplar: Option<&Exemplar>,
    ) {
        self.histogram.record(value);
        if let Some(exemplar) = exemplar {
            if self.samples.is_empty() {
                self.samples.resize(bounds.len() + 1, None);
            }
            // As the SDK finds it: a bound belongs to the bucket below it.
            let bucket = bounds.partition_point(|bound| *bound < number);
            self.samples[bucket] = Some(Sample {
                value,
                exemplar: *exemplar,
            });
        }
    }

    pub(super) fn take_samples(&mut self) -> Samples<T> {
        std::mem::take(&mut self.samples)
    }
}
