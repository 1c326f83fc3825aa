//! Traces as text: a tree of spans, each with a bar that shows when it ran.
//!
//! Pure: decoded spans in, text out, for the console exporter, the demo and tests. Spans may come from anywhere, so nothing
//! in them is trusted: parents may be missing or form circles, times may run backwards, names may try to drive the
//! terminal. No line is wider than asked for, counted in characters.

mod attributes;
pub(super) mod line;
mod tree;

use std::collections::HashMap;
use std::fmt::Write;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span, Status};

use self::line::{Line, Style, bar, clean, duration};
use self::tree::{Place, Row};

/// Narrower than this the columns collapse.
const MIN_WIDTH: usize = 60;
const DURATION_WIDTH: usize = 7;
/// Events shown beneath one span.
const MAX_EVENTS: usize = 8;
/// Services named in a header.
const MAX_SERVICES: usize = 4;
/// Span flags (OTLP, `SpanFlags`): whether the parent is known to be remote or not, and whether it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// How to draw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RenderOptions {
    /// Characters in a line, at least 60.
    pub width: usize,
    /// Whether to use ANSI colours.
    pub color: bool,
}

impl Default for RenderOptions {
    fn default() -> Self {
        Self {
            width: 120,
            color: false,
        }
    }
}

/// A span and the service it is from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) service: &'a str,
    pub(crate) span: &'a Span,
}

/// Draws every trace in `requests`, in the order of their first spans, with an empty line between them.
///
/// The requests may be from several services; a remote parent that is among them is a parent like any other.
pub fn render(requests: &[ExportTraceServiceRequest], options: &RenderOptions) -> String {
    let mut traces: Vec<Vec<Entry<'_>>> = Vec::new();
    let mut place_of: HashMap<&[u8], usize> = HashMap::new();
    for resource_spans in requests.iter().flat_map(|request| &request.resource_spans) {
        let service = service_name(resource_spans);
        for span in resource_spans
            .scope_spans
            .iter()
            .flat_map(|scope| &scope.spans)
        {
            let place = *place_of.entry(&span.trace_id).or_insert(traces.len());
            if place == traces.len() {
                traces.push(Vec::new());
            }
            traces[place].push(Entry { service, span });
        }
    }
    let drawn: Vec<_> = traces
        .iter()
        .map(|trace| render_trace(trace, None, options))
        .collect();
    drawn.join("\n")
}

/// Draws one trace; `note` ends its header.
pub(crate) fn render_trace(
    trace: &[Entry<'_>],
    note: Option<&str>,
    options: &RenderOptions,
) -> String {
    let width = options.width.max(MIN_WIDTH);
    let name_limit = width / 2 - 8;
    let drawing = Drawing {
        trace,
        window: Window::of(trace),
        width,
        bar_width: if width < 100 { 16 } else { 24 },
        color: options.color,
    };
    let mut out = drawing.header(note);
    // Leave a deep span some room for its name: a level takes three characters.
    let rows = tree::rows(trace, (name_limit - 14) / 3);
    let name_width = rows
        .iter()
        .map(|row| drawing.name(row, name_limit).used())
        .max()
        .unwrap_or(0);
    for row in &rows {
        out.push_str(&drawing.span_line(row, name_limit, name_width));
        drawing.below(row, &mut out);
    }
    out
}

/// The value of `service.name`.
pub(crate) fn service_name(resource_spans: &ResourceSpans) -> &str {
    let resource = resource_spans
        .resource
        .iter()
        .flat_map(|resource| &resource.attributes);
    attributes::find_str(resource, "service.name").unwrap_or("unknown_service")
}

/// Whether the span's parent is known to be in another process.
pub(crate) fn has_remote_parent(span: &Span) -> bool {
    !span.parent_span_id.is_empty()
        && span.flags & (HAS_IS_REMOTE | IS_REMOTE) == HAS_IS_REMOTE | IS_REMOTE
}

/// When a span started and ended; a missing time or one before the start makes it empty.
pub(super) fn times(span: &Span) -> (u64, u64) {
    let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    let start = if start == 0 { end } else { start };
    (start, end.max(start))
}

/// The time that the bars stand for.
#[derive(Clone, Copy)]
struct Window {
    start: u64,
    end: u64,
}

impl Window {
    fn of(trace: &[Entry<'_>]) -> Self {
        let times = || {
            trace
                .iter()
                .map(|entry| times(entry.span))
                .filter(|times| times.1 != 0)
        };
        Self {
            start: times().map(|times| times.0).min().unwrap_or(0),
            end: times().map(|times| times.1).max().unwrap_or(0),
        }
    }
}

struct Drawing<'a> {
    trace: &'a [Entry<'a>],
    window: Window,
    width: usize,
    bar_width: usize,
    color: bool,
}

impl Drawing<'_> {
    fn line(&self, limit: usize) -> Line {
        Line::new(limit, self.color)
    }

    /// `trace 4bf92f3577b34da6a3ce929d0e0e4736 · shop, stock · 5 spans · 12.3ms · 1 error`
    fn header(&self, note: Option<&str>) -> String {
        let mut line = self.line(self.width);
        let id = self
            .trace
            .first()
            .map_or(&[][..], |entry| &entry.span.trace_id);
        line.push(Style::Bold, &format!("trace {}", hex(id)));
        let mut services: Vec<&str> = Vec::new();
        for entry in self.trace {
            if !services.contains(&entry.service) && services.len() <= MAX_SERVICES {
                services.push(entry.service);
            }
        }
        let more = if services.len() > MAX_SERVICES {
            ", …"
        } else {
            ""
        };
        services.truncate(MAX_SERVICES);
        line.push(
            Style::Service,
            &format!(" · {}{more}", clean(&services.join(", "), 60)),
        );
        line.push(
            Style::Plain,
            &format!(" · {}", counted(self.trace.len(), "span")),
        );
        let total = duration(self.window.end - self.window.start);
        line.push(Style::Plain, &format!(" · {total}"));
        let errors = self
            .trace
            .iter()
            .filter(|entry| status(entry.span) == StatusCode::Error)
            .count();
        if errors > 0 {
            line.push(Style::Error, &format!(" · {}", counted(errors, "error")));
        }
        if let Some(note) = note {
            line.push(Style::Bold, &format!(" · {note}"));
        }
        line.finish()
    }

    /// The first column: `├─ [stock] GET /items (server)`.
    fn name(&self, row: &Row, limit: usize) -> Line {
        let Entry { service, span } = self.trace[row.index];
        let mut line = self.line(limit);
        line.push(Style::Dim, &row.lead);
        let service_above = match row.parent {
            Some(parent) => self.trace[parent].service,
            // The header says it for the first.
            None => self.trace[0].service,
        };
        if service != service_above {
            line.push(Style::Service, &format!("[{}] ", clean(service, limit)));
        }
        line.push(Style::Plain, &clean(&span.name, limit));
        let kind = match span.kind() {
            SpanKind::Server => " (server)",
            SpanKind::Client => " (client)",
            SpanKind::Producer => " (producer)",
            SpanKind::Consumer => " (consumer)",
            SpanKind::Internal | SpanKind::Unspecified => "",
        };
        line.push(Style::Dim, kind);
        line
    }

    fn span_line(&self, row: &Row, name_limit: usize, name_width: usize) -> String {
        let span = self.trace[row.index].span;
        let (start, end) = times(span);
        let status = status(span);
        let mut line = self.name(row, name_limit);
        line.pad_to(name_width + 1);
        line.widen(self.width);
        let style = if status == StatusCode::Error {
            Style::Error
        } else {
            Style::Bar
        };
        line.push(
            style,
            &bar(
                start,
                end,
                self.window.start,
                self.window.end,
                self.bar_width,
            ),
        );
        line.push(
            Style::Plain,
            &format!(" {:>DURATION_WIDTH$}", duration(end - start)),
        );
        match status {
            StatusCode::Error => {
                let message = span
                    .status
                    .as_ref()
                    .map_or("", |status| status.message.as_str());
                line.push(Style::Error, " ERROR");
                if !message.is_empty() {
                    line.push(Style::Error, &format!(" {}", clean(message, self.width)));
                }
            }
            StatusCode::Ok => line.push(Style::Ok, " ✓"),
            StatusCode::Unset => {}
        }
        match row.place {
            Place::Orphan => {
                let parent = &span.parent_span_id;
                line.push(
                    Style::Dim,
                    &format!(
                        " (parent {} is not here)",
                        hex(&parent[..parent.len().min(8)])
                    ),
                );
            }
            Place::Circle => line.push(Style::Dim, " (its parents form a circle)"),
            Place::Root | Place::Child => {}
        }
        for (name, value) in attributes::telling(span) {
            line.push(Style::Dim, &format!(" {name}="));
            line.push(Style::Plain, &value);
        }
        line.finish()
    }

    /// Events and links, beneath the span's line.
    fn below(&self, row: &Row, out: &mut String) {
        let span = self.trace[row.index].span;
        let start_line = || {
            let mut line = self.line(self.width);
            let stem = if row.has_children { "│ " } else { "  " };
            line.push(Style::Dim, &format!("{}{stem}", row.guide));
            line
        };
        for event in span.events.iter().take(MAX_EVENTS) {
            let mut line = start_line();
            let after = event.time_unix_nano.saturating_sub(times(span).0);
            line.push(Style::Dim, &format!("• +{} ", duration(after)));
            push_event(&mut line, event, self.width);
            out.push_str(&line.finish());
        }
        let hidden =
            span.events.len().saturating_sub(MAX_EVENTS) + span.dropped_events_count as usize;
        if hidden > 0 {
            let mut line = start_line();
            line.push(Style::Dim, &format!("• … and {}", counted(hidden, "event")));
            out.push_str(&line.finish());
        }
        let links = span.links.len() + span.dropped_links_count as usize;
        if links > 0 {
            let mut line = start_line();
            line.push(Style::Dim, &format!("↗ {}", counted(links, "link")));
            out.push_str(&line.finish());
        }
    }
}

/// `ValueError: no such item`, or `retry attempt=2`.
fn push_event(line: &mut Line, event: &Event, width: usize) {
    let text = |key| attributes::find_str(&event.attributes, key).filter(|value| !value.is_empty());
    if event.name == "exception" {
        let kind = text("exception.type").unwrap_or("exception");
        line.push(Style::Error, &clean(kind, width));
        if let Some(message) = text("exception.message") {
            line.push(Style::Error, &format!(": {}", clean(message, width)));
        }
        return;
    }
    line.push(Style::Plain, &clean(&event.name, width));
    for (name, value) in attributes::first(&event.attributes) {
        line.push(Style::Dim, &format!(" {name}="));
        line.push(Style::Plain, &value);
    }
}

pub(super) fn status(span: &Span) -> StatusCode {
    span.status.as_ref().map_or(StatusCode::Unset, Status::code)
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Ids are 8 or 16 bytes; anything longer is not ours and is cut.
pub(super) fn hex(id: &[u8]) -> String {
    id.iter().take(16).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
pub(crate) mod tests;
