//! The keyword arguments of `init_tracing` and `tracing`.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple};

use super::convert::{for_each_item, with_name};
use super::errors::to_python;
use super::exporter::read_exporters;
use crate::config::{Arguments, Signal};
use crate::error::Error;
use crate::resource::ResourceValue;

/// Reads the keyword arguments of `init_tracing`; `None` is as good as absent.
pub(super) fn read(kwargs: &Bound<'_, PyDict>) -> PyResult<Arguments> {
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
                return Err(PyTypeError::new_err(format!(
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
