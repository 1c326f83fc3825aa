//! Measuring a request, beside what the SDK takes for it by itself.
//!
//! `cargo bench --no-default-features --bench metrics`

#![allow(missing_docs, reason = "the macros of criterion make public items")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::{ManualReader, SdkMeterProvider};
use rvh_trace::config::{Arguments, Config};
use rvh_trace::id::{SpanId, TraceId};
use rvh_trace::metrics::{Exemplar, HttpServerMetrics, Measured, Request};
use rvh_trace::tracer::Tracer;

const REQUEST: Request<'_> = Request {
    status_code: Some(200),
    route: Some("/users/{user_id}/orders/{order_id}"),
    method: "GET",
    scheme: "http",
    error_type: None,
    protocol_version: Some("1.1"),
    server: None,
};

fn http_server_metrics() -> Option<&'static HttpServerMetrics> {
    let (config, _) = Config::load(&Arguments::default(), &|_| None).ok()?;
    let tracer = Tracer::with_exporters_of(config, None, Some(Arc::new(Vec::new)));
    tracer.http_server_metrics()
}

fn measured() -> Measured {
    Measured {
        duration_ns: 3_000_000,
        request_body_bytes: None,
        response_body_bytes: None,
        exemplar: Some(Exemplar {
            trace_id: TraceId::random(),
            span_id: SpanId::random(),
            is_sampled: true,
            unix_ns: 1_700_000_000_000_000_000,
        }),
    }
}

fn ours(c: &mut Criterion) {
    let Some(metrics) = http_server_metrics() else {
        return;
    };
    let mut group = c.benchmark_group("record");
    let with_exemplar = measured();
    let without = Measured {
        exemplar: None,
        ..with_exemplar
    };
    let with_sizes = Measured {
        request_body_bytes: Some(512),
        response_body_bytes: Some(20_000),
        ..with_exemplar
    };
    for (name, measured) in [
        ("duration and exemplar", with_exemplar),
        ("duration", without),
        ("duration, sizes and exemplars", with_sizes),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| metrics.record(black_box(&REQUEST), black_box(&measured)));
        });
    }
    // The same series never twice in a row.
    let routes: Vec<String> = (0..100).map(|n| format!("/users/{{id}}/{n:03}")).collect();
    let mut next = 0;
    group.bench_function("one of 100 series in turn", |b| {
        b.iter(|| {
            next = (next + 1) % routes.len();
            let request = Request {
                route: Some(&routes[next]),
                ..REQUEST
            };
            metrics.record(black_box(&request), black_box(&with_exemplar));
        });
    });
    group.bench_function("active requests, up and down", |b| {
        b.iter(|| {
            metrics.active_requests(black_box("GET"), black_box("http"), 1);
            metrics.active_requests(black_box("GET"), black_box("http"), -1);
        });
    });
    group.finish();
}

fn baseline(c: &mut Criterion) {
    let provider = SdkMeterProvider::builder()
        .with_reader(ManualReader::builder().build())
        .build();
    let histogram = provider.meter("bench").f64_histogram("bench").build();
    let attributes = || {
        [
            KeyValue::new("http.request.method", "GET"),
            KeyValue::new("http.response.status_code", 200),
            KeyValue::new(
                "http.route",
                "/users/{user_id}/orders/{order_id}".to_owned(),
            ),
            KeyValue::new("network.protocol.version", "1.1"),
            KeyValue::new("server.address", "localhost"),
            KeyValue::new("url.scheme", "http"),
        ]
    };
    let mut group = c.benchmark_group("opentelemetry_sdk");
    group.bench_function("six attributes a call", |b| {
        b.iter(|| histogram.record(black_box(0.003), &attributes()));
    });
    let slice = attributes();
    group.bench_function("six attributes kept", |b| {
        b.iter(|| histogram.record(black_box(0.003), black_box(&slice)));
    });
    let bound = histogram.bind(&slice);
    group.bench_function("bound", |b| b.iter(|| bound.record(black_box(0.003))));
    group.finish();
}

criterion_group!(benches, ours, baseline);
criterion_main!(benches);
