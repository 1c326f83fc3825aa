//! What the library counts about itself. Relaxed atomics: each counter is exact, a snapshot across counters is not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

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
}

/// The counters of one process.
#[derive(Debug, Default)]
pub struct Stats {
    not_sampled: AtomicU64,
    exported: AtomicU64,
    queue_full: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    exit: AtomicU64,
    retries: AtomicU64,
    exported_bytes: AtomicU64,
    metric_exports: AtomicU64,
    metric_exports_failed: AtomicU64,
    last_error: Mutex<Option<String>>,
}

/// A reading of [`Stats`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "each field is the counter of that name; the stub of `stats()` documents them"
)]
pub struct Snapshot {
    pub ended: u64,
    pub not_sampled: u64,
    pub exported: u64,
    pub dropped_queue_full: u64,
    pub dropped_rejected: u64,
    pub dropped_failed: u64,
    pub dropped_exit: u64,
    pub retries: u64,
    pub exported_bytes: u64,
    pub metric_exports: u64,
    pub metric_exports_failed: u64,
    pub last_error: Option<String>,
}

impl Snapshot {
    /// Spans lost for any reason.
    pub fn dropped(&self) -> u64 {
        self.dropped_queue_full + self.dropped_rejected + self.dropped_failed + self.dropped_exit
    }

    /// Spans that wait in the queue or are on their way.
    pub fn pending(&self) -> u64 {
        self.ended.saturating_sub(self.exported + self.dropped())
    }
}

impl Stats {
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
        };
        counter.fetch_add(spans, Ordering::Relaxed);
    }

    pub(crate) fn set_last_error(&self, error: String) {
        *self
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// The counters now; `ended` is counted by the queue.
    pub(crate) fn snapshot(&self, ended: impl FnOnce() -> u64) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // Outcomes before `ended`: a span that ends in between shows as pending, never as a negative number.
        Snapshot {
            exported: read(&self.exported),
            dropped_queue_full: read(&self.queue_full),
            dropped_rejected: read(&self.rejected),
            dropped_failed: read(&self.failed),
            dropped_exit: read(&self.exit),
            not_sampled: read(&self.not_sampled),
            retries: read(&self.retries),
            exported_bytes: read(&self.exported_bytes),
            metric_exports: read(&self.metric_exports),
            metric_exports_failed: read(&self.metric_exports_failed),
            last_error: self
                .last_error
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            ended: ended(),
        }
    }
}
