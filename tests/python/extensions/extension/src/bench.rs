//! Many spans in one call, timed where they are made.

use std::time::Instant;

use pyo3::prelude::*;
use rvh_trace_client::{LayerOptions, Span};
use tracing::{info_span, trace_span};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;

fn elapsed_ns(count: u64, run: impl Fn()) -> u64 {
    let start = Instant::now();
    for _ in 0..count {
        run();
    }
    start.elapsed().as_nanos() as u64
}

/// Nanoseconds that `count` spans of `kind` take.
#[pyfunction]
fn time_spans(kind: &str, count: u64) -> Option<u64> {
    let empty = || info_span!("op").in_scope(|| ());
    let registry = tracing_subscriber::registry();
    Some(match kind {
        "empty" => elapsed_ns(count, empty),
        "attributes" => elapsed_ns(count, || {
            info_span!("op", a = "c-1729", b = 3, c = 12.5, d = true, e = "EUR").in_scope(|| ());
        }),
        "registry" => tracing::subscriber::with_default(registry, || elapsed_ns(count, empty)),
        "none" => {
            let none = tracing::subscriber::NoSubscriber::default();
            tracing::subscriber::with_default(none, || elapsed_ns(count, empty))
        }
        "filtered" => {
            let layer = LayerOptions::new().max_level(LevelFilter::INFO).layer();
            tracing::subscriber::with_default(registry.with(layer), || {
                elapsed_ns(count, || trace_span!("op").in_scope(|| ()))
            })
        }
        "builder" => elapsed_ns(count, || drop(Span::builder("op").start())),
        "nothing" => elapsed_ns(count, || {
            std::hint::black_box(());
        }),
        _ => return None,
    })
}

pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(time_spans, module)?)
}
