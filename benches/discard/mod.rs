//! A destination that costs nothing, so that a benchmark measures the way to it.

#![allow(dead_code, reason = "each benchmark uses its part")]

use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, ready};
use rvh_trace::config::{Arguments, Config};
use rvh_trace::pipeline::exporter::{Exporter, Outcome};
use rvh_trace::sampler::Sampler;
use rvh_trace::span::{Span, SpanKind};
use rvh_trace::tracer::{Started, Tracer};

struct Discard;

impl Exporter for Discard {
    fn name(&self) -> &'static str {
        "discard"
    }

    fn export(&mut self, _request: Bytes, _spans: usize) -> BoxFuture<'_, Outcome> {
        ready(Outcome::DELIVERED).boxed()
    }
}

/// A tracer with its worker, which takes spans as fast as they come.
///
/// # Panics
///
/// If the default settings are wrong.
pub(crate) fn tracer(sampler: Sampler) -> &'static Tracer {
    let Ok((mut config, _)) = Config::load(&Arguments::default(), &|_| None) else {
        unreachable!("the defaults are right")
    };
    config.sampler = sampler;
    config.batch.max_queue_bytes = 64 << 20;
    Tracer::with_exporters(config, Arc::new(|| vec![Box::new(Discard)]))
}

/// A span that has started.
pub(crate) fn start(tracer: &'static Tracer) -> Span {
    match tracer.start(None, SpanKind::Internal, "GET /items/{item_id}") {
        Started::Recording(span) => span,
        other => unreachable!("every span is recorded, and this one is {other:?}"),
    }
}

/// Fails if spans found the queue full: dropping one is cheaper than what is measured.
pub(crate) fn assert_nothing_was_dropped(tracer: &Tracer) {
    let stats = tracer.stats();
    assert_eq!(
        stats.dropped(),
        0,
        "the machine is too busy to measure: {stats:?}"
    );
}
