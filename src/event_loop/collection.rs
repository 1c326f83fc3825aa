//! How long garbage collections have taken, in this process. Whichever thread collects holds the GIL, so all loops wait.

use std::sync::atomic::{AtomicU64, Ordering};

/// Nanoseconds of the collections that are over. Relaxed, as below: figures that guard nothing, written under the GIL.
static TOTAL_NS: AtomicU64 = AtomicU64::new(0);
/// When the collection that is under way began, on the monotonic clock; 0 without one.
static BEGUN_NS: AtomicU64 = AtomicU64::new(0);

/// A collection begins.
pub fn begin_collection(now_ns: u64) {
    BEGUN_NS.store(now_ns, Ordering::Relaxed);
}

/// The collection is over.
pub fn end_collection(now_ns: u64) {
    // 0: it began before anybody looked.
    let begun = BEGUN_NS.swap(0, Ordering::Relaxed);
    if begun != 0 {
        TOTAL_NS.fetch_add(now_ns.saturating_sub(begun), Ordering::Relaxed);
    }
}

/// Nanoseconds that collections have taken until `now_ns`.
pub(super) fn collected_ns(now_ns: u64) -> u64 {
    let running = match BEGUN_NS.load(Ordering::Relaxed) {
        0 => 0,
        begun => now_ns.saturating_sub(begun),
    };
    TOTAL_NS.load(Ordering::Relaxed) + running
}
