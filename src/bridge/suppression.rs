//! Threads whose spans, events and records are nobody's business: those that export.
//!
//! What they do is done because of spans: traced, it would make spans for ever. The flag is looked at where something would be
//! recorded. To take the `tracing` subscriber away from such a thread would be shorter, but tracing-core 0.1.36 remembers of
//! a call site what the subscriber of the first thread said that came by, if the process has one subscriber: it would be off
//! for every thread.

use std::cell::Cell;

thread_local! {
    static IS_SUPPRESSED: Cell<bool> = const { Cell::new(false) };
}

/// From now on nothing that this thread does is recorded by this crate.
pub fn suppress_thread() {
    IS_SUPPRESSED.set(true);
}

/// Whether [`suppress_thread`] was called on this thread.
#[inline]
pub fn is_suppressed() -> bool {
    IS_SUPPRESSED.get()
}
