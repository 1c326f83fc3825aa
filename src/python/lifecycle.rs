//! Set-up, flush, shutdown, exit and fork.
//!
//! The process has one tracer. It is null before `init_tracing`: spans then do nothing and context that comes in is
//! passed on. Tests put their own tracer on top for a while.

use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple};

use super::abi;
use super::convert::{for_each_item, with_name};
use super::errors::to_python;
use super::exporter::read_exporters;
use super::layers;
use crate::bridge;
use crate::config::{Arguments, Config, ExporterConfig, OtlpArguments, Signal};
use crate::diagnostic::{self, Level};
use crate::error::Error;
use crate::id;
use crate::layer;
use crate::resource::ResourceValue;
use crate::stats::{LogSnapshot, Snapshot};
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

fn resource_value(value: &Bound<'_, PyAny>) -> PyResult<ResourceValue> {
    if let Ok(bool) = value.cast_exact::<PyBool>() {
        return Ok(ResourceValue::Bool(bool.is_true()));
    }
    if let Ok(float) = value.cast::<PyFloat>() {
        return Ok(ResourceValue::Float(float.value()));
    }
    if value.is_instance_of::<PyInt>()
        && let Ok(int) = value.extract()
    {
        return Ok(ResourceValue::Int(int));
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let values = value
            .try_iter()?
            .map(|value| resource_value(&value?))
            .collect::<PyResult<_>>()?;
        return Ok(ResourceValue::Array(values));
    }
    with_name(value, |text| ResourceValue::Str(text.to_owned()))
}

pub(super) fn wrong_type(value: &Bound<'_, PyAny>, name: &str, right: &str) -> PyErr {
    let got = value
        .get_type()
        .name()
        .map(|name| name.to_string())
        .unwrap_or_default();
    to_python(
        value.py(),
        &Error::configuration(name, format!("must be {right}, not {got}")),
    )
}

/// One keyword argument: of the right type, or an error that names it.
pub(super) fn argument<'py, T: FromPyObjectOwned<'py>>(
    value: &Bound<'py, PyAny>,
    name: &str,
    right: &str,
) -> PyResult<T> {
    value
        .extract::<T>()
        .map_err(|_| wrong_type(value, name, right))
}

fn mapping<'a, 'py>(
    value: &'a Bound<'py, PyAny>,
    name: &str,
    right: &str,
) -> PyResult<&'a Bound<'py, PyAny>> {
    match value.cast::<PyMapping>() {
        Ok(_) => Ok(value),
        Err(_) => Err(wrong_type(value, name, right)),
    }
}

/// A list of names from a list, a tuple or a comma-separated string.
pub(super) fn names(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<String>> {
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(text
            .to_string_lossy()
            .split(',')
            .map(|part| part.trim().to_owned())
            .filter(|part| !part.is_empty())
            .collect());
    }
    argument(value, name, "a string or a list of strings")
}

pub(super) fn text_pairs(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<(String, String)>> {
    let right = "a mapping of strings to strings";
    let mut pairs = Vec::new();
    for_each_item(mapping(value, name, right)?, |key, value| {
        pairs.push((argument(key, name, right)?, argument(value, name, right)?));
        Ok(())
    })?;
    Ok(pairs)
}

/// Reads the keyword arguments of `init_tracing`; `None` is as good as absent.
pub(super) fn read_arguments(kwargs: &Bound<'_, PyDict>) -> PyResult<Arguments> {
    let py = kwargs.py();
    let mut arguments = Arguments {
        sdk_language: Some("python".to_owned()),
        ..Arguments::default()
    };
    for (key, value) in kwargs {
        if value.is_none() {
            continue;
        }
        let key = key.cast::<PyString>()?.to_string_lossy().into_owned();
        let name = key.as_str();
        let text = || argument::<String>(&value, name, "a string").map(Some);
        let path = || argument::<std::path::PathBuf>(&value, name, "a path").map(Some);
        let int = || argument::<i64>(&value, name, "an integer").map(Some);
        let number = || argument::<f64>(&value, name, "a number").map(Some);
        let flag = || argument::<bool>(&value, name, "True or False").map(Some);
        match name {
            "service_name" => arguments.service_name = text()?,
            "endpoint" => arguments.endpoint = text()?,
            "protocol" => arguments.protocol = text()?,
            "headers" => arguments.headers = Some(text_pairs(&value, name)?),
            "timeout_ms" => arguments.timeout_ms = number()?,
            "compression" => arguments.compression = text()?,
            "insecure" => arguments.insecure = flag()?,
            "certificate" => arguments.certificate = path()?,
            "client_certificate" => arguments.client_certificate = path()?,
            "client_key" => arguments.client_key = path()?,
            "exporter" => read_exporters(&value, "exporter", Signal::Traces, &mut arguments)?,
            "metrics_exporter" => {
                read_exporters(&value, "metrics_exporter", Signal::Metrics, &mut arguments)?;
            }
            "logs_exporter" => {
                read_exporters(&value, "logs_exporter", Signal::Logs, &mut arguments)?;
            }
            "open_span_interval_ms" => arguments.open_span_interval_ms = number()?,
            "metric_export_interval_ms" => arguments.metric_export_interval_ms = number()?,
            "metric_cardinality_limit" => arguments.metric_cardinality_limit = int()?,
            "self_metrics" => arguments.self_metrics = flag()?,
            "sampler" => arguments.sampler = text()?,
            "sampler_ratio" => arguments.sampler_ratio = number()?,
            "propagators" => arguments.propagators = Some(names(&value, name)?),
            "schedule_delay_ms" => arguments.schedule_delay_ms = number()?,
            "max_queue_size" => arguments.max_queue_size = int()?,
            "max_queue_bytes" => arguments.max_queue_bytes = int()?,
            "max_export_batch_size" => arguments.max_export_batch_size = int()?,
            "max_request_bytes" => arguments.max_request_bytes = int()?,
            "spool_directory" => arguments.spool_directory = path()?,
            "spool_max_bytes" => arguments.spool_max_bytes = int()?,
            "export_timeout_ms" => arguments.export_timeout_ms = number()?,
            "exit_timeout_ms" => arguments.exit_timeout_ms = number()?,
            "rust_log" => arguments.rust_log = text()?,
            "rust_events" => arguments.rust_events = text()?,
            "attribute_count_limit" => arguments.attribute_count_limit = int()?,
            "attribute_value_length_limit" => arguments.attribute_value_length_limit = int()?,
            "event_count_limit" => arguments.event_count_limit = int()?,
            "link_count_limit" => arguments.link_count_limit = int()?,
            "event_attribute_count_limit" => arguments.event_attribute_count_limit = int()?,
            "link_attribute_count_limit" => arguments.link_attribute_count_limit = int()?,
            "resource_attributes" => {
                let right = "a mapping with string keys";
                for_each_item(mapping(&value, name, right)?, |key, value| {
                    arguments
                        .resource_attributes
                        .push((argument(key, name, right)?, resource_value(value)?));
                    Ok(())
                })?;
            }
            _ => {
                return Err(pyo3::exceptions::PyTypeError::new_err(format!(
                    "init_tracing() got an unexpected keyword argument '{name}'"
                )));
            }
        }
    }
    arguments.runtime_attributes = runtime_attributes(py)?;
    Ok(arguments)
}

/// `process.runtime.*` (semantic conventions, "Process runtimes").
fn runtime_attributes(py: Python<'_>) -> PyResult<Vec<(String, ResourceValue)>> {
    let implementation: String = py
        .import("sys")?
        .getattr("implementation")?
        .getattr("name")?
        .extract()?;
    let version = py.version_info();
    Ok([
        ("process.runtime.name", implementation),
        (
            "process.runtime.version",
            format!("{}.{}.{}", version.major, version.minor, version.patch),
        ),
        (
            "process.runtime.description",
            Python::version_str().to_owned(),
        ),
    ]
    .map(|(key, value)| (key.to_owned(), ResourceValue::Str(value)))
    .into())
}

/// Sets tracing up for this process. The keyword arguments are listed in the stub and in `rvh_trace.lifecycle`; unknown ones cannot get here.
#[pyfunction]
#[pyo3(signature = (**kwargs))]
pub(super) fn init_tracing(py: Python<'_>, kwargs: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
    let arguments = match kwargs {
        Some(kwargs) => read_arguments(kwargs)?,
        None => read_arguments(&PyDict::new(py))?,
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
    let tracer = new_tracer(config, &arguments, Tracer::new)?;
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
    new_tracer(config, arguments, Tracer::for_a_while)
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

/// The tracer of this configuration. What is wrong with a file is an error if an argument named the file; if a variable
/// did, it is a warning, and the signal that it is for is not exported over OTLP.
fn new_tracer<T>(
    config: Config,
    arguments: &Arguments,
    make: fn(Config) -> Result<T, Error>,
) -> Result<T, Error> {
    let error = match make(config.clone()) {
        Ok(tracer) => return Ok(tracer),
        Err(error) => error,
    };
    let given = |by_itself: bool, in_object: fn(&OtlpArguments) -> bool| {
        let each = [
            &arguments.otlp_exporters,
            &arguments.otlp_metrics_exporters,
            &arguments.otlp_logs_exporters,
        ];
        by_itself || each.into_iter().flatten().any(in_object)
    };
    let named = [
        // No variable names one.
        ("", "output_stream", true),
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "certificate",
            given(arguments.certificate.is_some(), |otlp| {
                otlp.certificate.is_some()
            }),
        ),
        (
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
            "client_certificate",
            given(arguments.client_certificate.is_some(), |otlp| {
                otlp.client_certificate.is_some()
            }),
        ),
        (
            "OTEL_EXPORTER_OTLP_CLIENT_KEY",
            "client_key",
            given(arguments.client_key.is_some(), |otlp| {
                otlp.client_key.is_some()
            }),
        ),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "endpoint",
            given(arguments.endpoint.is_some(), |otlp| otlp.endpoint.is_some()),
        ),
    ];
    if let Error::Configuration { name, problem } = &error {
        for (variable, argument, given) in named {
            if given && (name == variable || name == argument) {
                return Err(Error::configuration(argument, problem));
            }
        }
    }
    let mut without_logs = config;
    keep_console(&mut without_logs.logs.exporters);
    if let Ok(tracer) = make(without_logs.clone()) {
        diagnostic::log(
            Level::Warn,
            &format!("{error}. Logs are not exported until that is mended"),
        );
        return Ok(tracer);
    }
    // What is wrong with both logs and metrics is said for both.
    let mut spans_alone = without_logs;
    keep_console(&mut spans_alone.metrics.exporters);
    if let Ok(tracer) = make(spans_alone.clone()) {
        diagnostic::log(
            Level::Warn,
            &format!("{error}. Metrics are not exported until that is mended"),
        );
        return Ok(tracer);
    }
    diagnostic::log(
        Level::Warn,
        &format!("{error}. Nothing is exported until that is mended"),
    );
    let mut console_alone = spans_alone;
    keep_console(&mut console_alone.exporters);
    make(console_alone)
}

/// Keeps what needs no connection.
fn keep_console(exporters: &mut Vec<ExporterConfig>) {
    let is_local = |exporter: &ExporterConfig| {
        matches!(
            exporter,
            ExporterConfig::Console | ExporterConfig::Output(_) | ExporterConfig::Custom(_)
        )
    };
    exporters.retain(is_local);
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

/// What this process has counted; `ended` is always exported + dropped + spooled + pending.
#[pyfunction]
pub(super) fn stats(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    stats_dict(py, tracer().map(Tracer::stats).unwrap_or_default())
}

pub(super) fn stats_dict(py: Python<'_>, snapshot: Snapshot) -> PyResult<Bound<'_, PyDict>> {
    let dropped = PyDict::new(py);
    dropped.set_item("queue_full", snapshot.dropped_queue_full)?;
    dropped.set_item("rejected", snapshot.dropped_rejected)?;
    dropped.set_item("failed", snapshot.dropped_failed)?;
    dropped.set_item("exit", snapshot.dropped_exit)?;
    dropped.set_item("spool_full", snapshot.dropped_spool_full)?;
    dropped.set_item("spool_damaged", snapshot.dropped_spool_damaged)?;
    let logs = log_stats(py, &snapshot.logs)?;
    let stats = PyDict::new(py);
    stats.set_item("started", snapshot.started)?;
    stats.set_item("ended", snapshot.ended)?;
    stats.set_item("not_sampled", snapshot.not_sampled)?;
    stats.set_item("pending", snapshot.pending())?;
    stats.set_item("queued", snapshot.queued)?;
    stats.set_item("queued_bytes", snapshot.queued_bytes)?;
    stats.set_item("in_flight", snapshot.in_flight)?;
    stats.set_item("exported", snapshot.exported)?;
    stats.set_item("dropped", dropped)?;
    stats.set_item("spooled", snapshot.spooled)?;
    stats.set_item("spooled_bytes", snapshot.spooled_bytes)?;
    stats.set_item("recovered", snapshot.recovered)?;
    stats.set_item("damaged_spool_files", snapshot.damaged_spool_files)?;
    stats.set_item("retries", snapshot.retries)?;
    stats.set_item("exported_bytes", snapshot.exported_bytes)?;
    stats.set_item("metric_exports", snapshot.metric_exports)?;
    stats.set_item("metric_exports_failed", snapshot.metric_exports_failed)?;
    stats.set_item("logs", logs)?;
    stats.set_item("worker_alive", snapshot.worker_alive)?;
    stats.set_item("swallowed_errors", diagnostic::swallowed_count())?;
    stats.set_item("rust_events_dropped", bridge::queue::dropped())?;
    stats.set_item("last_error", snapshot.last_error)?;
    Ok(stats)
}

/// `created` is always exported + dropped + pending.
fn log_stats<'py>(py: Python<'py>, logs: &LogSnapshot) -> PyResult<Bound<'py, PyDict>> {
    let dropped = PyDict::new(py);
    dropped.set_item("queue_full", logs.dropped_queue_full)?;
    dropped.set_item("rejected", logs.dropped_rejected)?;
    dropped.set_item("unsupported", logs.dropped_unsupported)?;
    dropped.set_item("failed", logs.dropped_failed)?;
    dropped.set_item("exit", logs.dropped_exit)?;
    let stats = PyDict::new(py);
    stats.set_item("created", logs.created)?;
    stats.set_item("pending", logs.pending())?;
    stats.set_item("queued", logs.queued)?;
    stats.set_item("queued_bytes", logs.queued_bytes)?;
    stats.set_item("in_flight", logs.in_flight)?;
    stats.set_item("exported", logs.exported)?;
    stats.set_item("exported_bytes", logs.exported_bytes)?;
    stats.set_item("dropped", dropped)?;
    Ok(stats)
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
