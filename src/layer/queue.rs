//! Where records wait for the thread that delivers them.
//!
//! A forked child gets a new queue: who held the lock of the old one at the fork does not matter. The old one is not freed.

use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{HOST, Kind, put_record, split_first};
use crate::diagnostic::{self, Level};
use crate::wire::span::Finished;

/// What may wait. The ends of spans that were let in go over it, one each.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that are delivered without further delay.
const ENOUGH_BYTES: usize = 64 * 1024;
/// How long a record waits for others: to take the GIL from a busy thread takes 6.5 ms.
const DELAY: Duration = Duration::from_millis(100);
/// Records given out at once: decoding them holds the GIL.
const CHUNK: u64 = 256;

/// Records that were taken out of the queue; see [`decode`](super::decode).
#[derive(Debug)]
pub struct Records {
    /// The number of the first, counted from the start of the process.
    pub first: u64,
    /// The records.
    pub bytes: Vec<u8>,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// When the first of them came.
    since: Option<Instant>,
    /// What the thread is working through, from `given` on.
    out: Vec<u8>,
    given: usize,
    /// Records, counted from the start of the process.
    pushed: u64,
    taken: u64,
    delivered: u64,
    dropped: u64,
    /// Everything before this record is wanted now.
    hurry: u64,
    has_thread: bool,
}

impl Waiting {
    fn len(&self) -> usize {
        self.bytes.len() + self.out.len() - self.given
    }

    /// The next records to deliver; `Err` with how long to wait for more, if it is known.
    fn take(&mut self) -> Result<Records, Option<Duration>> {
        if self.given == self.out.len() {
            let Some(since) = self.since else {
                return Err(None);
            };
            let left = DELAY.saturating_sub(since.elapsed());
            if !left.is_zero() && self.bytes.len() < ENOUGH_BYTES && self.hurry <= self.delivered {
                return Err(Some(left));
            }
            self.out.clear();
            self.out.shrink_to(ENOUGH_BYTES);
            self.given = 0;
            self.since = None;
            std::mem::swap(&mut self.out, &mut self.bytes);
        }
        let (start, first) = (self.given, self.taken);
        while self.taken - first < CHUNK
            && let Some((_, len)) = split_first(&self.out[self.given..])
        {
            self.given += len;
            self.taken += 1;
        }
        let bytes = self.out[start..self.given].to_vec();
        Ok(Records { first, bytes })
    }
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// For the thread that delivers.
    work: Condvar,
    /// For those who wait until it has.
    done: Condvar,
}

static QUEUE: AtomicPtr<Queue> = AtomicPtr::new(std::ptr::null_mut());

/// The queue of this process.
#[expect(unsafe_code, reason = "the pointer is null or leaked")]
pub(super) fn queue() -> &'static Queue {
    // SAFETY: null, or leaked below.
    if let Some(queue) = unsafe { QUEUE.load(Ordering::Acquire).as_ref() } {
        return queue;
    }
    let new = Box::into_raw(Box::<Queue>::default());
    let null = std::ptr::null_mut();
    let queue = match QUEUE.compare_exchange(null, new, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => new,
        Err(other) => {
            // SAFETY: made above, and nobody else has seen it.
            drop(unsafe { Box::from_raw(new) });
            other
        }
    };
    // SAFETY: one of the two, neither null, and never freed from now on.
    unsafe { &*queue }
}

/// Forgets the queue of the parent.
pub(super) fn renew() {
    QUEUE.store(std::ptr::null_mut(), Ordering::Release);
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record if there is room.
    pub(super) fn push(&self, kind: Kind, targets: u8, span: &Finished<'_>) -> bool {
        let mut waiting = self.waiting();
        if kind != Kind::Close && waiting.len() >= MAX_BYTES {
            waiting.dropped += 1;
            drop(waiting);
            diagnostic::log_once(Level::Warn, "layers-full", || {
                format!(
                    "layers do not see everything: {MAX_BYTES} bytes of records wait for them. See the `dropped` of their handles"
                )
            });
            return false;
        }
        let before = waiting.bytes.len();
        put_record(&mut waiting.bytes, kind, targets, span);
        waiting.pushed += 1;
        waiting.since.get_or_insert_with(Instant::now);
        let wakes = before == 0 || (before < ENOUGH_BYTES && waiting.bytes.len() >= ENOUGH_BYTES);
        let had_thread = std::mem::replace(&mut waiting.has_thread, true);
        drop(waiting);
        if wakes {
            self.work.notify_one();
        }
        if !had_thread && let Some(host) = HOST.get() {
            (host.start_thread)();
        }
        true
    }

    pub(super) fn next(&self) -> Records {
        let mut waiting = self.waiting();
        waiting.delivered = waiting.taken;
        self.done.notify_all();
        loop {
            let left = match waiting.take() {
                Ok(records) => return records,
                Err(left) => left,
            };
            waiting = match left {
                Some(left) => self
                    .work
                    .wait_timeout(waiting, left)
                    .map_or_else(|poisoned| poisoned.into_inner().0, |(waiting, _)| waiting),
                None => self
                    .work
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.waiting().pushed
    }

    pub(super) fn dropped(&self) -> u64 {
        self.waiting().dropped
    }

    /// Has everything that waits delivered at once; gives what [`Self::wait`] takes.
    pub(super) fn hurry(&self) -> u64 {
        let mut waiting = self.waiting();
        waiting.hurry = waiting.pushed;
        self.work.notify_one();
        waiting.pushed
    }

    /// Waits until everything before the record `position` is delivered; how much of it is not at the deadline.
    pub(super) fn wait(&self, position: u64, deadline: Instant) -> u64 {
        let mut waiting = self.waiting();
        while waiting.delivered < position {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting = self
                .done
                .wait_timeout(waiting, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(waiting, _)| waiting);
        }
        position.saturating_sub(waiting.delivered)
    }
}
