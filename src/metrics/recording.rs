//! Whether measurements count, and what happens at the first one.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// Nothing was measured yet.
const IDLE: u8 = 0;
const ON: u8 = 1;
/// Nothing is measured any more.
const CLOSED: u8 = 2;

/// The state that every measurement looks at first.
#[derive(Default)]
pub(super) struct Recording {
    /// Relaxed everywhere: it guards no data, and a stale value takes the slow path once more or loses a measurement that
    /// came together with the shutdown.
    state: AtomicU8,
    begin: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Recording {
    /// Sets what is called once, at the first measurement.
    pub(super) fn when_begun(&self, begin: Box<dyn Fn() + Send + Sync>) {
        let _ = self.begin.set(begin);
    }

    /// Whether the caller's measurement counts.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.state.load(Ordering::Relaxed) == ON || self.begin()
    }

    #[cold]
    fn begin(&self) -> bool {
        match self
            .state
            .compare_exchange(IDLE, ON, Ordering::Relaxed, Ordering::Relaxed)
        {
            Ok(_) => {
                if let Some(begin) = self.begin.get() {
                    begin();
                }
                true
            }
            Err(state) => state == ON,
        }
    }

    /// Whether anything was ever measured, as far as this thread knows.
    pub(super) fn has_begun(&self) -> bool {
        self.state.load(Ordering::Relaxed) != IDLE
    }

    /// No measurement counts from now on.
    pub(super) fn close(&self) {
        self.state.store(CLOSED, Ordering::Relaxed);
    }
}
