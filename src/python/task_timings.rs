//! `Timings`: where the time of a task went, from its creation to its end.

use crate::span::Span as Recording;
use crate::ticks::Ticks;
use crate::wire::attribute::key;

/// What the steps of a task took. A step is what runs between two suspensions.
pub(super) struct Timings {
    created: Ticks,
    queued: u64,
    run: u64,
    steps: u64,
}

impl Timings {
    /// Those of a task that is created now.
    #[inline]
    pub(super) fn new() -> Self {
        Self {
            created: Ticks::now(),
            queued: 0,
            run: 0,
            steps: 0,
        }
    }

    /// A step is over.
    #[inline]
    pub(super) fn count(&mut self, from: Ticks, to: Ticks) {
        if self.steps == 0 {
            self.queued = from.since(self.created);
        }
        self.steps += 1;
        self.run += to.since(from);
    }

    /// Writes them on the span of the task, which ends `lasted_ns` after it was created. They add up to that.
    ///
    /// A task that was never stepped has spent all its time in the queue.
    #[inline]
    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds, exact to the nanosecond for 104 days"
    )]
    pub(super) fn write(&self, span: &mut Recording, lasted_ns: u64) {
        let lasted = lasted_ns as f64 / 1e9;
        let ticks = Ticks::now().since(self.created);
        let tick = if ticks == 0 {
            0.0
        } else {
            lasted / ticks as f64
        };
        let queued = if self.steps == 0 {
            lasted
        } else {
            (self.queued as f64 * tick).min(lasted)
        };
        let run = (self.run as f64 * tick).min(lasted - queued);
        span.push_known_double(&key!("rvh_trace.task.queue_time"), queued);
        span.push_known_double(&key!("rvh_trace.task.run_time"), run);
        span.push_known_double(
            &key!("rvh_trace.task.suspended_time"),
            lasted - queued - run,
        );
        span.push_known_int(&key!("rvh_trace.task.steps"), self.steps.cast_signed());
    }
}
