//! From a finished span, a log record and a measurement to their destinations: [`batch`], [`worker`], [`exporter`].
//!
//! [`Pipeline`] ties them together for one process. A forked child gets a new one: nothing of the parent's is touched,
//! so it does not matter what the parent's worker held at the moment of the fork.

pub mod batch;
pub(crate) mod delivery;
pub mod exporter;
pub(crate) mod span_line;
pub mod spool;
mod timer;
pub mod waterfall;
pub mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{BatchConfig, LogsConfig, MetricsConfig};
use crate::diagnostic::{self, Level};
use crate::error::Error;
use crate::metrics::{ExporterStats, Metrics};
use crate::resource::Resource;
use crate::stats::{DropReason, Snapshot, Stats};
use crate::wire::log;
use crate::wire::request::Envelope;
use crate::wire::span::Finished;
use batch::{Batch, Pushed};
use exporter::Exporter;
use worker::{Command, Worker};

/// Adding it to an `Instant` cannot overflow.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Builds the exporters, on the worker thread: once when it starts, and again in a forked child.
pub type BuildExporters = Arc<dyn Fn() -> Vec<Box<dyn Exporter>> + Send + Sync>;

/// The metrics of one process and the way out for them.
pub(crate) struct MetricsPipeline {
    pub(crate) metrics: Metrics,
    pub(crate) build_exporters: BuildExporters,
}

/// The log records of one process and the way out for them.
pub(crate) struct LogPipeline {
    pub(crate) config: BatchConfig,
    pub(crate) batch: Batch,
    pub(crate) stats: Stats,
    pub(crate) envelope: Envelope,
    pub(crate) build_exporters: BuildExporters,
    /// Whether there was a record: the first one wakes the worker.
    begun: AtomicBool,
}

/// Batch, metrics, worker and exporters of one process.
pub struct Pipeline {
    pub(crate) config: BatchConfig,
    pub(crate) envelope: Envelope,
    pub(crate) batch: Batch,
    pub(crate) stats: Stats,
    /// What each exporter of spans did.
    pub(crate) exporter_stats: Mutex<Vec<Arc<ExporterStats>>>,
    pub(crate) start_unix_ns: u64,
    /// `None` when no spans are exported.
    pub(crate) build_span_exporters: Option<BuildExporters>,
    /// `None` when no metrics are exported.
    pub(crate) metrics: Option<MetricsPipeline>,
    /// `None` when no log records are exported.
    pub(crate) logs: Option<LogPipeline>,
    /// Whether a worker was started; read on every push.
    started: AtomicBool,
    closed: AtomicBool,
    worker: Mutex<Option<Worker>>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Pipeline {
    /// A pipeline whose worker starts with the first span, log record or measurement. It is never freed: spans and the worker
    /// refer to it for as long as the process lives.
    pub fn leaked(
        config: BatchConfig,
        resource: &Resource,
        build_span_exporters: Option<BuildExporters>,
        metrics: Option<(MetricsConfig, BuildExporters)>,
        logs: Option<(LogsConfig, BuildExporters)>,
    ) -> &'static Self {
        let logs = logs.map(|(config, build_exporters)| LogPipeline {
            batch: Batch::new(&config.batch),
            config: config.batch,
            stats: Stats::default(),
            envelope: Envelope::of_logs(resource),
            build_exporters,
            begun: AtomicBool::new(false),
        });
        let metrics = metrics.map(|(config, build_exporters)| MetricsPipeline {
            metrics: Metrics::new(config),
            build_exporters,
        });
        let pipeline: &'static Self = Box::leak(Box::new(Self {
            batch: Batch::new(&config),
            envelope: Envelope::new(resource),
            stats: Stats::default(),
            exporter_stats: Mutex::default(),
            start_unix_ns: crate::clock::Start::now().unix_ns(),
            build_span_exporters,
            metrics,
            logs,
            started: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            worker: Mutex::new(None),
            config,
        }));
        if let Some(metrics) = pipeline.metrics() {
            metrics.when_first_recorded(Box::new(|| pipeline.start_worker()));
        }
        pipeline
    }

    /// What is measured in this process; `None` when no metrics are exported.
    #[inline]
    pub fn metrics(&self) -> Option<&Metrics> {
        self.metrics.as_ref().map(|pipeline| &pipeline.metrics)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What was counted so far.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self
            .batch
            .at_one_moment(|contents| self.stats.snapshot(contents));
        if let Some(logs) = &self.logs {
            snapshot.logs = logs
                .batch
                .at_one_moment(|contents| logs.stats.log_snapshot(contents));
        }
        snapshot
    }

    /// What the exporter of spans of this name did.
    pub(crate) fn stats_of_exporter(&self, name: &str) -> Arc<ExporterStats> {
        let mut all = self
            .exporter_stats
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.iter().find(|known| known.is_of(name)) {
            return Arc::clone(known);
        }
        let stats = Arc::new(ExporterStats::new(name, all.len()));
        all.push(Arc::clone(&stats));
        stats
    }

    /// Appends a finished span, or counts it as lost.
    #[inline]
    pub(crate) fn push(&'static self, span: &Finished<'_>) {
        // Relaxed: the worker's own lock orders the start; a stale `false` only takes the slow path once more.
        if !self.started.load(Ordering::Relaxed) {
            self.start_worker();
        }
        match self.batch.push(span, &self.stats) {
            Pushed::Queued | Pushed::Closed => {}
            Pushed::Wake => self.batch.wake(),
            Pushed::Full => {
                // What waits may be too little to have woken the worker.
                self.batch.wake();
                diagnostic::log_once(Level::Warn, "queue-full", || {
                    format!(
                        "spans are dropped: the queue is full ({} bytes). Spans end faster than the collector takes them, \
                         or it cannot be reached; see rvh_trace.stats(). OTEL_BSP_MAX_QUEUE_SIZE and \
                         init_tracing(max_queue_bytes=...) set its size",
                        self.config.max_queue_bytes
                    )
                });
            }
        }
    }

    /// Appends a log record, or counts it as lost. Nothing comes of it when no log records are exported.
    pub(crate) fn push_log(&'static self, log: &log::Finished<'_>) {
        let Some(logs) = &self.logs else {
            return;
        };
        if !self.started.load(Ordering::Relaxed) {
            self.start_worker();
        }
        let pushed =
            logs.batch
                .push_with(log.encoded_len(), |out| log::put_log(out, log), &logs.stats);
        let is_first =
            !logs.begun.load(Ordering::Relaxed) && !logs.begun.swap(true, Ordering::Relaxed);
        if is_first || matches!(pushed, Pushed::Wake | Pushed::Full) {
            logs.batch.wake();
        }
        if pushed == Pushed::Full {
            diagnostic::log_once(Level::Warn, "log-queue-full", || {
                format!(
                    "log records are dropped: their queue is full ({} bytes). They are made faster than the collector takes \
                     them, or it cannot be reached; see rvh_trace.stats(). OTEL_BLRP_MAX_QUEUE_SIZE and \
                     init_tracing(max_queue_bytes=...) set its size",
                    logs.config.max_queue_bytes
                )
            });
        }
    }

    /// Spans and log records that wait or are on their way.
    fn unsettled(&self) -> u64 {
        let logs = self.logs.as_ref().map_or(0, |logs| logs.batch.unsettled());
        self.batch.unsettled() + logs
    }

    #[cold]
    fn start_worker(&'static self) {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        if worker.is_some() || self.closed.load(Ordering::Relaxed) {
            return;
        }
        match Worker::start(self) {
            Ok(started) => {
                *worker = Some(started);
                self.started.store(true, Ordering::Relaxed);
            }
            Err(error) => diagnostic::log_once(Level::Error, "worker-start", || {
                format!("nothing is exported: the exporter thread could not be started: {error}")
            }),
        }
    }

    /// Passes a command on. The receiver is disconnected when every loop of the worker has answered or is gone; it is `None`
    /// when there is no worker.
    fn command(
        &self,
        command: impl FnOnce(std::sync::mpsc::SyncSender<()>) -> Command,
    ) -> Option<std::sync::mpsc::Receiver<()>> {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, wait) = std::sync::mpsc::sync_channel(0);
        worker.as_ref()?.send(&command(done));
        Some(wait)
    }

    /// Sends everything that ended, was logged or was measured before the call; waits at most `timeout`.
    ///
    /// Blocks: bindings release the GIL around it.
    pub fn force_flush(&self, timeout: Duration) -> Result<(), Error> {
        let before = self.snapshot();
        let Some(done) = self.command(|done| Command::Flush { done }) else {
            return Ok(());
        };
        // A worker that was shut down in between has sent everything before that.
        if done.recv_timeout(timeout) == Err(RecvTimeoutError::Timeout) {
            return Err(Error::Timeout {
                operation: "force_flush",
                timeout,
                pending: self.unsettled(),
            });
        }
        lost_since(&before, &self.snapshot())
    }

    /// Sends what is left within `timeout` as [`Self::shutdown`] does, waits between attempts cut short, and stays open: for
    /// a server that says it is done and may not live to its exit. What a destination does not take at its last attempt is
    /// counted as failed.
    ///
    /// Whether the time ran out. Blocks: bindings release the GIL around it.
    pub fn flush_before_exit(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout.min(LONGEST_TIMEOUT);
        let hurry = |wanted| {
            let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(worker) = worker.as_ref() {
                worker.hurry(deadline, wanted);
            }
        };
        hurry(true);
        if let Some(done) = self.command(|done| Command::Flush { done }) {
            let _ = done.recv_timeout(timeout);
        }
        hurry(false);
        Instant::now() >= deadline
    }

    /// Sends what is left within `timeout`, then closes: spans that end later, and later log records, are counted as dropped at exit, and nothing is
    /// measured any more.
    ///
    /// Blocks: bindings release the GIL around it. A second call returns at once.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), Error> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let asked = Instant::now();
        let deadline = asked + timeout.min(LONGEST_TIMEOUT);
        self.batch.close();
        if let Some(logs) = &self.logs {
            logs.batch.close();
        }
        let before = self.snapshot();
        if let Some(metrics) = self.metrics() {
            metrics.close();
        }
        // What cannot be sent by then is written to disk in the time that is left.
        let reserve = match self.config.spool {
            Some(_) => spool::reserve(timeout),
            None => Duration::ZERO,
        };
        let finished = match self.command(|done| Command::Shutdown {
            deadline: asked + timeout.saturating_sub(reserve).min(LONGEST_TIMEOUT),
            done,
        }) {
            Some(done) => done.recv_timeout(timeout) != Err(RecvTimeoutError::Timeout),
            None => true,
        };
        // Later spans start no worker; those still here will not be sent any more.
        self.started.store(true, Ordering::Relaxed);
        let after = self.snapshot();
        // The worker gives up at the same deadline, and may be the first to say so.
        let given_up = after.dropped_failed > before.dropped_failed
            || after.logs.dropped_failed > before.logs.dropped_failed
            || after.metric_exports_failed > before.metric_exports_failed;
        let in_time = !given_up || Instant::now() < deadline;
        if finished && in_time && self.unsettled() == 0 {
            return lost_since(&before, &after);
        }
        let settled = |stats: &Snapshot| {
            let logs = &stats.logs;
            stats.exported
                + stats.spooled
                + stats.dropped_rejected
                + logs.exported
                + logs.dropped_rejected
                + logs.dropped_unsupported
        };
        let error = Error::Timeout {
            operation: "shutdown",
            timeout,
            // What was failed just now counts as still to be sent, whoever of the two was first.
            pending: (before.pending() + before.logs.pending())
                .saturating_sub(settled(&after).saturating_sub(settled(&before))),
        };
        self.batch
            .abandon(|unsettled| self.stats.count_dropped(DropReason::Exit, unsettled));
        if let Some(logs) = &self.logs {
            logs.batch
                .abandon(|unsettled| logs.stats.count_dropped(DropReason::Exit, unsettled));
        }
        Err(error)
    }
}

/// An error if something was lost between the two readings.
fn lost_since(before: &Snapshot, after: &Snapshot) -> Result<(), Error> {
    let reason = || after.last_error.as_deref().unwrap_or("no reason was given");
    let spans = after.dropped_by_destinations() - before.dropped_by_destinations();
    if spans > 0 {
        return Err(Error::Export(format!(
            "{spans} spans were lost: {}",
            reason()
        )));
    }
    let logs = after.logs.dropped_by_destinations() - before.logs.dropped_by_destinations();
    if logs > 0 {
        return Err(Error::Export(format!(
            "{logs} log records were lost: {}",
            reason()
        )));
    }
    if after.metric_exports_failed > before.metric_exports_failed {
        return Err(Error::Export(format!(
            "metrics were not taken: {}",
            reason()
        )));
    }
    Ok(())
}
