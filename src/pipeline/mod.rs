//! From a finished span to its destinations: [`batch`], [`worker`], [`exporter`].
//!
//! [`Pipeline`] ties them together for one process. A forked child gets a new one: nothing of the parent's is touched,
//! so it does not matter what the parent's worker held at the moment of the fork.

pub mod batch;
pub mod exporter;
pub mod waterfall;
pub mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::BatchConfig;
use crate::diagnostic::{self, Level};
use crate::error::Error;
use crate::resource::Resource;
use crate::stats::{DropReason, Snapshot, Stats};
use crate::wire::request::Envelope;
use crate::wire::span::Finished;
use batch::{Batch, Pushed};
use exporter::Exporter;
use worker::{Command, Worker};

/// Adding it to an `Instant` cannot overflow.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Builds the exporters, on the worker thread: once when it starts, and again in a forked child.
pub type BuildExporters = Arc<dyn Fn() -> Vec<Box<dyn Exporter>> + Send + Sync>;

/// Batch, worker and exporters of one process.
pub struct Pipeline {
    pub(crate) config: BatchConfig,
    pub(crate) envelope: Envelope,
    pub(crate) batch: Batch,
    pub(crate) stats: Stats,
    pub(crate) build_exporters: BuildExporters,
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
    /// A pipeline whose worker starts with the first span.
    pub fn new(config: BatchConfig, resource: &Resource, build_exporters: BuildExporters) -> Self {
        Self {
            batch: Batch::new(&config),
            envelope: Envelope::new(resource),
            stats: Stats::default(),
            build_exporters,
            started: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            worker: Mutex::new(None),
            config,
        }
    }

    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What was counted so far.
    pub fn snapshot(&self) -> Snapshot {
        self.stats.snapshot(|| self.batch.pushed())
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
                format!("no spans are exported: the exporter thread could not be started: {error}")
            }),
        }
    }

    fn command(
        &self,
        command: impl FnOnce(std::sync::mpsc::SyncSender<()>) -> Command,
    ) -> Option<std::sync::mpsc::Receiver<()>> {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        worker.as_ref()?.send(command(done)).then_some(wait)
    }

    /// Sends everything that ended before the call; waits at most `timeout`.
    ///
    /// Blocks: bindings release the GIL around it.
    pub fn force_flush(&self, timeout: Duration) -> Result<(), Error> {
        let failed_before = self.snapshot();
        let Some(done) = self.command(Command::Flush) else {
            return Ok(());
        };
        // A worker that hangs up instead of answering has been shut down, and has sent everything before that.
        if done.recv_timeout(timeout) == Err(RecvTimeoutError::Timeout) {
            return Err(self.timeout("force_flush", timeout));
        }
        let after = self.snapshot();
        let lost = (after.dropped_failed + after.dropped_rejected)
            - (failed_before.dropped_failed + failed_before.dropped_rejected);
        if lost > 0 {
            return Err(Error::Export(format!(
                "{lost} spans were lost: {}",
                after.last_error.as_deref().unwrap_or("no reason was given")
            )));
        }
        Ok(())
    }

    /// Sends what is left within `timeout`, then closes: spans that end later are counted as dropped at exit.
    ///
    /// Blocks: bindings release the GIL around it. A second call returns at once.
    pub fn shutdown(&self, timeout: Duration) -> Result<(), Error> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let deadline = Instant::now() + timeout.min(LONGEST_TIMEOUT);
        self.batch.close();
        let finished = match self.command(|done| Command::Shutdown { deadline, done }) {
            Some(done) => done.recv_timeout(timeout).is_ok(),
            None => true,
        };
        // Later spans start no worker; those still here will not be sent any more.
        self.started.store(true, Ordering::Relaxed);
        if finished && self.batch.unsettled() == 0 {
            return Ok(());
        }
        let error = self.timeout("shutdown", timeout);
        self.batch
            .abandon(|unsettled| self.stats.count_dropped(DropReason::Exit, unsettled));
        Err(error)
    }

    fn timeout(&self, operation: &'static str, timeout: Duration) -> Error {
        Error::Timeout {
            operation,
            timeout,
            pending: self.batch.unsettled(),
        }
    }
}
