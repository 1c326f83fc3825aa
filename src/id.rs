//! Trace and span ids, and the generator that makes them.
//!
//! Ids are random: 128 bits for a trace, 64 for a span, never all zero (W3C Trace Context, section 3.2.2). The generator
//! is thread-local and takes no lock (about 2 ns an id). After `fork` the child must not repeat the parent's sequence, so
//! every thread compares the process generation it was seeded in and reseeds from the operating system when it changed.

use std::cell::RefCell;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

/// A W3C trace id: 16 bytes, all zero when invalid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct TraceId([u8; 16]);

/// A W3C parent id, OpenTelemetry's span id: 8 bytes, all zero when invalid.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct SpanId([u8; 8]);

macro_rules! id_impl {
    ($name:ident, $bytes:literal, $hex:literal) => {
        impl $name {
            /// The all-zero id, which W3C Trace Context declares invalid.
            pub const INVALID: Self = Self([0; $bytes]);

            /// An id from its bytes, in network order.
            pub const fn from_bytes(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The bytes, in network order.
            pub const fn to_bytes(self) -> [u8; $bytes] {
                self.0
            }

            /// Whether any byte differs from zero.
            pub fn is_valid(self) -> bool {
                self.0 != [0; $bytes]
            }

            /// Reads exactly the lower-case hexadecimal form. The all-zero id is read as it stands.
            pub fn from_hex(hex: &[u8]) -> Option<Self> {
                let mut bytes = [0; $bytes];
                let (digits, rest) = hex.as_chunks();
                if digits.len() * 4 != $bytes || !rest.is_empty() {
                    return None;
                }
                let mut is_hex = true;
                for (four, eight) in bytes.as_chunks_mut().0.iter_mut().zip(digits) {
                    let (value, valid) = eight_digits(*eight);
                    *four = value;
                    is_hex &= valid;
                }
                is_hex.then_some(Self(bytes))
            }

            /// The lower-case hexadecimal form, as ASCII bytes.
            pub fn to_hex(self) -> [u8; $hex] {
                let mut hex = [0; $hex];
                for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
                    pair[0] = HEX[usize::from(byte >> 4)];
                    pair[1] = HEX[usize::from(byte & 15)];
                }
                hex
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }
    };
}

id_impl!(TraceId, 16, 32);
id_impl!(SpanId, 8, 16);

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The value of one lower-case hexadecimal digit; upper case is not valid in a `traceparent`.
#[inline]
pub(crate) const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// The four bytes that eight lower-case hexadecimal digits stand for, and whether they are that.
///
/// All eight at once, each in its byte of a word: a `traceparent` has six such words, and a request has one of those.
#[inline]
const fn eight_digits(digits: [u8; 8]) -> ([u8; 4], bool) {
    const fn each(byte: u8) -> u64 {
        u64::from_le_bytes([byte; 8])
    }
    let word = u64::from_le_bytes(digits);
    // Letters have bit 6, decimal digits have not. `0` is 0x30, and `a` to `f` are 0x61 to 0x66.
    let letter = word >> 6 & each(0x01);
    let value = (word & each(0x0f)) + letter * 9;
    let high_half = word & each(0xf0) == each(0x30) + letter * 0x30;
    let below_sixteen = value & each(0x10) == 0;
    // From ten up, and only then, adding six carries into bit 4.
    let ten_or_more = (value + each(0x06)) >> 4 & each(0x01) == letter;
    // The first digit of a pair is the low byte of its two, and the high half of the result.
    let pairs = (value << 4 | value >> 8) & 0x00ff_00ff_00ff_00ff;
    let words = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    let bytes = (words | words >> 16) as u32;
    (
        bytes.to_le_bytes(),
        high_half && below_sixteen && ten_or_more,
    )
}

impl TraceId {
    /// A new random id.
    pub fn random() -> Self {
        with_generator(|Generator { high, low, .. }| {
            loop {
                let id = u128::from(high.u64(..)) << 64 | u128::from(low.u64(..));
                if id != 0 {
                    return Self(id.to_be_bytes());
                }
            }
        })
    }

    /// The 56 random bits that probability sampling reads: the rightmost seven bytes (W3C Trace Context level 2,
    /// section 3.2.2.3 "random-trace-id flag"; OpenTelemetry, "`TraceState` probability sampling").
    pub fn randomness(self) -> u64 {
        u128::from_be_bytes(self.0) as u64 & ((1 << 56) - 1)
    }
}

impl SpanId {
    /// A new random id.
    pub fn random() -> Self {
        with_generator(|Generator { low, .. }| {
            loop {
                let id = low.u64(..);
                if id != 0 {
                    return Self(id.to_be_bytes());
                }
            }
        })
    }
}

/// How many times this process image has been forked. Spans and generators remember the value they were made in.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The current process generation: 0 at start, one more in every forked child.
#[inline]
pub fn process_generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Tells the crate that this process is a forked child: ids are reseeded and inherited spans are dropped.
///
/// Must be called in the child before any other thread is started; relaxed ordering suffices for that reason.
pub fn enter_forked_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// Two generators with 64 bits of state each: one alone would make 128-bit ids collide like 64-bit ones.
#[derive(Clone)]
struct Generator {
    generation: u32,
    high: fastrand::Rng,
    low: fastrand::Rng,
}

impl Generator {
    fn seeded() -> Self {
        Self {
            generation: process_generation(),
            high: seeded(),
            low: seeded(),
        }
    }
}

thread_local! {
    static GENERATOR: RefCell<Generator> = RefCell::new(Generator::seeded());
}

fn seeded() -> fastrand::Rng {
    // Without an entropy source fastrand's own seed (time, thread, address) still differs between processes.
    let seed =
        getrandom::u64().unwrap_or_else(|_| fastrand::u64(..) ^ u64::from(std::process::id()));
    fastrand::Rng::with_seed(seed)
}

#[inline]
fn with_generator<T>(draw: impl Fn(&mut Generator) -> T) -> T {
    GENERATOR
        .try_with(|cell| {
            let generator = &mut *cell.borrow_mut();
            if generator.generation != process_generation() {
                *generator = Generator::seeded();
            }
            draw(generator)
        })
        // The thread's storage is gone: it is exiting. A fresh generator costs two system calls.
        .unwrap_or_else(|_| draw(&mut Generator::seeded()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_rejects_upper_case() {
        let id = TraceId::random();
        assert_eq!(TraceId::from_hex(&id.to_hex()), Some(id));
        assert_eq!(id.to_string().as_bytes(), id.to_hex());
        assert_eq!(SpanId::from_hex(b"00F067aa0ba902b7"), None);
        assert_eq!(SpanId::from_hex(b"00f067aa0ba902b"), None);
    }

    #[test]
    fn every_byte_at_every_place_is_its_digit_or_refused() {
        for (place, byte) in (0..32).flat_map(|place| (0..=u8::MAX).map(move |byte| (place, byte)))
        {
            let mut hex = [b'0'; 32];
            hex[place] = byte;
            let digit = char::from(byte)
                .to_digit(16)
                .filter(|_| !byte.is_ascii_uppercase());
            let expected =
                digit.map(|digit| (u128::from(digit) << (4 * (31 - place))).to_be_bytes());
            assert_eq!(
                TraceId::from_hex(&hex).map(TraceId::to_bytes),
                expected,
                "{byte:#x} at {place}"
            );
            if place < 16 {
                let expected =
                    digit.map(|digit| (u64::from(digit) << (4 * (15 - place))).to_be_bytes());
                assert_eq!(
                    SpanId::from_hex(&hex[..16]).map(SpanId::to_bytes),
                    expected,
                    "{byte:#x} at {place}"
                );
            }
        }
    }

    #[test]
    fn a_forked_child_draws_other_ids_than_its_parent() {
        let mut parent = GENERATOR.with(|cell| cell.borrow().clone());
        enter_forked_child();
        assert_ne!(
            SpanId::random().to_bytes(),
            parent.low.u64(..).to_be_bytes()
        );
    }
}
