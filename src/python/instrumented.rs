//! Rust code that is instrumented with `tracing` and `log`, for tests and benchmarks of the bridge: nothing else in this
//! module is.

use std::hint::black_box;
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use tracing::level_filters::STATIC_MAX_LEVEL;
use tracing::{Instrument as _, Level, error, error_span, info, info_span, warn, warn_span};

use super::{current, lifecycle};
use crate::attribute::Value;
use crate::bridge::{self, Record, WithContext};

/// Three spans deep, with events and a record, below the current Python span. With `in_thread` on a native thread, which is
/// waited for with the GIL held: were the GIL taken there, nothing would ever come back.
#[pyfunction]
#[pyo3(signature = (*, in_thread=false))]
pub(super) fn call_instrumented(py: Python<'_>, in_thread: bool) -> PyResult<()> {
    let context = current::rust_context(py)?;
    if !in_thread {
        let _attached = context.attach();
        outer();
        return Ok(());
    }
    let (done, is_done) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("instrumented".into());
    thread.spawn(move || {
        let _attached = context.attach();
        outer();
        let _ = done.send(());
    })?;
    is_done
        .recv_timeout(Duration::from_secs(20))
        .map_err(|_| PyRuntimeError::new_err("the thread does not end while the GIL is held"))
}

fn outer() {
    let _outer = info_span!("outer", order = 7).entered();
    info!(target: "shop::orders", order = 7, paid = true, total = 12.5, "order {}", "taken");
    {
        let _inner = warn_span!("inner", otel.kind = "client").entered();
        warn!(target: "shop::stock", "few left");
        let _innermost = error_span!("innermost").entered();
        warn!(target: "shop::stock", "looking");
        log::warn!(target: "shop::ledger", "a record of log");
    }
    error!(target: "shop::orders", code = 3, "cannot ship");
}

/// Says that many things at this level, past the filter, as other extension modules will.
#[pyfunction]
#[pyo3(signature = (count, level="warn"))]
pub(super) fn log_instrumented(py: Python<'_>, count: u32, level: &str) -> PyResult<()> {
    let level = level
        .parse::<Level>()
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    py.detach(|| {
        for number in 0..count {
            bridge::log(&Record {
                level,
                target: "shop::many",
                message: "said",
                fields: &[("number", Value::Int(number.into()))],
                span: bridge::context::current(),
                file: None,
                line: 0,
            });
        }
    });
    Ok(())
}

/// The least severe level that this build has `tracing` spans and events of.
#[pyfunction]
pub(super) fn static_max_level() -> String {
    STATIC_MAX_LEVEL.to_string()
}

/// A future of Rust's that makes a span at each of two polls, awaitable, below the current Python span.
#[pyfunction]
pub(super) fn await_instrumented(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    let context = current::rust_context(py)?;
    let future = async {
        info_span!("before").in_scope(|| info!("polled"));
        tokio::task::yield_now()
            .instrument(info_span!("yielding"))
            .await;
        info_span!("after").in_scope(|| info!("polled again"));
        Ok(())
    };
    pyo3_async_runtimes::tokio::future_into_py(py, WithContext::new(context, future))
}

/// What this thread exports, were it one of those that export: a span, an event and a record that nobody sees.
#[pyfunction]
pub(super) fn call_suppressed() {
    let thread = std::thread::spawn(|| {
        bridge::suppress_thread();
        outer();
    });
    let _ = thread.join();
}

/// Nanoseconds that `count` calls of an instrumented function take: `bare`, `recorded` or `filtered` out.
#[pyfunction]
pub(super) fn time_instrumented(py: Python<'_>, kind: &str, count: u32) -> PyResult<u64> {
    fn repeat(count: u32, call: impl Fn(u32) -> u32) -> u64 {
        let started = Instant::now();
        for number in 0..count {
            black_box(call(black_box(number)));
        }
        started.elapsed().as_nanos() as u64
    }
    let call: fn(u32) -> u64 = match kind {
        "bare" => |count| repeat(count, |number| number),
        "recorded" => |count| repeat(count, |number| info_span!("recorded").in_scope(|| number)),
        "filtered" => |count| {
            repeat(count, |number| {
                info_span!(target: "rvh_trace::filtered", "filtered").in_scope(|| number)
            })
        },
        _ => {
            return Err(PyValueError::new_err(
                "the kinds are bare, recorded and filtered",
            ));
        }
    };
    if kind == "recorded" && lifecycle::tracer().is_none() {
        return Err(PyRuntimeError::new_err("nothing records"));
    }
    let context = current::rust_context(py)?;
    Ok(py.detach(|| {
        let _attached = context.attach();
        call(count)
    }))
}
