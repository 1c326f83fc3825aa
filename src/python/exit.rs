//! The end of the process: what still waits is sent within `exit_timeout_ms`, once, wherever the end is noticed first.
//!
//! A server tells its application by the lifespan protocol, the interpreter tells everybody by `atexit`, and not every
//! process gets to the second: uvicorn raises the signal again that it was stopped by.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::errors::guard;
use super::lifecycle;
use crate::diagnostic::{self, Level};
use crate::tracer::Tracer;

/// When the time of a flush before the exit ran out.
static RAN_OUT: Mutex<Option<Instant>> = Mutex::new(None);

/// What is left of the time: nothing when a destination has just used it up. It is not asked again by the next middleware
/// or by the exit that follows.
fn time_left(tracer: &Tracer) -> Duration {
    let timeout = tracer.exit_timeout();
    match *RAN_OUT.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(ran_out) if ran_out.elapsed() < timeout => Duration::ZERO,
        _ => timeout,
    }
}

/// Sends what waits as if the process were to end, within the time of its exit. Blocks; releases the GIL.
#[pyfunction]
pub(super) fn flush_before_exit(py: Python<'_>) -> PyResult<()> {
    guard(py, "flushing before the exit", || {
        py.detach(|| {
            let Some(tracer) = lifecycle::tracer() else {
                return;
            };
            let timeout = time_left(tracer);
            if !timeout.is_zero() && tracer.flush_before_exit(timeout) {
                *RAN_OUT.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            }
        });
        Ok(())
    })
    .map(drop)
}

/// Registered with `atexit` by `init_tracing`: one bounded flush.
#[pyfunction]
pub(super) fn at_exit(py: Python<'_>) -> PyResult<()> {
    guard(py, "flushing at exit", || {
        py.detach(|| {
            let scopes = lifecycle::scope_tracers();
            // All at once: a destination that is down does not take its time from the others.
            std::thread::scope(|threads| {
                for tracer in scopes {
                    let _ = std::thread::Builder::new().spawn_scoped(threads, || shut_down(tracer));
                }
                if let Some(tracer) = lifecycle::application_tracer() {
                    shut_down(tracer);
                }
            });
        });
        Ok(())
    })
    .map(drop)
}

fn shut_down(tracer: &Tracer) {
    if let Err(error) = tracer.shutdown(time_left(tracer)) {
        // An outage was told when it began.
        let told = tracer.stats().last_error.is_some();
        diagnostic::log(
            if told { Level::Debug } else { Level::Warn },
            &error.to_string(),
        );
    }
}
