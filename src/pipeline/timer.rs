//! A deadline that is moved again and again and hardly ever reached.
//!
//! A timer of Tokio's that is set earlier than every other wakes its thread through the kernel, even the one that sets it:
//! two system calls, and a turn of the loop for nothing. So the timer in here stays where it is when the deadline moves to a
//! later time, and is set to that when it fires: once a period, not once a request.

use std::pin::Pin;

use tokio::time::{Instant, Sleep, sleep_until};

/// Used by one task, on one runtime.
#[derive(Default)]
pub(crate) struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Returns when `deadline` is over. May be dropped at any await and called again with another deadline.
    pub(crate) async fn passed(&mut self, deadline: Instant) {
        let sleep = self
            .0
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            sleep.as_mut().await;
            if sleep.deadline() >= deadline {
                return;
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::task::Poll;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_deadline_that_moves_is_kept_and_a_timer_that_need_not_is_not_moved() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut timer = Timer::default();
            let begun = Instant::now();
            let soon = begun + Duration::from_millis(20);
            assert!(futures::poll!(Box::pin(timer.passed(soon))).is_pending());
            let later = soon + Duration::from_millis(20);
            assert!(futures::poll!(Box::pin(timer.passed(later))).is_pending());
            assert_eq!(timer.0.as_ref().map(|sleep| sleep.deadline()), Some(soon));
            timer.passed(later).await;
            assert!(Instant::now() >= later);
            assert_eq!(
                futures::poll!(Box::pin(timer.passed(soon))),
                Poll::Ready(()),
                "it is over already"
            );
            let ages = later + Duration::from_secs(3600);
            assert!(futures::poll!(Box::pin(timer.passed(ages))).is_pending());
            let earlier = Instant::now() + Duration::from_millis(5);
            timer.passed(earlier).await;
            assert!(Instant::now() >= earlier, "it is moved to an earlier time");
        });
    }
}
