//! When a loop was last alive and when it is to be next.
//!
//! The loop's thread writes, the watcher reads. All orderings are relaxed: each number stands for itself, and what is done
//! about a late beat is decided again by threads that hold the GIL.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::collection::collected_ns;
use crate::clock::{Start, monotonic_ns};

/// Beats in a threshold: a block is found at the latest this part of the threshold after it has lasted that long.
const BEATS: u32 = 2;
/// What a beat costs, 50 to 150 us with the wake-up of the loop, bounds how often there may be one.
const SHORTEST_PERIOD: Duration = Duration::from_millis(10);
/// The lag is sampled this often even if blocks are of interest only when they are long.
const LONGEST_PERIOD: Duration = Duration::from_millis(250);
/// How often one looks whether a loop that was blocked was closed or stopped instead of coming back.
const EXAMINED_AGAIN_NS: u64 = 1_000_000_000;

/// The heart of a loop.
#[derive(Debug)]
pub struct Heart {
    threshold_ns: u64,
    period: Duration,
    /// When the next beat is due, on the monotonic clock; 0 while none is awaited.
    due_ns: AtomicU64,
    /// What collections had taken at the last beat.
    collected_ns: AtomicU64,
    /// The beat whose absence the watcher noticed last, and when it did.
    missed_due_ns: AtomicU64,
    noticed_ns: AtomicU64,
    is_stopped: AtomicBool,
}

/// What the watcher sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// Nothing is wrong, and nothing can be before that time.
    Well {
        /// On the monotonic clock; `u64::MAX` while no beat is awaited.
        until_ns: u64,
    },
    /// The beat that was due then has not come.
    Late {
        /// On the monotonic clock.
        due_ns: u64,
    },
}

/// A beat that was awaited.
#[derive(Clone, Copy, Debug)]
pub struct Beat {
    /// How late it was.
    pub lag_ns: u64,
    /// The block that it ends, if the watcher noticed one.
    pub block: Option<Block>,
}

impl Heart {
    /// A heart that has not begun to beat.
    pub fn new(threshold: Duration) -> Self {
        Self {
            threshold_ns: u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX),
            period: (threshold / BEATS).clamp(SHORTEST_PERIOD, LONGEST_PERIOD),
            due_ns: AtomicU64::new(0),
            collected_ns: AtomicU64::new(0),
            missed_due_ns: AtomicU64::new(0),
            noticed_ns: AtomicU64::new(0),
            is_stopped: AtomicBool::new(false),
        }
    }

    /// How late a beat must be for the loop to count as blocked, in nanoseconds.
    pub fn threshold_ns(&self) -> u64 {
        self.threshold_ns
    }

    /// How long after a beat the next one is due.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// A beat, on the loop's thread; the next one is due a period from now. `None` for the first, and the first after
    /// [`Self::rest`].
    pub fn beat(&self) -> Option<Beat> {
        self.beat_at(monotonic_ns())
    }

    fn beat_at(&self, now_ns: u64) -> Option<Beat> {
        let next_ns = now_ns.saturating_add(self.period.as_nanos() as u64);
        let due_ns = self.due_ns.swap(next_ns, Ordering::Relaxed);
        let block = self.block(due_ns);
        self.collected_ns
            .store(collected_ns(now_ns), Ordering::Relaxed);
        (due_ns != 0).then(|| Beat {
            lag_ns: now_ns.saturating_sub(due_ns),
            block: (self.missed_due_ns.load(Ordering::Relaxed) == due_ns).then_some(block),
        })
    }

    /// Awaits no beat until there is one: the loop does not run.
    pub fn rest(&self) {
        self.due_ns.store(0, Ordering::Relaxed);
    }

    /// Whether the beat that was due then is still awaited.
    pub fn is_awaited(&self, due_ns: u64) -> bool {
        self.due_ns.load(Ordering::Relaxed) == due_ns
    }

    /// The block that began when a beat was due, while that beat is awaited.
    pub fn block(&self, due_ns: u64) -> Block {
        Block {
            since_ns: due_ns,
            collected_ns: self.collected_ns.load(Ordering::Relaxed),
        }
    }

    /// Nobody watches any more. Whether somebody did.
    pub fn stop(&self) -> bool {
        self.rest();
        !self.is_stopped.swap(true, Ordering::Relaxed)
    }

    /// Whether [`Self::stop`] was called.
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// What the watcher sees at `now_ns`. A beat that is late is [`Look::Late`] once, and now and then again while it stays away.
    pub(super) fn look(&self, now_ns: u64) -> Look {
        let due_ns = self.due_ns.load(Ordering::Relaxed);
        if due_ns == 0 {
            return Look::Well { until_ns: u64::MAX };
        }
        let until_ns = if self.missed_due_ns.load(Ordering::Relaxed) == due_ns {
            self.noticed_ns.load(Ordering::Relaxed) + EXAMINED_AGAIN_NS
        } else {
            due_ns.saturating_add(self.threshold_ns)
        };
        if now_ns < until_ns {
            return Look::Well { until_ns };
        }
        self.noticed_ns.store(now_ns, Ordering::Relaxed);
        self.missed_due_ns.store(due_ns, Ordering::Relaxed);
        Look::Late { due_ns }
    }
}

/// A time in which a loop came to nothing else, since a beat was due.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    since_ns: u64,
    /// What collections had taken before, of all time.
    collected_ns: u64,
}

impl Block {
    /// How long it has lasted, in nanoseconds.
    pub fn lasted_ns(&self) -> u64 {
        monotonic_ns().saturating_sub(self.since_ns)
    }

    /// When it began.
    pub fn start(&self) -> Start {
        Start::at(Start::now().unix_ns().saturating_sub(self.lasted_ns()))
    }

    /// How long it has lasted, in seconds, and which share of that garbage collections took, from 0 to 1.
    #[expect(
        clippy::cast_precision_loss,
        reason = "exact to the nanosecond for 104 days"
    )]
    pub fn measure(&self) -> (f64, f64) {
        let now_ns = monotonic_ns();
        let lasted = now_ns.saturating_sub(self.since_ns).max(1) as f64;
        let collecting = collected_ns(now_ns).saturating_sub(self.collected_ns) as f64;
        // One before the block counts with it if no beat came in between.
        (lasted / 1e9, (collecting / lasted).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_heart_that_beats_is_well_and_one_that_does_not_is_late_once() {
        let heart = Heart::new(Duration::from_millis(100));
        assert_eq!(heart.look(MS), Look::Well { until_ns: u64::MAX });
        assert!(heart.beat_at(1_000 * MS).is_none());
        let until_ns = 1_150 * MS;
        assert_eq!(heart.look(1_149 * MS), Look::Well { until_ns });
        let beat = heart.beat_at(1_055 * MS);
        assert_eq!(beat.map(|beat| beat.lag_ns), Some(5 * MS));
        assert!(beat.is_some_and(|beat| beat.block.is_none()));
        let due_ns = 1_105 * MS;
        let until_ns = due_ns + 100 * MS;
        assert_eq!(heart.look(until_ns - 1), Look::Well { until_ns });
        assert_eq!(heart.look(until_ns), Look::Late { due_ns });
        assert!(heart.is_awaited(due_ns));
        let again_ns = until_ns + EXAMINED_AGAIN_NS;
        assert_eq!(heart.look(again_ns - 1), Look::Well { until_ns: again_ns });
        assert_eq!(heart.look(again_ns), Look::Late { due_ns });
        let beat = heart.beat_at(due_ns + 3_000 * MS);
        assert_eq!(beat.map(|beat| beat.lag_ns), Some(3_000 * MS));
        assert!(beat.is_some_and(|beat| beat.block.is_some()));
        assert!(!heart.is_awaited(due_ns));
    }

    #[test]
    fn a_heart_at_rest_is_not_late_and_its_next_beat_has_no_lag() {
        let heart = Heart::new(Duration::from_millis(100));
        heart.beat_at(1_000 * MS);
        heart.rest();
        assert_eq!(heart.look(9_000 * MS), Look::Well { until_ns: u64::MAX });
        assert!(heart.beat_at(9_000 * MS).is_none());
        assert!(
            heart
                .beat_at(9_025 * MS)
                .is_some_and(|beat| beat.lag_ns == 0)
        );
    }

    #[test]
    fn the_period_follows_the_threshold_within_bounds() {
        let period = |threshold_ms| Heart::new(Duration::from_millis(threshold_ms)).period();
        assert_eq!(period(100), Duration::from_millis(50));
        assert_eq!(period(1), SHORTEST_PERIOD);
        assert_eq!(period(60_000), LONGEST_PERIOD);
        assert_eq!(
            Heart::new(Duration::MAX).look(1),
            Look::Well { until_ns: u64::MAX }
        );
    }
}
