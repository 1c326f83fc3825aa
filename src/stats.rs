//! What the library counts about itself: relaxed atomics, one for each thing that can become of a span or a log record.
//!
//! Outcomes are counted under a lock of the [batch](crate::pipeline::batch), one lock a request, so a [`Snapshot`] is
//! consistent: in every one, ended = exported + dropped + spooled + queued + in flight, each counted on its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::pipeline::batch::Contents;

/// Why a finished span did not reach its destination.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DropReason {
    /// The queue was full: spans ended faster than they could be sent.
    QueueFull,
    /// The destination refused them for good.
    Rejected,
    /// The destination could not be reached in the export timeout.
    Failed,
    /// The process ended, or `shutdown` gave up, before they could be sent.
    Exit,
    /// The destination could not be reached and the spool directory was full.
    SpoolFull,
    /// They were on disk and are not any more, or not as they were written.
    SpoolDamaged,
    /// The destination does not take this kind of telemetry.
    Unsupported,
}

/// What became of spans that were on disk.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct SpoolOutcome {
    /// All of them.
    pub(crate) spans: u64,
    pub(crate) delivered: u64,
    pub(crate) rejected: u64,
    pub(crate) damaged: u64,
    /// Bytes of the requests that were taken.
    pub(crate) bytes: u64,
}

/// The counters of one process; log records have counters of their own.
#[derive(Debug, Default)]
pub struct Stats {
    started: AtomicU64,
    not_sampled: AtomicU64,
    exported: AtomicU64,
    queue_full: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    exit: AtomicU64,
    spool_full: AtomicU64,
    spool_damaged: AtomicU64,
    unsupported: AtomicU64,
    spooled: AtomicU64,
    /// Spans that are on disk and not yet counted as `spooled`.
    unsettled_spooled: AtomicU64,
    spooled_bytes: AtomicU64,
    recovered: AtomicU64,
    damaged_spool_files: AtomicU64,
    retries: AtomicU64,
    exported_bytes: AtomicU64,
    metric_exports: AtomicU64,
    metric_exports_failed: AtomicU64,
    worker_alive: AtomicBool,
    last_error: Mutex<Option<String>>,
}

/// A reading of [`Stats`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is the counter of that name; the stub of `stats()` documents them"
)]
pub struct Snapshot {
    pub started: u64,
    pub ended: u64,
    pub not_sampled: u64,
    pub queued: u64,
    pub queued_bytes: u64,
    pub in_flight: u64,
    pub exported: u64,
    pub dropped_queue_full: u64,
    pub dropped_rejected: u64,
    pub dropped_failed: u64,
    pub dropped_exit: u64,
    pub dropped_spool_full: u64,
    pub dropped_spool_damaged: u64,
    pub spooled: u64,
    pub spooled_bytes: u64,
    pub recovered: u64,
    pub damaged_spool_files: u64,
    pub retries: u64,
    pub exported_bytes: u64,
    pub metric_exports: u64,
    pub metric_exports_failed: u64,
    pub worker_alive: bool,
    pub last_error: Option<String>,
    pub logs: LogSnapshot,
}

/// What became of log records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is the counter of that name; the stub of `stats()` documents them"
)]
pub struct LogSnapshot {
    pub created: u64,
    pub queued: u64,
    pub queued_bytes: u64,
    pub in_flight: u64,
    pub exported: u64,
    pub exported_bytes: u64,
    pub dropped_queue_full: u64,
    pub dropped_rejected: u64,
    pub dropped_unsupported: u64,
    pub dropped_failed: u64,
    pub dropped_exit: u64,
}

impl LogSnapshot {
    /// Log records lost for any reason.
    pub fn dropped(&self) -> u64 {
        self.dropped_queue_full
            + self.dropped_exit
            + self.dropped_unsupported
            + self.dropped_by_destinations()
    }

    /// Log records lost because a destination that takes logs did not take them.
    pub fn dropped_by_destinations(&self) -> u64 {
        self.dropped_rejected + self.dropped_failed
    }

    /// Log records that wait in the queue or are on their way.
    pub fn pending(&self) -> u64 {
        self.queued + self.in_flight
    }

    /// Whether every log record is in exactly one place.
    pub fn is_balanced(&self) -> bool {
        self.created == self.exported + self.dropped() + self.pending()
    }
}

impl Snapshot {
    /// Spans lost for any reason.
    pub fn dropped(&self) -> u64 {
        self.dropped_queue_full + self.dropped_exit + self.dropped_by_destinations()
    }

    /// Spans lost because a destination did not take them.
    pub fn dropped_by_destinations(&self) -> u64 {
        self.dropped_rejected
            + self.dropped_failed
            + self.dropped_spool_full
            + self.dropped_spool_damaged
    }

    /// Spans that wait in the queue or are on their way.
    pub fn pending(&self) -> u64 {
        self.queued + self.in_flight
    }

    /// Recorded spans that have not ended, and those that never will.
    pub fn live(&self) -> u64 {
        self.started.saturating_sub(self.ended)
    }

    /// Whether every span that ended, and every log record, is in exactly one place. It is, in every snapshot, whatever
    /// happens meanwhile.
    pub fn is_balanced(&self) -> bool {
        self.ended == self.exported + self.dropped() + self.spooled + self.pending()
            && self.started >= self.ended
            && self.logs.is_balanced()
    }
}

impl Stats {
    #[inline]
    pub(crate) fn count_started(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn count_not_sampled(&self) {
        self.not_sampled.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_exported(&self, spans: u64, bytes: u64) {
        self.exported.fetch_add(spans, Ordering::Relaxed);
        self.exported_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request of metrics that every destination took that takes metrics.
    pub(crate) fn count_metric_export(&self) {
        self.metric_exports.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request of metrics that some destination did not take, or not whole.
    pub(crate) fn count_metric_export_failed(&self) {
        self.metric_exports_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_dropped(&self, reason: DropReason, spans: u64) {
        let counter = match reason {
            DropReason::QueueFull => &self.queue_full,
            DropReason::Rejected => &self.rejected,
            DropReason::Failed => &self.failed,
            DropReason::Exit => &self.exit,
            DropReason::SpoolFull => &self.spool_full,
            DropReason::SpoolDamaged => &self.spool_damaged,
            DropReason::Unsupported => &self.unsupported,
        };
        counter.fetch_add(spans, Ordering::Relaxed);
    }

    /// Counts spans that wait on disk for some destination and were lost to none.
    pub(crate) fn count_spooled(&self, spans: u64) {
        self.spooled.fetch_add(spans, Ordering::Relaxed);
    }

    /// Notes spans that were written to disk and will be counted when the request that they belong to is settled.
    pub(crate) fn count_unsettled_spooled(&self, spans: u64) {
        self.unsettled_spooled.fetch_add(spans, Ordering::Relaxed);
    }

    /// Notes that they were counted, as spooled or otherwise.
    pub(crate) fn settle_spooled(&self, spans: u64) {
        self.unsettled_spooled.fetch_sub(spans, Ordering::Relaxed);
    }

    pub(crate) fn unsettled_spooled(&self) -> u64 {
        self.unsettled_spooled.load(Ordering::Relaxed)
    }

    /// Counts what became of spans on disk. Those of other processes, which have counted them, and those that were on disk
    /// for a second destination are not in the balance of this process.
    pub(crate) fn count_spool_outcome(&self, is_ours: bool, outcome: &SpoolOutcome) {
        let spooled = self.spooled.load(Ordering::Relaxed);
        let mut in_balance = if is_ours {
            outcome.spans.min(spooled)
        } else {
            0
        };
        self.spooled.fetch_sub(in_balance, Ordering::Relaxed);
        let mut take = |spans: u64| {
            let taken = spans.min(in_balance);
            in_balance -= taken;
            taken
        };
        self.count_dropped(DropReason::SpoolDamaged, take(outcome.damaged));
        self.count_dropped(DropReason::Rejected, take(outcome.rejected));
        let exported = take(outcome.delivered);
        self.count_exported(exported, outcome.bytes);
        self.recovered
            .fetch_add(outcome.delivered - exported, Ordering::Relaxed);
    }

    pub(crate) fn count_damaged_spool_file(&self) {
        self.damaged_spool_files.fetch_add(1, Ordering::Relaxed);
    }

    /// Adds to the bytes on disk; a negative number as two's complement.
    pub(crate) fn count_spooled_bytes(&self, more: u64) {
        self.spooled_bytes.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn set_worker_alive(&self, is_alive: bool) {
        self.worker_alive.store(is_alive, Ordering::Relaxed);
    }

    pub(crate) fn set_last_error(&self, error: String) {
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// The counters now. Called while the batch holds still, see [`Batch::at_one_moment`].
    ///
    /// [`Batch::at_one_moment`]: crate::pipeline::batch::Batch::at_one_moment
    pub(crate) fn snapshot(&self, contents: Contents) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            ended: contents.pushed,
            queued: contents.queued,
            queued_bytes: contents.queued_bytes,
            in_flight: contents.in_flight,
            exported: read(&self.exported),
            dropped_queue_full: read(&self.queue_full),
            dropped_rejected: read(&self.rejected),
            dropped_failed: read(&self.failed),
            dropped_exit: read(&self.exit),
            dropped_spool_full: read(&self.spool_full),
            dropped_spool_damaged: read(&self.spool_damaged),
            spooled: read(&self.spooled),
            spooled_bytes: read(&self.spooled_bytes),
            recovered: read(&self.recovered),
            damaged_spool_files: read(&self.damaged_spool_files),
            not_sampled: read(&self.not_sampled),
            retries: read(&self.retries),
            exported_bytes: read(&self.exported_bytes),
            metric_exports: read(&self.metric_exports),
            metric_exports_failed: read(&self.metric_exports_failed),
            worker_alive: self.worker_alive.load(Ordering::Relaxed),
            last_error: self
                .last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            // Every span that ended was pushed under the lock that is held here, and had counted its start before.
            started: read(&self.started),
            logs: LogSnapshot::default(),
        }
    }

    /// [`Self::snapshot`] of counters of log records.
    pub(crate) fn log_snapshot(&self, contents: Contents) -> LogSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogSnapshot {
            created: contents.pushed,
            queued: contents.queued,
            queued_bytes: contents.queued_bytes,
            in_flight: contents.in_flight,
            exported: read(&self.exported),
            exported_bytes: read(&self.exported_bytes),
            dropped_queue_full: read(&self.queue_full),
            dropped_rejected: read(&self.rejected),
            dropped_unsupported: read(&self.unsupported),
            dropped_failed: read(&self.failed),
            dropped_exit: read(&self.exit),
        }
    }
}
