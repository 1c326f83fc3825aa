//! What the library says about itself, without ever raising.
//!
//! Each cause is logged once a process and counted every time. A line goes straight to standard error: that works on the
//! worker thread, which must never wait for the interpreter, at exit, and in a forked child. Nothing here waits for a lock
//! that another thread may have held at the fork.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

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
        write_to_stderr(format!("rvh_trace: {name}: {message}\n").as_bytes());
    }
}

/// Without the lock of `std::io::stderr`, see the module.
#[cfg(unix)]
#[expect(unsafe_code, reason = "a system call")]
fn write_to_stderr(line: &[u8]) {
    // SAFETY: the pointer and the length are those of a slice. A closed standard error is an error, which is ignored.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
}

#[cfg(not(unix))]
fn write_to_stderr(line: &[u8]) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line);
}

/// Writes the line the first time this process meets `cause`; later calls with the same cause are silent.
pub fn log_once(level: Level, cause: &'static str, message: impl FnOnce() -> String) {
    if enabled(level) && first_time(cause) {
        log(level, &message());
    }
}

/// Counts an error that was swallowed so that user code goes on, and logs its cause once.
pub fn swallowed(cause: &'static str, message: impl FnOnce() -> String) {
    count_swallowed();
    log_once(Level::Warn, cause, message);
}

/// Counts an error that was swallowed where nothing can be said about it.
pub fn count_swallowed() {
    ERRORS.fetch_add(1, Ordering::Relaxed);
}

/// How many errors were swallowed since the process started.
pub fn swallowed_count() -> u64 {
    ERRORS.load(Ordering::Relaxed)
}

fn first_time(cause: &'static str) -> bool {
    // Somebody else is logging at this moment, or was when this process was forked: then it is said next time, or never.
    match SEEN.try_lock() {
        Ok(mut seen) => seen.get_or_insert_with(HashSet::new).insert(cause),
        Err(_) => false,
    }
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
