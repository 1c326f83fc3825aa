//! How one request lies in a spool file: a header of 20 bytes and the encoded request.
//!
//! | bytes | |
//! |---|---|
//! | 4 | `RVTS` |
//! | 1 | version, 1 |
//! | 1 | state: 0 waits, 1 is settled; rewritten in place, so the checksum leaves it out |
//! | 2 | zero |
//! | 4 | number of spans, little-endian |
//! | 4 | length of the request, little-endian |
//! | 4 | CRC-32 of the two numbers and the request, little-endian |
//!
//! A file is frames end to end. [`Frames`] reads any bytes whatever: it gives the intact frames before the first damage and
//! says where that begins. It allocates nothing, so a forged length costs nothing.

use flate2::Crc;

const MAGIC: [u8; 4] = *b"RVTS";
const VERSION: u8 = 1;
const WAITS: u8 = 0;
/// What stands at [`STATE_AT`] of a frame that need not be sent any more.
pub const SETTLED: u8 = 1;
/// Where the state stands in a frame.
pub const STATE_AT: u64 = 5;
/// Bytes before the request.
pub const HEADER_LEN: usize = 20;

/// One request in a spool file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// Where it begins in the file.
    pub offset: usize,
    /// How many spans the request holds.
    pub spans: u32,
    /// Whether it need not be sent any more.
    pub is_settled: bool,
    /// The encoded request.
    pub request: &'a [u8],
}

/// The header of a frame that waits; `None` for a request of 4 GiB or more.
pub fn header(request: &[u8], spans: u32) -> Option<[u8; HEADER_LEN]> {
    let len = u32::try_from(request.len()).ok()?;
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&MAGIC);
    header[4] = VERSION;
    header[5] = WAITS;
    header[8..12].copy_from_slice(&spans.to_le_bytes());
    header[12..16].copy_from_slice(&len.to_le_bytes());
    let sum = checksum(&header[8..16], request);
    header[16..].copy_from_slice(&sum.to_le_bytes());
    Some(header)
}

fn checksum(numbers: &[u8], request: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(numbers);
    crc.update(request);
    crc.sum()
}

/// Whether a file that begins so was written by this version of the library, however torn it is.
pub fn is_ours(bytes: &[u8]) -> bool {
    let ours = MAGIC.iter().chain([&VERSION]);
    bytes.iter().zip(ours).all(|(byte, ours)| byte == ours)
}

/// The frames of a file, up to the first damage.
#[derive(Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Frames<'a> {
    /// Reads what a file holds.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Whether something is left that is no frame; asked after the last frame.
    pub fn is_damaged(&self) -> bool {
        self.offset < self.bytes.len()
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let (header, rest) = self
            .bytes
            .get(self.offset..)?
            .split_first_chunk::<HEADER_LEN>()?;
        let number = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let is_known = header[..4] == MAGIC
            && header[4] == VERSION
            && matches!(header[5], WAITS | SETTLED)
            && header[6..8] == [0, 0];
        if !is_known {
            return None;
        }
        let request = rest.get(..number(12) as usize)?;
        if checksum(&header[8..16], request) != number(16) {
            return None;
        }
        let frame = Frame {
            offset: self.offset,
            spans: number(8),
            is_settled: header[5] == SETTLED,
            request,
        };
        self.offset += HEADER_LEN + request.len();
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    type Written = Vec<(Vec<u8>, u32, bool)>;

    fn written() -> impl Strategy<Value = Written> {
        vec(
            (vec(any::<u8>(), 0..300), any::<u32>(), any::<bool>()),
            0..8,
        )
    }

    fn file(frames: &Written) -> Vec<u8> {
        let mut file = Vec::new();
        for (request, spans, is_settled) in frames {
            let mut header = header(request, *spans).unwrap();
            header[usize::try_from(STATE_AT).unwrap()] = u8::from(*is_settled);
            file.extend_from_slice(&header);
            file.extend_from_slice(request);
        }
        file
    }

    fn read(bytes: &[u8]) -> (Written, bool) {
        let mut frames = Frames::new(bytes);
        let read = frames
            .by_ref()
            .map(|frame| (frame.request.to_vec(), frame.spans, frame.is_settled))
            .collect();
        (read, frames.is_damaged())
    }

    /// How many frames lie whole in the first `len` bytes, and where they end.
    fn whole(frames: &Written, len: usize) -> (usize, usize) {
        let mut end = 0;
        for (number, (request, ..)) in frames.iter().enumerate() {
            let next = end + HEADER_LEN + request.len();
            if next > len {
                return (number, end);
            }
            end = next;
        }
        (frames.len(), end)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(frames in written()) {
            prop_assert_eq!(read(&file(&frames)), (frames, false));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..600)) {
            let (frames, is_damaged) = read(&bytes);
            prop_assert!(frames.is_empty() && is_damaged != bytes.is_empty());
        }

        #[test]
        fn frames_before_a_torn_one_are_found(frames in written(), cut: prop::sample::Index) {
            let mut bytes = file(&frames);
            let cut = cut.index(bytes.len() + 1);
            bytes.truncate(cut);
            let (count, end) = whole(&frames, cut);
            prop_assert_eq!(read(&bytes), (frames[..count].to_vec(), end < cut));
        }

        #[test]
        fn frames_before_a_changed_byte_are_found(frames in written(), at: prop::sample::Index, by in 1..=255_u8) {
            let mut bytes = file(&frames);
            prop_assume!(!bytes.is_empty());
            let at = at.index(bytes.len());
            let (count, start) = whole(&frames, at);
            // The state is not covered by the checksum, so that it can be rewritten.
            prop_assume!(at - start != usize::try_from(STATE_AT).unwrap());
            bytes[at] = bytes[at].wrapping_add(by);
            prop_assert_eq!(read(&bytes), (frames[..count].to_vec(), true));
        }

        #[test]
        fn frames_before_foreign_bytes_are_found(frames in written(), foreign in vec(any::<u8>(), 1..200)) {
            prop_assume!(!is_ours(&foreign));
            let bytes = [file(&frames), foreign].concat();
            prop_assert_eq!(read(&bytes), (frames, true));
        }
    }

    #[test]
    fn a_length_beyond_the_file_is_damage() {
        let mut bytes = file(&vec![(vec![1, 2, 3], 1, false)]);
        bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(read(&bytes), (Vec::new(), true));
    }
}
