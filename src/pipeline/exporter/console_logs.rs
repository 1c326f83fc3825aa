//! Prints log records to standard output, one line each: what a developer looks at before there is a collector.

use std::fmt::Write as _;
use std::io::Write;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::{Exporter, Outcome};
use crate::wire::log::{self, Line};

/// Prints every record.
pub struct ConsoleLogsExporter {
    out: Box<dyn Write + Send>,
}

impl ConsoleLogsExporter {
    /// Prints to standard output.
    pub fn new() -> Self {
        Self::to(Box::new(std::io::stdout()))
    }

    /// Prints to `out`.
    pub fn to(out: Box<dyn Write + Send>) -> Self {
        Self { out }
    }

    fn accept(&mut self, request: &[u8]) -> Outcome {
        let mut text = String::new();
        if log::for_each_line(request, |line| put_line(&mut text, line)).is_none() {
            return Outcome::Rejected {
                error: "not an ExportLogsServiceRequest".to_owned(),
            };
        }
        // A closed standard output is no reason to trouble a traced application.
        let _ = self
            .out
            .write_all(text.as_bytes())
            .and_then(|()| self.out.flush());
        Outcome::DELIVERED
    }
}

impl Default for ConsoleLogsExporter {
    fn default() -> Self {
        Self::new()
    }
}

impl Exporter for ConsoleLogsExporter {
    fn name(&self) -> &'static str {
        "console"
    }

    fn export(&mut self, request: Bytes, _items: usize) -> BoxFuture<'_, Outcome> {
        let outcome = self.accept(&request);
        Box::pin(std::future::ready(outcome))
    }
}

/// `12:30:59.250 WARNING shop.cart: the cart is empty {cart.id=7} trace=4bf9... span=00f0...`, in UTC. Further
/// lines, and stack traces, are indented.
fn put_line(out: &mut String, line: &Line) {
    const MS_A_DAY: u64 = 24 * 3600 * 1000;
    let ms = line.unix_ns / 1_000_000 % MS_A_DAY;
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "{:02}:{:02}:{:02}.{:03} {} {}: {}",
        ms / 3_600_000,
        ms / 60_000 % 60,
        ms / 1000 % 60,
        ms % 1000,
        readable(&line.severity_text),
        readable(&line.scope),
        readable(&line.body),
    );
    if !line.attributes.is_empty() {
        let _ = write!(out, " {{{}}}", readable(&line.attributes));
    }
    if !line.trace_id.is_empty() {
        let _ = write!(out, " trace={} span={}", line.trace_id, line.span_id);
    }
    out.push('\n');
    if !line.stacktrace.is_empty() {
        let _ = writeln!(out, "    {}", readable(&line.stacktrace));
    }
}

/// Without anything that could move a terminal's cursor; new lines are indented.
fn readable(text: &str) -> String {
    let mut readable = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        match c {
            '\n' => readable.push_str("\n    "),
            '\t' => readable.push(c),
            c if c.is_control() => readable.push(' '),
            c => readable.push(c),
        }
    }
    readable
}
