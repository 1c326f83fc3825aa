//! `Ticks`: a counter that is read twice a step of a task.
//!
//! A read of the monotonic clock costs 22 ns, one of the processor's own counter 9: for a task of eleven steps a quarter of
//! a microsecond. What a tick is worth is known from the clock readings around the ticks that are compared with it, so there
//! is nothing to calibrate, and shares of a span add up to it whatever becomes of the counter (a suspended machine, a
//! migrated one). Without a counter that runs evenly it is the monotonic clock.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether [`Ticks::now`] reads the processor's counter. Written once, by [`initialise`].
static IS_EVEN: AtomicBool = AtomicBool::new(false);

/// A reading. Only differences of two mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks(u64);

impl Ticks {
    /// The current reading. Before [`initialise`] it is of another counter than after.
    #[inline]
    pub fn now() -> Self {
        #[cfg(target_arch = "x86_64")]
        if IS_EVEN.load(Ordering::Relaxed) {
            return Self(counter());
        }
        Self(crate::clock::monotonic_ns())
    }

    /// How many ticks ago `earlier` was; 0 if it was later.
    #[inline]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The time-stamp counter. Not ordered with what the processor does around it: that is some ten nanoseconds.
#[cfg(target_arch = "x86_64")]
#[inline]
#[expect(unsafe_code, reason = "an instruction")]
fn counter() -> u64 {
    // SAFETY: every x86-64 processor has it, and systems let programs read it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Finds out whether the processor has a counter that runs evenly, at one rate on all cores and in all power states
/// ("invariant TSC": AMD64 Architecture Programmer's Manual, volume 3, CPUID function `8000_0007h`; Intel SDM, volume
/// 3B, 19.17.1). Call it once, before anything is measured.
pub fn initialise() {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::__cpuid;
        const FEATURES: u32 = 0x8000_0007;
        const INVARIANT: u32 = 1 << 8;
        let is_even =
            __cpuid(0x8000_0000).eax >= FEATURES && __cpuid(FEATURES).edx & INVARIANT != 0;
        IS_EVEN.store(is_even, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_reading_is_not_earlier_and_the_counter_runs() {
        initialise();
        let start = Ticks::now();
        let start_ns = crate::clock::monotonic_ns();
        let mut last = start;
        while crate::clock::monotonic_ns() - start_ns < 1_000_000 {
            let now = Ticks::now();
            assert!(now.since(start) >= last.since(start));
            last = now;
        }
        assert!(last.since(start) > 0);
        assert_eq!(start.since(last), 0);
    }
}
