//! Threads whose spans, events and records are nobody's business: those that export.
//!
//! What they do is done because of spans: traced, it would make spans for ever. They have no `tracing` subscriber, whatever
//! subscriber the program has installed, ours or not; `log` records and what is queued for `logging` look at the flag.

use std::cell::{Cell, RefCell};

use tracing::Dispatch;
use tracing::dispatcher::{DefaultGuard, set_default};

thread_local! {
    static IS_SUPPRESSED: Cell<bool> = const { Cell::new(false) };
    static NO_SUBSCRIBER: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
}

/// From now on nothing that this thread does is traced.
pub fn suppress_thread() {
    if IS_SUPPRESSED.replace(true) {
        return;
    }
    NO_SUBSCRIBER.with_borrow_mut(|guard| *guard = Some(set_default(&Dispatch::none())));
}

/// Whether [`suppress_thread`] was called on this thread.
pub fn is_suppressed() -> bool {
    IS_SUPPRESSED.get()
}
