//! Writes spans to a stream as they come: a readable line each, a JSON object each, or whole requests in OTLP/JSON.
//!
//! One write a request, and nothing held back. Writing blocks the worker, or a thread of its own beside other destinations. What
//! cannot be written is refused, and so counted; a reader of readable lines that has gone away is no loss.

use std::io::ErrorKind;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::output::Output;
use super::{Exporter, Outcome, memory};
use crate::config::{OutputConfig, OutputFormat, Signal};
use crate::error::Error;
use crate::pipeline::{span_line, waterfall};
use crate::wire::json;

/// Writes lines.
pub struct LinesExporter {
    name: String,
    signal: Signal,
    format: OutputFormat,
    output: Output,
}

impl LinesExporter {
    /// Writes `signal` in any format but [`OutputFormat::Pretty`], which is the console's. Metrics are written in OTLP/JSON.
    pub fn new(config: &OutputConfig, signal: Signal) -> Self {
        let kind = match config.format {
            OutputFormat::OtlpJson => "otlp file",
            _ => "console",
        };
        Self {
            name: format!("{kind} {}", config.stream),
            signal,
            format: config.format,
            output: Output::new(config.stream.clone()),
        }
    }

    /// Opens the file now, see [`Output::open`].
    pub fn open(&mut self) -> Result<(), Error> {
        self.output.open()
    }

    fn accept(&mut self, request: &[u8]) -> Outcome {
        let lines = match self.lines(request) {
            Ok(lines) => lines,
            Err(error) => return Outcome::Rejected { error },
        };
        match self.output.write_lines(&lines) {
            Ok(()) => Outcome::DELIVERED,
            Err(error) if error.kind() == ErrorKind::BrokenPipe && self.is_for_people() => {
                Outcome::DELIVERED
            }
            Err(error) => Outcome::Rejected {
                error: format!("cannot write: {error}"),
            },
        }
    }

    fn is_for_people(&self) -> bool {
        self.format != OutputFormat::OtlpJson
    }

    fn lines(&self, request: &[u8]) -> Result<Vec<u8>, String> {
        if !self.is_for_people() {
            let line = match self.signal {
                Signal::Traces => json::traces(request),
                Signal::Metrics => json::metrics(request),
                Signal::Logs => json::logs(request),
            };
            let mut line = line.ok_or("the request cannot be written as JSON")?;
            line.push(b'\n');
            return Ok(line);
        }
        let request = memory::decode(request)
            .map_err(|error| format!("not an ExportTraceServiceRequest: {error}"))?;
        let mut lines = Vec::new();
        for resource_spans in &request.resource_spans {
            let service = waterfall::service_name(resource_spans);
            let scopes = &resource_spans.scope_spans;
            for span in scopes.iter().flat_map(|scope| &scope.spans) {
                if self.format == OutputFormat::Json {
                    span_line::put_json(&mut lines, service, span);
                } else {
                    span_line::put_compact(&mut lines, service, span);
                }
            }
        }
        Ok(lines)
    }
}

impl Exporter for LinesExporter {
    fn name(&self) -> &str {
        &self.name
    }

    fn export(&mut self, request: Bytes, _items: usize) -> BoxFuture<'_, Outcome> {
        let outcome = self.accept(&request);
        Box::pin(std::future::ready(outcome))
    }
}
