//! Targets for compression, encryption and block maps.

use std::io::Read;

use repo_format::block_map::BlockMap;
use repo_format::cipher::{Cipher, Decryptor, Framing, KeyDigest, Keyring, Passphrase, decrypt_framed, encrypt};
use repo_format::compress::{CompressType, Decompressor};
use repo_format::format::RepoFormat;

/// Limit of decompressed bytes, because a stream of a few bytes may decode to terabytes.
const DECOMPRESSED_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// The first byte chooses block and checksum size. A map that can be read and written must read the same again.
pub fn block_map(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let block_size = 8192 * (1 + u32::from(choice & 15));
    let checksum_size = 6 + (choice >> 4) % 11;
    let Ok(map) = BlockMap::read(data, block_size, checksum_size) else { return };
    assert!(map.0.len() * usize::from(checksum_size) <= data.len());
    let mut written = Vec::new();
    if map.write(block_size, checksum_size, &mut written).is_ok() {
        assert_eq!(BlockMap::read(&written, block_size, checksum_size).ok(), Some(map));
    }
}

/// Returns its bytes a few at a time.
struct Drip<'a>(&'a [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.1 = self.1 % 7 + 1;
        let (piece, rest) = self.0.split_at(self.0.len().min(self.1).min(out.len()));
        out[..piece.len()].copy_from_slice(piece);
        self.0 = rest;
        Ok(piece.len())
    }
}

/// The content and whether the stream was good.
fn read_all(reader: impl Read) -> (Vec<u8>, bool) {
    let mut content = Vec::new();
    let good = reader.take(DECOMPRESSED_BYTES_MAX).read_to_end(&mut content).is_ok();
    (content, good)
}

/// The first byte chooses the framing. The result must not depend on the pieces in which a stream arrives.
fn decompress(kind: CompressType, data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let framing = if choice & 1 == 0 { Framing::Full } else { Framing::Raw };
    let (Ok(whole), Ok(dripped)) =
        (Decompressor::new(kind, framing, data), Decompressor::new(kind, framing, Drip(data, 0)))
    else {
        return;
    };
    let (whole, whole_good) = read_all(whole);
    let (dripped, dripped_good) = read_all(dripped);
    assert_eq!(whole_good, dripped_good);
    // How much a damaged stream yields before the damage is detected depends on the pieces
    assert!(if whole_good { whole == dripped } else { whole.starts_with(&dripped) || dripped.starts_with(&whole) });
}

/// bz2 streams.
pub fn decompress_bz2(data: &[u8]) {
    decompress(CompressType::Bz2, data);
}

/// gz streams.
pub fn decompress_gz(data: &[u8]) {
    decompress(CompressType::Gz, data);
}

/// lz4 streams.
pub fn decompress_lz4(data: &[u8]) {
    decompress(CompressType::Lz4, data);
}

/// zst streams.
pub fn decompress_zst(data: &[u8]) {
    decompress(CompressType::Zst, data);
}

/// Streams whose header names a format and a key. Both ways of decrypting must agree, and what is written again must be
/// the same.
pub fn cipher_header(data: &[u8]) {
    let mut keys = Keyring::single(Passphrase::new("fuzz"));
    for number in 1..12 {
        let _ = keys.rotate(Passphrase::with_digest("fuzz", KeyDigest::Sha256), number);
    }
    let info = Cipher::Aes256Cbc(Passphrase::new("fuzz")).of_info_file(RepoFormat::V6);
    for cipher in [Cipher::of_archive(Some(&keys), RepoFormat::V6), info] {
        let whole = decrypt_framed(&cipher, Framing::Full, data);
        let mut decryptor = Decryptor::new(&cipher, Framing::Full, Drip(data, 0));
        let (read, good) = read_all(&mut decryptor);
        assert_eq!(whole.is_ok(), good);
        let Ok(content) = whole else { continue };
        assert_eq!(read, content);
        assert!(decryptor.header().is_some_and(|header| data.starts_with(&header.to_bytes())));
        let written = encrypt(&cipher, &content).expect("randomness");
        assert_eq!(decrypt_framed(&cipher, Framing::Full, &written).ok(), Some(content));
    }
}

/// The first byte chooses the framing. Both ways of decrypting must agree.
pub fn decrypt(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let framing = if choice & 1 == 0 { Framing::Full } else { Framing::Raw };
    let cipher = Cipher::Aes256Cbc(Passphrase::new("fuzz"));
    let whole = decrypt_framed(&cipher, framing, data);
    let (read, good) = read_all(Decryptor::new(&cipher, framing, Drip(data, 0)));
    match whole {
        Ok(content) => assert!(good && read == content),
        Err(_) => assert!(!good),
    }
}
