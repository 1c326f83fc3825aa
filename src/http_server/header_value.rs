//! The bytes of headers and queries: what they may be, and what text they are.

use std::borrow::Cow;

/// UTF-8 as it is, anything else as Latin-1: ASGI promises either, clients send whatever they like.
#[inline]
#[expect(
    unsafe_code,
    reason = "headers are ASCII nearly always; that is seen in a tenth of the time that UTF-8 takes"
)]
pub fn latin1(bytes: &[u8]) -> Cow<'_, str> {
    if bytes.is_ascii() {
        // SAFETY: ASCII is UTF-8.
        return Cow::Borrowed(unsafe { std::str::from_utf8_unchecked(bytes) });
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(bytes.iter().copied().map(char::from).collect()),
    }
}

/// Without the white space that HTTP allows around values (RFC 9110, section 5.6.3).
pub(super) fn trim_ows(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Whether header and parameter names may have it (RFC 9110, section 5.6.2).
pub(super) const fn is_token_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bytes_that_are_no_utf8_are_taken_for_latin1() {
        for (bytes, text) in [
            (&b"plain"[..], "plain"),
            ("é".as_bytes(), "é"),
            (b"\xe9", "é"),
            (b"\xc3\xa9\xff", "Ã©ÿ"),
            (b"", ""),
        ] {
            assert_eq!(latin1(bytes), text);
        }
    }

    #[test]
    fn white_space_around_a_value_goes() {
        for (bytes, trimmed) in [
            (&b" \ta b\t "[..], &b"a b"[..]),
            (b"a", b"a"),
            (b" ", b""),
            (b"\n", b"\n"),
        ] {
            assert_eq!(trim_ows(bytes), trimmed);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_text(bytes: Vec<u8>) {
            let text = latin1(&bytes);
            let is_utf8 = std::str::from_utf8(&bytes).is_ok();
            prop_assert_eq!(if is_utf8 { text.len() } else { text.chars().count() }, bytes.len());
        }
    }
}
