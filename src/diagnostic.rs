//! What the library says about itself, without ever raising.
//!
//! Each cause is logged once a process and counted every time. The core hands a line to a sink: by default a line on
//! standard error, which also works on the worker thread, at exit and without a GIL. The Python bindings install
//! nothing on that thread: it must never wait for the interpreter.

use std::collections::HashSet;
use std::io::Write;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Severity of a line, ordered as in `OTEL_LOG_LEVEL`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Level {
    /// Something was lost or ignored for good.
    Error = 1,
    /// Something is wrong and the library goes on.
    Warn = 2,
    /// Worth knowing once.
    Info = 3,
    /// For whoever debugs the library.
    Debug = 4,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Warn as u8);
static ERRORS: AtomicU64 = AtomicU64::new(0);
static SEEN: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);

/// Sets the least severe level that is written; `None` silences the library (`OTEL_LOG_LEVEL=none`).
pub fn set_level(level: Option<Level>) {
    LEVEL.store(level.map_or(0, |level| level as u8), Ordering::Relaxed);
}

/// Whether a line of this level is written.
pub fn enabled(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Writes one line to standard error. A closed or full standard error is ignored.
pub fn log(level: Level, message: &str) {
    if enabled(level) {
        let name = match level {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
        };
        // One write call, so that lines of several processes do not mix.
        let line = format!("rvh_trace: {name}: {message}\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// Writes the line the first time this process meets `cause`; later calls with the same cause are silent.
pub fn log_once(level: Level, cause: &'static str, message: impl FnOnce() -> String) {
    if enabled(level) && first_time(cause) {
        log(level, &message());
    }
}

/// Counts an error that was swallowed so that user code goes on, and logs its cause once.
pub fn swallowed(cause: &'static str, message: impl FnOnce() -> String) {
    ERRORS.fetch_add(1, Ordering::Relaxed);
    log_once(Level::Warn, cause, message);
}

/// How many errors were swallowed since the process started.
pub fn swallowed_count() -> u64 {
    ERRORS.load(Ordering::Relaxed)
}

fn first_time(cause: &'static str) -> bool {
    SEEN.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert_with(HashSet::new)
        .insert(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once_and_counted_every_time() {
        let before = swallowed_count();
        let mut said = 0;
        for _ in 0..3 {
            swallowed("test-cause", || {
                said += 1;
                "said once by a test".into()
            });
        }
        assert_eq!((said, swallowed_count() - before), (1, 3));
    }
}
