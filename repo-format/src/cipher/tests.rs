use std::io::{self, Read};

use proptest::prelude::*;

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/codecs/", $name)).as_slice()
    };
}

fn cipher(passphrase: &[u8]) -> Cipher {
    Cipher::Aes256Cbc(Passphrase::new(std::str::from_utf8(passphrase).unwrap()))
}

fn decrypt_error(cipher: &Cipher, framing: Framing, data: &[u8]) -> Error {
    let whole = decrypt_framed(cipher, framing, data).unwrap_err();
    let read = Decryptor::new(cipher, framing, data).read_to_end(&mut Vec::new()).unwrap_err();
    let read = Error::from_io(ErrorCode::FileRead, "x", read);
    assert_eq!((whole.code, &whole.message), (read.code, &read.message));
    whole
}

#[test]
fn keys_do_not_stay_in_memory() {
    fn cleared<T: secrecy::zeroize::ZeroizeOnDrop>() {}
    // Compiles only if the cipher crates have their features enabled that clear keys
    cleared::<encryptor::CbcEncryptor>();
    cleared::<decryptor::CbcDecryptor>();
}

#[test]
fn stream_of_openssl_is_decrypted() {
    // printf 'attack at dawn' | openssl enc -aes-256-cbc -md sha1 -k secret -S 0102030405060708
    let ciphertext = [
        0x53, 0x61, 0x6c, 0x74, 0x65, 0x64, 0x5f, 0x5f, 1, 2, 3, 4, 5, 6, 7, 8, 0xf8, 0xd8, 0x66, 0x54, 0xd1, 0xe8,
        0x17, 0xe2, 0xcc, 0x4b, 0x2a, 0xd1, 0xc6, 0x09, 0x64, 0x8c,
    ];
    assert_eq!(decrypt(&cipher(b"secret"), &ciphertext).unwrap(), b"attack at dawn");
    assert_eq!(decrypt_framed(&cipher(b"secret"), Framing::Raw, &ciphertext[8..]).unwrap(), b"attack at dawn");
}

#[test]
fn streams_of_pgbackrest_are_decrypted() {
    let full = decrypt(&cipher(fixture!("full.aes.passphrase")), fixture!("full.zst.aes")).unwrap();
    assert_eq!(full, fixture!("full.zst"));
    let raw = cipher(fixture!("raw.aes.passphrase"));
    assert_eq!(decrypt_framed(&raw, Framing::Raw, fixture!("raw.zst.aes")).unwrap(), fixture!("raw.zst"));
}

#[test]
fn stream_of_each_framing_has_its_header_and_size() {
    let cipher = cipher(b"x");
    for size in [0, 1, 15, 16, 17, 31, 32, 100_000] {
        let data = vec![7; size];
        for (framing, header) in [(Framing::Full, 16), (Framing::Raw, 8)] {
            let stream = encrypt_framed(&cipher, framing, &data).unwrap();
            assert_eq!(stream.len(), header + 16 * (size / 16 + 1));
            assert_eq!(stream.len() as u64, cipher.encrypted_size(framing, size as u64));
            assert_eq!(stream.starts_with(b"Salted__"), framing == Framing::Full);
        }
    }
    assert_eq!(Cipher::None.encrypted_size(Framing::Full, 5), 5);
}

#[test]
fn streams_of_one_encryptor_have_different_salts() {
    let cipher = cipher(b"x");
    let mut encryptor = Encryptor::new(&cipher, Framing::Full);
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = Vec::new();
        encryptor.push(b"same", &mut stream).unwrap();
        encryptor.finish(&mut stream).unwrap();
        assert_eq!(decrypt(&cipher, &stream).unwrap(), b"same");
        streams.push(stream);
    }
    assert_ne!(streams[0][8..16], streams[1][8..16]);
    assert_ne!(streams[1][16..], streams[2][16..]);
}

#[test]
fn encryptor_after_reset_begins_a_new_stream() {
    let cipher = cipher(b"x");
    let mut encryptor = Encryptor::new(&cipher, Framing::Raw);
    encryptor.push(b"given up in the middle", &mut Vec::new()).unwrap();
    encryptor.reset();
    let mut stream = Vec::new();
    encryptor.push(b"kept", &mut stream).unwrap();
    encryptor.finish(&mut stream).unwrap();
    assert_eq!(decrypt_framed(&cipher, Framing::Raw, &stream).unwrap(), b"kept");
}

#[test]
fn decryptor_after_reset_reads_another_stream() {
    let cipher = cipher(b"x");
    let streams = [b"one".as_slice(), b"", b"three"].map(|data| encrypt(&cipher, data).unwrap());
    let mut decryptor = Decryptor::new(&cipher, Framing::Full, streams[0].as_slice());
    let mut out = Vec::new();
    decryptor.read_to_end(&mut out).unwrap();
    for stream in &streams[1..] {
        decryptor.reset(stream);
        decryptor.read_to_end(&mut out).unwrap();
    }
    assert_eq!(out, b"onethree");
}

#[test]
fn stream_without_whole_header_gives_095() {
    for (framing, size) in [(Framing::Full, 16), (Framing::Raw, 8)] {
        for len in 0..size {
            let error = decrypt_error(&cipher(b"x"), framing, &b"Salted__12345678"[..len]);
            assert_eq!((error.code, error.message.as_str()), (ErrorCode::Crypto, "cipher header missing"));
        }
    }
}

#[test]
fn stream_with_another_magic_gives_095() {
    let error = decrypt_error(&cipher(b"x"), Framing::Full, &[b'x'; 32]);
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::Crypto, "cipher header invalid"));
}

#[test]
fn stream_cut_in_a_block_or_without_one_gives_095() {
    let stream = encrypt(&cipher(b"x"), &[b'x'; 100]).unwrap();
    for len in 16..stream.len() {
        // A cut between blocks leaves a last block of data, which is not valid padding
        let error = decrypt_error(&cipher(b"x"), Framing::Full, &stream[..len]);
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Crypto, "unable to flush"), "{len}");
    }
}

#[test]
fn stream_with_another_passphrase_is_not_read_as_the_same() {
    let stream = encrypt(&cipher(b"x"), b"some text").unwrap();
    for other in 0..20 {
        match decrypt(&cipher(format!("wrong {other}").as_bytes()), &stream) {
            Ok(data) => assert_ne!(data, b"some text"),
            Err(error) => assert_eq!(error.code, ErrorCode::Crypto),
        }
    }
}

#[test]
fn passphrase_generated_is_64_characters_and_new_each_time() {
    let (one, other) = (Passphrase::generate(RepoFormat::V5).unwrap(), Passphrase::generate(RepoFormat::V5).unwrap());
    assert_ne!(one, other);
    assert_eq!(one.expose().len(), 64);
    assert!(one.expose().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte)));
}

#[test]
fn passphrase_is_not_in_debug_output() {
    let cipher = cipher(b"hush");
    let encryptor = Encryptor::new(&cipher, Framing::Full);
    let decryptor = Decryptor::new(&cipher, Framing::Full, [].as_slice());
    assert!(!format!("{cipher:?} {encryptor:?} {decryptor:?}").contains("hush"));
}

/// Returns its data in pieces of the given sizes, repeatedly, with interruptions.
struct Pieces<'a> {
    data: &'a [u8],
    sizes: std::iter::Cycle<std::vec::IntoIter<usize>>,
    interrupt: bool,
}

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.interrupt = !self.interrupt;
        if self.interrupt {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let size = self.sizes.next().unwrap().min(out.len()).min(self.data.len());
        let (piece, rest) = self.data.split_at(size);
        out[..size].copy_from_slice(piece);
        self.data = rest;
        Ok(size)
    }
}

proptest! {
    #[test]
    fn stream_in_any_pieces_round_trips(
        data in proptest::collection::vec(any::<u8>(), 0..5000),
        pieces in proptest::collection::vec(1..300usize, 1..20),
        reads in proptest::collection::vec(1..300usize, 1..20),
        raw in any::<bool>(),
    ) {
        let framing = if raw { Framing::Raw } else { Framing::Full };
        let cipher = cipher(b"any");
        let mut encryptor = Encryptor::new(&cipher, framing);
        let mut stream = b"kept".to_vec();
        let mut rest = data.as_slice();
        for size in pieces.iter().cycle() {
            let (piece, tail) = rest.split_at((*size).min(rest.len()));
            encryptor.push(piece, &mut stream).unwrap();
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        encryptor.finish(&mut stream).unwrap();
        let stream = stream.strip_prefix(b"kept").unwrap();
        prop_assert_eq!(decrypt_framed(&cipher, framing, stream).unwrap(), data.clone());
        let reader = Pieces { data: stream, sizes: reads.into_iter().cycle(), interrupt: false };
        let mut read = Vec::new();
        Decryptor::new(&cipher, framing, reader).read_to_end(&mut read).unwrap();
        prop_assert_eq!(read, data);
    }

    #[test]
    fn stream_of_any_bytes_is_decrypted_or_refused_alike(data in proptest::collection::vec(any::<u8>(), 0..100)) {
        let cipher = cipher(b"any");
        match decrypt_framed(&cipher, Framing::Raw, &data) {
            Err(_) => { decrypt_error(&cipher, Framing::Raw, &data); }
            Ok(plain) => {
                let mut read = Vec::new();
                Decryptor::new(&cipher, Framing::Raw, data.as_slice()).read_to_end(&mut read).unwrap();
                prop_assert_eq!(read, plain);
            }
        }
    }
}

#[test]
fn key_of_sha256_is_that_of_openssl() {
    // printf abc | openssl enc -aes-256-cbc -md sha256 -pass pass:secret -S 0102030405060708, whose newer versions write
    // no header for a given salt
    let stored = [&[1u8, 2, 3, 4, 5, 6, 7, 8][..], &OPENSSL_SHA256].concat();
    let cipher = Cipher::Aes256Cbc(Passphrase::with_digest("secret", KeyDigest::Sha256));
    let mut plain = Vec::new();
    Decryptor::new(&cipher, Framing::Raw, stored.as_slice()).read_to_end(&mut plain).unwrap();
    assert_eq!(plain, b"abc");
}

const OPENSSL_SHA256: [u8; 16] =
    [0xff, 0x03, 0x52, 0x0f, 0xf5, 0xc9, 0x3f, 0x3a, 0xf2, 0xb5, 0x11, 0x68, 0xff, 0x5f, 0xea, 0x76];

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|char| char.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

fn sha256_ring(id: &str, key: &str) -> Keyring {
    let json = format!("{{\"{id}\":{{\"digest\":\"sha256\",\"key\":\"{key}\"}}}}");
    Keyring::read_keys(&mut crate::json::Reader::new(&json)).unwrap()
}

/// The timeline file of a repository that pgBackRest 2.60.0 wrote at format 6, after two rotations.
const HISTORY: &str = "50474252303036 4b 01 33 c8cc0df59382d9a9 af4e3fba168bf1838876e9cc65201fece87cdee3134af46652c9aad5048894ea\
    6269146a492f8db381fb22503b92ac79";
const HISTORY_KEY: &str = "7zxZtP7HzkQqR/Xn4dFg4BC2gG2RItuIpgoSeWj0n/fSiyJY2lxb99aVrxaaPCem";

#[test]
fn archived_file_of_format_6_is_decrypted_by_the_key_of_its_header() {
    let stored = unhex(HISTORY);
    let cipher = Cipher::of_archive(Some(&sha256_ring("3", HISTORY_KEY)), RepoFormat::V6);
    assert_eq!(decrypt(&cipher, &stored).unwrap(), b"1\t0/1700000\tno recovery target specified\n");
    let mut decryptor = Decryptor::new(&cipher, Framing::Full, stored.as_slice());
    decryptor.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(decryptor.header().map(StreamHeader::key_id), Some("3"));
    let other = Cipher::of_archive(Some(&sha256_ring("1", HISTORY_KEY)), RepoFormat::V6);
    let error = decrypt_error(&other, Framing::Full, &stored);
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::Crypto, "unable to find cipher key '3'"));
}

#[test]
fn archived_file_of_format_6_that_is_cut_gives_095() {
    let stored = unhex(HISTORY);
    let cipher = Cipher::of_archive(Some(&sha256_ring("3", HISTORY_KEY)), RepoFormat::V6);
    for size in 0..18 {
        let error = decrypt_error(&cipher, Framing::Full, &stored[..size]);
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Crypto, "cipher header missing"));
    }
}

#[test]
fn bundle_member_of_format_6_is_decrypted() {
    let key = "5oTsNXl1zOWqDwkbhwXH+posZaKwPlyfD0z9VSlsE46D9w8A59Drzf08/i99J4Qa";
    let cipher = Cipher::Aes256Cbc(Passphrase::with_digest(key, KeyDigest::Sha256));
    let plain = decrypt_framed(&cipher, Framing::Raw, &unhex("3b9de4e3662af2c9 0616af4762a9c3f55056eaf52412cdb3"));
    assert_eq!(plain.unwrap(), unhex("789c3334e50200010a0071"));
}

#[test]
fn archived_file_is_written_for_the_format_of_archive_info() {
    let mut keys = sha256_ring("12", "k");
    for (format, ring, header) in [
        (RepoFormat::V5, Keyring::single(Passphrase::new("old")), b"Salted__".as_slice()),
        (RepoFormat::V6, keys.clone(), b"PGBR006K\x0212"),
    ] {
        let cipher = Cipher::of_archive(Some(&ring), format);
        let stored = encrypt(&cipher, b"text").unwrap();
        assert!(stored.starts_with(header));
        assert_eq!(stored.len(), header.len() + 8 + 16);
        assert_eq!(decrypt(&cipher, &stored).unwrap(), b"text");
    }
    let before = encrypt(&Cipher::of_archive(Some(&keys), RepoFormat::V6), b"before").unwrap();
    keys.rotate(Passphrase::generate(RepoFormat::V6).unwrap(), 1).unwrap();
    let cipher = Cipher::of_archive(Some(&keys), RepoFormat::V6);
    assert_eq!(decrypt(&cipher, &before).unwrap(), b"before");
    assert!(encrypt(&cipher, b"").unwrap().starts_with(b"PGBR006K\x0213"));
}

#[test]
fn stored_digest_wins_over_the_format_of_the_header() {
    let cipher = Cipher::of_archive(Some(&sha256_ring("1", "k")), RepoFormat::V6);
    let stored = encrypt(&cipher, b"text").unwrap();
    let older = [b"PGBR005K".as_slice(), &stored[8..]].concat();
    assert_eq!(decrypt(&cipher, &older).unwrap(), b"text");
}

#[test]
fn info_file_is_read_by_its_header_and_written_for_its_format() {
    let main = cipher(b"MainPass1");
    for (written, header) in [(RepoFormat::V5, b"Salted__"), (RepoFormat::V6, b"PGBR006_")] {
        let stored = encrypt(&main.of_info_file(written), b"text").unwrap();
        assert!(stored.starts_with(header));
        for read in RepoFormat::ALL {
            assert_eq!(decrypt(&main.of_info_file(read), &stored).unwrap(), b"text");
        }
    }
    assert!(main.of_info_file(RepoFormat::V6) != main);
    assert!(Cipher::None.of_info_file(RepoFormat::V6).is_none());
    let error = decrypt_error(&main.of_info_file(RepoFormat::V6), Framing::Full, b"PGBR006K\x011saltsalt");
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::Crypto, "unable to find cipher key '1'"));
}

#[test]
fn file_that_has_no_format_in_its_header_is_refused_with_one() {
    for (start, code) in [(b"PGBR006_saltsalt", ErrorCode::Crypto), (b"PGBR007Gsaltsalt", ErrorCode::Format)] {
        assert_eq!(decrypt_error(&cipher(b"x"), Framing::Full, start).code, code);
    }
}
