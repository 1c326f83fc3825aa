//! The one native thread that sends spans. It runs a single-threaded Tokio runtime and never takes the GIL.
//!
//! It sleeps until a batch is complete, the schedule delay has passed or somebody asks for a flush; then it swaps the
//! queue out and sends it in requests of at most `max_export_batch_size` spans. Every request has one deadline
//! (`OTEL_BSP_EXPORT_TIMEOUT`) around all its attempts. A shutdown cuts waits between attempts short and lowers the
//! deadline to its own. Every span it takes is counted exactly once: exported, or dropped with a reason.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{FutureExt, join_all};
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
    delivered: bool,
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
            .map(|exporter| {
                diagnostic::log(Level::Debug, &format!("spans go to {}", exporter.name()));
                Destination {
                    exporter,
                    failing: false,
                    delivered: false,
                }
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
            rest = &rest[end..];
        }
        self.spare = spans;
    }

    /// Sends `spans` to every destination and counts what became of them.
    async fn send(&mut self, spans: &[u8], count: usize) {
        let deadline = Instant::now() + self.pipeline.config.export_timeout;
        let request = self.pipeline.envelope.request(spans);
        let (pipeline, shutdown) = (self.pipeline, &self.shutdown);
        let tallies = join_all(self.destinations.iter_mut().map(|destination| {
            deliver_in_parts(
                pipeline,
                destination,
                shutdown,
                request.clone(),
                spans,
                count,
                deadline,
            )
        }))
        .await;
        pipeline.batch.settle(spans.len(), count, || {
            count_tallies(pipeline, &tallies, count as u64);
        });
    }
}

/// What became of the spans of one request at one destination.
#[derive(Default)]
struct Tally {
    failed: u64,
    rejected: u64,
    delivered_bytes: u64,
}

/// A span counts as exported when every destination took it.
fn count_tallies(pipeline: &Pipeline, tallies: &[Tally], count: u64) {
    let most = |lost: fn(&Tally) -> u64| tallies.iter().map(lost).max().unwrap_or(0);
    let failed = most(|tally| tally.failed);
    let rejected = most(|tally| tally.rejected).min(count - failed);
    let stats = &pipeline.stats;
    stats.count_dropped(DropReason::Failed, failed);
    stats.count_dropped(DropReason::Rejected, rejected);
    stats.count_exported(
        count - failed - rejected,
        most(|tally| tally.delivered_bytes),
    );
}

/// Delivers `request`, which holds `spans`, in halves while the destination says that it is too large.
async fn deliver_in_parts(
    pipeline: &Pipeline,
    destination: &mut Destination,
    shutdown: &watch::Receiver<Option<Instant>>,
    request: Bytes,
    spans: &[u8],
    count: usize,
    deadline: Instant,
) -> Tally {
    let mut tally = Tally::default();
    let mut parts = vec![(request, spans, count)];
    while let Some((request, part, count)) = parts.pop() {
        let bytes = request.len() as u64;
        match deliver(
            pipeline,
            destination,
            shutdown.clone(),
            request,
            count,
            deadline,
        )
        .await
        {
            Fate::Delivered { rejected } => {
                tally.rejected += rejected.min(count as u64);
                tally.delivered_bytes += bytes;
            }
            Fate::Failed => tally.failed += count as u64,
            Fate::TooLarge if count > 1 => {
                let (half, middle) = take_spans(part, count / 2, usize::MAX);
                let (first, second) = part.split_at(middle);
                parts.push((pipeline.envelope.request(second), second, count - half));
                parts.push((pipeline.envelope.request(first), first, half));
            }
            Fate::Rejected | Fate::TooLarge => tally.rejected += count as u64,
        }
    }
    tally
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
        let attempt = attempt(destination, request.clone(), count);
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
        // Not `now + wait`: a destination may ask for a wait that no clock can show.
        if stopping || wait >= deadline.saturating_duration_since(Instant::now()) {
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

/// One attempt. An exporter that panics has failed for good; the worker goes on.
async fn attempt(destination: &mut Destination, request: Bytes, count: usize) -> Outcome {
    let attempt = async { destination.exporter.export(request, count).await };
    AssertUnwindSafe(attempt)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Outcome::Retryable {
            // Longer than any deadline.
            after: Some(Duration::MAX),
            error: "the exporter panicked".to_owned(),
        })
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
    if !std::mem::replace(&mut destination.delivered, true) {
        diagnostic::log(
            Level::Debug,
            &format!("{} took its first spans", destination.exporter.name()),
        );
    }
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
