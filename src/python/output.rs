//! Destinations that write to a stream or a file: `ConsoleExporter` and `OtlpFileExporter`.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyString;

use super::arguments::argument;
use super::errors::to_python;
use super::exporter::optional;
use crate::config::{OutputConfig, OutputFormat, OutputStream, Signal};

/// Spans for people and for programs that read logs.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct ConsoleExporter {
    config: OutputConfig,
}

#[pymethods]
impl ConsoleExporter {
    #[new]
    #[pyo3(signature = (output_stream=None, *, format=None))]
    fn new(
        py: Python<'_>,
        output_stream: Option<&Bound<'_, PyAny>>,
        format: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let format = match optional::<String>(format, "format", "a string")? {
            Some(name) => OutputFormat::parse(&name).map_err(|error| to_python(py, &error))?,
            None => OutputFormat::Pretty,
        };
        let stream = stream(output_stream)?;
        Ok(Self {
            config: OutputConfig { stream, format },
        })
    }

    fn __repr__(&self) -> String {
        let OutputConfig { stream, format } = &self.config;
        let stream = stream.to_string();
        format!("ConsoleExporter({stream:?}, format={:?})", format.name())
    }
}

/// OTLP/JSON, one request a line.
#[pyclass(frozen, module = "rvh_trace")]
pub(super) struct OtlpFileExporter {
    config: OutputConfig,
}

#[pymethods]
impl OtlpFileExporter {
    #[new]
    #[pyo3(signature = (output_stream=None))]
    fn new(output_stream: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        let stream = stream(output_stream)?;
        let format = OutputFormat::OtlpJson;
        Ok(Self {
            config: OutputConfig { stream, format },
        })
    }

    fn __repr__(&self) -> String {
        format!("OtlpFileExporter({:?})", self.config.stream.to_string())
    }
}

/// The text of a stream, or any path: only a text is a name or a URL.
fn stream(value: Option<&Bound<'_, PyAny>>) -> PyResult<OutputStream> {
    let Some(value) = value else {
        return Ok(OutputStream::Stdout);
    };
    let text = value
        .cast::<PyString>()
        .ok()
        .and_then(|text| text.to_str().ok());
    let stream = match text {
        Some(text) => OutputStream::parse(text),
        None => OutputStream::file(&argument::<PathBuf>(
            value,
            "output_stream",
            "stdout, stderr or a path",
        )?),
    };
    stream.map_err(|error| to_python(value.py(), &error))
}

/// What `exporter` says, if it is one of these and takes this signal.
pub(super) fn config(exporter: &Bound<'_, PyAny>, signal: Signal) -> Option<OutputConfig> {
    if let Ok(file) = exporter.cast::<OtlpFileExporter>() {
        return Some(file.get().config.clone());
    }
    let console = exporter.cast::<ConsoleExporter>().ok()?;
    (signal == Signal::Traces).then(|| console.get().config.clone())
}
