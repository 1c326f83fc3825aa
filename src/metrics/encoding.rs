//! From collected metrics to encoded `ScopeMetrics.metrics` fields, with their exemplars.

use std::collections::HashMap;
use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::metrics::v1 as otlp;
use opentelemetry_proto::tonic::metrics::v1::{exemplar, metric};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, Metric, MetricData};
use prost::Message;

use super::exemplar::{Sample, Samples};
use crate::wire::{bytes_key, put_bytes};

/// The same number as that of `ScopeSpans.spans`: envelopes and splitting serve both.
const SCOPE_METRICS_METRICS: u32 = bytes_key(2);
/// Data points in one `Metric`; further ones go into another of the same name, so that a request can be split between them.
/// Some 700 KB with every exemplar there can be.
const MAX_POINTS: usize = 500;

/// The exemplars of one collection: by metric, then by the attributes of the series.
#[derive(Default)]
pub(super) struct Exemplars {
    by_metric: HashMap<&'static str, HashMap<Arc<[KeyValue]>, Taken>>,
}

pub(super) enum Taken {
    Floats(Samples<f64>),
    Ints(Samples<u64>),
}

impl From<Samples<f64>> for Taken {
    fn from(samples: Samples<f64>) -> Self {
        Self::Floats(samples)
    }
}

impl From<Samples<u64>> for Taken {
    fn from(samples: Samples<u64>) -> Self {
        Self::Ints(samples)
    }
}

impl Exemplars {
    pub(super) fn put<T>(
        &mut self,
        metric: &'static str,
        attributes: &Arc<[KeyValue]>,
        samples: Samples<T>,
    ) where
        Taken: From<Samples<T>>,
    {
        if !samples.is_empty() {
            self.by_metric
                .entry(metric)
                .or_default()
                .insert(Arc::clone(attributes), samples.into());
        }
    }

    fn of(&self, metric: &str, attributes: &[KeyValue]) -> Vec<otlp::Exemplar> {
        let taken = self
            .by_metric
            .get(metric)
            .and_then(|series| series.get(attributes));
        match taken {
            Some(Taken::Floats(samples)) => encoded(samples, exemplar::Value::AsDouble),
            Some(Taken::Ints(samples)) => encoded(samples, |value| {
                exemplar::Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX))
            }),
            None => Vec::new(),
        }
    }
}

fn encoded<T: Copy>(
    samples: &Samples<T>,
    value: impl Fn(T) -> exemplar::Value,
) -> Vec<otlp::Exemplar> {
    let encode = |sample: &Sample<T>| {
        let of = &sample.exemplar;
        // Absent rather than zero when there is no span (OTLP, `Exemplar`).
        let (trace_id, span_id) = if of.trace_id.is_valid() && of.span_id.is_valid() {
            (of.trace_id.to_bytes().into(), of.span_id.to_bytes().into())
        } else {
            (Vec::new(), Vec::new())
        };
        otlp::Exemplar {
            filtered_attributes: Vec::new(),
            time_unix_nano: of.unix_ns,
            trace_id,
            span_id,
            value: Some(value(sample.value)),
        }
    };
    samples.iter().flatten().map(encode).collect()
}

/// The attributes of every data point of a histogram, in order.
fn histogram_attributes(data: &AggregatedMetrics) -> Vec<Vec<KeyValue>> {
    fn of<T>(data: &MetricData<T>) -> Vec<Vec<KeyValue>> {
        match data {
            MetricData::Histogram(histogram) => histogram
                .data_points()
                .map(|point| point.attributes().cloned().collect())
                .collect(),
            _ => Vec::new(),
        }
    }
    match data {
        AggregatedMetrics::F64(data) => of(data),
        AggregatedMetrics::U64(data) => of(data),
        AggregatedMetrics::I64(data) => of(data),
    }
}

/// Appends a metric and its exemplars.
pub(super) fn put_metric(out: &mut Vec<u8>, metric: &Metric, exemplars: &Exemplars) {
    let mut encoded = otlp::Metric::from(metric);
    let Some(metric::Data::Histogram(histogram)) = &mut encoded.data else {
        put_bytes(out, SCOPE_METRICS_METRICS, &encoded.encode_to_vec());
        return;
    };
    let mut points = std::mem::take(&mut histogram.data_points);
    for (point, attributes) in points.iter_mut().zip(histogram_attributes(metric.data())) {
        point.exemplars = exemplars.of(metric.name(), &attributes);
    }
    // A series that was bound and is about to be recorded shows with impossible extremes.
    points.retain(|point| point.count > 0);
    while !points.is_empty() {
        let rest = points.split_off(points.len().min(MAX_POINTS));
        if let Some(metric::Data::Histogram(histogram)) = &mut encoded.data {
            histogram.data_points = std::mem::replace(&mut points, rest);
        }
        put_bytes(out, SCOPE_METRICS_METRICS, &encoded.encode_to_vec());
    }
}
