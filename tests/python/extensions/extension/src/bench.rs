//! Many spans in one call, timed where they are made.

use std::time::Instant;

use pyo3::prelude::*;
use rvh_trace_client::Span;
use tracing::info_span;

fn elapsed_ns(count: u64, run: impl Fn()) -> u64 {
    let start = Instant::now();
    for _ in 0..count {
        run();
    }
    start.elapsed().as_nanos() as u64
}

/// Nanoseconds that `count` spans of `kind` take; `None` if there is no such kind.
#[pyfunction]
fn time_spans(kind: &str, count: u64) -> Option<u64> {
    Some(match kind {
        "nothing" => elapsed_ns(count, || std::hint::black_box(())),
        "empty" => elapsed_ns(count, || info_span!("op").in_scope(|| ())),
        "attributes" => elapsed_ns(count, || {
            info_span!("op", a = "c-1729", b = 3, c = 12.5, d = true, e = "EUR").in_scope(|| ());
        }),
        "builder" => elapsed_ns(count, || drop(Span::builder("op").start())),
        _ => return None,
    })
}

pub(crate) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(time_spans, module)?)
}
