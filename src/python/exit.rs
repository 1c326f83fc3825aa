//! The end of the process: what still waits is sent within `exit_timeout_ms`, once, wherever the end is noticed first.
//!
//! A server tells its application by the lifespan protocol, the interpreter tells everybody by `atexit`, and not every
//! process gets to the second: uvicorn raises the signal again that it was stopped by.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use super::errors::guard;
use super::{layers, lifecycle};
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
            if timeout.is_zero() {
                return;
            }
            let mut ran_out = false;
            let told = layers::while_flushing(timeout, || {
                ran_out = tracer.flush_before_exit(timeout);
                Ok(())
            });
            if ran_out || told.is_err() {
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
            let tracers: Vec<_> = lifecycle::application_tracer()
                .into_iter()
                .chain(lifecycle::scope_tracers())
                .collect();
            let Some((first, others)) = tracers.split_first() else {
                return;
            };
            let told = layers::while_flushing(time_left(first), || {
                // All at once: a destination that is down does not take its time from the others.
                std::thread::scope(|threads| {
                    for tracer in others {
                        let _ =
                            std::thread::Builder::new().spawn_scoped(threads, || shut_down(tracer));
                    }
                    shut_down(first);
                });
                Ok(())
            });
            if let Err(error) = told {
                diagnostic::log(Level::Warn, &error.to_string());
            }
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
