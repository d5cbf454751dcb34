use proptest::prelude::*;

use super::*;

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/codecs/", $name)).as_slice()
    };
}

const COMPRESSED: [CompressType; 4] = [CompressType::Bz2, CompressType::Gz, CompressType::Lz4, CompressType::Zst];
const FRAMINGS: [Framing; 2] = [Framing::Full, Framing::Raw];

/// Streams of [`golden_content`] that pgBackRest wrote.
fn golden(kind: CompressType, framing: Framing) -> &'static [u8] {
    match (kind, framing) {
        (CompressType::Bz2, Framing::Full) => fixture!("full.bz2"),
        (CompressType::Bz2, Framing::Raw) => fixture!("raw.bz2"),
        (CompressType::Gz, Framing::Full) => fixture!("full.gz"),
        (CompressType::Gz, Framing::Raw) => fixture!("raw.gz"),
        (CompressType::Lz4, Framing::Full) => fixture!("full.lz4"),
        (CompressType::Lz4, Framing::Raw) => fixture!("raw.lz4"),
        (CompressType::Zst, Framing::Full) => fixture!("full.zst"),
        (CompressType::Zst, Framing::Raw) => fixture!("raw.zst"),
        (CompressType::None, _) => &[],
    }
}

fn golden_content() -> Vec<u8> {
    let mut content = Vec::new();
    for block in 0..100 {
        content.extend_from_slice(format!("block {block}\n").as_bytes());
        content.extend((0..1024u32).map(|index| (index * index % 251) as u8));
    }
    content
}

fn decompress(kind: CompressType, framing: Framing, stream: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    Decompressor::new(kind, framing, stream)?
        .read_to_end(&mut out)
        .map_err(|error| Error::from_io(ErrorCode::FileRead, "unable to read", error))?;
    Ok(out)
}

fn compress(compressor: &mut Compressor, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    compressor.push(data, &mut out).unwrap();
    compressor.finish(&mut out).unwrap();
    out
}

fn compressor(kind: CompressType, level: i32, framing: Framing) -> Compressor {
    Compressor::new(Compression::new(kind, Some(level)).unwrap(), framing).unwrap()
}

/// Bytes that compress to about half.
fn sample(size: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut data = Vec::with_capacity(size);
    while data.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 31 == 0 || data.len() < 1000 {
            data.extend_from_slice(&state.to_le_bytes());
        } else {
            let from = data.len() - 20 - (state >> 8) as usize % (data.len() - 20).min(60_000);
            data.extend_from_within(from..from + 12);
        }
    }
    data.truncate(size);
    data
}

#[test]
fn streams_of_pgbackrest_are_decompressed() {
    let content = golden_content();
    for kind in COMPRESSED {
        for framing in FRAMINGS {
            assert!(decompress(kind, framing, golden(kind, framing)).unwrap() == content, "{kind} {framing:?}");
        }
    }
}

#[test]
fn streams_begin_as_those_of_pgbackrest() {
    let content = golden_content();
    for (kind, len) in [(CompressType::Bz2, 10), (CompressType::Gz, 10), (CompressType::Lz4, 7), (CompressType::Zst, 5)]
    {
        for framing in FRAMINGS {
            let len = if (kind, framing) == (CompressType::Gz, Framing::Raw) { 2 } else { len };
            // A short bz2 stream names a lower level, and a short zst stream a smaller window, which is the sixth byte
            let content = content.repeat(if kind == CompressType::Bz2 { 9 } else { 1 });
            let ours = compress(&mut compressor(kind, kind.default_level(), framing), &content);
            assert_eq!(ours[..len], golden(kind, framing)[..len], "{kind} {framing:?}");
        }
    }
}

#[test]
fn streams_without_content_have_the_size_of_pgbackrest_and_round_trip() {
    let sizes = [(CompressType::Bz2, 14), (CompressType::Gz, 20), (CompressType::Lz4, 15), (CompressType::Zst, 9)];
    for (kind, size) in sizes {
        for framing in FRAMINGS {
            for level in [kind.default_level(), *kind.level_range().end().min(&12)] {
                let mut compressor = compressor(kind, level, framing);
                let stream = compress(&mut compressor, &[]);
                assert_eq!(decompress(kind, framing, &stream).unwrap(), []);
                if framing == Framing::Full {
                    assert_eq!(stream.len(), size, "{kind}");
                }
                // Again, and after content.
                assert_eq!(compress(&mut compressor, &[]), stream);
                compress(&mut compressor, b"x");
                assert_eq!(compress(&mut compressor, &[]), stream);
            }
        }
    }
}

/// The level of a bz2 stream limits the size of its blocks. A stream of one block is the same at every level that can
/// hold it.
#[test]
fn short_bz2_streams_are_those_of_the_level_asked_for_but_for_the_name_of_a_lower_one() {
    use std::io::Write as _;
    // The second is the worst case of the size before sorting
    let contents = [sample(900_000), b"aaaabbbb".repeat(120_000)];
    let mut compressor = compressor(CompressType::Bz2, 9, Framing::Full);
    for content in contents {
        for (size, level) in
            [(0, b'1'), (8192, b'1'), (79_984, b'1'), (79_985, b'2'), (639_984, b'8'), (639_985, b'9'), (900_000, b'9')]
        {
            let mut stream = Vec::new();
            // Also where the content comes in pieces
            for piece in content[..size].chunks(50_000) {
                compressor.push(piece, &mut stream).unwrap();
            }
            compressor.finish(&mut stream).unwrap();
            assert_eq!(stream[3], level, "{size} bytes");
            let mut library = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
            library.write_all(&content[..size]).unwrap();
            stream[3] = b'9';
            assert!(stream == library.finish().unwrap(), "{size} bytes");
        }
    }
}

#[test]
fn streams_of_every_level_round_trip() {
    let data = sample(100_000);
    for kind in CompressType::ALL {
        for level in kind.level_range() {
            // Levels from 20 on need hundreds of MiB; the last one represents them
            if kind == CompressType::Zst && (20..22).contains(&level) {
                continue;
            }
            for framing in FRAMINGS {
                let stream = compress(&mut compressor(kind, level, framing), &data);
                assert!(decompress(kind, framing, &stream).unwrap() == data, "{kind} {level} {framing:?}");
                let stored = kind == CompressType::None || (kind, level) == (CompressType::Gz, 0);
                assert!(stored || stream.len() < data.len() * 19 / 20, "{kind} {level}: {}", stream.len());
            }
        }
    }
}

#[test]
fn streams_of_higher_levels_are_smaller() {
    let data = sample(500_000);
    for (kind, low, high) in
        [(CompressType::Gz, 1, 9), (CompressType::Lz4, -5, 1), (CompressType::Lz4, 1, 9), (CompressType::Zst, -7, 12)]
    {
        let size = |level| compress(&mut compressor(kind, level, Framing::Full), &data).len();
        assert!(size(low) > size(high), "{kind}");
    }
}

#[test]
fn compressor_after_reset_begins_a_new_stream() {
    for kind in CompressType::ALL {
        for level in [kind.default_level(), *kind.level_range().end().min(&9)] {
            let mut compressor = compressor(kind, level, Framing::Full);
            compressor.push(&sample(100_000), &mut Vec::new()).unwrap();
            compressor.reset().unwrap();
            let stream = compress(&mut compressor, b"kept");
            assert_eq!(decompress(kind, Framing::Full, &stream).unwrap(), b"kept", "{kind}");
        }
    }
}

#[test]
fn context_serves_stream_after_stream_even_after_an_error() {
    for kind in CompressType::ALL {
        let mut compressor = compressor(kind, kind.default_level(), Framing::Full);
        let mut context = DecompressContext::new(kind, Framing::Full).unwrap();
        for size in [100, 0, 200_000, 7] {
            let data = sample(size);
            let stream = compress(&mut compressor, &data);
            let cut = &stream[..stream.len() / 2];
            let mut decompressor = Decompressor::with_context(context, cut);
            assert_eq!(decompressor.read_to_end(&mut Vec::new()).is_err(), kind != CompressType::None);
            let mut decompressor = Decompressor::with_context(decompressor.into_context().unwrap(), stream.as_slice());
            let mut out = Vec::new();
            decompressor.read_to_end(&mut out).unwrap();
            assert!(out == data, "{kind} {size}");
            context = decompressor.into_context().unwrap();
        }
    }
}

#[test]
fn stream_cut_anywhere_gives_029() {
    for kind in COMPRESSED {
        for framing in FRAMINGS {
            let stream = golden(kind, framing);
            for len in 0..stream.len() {
                let error = decompress(kind, framing, &stream[..len]).unwrap_err();
                assert_eq!(error.code, ErrorCode::Format, "{kind} {len}");
                assert_eq!(error.message, "unexpected eof in compressed data", "{kind} {len}");
            }
        }
    }
}

#[test]
fn bytes_after_the_end_are_ignored_or_refused_as_by_pgbackrest() {
    for kind in COMPRESSED {
        let mut stream = golden(kind, Framing::Full).to_vec();
        stream.extend_from_slice(b"trailing bytes");
        let result = decompress(kind, Framing::Full, &stream);
        match kind {
            CompressType::Bz2 | CompressType::Gz => assert!(result.unwrap() == golden_content()),
            _ => assert_eq!(result.unwrap_err().code, ErrorCode::Format),
        }
    }
}

#[test]
fn second_stream_is_ignored_or_read_as_by_pgbackrest() {
    for kind in COMPRESSED {
        let stream = golden(kind, Framing::Full).repeat(2);
        let times = if matches!(kind, CompressType::Bz2 | CompressType::Gz) { 1 } else { 2 };
        assert!(decompress(kind, Framing::Full, &stream).unwrap() == golden_content().repeat(times), "{kind}");
    }
}

#[test]
fn raw_streams_of_gz_are_not_taken_for_full_ones() {
    for (written, read) in [(Framing::Full, Framing::Raw), (Framing::Raw, Framing::Full)] {
        assert_eq!(
            decompress(CompressType::Gz, read, golden(CompressType::Gz, written)).unwrap_err().code,
            ErrorCode::Format
        );
    }
}

#[test]
fn damaged_streams_with_checksums_never_give_other_content() {
    for kind in [CompressType::Bz2, CompressType::Gz, CompressType::Lz4] {
        let stream = golden(kind, Framing::Full);
        for index in (0..stream.len()).step_by(7).filter(|index| !(3..10).contains(index)) {
            let mut damaged = stream.to_vec();
            damaged[index] ^= 0x20;
            match decompress(kind, Framing::Full, &damaged) {
                Err(error) => assert_eq!(error.code, ErrorCode::Format, "{kind} {index}"),
                // bz2 has bits without a meaning
                Ok(content) => assert!(content == golden_content(), "{kind} {index}"),
            }
        }
    }
}

#[test]
fn lz4_frames_of_every_kind_are_read() {
    use ::lz4::liblz4::BlockChecksum;
    use ::lz4::{BlockMode, BlockSize, ContentChecksum, EncoderBuilder};
    let data = sample(5_000_000);
    for block_size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
        for (block_mode, block_checksum, content_size) in [
            (BlockMode::Linked, BlockChecksum::BlockChecksumEnabled, 0),
            (BlockMode::Independent, BlockChecksum::NoBlockChecksum, data.len() as u64),
        ] {
            let mut encoder = EncoderBuilder::new()
                .block_size(block_size.clone())
                .block_mode(block_mode)
                .block_checksum(block_checksum)
                .checksum(ContentChecksum::ChecksumEnabled)
                .content_size(content_size)
                .build(Vec::new())
                .unwrap();
            std::io::Write::write_all(&mut encoder, &data).unwrap();
            let (stream, result) = encoder.finish();
            result.unwrap();
            assert!(decompress(CompressType::Lz4, Framing::Full, &stream).unwrap() == data, "{block_size:?}");
        }
    }
}

#[test]
fn lz4_skippable_frames_are_skipped() {
    let mut stream = vec![0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
    stream.extend_from_slice(golden(CompressType::Lz4, Framing::Full));
    stream.extend_from_slice(&[0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]);
    assert!(decompress(CompressType::Lz4, Framing::Full, &stream).unwrap() == golden_content());
    assert!(decompress(CompressType::Lz4, Framing::Full, &stream[..10]).is_err());
}

#[test]
fn lz4_blocks_stored_or_without_bytes_are_read() {
    // Header of a raw frame, then stored blocks of 2, 0 and 1 bytes
    let stream = [
        0x04, 0x22, 0x4d, 0x18, 0x40, 0x40, 0xc0, 2, 0, 0, 0x80, b'a', b'b', 0, 0, 0, 0x80, 1, 0, 0, 0x80, b'c', 0, 0,
        0, 0,
    ];
    assert_eq!(decompress(CompressType::Lz4, Framing::Raw, &stream).unwrap(), b"abc");
}

#[test]
fn lz4_block_larger_than_declared_gives_029() {
    let stream = [0x04, 0x22, 0x4d, 0x18, 0x40, 0x40, 0xc0, 1, 0, 1, 0];
    let error = decompress(CompressType::Lz4, Framing::Raw, &stream).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::Format, "lz4 error: [-2] ERROR_maxBlockSize_invalid"));
}

#[test]
fn names_and_extensions_round_trip() {
    for kind in CompressType::ALL {
        assert_eq!(kind.name().parse::<CompressType>().unwrap(), kind);
        assert_eq!(CompressType::from_file_name(&format!("a{}", kind.extension())).unwrap(), kind);
        assert_eq!(kind.strip_extension(&format!("a{}", kind.extension())).unwrap(), "a");
        assert!(kind == CompressType::None || EXTENSIONS.contains(&kind.extension()));
    }
    assert_eq!(CompressType::Gz.strip_extension("a.zst").unwrap_err().message, "'a.zst' must have '.gz' extension");
    assert_eq!("xz".parse::<CompressType>().unwrap_err().code, ErrorCode::OptionInvalidValue);
    assert_eq!(CompressType::from_file_name("a.xz").unwrap_err().code, ErrorCode::OptionInvalidValue);
    assert_eq!("zip".parse::<CompressType>().unwrap_err().code, ErrorCode::Assert);
}

#[test]
fn memory_of_the_zst_contexts_is_within_the_bound() {
    use ::zstd::zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer};
    for level in CompressType::Zst.level_range() {
        let mut context = CCtx::create();
        context.set_parameter(CParameter::CompressionLevel(level)).unwrap();
        let mut out = Vec::with_capacity(1000);
        // The first bytes make the context take all of its memory.
        context.compress_stream(&mut OutBuffer::around(&mut out), &mut InBuffer::around(b"x")).unwrap();
        let bound = Compression { kind: CompressType::Zst, level }.memory_bytes_max();
        assert!(context.sizeof() as u64 <= bound, "{level}: {}", context.sizeof());
    }
}

#[test]
fn level_out_of_range_gives_032() {
    for kind in COMPRESSED {
        for level in [kind.level_range().start() - 1, kind.level_range().end() + 1] {
            assert_eq!(Compression::new(kind, Some(level)).unwrap_err().code, ErrorCode::OptionInvalidValue);
            assert!(Compressor::new(Compression { kind, level }, Framing::Full).is_err());
        }
        assert_eq!(Compression::new(kind, None).unwrap().level, kind.default_level());
    }
    assert_eq!(Compression::default(), Compression { kind: CompressType::Gz, level: 6 });
}

/// Returns its data in pieces of the given sizes, repeatedly.
struct Pieces<'a> {
    data: &'a [u8],
    sizes: std::iter::Cycle<std::vec::IntoIter<usize>>,
}

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let size = self.sizes.next().unwrap_or(1).min(out.len()).min(self.data.len());
        let (piece, rest) = self.data.split_at(size);
        out[..size].copy_from_slice(piece);
        self.data = rest;
        Ok(size)
    }
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..3000),
        (0..300_000usize).prop_map(sample),
        (any::<u8>(), 0..300_000usize).prop_map(|(byte, size)| vec![byte; size]),
    ]
}

fn framing() -> impl Strategy<Value = Framing> {
    proptest::sample::select(FRAMINGS.to_vec())
}

fn compression() -> impl Strategy<Value = Compression> {
    proptest::sample::select(CompressType::ALL.to_vec()).prop_flat_map(|kind| {
        let range = kind.level_range();
        (*range.start()..=*range.end().min(&12)).prop_map(move |level| Compression { kind, level })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn stream_in_any_pieces_round_trips(
        contents in proptest::collection::vec(content(), 1..4),
        compression in compression(),
        framing in framing(),
        pushes in proptest::collection::vec(prop_oneof![1..100usize, 1000..100_000usize], 1..10),
        reads in proptest::collection::vec(prop_oneof![1..100usize, 1000..100_000usize], 1..10),
        encrypted in any::<bool>(),
    ) {
        use crate::cipher::{Cipher, Decryptor, Encryptor, Passphrase};
        let cipher = if encrypted { Cipher::Aes256Cbc(Passphrase::new("x")) } else { Cipher::None };
        let mut compressor = Compressor::new(compression, framing).unwrap();
        let mut encryptor = Encryptor::new(&cipher, framing);
        let mut context = DecompressContext::new(compression.kind, framing).unwrap();
        for content in contents {
            let (mut compressed, mut stored) = (Vec::new(), b"kept".to_vec());
            let mut rest = content.as_slice();
            let mut sizes = pushes.iter().cycle();
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at((*sizes.next().unwrap()).min(rest.len()));
                rest = tail;
                compressed.clear();
                compressor.push(piece, &mut compressed).unwrap();
                encryptor.push(&compressed, &mut stored).unwrap();
            }
            compressed.clear();
            compressor.finish(&mut compressed).unwrap();
            encryptor.push(&compressed, &mut stored).unwrap();
            encryptor.finish(&mut stored).unwrap();
            let stored = stored.strip_prefix(b"kept").unwrap();
            let source = Pieces { data: stored, sizes: reads.clone().into_iter().cycle() };
            let mut decompressor =
                Decompressor::with_context(context, Decryptor::new(&cipher, framing, source));
            let mut out = Vec::new();
            let mut buffer = vec![0; 100_000];
            let mut sizes = pushes.iter().cycle();
            loop {
                let size = *sizes.next().unwrap();
                match decompressor.read(&mut buffer[..size]).unwrap() {
                    0 => break,
                    read => out.extend_from_slice(&buffer[..read]),
                }
            }
            prop_assert!(out == content);
            context = decompressor.into_context().unwrap();
        }
    }

    #[test]
    fn damaged_stream_is_read_or_refused(
        kind in proptest::sample::select(COMPRESSED.to_vec()),
        framing in framing(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..5),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut stream = golden(kind, framing).to_vec();
        for (index, byte) in changes {
            let index = index.index(stream.len());
            stream[index] = byte;
        }
        stream.truncate(cut.index(stream.len() + 1));
        // A damaged stream may claim any size; this limits what is read, and the decoders limit memory
        let mut limited = Decompressor::new(kind, framing, stream.as_slice()).unwrap().take(10_000_000);
        let _ = limited.read_to_end(&mut Vec::new());
    }
}
