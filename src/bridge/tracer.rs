//! `Tracer` and `TracerProvider` of the `opentelemetry` crate, over ours: its sampler, its limits, its batch.
//!
//! No `SpanData` is built and boxed between a span and its bytes, as a span processor of `opentelemetry_sdk` would need: see
//! `docs/decisions/0027`.

use opentelemetry::trace::{self as api, SpanBuilder, SpanKind as ApiKind, TraceContextExt as _};
use opentelemetry::{Context, InstrumentationScope};

use super::context::{from_api, to_api};
use super::span::{Span, unix_ns};
use super::suppression::is_suppressed;
use crate::clock::Start;
use crate::span::SpanKind;
use crate::tracer::{self, Started};

/// Makes spans of the `opentelemetry` crate that are ours. Copied freely.
#[derive(Clone, Copy, Debug)]
pub struct Tracer(Source);

#[derive(Clone, Copy, Debug)]
enum Source {
    Fixed(&'static tracer::Tracer),
    Current(fn() -> Option<&'static tracer::Tracer>),
}

impl Tracer {
    /// Starts every span with `tracer`.
    pub const fn new(tracer: &'static tracer::Tracer) -> Self {
        Self(Source::Fixed(tracer))
    }

    /// Starts each span with the tracer that `current` gives at that moment; while it gives none, spans record nothing.
    pub const fn following(current: fn() -> Option<&'static tracer::Tracer>) -> Self {
        Self(Source::Current(current))
    }

    #[inline]
    fn get(self) -> Option<&'static tracer::Tracer> {
        match self.0 {
            Source::Fixed(tracer) => Some(tracer),
            Source::Current(current) => current(),
        }
    }
}

impl api::Tracer for Tracer {
    type Span = Span;

    /// Starts a span as a child of the span of `parent`, or as the root of a new trace.
    fn build_with_context(&self, builder: SpanBuilder, parent: &Context) -> Span {
        let parent_span = parent.span();
        let inherited = parent_span.span_context();
        let is_suppressed = is_suppressed() || parent.is_telemetry_suppressed();
        let Some(tracer) = self.get().filter(|_| !is_suppressed) else {
            return Span::non_recording(inherited.clone());
        };
        let kind = builder.span_kind.as_ref().map_or(SpanKind::Internal, kind);
        let ours = inherited.is_valid().then(|| from_api(inherited));
        match tracer.create(ours.as_ref(), kind, &builder.name) {
            Started::Recording(mut span) => {
                span.begin(
                    builder
                        .start_time
                        .map_or_else(Start::now, |time| Start::at(unix_ns(time))),
                );
                Span::recording(span, &builder)
            }
            Started::NonRecording(context) => {
                tracer.count_not_sampled();
                Span::non_recording(to_api(&context))
            }
            Started::Parent => {
                tracer.count_not_sampled();
                Span::non_recording(inherited.clone())
            }
        }
    }
}

fn kind(kind: &ApiKind) -> SpanKind {
    match kind {
        ApiKind::Internal => SpanKind::Internal,
        ApiKind::Server => SpanKind::Server,
        ApiKind::Client => SpanKind::Client,
        ApiKind::Producer => SpanKind::Producer,
        ApiKind::Consumer => SpanKind::Consumer,
    }
}

/// Gives [`Tracer`]s, for libraries that ask a provider for theirs. The scope is not kept: ours names this crate.
#[derive(Clone, Copy, Debug)]
pub struct TracerProvider(Tracer);

impl TracerProvider {
    /// A provider of this one tracer.
    pub const fn new(tracer: Tracer) -> Self {
        Self(tracer)
    }
}

impl api::TracerProvider for TracerProvider {
    type Tracer = Tracer;

    fn tracer_with_scope(&self, _scope: InstrumentationScope) -> Tracer {
        self.0
    }
}
