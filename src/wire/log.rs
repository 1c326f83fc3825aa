//! `LogRecord` and the `ScopeLogs` around it (`opentelemetry/proto/logs/v1/logs.proto`).
//!
//! Each record waits as a `ScopeLogs` of its own, because each logger is a scope of its own; so a run of them is OTLP
//! whichever way it is cut. A request has the records of one scope in one `ScopeLogs`, see [`Grouped`].

use std::collections::HashMap;
use std::fmt::Write as _;

use super::json::{Value, read_field};
use super::{
    bytes_key, bytes_len, fixed32_key, fixed64_key, put_bytes, put_fixed32, put_fixed64,
    put_varint, put_varint_field, read_varint, varint_key, varint_len,
};
use crate::context::SpanContext;
use crate::log::{LogAttributes, LogRecord};

const RESOURCE_LOGS_SCOPE_LOGS: u32 = bytes_key(2);
const SCOPE_LOGS_SCOPE: u32 = bytes_key(1);
const SCOPE_LOGS_RECORD: u32 = bytes_key(2);
const SCOPE_NAME: u32 = bytes_key(1);

const TIME: u32 = fixed64_key(1);
const SEVERITY: u32 = varint_key(2);
const SEVERITY_TEXT: u32 = bytes_key(3);
const BODY: u32 = bytes_key(5);
/// `LogRecord.attributes`
pub(crate) const ATTRIBUTE: u32 = bytes_key(6);
const DROPPED_ATTRIBUTES: u32 = varint_key(7);
const FLAGS: u32 = fixed32_key(8);
const TRACE_ID: u32 = bytes_key(9);
const SPAN_ID: u32 = bytes_key(10);
const OBSERVED_TIME: u32 = fixed64_key(11);
const EVENT_NAME: u32 = bytes_key(12);
const ANY_STRING: u32 = bytes_key(1);

/// A record with everything that is known of it.
pub(crate) struct Finished<'a> {
    pub(crate) record: &'a LogRecord<'a>,
    pub(crate) attributes: &'a LogAttributes,
    pub(crate) observed_unix_ns: u64,
}

/// A text field, which is left out when it is empty.
const fn text_len(text: &str) -> usize {
    if text.is_empty() {
        0
    } else {
        bytes_len(text.len())
    }
}

fn put_text(out: &mut Vec<u8>, key: u32, text: &str) {
    if !text.is_empty() {
        put_field(out, key, text.as_bytes());
    }
}

/// [`put_bytes`], out of line: seven times in place it would be half of [`put_log`].
#[inline(never)]
fn put_field(out: &mut Vec<u8>, key: u32, bytes: &[u8]) {
    put_bytes(out, key, bytes);
}

impl Finished<'_> {
    fn context(&self) -> Option<&SpanContext> {
        self.record.context.filter(|context| context.is_valid())
    }

    fn record_len(&self) -> usize {
        let record = self.record;
        let dropped = self.attributes.dropped;
        // Two times of nine bytes and the severity; flags and ids.
        20 + self.context().map_or(0, |_| 5 + 18 + 10)
            + text_len(record.severity_text)
            + bytes_len(bytes_len(record.body.len()))
            + self.attributes.fields.len()
            + text_len(record.event_name)
            + if dropped == 0 {
                0
            } else {
                1 + varint_len(u64::from(dropped))
            }
    }

    fn scope_logs_len(&self) -> usize {
        bytes_len(bytes_len(self.record.scope.len())) + bytes_len(self.record_len())
    }

    /// How many bytes [`put_log`] will append.
    pub(crate) fn encoded_len(&self) -> usize {
        bytes_len(self.scope_logs_len())
    }
}

/// Appends the record as a `ResourceLogs.scope_logs` field.
pub(crate) fn put_log(out: &mut Vec<u8>, log: &Finished<'_>) {
    let (record, attributes) = (log.record, log.attributes);
    let len = log.scope_logs_len();
    out.reserve(bytes_len(len));
    put_varint(out, u64::from(RESOURCE_LOGS_SCOPE_LOGS));
    put_varint(out, len as u64);
    let start = out.len();
    put_varint(out, u64::from(SCOPE_LOGS_SCOPE));
    put_varint(out, bytes_len(record.scope.len()) as u64);
    put_field(out, SCOPE_NAME, record.scope.as_bytes());
    put_varint(out, u64::from(SCOPE_LOGS_RECORD));
    put_varint(out, log.record_len() as u64);

    put_fixed64(out, TIME, record.unix_ns.unwrap_or(log.observed_unix_ns));
    put_fixed64(out, OBSERVED_TIME, log.observed_unix_ns);
    put_varint_field(out, SEVERITY, u64::from(record.severity.number()));
    put_text(out, SEVERITY_TEXT, record.severity_text);
    put_varint(out, u64::from(BODY));
    put_varint(out, bytes_len(record.body.len()) as u64);
    put_field(out, ANY_STRING, record.body.as_bytes());
    out.extend_from_slice(&attributes.fields);
    if attributes.dropped > 0 {
        put_varint_field(out, DROPPED_ATTRIBUTES, u64::from(attributes.dropped));
    }
    if let Some(context) = log.context() {
        put_fixed32(out, FLAGS, u32::from(context.flags.to_byte()));
        put_field(out, TRACE_ID, &context.trace_id.to_bytes());
        put_field(out, SPAN_ID, &context.span_id.to_bytes());
    }
    put_text(out, EVENT_NAME, record.event_name);
    debug_assert_eq!(out.len() - start, len);
}

/// The records of one scope.
struct Group<'a> {
    /// `ScopeLogs.scope`
    scope: &'a [u8],
    /// Each a `ScopeLogs.log_records` field.
    records: Vec<&'a [u8]>,
    len: usize,
}

/// Records with those of one scope together: scopes in the order of their first record, records in their own.
pub(crate) struct Grouped<'a>(Vec<Group<'a>>);

impl<'a> Grouped<'a> {
    /// Groups a run of what [`put_log`] appends.
    pub(crate) fn of(mut items: &'a [u8]) -> Self {
        let mut groups: Vec<Group<'a>> = Vec::new();
        let mut known = HashMap::new();
        while let Some((item, rest)) = split_field(items) {
            items = rest;
            let Some((scope, record)) = contents(item).and_then(split_field) else {
                break;
            };
            let index = match groups.last() {
                Some(last) if last.scope == scope => groups.len() - 1,
                _ => *known.entry(scope).or_insert(groups.len()),
            };
            if index == groups.len() {
                groups.push(Group {
                    scope,
                    records: Vec::new(),
                    len: scope.len(),
                });
            }
            groups[index].records.push(record);
            groups[index].len += record.len();
        }
        Self(groups)
    }

    /// How many bytes [`Self::put`] will append.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|group| bytes_len(group.len)).sum()
    }

    /// Appends a run of `ResourceLogs.scope_logs` fields.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        for group in &self.0 {
            put_varint(out, u64::from(RESOURCE_LOGS_SCOPE_LOGS));
            put_varint(out, group.len as u64);
            out.extend_from_slice(group.scope);
            for record in &group.records {
                out.extend_from_slice(record);
            }
        }
    }
}

/// Splits off the length-delimited field with a one-byte key at the start of `bytes`.
fn split_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, len_len) = read_varint(bytes.get(1..)?)?;
    bytes.split_at_checked(1 + len_len + len as usize)
}

/// What is in such a field.
fn contents(field: &[u8]) -> Option<&[u8]> {
    let (_, len_len) = read_varint(field.get(1..)?)?;
    field.get(1 + len_len..)
}

/// A record as a person reads it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) unix_ns: u64,
    pub(crate) severity_text: String,
    pub(crate) scope: String,
    pub(crate) body: String,
    /// `key=value, key=value`
    pub(crate) attributes: String,
    /// Stack traces, one after the other.
    pub(crate) stacktrace: String,
    /// In hexadecimal, as is `span_id`; empty outside of a span.
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
}

/// Calls `each` with every record of an encoded `ExportLogsServiceRequest`; `None` for other bytes.
pub(crate) fn for_each_line(request: &[u8], mut each: impl FnMut(&Line)) -> Option<()> {
    for_each_field(request, |_, resource_logs| {
        let Value::Bytes(resource_logs) = resource_logs else {
            return Some(());
        };
        for_each_field(resource_logs, |number, scope_logs| {
            let (2, Value::Bytes(scope_logs)) = (number, scope_logs) else {
                return Some(());
            };
            let mut line = Line::default();
            for_each_field(scope_logs, |number, value| {
                match (number, value) {
                    (1, Value::Bytes(scope)) => line.scope = first_text(scope)?,
                    (2, Value::Bytes(record)) => {
                        let scope = std::mem::take(&mut line.scope);
                        line = Line {
                            scope,
                            ..Line::default()
                        };
                        line.read(record)?;
                        each(&line);
                    }
                    _ => {}
                }
                Some(())
            })
        })
    })
}

impl Line {
    fn read(&mut self, record: &[u8]) -> Option<()> {
        for_each_field(record, |number, value| {
            match (number, value) {
                (1, Value::Fixed64(bytes)) => self.unix_ns = u64::from_le_bytes(bytes),
                (3, Value::Bytes(text)) => self.severity_text = text_of(text),
                (5, Value::Bytes(body)) => self.body = any_value_text(body),
                (6, Value::Bytes(attribute)) => {
                    let (mut key, mut value) = (String::new(), String::new());
                    for_each_field(attribute, |number, field| {
                        match (number, field) {
                            (1, Value::Bytes(text)) => key = text_of(text),
                            (2, Value::Bytes(any)) => value = any_value_text(any),
                            _ => {}
                        }
                        Some(())
                    })?;
                    if key.ends_with(".stacktrace") {
                        self.stacktrace.extend([value.trim_end(), "\n"]);
                        return Some(());
                    }
                    let comma = if self.attributes.is_empty() { "" } else { ", " };
                    self.attributes.extend([comma, &key, "=", &value]);
                }
                (9, Value::Bytes(id)) => self.trace_id = hex(id),
                (10, Value::Bytes(id)) => self.span_id = hex(id),
                _ => {}
            }
            Some(())
        })
    }
}

fn for_each_field<'a>(
    mut bytes: &'a [u8],
    mut each: impl FnMut(u64, Value<'a>) -> Option<()>,
) -> Option<()> {
    while !bytes.is_empty() {
        let (number, value, rest) = read_field(bytes)?;
        each(number, value)?;
        bytes = rest;
    }
    Some(())
}

/// The text in field 1.
fn first_text(message: &[u8]) -> Option<String> {
    let mut found = String::new();
    for_each_field(message, |number, value| {
        if let (1, Value::Bytes(text)) = (number, value) {
            found = text_of(text);
        }
        Some(())
    })?;
    Some(found)
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn hex(id: &[u8]) -> String {
    let mut text = String::with_capacity(2 * id.len());
    for byte in id {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// An `AnyValue`, scalars as they are.
fn any_value_text(any: &[u8]) -> String {
    match read_field(any) {
        Some((1, Value::Bytes(text), _)) => text_of(text),
        Some((2, Value::Varint(bool), _)) => (bool != 0).to_string(),
        Some((3, Value::Varint(int), _)) => int.cast_signed().to_string(),
        Some((4, Value::Fixed64(double), _)) => f64::from_le_bytes(double).to_string(),
        _ => "…".to_owned(),
    }
}
