//! What a real receiver gets is what was recorded: names, units, attributes, buckets, exemplars, and nothing else.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod collector;

use std::time::Duration;

use collector::{
    Collector, GET, METRICS, TRACES, WATCHDOG, attributes, config, end_span, exemplar, find,
    histogram, instruments, only_duration, sum, took, tracer,
};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, HistogramDataPoint, exemplar::Value, number_data_point,
};
use rvh_trace::metrics::{Measured, Request};
use rvh_trace::pipeline::exporter::memory;
use rvh_trace::tracer::Tracer;

const DURATION: &str = "http.server.request.duration";
const BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    expected.iter().map(owned).collect()
}

/// A tracer for metrics with these variables.
fn with_variables(collector: &Collector, variables: &[(&str, &str)]) -> &'static Tracer {
    Tracer::new(config(Some(collector.endpoint()), variables)).unwrap()
}

#[test]
fn durations_have_the_names_attributes_and_buckets_of_the_conventions() {
    let collector = Collector::open();
    let tracer = tracer(&collector);
    let server = instruments(tracer);
    let failed = Request {
        status_code: Some(503),
        error_type: Some("503"),
        server: Some(("shop.example", Some(8443))),
        scheme: "https",
        ..GET
    };
    let broken = Request {
        status_code: None,
        route: None,
        method: "_OTHER",
        scheme: "http",
        error_type: Some("builtins.ValueError"),
        protocol_version: None,
        server: Some(("/run/shop.sock", None)),
    };
    // One in every bucket, each on its upper bound, and one beyond all.
    for bound in BOUNDS {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "small and positive"
        )]
        server.record(&GET, &took((bound * 1e9).round() as u64));
    }
    server.record(&GET, &took(10_000_000_001));
    server.record(&failed, &took(1));
    server.record(&broken, &took(123_456_789));
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));

    let metrics = collector.last_metrics();
    assert_eq!(metrics.len(), 1, "only what was measured: {metrics:?}");
    let metric = find(&metrics, DURATION);
    assert_eq!(metric.unit, "s");
    assert_eq!(metric.description, "Duration of HTTP server requests.");
    let durations = histogram(&metrics, DURATION);
    assert_eq!(durations.aggregation_temporality, CUMULATIVE);
    assert_eq!(durations.data_points.len(), 3);
    let point = |expected: &[(&str, &str)]| {
        let expected = pairs(expected);
        let is_it = |point: &&HistogramDataPoint| attributes(&point.attributes) == expected;
        durations.data_points.iter().find(is_it).unwrap()
    };
    let ok = point(&[
        ("http.request.method", "GET"),
        ("http.response.status_code", "int 200"),
        ("http.route", "/items/{id}"),
        ("network.protocol.version", "1.1"),
        ("url.scheme", "http"),
    ]);
    assert_eq!(ok.explicit_bounds, BOUNDS);
    assert_eq!(ok.bucket_counts, [1; 15]);
    assert_eq!(ok.count, 15);
    assert_eq!((ok.min, ok.max), (Some(0.005), Some(10.000_000_001)));
    let sum = BOUNDS.iter().sum::<f64>() + 10.000_000_001;
    assert!((ok.sum.unwrap() - sum).abs() < 1e-9);
    assert!(0 < ok.start_time_unix_nano && ok.start_time_unix_nano <= ok.time_unix_nano);
    let failed = point(&[
        ("error.type", "503"),
        ("http.request.method", "GET"),
        ("http.response.status_code", "int 503"),
        ("http.route", "/items/{id}"),
        ("network.protocol.version", "1.1"),
        ("server.address", "shop.example"),
        ("server.port", "int 8443"),
        ("url.scheme", "https"),
    ]);
    assert_eq!((failed.count, failed.sum), (1, Some(1e-9)));
    let broken = point(&[
        ("error.type", "builtins.ValueError"),
        ("http.request.method", "_OTHER"),
        ("server.address", "/run/shop.sock"),
        ("url.scheme", "http"),
    ]);
    assert_eq!((broken.count, broken.sum), (1, Some(0.123_456_789)));
}

#[test]
fn body_sizes_and_active_requests_are_there_when_they_are_asked_for() {
    let collector = Collector::open();
    let tracer = tracer(&collector);
    let server = instruments(tracer);
    server.active_requests("GET", "http", 1);
    server.active_requests("GET", "http", 1);
    server.active_requests("POST", "https", 1);
    server.active_requests("GET", "http", -1);
    let measured = Measured {
        duration_ns: 1_000_000,
        request_body_bytes: Some(0),
        response_body_bytes: Some(5_000),
        exemplar: Some(exemplar(true, 7)),
    };
    server.record(&GET, &measured);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));

    let metrics = collector.last_metrics();
    assert_eq!(metrics.len(), 4, "{metrics:?}");
    let durations = only_duration(&metrics);
    for (name, bytes, bucket) in [
        ("http.server.request.body.size", 0, 0),
        ("http.server.response.body.size", 5_000, 4),
    ] {
        assert_eq!(find(&metrics, name).unit, "By");
        let points = &histogram(&metrics, name).data_points;
        assert_eq!(points.len(), 1);
        assert_eq!(points[0].attributes, durations.attributes);
        assert_eq!(points[0].bucket_counts[bucket], 1);
        assert_eq!(points[0].exemplars.len(), 1);
        assert_eq!(points[0].exemplars[0].value, Some(Value::AsInt(bytes)));
    }
    let active = sum(&metrics, "http.server.active_requests");
    assert_eq!(
        find(&metrics, "http.server.active_requests").unit,
        "{request}"
    );
    assert!(!active.is_monotonic);
    let mut counts: Vec<_> = active
        .data_points
        .iter()
        .map(|point| (attributes(&point.attributes), point.value))
        .collect();
    counts.sort_by(|one, other| one.0.cmp(&other.0));
    let of = |method, scheme| pairs(&[("http.request.method", method), ("url.scheme", scheme)]);
    let one = Some(number_data_point::Value::AsInt(1));
    assert_eq!(
        counts,
        [(of("GET", "http"), one), (of("POST", "https"), one)]
    );
}

#[test]
fn an_exemplar_is_the_latest_sampled_span_of_its_bucket_and_goes_once() {
    let collector = Collector::open();
    let tracer = tracer(&collector);
    let server = instruments(tracer);
    let measured = |duration_ns, exemplar| Measured {
        exemplar: Some(exemplar),
        ..took(duration_ns)
    };
    let (first, second, slow) = (exemplar(true, 10), exemplar(true, 20), exemplar(true, 30));
    server.record(&GET, &measured(1_000_000, first));
    server.record(&GET, &measured(2_000_000, second));
    server.record(&GET, &measured(3_000_000, exemplar(false, 40)));
    server.record(&GET, &measured(5_000_000, exemplar(false, 45)));
    server.record(&GET, &measured(60_000_000_000, slow));
    let other = Request {
        method: "POST",
        ..GET
    };
    server.record(&other, &measured(4_000_000, exemplar(false, 50)));
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));

    let metrics = collector.last_metrics();
    let points = &histogram(&metrics, DURATION).data_points;
    let (get, post): (Vec<_>, Vec<_>) = points.iter().partition(|point| point.count == 5);
    assert!(post[0].exemplars.is_empty(), "not sampled: {post:?}");
    let seen: Vec<_> = get[0]
        .exemplars
        .iter()
        .map(|one| {
            (
                one.time_unix_nano,
                one.value,
                one.trace_id.clone(),
                one.span_id.clone(),
            )
        })
        .collect();
    let expected = |one: rvh_trace::metrics::Exemplar, value| {
        let ids = (
            one.trace_id.to_bytes().to_vec(),
            one.span_id.to_bytes().to_vec(),
        );
        (one.unix_ns, Some(Value::AsDouble(value)), ids.0, ids.1)
    };
    assert_eq!(seen, [expected(second, 0.002), expected(slow, 60.0)]);

    server.record(&GET, &took(1));
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    let metrics = collector.last_metrics();
    for point in &histogram(&metrics, DURATION).data_points {
        assert!(point.exemplars.is_empty(), "sent twice: {point:?}");
    }
}

#[test]
fn the_exemplar_filter_decides_which_spans_may_be_exemplars() {
    for (filter, expected) in [
        ("always_off", vec![]),
        ("trace_based", vec![1]),
        ("always_on", vec![1, 2]),
    ] {
        let collector = Collector::open();
        let tracer = with_variables(&collector, &[("OTEL_METRICS_EXEMPLAR_FILTER", filter)]);
        for (duration_ns, exemplar) in [(1, exemplar(true, 1)), (20_000_000, exemplar(false, 2))] {
            let measured = Measured {
                exemplar: Some(exemplar),
                ..took(duration_ns)
            };
            instruments(tracer).record(&GET, &measured);
        }
        assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
        let metrics = collector.last_metrics();
        let times: Vec<_> = only_duration(&metrics)
            .exemplars
            .iter()
            .map(|exemplar| exemplar.time_unix_nano)
            .collect();
        assert_eq!(times, expected, "{filter}");
    }
}

#[test]
fn nothing_is_sent_before_something_was_measured_and_after_a_shutdown() {
    let collector = Collector::open();
    let tracer = tracer(&collector);
    end_span(tracer, "alone");
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(collector.spans().len(), 1);
    assert_eq!(collector.bodies(METRICS).len(), 0);
    instruments(tracer).record(&GET, &took(1));
    assert_eq!(tracer.shutdown(WATCHDOG), Ok(()));
    assert_eq!(collector.bodies(METRICS).len(), 1, "what was left is sent");
    instruments(tracer).record(&GET, &took(1));
    instruments(tracer).active_requests("GET", "http", 1);
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    assert_eq!(collector.bodies(METRICS).len(), 1);
    let stats = tracer.stats();
    assert_eq!((stats.metric_exports, stats.metric_exports_failed), (1, 0));
}

#[test]
fn the_worker_collects_at_the_interval() {
    let collector = Collector::open();
    let mut config = config(Some(collector.endpoint()), &[]);
    config.metrics.interval = Duration::from_millis(5);
    let tracer = Tracer::new(config).unwrap();
    instruments(tracer).record(&GET, &took(1));
    collector.wait_for(METRICS, 3);
    assert_eq!(only_duration(&collector.last_metrics()).count, 1);
}

#[test]
fn resource_and_scope_are_those_of_the_spans() {
    let collector = Collector::open();
    let tracer = tracer(&collector);
    end_span(tracer, "span");
    instruments(tracer).record(&GET, &took(1));
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    let of_spans = memory::decode(&collector.bodies(TRACES)[0]).unwrap();
    let of_metrics = memory::decode_metrics(&collector.bodies(METRICS)[0]).unwrap();
    let (spans, metrics) = (&of_spans.resource_spans[0], &of_metrics.resource_metrics[0]);
    assert!(spans.resource.as_ref().unwrap().attributes.len() > 5);
    assert_eq!(metrics.resource, spans.resource);
    assert_eq!(metrics.schema_url, spans.schema_url);
    let (spans, metrics) = (&spans.scope_spans[0], &metrics.scope_metrics[0]);
    assert_eq!(spans.scope.as_ref().unwrap().name, "rvh_trace");
    assert_eq!(metrics.scope, spans.scope);
    assert_eq!(metrics.schema_url, spans.schema_url);
}

#[test]
fn each_signal_is_exported_without_the_other() {
    let collector = Collector::open();
    let metrics_alone = with_variables(&collector, &[("OTEL_TRACES_EXPORTER", "none")]);
    assert!(!metrics_alone.exports());
    instruments(metrics_alone).record(&GET, &took(1));
    assert_eq!(metrics_alone.force_flush(WATCHDOG), Ok(()));
    let exports = collector.bodies(METRICS).len();
    assert_eq!(exports, 1);

    let spans_alone = with_variables(&collector, &[("OTEL_METRICS_EXPORTER", "none")]);
    assert!(spans_alone.http_server_metrics().is_none());
    end_span(spans_alone, "span");
    assert_eq!(spans_alone.shutdown(WATCHDOG), Ok(()));
    assert_eq!(
        (collector.bodies(METRICS).len(), collector.spans().len()),
        (exports, 1)
    );

    let disabled = with_variables(&collector, &[("OTEL_SDK_DISABLED", "true")]);
    assert!(disabled.http_server_metrics().is_none());
}
