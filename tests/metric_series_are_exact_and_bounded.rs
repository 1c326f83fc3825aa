//! What a number counts from, how many series there may be, and that nothing is lost between two exports.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod collector;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use collector::{
    Collector, GET, METRICS, WATCHDOG, attributes, config, exemplar, histogram, instruments,
    metrics, only_duration, sum, took,
};
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, number_data_point};
use rvh_trace::metrics::{Measured, Request};
use rvh_trace::tracer::Tracer;

const DURATION: &str = "http.server.request.duration";
const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;
const DELTA: i32 = AggregationTemporality::Delta as i32;

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    expected.iter().map(owned).collect()
}

/// A tracer for metrics with these variables.
fn with_variables(collector: &Collector, variables: &[(&str, &str)]) -> &'static Tracer {
    Tracer::new(config(Some(collector.endpoint()), variables)).unwrap()
}

#[test]
fn cumulative_numbers_count_from_the_start_and_delta_numbers_from_the_last_export() {
    for (preference, temporality, counts) in [
        ("cumulative", CUMULATIVE, vec![2, 3, 3]),
        ("delta", DELTA, vec![2, 1]),
        ("lowmemory", DELTA, vec![2, 1]),
    ] {
        let collector = Collector::open();
        let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        let tracer = with_variables(&collector, &[(name, preference)]);
        let server = instruments(tracer);
        server.active_requests("GET", "http", 1);
        server.record(&GET, &took(1));
        server.record(&GET, &took(1));
        assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
        server.active_requests("GET", "http", 1);
        server.record(&GET, &took(1));
        assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
        assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));

        let exports: Vec<_> = collector
            .bodies(METRICS)
            .iter()
            .map(|body| metrics(body))
            .collect();
        assert_eq!(
            exports.len(),
            3,
            "a request in flight is shown in every export"
        );
        let mut seen = Vec::new();
        let mut times = Vec::new();
        for export in &exports {
            // An up-down counter is cumulative in all three.
            assert_eq!(
                sum(export, "http.server.active_requests").aggregation_temporality,
                CUMULATIVE
            );
            if export.iter().any(|metric| metric.name == DURATION) {
                assert_eq!(
                    histogram(export, DURATION).aggregation_temporality,
                    temporality
                );
                let point = only_duration(export);
                seen.push(point.count);
                times.push((point.start_time_unix_nano, point.time_unix_nano));
            }
        }
        assert_eq!(seen, counts, "{preference}");
        let follows = if temporality == DELTA {
            times[0].1
        } else {
            times[0].0
        };
        assert_eq!(times[1].0, follows, "{preference}");
    }
}

#[test]
fn series_beyond_the_limit_are_measured_together() {
    let collector = Collector::open();
    let mut config = config(Some(collector.endpoint()), &[]);
    config.metrics.cardinality_limit = 3;
    let tracer = Tracer::new(config).unwrap();
    let server = instruments(tracer);
    let routes: Vec<_> = (0..10).map(|number| format!("/{number}")).collect();
    for _ in 0..2 {
        for route in &routes {
            let request = Request {
                route: Some(route),
                ..GET
            };
            let measured = Measured {
                request_body_bytes: Some(1),
                exemplar: Some(exemplar(true, 1)),
                ..took(1)
            };
            server.record(&request, &measured);
        }
    }
    for number in 0..100 {
        server.active_requests("GET", &number.to_string(), 1);
    }
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    let metrics = collector.last_metrics();
    for name in [DURATION, "http.server.request.body.size"] {
        let points = &histogram(&metrics, name).data_points;
        assert_eq!(points.len(), 4);
        let (overflow, kept): (Vec<_>, Vec<_>) = points.iter().partition(|point| {
            attributes(&point.attributes) == pairs(&[("otel.metric.overflow", "bool true")])
        });
        assert_eq!(overflow.len(), 1);
        assert_eq!((overflow[0].count, overflow[0].exemplars.len()), (14, 1));
        assert!(kept.iter().all(|point| point.count == 2), "{kept:?}");
    }
    let active = &sum(&metrics, "http.server.active_requests").data_points;
    let sums: i64 = active
        .iter()
        .map(|point| match point.value {
            Some(number_data_point::Value::AsInt(value)) => value,
            _ => 0,
        })
        .sum();
    assert_eq!((active.len(), sums), (4, 100));
}

#[test]
fn with_delta_a_burst_of_series_does_not_fill_the_limit_for_ever() {
    let collector = Collector::open();
    let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    let mut config = config(Some(collector.endpoint()), &[(name, "delta")]);
    config.metrics.cardinality_limit = 3;
    let tracer = Tracer::new(config).unwrap();
    let server = instruments(tracer);
    for burst in 0..20 {
        for number in 0..5 {
            let route = format!("/{burst}/{number}");
            server.record(
                &Request {
                    route: Some(&route),
                    ..GET
                },
                &took(1),
            );
        }
        server.record(&GET, &took(1));
        // The first forgets nothing: all were used. The second forgets what nobody used since.
        assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
        assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
        let metrics = collector.last_metrics();
        let points = &histogram(&metrics, DURATION).data_points;
        let routes = points.iter().filter(|point| point.attributes.len() > 1);
        assert_eq!((points.len(), routes.count()), (4, 3), "{points:?}");
        assert_eq!(points.iter().map(|point| point.count).sum::<u64>(), 6);
    }
    assert_eq!(
        collector.bodies(METRICS).len(),
        20,
        "an empty delta is not sent"
    );
}

#[test]
fn no_measurement_is_lost_or_counted_twice_while_others_collect() {
    let collector = Collector::open();
    let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    let tracer = with_variables(&collector, &[(name, "delta")]);
    let server = instruments(tracer);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let recorders: Vec<_> = (0..4)
            .map(|number: u64| {
                scope.spawn(move || {
                    let routes = ["/a", "/b", "/c"];
                    for round in 0..3_000 {
                        let request = Request {
                            route: Some(routes[round % 3]),
                            ..GET
                        };
                        server.record(&request, &took(number));
                    }
                })
            })
            .collect();
        let done = &done;
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
            }
        });
        for recorder in recorders {
            recorder.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(tracer.force_flush(WATCHDOG), Ok(()));
    let points = collector
        .bodies(METRICS)
        .into_iter()
        .flat_map(|body| histogram(&metrics(&body), DURATION).data_points.clone());
    let counts: Vec<u64> = points.map(|point| point.count).collect();
    assert_eq!(counts.iter().sum::<u64>(), 12_000);
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}
