//! Getting one request to one destination: attempts, waits, deadline, halves when it is too large.
//!
//! The same for every signal. A request has one deadline around all its attempts. A shutdown cuts waits between attempts
//! short and lowers the deadline to its own.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::FutureExt;
use tokio::sync::watch;
use tokio::time::Instant;

use super::Pipeline;
use super::exporter::{Exporter, Outcome};
use crate::config::Signal;
use crate::diagnostic::{self, Level};
use crate::metrics::ExporterStats;
use crate::stats::Stats;
use crate::wire::request::Envelope;
use crate::wire::span::take_spans;

/// A request never holds more than this, whatever the span count says: OTLP receivers limit messages to 4 MiB by default.
pub(super) const MAX_REQUEST_BYTES: usize = 2 * 1024 * 1024;
/// First and longest wait between attempts (OTLP specification, "exponential backoff with jitter").
const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// How long a destination that does not take logs is not asked again: a record may come every second, and a collector may
/// learn. Metrics have their interval.
const REST: Duration = Duration::from_secs(60);

/// An exporter and whether its last request failed.
pub(super) struct Destination {
    exporter: Box<dyn Exporter>,
    signal: Signal,
    failing: bool,
    delivered: bool,
    /// Until when a destination that does not take logs is left alone.
    rests_until: Option<Instant>,
    /// Of an exporter of spans, for its self-metrics.
    exporter_stats: Option<Arc<ExporterStats>>,
}

/// What became of one request at one destination.
enum Fate {
    Delivered { rejected: u64 },
    Failed,
    Rejected,
    Unsupported,
    TooLarge,
    Spooled,
    SpoolFull,
}

/// What became of the items of one request at one destination, split or not.
#[derive(Default)]
pub(crate) struct Tally {
    /// Could not be sent in time.
    pub(crate) failed: u64,
    /// Refused for good.
    pub(crate) rejected: u64,
    /// Of a kind that the destination does not take.
    pub(crate) unsupported: u64,
    /// Found no room in the destination's own queue.
    pub(crate) queue_full: u64,
    /// Not sent, and on disk.
    pub(crate) spooled: u64,
    /// Not sent, and without room on disk.
    pub(crate) spool_full: u64,
    /// Bytes of the requests that were taken.
    pub(crate) delivered_bytes: u64,
}

/// What every delivery of a process needs.
#[derive(Clone)]
pub(super) struct Delivery {
    pub(super) envelope: &'static Envelope,
    pub(super) stats: &'static Stats,
    /// The deadline of a shutdown, once there is one.
    pub(super) shutdown: watch::Receiver<Option<Instant>>,
}

impl Destination {
    pub(super) fn new(mut exporter: Box<dyn Exporter>, signal: Signal) -> Self {
        exporter.start();
        diagnostic::log(
            Level::Debug,
            &format!("{} go to {}", signal.items(), exporter.name()),
        );
        Self {
            exporter,
            signal,
            failing: false,
            delivered: false,
            rests_until: None,
            exporter_stats: None,
        }
    }

    /// Counts in `stats` too what becomes of each request.
    pub(super) fn counted_in(mut self, pipeline: &Pipeline) -> Self {
        self.exporter_stats = Some(pipeline.stats_of_exporter(self.exporter.name()));
        self
    }

    /// For logs.
    pub(super) fn name(&self) -> &str {
        self.exporter.name()
    }

    /// One attempt. An exporter that panics has failed for good; the worker goes on.
    async fn attempt(&mut self, request: Bytes, count: usize) -> Outcome {
        let attempt = async { self.exporter.export(request, count).await };
        AssertUnwindSafe(attempt)
            .catch_unwind()
            .await
            .unwrap_or_else(|_| Outcome::Retryable {
                // Longer than any deadline.
                after: Some(Duration::MAX),
                error: "the exporter panicked".to_owned(),
            })
    }

    fn delivered(&mut self, stats: &Stats, rejected: u64, message: Option<String>) -> Fate {
        let (name, items) = (self.exporter.name(), self.signal.items());
        if !std::mem::replace(&mut self.delivered, true) {
            diagnostic::log(Level::Debug, &format!("{name} took its first {items}"));
        }
        if std::mem::take(&mut self.failing) && !self.exporter.logs_refusals() {
            diagnostic::log(Level::Info, &format!("{name} takes {items} again"));
        }
        if rejected > 0 || message.is_some() {
            let error = message.unwrap_or_else(|| "no reason was given".to_owned());
            let cause = match self.signal {
                Signal::Logs => "partial-success-logs",
                _ => "partial-success",
            };
            diagnostic::log_once(Level::Warn, cause, || {
                format!("{name} refused {rejected} {items} of a request: {error}")
            });
            stats.set_last_error(error);
        }
        Fate::Delivered { rejected }
    }

    fn warn_of_outage(&mut self, stats: &Stats, error: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            let (name, items) = (self.exporter.name(), self.signal.items());
            diagnostic::log(
                Level::Warn,
                &format!(
                    "{items} cannot be exported to {name}: {error}. Trying again; losses are counted in rvh_trace.stats()"
                ),
            );
        }
        stats.set_last_error(error.to_owned());
    }

    fn fail(&mut self, stats: &Stats, count: usize, error: &str) -> Fate {
        self.warn_of_outage(stats, error);
        diagnostic::log(
            Level::Debug,
            &format!(
                "gave up on {count} {} for {}: {error}",
                self.signal.items(),
                self.exporter.name()
            ),
        );
        Fate::Failed
    }

    fn report(&mut self, stats: &Stats, count: usize, what: &str, error: String) {
        // One line an outage: a wrong path or token fails every request in the same way.
        if !std::mem::replace(&mut self.failing, true) && !self.exporter.logs_refusals() {
            let (name, items) = (self.exporter.name(), self.signal.items());
            diagnostic::log(
                Level::Warn,
                &format!("{name} {what} {count} {items}: {error}"),
            );
        }
        stats.set_last_error(error);
    }
}

impl Delivery {
    /// Lets the exporter write out what it holds back, until the deadline or the shutdown's if that is earlier. `is_last`:
    /// it gets nothing any more and may let go of what it has.
    pub(super) async fn flush(
        &self,
        destination: &mut Destination,
        timeout: Duration,
        is_last: bool,
    ) {
        let deadline = Instant::now() + timeout;
        let flush = async {
            destination.exporter.catch_up().await;
            if is_last {
                destination.exporter.shutdown().await;
            } else {
                destination.exporter.force_flush().await;
            }
        };
        let flush = AssertUnwindSafe(flush).catch_unwind();
        // What goes wrong in it is the exporter's to tell; the spans have been counted.
        let _ = before_deadline(&mut self.shutdown.clone(), deadline, flush).await;
    }

    /// Delivers `items`, a run of `ScopeSpans.spans`, `ScopeMetrics.metrics` or `ResourceLogs.scope_logs`, in halves while the destination says that
    /// `request`, which holds them, is too large.
    pub(super) async fn deliver_in_parts(
        self,
        destination: &mut Destination,
        request: Bytes,
        items: &[u8],
        count: usize,
        deadline: Instant,
    ) -> Tally {
        let exporter_stats = destination.exporter_stats.clone();
        let operation = exporter_stats.as_deref().map(|stats| stats.begin(count));
        let mut tally = Tally::default();
        let mut parts = vec![(request, items, count)];
        while let Some((request, part, count)) = parts.pop() {
            let bytes = request.len() as u64;
            match self.deliver(destination, request, count, deadline).await {
                Fate::Delivered { rejected } => {
                    // Data points, where the items are metrics: never more than there are.
                    tally.rejected += rejected.min(count as u64);
                    tally.delivered_bytes += bytes;
                }
                Fate::Failed => tally.failed += count as u64,
                Fate::Unsupported => tally.unsupported += count as u64,
                Fate::Spooled => tally.spooled += count as u64,
                Fate::SpoolFull => tally.spool_full += count as u64,
                Fate::TooLarge if count > 1 => {
                    let (half, middle) = take_spans(part, count / 2, usize::MAX);
                    let (first, second) = part.split_at(middle);
                    parts.push((self.envelope.request(second), second, count - half));
                    parts.push((self.envelope.request(first), first, half));
                }
                Fate::Rejected | Fate::TooLarge => tally.rejected += count as u64,
            }
        }
        if let Some(operation) = operation {
            operation.end(&tally);
        }
        tally
    }

    /// Attempts to deliver one request until the deadline, or the shutdown's if that is earlier.
    async fn deliver(
        &self,
        destination: &mut Destination,
        request: Bytes,
        count: usize,
        deadline: Instant,
    ) -> Fate {
        if destination
            .rests_until
            .is_some_and(|until| Instant::now() < until)
        {
            return Fate::Unsupported;
        }
        let (stats, mut shutdown) = (self.stats, self.shutdown.clone());
        let mut backoff = FIRST_BACKOFF;
        let mut last_error = None;
        loop {
            let attempt = destination.attempt(request.clone(), count);
            let Some(outcome) = before_deadline(&mut shutdown, deadline, attempt).await else {
                let error =
                    last_error.unwrap_or_else(|| "no answer before the deadline".to_owned());
                if destination.exporter.keep(request, count).await {
                    destination.warn_of_outage(stats, &error);
                    return Fate::Spooled;
                }
                return destination.fail(stats, count, &error);
            };
            let (after, error) = match outcome {
                Outcome::Delivered { rejected, message } => {
                    return destination.delivered(stats, rejected, message);
                }
                Outcome::Rejected { error } => {
                    destination.report(stats, count, "refused", error);
                    return Fate::Rejected;
                }
                Outcome::Unsupported { error } => {
                    destination.report(stats, count, "does not take", error);
                    if destination.signal == Signal::Logs {
                        destination.rests_until = Some(Instant::now() + REST);
                    }
                    return Fate::Unsupported;
                }
                Outcome::TooLarge { error } => {
                    if count == 1 {
                        destination.report(stats, count, "too large, refused", error);
                    }
                    return Fate::TooLarge;
                }
                Outcome::Spooled { error } => {
                    destination.warn_of_outage(stats, &error);
                    return Fate::Spooled;
                }
                Outcome::SpoolFull { error } => {
                    destination.warn_of_outage(stats, &error);
                    return Fate::SpoolFull;
                }
                Outcome::Retryable { after, error } => (after, error),
            };
            // Said at the first failure of an outage, not when the last attempt has failed: half a minute matters at
            // night.
            destination.warn_of_outage(stats, &error);
            let wait = after.unwrap_or_else(|| jittered(backoff));
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
            let stopping = shutdown.borrow().is_some();
            // Not `now + wait`: a destination may ask for a wait that no clock can show.
            if stopping || wait >= deadline.saturating_duration_since(Instant::now()) {
                return destination.fail(stats, count, &error);
            }
            last_error = Some(error);
            stats.count_retry();
            // A shutdown ends the wait at once: one last attempt, then the rest of the queue.
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = shutdown.wait_for(Option::is_some) => {}
            }
        }
    }
}

/// The output of `attempt`, or `None` if the deadline or the one of a shutdown passes first.
pub(super) async fn before_deadline<T>(
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
pub(super) fn jittered(backoff: Duration) -> Duration {
    backoff / 2 + backoff.mul_f64(fastrand::f64() / 2.0)
}
