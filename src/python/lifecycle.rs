//! Set-up, flush, shutdown, exit and fork.
//!
//! The process has one tracer. It is null before `init_tracing`: spans then do nothing and context that comes in is
//! passed on. Tests put their own tracer on top for a while.

use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::errors::to_python;
use super::{abi, arguments, layers};
use crate::bridge;
use crate::config::{Arguments, Config, make_of};
use crate::diagnostic::{self, Level};
use crate::error::Error;
use crate::id;
use crate::layer;
use crate::tracer::{ExporterSource, Tracer};

/// The tracer that new spans use. Tracers are never freed, so a stale pointer is still a tracer.
static CURRENT: AtomicPtr<Tracer> = AtomicPtr::new(std::ptr::null_mut());

/// What `init_tracing` made, and what tests and scopes put on top of it.
#[derive(Default)]
struct Installed {
    /// With the arguments it was made with.
    application: Option<(&'static Tracer, Arguments)>,
    on_top: Vec<OnTop>,
    /// The warnings about variables that were said: a scope that is entered often does not repeat them.
    warnings: Vec<String>,
}

struct OnTop {
    tracer: &'static Tracer,
    /// Of a scope: what its exporters are made by.
    scope: Option<ExporterSource>,
}

static INSTALLED: Mutex<Installed> = Mutex::new(Installed {
    application: None,
    on_top: Vec::new(),
    warnings: Vec::new(),
});

fn installed() -> MutexGuard<'static, Installed> {
    INSTALLED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tracer that new spans use, if there is one. One relaxed load.
#[inline]
#[expect(unsafe_code, reason = "the pointer is null or a leaked tracer")]
pub(super) fn tracer() -> Option<&'static Tracer> {
    // SAFETY: null, or from a `&'static Tracer` in `make_current`; Acquire pairs with its Release.
    unsafe { CURRENT.load(Ordering::Acquire).as_ref() }
}

/// The tracer that `init_tracing` made.
pub(super) fn application_tracer() -> Option<&'static Tracer> {
    installed().application.as_ref().map(|(tracer, _)| *tracer)
}

fn make_current(installed: &Installed) {
    let tracer = installed
        .on_top
        .last()
        .map(|on_top| on_top.tracer)
        .or(installed.application.as_ref().map(|(tracer, _)| *tracer));
    let pointer = tracer.map_or(std::ptr::null_mut(), |tracer| {
        std::ptr::from_ref(tracer).cast_mut()
    });
    CURRENT.store(pointer, Ordering::Release);
    abi::tell_enabled(tracer);
}

/// Puts a test's tracer on top.
pub(super) fn push_tracer(tracer: &'static Tracer) {
    push(tracer, None);
}

/// Puts the tracer of a scope on top.
pub(super) fn push_scope(tracer: &'static Tracer, source: ExporterSource) {
    push(tracer, Some(source));
}

fn push(tracer: &'static Tracer, scope: Option<ExporterSource>) {
    let mut installed = installed();
    installed.on_top.push(OnTop { tracer, scope });
    make_current(&installed);
}

/// Takes the tracer of a test or of a scope away again. What a scope's exporters are made by is to be held until the tracer
/// is shut down.
pub(super) fn pop_tracer(tracer: &'static Tracer) -> Option<ExporterSource> {
    let mut installed = installed();
    let index = installed
        .on_top
        .iter()
        .rposition(|on_top| std::ptr::eq(on_top.tracer, tracer));
    let popped = index.map(|index| installed.on_top.remove(index));
    make_current(&installed);
    popped?.scope
}

/// The tracers of the scopes that are open.
pub(super) fn scope_tracers() -> Vec<&'static Tracer> {
    let installed = installed();
    let scopes = installed
        .on_top
        .iter()
        .filter(|on_top| on_top.scope.is_some());
    scopes.map(|on_top| on_top.tracer).collect()
}

/// Sets tracing up for this process. The keyword arguments are listed in the stub and in `rvh_trace.lifecycle`; unknown ones cannot get here.
#[pyfunction]
#[pyo3(signature = (**kwargs))]
pub(super) fn init_tracing(py: Python<'_>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    let arguments = match kwargs {
        Some(kwargs) => arguments::read(kwargs)?,
        None => arguments::read(&PyDict::new(py))?,
    };
    install(arguments).map_err(|error| to_python(py, &error))
}

/// Seconds between two markers of an open span, as `init_tracing` was told; `None` if there are to be none.
#[pyfunction]
pub(super) fn open_span_interval() -> Option<f64> {
    let installed = installed();
    let (tracer, _) = installed.application.as_ref()?;
    let interval = tracer.config().open_span_interval?;
    tracer.exports().then_some(interval.as_secs_f64())
}

/// Makes the application's tracer, once. No Python runs while the lock is held: another thread may wait for it with the GIL.
fn install(arguments: Arguments) -> Result<(), Error> {
    let env = |name: &str| std::env::var(name).ok();
    let mut installed = installed();
    if let Some((_, before)) = &installed.application {
        if *before != arguments {
            // What is wrong is an error wherever it stands.
            Config::load(&arguments, &env)?;
            diagnostic::log(
                Level::Warn,
                "init_tracing() was called again with other arguments; the first call stands. Call it once, where the process starts",
            );
        }
        return Ok(());
    }
    let (config, warnings) = Config::load(&arguments, &env)?;
    installed.tell(&config, warnings);
    let bridge_config = config.bridge.clone();
    let tracer = make_of(config, &arguments, Tracer::new)?;
    if let Some(config) = bridge_config {
        bridge::install(bridge::Tracer::following(self::tracer), &config)?;
    }
    installed.application = Some((tracer, arguments));
    make_current(&installed);
    Ok(())
}

/// A tracer for a scope, and what its exporters are made by.
pub(super) fn new_scope(arguments: &Arguments) -> Result<(&'static Tracer, ExporterSource), Error> {
    let env = |name: &str| std::env::var(name).ok();
    let (config, warnings) = Config::load(arguments, &env)?;
    installed().tell(&config, warnings);
    make_of(config, arguments, Tracer::for_a_while)
}

impl Installed {
    /// Says what is wrong in the environment, each thing once.
    fn tell(&mut self, config: &Config, warnings: Vec<String>) {
        diagnostic::set_level(config.log_level);
        for warning in warnings {
            if !self.warnings.contains(&warning) {
                diagnostic::log(Level::Warn, &warning);
                self.warnings.push(warning);
            }
        }
        if config.export_hint {
            tell_how_to_export();
        }
    }
}

fn tell_how_to_export() {
    diagnostic::log_once(Level::Warn, "no-endpoint", || {
        "spans are not exported: no endpoint is configured. Set OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 (or \
         init_tracing(endpoint=...)) to send them, OTEL_TRACES_EXPORTER=console to print them, or \
         OTEL_TRACES_EXPORTER=none to silence this line"
            .to_owned()
    });
}

fn timeout(py: Python<'_>, timeout_ms: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(timeout_ms / 1000.0).map_err(|_| {
        let problem =
            format!("must be a number of milliseconds that is not negative, not {timeout_ms}");
        to_python(py, &Error::configuration("timeout_ms", problem))
    })
}

pub(super) fn report(py: Python<'_>, result: Result<(), Error>, check: bool) -> PyResult<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if check => Err(to_python(py, &error)),
        Err(error) => {
            diagnostic::log(Level::Warn, &error.to_string());
            Ok(false)
        }
    }
}

/// Sends every span that ended before the call, and waits at most `timeout_ms`. Whether everything was delivered.
#[pyfunction]
#[pyo3(signature = (timeout_ms=30_000.0, *, check=false))]
pub(super) fn force_flush(py: Python<'_>, timeout_ms: f64, check: bool) -> PyResult<bool> {
    let timeout = timeout(py, timeout_ms)?;
    let result = py.detach(|| {
        layers::while_flushing(timeout, || {
            tracer().map_or(Ok(()), |tracer| tracer.force_flush(timeout))
        })
    });
    report(py, result, check)
}

/// Sends what is left, waits at most `timeout_ms`, and stops. Whether everything was delivered.
#[pyfunction]
#[pyo3(signature = (timeout_ms=30_000.0, *, check=false))]
pub(super) fn shutdown(py: Python<'_>, timeout_ms: f64, check: bool) -> PyResult<bool> {
    let timeout = timeout(py, timeout_ms)?;
    let result = py.detach(|| {
        layers::while_flushing(timeout, || {
            tracer().map_or(Ok(()), |tracer| tracer.shutdown(timeout))
        })
    });
    report(py, result, check)
}

/// Registered with `os.register_at_fork`: ids, queue, counters and worker of the child are its own.
#[pyfunction]
pub(super) fn after_fork_in_child() {
    id::enter_forked_child();
    bridge::queue::after_fork_in_child();
    layer::enter_forked_child();
    // Another thread of the parent may have held the lock at the fork, so the child cannot wait for it. There is no
    // other thread here yet.
    if let Ok(installed) = INSTALLED.try_lock() {
        let application = installed.application.as_ref().map(|(tracer, _)| *tracer);
        let on_top = installed.on_top.iter().map(|on_top| on_top.tracer);
        for tracer in on_top.chain(application) {
            tracer.after_fork_in_child();
        }
    } else if let Some(tracer) = tracer() {
        tracer.after_fork_in_child();
    }
}
