//! The queue between the threads that end spans and the worker: encoded spans in one buffer, bounded in bytes. Log records
//! have one of their own, of the same kind; what is said of spans here is then said of them.
//!
//! One short lock a span, held for two comparisons and one copy; nothing is allocated while it is held except when the
//! buffer grows. The bound covers what waits *and* what the worker holds, so memory stays flat while a collector is
//! down. When it is full the newest span is dropped: what is queued explains how the trouble began.

use std::sync::PoisonError;

use crate::config::BatchConfig;
use crate::stats::{DropReason, Stats};
use crate::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard, Notify, Ordering};
use crate::wire::span::{Finished, put_span};

/// A larger empty buffer is not kept for the next batch. Smaller ones are: a buffer that is mapped anew costs the thread
/// that fills it a page fault every 4 KiB, 20 to 40 ns a span.
pub(super) const KEPT_CAPACITY: usize = 1024 * 1024;

/// What became of a span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pushed {
    /// It waits.
    Queued,
    /// It waits and completes a batch, or fills half of the room: the worker should be woken.
    Wake,
    /// There was no room.
    Full,
    /// The pipeline is shut down.
    Closed,
}

/// A run of `ScopeSpans.spans` fields, or of `ResourceLogs.scope_logs` fields with one log record each.
#[derive(Debug, Default)]
pub struct Spans {
    /// The encoded spans.
    pub bytes: Vec<u8>,
    /// How many they are.
    pub count: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    spans: Spans,
    /// How much of them is whole batches, in bytes and in spans.
    complete: (usize, usize),
    /// Every span that was ever pushed, room or not. Counted here because the lock is held anyway.
    pushed: u64,
}

/// What [`Batch::at_one_moment`] finds, in spans.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Contents {
    /// Ended so far, whatever became of them.
    pub(crate) pushed: u64,
    pub(crate) queued: u64,
    pub(crate) queued_bytes: u64,
    /// Taken by the worker and not settled.
    pub(crate) in_flight: u64,
}

/// The queue.
#[derive(Debug)]
pub struct Batch {
    waiting: Mutex<Waiting>,
    /// Bytes and spans that the worker has taken and not yet settled.
    in_flight_bytes: AtomicUsize,
    in_flight_spans: AtomicUsize,
    /// Spans that wait at several destinations, each of which has bounds of its own; changed under the lock.
    handed_over: AtomicUsize,
    closed: AtomicBool,
    /// Set by a shutdown that has counted what the worker still held. Outcomes are counted under it, and before `waiting`
    /// is locked if both are.
    abandoned: Mutex<bool>,
    notify: Notify,
    max_bytes: usize,
    max_spans: usize,
    wake_at: usize,
    /// Large spans fill the room before they are a batch.
    wake_at_bytes: usize,
}

impl Batch {
    /// An empty queue with the bounds of `config`.
    pub fn new(config: &BatchConfig) -> Self {
        let max_spans = config.max_queue_spans.unwrap_or(usize::MAX);
        Self {
            waiting: Mutex::default(),
            in_flight_bytes: AtomicUsize::new(0),
            in_flight_spans: AtomicUsize::new(0),
            handed_over: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            abandoned: Mutex::new(false),
            notify: Notify::new(),
            max_bytes: config.max_queue_bytes,
            max_spans,
            wake_at: config.max_export_batch_size.min(max_spans).max(1),
            wake_at_bytes: config.max_queue_bytes / 2,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a span if there is room.
    #[inline]
    pub(crate) fn push(&self, span: &Finished<'_>, stats: &Stats) -> Pushed {
        self.push_with(span.encoded_len(), |out| put_span(out, span), stats)
    }

    /// Appends the `len` bytes that `put` writes if there is room. `put` runs under the lock.
    #[inline]
    pub(crate) fn push_with(
        &self,
        len: usize,
        put: impl FnOnce(&mut Vec<u8>),
        stats: &Stats,
    ) -> Pushed {
        let mut waiting = self.waiting();
        waiting.pushed += 1;
        if self.closed.load(Ordering::Relaxed) {
            // Counted under the lock, here and below: whoever sees the span as ended sees it as dropped.
            stats.count_dropped(DropReason::Exit, 1);
            return Pushed::Closed;
        }
        // Relaxed, but after the lock: only `take` raises them, and it holds the lock. So the bound is exact.
        let in_flight_bytes = self.in_flight_bytes.load(Ordering::Relaxed);
        let in_flight_spans = self.in_flight_spans.load(Ordering::Relaxed);
        let spans = &mut waiting.spans;
        let before = spans.bytes.len();
        if before + in_flight_bytes + len > self.max_bytes
            || spans.count + in_flight_spans >= self.max_spans
        {
            stats.count_dropped(DropReason::QueueFull, 1);
            return Pushed::Full;
        }
        put(&mut spans.bytes);
        spans.count += 1;
        if spans.count - waiting.complete.1 == self.wake_at {
            waiting.complete = (waiting.spans.bytes.len(), waiting.spans.count);
        }
        let half_full = before < self.wake_at_bytes && before + len >= self.wake_at_bytes;
        if waiting.spans.count == self.wake_at || half_full {
            Pushed::Wake
        } else {
            Pushed::Queued
        }
    }

    /// Spans that wait or that the worker holds.
    pub(crate) fn unsettled(&self) -> u64 {
        let waiting = self.waiting();
        let in_flight = self.in_flight_spans.load(Ordering::Relaxed);
        (waiting.spans.count + in_flight + self.handed_over.load(Ordering::Relaxed)) as u64
    }

    /// Wakes the worker.
    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Waits until somebody calls [`Self::wake`].
    pub(crate) async fn woken(&self) {
        self.notify.notified().await;
    }

    /// Takes everything that waits; `empty` takes its place, so that its memory is used again.
    pub(crate) fn take(&self, empty: Spans) -> Spans {
        self.take_but(empty, |_| None)
    }

    /// Takes the batches that are complete: a request costs the same however few spans it holds. Everything, if there is no
    /// such batch, or if the room is half full of spans that are large.
    pub(crate) fn take_complete(&self, empty: Spans) -> Spans {
        self.take_but(empty, |waiting| {
            let is_worthwhile =
                waiting.complete.1 > 0 && waiting.spans.bytes.len() < self.wake_at_bytes;
            is_worthwhile.then_some(waiting.complete)
        })
    }

    /// Takes so many bytes and spans as `first` says, or all.
    fn take_but(
        &self,
        mut empty: Spans,
        first: impl FnOnce(&Waiting) -> Option<(usize, usize)>,
    ) -> Spans {
        empty.bytes.clear();
        empty.bytes.shrink_to(KEPT_CAPACITY);
        empty.count = 0;
        let mut waiting = self.waiting();
        let rest = first(&waiting);
        let mut taken = std::mem::replace(&mut waiting.spans, empty);
        waiting.complete = (0, 0);
        if let Some((bytes, count)) = rest {
            // Less than a batch: some ten KiB.
            waiting.spans.bytes.extend_from_slice(&taken.bytes[bytes..]);
            waiting.spans.count = taken.count - count;
            taken.bytes.truncate(bytes);
            taken.count = count;
        }
        self.in_flight_bytes
            .store(taken.bytes.len(), Ordering::Relaxed);
        self.in_flight_spans.store(taken.count, Ordering::Relaxed);
        taken
    }

    /// Gives back the room of spans whose fate is settled, and runs `count` unless [`Self::abandon`] has counted them.
    pub(crate) fn settle(&self, bytes: usize, spans: usize, count: impl FnOnce()) {
        let abandoned = self
            .abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !*abandoned {
            count();
        }
        self.in_flight_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.in_flight_spans.fetch_sub(spans, Ordering::Relaxed);
    }

    /// Gives back the room of spans that now wait at several destinations. They stay unsettled until
    /// [`Self::settle_handed_over`].
    pub(crate) fn hand_over(&self, bytes: usize, spans: usize) {
        let _waiting = self.waiting();
        self.handed_over.fetch_add(spans, Ordering::Relaxed);
        self.in_flight_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.in_flight_spans.fetch_sub(spans, Ordering::Relaxed);
    }

    /// The fate of spans that were handed over is settled: runs `count` unless [`Self::abandon`] has counted them.
    pub(crate) fn settle_handed_over(&self, spans: usize, count: impl FnOnce()) {
        let abandoned = self
            .abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !*abandoned {
            count();
        }
        let _waiting = self.waiting();
        self.handed_over.fetch_sub(spans, Ordering::Relaxed);
    }

    /// Runs `count` so that no snapshot falls in the middle of it.
    pub(crate) fn with_outcomes<T>(&self, count: impl FnOnce() -> T) -> T {
        let _outcomes = self
            .abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        count()
    }

    /// Runs `read` with what there is at one moment: outcomes are counted before or after it, not meanwhile.
    pub(crate) fn at_one_moment<T>(&self, read: impl FnOnce(Contents) -> T) -> T {
        let abandoned = self
            .abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let waiting = self.waiting();
        let (queued, in_flight) = if *abandoned {
            (0, 0)
        } else {
            let held = self.in_flight_spans.load(Ordering::Relaxed);
            let handed_over = self.handed_over.load(Ordering::Relaxed);
            (waiting.spans.count as u64, (held + handed_over) as u64)
        };
        read(Contents {
            pushed: waiting.pushed,
            queued,
            queued_bytes: waiting.spans.bytes.len() as u64,
            in_flight,
        })
    }

    /// Whether what waits and what the worker holds take half of the room.
    pub(crate) fn is_crowded(&self) -> bool {
        let waiting = self.waiting();
        let bytes = waiting.spans.bytes.len() + self.in_flight_bytes.load(Ordering::Relaxed);
        let spans = waiting.spans.count + self.in_flight_spans.load(Ordering::Relaxed);
        bytes >= self.max_bytes / 2 || spans >= self.max_spans / 2
    }

    /// Refuses spans from now on.
    pub(crate) fn close(&self) {
        let _waiting = self.waiting();
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Runs `count` with what is unsettled, on behalf of a shutdown that gives up; what the worker holds is then not counted again.
    pub(crate) fn abandon(&self, count: impl FnOnce(u64)) {
        let mut abandoned = self
            .abandoned
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *abandoned = true;
        count(self.unsettled());
    }
}
