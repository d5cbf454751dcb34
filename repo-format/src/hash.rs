//! The hashes of the repository: SHA-1 for files, XXH3-128 for blocks.
//!
//! Source of the formats: pgBackRest `src/common/crypto/hash.c`, `src/common/crypto/xxhash.c`.

use std::fmt;
use std::str::FromStr;

use sha1::Digest;

use crate::{Error, ErrorCode, Result};

/// A SHA-1 checksum, written as 40 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha1(pub [u8; 20]);

impl Sha1 {
    /// The checksum of no bytes.
    pub const EMPTY: Sha1 = Sha1([
        0xda, 0x39, 0xa3, 0xee, 0x5e, 0x6b, 0x4b, 0x0d, 0x32, 0x55, 0xbf, 0xef, 0x95, 0x60, 0x18, 0x90, 0xaf, 0xd8,
        0x07, 0x09,
    ]);

    /// The checksum of `data`.
    pub fn of(data: &[u8]) -> Self {
        Sha1(sha1::Sha1::digest(data).into())
    }

    /// The 40 hex digits as ASCII bytes, without an allocation.
    pub fn hex(&self) -> [u8; 40] {
        let mut hex = [0; 40];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[hex_digit(byte >> 4), hex_digit(byte & 15)]);
        }
        hex
    }

    /// Parses 40 lower-case hex digits, the only form in repositories. Returns `None` for anything else.
    pub fn from_hex(hex: &[u8]) -> Option<Self> {
        if hex.len() != 40 {
            return None;
        }
        let mut bytes = [0; 20];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = hex_value(pair[0])? << 4 | hex_value(pair[1])?;
        }
        Some(Sha1(bytes))
    }
}

fn hex_digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 }
}

fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Sha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `hex` returns only ASCII digits, so nothing is replaced
        f.pad(&String::from_utf8_lossy(&self.hex()))
    }
}

impl fmt::Debug for Sha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha1({self})")
    }
}

impl FromStr for Sha1 {
    type Err = Error;

    /// Returns a format error (029) for anything but 40 lower-case hex digits.
    fn from_str(text: &str) -> Result<Self> {
        Sha1::from_hex(text.as_bytes()).ok_or_else(|| {
            Error::new(ErrorCode::Format, format!("'{text}' is not a SHA-1 checksum of 40 lower-case hex digits"))
        })
    }
}

/// A running SHA-1.
#[derive(Clone, Default)]
pub struct Sha1Hasher(sha1::Sha1);

impl Sha1Hasher {
    /// A hasher that has seen no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The checksum of all bytes added.
    pub fn finish(self) -> Sha1 {
        Sha1(self.0.finalize().into())
    }

    /// Returns the checksum of all bytes added, and resets the hasher.
    pub fn finish_reset(&mut self) -> Sha1 {
        Sha1(self.0.finalize_reset().into())
    }
}

impl fmt::Debug for Sha1Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha1Hasher")
    }
}

/// The largest number of bytes of a block's checksum.
pub const BLOCK_CHECKSUM_SIZE_MAX: usize = 16;

/// The smallest number of bytes of a block's checksum.
pub const BLOCK_CHECKSUM_SIZE_MIN: u8 = 6;

/// Returns the XXH3-128 of one block, seed 0, in canonical (big-endian) form.
///
/// A block map stores only the first bytes, as many as its checksum size says.
pub fn block_checksum(block: &[u8]) -> [u8; BLOCK_CHECKSUM_SIZE_MAX] {
    twox_hash::XxHash3_128::oneshot(block).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha1_of_known_texts_matches_the_standard() {
        assert_eq!(Sha1::of(b"abc").to_string(), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert_eq!(Sha1::of(b""), Sha1::EMPTY);
        assert_eq!(Sha1::EMPTY.to_string(), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    }

    #[test]
    fn sha1_hasher_in_pieces_equals_one_shot() {
        let data: Vec<u8> = (0..100_000u32).map(|n| (n * 7) as u8).collect();
        let mut hasher = Sha1Hasher::new();
        for piece in data.chunks(977) {
            hasher.update(piece);
        }
        assert_eq!(hasher.finish_reset(), Sha1::of(&data));
        assert_eq!(hasher.finish(), Sha1::EMPTY);
    }

    #[test]
    fn sha1_text_round_trips_and_others_are_refused() {
        let sha1 = Sha1::of(b"x");
        assert_eq!(sha1.to_string().parse::<Sha1>().unwrap(), sha1);
        for bad in ["", "da39", "DA39A3EE5E6B4B0D3255BFEF95601890AFD80709", "da39a3ee5e6b4b0d3255bfef95601890afd8070g"]
        {
            assert_eq!(bad.parse::<Sha1>().unwrap_err().code, ErrorCode::Format);
        }
    }

    #[test]
    fn block_checksum_is_canonical_xxh3() {
        // xxhsum -H2 of an empty input prints 99aa06d3014798d86001c324468d497f
        assert_eq!(block_checksum(b"")[..6], [0x99, 0xaa, 0x06, 0xd3, 0x01, 0x47]);
    }
}
