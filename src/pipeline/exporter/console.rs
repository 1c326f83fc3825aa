//! Prints traces as waterfalls, to standard output or a file: what a developer looks at before there is a collector.
//!
//! Children end before their parents, so spans are held until their local root has come: a span without a parent, or with
//! a parent in another process. Then the root is printed with everything beneath it that has come. A span that outlives its
//! root is printed when it ends, under a header that says so, with what is beneath it. What is never completed is
//! printed as it is at flush, or when too much is held.
//!
//! For development: every span is decoded and kept as objects, and writing blocks the worker.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{ErrorKind, Write};
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::output::Output;
use super::{Exporter, Outcome, memory};
use crate::config::OutputStream;
use crate::diagnostic::{self, Level};
use crate::error::Error;
use crate::id::{SpanId, TraceId};
use crate::pipeline::waterfall::{self, Entry, RenderOptions};

/// Traces held at most.
const MAX_TRACES: usize = 512;
/// Spans held at most, over all traces.
const MAX_SPANS: usize = 8192;
/// Printed spans that are remembered, to know a late child by its parent.
const MAX_PRINTED: usize = 16_384;

/// Prints traces when their local root has ended.
pub struct ConsoleExporter {
    name: String,
    out: Box<dyn Write + Send>,
    options: RenderOptions,
    held: HashMap<TraceId, Held>,
    held_spans: usize,
    /// Counts traces, so that the oldest is known.
    traces_seen: u64,
    printed: Printed,
}

impl ConsoleExporter {
    /// Prints to standard output, see [`Self::on`].
    pub fn new() -> Self {
        Self {
            name: "console".to_owned(),
            ..Self::on(&OutputStream::Stdout)
        }
    }

    /// Prints to this stream: in colour on a terminal unless `NO_COLOR` is set, as wide as `COLUMNS` says or 120.
    pub fn on(stream: &OutputStream) -> Self {
        Self::to_output(stream, Output::new(stream.clone()))
    }

    /// [`Self::on`], with the file opened now.
    ///
    /// # Errors
    ///
    /// As [`Output::open`].
    pub fn open(stream: &OutputStream) -> Result<Self, Error> {
        let mut output = Output::new(stream.clone());
        output.open()?;
        Ok(Self::to_output(stream, output))
    }

    fn to_output(stream: &OutputStream, output: Output) -> Self {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let options = RenderOptions {
            width: set("COLUMNS")
                .and_then(|columns| columns.parse().ok())
                .unwrap_or(RenderOptions::default().width),
            color: output.is_terminal() && set("NO_COLOR").is_none(),
        };
        Self {
            name: format!("console {stream}"),
            ..Self::to(Box::new(output), options)
        }
    }

    /// Prints to `out`.
    pub fn to(out: Box<dyn Write + Send>, options: RenderOptions) -> Self {
        Self {
            name: "console".to_owned(),
            out,
            options,
            held: HashMap::new(),
            held_spans: 0,
            traces_seen: 0,
            printed: Printed::default(),
        }
    }

    fn accept(&mut self, request: &[u8]) -> Outcome {
        let request = match memory::decode(request) {
            Ok(request) => request,
            Err(error) => {
                return Outcome::Rejected {
                    error: format!("not an ExportTraceServiceRequest: {error}"),
                };
            }
        };
        let mut completed = Vec::new();
        for resource_spans in request.resource_spans {
            let service: Arc<str> = waterfall::service_name(&resource_spans).into();
            for span in resource_spans
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans)
            {
                let trace_id = trace_id(&span);
                if self.printed.completes(&span) && !completed.contains(&trace_id) {
                    completed.push(trace_id);
                }
                self.hold(trace_id, &service, span);
            }
        }
        let mut text = String::new();
        for trace_id in completed {
            self.print_completed(trace_id, &mut text);
        }
        while self.held.len() > MAX_TRACES || self.held_spans > MAX_SPANS {
            self.print_oldest(&mut text);
        }
        match self.write(&text) {
            Ok(()) => Outcome::DELIVERED,
            Err(error) => Outcome::Rejected { error },
        }
    }

    fn hold(&mut self, trace_id: TraceId, service: &Arc<str>, span: Span) {
        let held = self.held.entry(trace_id).or_insert_with(|| {
            self.traces_seen += 1;
            Held {
                age: self.traces_seen,
                spans: Vec::new(),
            }
        });
        held.spans.push((Arc::clone(service), span));
        self.held_spans += 1;
    }

    fn print_completed(&mut self, trace_id: TraceId, text: &mut String) {
        let Some(held) = self.held.get_mut(&trace_id) else {
            return;
        };
        let (complete, open) = split(std::mem::take(&mut held.spans), &self.printed);
        held.spans = open;
        if held.spans.is_empty() {
            self.held.remove(&trace_id);
        }
        let late = !complete.iter().any(|(_, span)| is_local_root(span));
        self.print(&complete, late.then_some("late arrivals"), text);
    }

    fn print_oldest(&mut self, text: &mut String) {
        let oldest = self
            .held
            .iter()
            .min_by_key(|(_, held)| held.age)
            .map(|(id, _)| *id);
        if let Some(held) = oldest.and_then(|id| self.held.remove(&id)) {
            self.print(&held.spans, Some("incomplete"), text);
        }
    }

    fn print(&mut self, spans: &[Served], note: Option<&str>, text: &mut String) {
        self.held_spans -= spans.len();
        let entries: Vec<_> = spans
            .iter()
            .map(|(service, span)| Entry { service, span })
            .collect();
        text.push_str(&waterfall::render_trace(&entries, note, &self.options));
        text.push('\n');
        for (_, span) in spans {
            self.printed.add(span);
        }
    }

    /// What is wrong, if it cannot be written. A closed standard output is no reason to trouble a traced application.
    fn write(&mut self, text: &str) -> Result<(), String> {
        match self
            .out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush())
        {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(format!("cannot write: {error}"))
            }
            _ => Ok(()),
        }
    }
}

impl Default for ConsoleExporter {
    fn default() -> Self {
        Self::new()
    }
}

impl Exporter for ConsoleExporter {
    fn name(&self) -> &str {
        &self.name
    }

    fn export(&mut self, request: Bytes, _items: usize) -> BoxFuture<'_, Outcome> {
        let outcome = self.accept(&request);
        Box::pin(std::future::ready(outcome))
    }

    fn flush(&mut self) {
        let mut text = String::new();
        while !self.held.is_empty() {
            self.print_oldest(&mut text);
        }
        if let Err(error) = self.write(&text) {
            // These spans were counted when they came.
            diagnostic::log_once(Level::Warn, "console-flush", || {
                format!(
                    "incomplete traces are not printed to {}: {error}",
                    self.name
                )
            });
        }
    }
}

/// A span and the name of its service.
type Served = (Arc<str>, Span);

struct Held {
    age: u64,
    spans: Vec<Served>,
}

/// The spans printed last.
#[derive(Default)]
struct Printed {
    known: HashSet<(TraceId, SpanId)>,
    oldest_first: VecDeque<(TraceId, SpanId)>,
}

impl Printed {
    fn add(&mut self, span: &Span) {
        let key = (trace_id(span), span_id(&span.span_id));
        if self.known.insert(key) {
            self.oldest_first.push_back(key);
        }
        if self.oldest_first.len() > MAX_PRINTED
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether nothing above this span is still to come.
    fn completes(&self, span: &Span) -> bool {
        is_local_root(span)
            || self
                .known
                .contains(&(trace_id(span), span_id(&span.parent_span_id)))
    }
}

/// Parts the spans of a trace in those beneath a root or beneath a printed span, and those whose parent is still open.
fn split(spans: Vec<Served>, printed: &Printed) -> (Vec<Served>, Vec<Served>) {
    let mut children: HashMap<&[u8], Vec<usize>> = HashMap::new();
    let mut next = Vec::new();
    for (index, (_, span)) in spans.iter().enumerate() {
        if printed.completes(span) {
            next.push(index);
        } else {
            children
                .entry(&span.parent_span_id)
                .or_default()
                .push(index);
        }
    }
    let mut complete = vec![false; spans.len()];
    while let Some(index) = next.pop() {
        complete[index] = true;
        // Taken out, so that a span is reached once whatever the ids say.
        next.extend(
            children
                .remove(spans[index].1.span_id.as_slice())
                .unwrap_or_default(),
        );
    }
    let mut complete = complete.into_iter();
    spans
        .into_iter()
        .partition(|_| complete.next().unwrap_or(true))
}

/// Whether the span has no parent in this process.
fn is_local_root(span: &Span) -> bool {
    span.parent_span_id.is_empty() || waterfall::has_remote_parent(span)
}

fn trace_id(span: &Span) -> TraceId {
    <[u8; 16]>::try_from(span.trace_id.as_slice()).map_or(TraceId::INVALID, TraceId::from_bytes)
}

fn span_id(bytes: &[u8]) -> SpanId {
    <[u8; 8]>::try_from(bytes).map_or(SpanId::INVALID, SpanId::from_bytes)
}

#[cfg(test)]
mod tests;
