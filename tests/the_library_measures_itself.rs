//! With `self_metrics`, what `stats()` counts is exported as the standard `otel.sdk.*` metrics.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod collector;

use collector::{Answer, Collector, METRICS, TRACES, WATCHDOG, attributes, config, end_span, find};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data, number_data_point};
use rvh_trace::pipeline::exporter::memory;
use rvh_trace::tracer::Tracer;

const ON: (&str, &str) = ("RVH_TRACE_SELF_METRICS", "true");

/// Value and attributes of every point of a sum, in words.
fn points(metrics: &[Metric], name: &str) -> Vec<String> {
    let Some(Data::Sum(sum)) = &find(metrics, name).data else {
        unreachable!("{name} is a sum: {metrics:?}")
    };
    let text = |point: &opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| {
        let Some(number_data_point::Value::AsInt(value)) = point.value else {
            unreachable!("{point:?}")
        };
        let attributes = attributes(&point.attributes);
        let values: Vec<_> = attributes.iter().map(|(_, value)| value.as_str()).collect();
        assert!(
            point.start_time_unix_nano > 0 && point.time_unix_nano >= point.start_time_unix_nano
        );
        format!("{value} {}", values.join(" "))
    };
    sum.data_points.iter().map(text).collect()
}

fn flushed(collector: &Collector, tracer: &Tracer) -> Vec<Metric> {
    // The first sends the spans, the second what became of them: both signals are sent at once.
    let _ = tracer.force_flush(WATCHDOG);
    let _ = tracer.force_flush(WATCHDOG);
    collector.last_metrics()
}

#[test]
fn by_choice() {
    let collector = Collector::open();
    let tracer = Tracer::new(config(Some(collector.endpoint()), &[])).unwrap();
    end_span(tracer, "n");
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert!(collector.bodies(METRICS).is_empty());
}

#[test]
fn what_went_well() {
    let collector = Collector::open();
    let variables = [ON, ("OTEL_BSP_MAX_QUEUE_SIZE", "1000")];
    let tracer = Tracer::new(config(Some(collector.endpoint()), &variables)).unwrap();
    for _ in 0..3 {
        end_span(tracer, "n");
    }
    let open = tracer.start(None, rvh_trace::span::SpanKind::Internal, "open");
    tracer.count_not_sampled();
    let metrics = flushed(&collector, tracer);
    drop(open);
    let processor = "batching_span_processor/0 batching_span_processor";
    let exporter = "otlp_http_span_exporter/0 otlp_http_span_exporter";
    for (name, expected) in [
        (
            "otel.sdk.span.started",
            vec!["4 RECORD_AND_SAMPLE".to_owned(), "1 DROP".to_owned()],
        ),
        ("otel.sdk.span.live", vec!["1 RECORD_AND_SAMPLE".to_owned()]),
        (
            "otel.sdk.processor.span.queue.size",
            vec![format!("0 {processor}")],
        ),
        (
            "otel.sdk.processor.span.queue.capacity",
            vec![format!("1000 {processor}")],
        ),
        (
            "otel.sdk.processor.span.processed",
            vec![format!("3 {processor}")],
        ),
        (
            "otel.sdk.exporter.span.inflight",
            vec![format!("0 {exporter}")],
        ),
        (
            "otel.sdk.exporter.span.exported",
            vec![format!("3 {exporter}")],
        ),
    ] {
        assert_eq!(points(&metrics, name), expected, "{name}");
    }
    let Some(Data::Histogram(durations)) =
        &find(&metrics, "otel.sdk.exporter.operation.duration").data
    else {
        unreachable!("{metrics:?}")
    };
    let [duration] = &durations.data_points[..] else {
        unreachable!("{durations:?}")
    };
    assert_eq!(duration.count, 1);
    assert_eq!(duration.bucket_counts.iter().sum::<u64>(), 1);
    assert_eq!(
        duration.bucket_counts.len(),
        duration.explicit_bounds.len() + 1
    );
    assert!(duration.sum.unwrap() > 0.0);
}

#[test]
fn what_did_not() {
    let collector = Collector::that(|path| {
        Answer::Status(if path == TRACES {
            "400 Bad Request"
        } else {
            "200 OK"
        })
    });
    let tracer = Tracer::new(config(Some(collector.endpoint()), &[ON])).unwrap();
    end_span(tracer, "n");
    end_span(tracer, "n");
    let metrics = flushed(&collector, tracer);
    let exporter = "otlp_http_span_exporter/0 otlp_http_span_exporter";
    assert_eq!(
        points(&metrics, "otel.sdk.exporter.span.exported"),
        [
            format!("0 {exporter}"),
            "2 rejected otlp_http_span_exporter/0 otlp_http_span_exporter".to_owned()
        ]
    );
    assert_eq!(
        points(&metrics, "otel.sdk.processor.span.processed").len(),
        1,
        "the processor did its part"
    );
    let request = memory::decode_metrics(collector.bodies(METRICS).last().unwrap()).unwrap();
    assert_eq!(request.resource_metrics.len(), 1);
}
