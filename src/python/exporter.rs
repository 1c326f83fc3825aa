//! Destinations that a program gives as objects: `OtlpExporter`, and exporters written in Python.
//!
//! A Python exporter is called on a Python thread of its own, which waits for its jobs without the GIL; the worker waits for
//! the answer and never takes the GIL. That thread runs `rvh_trace.exporter.run`; see [`super::python_thread`] for how it
//! starts.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};

use super::arguments::{argument, names, text_pairs, wrong_type};
use super::errors::to_python;
use super::output;
use super::python_thread;
use super::span_context::SpanContext;
use super::testing::{attributes, decode, span_dict};
use crate::bridge::suppress_thread;
use crate::config::{Arguments, CustomExporter, OtlpArguments, Signal};
use crate::context::{self, TraceFlags};
use crate::diagnostic::{self, Level};
use crate::error::Error;
use crate::id::{SpanId, TraceId};
use crate::pipeline::exporter::Outcome;
use crate::pipeline::exporter::threaded::{Job, Jobs, Task, ThreadedExporter};
use opentelemetry_proto::tonic::trace::v1 as otlp;

/// One OTLP destination, for `init_tracing(exporter=[...])`.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct OtlpExporter {
    arguments: OtlpArguments,
}

#[pymethods]
impl OtlpExporter {
    #[new]
    #[pyo3(signature = (endpoint=None, *, protocol=None, headers=None, timeout_ms=None, compression=None, insecure=None,
                        certificate=None, client_certificate=None, client_key=None))]
    #[expect(clippy::too_many_arguments, reason = "they are keywords")]
    fn new(
        py: Python<'_>,
        endpoint: Option<&Bound<'_, PyAny>>,
        protocol: Option<&Bound<'_, PyAny>>,
        headers: Option<&Bound<'_, PyAny>>,
        timeout_ms: Option<&Bound<'_, PyAny>>,
        compression: Option<&Bound<'_, PyAny>>,
        insecure: Option<&Bound<'_, PyAny>>,
        certificate: Option<&Bound<'_, PyAny>>,
        client_certificate: Option<&Bound<'_, PyAny>>,
        client_key: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let arguments = OtlpArguments {
            endpoint: optional(endpoint, "endpoint", "a string")?,
            protocol: optional(protocol, "protocol", "a string")?,
            headers: headers
                .map(|value| text_pairs(value, "headers"))
                .transpose()?,
            timeout_ms: optional(timeout_ms, "timeout_ms", "a number")?,
            compression: optional(compression, "compression", "a string")?,
            insecure: optional(insecure, "insecure", "True or False")?,
            certificate: optional(certificate, "certificate", "a path")?,
            client_certificate: optional(client_certificate, "client_certificate", "a path")?,
            client_key: optional(client_key, "client_key", "a path")?,
        };
        arguments.check().map_err(|error| to_python(py, &error))?;
        Ok(Self { arguments })
    }

    fn __repr__(&self) -> String {
        let endpoint = self.arguments.shown_endpoint();
        match endpoint {
            Some(endpoint) => format!("OtlpExporter('{endpoint}')"),
            None => "OtlpExporter()".to_owned(),
        }
    }
}

pub(super) fn optional<'py, T: FromPyObjectOwned<'py>>(
    value: Option<&Bound<'py, PyAny>>,
    name: &str,
    right: &str,
) -> PyResult<Option<T>> {
    value.map(|value| argument(value, name, right)).transpose()
}

/// Reads an `exporter` argument of this signal into `arguments`: a name, an object, or a list of both.
pub(super) fn read_exporters(
    value: &Bound<'_, PyAny>,
    name: &'static str,
    signal: Signal,
    arguments: &mut Arguments,
) -> PyResult<()> {
    let mut chosen = Vec::new();
    let mut objects = 0;
    let members = if value.is_instance_of::<PyString>() || !is_collection(value) {
        vec![value.clone()]
    } else {
        value.try_iter()?.collect::<PyResult<_>>()?
    };
    for member in &members {
        if member.is_instance_of::<PyString>() {
            chosen.extend(names(member, name)?);
            continue;
        }
        objects += 1;
        if let Ok(otlp) = member.cast::<OtlpExporter>() {
            let otlp = otlp.get().arguments.clone();
            match signal {
                Signal::Traces => arguments.otlp_exporters.push(otlp),
                Signal::Metrics => arguments.otlp_metrics_exporters.push(otlp),
                Signal::Logs => arguments.otlp_logs_exporters.push(otlp),
            }
        } else if let Some(output) = output::config(member, signal) {
            match signal {
                Signal::Traces => arguments.outputs.push(output),
                Signal::Metrics => arguments.metrics_outputs.push(output),
                Signal::Logs => arguments.logs_outputs.push(output),
            }
        } else if signal == Signal::Traces {
            arguments.custom_exporters.push(custom(member, name)?);
        } else {
            let right = "a string, an OtlpExporter or an OtlpFileExporter";
            return Err(wrong_type(member, name, right));
        }
    }
    let is_none = |name: &String| name.eq_ignore_ascii_case("none");
    if objects > 0 && chosen.iter().any(is_none) {
        let problem = "none stands alone, and here are others".to_owned();
        return Err(to_python(value.py(), &Error::configuration(name, problem)));
    }
    match signal {
        Signal::Traces => arguments.exporter = Some(chosen),
        Signal::Metrics => arguments.metrics_exporter = Some(chosen),
        Signal::Logs => arguments.logs_exporter = Some(chosen),
    }
    Ok(())
}

fn is_collection(value: &Bound<'_, PyAny>) -> bool {
    value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>()
}

/// An exporter written in Python: any object with a method `export`.
fn custom(exporter: &Bound<'_, PyAny>, name: &'static str) -> PyResult<CustomExporter> {
    let py = exporter.py();
    // Not found later, on a thread to which nobody listens.
    let run = py.import("rvh_trace.exporter")?.getattr("run")?.unbind();
    let export = exporter.getattr_opt("export")?;
    if !export.is_some_and(|export| export.is_callable()) {
        let right = "otlp, console, an OtlpExporter, a ConsoleExporter, an OtlpFileExporter, an object with a method \
                     export(spans), or a list of these";
        return Err(wrong_type(exporter, name, right));
    }
    if is_coroutine_function(&exporter.getattr("export")?) {
        let problem = "export must not be a coroutine function: it is called on a thread of its own, without an event loop";
        let error = Error::configuration(name, problem);
        return Err(to_python(py, &error));
    }
    let class = exporter.get_type();
    let shown = format!("python exporter {}", class.fully_qualified_name()?);
    let identity = exporter.as_ptr() as usize;
    let parts = Arc::new((run, exporter.clone().unbind()));
    let thread_name = shown.clone();
    let build = move || {
        let (parts, name) = (Arc::clone(&parts), thread_name.clone());
        let start = move |jobs| start_thread(jobs, &parts, &name);
        Box::new(ThreadedExporter::new(thread_name.clone(), Arc::new(start))) as _
    };
    Ok(CustomExporter::new(shown, identity, Arc::new(build)))
}

/// `inspect.CO_COROUTINE` and `inspect.CO_ASYNC_GENERATOR`, without importing inspect.
fn is_coroutine_function(function: &Bound<'_, PyAny>) -> bool {
    let flags = function
        .getattr("__code__")
        .and_then(|code| code.getattr("co_flags"));
    flags
        .and_then(|flags| flags.extract::<u32>())
        .is_ok_and(|flags| flags & (0x80 | 0x200) != 0)
}

type Parts = Arc<(Py<PyAny>, Py<PyAny>)>;

/// Starts the Python thread, see the module. Whatever fails here drops `jobs`, and the worker knows.
fn start_thread(jobs: Jobs, parts: &Parts, name: &str) {
    let (parts, name) = (Arc::clone(parts), name.to_owned());
    python_thread::start(
        move |py| {
            let queue = SpanQueue {
                name,
                jobs: Mutex::new(jobs),
                current: Mutex::new(None),
            };
            let (run, exporter) = &*parts;
            let arguments = (queue, exporter).into_pyobject(py)?;
            Ok((run.bind(py).clone(), arguments))
        },
        not_started,
    );
}

fn not_started(error: &str) {
    diagnostic::log(
        Level::Error,
        &format!("spans do not reach a Python exporter: its thread could not be started: {error}"),
    );
}

/// What a Python exporter is to do, one thing after the other. For its own thread alone.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct SpanQueue {
    name: String,
    jobs: Mutex<Jobs>,
    current: Mutex<Option<Job>>,
}

#[pymethods]
impl SpanQueue {
    /// Waits for the next thing to do: the method to call and, for `export`, the spans. None when there is nothing any more.
    fn next(&self, py: Python<'_>) -> PyResult<Option<(&'static str, Option<SpanBatch>)>> {
        suppress_thread();
        let job = py.detach(|| {
            self.jobs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take()
        });
        let Some(job) = job else {
            return Ok(None);
        };
        let task = job.task.clone();
        *self.current() = Some(job);
        Ok(Some(match task {
            Task::Export(request) => ("export", Some(SpanBatch::new(py, &request)?)),
            Task::ForceFlush => ("force_flush", None),
            Task::Shutdown => ("shutdown", None),
        }))
    }

    /// The last thing was done.
    fn done(&self) {
        self.answer(Outcome::DELIVERED);
    }

    /// The last thing was not done. `details` are logged, when there are any.
    fn failed(&self, error: String, details: Option<&str>) {
        if let Some(details) = details {
            let details = details.trim_end();
            diagnostic::log(
                Level::Warn,
                &format!(
                    "{} failed: {error}. This is said once; what it loses is counted in rvh_trace.stats()\n{details}",
                    self.name
                ),
            );
        }
        self.answer(Outcome::Rejected { error });
    }

    /// A parent whose children are not sampled, so that an exporter does not export itself.
    #[getter]
    #[expect(clippy::unused_self, reason = "a property")]
    fn unsampled(&self) -> SpanContext {
        SpanContext {
            inner: context::SpanContext {
                trace_id: TraceId::random(),
                span_id: SpanId::random(),
                flags: TraceFlags::default(),
                is_remote: true,
                trace_state: context::TraceState::default(),
            },
        }
    }
}

impl SpanQueue {
    fn current(&self) -> std::sync::MutexGuard<'_, Option<Job>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, outcome: Outcome) {
        if let Some(job) = self.current().take() {
            job.answer(outcome);
        }
    }
}

/// Decodes the spans of a request one by one: the caller's loop lets other threads have the GIL in between.
#[pyclass(module = "rvh_trace")]
pub(super) struct SpanBatch {
    spans: std::vec::IntoIter<(usize, otlp::Span)>,
    resources: Vec<Py<PyDict>>,
}

impl SpanBatch {
    fn new(py: Python<'_>, request: &[u8]) -> PyResult<Self> {
        let request = py.detach(|| decode(request))?;
        let (mut spans, mut resources) = (Vec::new(), Vec::new());
        for resource_spans in request.resource_spans {
            let resource = resource_spans.resource.unwrap_or_default();
            for scope in resource_spans.scope_spans {
                let of_resource = scope.spans.into_iter();
                spans.extend(of_resource.map(|span| (resources.len(), span)));
            }
            resources.push(attributes(py, &resource.attributes)?.unbind());
        }
        Ok(Self {
            spans: spans.into_iter(),
            resources,
        })
    }
}

#[pymethods]
impl SpanBatch {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some((resource, span)) = self.spans.next() else {
            return Ok(None);
        };
        let decoded = span_dict(py, &span)?;
        if let Some(resource) = self.resources.get(resource) {
            decoded.set_item("resource", resource)?;
        }
        Ok(Some(decoded))
    }
}
