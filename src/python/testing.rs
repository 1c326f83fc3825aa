//! What `rvh_trace.testing` stands on: a tracer that keeps its spans, and a decoder for what was sent.

use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value as OtlpValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1 as otlp;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use super::{arguments, lifecycle};
use crate::config::{Arguments, Config};
use crate::id::{SpanId, TraceId};
use crate::pipeline::exporter::memory::{self, MemoryExporter};
use crate::pipeline::{BuildExporters, waterfall};
use crate::tracer::{SignalExporters, Tracer};

/// A tracer that keeps its spans, and its log records if it is asked to.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct MemoryTracer {
    tracer: &'static Tracer,
    exporter: MemoryExporter,
    log_exporter: MemoryExporter,
}

#[pymethods]
impl MemoryTracer {
    #[new]
    #[pyo3(signature = (*, sampler=None, sampler_ratio=None, propagators=None, logs=false))]
    fn new(
        py: Python<'_>,
        sampler: Option<String>,
        sampler_ratio: Option<f64>,
        propagators: Option<&Bound<'_, PyAny>>,
        logs: bool,
    ) -> PyResult<Self> {
        let propagators = propagators
            .map(|propagators| arguments::names(propagators, "propagators"))
            .transpose()?;
        let arguments = Arguments {
            service_name: Some("test".to_owned()),
            exporter: Some(vec!["none".to_owned()]),
            sampler,
            sampler_ratio,
            propagators,
            ..Arguments::default()
        };
        // Tests must not depend on the environment they run in.
        let (config, _) = Config::load(&arguments, &|_| None)
            .map_err(|error| super::errors::to_python(py, &error))?;
        let [exporter, log_exporter] = [MemoryExporter::default(), MemoryExporter::default()];
        let exporters = SignalExporters {
            spans: Some(build(&exporter)),
            metrics: None,
            logs: logs.then(|| build(&log_exporter)),
        };
        Ok(Self {
            tracer: Tracer::with_signal_exporters(config, exporters),
            exporter,
            log_exporter,
        })
    }

    /// Makes this the process's tracer; the one before comes back with `uninstall`.
    fn install(&self) {
        lifecycle::push_tracer(self.tracer);
    }

    fn uninstall(&self) {
        // No scope: nothing comes back.
        let _ = lifecycle::pop_tracer(self.tracer);
    }

    /// The requests that hold the spans ended so far, in order.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        self.take_from(py, &self.exporter)
    }

    /// The requests that hold the log records made so far.
    fn take_logs<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        self.take_from(py, &self.log_exporter)
    }
}

impl MemoryTracer {
    fn take_from<'py>(
        &self,
        py: Python<'py>,
        exporter: &MemoryExporter,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let flushed = py.detach(|| self.tracer.force_flush(Duration::from_secs(10)));
        flushed.map_err(|error| super::errors::to_python(py, &error))?;
        let requests = exporter.take();
        Ok(requests
            .iter()
            .map(|request| PyBytes::new(py, request))
            .collect())
    }
}

fn build(exporter: &MemoryExporter) -> BuildExporters {
    let kept = exporter.clone();
    std::sync::Arc::new(move || vec![Box::new(kept.clone()) as _])
}

pub(super) fn decode(
    request: &[u8],
) -> PyResult<opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest> {
    memory::decode(request).map_err(|error| {
        PyValueError::new_err(format!("not an ExportTraceServiceRequest: {error}"))
    })
}

/// The traces in encoded `ExportTraceServiceRequest` messages as a text that a person can read.
#[pyfunction]
#[pyo3(signature = (requests, *, width=None, color=false))]
#[expect(clippy::needless_pass_by_value, reason = "PyO3 makes it")]
pub(super) fn render_waterfall(
    requests: Vec<Vec<u8>>,
    width: Option<usize>,
    color: bool,
) -> PyResult<String> {
    let requests = requests
        .iter()
        .map(|request| decode(request))
        .collect::<PyResult<Vec<_>>>()?;
    let mut options = waterfall::RenderOptions {
        color,
        ..waterfall::RenderOptions::default()
    };
    if let Some(width) = width {
        options.width = width;
    }
    Ok(waterfall::render(&requests, &options))
}

/// The spans of an encoded `ExportTraceServiceRequest` as dicts.
#[pyfunction]
pub(super) fn decode_spans<'py>(
    py: Python<'py>,
    request: &[u8],
) -> PyResult<Vec<Bound<'py, PyDict>>> {
    let mut spans = Vec::new();
    for resource_spans in decode(request)?.resource_spans {
        let resource = resource_spans
            .resource
            .map(|resource| resource.attributes)
            .unwrap_or_default();
        let resource = attributes(py, &resource)?;
        for scope_spans in resource_spans.scope_spans {
            for span in &scope_spans.spans {
                let decoded = span_dict(py, span)?;
                decoded.set_item("resource", &resource)?;
                spans.push(decoded);
            }
        }
    }
    Ok(spans)
}

pub(super) fn span_dict<'py>(py: Python<'py>, span: &otlp::Span) -> PyResult<Bound<'py, PyDict>> {
    let status = span.status.clone().unwrap_or_default();
    let events = PyList::empty(py);
    for event in &span.events {
        let decoded = PyDict::new(py);
        decoded.set_item("name", &event.name)?;
        decoded.set_item("unix_ns", event.time_unix_nano)?;
        decoded.set_item("attributes", attributes(py, &event.attributes)?)?;
        events.append(decoded)?;
    }
    let links = PyList::empty(py);
    for link in &span.links {
        let decoded = PyDict::new(py);
        decoded.set_item("trace_id", hex(&link.trace_id))?;
        decoded.set_item("span_id", hex(&link.span_id))?;
        decoded.set_item("attributes", attributes(py, &link.attributes)?)?;
        links.append(decoded)?;
    }
    let decoded = PyDict::new(py);
    decoded.set_item("name", &span.name)?;
    decoded.set_item("kind", lower_name(span.kind().as_str_name(), "SPAN_KIND_"))?;
    decoded.set_item("trace_id", hex(&span.trace_id))?;
    decoded.set_item("span_id", hex(&span.span_id))?;
    let parent = (!span.parent_span_id.is_empty()).then(|| hex(&span.parent_span_id));
    decoded.set_item("parent_span_id", parent)?;
    decoded.set_item("trace_state", &span.trace_state)?;
    decoded.set_item("flags", span.flags)?;
    decoded.set_item("start_unix_ns", span.start_time_unix_nano)?;
    decoded.set_item("end_unix_ns", span.end_time_unix_nano)?;
    decoded.set_item("attributes", attributes(py, &span.attributes)?)?;
    decoded.set_item("events", events)?;
    decoded.set_item("links", links)?;
    decoded.set_item(
        "status",
        lower_name(status.code().as_str_name(), "STATUS_CODE_"),
    )?;
    decoded.set_item("status_description", status.message)?;
    decoded.set_item("dropped_attributes", span.dropped_attributes_count)?;
    decoded.set_item("dropped_events", span.dropped_events_count)?;
    decoded.set_item("dropped_links", span.dropped_links_count)?;
    Ok(decoded)
}

pub(super) fn lower_name(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_ascii_lowercase()
}

pub(super) fn hex(id: &[u8]) -> String {
    if let Ok(bytes) = id.try_into() {
        return TraceId::from_bytes(bytes).to_string();
    }
    id.try_into()
        .map(|bytes| SpanId::from_bytes(bytes).to_string())
        .unwrap_or_default()
}

pub(super) fn attributes<'py>(
    py: Python<'py>,
    attributes: &[KeyValue],
) -> PyResult<Bound<'py, PyDict>> {
    let decoded = PyDict::new(py);
    for attribute in attributes {
        decoded.set_item(&attribute.key, any_value(py, attribute.value.as_ref())?)?;
    }
    Ok(decoded)
}

fn any_value<'py>(py: Python<'py>, value: Option<&AnyValue>) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value.and_then(|value| value.value.as_ref()) {
        Some(OtlpValue::StringValue(text)) => text.into_pyobject(py)?.into_any(),
        Some(OtlpValue::BoolValue(bool)) => bool.into_pyobject(py)?.to_owned().into_any(),
        Some(OtlpValue::IntValue(int)) => int.into_pyobject(py)?.into_any(),
        Some(OtlpValue::DoubleValue(double)) => double.into_pyobject(py)?.into_any(),
        Some(OtlpValue::BytesValue(bytes)) => PyBytes::new(py, bytes).into_any(),
        Some(OtlpValue::ArrayValue(array)) => {
            let values = array
                .values
                .iter()
                .map(|value| any_value(py, Some(value)))
                .collect::<PyResult<Vec<_>>>()?;
            PyList::new(py, values)?.into_any()
        }
        Some(OtlpValue::KvlistValue(list)) => attributes(py, &list.values)?.into_any(),
        _ => py.None().into_bound(py),
    })
}
