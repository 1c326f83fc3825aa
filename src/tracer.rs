//! What starts spans: sampler, limits, propagators and the way out, tied together.
//!
//! A tracer lives as long as the process: spans hold a plain reference, so starting one touches no reference count. The
//! application has one; tests make their own.

use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Start;
use crate::config::{Config, ExporterConfig, HttpConfig, Signal};
use crate::context::{SpanContext, TraceFlags};
use crate::error::Error;
use crate::id::{SpanId, TraceId, process_generation};
use crate::layer;
use crate::limits::SpanLimits;
use crate::log::{LogAttributes, LogRecord};
use crate::metrics::{EventLoopMetrics, HttpServerMetrics};
use crate::pipeline::{BuildExporters, Pipeline, exporter, spool};
use crate::propagation::Propagators;
use crate::sampler::Sampler;
use crate::span::{self, Span, SpanKind};
use crate::stats::Snapshot;
use crate::wire::log;
use crate::wire::span::Finished;

/// What a request to start a span comes to.
#[derive(Debug)]
pub enum Started {
    /// A span that is recorded and will be exported.
    Recording(Span),
    /// A span that is not recorded but has an identity of its own, for propagation.
    NonRecording(SpanContext),
    /// Nothing new: whatever was current stays current. A span that is not sampled has no identity of its own below a
    /// parent that is not sampled either; nor has any span while tracing is off.
    Parent,
}

/// What the sampler makes of a span before it exists.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Recorded, with this identity.
    Record(SpanContext),
    /// Not recorded, with this identity.
    Drop(SpanContext),
    /// Not recorded, and its parent's identity stands for it.
    Inherit,
}

/// What makes the exporters of each signal; `None` is for a signal that is not exported.
#[derive(Clone, Default)]
pub struct SignalExporters {
    /// Of spans.
    pub spans: Option<BuildExporters>,
    /// Of metrics.
    pub metrics: Option<BuildExporters>,
    /// Of log records.
    pub logs: Option<BuildExporters>,
}

impl SignalExporters {
    fn of(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            spans: build_exporters(&config.exporters, Signal::Traces)?,
            metrics: build_exporters(&config.metrics.exporters, Signal::Metrics)?,
            logs: build_exporters(&config.logs.exporters, Signal::Logs)?,
        })
    }
}

/// Starts spans and sends them on.
pub struct Tracer {
    config: Config,
    build_exporters: SignalExporters,
    /// Null when nothing is exported. Replaced in a forked child; the old one is left alone, see [`Pipeline`].
    pipeline: AtomicPtr<Pipeline>,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").finish_non_exhaustive()
    }
}

impl Tracer {
    /// A tracer for this configuration, with the exporters it names. It is never freed.
    pub fn new(config: Config) -> Result<&'static Self, Error> {
        let exporters = SignalExporters::of(&config)?;
        Ok(Self::with_signal_exporters(config, exporters))
    }

    /// [`Self::new`] for a while: the second is what the tracer's exporters are made by. Once it is dropped the tracer can make
    /// none any more, and what they hold is free; the tracer itself is not, because spans may outlive the while.
    pub fn for_a_while(mut config: Config) -> Result<(&'static Self, ExporterSource), Error> {
        let exporters = SignalExporters::of(&config)?;
        config.exporters.clear();
        config.metrics.exporters.clear();
        config.logs.exporters.clear();
        let while_held = |build: &BuildExporters| {
            let build = Arc::downgrade(build);
            Arc::new(move || build.upgrade().map_or_else(Vec::new, |build| build())) as _
        };
        let held = SignalExporters {
            spans: exporters.spans.as_ref().map(while_held),
            metrics: exporters.metrics.as_ref().map(while_held),
            logs: exporters.logs.as_ref().map(while_held),
        };
        let tracer = Self::with_signal_exporters(config, held);
        let source = ExporterSource {
            _exporters: exporters,
        };
        Ok((tracer, source))
    }

    /// A tracer whose spans go to the exporters that `build_exporters` makes, and that measures nothing. It is never freed.
    pub fn with_exporters(config: Config, build_exporters: BuildExporters) -> &'static Self {
        Self::with_exporters_of(config, Some(build_exporters), None)
    }

    /// A tracer whose spans go to the exporters that `spans` makes and its metrics to those that `metrics` makes; `None` is
    /// for a signal that is not exported. It is never freed.
    pub fn with_exporters_of(
        config: Config,
        spans: Option<BuildExporters>,
        metrics: Option<BuildExporters>,
    ) -> &'static Self {
        let exporters = SignalExporters {
            spans,
            metrics,
            logs: None,
        };
        Self::with_signal_exporters(config, exporters)
    }

    /// A tracer for what these make. It is never freed.
    pub fn with_signal_exporters(config: Config, exporters: SignalExporters) -> &'static Self {
        let tracer = Self {
            build_exporters: if config.disabled {
                SignalExporters::default()
            } else {
                exporters
            },
            config,
            pipeline: AtomicPtr::default(),
        };
        tracer.renew_pipeline();
        Box::leak(Box::new(tracer))
    }

    fn renew_pipeline(&self) {
        let SignalExporters {
            spans,
            metrics,
            logs,
        } = self.build_exporters.clone();
        if spans.is_none() && metrics.is_none() && logs.is_none() {
            return;
        }
        let resource = self.config.resource.for_current_process();
        let pipeline = Pipeline::leaked(
            self.config.batch.clone(),
            &resource,
            spans,
            metrics.map(|build| (self.config.metrics.clone(), build)),
            logs.map(|build| (self.config.logs.clone(), build)),
        );
        self.pipeline
            .store(std::ptr::from_ref(pipeline).cast_mut(), Ordering::Release);
    }

    /// Gives a forked child a queue, metrics, counters and a worker of its own. What the parent had queued or measured, the
    /// parent sends.
    ///
    /// Call it in the child before any other thread exists, after [`crate::id::enter_forked_child`].
    pub fn after_fork_in_child(&self) {
        spool::enter_forked_child();
        self.renew_pipeline();
    }

    #[inline]
    #[expect(unsafe_code, reason = "the pointer is null or leaked, see the field")]
    fn pipeline(&self) -> Option<&'static Pipeline> {
        // SAFETY: the pointer is null or comes from `Pipeline::leaked`, and what it points to is never freed.
        unsafe { self.pipeline.load(Ordering::Acquire).as_ref() }
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How much a span may hold.
    #[inline]
    pub fn limits(&self) -> &SpanLimits {
        &self.config.limits
    }

    /// How context travels.
    pub fn propagators(&self) -> &Propagators {
        &self.config.propagators
    }

    /// The settings of HTTP instrumentation.
    pub fn http(&self) -> &HttpConfig {
        &self.config.http
    }

    /// Who decides what is recorded.
    pub fn sampler(&self) -> &Sampler {
        &self.config.sampler
    }

    /// Whether spans can be recorded at all.
    pub fn exports(&self) -> bool {
        self.build_exporters.spans.is_some()
    }

    /// Whether log records go anywhere: without, making one is for nothing.
    pub fn exports_logs(&self) -> bool {
        self.build_exporters.logs.is_some()
    }

    /// Room for the attributes of a log record.
    pub fn log_attributes(&self) -> LogAttributes {
        LogAttributes::new(self.config.logs.limits)
    }

    /// Encodes a log record and appends it to its batch, or counts it as lost.
    #[expect(clippy::needless_pass_by_value, reason = "they are of one record")]
    pub fn log(&self, record: &LogRecord<'_>, attributes: LogAttributes) {
        if let Some(pipeline) = self.pipeline() {
            pipeline.push_log(&log::Finished {
                record,
                attributes: &attributes,
                observed_unix_ns: Start::now().unix_ns(),
            });
        }
    }

    /// The instruments of HTTP servers; `None` when no metrics are exported. One load and two comparisons.
    ///
    /// Ask again for every request: a forked child has others.
    #[inline]
    pub fn http_server_metrics(&self) -> Option<&'static HttpServerMetrics> {
        Some(self.pipeline()?.metrics()?.http_server())
    }

    /// The instruments of event loops; `None` when no metrics are exported.
    pub fn event_loop_metrics(&self) -> Option<&'static EventLoopMetrics> {
        Some(self.pipeline()?.metrics()?.event_loop())
    }

    /// Starts a span now, as a child of `parent` or as the root of a new trace.
    #[inline]
    pub fn start(
        &'static self,
        parent: Option<&SpanContext>,
        kind: SpanKind,
        name: &str,
    ) -> Started {
        let mut started = self.create(parent, kind, name);
        if let Started::Recording(span) = &mut started {
            span.begin(Start::now());
        }
        started
    }

    /// Makes a span that starts when [`Span::begin`] is called.
    #[inline]
    pub fn create(
        &'static self,
        parent: Option<&SpanContext>,
        kind: SpanKind,
        name: &str,
    ) -> Started {
        self.create_in(span::take_buffer, parent, kind, name)
    }

    /// [`Self::create`], in the buffer that `buffer` gives if the span is recorded.
    #[inline]
    pub(crate) fn create_in(
        &'static self,
        buffer: impl FnOnce() -> Vec<u8>,
        parent: Option<&SpanContext>,
        kind: SpanKind,
        name: &str,
    ) -> Started {
        match self.decide(parent) {
            Decision::Record(context) => {
                let parent = parent.filter(|parent| parent.is_valid());
                Started::Recording(Span::new_in(buffer(), self, context, parent, kind, name))
            }
            Decision::Drop(context) => Started::NonRecording(context),
            Decision::Inherit => Started::Parent,
        }
    }

    /// Whether a span below `given` is recorded, and its identity: a child of it, or a root if it names no span.
    #[inline]
    pub(crate) fn decide(&self, given: Option<&SpanContext>) -> Decision {
        if self.config.disabled {
            return Decision::Inherit;
        }
        let parent = given.filter(|given| given.is_valid());
        let trace_id = parent.map_or_else(TraceId::random, |parent| parent.trace_id);
        let decided = parent
            .or_else(|| given.filter(|given| given.flags.contains(TraceFlags::DECISION_ALONE)));
        let sampled = self.config.sampler.samples(decided, trace_id);
        // What the parent left open is decided now, and those below must hear of it.
        if !sampled
            && parent.is_some_and(|parent| {
                !parent.is_sampled() && !parent.flags.contains(TraceFlags::DEFERRED)
            })
        {
            return Decision::Inherit;
        }
        let context = SpanContext {
            trace_id,
            span_id: SpanId::random(),
            // A continued trace keeps the random bit as it came; our own ids are random (Trace Context level 2,
            // "Random Trace ID Flag").
            flags: decided
                .map_or(TraceFlags::RANDOM, |decided| decided.flags)
                .with_sampled(sampled),
            is_remote: false,
            trace_state: parent
                .map(|parent| parent.trace_state.clone())
                .unwrap_or_default(),
        };
        if sampled && (self.exports() || layer::is_listening()) {
            Decision::Record(context)
        } else {
            Decision::Drop(context)
        }
    }

    /// Whether a child of a span that is not sampled is never recorded: [`Self::decide`] then gives [`Decision::Inherit`].
    #[inline]
    pub fn follows_parents(&self) -> bool {
        self.config.disabled || matches!(self.config.sampler, Sampler::ParentBased(_))
    }

    /// Counts a span that [`Self::decide`] did not record.
    #[inline]
    pub fn count_not_sampled(&self) {
        if let Some(pipeline) = self.pipeline() {
            pipeline.stats().count_not_sampled();
        }
    }

    /// Whether it was shut down: what ends now is dropped.
    pub(crate) fn is_closed(&self) -> bool {
        self.pipeline().is_none_or(Pipeline::is_closed)
    }

    /// Counts a recorded span that has started.
    #[inline]
    pub(crate) fn count_started(&self) {
        if let Some(pipeline) = self.pipeline() {
            pipeline.stats().count_started();
        }
    }

    #[inline]
    pub(crate) fn finish(&self, span: &Finished<'_>) {
        if let Some(pipeline) = self.pipeline() {
            pipeline.push(span);
        }
    }

    /// Sends everything that ended, was logged or was measured before the call; see [`Pipeline::force_flush`].
    pub fn force_flush(&self, timeout: Duration) -> Result<(), Error> {
        self.pipeline()
            .map_or(Ok(()), |pipeline| pipeline.force_flush(timeout))
    }

    /// Sends what is left and stops; see [`Pipeline::shutdown`].
    pub fn shutdown(&self, timeout: Duration) -> Result<(), Error> {
        self.pipeline()
            .map_or(Ok(()), |pipeline| pipeline.shutdown(timeout))
    }

    /// How long the exit of the process may be held up.
    pub fn exit_timeout(&self) -> Duration {
        self.config.batch.exit_timeout
    }

    /// Sends what is left in a hurry and stays open; see [`Pipeline::flush_before_exit`].
    pub fn flush_before_exit(&self, timeout: Duration) -> bool {
        self.pipeline()
            .is_some_and(|pipeline| pipeline.flush_before_exit(timeout))
    }

    /// What was counted so far in this process.
    pub fn stats(&self) -> Snapshot {
        self.pipeline().map(Pipeline::snapshot).unwrap_or_default()
    }
}

/// What makes the exporters of a tracer, see [`Tracer::for_a_while`].
#[derive(Clone)]
pub struct ExporterSource {
    _exporters: SignalExporters,
}

/// What makes these exporters; `None` when there are none.
///
/// They are made once here so that a bad certificate or endpoint is an error now, and again on the worker's own thread. A file
/// is opened here alone, but for a forked child, which opens its own.
fn build_exporters(
    exporters: &[ExporterConfig],
    signal: Signal,
) -> Result<Option<BuildExporters>, Error> {
    let count = exporters.len();
    let opened: Vec<_> = exporters
        .iter()
        .map(|exporter| exporter::open(count, exporter, signal))
        .collect::<Result<_, _>>()?;
    let (exporters, opened) = (exporters.to_vec(), Mutex::new(opened));
    let generation = process_generation();
    Ok((!exporters.is_empty()).then(|| {
        let build = move || {
            // Not in a child: its parent may have held the lock at the fork.
            let mut opened = if process_generation() == generation {
                std::mem::take(&mut *opened.lock().unwrap_or_else(PoisonError::into_inner))
            } else {
                Vec::new()
            };
            opened.resize_with(count, || None);
            exporters
                .iter()
                .zip(opened)
                .filter_map(|(exporter, opened)| {
                    opened.or_else(|| exporter::build_one_of(count, exporter, signal).ok())
                })
                .collect()
        };
        Arc::new(build) as BuildExporters
    }))
}
