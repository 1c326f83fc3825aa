//! The one native thread that sends spans. It runs a single-threaded Tokio runtime and never takes the GIL.
//!
//! It sleeps until a batch is complete, the schedule delay has passed or somebody asks for a flush; then it swaps the
//! queue out and sends it in requests of at most `max_export_batch_size` spans. Every request has one deadline
//! (`OTEL_BSP_EXPORT_TIMEOUT`) around all its attempts. A shutdown cuts waits between attempts short and lowers the
//! deadline to its own. Every span it takes is counted exactly once: exported, or dropped with a reason.

use std::io;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Pipeline;
use super::batch::Spans;
use super::exporter::{Exporter, Outcome};
use crate::diagnostic::{self, Level};
use crate::stats::DropReason;
use crate::wire::span::take_spans;

/// A request never holds more than this, whatever the span count says: OTLP receivers limit messages to 4 MiB by default.
const MAX_REQUEST_BYTES: usize = 2 * 1024 * 1024;
/// First and longest wait between attempts (OTLP specification, "exponential backoff with jitter").
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// What other threads ask of the worker. `done` is answered when it is.
pub enum Command {
    /// Send everything that waits.
    Flush(SyncSender<()>),
    /// Send everything that waits until the deadline, then stop.
    Shutdown {
        /// When to give up.
        deadline: std::time::Instant,
        /// Answered when the worker is done.
        done: SyncSender<()>,
    },
}

/// A handle on the worker thread; dropping it leaves the thread running.
pub struct Worker {
    commands: UnboundedSender<Command>,
    shutdown: watch::Sender<Option<Instant>>,
}

impl Worker {
    /// Starts the thread.
    pub fn start(pipeline: &'static Pipeline) -> io::Result<Self> {
        let (commands, received) = unbounded_channel();
        let (shutdown, shutdown_asked) = watch::channel(None);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        thread::Builder::new()
            .name("rvh-trace-export".into())
            .spawn(move || {
                runtime.block_on(Loop::new(pipeline, received, shutdown_asked).run());
            })?;
        Ok(Self { commands, shutdown })
    }

    /// Passes a command on; `false` when the worker is gone.
    pub fn send(&self, command: Command) -> bool {
        if let Command::Shutdown { deadline, .. } = &command {
            // Seen by the export in progress, before the command itself is.
            self.shutdown.send_replace(Some((*deadline).into()));
        }
        self.commands.send(command).is_ok()
    }
}

/// An exporter and whether its last request failed.
struct Destination {
    exporter: Box<dyn Exporter>,
    failing: bool,
}

/// What became of one request at one destination.
enum Fate {
    Delivered { rejected: u64 },
    Failed,
    Rejected,
    TooLarge,
}

struct Loop {
    pipeline: &'static Pipeline,
    destinations: Vec<Destination>,
    commands: UnboundedReceiver<Command>,
    shutdown: watch::Receiver<Option<Instant>>,
    /// The buffer that goes back into the queue at the next swap.
    spare: Spans,
}

impl Loop {
    fn new(
        pipeline: &'static Pipeline,
        commands: UnboundedReceiver<Command>,
        shutdown: watch::Receiver<Option<Instant>>,
    ) -> Self {
        let destinations = (pipeline.build_exporters)()
            .into_iter()
            .map(|exporter| Destination {
                exporter,
                failing: false,
            })
            .collect();
        Self {
            pipeline,
            destinations,
            commands,
            shutdown,
            spare: Spans::default(),
        }
    }

    async fn run(mut self) {
        loop {
            tokio::select! {
                // In order: a command that is there is answered before another wait begins.
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Flush(done)) => {
                        self.send_waiting().await;
                        self.flush_exporters();
                        let _ = done.send(());
                    }
                    Some(Command::Shutdown { done, .. }) => {
                        self.send_waiting().await;
                        self.flush_exporters();
                        let _ = done.send(());
                        return;
                    }
                    None => return,
                },
                () = self.pipeline.batch.woken() => self.send_waiting().await,
                () = tokio::time::sleep(self.pipeline.config.schedule_delay) => self.send_waiting().await,
            }
        }
    }

    fn flush_exporters(&mut self) {
        for destination in &mut self.destinations {
            destination.exporter.flush();
        }
    }

    async fn send_waiting(&mut self) {
        let spans = self.pipeline.batch.take(std::mem::take(&mut self.spare));
        let mut rest = spans.bytes.as_slice();
        while !rest.is_empty() {
            let (count, end) = take_spans(
                rest,
                self.pipeline.config.max_export_batch_size,
                MAX_REQUEST_BYTES,
            );
            if count == 0 {
                break;
            }
            self.send(&rest[..end], count).await;
            self.pipeline.batch.settle(end, count);
            rest = &rest[end..];
        }
        self.spare = spans;
    }

    /// Sends `spans`, in halves while a destination says that they are too large.
    async fn send(&mut self, spans: &[u8], count: usize) {
        let deadline = Instant::now() + self.pipeline.config.export_timeout;
        let mut parts = vec![(spans, count)];
        while let Some((part, count)) = parts.pop() {
            let request = self.pipeline.envelope.request(part);
            let bytes = request.len() as u64;
            let (pipeline, shutdown) = (self.pipeline, &self.shutdown);
            let fates = join_all(self.destinations.iter_mut().map(|destination| {
                deliver(
                    pipeline,
                    destination,
                    shutdown.clone(),
                    request.clone(),
                    count,
                    deadline,
                )
            }))
            .await;
            if count > 1 && fates.iter().any(|fate| matches!(fate, Fate::TooLarge)) {
                let (half, middle) = take_spans(part, count / 2, usize::MAX);
                parts.push((&part[middle..], count - half));
                parts.push((&part[..middle], half));
                continue;
            }
            pipeline
                .batch
                .unless_abandoned(|| count_fates(pipeline, &fates, count as u64, bytes));
        }
    }
}

/// A span counts as exported when every destination took it.
fn count_fates(pipeline: &Pipeline, fates: &[Fate], count: u64, bytes: u64) {
    let stats = &pipeline.stats;
    if fates.iter().any(|fate| matches!(fate, Fate::Failed)) {
        stats.count_dropped(DropReason::Failed, count);
    } else if fates
        .iter()
        .any(|fate| matches!(fate, Fate::Rejected | Fate::TooLarge))
    {
        stats.count_dropped(DropReason::Rejected, count);
    } else {
        let rejected = fates
            .iter()
            .map(|fate| {
                if let Fate::Delivered { rejected } = fate {
                    (*rejected).min(count)
                } else {
                    0
                }
            })
            .max()
            .unwrap_or(0);
        stats.count_dropped(DropReason::Rejected, rejected);
        stats.count_exported(count - rejected, bytes);
    }
}

/// Attempts to deliver one request until the deadline, or the shutdown's if that is earlier.
async fn deliver(
    pipeline: &Pipeline,
    destination: &mut Destination,
    mut shutdown: watch::Receiver<Option<Instant>>,
    request: Bytes,
    count: usize,
    deadline: Instant,
) -> Fate {
    let mut backoff = FIRST_BACKOFF;
    let mut last_error = None;
    loop {
        let attempt = destination.exporter.export(request.clone(), count);
        let Some(outcome) = before_deadline(&mut shutdown, deadline, attempt).await else {
            let error = last_error.unwrap_or_else(|| "no answer before the deadline".to_owned());
            return fail(pipeline, destination, count, &error);
        };
        let (after, error) = match outcome {
            Outcome::Delivered { rejected, message } => {
                return delivered(pipeline, destination, rejected, message);
            }
            Outcome::Rejected { error } => {
                report(pipeline, destination, count, "refused", error);
                return Fate::Rejected;
            }
            Outcome::TooLarge { error } => {
                if count == 1 {
                    report(pipeline, destination, count, "too large, refused", error);
                }
                return Fate::TooLarge;
            }
            Outcome::Retryable { after, error } => (after, error),
        };
        // Said at the first failure of an outage, not when the last attempt has failed: half a minute matters at night.
        warn_of_outage(pipeline, destination, &error);
        let wait = after.unwrap_or_else(|| jittered(backoff));
        backoff = (backoff * 2).min(LONGEST_BACKOFF);
        let stopping = shutdown.borrow().is_some();
        if stopping || Instant::now() + wait >= deadline {
            return fail(pipeline, destination, count, &error);
        }
        last_error = Some(error);
        pipeline.stats.count_retry();
        // A shutdown ends the wait at once: one last attempt, then the rest of the queue.
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = shutdown.wait_for(Option::is_some) => {}
        }
    }
}

/// The output of `attempt`, or `None` if the deadline or the one of a shutdown passes first.
async fn before_deadline<T>(
    shutdown: &mut watch::Receiver<Option<Instant>>,
    deadline: Instant,
    attempt: impl Future<Output = T>,
) -> Option<T> {
    let shutdown_deadline = async {
        match shutdown
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|asked| *asked)
        {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        output = attempt => Some(output),
        () = tokio::time::sleep_until(deadline) => None,
        () = shutdown_deadline => None,
    }
}

/// Half of the wait is random, so that many processes do not come back at once.
fn jittered(backoff: Duration) -> Duration {
    backoff / 2 + backoff.mul_f64(fastrand::f64() / 2.0)
}

fn delivered(
    pipeline: &Pipeline,
    destination: &mut Destination,
    rejected: u64,
    message: Option<String>,
) -> Fate {
    if std::mem::take(&mut destination.failing) {
        diagnostic::log(
            Level::Info,
            &format!("{} takes spans again", destination.exporter.name()),
        );
    }
    if rejected > 0 || message.is_some() {
        let error = message.unwrap_or_else(|| "no reason was given".to_owned());
        diagnostic::log_once(Level::Warn, "partial-success", || {
            format!(
                "{} refused {rejected} spans of a request: {error}",
                destination.exporter.name()
            )
        });
        pipeline.stats.set_last_error(error);
    }
    Fate::Delivered { rejected }
}

fn warn_of_outage(pipeline: &Pipeline, destination: &mut Destination, error: &str) {
    if !std::mem::replace(&mut destination.failing, true) {
        let name = destination.exporter.name();
        diagnostic::log(
            Level::Warn,
            &format!(
                "spans cannot be exported to {name}: {error}. Trying again; losses are counted in rvh_trace.stats()"
            ),
        );
    }
    pipeline.stats.set_last_error(error.to_owned());
}

fn fail(pipeline: &Pipeline, destination: &mut Destination, count: usize, error: &str) -> Fate {
    warn_of_outage(pipeline, destination, error);
    diagnostic::log(
        Level::Debug,
        &format!(
            "gave up on {count} spans for {}: {error}",
            destination.exporter.name()
        ),
    );
    Fate::Failed
}

fn report(
    pipeline: &Pipeline,
    destination: &mut Destination,
    count: usize,
    what: &str,
    error: String,
) {
    // One line an outage: a wrong path or token fails every request in the same way.
    if !std::mem::replace(&mut destination.failing, true) {
        let name = destination.exporter.name();
        diagnostic::log(
            Level::Warn,
            &format!("{name} {what} {count} spans: {error}"),
        );
    }
    pipeline.stats.set_last_error(error);
}
