//! The OTLP writer: the only place that knows protobuf tags.
//!
//! Everything appends to a `Vec<u8>` that the caller owns and usually reuses. Sizes are computed before a length-delimited
//! field is written, so nothing is ever moved or patched. Field numbers are those of `opentelemetry/proto/trace/v1`, `logs/v1`,
//! `common/v1` and `resource/v1`; a parser must accept fields in any order (protobuf encoding guide, "Field order"), and
//! this writer uses that freedom: what is known first is written first.

pub mod attribute;
pub mod json;
pub(crate) mod log;
pub mod request;
pub mod span;

/// The key of a field with wire type 0, a varint.
pub(crate) const fn varint_key(field: u32) -> u32 {
    field << 3
}

/// The key of a field with wire type 1, eight bytes little-endian.
pub(crate) const fn fixed64_key(field: u32) -> u32 {
    field << 3 | 1
}

/// The key of a field with wire type 2, a length and that many bytes.
pub(crate) const fn bytes_key(field: u32) -> u32 {
    field << 3 | 2
}

/// The key of a field with wire type 5, four bytes little-endian.
pub(crate) const fn fixed32_key(field: u32) -> u32 {
    field << 3 | 5
}

/// How many bytes `value` takes as a varint: 1 to 10.
#[inline]
pub(crate) const fn varint_len(value: u64) -> usize {
    // Seven bits a byte; `| 1` gives zero one byte.
    ((63 - (value | 1).leading_zeros() as usize) / 7) + 1
}

/// Appends `value` as a varint.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// How many bytes a length-delimited field with a one-byte key takes.
#[inline]
pub(crate) const fn bytes_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Appends a length-delimited field.
#[inline]
pub(crate) fn put_bytes(out: &mut Vec<u8>, key: u32, bytes: &[u8]) {
    put_varint(out, u64::from(key));
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a varint field.
#[inline]
pub(crate) fn put_varint_field(out: &mut Vec<u8>, key: u32, value: u64) {
    put_varint(out, u64::from(key));
    put_varint(out, value);
}

/// Appends a fixed64 field.
#[inline]
pub(crate) fn put_fixed64(out: &mut Vec<u8>, key: u32, value: u64) {
    put_varint(out, u64::from(key));
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a fixed32 field.
#[inline]
pub(crate) fn put_fixed32(out: &mut Vec<u8>, key: u32, value: u32) {
    put_varint(out, u64::from(key));
    out.extend_from_slice(&value.to_le_bytes());
}

/// Reads a varint at the start of `bytes`: its value and how many bytes it took.
#[inline]
pub(crate) fn read_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    // The lengths of spans, one after the other: measured at 23 instructions a span, by the loop below alone at 32.
    match bytes {
        [one, ..] if one & 0x80 == 0 => Some((u64::from(*one), 1)),
        [low, high, ..] if high & 0x80 == 0 => {
            Some((u64::from(low & 0x7f) | u64::from(*high) << 7, 2))
        }
        _ => read_long_varint(bytes),
    }
}

#[cold]
fn read_long_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_varint_reads_back_and_its_length_is_known_before(value: u64) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(read_varint(&out), Some((value, out.len())));
        }
    }

    #[test]
    fn the_borders_between_varint_lengths_are_exact() {
        for (value, len) in [
            (0, 1),
            (127, 1),
            (128, 2),
            (16_383, 2),
            (16_384, 3),
            (u64::MAX, 10),
        ] {
            assert_eq!(varint_len(value), len, "{value}");
        }
    }

    #[test]
    fn an_endless_varint_is_refused() {
        assert_eq!(read_varint(&[0x80; 11]), None);
        assert_eq!(read_varint(&[]), None);
    }
}
