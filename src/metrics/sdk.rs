//! The library's own counters as metrics (semantic conventions 1.44, "OpenTelemetry SDK metrics").
//!
//! Read from the counters of [`Stats`](crate::stats::Stats) when metrics are collected: a span costs nothing more. They are
//! cumulative whatever temporality is preferred. A request that waits on disk is neither in flight nor finished.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1 as otlp;
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use prost::Message;

use crate::clock::Start;
use crate::pipeline::Pipeline;
use crate::pipeline::delivery::Tally;
use crate::stats::SpoolOutcome;
use crate::wire::{bytes_key, put_bytes};

const SCOPE_METRICS_METRICS: u32 = bytes_key(2);
/// Seconds.
const DURATION_BOUNDS: [f64; 11] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 10.0,
];
const BUCKETS: usize = DURATION_BOUNDS.len() + 1;
const PROCESSOR: &str = "batching_span_processor";

/// How long the exports of one outcome took.
#[derive(Debug, Default)]
struct Durations {
    buckets: [AtomicU64; BUCKETS],
    total_ns: AtomicU64,
}

/// What one exporter of spans did. Two of the same name share it.
#[derive(Debug)]
pub(crate) struct ExporterStats {
    exporter: String,
    component: [KeyValue; 2],
    in_flight: AtomicU64,
    exported: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    spool_full: AtomicU64,
    spool_damaged: AtomicU64,
    succeeded: Durations,
    not_succeeded: Durations,
}

/// An export that has begun. One that is dropped in the middle is in flight no more.
pub(crate) struct Operation<'a> {
    stats: &'a ExporterStats,
    count: u64,
    begun: Instant,
}

impl ExporterStats {
    /// Of the exporter that calls itself this; `number` tells it from others of its type.
    pub(crate) fn new(exporter: &str, number: usize) -> Self {
        let is_http = exporter.starts_with("otlp http");
        let kind = if is_http && exporter.contains("json") {
            "otlp_http_json_span_exporter"
        } else if is_http {
            "otlp_http_span_exporter"
        } else if exporter.starts_with("otlp grpc") {
            "otlp_grpc_span_exporter"
        } else if exporter.starts_with("otlp file") {
            "otlp_file_span_exporter"
        } else if exporter.starts_with("console") {
            "console"
        } else {
            exporter
        };
        Self {
            exporter: exporter.to_owned(),
            component: component(kind, number),
            in_flight: AtomicU64::new(0),
            exported: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            spool_full: AtomicU64::new(0),
            spool_damaged: AtomicU64::new(0),
            succeeded: Durations::default(),
            not_succeeded: Durations::default(),
        }
    }

    pub(crate) fn is_of(&self, exporter: &str) -> bool {
        self.exporter == exporter
    }

    pub(crate) fn begin(&self, count: usize) -> Operation<'_> {
        self.in_flight.fetch_add(count as u64, Ordering::Relaxed);
        Operation {
            stats: self,
            count: count as u64,
            begun: Instant::now(),
        }
    }

    /// Counts what became of spans that were on disk.
    pub(crate) fn count_spool_outcome(&self, outcome: &SpoolOutcome) {
        for (counter, spans) in [
            (&self.exported, outcome.delivered),
            (&self.rejected, outcome.rejected),
            (&self.spool_damaged, outcome.damaged),
        ] {
            counter.fetch_add(spans, Ordering::Relaxed);
        }
    }
}

impl Operation<'_> {
    /// Counts what became of the spans.
    pub(crate) fn end(self, tally: &Tally) {
        let rejected = tally.rejected + tally.unsupported;
        let lost = tally.failed + rejected + tally.spool_full;
        let stats = self.stats;
        for (counter, spans) in [
            (
                &stats.exported,
                self.count.saturating_sub(lost + tally.spooled),
            ),
            (&stats.rejected, rejected),
            (&stats.failed, tally.failed),
            (&stats.spool_full, tally.spool_full),
        ] {
            counter.fetch_add(spans, Ordering::Relaxed);
        }
        let durations = if lost + tally.spooled == 0 {
            &stats.succeeded
        } else {
            &stats.not_succeeded
        };
        let elapsed = self.begun.elapsed();
        let seconds = elapsed.as_secs_f64();
        let bucket = DURATION_BOUNDS.partition_point(|bound| *bound < seconds);
        durations.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        durations
            .total_ns
            .fetch_add(elapsed.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        self.stats
            .in_flight
            .fetch_sub(self.count, Ordering::Relaxed);
    }
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

fn component(kind: &str, number: usize) -> [KeyValue; 2] {
    [
        attribute("otel.component.type", kind),
        attribute("otel.component.name", &format!("{kind}/{number}")),
    ]
}

/// Points of one collection.
struct Points {
    start_unix_ns: u64,
    now_unix_ns: u64,
}

impl Points {
    fn number(&self, value: u64, attributes: &[KeyValue]) -> otlp::NumberDataPoint {
        otlp::NumberDataPoint {
            attributes: attributes.to_vec(),
            start_time_unix_nano: self.start_unix_ns,
            time_unix_nano: self.now_unix_ns,
            value: Some(number_data_point::Value::AsInt(
                i64::try_from(value).unwrap_or(i64::MAX),
            )),
            ..otlp::NumberDataPoint::default()
        }
    }

    /// A point for each cause that there was, and one without for success.
    fn by_error(
        &self,
        component: &[KeyValue],
        successes: u64,
        errors: &[(&str, u64)],
    ) -> Vec<otlp::NumberDataPoint> {
        let mut points = vec![self.number(successes, component)];
        for (error_type, spans) in errors {
            if *spans > 0 {
                let attributes = [component, &[attribute("error.type", error_type)]].concat();
                points.push(self.number(*spans, &attributes));
            }
        }
        points
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds are floating point; exact to the nanosecond for 104 days"
    )]
    fn durations(
        &self,
        durations: &Durations,
        attributes: Vec<KeyValue>,
    ) -> Option<otlp::HistogramDataPoint> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let buckets: Vec<u64> = durations.buckets.iter().map(read).collect();
        let count = buckets.iter().sum();
        (count > 0).then(|| otlp::HistogramDataPoint {
            attributes,
            start_time_unix_nano: self.start_unix_ns,
            time_unix_nano: self.now_unix_ns,
            count,
            sum: Some(read(&durations.total_ns) as f64 / 1e9),
            bucket_counts: buckets,
            explicit_bounds: DURATION_BOUNDS.to_vec(),
            ..otlp::HistogramDataPoint::default()
        })
    }
}

fn put(out: &mut Vec<u8>, name: &str, unit: &str, description: &str, data: metric::Data) {
    let metric = otlp::Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        description: description.to_owned(),
        data: Some(data),
        ..otlp::Metric::default()
    };
    put_bytes(out, SCOPE_METRICS_METRICS, &metric.encode_to_vec());
}

fn sum(points: Vec<otlp::NumberDataPoint>, is_monotonic: bool) -> metric::Data {
    metric::Data::Sum(otlp::Sum {
        data_points: points,
        aggregation_temporality: otlp::AggregationTemporality::Cumulative.into(),
        is_monotonic,
    })
}

/// Appends the metrics of this pipeline as `ScopeMetrics.metrics` fields.
pub(crate) fn put_sdk_metrics(out: &mut Vec<u8>, pipeline: &Pipeline) {
    let stats = pipeline.snapshot();
    let points = Points {
        start_unix_ns: pipeline.start_unix_ns,
        now_unix_ns: Start::now().unix_ns(),
    };
    let result = |result| [attribute("otel.span.sampling_result", result)];
    let mut number = |name, description, is_monotonic, points| {
        put(out, name, "{span}", description, sum(points, is_monotonic));
    };
    number(
        "otel.sdk.span.started",
        "The number of created spans.",
        true,
        vec![
            points.number(stats.started, &result("RECORD_AND_SAMPLE")),
            points.number(stats.not_sampled, &result("DROP")),
        ],
    );
    number(
        "otel.sdk.span.live",
        "The number of recorded spans that have not ended.",
        false,
        vec![points.number(stats.live(), &result("RECORD_AND_SAMPLE"))],
    );
    let processor = component(PROCESSOR, 0);
    number(
        "otel.sdk.processor.span.queue.size",
        "The number of spans in the queue.",
        false,
        vec![points.number(stats.queued, &processor)],
    );
    if let Some(capacity) = pipeline.config.max_queue_spans {
        number(
            "otel.sdk.processor.span.queue.capacity",
            "The number of spans that the queue can hold.",
            false,
            vec![points.number(capacity as u64, &processor)],
        );
    }
    // Counted when they are passed on, whatever comes of it.
    let not_processed = stats.dropped_queue_full + stats.dropped_exit + stats.queued;
    number(
        "otel.sdk.processor.span.processed",
        "The number of spans that were passed to the exporters, or could not be.",
        true,
        points.by_error(
            &processor,
            stats.ended.saturating_sub(not_processed),
            &[
                ("queue_full", stats.dropped_queue_full),
                ("already_shutdown", stats.dropped_exit),
            ],
        ),
    );
    put_exporters(out, pipeline, &points);
}

fn put_exporters(out: &mut Vec<u8>, pipeline: &Pipeline, points: &Points) {
    let exporters = pipeline
        .exporter_stats
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (mut in_flight, mut exported, mut durations) = (Vec::new(), Vec::new(), Vec::new());
    for of in &exporters {
        in_flight.push(points.number(read(&of.in_flight), &of.component));
        exported.extend(points.by_error(
            &of.component,
            read(&of.exported),
            &[
                ("rejected", read(&of.rejected)),
                ("failed", read(&of.failed)),
                ("spool_full", read(&of.spool_full)),
                ("spool_damaged", read(&of.spool_damaged)),
            ],
        ));
        let error = [&of.component[..], &[attribute("error.type", "failed")]].concat();
        durations.extend(points.durations(&of.succeeded, of.component.to_vec()));
        durations.extend(points.durations(&of.not_succeeded, error));
    }
    if exporters.is_empty() {
        return;
    }
    put(
        out,
        "otel.sdk.exporter.span.inflight",
        "{span}",
        "The number of spans that were passed to the exporter and whose export is not finished.",
        sum(in_flight, false),
    );
    put(
        out,
        "otel.sdk.exporter.span.exported",
        "{span}",
        "The number of spans whose export is finished, well or not.",
        sum(exported, true),
    );
    if !durations.is_empty() {
        put(
            out,
            "otel.sdk.exporter.operation.duration",
            "s",
            "The duration of exporting a batch, with its retries.",
            metric::Data::Histogram(otlp::Histogram {
                data_points: durations,
                aggregation_temporality: otlp::AggregationTemporality::Cumulative.into(),
            }),
        );
    }
}
