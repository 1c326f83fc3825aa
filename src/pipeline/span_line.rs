//! A finished span as one line: `compact` for eyes and `grep`, `json` for programs that read logs.
//!
//! Nothing in a span is trusted: whatever it holds, it stays on its line, and the compact line cannot drive a terminal.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use super::waterfall::line::{clean, duration};
use super::waterfall::{hex, status, times};
use crate::clock::rfc3339;
use crate::wire::json::{put_base64, put_double, put_string, write};

/// `2026-11-21T17:36:21.123456Z 12.3ms shop checkout trace_id=… span_id=… cart.id=7 | +3.20ms retry attempt=2`
///
/// When the span ended, how long it took, its service, its name, its ids, then what is worth saying, attributes as JSON values,
/// and the events, each after a bar with its time since the start of the span.
pub(crate) fn put_compact(out: &mut Vec<u8>, service: &str, span: &Span) {
    let (start, end) = times(span);
    let mut line = Vec::new();
    let name = &span.name;
    write(
        &mut line,
        format_args!("{} {} ", rfc3339(end), duration(end - start)),
    );
    write(
        &mut line,
        format_args!("{service} {name} trace_id={}", hex(&span.trace_id)),
    );
    write(&mut line, format_args!(" span_id={}", hex(&span.span_id)));
    if !span.parent_span_id.is_empty() {
        let parent = hex(&span.parent_span_id);
        write(&mut line, format_args!(" parent_span_id={parent}"));
    }
    let kind = kind(span);
    if kind != "internal" {
        write(&mut line, format_args!(" kind={kind}"));
    }
    let (code, description) = outcome(span);
    if code != "unset" {
        write(&mut line, format_args!(" status={code}"));
    }
    if !description.is_empty() {
        line.extend_from_slice(b" status_description=");
        put_string(&mut line, description);
    }
    put_pairs(&mut line, &span.attributes);
    if !span.links.is_empty() {
        write(&mut line, format_args!(" links={}", span.links.len()));
    }
    for event in &span.events {
        let after = duration(event.time_unix_nano.saturating_sub(start));
        write(&mut line, format_args!(" | +{after} {}", event.name));
        put_pairs(&mut line, &event.attributes);
    }
    let line = String::from_utf8_lossy(&line);
    out.extend_from_slice(clean(&line, usize::MAX).as_bytes());
    out.push(b'\n');
}

/// ` cart.id=7 user="Ann"`
fn put_pairs(out: &mut Vec<u8>, attributes: &[KeyValue]) {
    for attribute in attributes {
        out.push(b' ');
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'=' | b'"' | b'|');
        if attribute.key.bytes().all(is_plain) {
            out.extend_from_slice(attribute.key.as_bytes());
        } else {
            put_string(out, &attribute.key);
        }
        out.push(b'=');
        put_value(out, attribute.value.as_ref());
    }
}

/// One JSON object; its members are called as those of `FinishedSpan`, with when the span ended first as text.
pub(crate) fn put_json(out: &mut Vec<u8>, service: &str, span: &Span) {
    let (start, end) = times(span);
    let (code, description) = outcome(span);
    write(out, format_args!("{{\"time\":\"{}\"", rfc3339(end)));
    put_text(out, "service", service);
    put_text(out, "name", &span.name);
    put_text(out, "kind", &kind(span));
    put_text(out, "trace_id", &hex(&span.trace_id));
    put_text(out, "span_id", &hex(&span.span_id));
    if span.parent_span_id.is_empty() {
        out.extend_from_slice(b",\"parent_span_id\":null");
    } else {
        put_text(out, "parent_span_id", &hex(&span.parent_span_id));
    }
    if !span.trace_state.is_empty() {
        put_text(out, "trace_state", &span.trace_state);
    }
    write(
        out,
        format_args!(
            ",\"start_unix_ns\":{start},\"end_unix_ns\":{end},\"duration_ns\":{}",
            end - start
        ),
    );
    put_text(out, "status", &code);
    put_text(out, "status_description", description);
    put_attributes(out, &span.attributes);
    put_list(out, "events", &span.events, |out, event| {
        write(out, format_args!("{{\"unix_ns\":{}", event.time_unix_nano));
        put_text(out, "name", &event.name);
        put_attributes(out, &event.attributes);
        out.push(b'}');
    });
    put_list(out, "links", &span.links, |out, link| {
        write(
            out,
            format_args!("{{\"trace_id\":\"{}\"", hex(&link.trace_id)),
        );
        put_text(out, "span_id", &hex(&link.span_id));
        put_attributes(out, &link.attributes);
        out.push(b'}');
    });
    for (key, dropped) in [
        ("dropped_attributes", span.dropped_attributes_count),
        ("dropped_events", span.dropped_events_count),
        ("dropped_links", span.dropped_links_count),
    ] {
        if dropped > 0 {
            write(out, format_args!(",\"{key}\":{dropped}"));
        }
    }
    out.extend_from_slice(b"}\n");
}

fn put_text(out: &mut Vec<u8>, key: &str, text: &str) {
    write(out, format_args!(",\"{key}\":"));
    put_string(out, text);
}

fn put_list<T>(out: &mut Vec<u8>, key: &str, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    write(out, format_args!(",\"{key}\":["));
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put(out, item);
    }
    out.push(b']');
}

fn put_attributes(out: &mut Vec<u8>, attributes: &[KeyValue]) {
    out.extend_from_slice(b",\"attributes\":");
    put_object(out, attributes);
}

fn put_object(out: &mut Vec<u8>, members: &[KeyValue]) {
    out.push(b'{');
    for (index, member) in members.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        put_string(out, &member.key);
        out.push(b':');
        put_value(out, member.value.as_ref());
    }
    out.push(b'}');
}

/// As JSON: bytes in base64, what JSON has no number for as text, both as OTLP/JSON has them.
fn put_value(out: &mut Vec<u8>, value: Option<&AnyValue>) {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => put_string(out, text),
        Some(Value::BoolValue(value)) => write(out, format_args!("{value}")),
        Some(Value::IntValue(value)) => write(out, format_args!("{value}")),
        Some(Value::DoubleValue(value)) => put_double(out, *value),
        Some(Value::BytesValue(bytes)) => put_base64(out, bytes),
        Some(Value::ArrayValue(array)) => {
            out.push(b'[');
            for (index, element) in array.values.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                put_value(out, Some(element));
            }
            out.push(b']');
        }
        Some(Value::KvlistValue(map)) => put_object(out, &map.values),
        // Of the profiling signal, and empty in any other (OTLP, `AnyValue`).
        None | Some(Value::StringValueStrindex(_)) => out.extend_from_slice(b"null"),
    }
}

/// `internal`, `server`, ...
fn kind(span: &Span) -> String {
    lower_name(span.kind().as_str_name(), "SPAN_KIND_")
}

/// `unset`, `ok` or `error`, and the description.
fn outcome(span: &Span) -> (String, &str) {
    let code: StatusCode = status(span);
    let description = span.status.as_ref().map_or("", |status| &status.message);
    (lower_name(code.as_str_name(), "STATUS_CODE_"), description)
}

fn lower_name(name: &str, prefix: &str) -> String {
    name.trim_start_matches(prefix).to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
