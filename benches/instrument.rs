//! A function under `#[instrument]`, recorded and filtered out, beside the same function bare.

#![allow(missing_docs, reason = "criterion's macros make public functions")]

mod discard;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use discard::{assert_nothing_was_dropped, tracer};
use opentelemetry::trace::{Span as _, Tracer as _};
use rvh_trace::bridge::{self, Tracer};
use rvh_trace::config::Filter;
use rvh_trace::sampler::Sampler;
use tracing::{Level, instrument};
use tracing_subscriber::layer::SubscriberExt;

fn bare(order: u64) -> u64 {
    black_box(order)
}

#[instrument(level = "info", skip_all)]
fn empty(order: u64) -> u64 {
    bare(order)
}

#[instrument(level = "info")]
fn one_field(order: u64) -> u64 {
    bare(order)
}

#[instrument(level = "debug")]
fn filtered_out(order: u64) -> u64 {
    bare(order)
}

fn instrument(criterion: &mut Criterion) {
    let tracer = tracer(Sampler::default());
    let subscriber = tracing_subscriber::registry()
        .with(Filter::at_level(Level::INFO).targets().clone())
        .with(bridge::layer(Tracer::new(tracer)));
    // Where it stands in a program; a scoped one is found by another way.
    assert!(tracing::subscriber::set_global_default(subscriber).is_ok());
    let mut group = criterion.benchmark_group("instrument");
    group.bench_function("recorded", |bencher| bencher.iter(|| empty(black_box(7))));
    group.bench_function("recorded, one field", |bencher| {
        bencher.iter(|| one_field(black_box(7)));
    });
    group.bench_function("filtered out", |bencher| {
        bencher.iter(|| filtered_out(black_box(7)));
    });
    group.bench_function("baseline: a bare function", |bencher| {
        bencher.iter(|| bare(black_box(7)));
    });
    group.bench_function("baseline: the tracer, without `tracing`", |bencher| {
        bencher.iter(|| {
            let mut span = Tracer::new(tracer).start("empty");
            black_box(bare(7));
            span.end();
        });
    });
    drop(group);
    assert_nothing_was_dropped(tracer);
}

criterion_group!(benches, instrument);
criterion_main!(benches);
