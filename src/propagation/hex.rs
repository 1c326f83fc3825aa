//! Hexadecimal numbers as the formats other than W3C's have them: of any length, in either case.

/// The value of 1 to 32 digits.
pub(super) fn parse_hex(digits: &[u8]) -> Option<u128> {
    if !(1..=32).contains(&digits.len()) {
        return None;
    }
    digits.iter().try_fold(0, |value, digit| {
        Some(value << 4 | u128::from(char::from(*digit).to_digit(16)?))
    })
}

/// The value of exactly `count` digits.
pub(super) fn parse_hex_of(count: usize, digits: &[u8]) -> Option<u128> {
    parse_hex(digits).filter(|_| digits.len() == count)
}

/// The value of 1 to 16 digits.
pub(super) fn parse_hex_u64(digits: &[u8]) -> Option<u64> {
    parse_hex(digits).and_then(|value| value.try_into().ok())
}
