//! Requests that a destination does not take wait on disk: an [`Exporter`] around another one.
//!
//! - A request that fails in a way worth another attempt is written to the spool, and so are those behind it until the
//!   destination takes one again; nothing waits in memory for a collector that is down. A collector that does not answer
//!   while the queue fills counts as down after [`PATIENCE`].
//! - The [sender] sends what is kept, oldest first, beside the live requests. So what is new may arrive before what is old.
//! - A process that starts takes over the files that dead ones left, see [`directory`].
//! - A directory that is full, or whose disk is, drops the newest request, as the queue does, and that loss has its own
//!   reason. One that cannot be written to is said once and counted; export then works as if there were no spool. Both are
//!   tried again with every request. One that was removed is made anew.
//!
//! Delivery is at least once: a collector that took a request and did not say so in time gets it again. What was
//! delivered is marked before the next is sent, so a killed process costs at most one request twice. Nothing is synchronised
//! to the platter: files survive the process, not the machine.
//!
//! The worker alone comes here. It does no file operation itself, see [`store`].

mod directory;
mod file;
pub mod frame;
mod lock;
mod sender;
mod store;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Pipeline;
use super::exporter::{Exporter, Outcome};
use crate::config::SpoolConfig;
use crate::diagnostic;
use crate::metrics::ExporterStats;
use directory::Directory;
use file::Refused;
use store::Store;

pub(crate) use lock::enter_forked_child;

/// How long an attempt may go on while the queue is half full: the other half must take what ends meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the queue is looked at from then on.
const LOOK: Duration = Duration::from_millis(50);
/// First and longest wait between attempts of an outage, as for requests in memory.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// A longer wait that a destination asks for is cut to this.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// How much of a shutdown's time is left for writing what could not be sent.
pub(super) fn reserve(timeout: Duration) -> Duration {
    (timeout / 4).min(Duration::from_secs(1))
}

/// An exporter whose undelivered requests wait in the spool of the pipeline, if that has one.
///
/// Called on the worker's runtime.
pub(super) fn around(
    exporter: Box<dyn Exporter>,
    pipeline: &'static Pipeline,
    shutdown: &watch::Receiver<Option<Instant>>,
) -> Box<dyn Exporter> {
    match &pipeline.config.spool {
        Some(config) => Box::new(Spooling::new(exporter, config, pipeline, shutdown.clone())),
        None => exporter,
    }
}

/// The exporter that [`around`] gives.
struct Spooling {
    name: String,
    logs_refusals: bool,
    spool: Arc<Spool>,
}

/// What the exporter and the [sender] share.
struct Spool {
    exporter: tokio::sync::Mutex<Box<dyn Exporter>>,
    store: Store,
    pipeline: &'static Pipeline,
    outage: Mutex<Outage>,
    exporter_stats: Arc<ExporterStats>,
    /// Wakes the sender.
    wake: Notify,
    /// Held for as long as kept requests are being sent.
    sending: tokio::sync::Mutex<()>,
    shutdown: watch::Receiver<Option<Instant>>,
}

/// Whether the destination takes requests.
#[derive(Default)]
struct Outage {
    /// When it may be asked again; `None`: it took the last one.
    until: Option<Instant>,
    /// Whether the destination named that time.
    was_asked: bool,
    backoff: Option<Duration>,
    error: String,
}

impl Spooling {
    fn new(
        exporter: Box<dyn Exporter>,
        config: &SpoolConfig,
        pipeline: &'static Pipeline,
        shutdown: watch::Receiver<Option<Instant>>,
    ) -> Self {
        let (name, logs_refusals) = (exporter.name().to_owned(), exporter.logs_refusals());
        let spool = Arc::new(Spool {
            store: Store::new(Directory::new(config.clone(), &name)),
            exporter: tokio::sync::Mutex::new(exporter),
            pipeline,
            outage: Mutex::default(),
            exporter_stats: pipeline.stats_of_exporter(&name),
            wake: Notify::new(),
            sending: tokio::sync::Mutex::new(()),
            shutdown,
        });
        tokio::spawn(sender::run(Arc::clone(&spool)));
        Self {
            name,
            logs_refusals,
            spool,
        }
    }
}

impl Exporter for Spooling {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&mut self) {
        // Free: the sender shares the worker's thread, and has not run yet.
        if let Ok(mut exporter) = self.spool.exporter.try_lock() {
            exporter.start();
        }
    }

    fn export(&mut self, request: Bytes, items: usize) -> BoxFuture<'_, Outcome> {
        self.spool.export(request, items).boxed()
    }

    fn keep(&mut self, request: Bytes, items: usize) -> BoxFuture<'_, bool> {
        async move { self.spool.keep(&request, items).await.is_ok() }.boxed()
    }

    fn catch_up(&mut self) -> BoxFuture<'_, ()> {
        self.spool.catch_up().boxed()
    }

    fn force_flush(&mut self) -> BoxFuture<'_, ()> {
        async move { self.spool.exporter.lock().await.force_flush().await }.boxed()
    }

    fn shutdown(&mut self) -> BoxFuture<'_, ()> {
        async move { self.spool.exporter.lock().await.shutdown().await }.boxed()
    }

    fn logs_refusals(&self) -> bool {
        self.logs_refusals
    }
}

impl Spool {
    fn outage(&self) -> MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn export(&self, request: Bytes, items: usize) -> Outcome {
        if let Some(error) = self.is_down() {
            match self.keep(&request, items).await {
                Ok(()) => return Outcome::Spooled { error },
                Err(Refused::Full | Refused::DiskFull(_)) => return Outcome::SpoolFull { error },
                Err(Refused::Io(_)) => {}
            }
        }
        let attempt = async {
            let mut exporter = self.exporter.lock().await;
            exporter.export(request.clone(), items).await
        };
        let outcome = tokio::select! {
            biased;
            outcome = attempt => outcome,
            () = self.crowded() => Outcome::Retryable {
                after: None,
                error: "no answer while the queue is filling".to_owned(),
            },
        };
        let Outcome::Retryable { after, error } = outcome else {
            self.answered();
            return outcome;
        };
        self.failed(after, &error);
        match self.keep(&request, items).await {
            Ok(()) => Outcome::Spooled { error },
            Err(Refused::Full | Refused::DiskFull(_)) => Outcome::SpoolFull { error },
            Err(Refused::Io(_)) => Outcome::Retryable { after, error },
        }
    }

    /// Returns when an attempt has taken its time and the queue is half full.
    async fn crowded(&self) {
        tokio::time::sleep(PATIENCE).await;
        while !self.pipeline.batch.is_crowded() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Why nothing is sent at the moment, if so.
    fn is_down(&self) -> Option<String> {
        let outage = self.outage();
        let is_down = outage.until.is_some_and(|until| Instant::now() < until);
        is_down.then(|| outage.error.clone())
    }

    /// Notes that the destination could not be reached or wants to be left alone.
    fn failed(&self, after: Option<Duration>, error: &str) {
        let mut outage = self.outage();
        let backoff = outage.backoff.unwrap_or(FIRST_BACKOFF);
        let wait = after.unwrap_or_else(|| super::delivery::jittered(backoff));
        outage.until = Some(Instant::now() + wait.min(LONGEST_WAIT));
        outage.was_asked = after.is_some();
        outage.backoff = Some((backoff * 2).min(LONGEST_BACKOFF));
        error.clone_into(&mut outage.error);
        self.wake.notify_one();
    }

    /// Notes that the destination answers.
    fn answered(&self) {
        let mut outage = self.outage();
        if outage.until.take().is_some() {
            *outage = Outage::default();
            self.wake.notify_one();
        }
    }

    /// Writes a request to disk. Spans that are written are settled as spooled by the worker, and not sent before.
    async fn keep(&self, request: &Bytes, items: usize) -> Result<(), Refused> {
        let bytes = request.clone();
        let written = self.run(move |directory| directory.append(&bytes, items as u64));
        let Some(result) = written.await else {
            let error = std::io::Error::from(std::io::ErrorKind::TimedOut);
            self.complain("spool-hangs", "a file operation hangs", &error);
            return Err(Refused::Io(error));
        };
        match &result {
            Ok(()) => self.pipeline.stats.count_unsettled_spooled(items as u64),
            Err(Refused::Full) => {
                diagnostic::log_once(diagnostic::Level::Warn, "spool-full", || {
                    "spans are dropped: the spool directory is full. init_tracing(spool_max_bytes=...) or \
                     RVH_TRACE_SPOOL_MAX_BYTES sets its size; see rvh_trace.stats()"
                        .to_owned()
                });
            }
            Err(Refused::DiskFull(error)) => {
                diagnostic::log_once(diagnostic::Level::Warn, "spool-disk-full", || {
                    format!(
                        "spans are dropped: there is no room for the spool directory {} ({error}). Make room, or name another \
                         by init_tracing(spool_directory=...) or RVH_TRACE_SPOOL_DIRECTORY; see rvh_trace.stats()",
                        self.path()
                    )
                });
            }
            Err(Refused::Io(error)) => {
                self.complain("spool-write", "it cannot be written to", error);
            }
        }
        result
    }

    /// [`Store::run`], after which the bytes on disk are counted.
    async fn run<R: Send + 'static>(
        &self,
        operation: impl FnOnce(&mut Directory) -> R + Send + 'static,
    ) -> Option<R> {
        let stats = &self.pipeline.stats;
        let counted = self.store.run(move |directory| {
            let result = operation(directory);
            stats.count_spooled_bytes(directory.change_of_bytes());
            result
        });
        counted.await
    }

    fn complain(&self, cause: &'static str, what: &str, error: &std::io::Error) {
        diagnostic::swallowed(cause, || {
            format!(
                "the spool directory {} is not used for now: {what}: {error}. Mend that, or name another by \
                 init_tracing(spool_directory=...) or RVH_TRACE_SPOOL_DIRECTORY; until then spans wait in memory alone",
                self.path()
            )
        });
    }

    fn path(&self) -> String {
        let spool = self.pipeline.config.spool.as_ref();
        spool.map_or_else(String::new, |spool| spool.directory.display().to_string())
    }
}
