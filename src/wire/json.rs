//! OTLP/JSON from encoded OTLP (OTLP specification, "JSON Protobuf Encoding"): the bytes that a span is are read once more and
//! written as text, without objects in between.
//!
//! The rules: keys in lowerCamelCase; trace and span ids in hexadecimal, other bytes in base64; 64-bit integers as decimal
//! strings, enumerations as numbers; NaN and the infinities as strings. A field that is not on the wire has its default and is left
//! out; one that [`schema`] does not know is left out too. The serde implementations of `opentelemetry-proto` were not
//! taken: they write a NaN attribute as `null`, which readers refuse with the whole request.

mod schema;

use std::io::Write;

use super::read_varint;
use schema::{Field, Kind, Message};

/// As deep as prost reads messages.
const MAX_DEPTH: usize = 100;

/// An encoded `ExportTraceServiceRequest` as JSON; `None` for other bytes.
pub fn traces(request: &[u8]) -> Option<Vec<u8>> {
    transcode(&schema::TRACES, request)
}

/// An encoded `ExportMetricsServiceRequest` as JSON; `None` for other bytes.
pub fn metrics(request: &[u8]) -> Option<Vec<u8>> {
    transcode(&schema::METRICS, request)
}

/// An encoded `ExportLogsServiceRequest` as JSON; `None` for other bytes.
pub fn logs(request: &[u8]) -> Option<Vec<u8>> {
    transcode(&schema::LOGS, request)
}

fn transcode(message: &Message, bytes: &[u8]) -> Option<Vec<u8>> {
    // Keys and decimal times make it about three times as long.
    let mut out = Vec::with_capacity(bytes.len() * 3);
    put_message(&mut out, message, bytes, 0)?;
    Some(out)
}

/// One field as it is on the wire.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
}

/// Reads the field at the start of `bytes`: its number, its value and what comes after it.
pub(super) fn read_field(bytes: &[u8]) -> Option<(u64, Value<'_>, &[u8])> {
    let (key, len) = read_varint(bytes)?;
    let rest = &bytes[len..];
    let (value, rest) = match key & 7 {
        0 => {
            let (value, len) = read_varint(rest)?;
            (Value::Varint(value), &rest[len..])
        }
        1 => {
            let (value, rest) = rest.split_first_chunk()?;
            (Value::Fixed64(*value), rest)
        }
        2 => {
            let (value_len, len) = read_varint(rest)?;
            let (value, rest) = rest[len..].split_at_checked(usize::try_from(value_len).ok()?)?;
            (Value::Bytes(value), rest)
        }
        5 => {
            let (value, rest) = rest.split_first_chunk()?;
            (Value::Fixed32(*value), rest)
        }
        _ => return None,
    };
    Some((key >> 3, value, rest))
}

fn put_message(out: &mut Vec<u8>, message: &Message, bytes: &[u8], depth: usize) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    out.push(b'{');
    let mut is_first = true;
    // The fields of a message come in any order and mixed, but a JSON array is in one piece: one pass for each field
    // that is there.
    for field in message.0 {
        let mut rest = bytes;
        let mut last = None;
        while !rest.is_empty() {
            let (number, value, after) = read_field(rest)?;
            rest = after;
            if number != u64::from(field.number) {
                continue;
            }
            if field.is_repeated {
                put_key(out, field, last.is_none(), &mut is_first);
                put_value(out, field, value, depth)?;
            }
            last = Some(value);
        }
        match last {
            None if field.is_required => {
                put_key(out, field, true, &mut is_first);
                out.extend_from_slice(if field.is_repeated { b"]" } else { b"\"\"" });
            }
            None => {}
            Some(_) if field.is_repeated => {
                // A packed field without a number has left a comma.
                if out.last() == Some(&b',') {
                    out.pop();
                }
                out.push(b']');
            }
            // A field that is there twice has its last value (protobuf encoding guide, "Last One Wins").
            Some(value) => {
                put_key(out, field, true, &mut is_first);
                put_value(out, field, value, depth)?;
            }
        }
    }
    out.push(b'}');
    Some(())
}

/// What stands before a value: the key, or a comma between two values of one array.
fn put_key(out: &mut Vec<u8>, field: &Field, is_first_value: bool, is_first_field: &mut bool) {
    if !is_first_value {
        if out.last() != Some(&b',') {
            out.push(b',');
        }
        return;
    }
    if !std::mem::take(is_first_field) {
        out.push(b',');
    }
    put_string(out, field.name);
    out.extend_from_slice(if field.is_repeated { b":[" } else { b":" });
}

fn put_value(out: &mut Vec<u8>, field: &Field, value: Value<'_>, depth: usize) -> Option<()> {
    match (field.kind, value) {
        (Kind::Message(message), Value::Bytes(bytes)) => {
            put_message(out, message, bytes, depth + 1)?;
        }
        (Kind::String, Value::Bytes(bytes)) => put_string(out, &String::from_utf8_lossy(bytes)),
        (Kind::Hex, Value::Bytes(bytes)) => {
            out.push(b'"');
            for byte in bytes {
                write(out, format_args!("{byte:02x}"));
            }
            out.push(b'"');
        }
        (Kind::Base64, Value::Bytes(bytes)) => put_base64(out, bytes),
        // Numbers that are repeated come packed: one field with all of them.
        (kind, Value::Bytes(mut packed)) if field.is_repeated => {
            while !packed.is_empty() {
                let (value, rest) = match kind {
                    Kind::Fixed64 | Kind::SFixed64 | Kind::Double => {
                        let (value, rest) = packed.split_first_chunk()?;
                        (Value::Fixed64(*value), rest)
                    }
                    _ => {
                        let (value, len) = read_varint(packed)?;
                        (Value::Varint(value), &packed[len..])
                    }
                };
                packed = rest;
                put_number(out, kind, value)?;
                if !packed.is_empty() {
                    out.push(b',');
                }
            }
        }
        (kind, value) => put_number(out, kind, value)?,
    }
    Some(())
}

fn put_number(out: &mut Vec<u8>, kind: Kind, value: Value<'_>) -> Option<()> {
    match (kind, value) {
        (Kind::Bool, Value::Varint(value)) => write(out, format_args!("{}", value != 0)),
        (Kind::UInt32, Value::Varint(value)) => write(out, format_args!("{}", value as u32)),
        // An enumeration is an int32, and a negative one takes ten bytes.
        (Kind::Enum, Value::Varint(value)) => write(out, format_args!("{}", value as i32)),
        (Kind::SInt32, Value::Varint(value)) => {
            let value = value as u32;
            let value = (value >> 1).cast_signed() ^ -(value & 1).cast_signed();
            write(out, format_args!("{value}"));
        }
        (Kind::Int64, Value::Varint(value)) => {
            write(out, format_args!("\"{}\"", value.cast_signed()));
        }
        (Kind::UInt64, Value::Varint(value)) => write(out, format_args!("\"{value}\"")),
        (Kind::Fixed64, Value::Fixed64(value)) => {
            write(out, format_args!("\"{}\"", u64::from_le_bytes(value)));
        }
        (Kind::SFixed64, Value::Fixed64(value)) => {
            write(out, format_args!("\"{}\"", i64::from_le_bytes(value)));
        }
        (Kind::Fixed32, Value::Fixed32(value)) => {
            write(out, format_args!("{}", u32::from_le_bytes(value)));
        }
        (Kind::Double, Value::Fixed64(value)) => put_double(out, f64::from_le_bytes(value)),
        _ => return None,
    }
    Some(())
}

/// Protobuf's JSON mapping has strings for what JSON has no number for.
pub(crate) fn put_double(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"\"NaN\"");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 {
            b"\"Infinity\"".as_slice()
        } else {
            b"\"-Infinity\""
        });
    } else {
        // The shortest text that reads back as the same number; `Display` would write 1e300 in full.
        write(out, format_args!("{value:?}"));
    }
}

/// Quoted, with what JSON must not hold escaped.
pub(crate) fn put_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    let must_be_escaped = |byte: &u8| matches!(byte, b'"' | b'\\' | ..0x20);
    while let Some(at) = rest.iter().position(must_be_escaped) {
        out.extend_from_slice(&rest[..at]);
        match rest[at] {
            byte @ (b'"' | b'\\') => out.extend_from_slice(&[b'\\', byte]),
            byte => write(out, format_args!("\\u{byte:04x}")),
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// RFC 4648, section 4, padded.
pub(crate) fn put_base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.push(b'"');
    for chunk in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for place in 0..4 {
            let six = bits >> (18 - 6 * place) & 0x3f;
            out.push(if place <= chunk.len() {
                ALPHABET[six as usize]
            } else {
                b'='
            });
        }
    }
    out.push(b'"');
}

/// Formatted text.
pub(crate) fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(text);
}

/// The `partialSuccess` of a response of any signal: how many items were refused, and what is said about them.
pub(crate) fn partial_success(body: &[u8]) -> Option<(u64, String)> {
    let response: serde_json::Value = serde_json::from_slice(body).ok()?;
    let partial = response.get("partialSuccess")?.as_object()?;
    let mut members = partial.iter();
    // `rejectedSpans`, `rejectedDataPoints`, `rejectedLogRecords`. 64-bit integers are strings, and readers take numbers too.
    let rejected = match members.find(|(key, _)| key.starts_with("rejected")) {
        Some((_, serde_json::Value::String(text))) => text.parse().unwrap_or(0),
        Some((_, number)) => number.as_u64().unwrap_or(0),
        None => 0,
    };
    let message = partial.get("errorMessage").and_then(|text| text.as_str());
    Some((rejected, message.unwrap_or_default().to_owned()))
}

/// The message of a `google.rpc.Status`.
pub(crate) fn status_message(body: &[u8]) -> Option<String> {
    let status: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(status.get("message")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests;
