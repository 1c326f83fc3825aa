//! `KeyValue` and `AnyValue`.

use super::span::ATTRIBUTE;
use super::{
    bytes_key, bytes_len, fixed64_key, put_bytes, put_fixed64, put_varint, put_varint_field,
    read_varint, varint_key, varint_len,
};
use crate::attribute::Value;

const KEY_VALUE_KEY: u32 = bytes_key(1);
const KEY_VALUE_VALUE: u32 = bytes_key(2);
const ANY_STRING: u32 = bytes_key(1);
const ANY_BOOL: u32 = varint_key(2);
const ANY_INT: u32 = varint_key(3);
const ANY_DOUBLE: u32 = fixed64_key(4);
const ANY_ARRAY: u32 = bytes_key(5);
const ANY_BYTES: u32 = bytes_key(7);
const ARRAY_VALUES: u32 = bytes_key(1);

/// Sequences deeper than this are written as empty: collectors limit the nesting of messages (protobuf's own limit is 100).
const MAX_DEPTH: usize = 16;

/// Appends `KeyValue { key, value }` as the length-delimited field `field_key`, with strings and bytes cut to `limit`.
#[inline]
pub fn put_key_value(
    out: &mut Vec<u8>,
    field_key: u32,
    key: &str,
    value: &Value<'_>,
    limit: Option<u32>,
) {
    let limit = limit.map_or(usize::MAX, |limit| limit as usize);
    if key.len() <= SHORT && field_key < 0x80 {
        let key = key.as_bytes();
        match value {
            Value::Str(text) => {
                let text = cut_str(text, limit).as_bytes();
                if text.len() <= SHORT {
                    let len = text.len() as u8;
                    put_short(out, field_key as u8, key, &[ANY_STRING as u8, len], text);
                    return;
                }
            }
            Value::Bool(bool) => {
                return put_short(
                    out,
                    field_key as u8,
                    key,
                    &[ANY_BOOL as u8, u8::from(*bool)],
                    &[],
                );
            }
            Value::Float(float) => {
                return put_short(
                    out,
                    field_key as u8,
                    key,
                    &[ANY_DOUBLE as u8],
                    &float.to_bits().to_le_bytes(),
                );
            }
            Value::Int(int @ 0..0x4000) => {
                let bits = int.cast_unsigned();
                if bits < 0x80 {
                    return put_short(out, field_key as u8, key, &[ANY_INT as u8, bits as u8], &[]);
                }
                let varint = [ANY_INT as u8, bits as u8 | 0x80, (bits >> 7) as u8];
                return put_short(out, field_key as u8, key, &varint, &[]);
            }
            _ => {}
        }
    }
    put_long_key_value(out, field_key, key, value, limit);
}

/// Keys and texts up to this length take the short way: all lengths of the message then fit into one byte each.
const SHORT: usize = 59;

/// A key that is known when the crate is compiled, encoded up to its value's text or number.
///
/// Made by [`key!`]. Writing an attribute with it is one copy of a fixed length and one of the text: a third of the general
/// way, twelve times a request.
pub struct Key<const N: usize> {
    name: &'static str,
    prefix: [u8; N],
}

impl<const N: usize> Key<N> {
    /// Bytes around the name: field key and length, key and length of the name, key and length of the value, key of the
    /// variant and length or first byte of what it holds.
    pub const AROUND: usize = 8;

    /// `N` is the length of `name` and [`Self::AROUND`].
    ///
    /// # Panics
    ///
    /// While compiling, if it is not, or if the name takes the general way.
    pub const fn new(name: &'static str) -> Self {
        assert!(N == name.len() + Self::AROUND && name.len() <= SHORT);
        let mut prefix = [0; N];
        prefix[0] = ATTRIBUTE as u8;
        prefix[2] = KEY_VALUE_KEY as u8;
        prefix[3] = name.len() as u8;
        let mut index = 0;
        while index < name.len() {
            prefix[4 + index] = name.as_bytes()[index];
            index += 1;
        }
        prefix[N - 4] = KEY_VALUE_VALUE as u8;
        Self { name, prefix }
    }

    /// The name of the attribute.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Appends the attribute with a short text; `false`, and nothing, if it is too long for that.
    #[inline]
    pub fn put_str(&self, out: &mut Vec<u8>, text: &str) -> bool {
        if text.len() > SHORT {
            return false;
        }
        let len = text.len() as u8;
        let mut prefix = self.prefix;
        prefix[1] = N as u8 - 2 + len;
        prefix[N - 3] = 2 + len;
        prefix[N - 2] = ANY_STRING as u8;
        prefix[N - 1] = len;
        out.reserve(N + text.len());
        out.extend_from_slice(&prefix);
        out.extend_from_slice(text.as_bytes());
        true
    }

    /// Appends the attribute with a number that has a fraction.
    #[inline]
    pub fn put_double(&self, out: &mut Vec<u8>, value: f64) {
        let bytes = value.to_bits().to_le_bytes();
        let mut prefix = self.prefix;
        prefix[1] = (N - 2 + 7) as u8;
        prefix[N - 3] = 9;
        prefix[N - 2] = ANY_DOUBLE as u8;
        prefix[N - 1] = bytes[0];
        out.reserve(N + 7);
        out.extend_from_slice(&prefix);
        out.extend_from_slice(&bytes[1..]);
    }

    /// Appends the attribute with a small number; `false`, and nothing, if it takes more than three bytes.
    #[inline]
    pub fn put_int(&self, out: &mut Vec<u8>, value: i64) -> bool {
        let bits = value.cast_unsigned();
        let varint = match bits {
            0..0x80 => [bits as u8, 0, 0],
            0x80..0x4000 => [bits as u8 | 0x80, (bits >> 7) as u8, 0],
            0x4000..0x20_0000 => [
                bits as u8 | 0x80,
                (bits >> 7) as u8 | 0x80,
                (bits >> 14) as u8,
            ],
            _ => return false,
        };
        let extra = usize::from(bits >= 0x80) + usize::from(bits >= 0x4000);
        let mut prefix = self.prefix;
        prefix[1] = (N - 2 + extra) as u8;
        prefix[N - 3] = (2 + extra) as u8;
        prefix[N - 2] = ANY_INT as u8;
        prefix[N - 1] = varint[0];
        out.reserve(N + extra);
        out.extend_from_slice(&prefix);
        out.extend_from_slice(&varint[1..=extra]);
        true
    }
}

/// The [`Key`](crate::wire::attribute::Key) of a name.
#[macro_export]
macro_rules! attribute_key {
    ($name:literal) => {
        const { $crate::wire::attribute::Key::<{ $name.len() + 8 }>::new($name) }
    };
}
pub use attribute_key as key;

/// Appends a `KeyValue` whose lengths are all below 128: the value is `head` and `tail`.
#[inline]
fn put_short<const HEAD: usize>(
    out: &mut Vec<u8>,
    field_key: u8,
    key: &[u8],
    head: &[u8; HEAD],
    tail: &[u8],
) {
    let value_len = HEAD + tail.len();
    let len = 2 + key.len() + 2 + value_len;
    out.reserve(2 + len);
    out.extend_from_slice(&[field_key, len as u8, KEY_VALUE_KEY as u8, key.len() as u8]);
    out.extend_from_slice(key);
    out.extend_from_slice(&[KEY_VALUE_VALUE as u8, value_len as u8]);
    out.extend_from_slice(head);
    out.extend_from_slice(tail);
}

fn put_long_key_value(
    out: &mut Vec<u8>,
    field_key: u32,
    key: &str,
    value: &Value<'_>,
    limit: usize,
) {
    let value_len = any_value_len(value, limit, 0);
    let len = bytes_len(key.len()) + bytes_len(value_len);
    out.reserve(len + 12);
    put_varint(out, u64::from(field_key));
    put_varint(out, len as u64);
    put_bytes(out, KEY_VALUE_KEY, key.as_bytes());
    put_varint(out, u64::from(KEY_VALUE_VALUE));
    put_varint(out, value_len as u64);
    put_any_value(out, value, limit, 0);
}

fn any_value_len(value: &Value<'_>, limit: usize, depth: usize) -> usize {
    match value {
        Value::Str(text) => bytes_len(cut_str(text, limit).len()),
        Value::Bytes(bytes) => bytes_len(bytes.len().min(limit)),
        Value::Bool(_) => 2,
        // Negative integers take ten bytes: int64 is written as its two's complement.
        Value::Int(int) => 1 + varint_len(int.cast_unsigned()),
        Value::Float(_) => 9,
        Value::Array(values) => bytes_len(array_len(values, limit, depth)),
    }
}

fn array_len(values: &[Value<'_>], limit: usize, depth: usize) -> usize {
    if depth == MAX_DEPTH {
        return 0;
    }
    values
        .iter()
        .map(|value| bytes_len(any_value_len(value, limit, depth + 1)))
        .sum()
}

fn put_any_value(out: &mut Vec<u8>, value: &Value<'_>, limit: usize, depth: usize) {
    match value {
        Value::Str(text) => put_bytes(out, ANY_STRING, cut_str(text, limit).as_bytes()),
        Value::Bytes(bytes) => put_bytes(out, ANY_BYTES, &bytes[..bytes.len().min(limit)]),
        Value::Bool(bool) => put_varint_field(out, ANY_BOOL, u64::from(*bool)),
        Value::Int(int) => put_varint_field(out, ANY_INT, int.cast_unsigned()),
        Value::Float(float) => put_fixed64(out, ANY_DOUBLE, float.to_bits()),
        Value::Array(values) => {
            put_varint(out, u64::from(ANY_ARRAY));
            put_varint(out, array_len(values, limit, depth) as u64);
            if depth < MAX_DEPTH {
                for value in values {
                    put_varint(out, u64::from(ARRAY_VALUES));
                    put_varint(out, any_value_len(value, limit, depth + 1) as u64);
                    put_any_value(out, value, limit, depth + 1);
                }
            }
        }
    }
}

/// The first `limit` characters of `text` (OpenTelemetry specification, "Attribute Limits": a character counts as one).
#[inline]
pub(crate) fn cut_str(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    match text.char_indices().nth(limit) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// Where in `fields`, a run of `KeyValue` fields whose field key takes one byte, the attribute `key` stands.
#[inline]
pub(crate) fn find_key(fields: &[u8], key: &str) -> Option<std::ops::Range<usize>> {
    let mut start = 0;
    while start < fields.len() {
        let (len, len_len) = read_length(&fields[start + 1..])?;
        let body = start + 1 + len_len;
        let end = body + len;
        // The key is always the first field of our own `KeyValue`.
        let (name_len, name_len_len) = read_length(&fields[body + 1..])?;
        if name_len == key.len() {
            let name = body + 1 + name_len_len;
            if &fields[name..name + name_len] == key.as_bytes() {
                return Some(start..end);
            }
        }
        start = end;
    }
    None
}

/// The value of an attribute that [`find_key`] found, if it is a number with a fraction.
pub(crate) fn read_float(field: &[u8]) -> Option<f64> {
    // The value is the last field of our own `KeyValue`: nine bytes, a key and the number.
    let (around, bits) = field.split_last_chunk::<8>()?;
    around
        .ends_with(&[KEY_VALUE_VALUE as u8, 9, ANY_DOUBLE as u8])
        .then(|| f64::from_bits(u64::from_le_bytes(*bits)))
}

/// Reads a length, nearly always of one byte.
#[inline]
fn read_length(bytes: &[u8]) -> Option<(usize, usize)> {
    match bytes.first() {
        Some(short @ 0..0x80) => Some((usize::from(*short), 1)),
        _ => read_varint(bytes).map(|(len, len_len)| (len as usize, len_len)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_with_a_fraction_is_read_back_and_nothing_else_is() {
        let long = "k".repeat(200);
        for key in ["k", &long] {
            let mut fields = Vec::new();
            put_key_value(&mut fields, ATTRIBUTE, "other", &Value::Float(9.0), None);
            put_key_value(&mut fields, ATTRIBUTE, key, &Value::Float(-2.5), None);
            let found = find_key(&fields, key).map(|found| read_float(&fields[found]));
            assert_eq!(found, Some(Some(-2.5)));
        }
        for value in [
            Value::Int(i64::MAX),
            Value::Bool(true),
            Value::Str("a text of some length"),
            Value::Str(""),
        ] {
            let mut field = Vec::new();
            put_key_value(&mut field, ATTRIBUTE, "k", &value, None);
            assert_eq!(read_float(&field), None, "{value:?}");
        }
    }

    #[test]
    fn a_known_key_writes_what_the_general_way_writes() {
        let key = key!("http.request.method");
        let mut general = Vec::new();
        let mut known = Vec::new();
        for len in 0..=SHORT {
            let text = "x".repeat(len);
            put_key_value(
                &mut general,
                ATTRIBUTE,
                key.name(),
                &Value::Str(&text),
                None,
            );
            assert!(key.put_str(&mut known, &text));
            assert_eq!(known, general, "{len}");
        }
        for value in [0.0, 1.5, -2.5e-9, f64::MAX] {
            put_key_value(
                &mut general,
                ATTRIBUTE,
                key.name(),
                &Value::Float(value),
                None,
            );
            key.put_double(&mut known, value);
            assert_eq!(known, general, "{value}");
        }
        for value in [0, 1, 127, 128, 200, 0x3fff, 0x4000, 51_234, 0x1f_ffff] {
            put_key_value(
                &mut general,
                ATTRIBUTE,
                key.name(),
                &Value::Int(value),
                None,
            );
            assert!(key.put_int(&mut known, value));
            assert_eq!(known, general, "{value}");
        }
        for value in [-1, i64::MIN, 0x20_0000, i64::MAX] {
            assert!(!key.put_int(&mut known, value), "{value}");
        }
        assert!(!key.put_str(&mut known, &"x".repeat(SHORT + 1)));
        assert_eq!(known, general);
    }
}
