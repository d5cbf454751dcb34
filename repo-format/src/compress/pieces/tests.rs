use std::io::Read;

use proptest::prelude::*;

use crate::compress::{CompressType, Compression, Compressor, Decompressor, Framing};

const MIB: usize = 1 << 20;

fn compress(compressor: &mut Compressor, content: &[u8], push: usize) -> Vec<u8> {
    let mut out = b"kept".to_vec();
    for data in content.chunks(push) {
        compressor.push(data, &mut out).unwrap();
    }
    compressor.finish(&mut out).unwrap();
    out.split_off(4)
}

#[track_caller]
fn round_trips(kind: CompressType, stream: &[u8], content: &[u8]) {
    let mut found = Vec::with_capacity(content.len());
    Decompressor::new(kind, Framing::Full, stream).unwrap().read_to_end(&mut found).unwrap();
    assert!(found == content, "{kind}: {} byte(s) instead of {}", found.len(), content.len());
}

/// Half of the data is random. The other half repeats earlier data, also from before a piece.
fn sample(size: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut content = Vec::with_capacity(size + 500);
    while content.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if state >> 31 == 0 || content.len() < 1000 {
            content.extend_from_slice(&state.to_le_bytes());
        } else {
            let from = content.len() - 500 - (state >> 8) as usize % (content.len() - 500).min(60_000);
            content.extend_from_within(from..from + 12 + (state >> 3) as usize % 400);
        }
    }
    content.truncate(size);
    content
}

/// Returns whether the result is exactly one stream. Readers would not see a second one.
fn is_one_stream(kind: CompressType, stream: &[u8]) -> bool {
    match kind {
        CompressType::Gz => {
            let mut reader = flate2::bufread::GzDecoder::new(stream);
            std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
            reader.into_inner().is_empty()
        }
        CompressType::Bz2 => {
            let mut reader = bzip2::bufread::BzDecoder::new(stream);
            std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
            reader.into_inner().is_empty()
        }
        CompressType::Lz4 => {
            // The C library checks checksums and references to earlier blocks independently
            let mut rest = stream;
            let mut reader = lz4::Decoder::new(&mut rest).unwrap();
            std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
            reader.finish().1.unwrap();
            rest.is_empty()
        }
        // Readers read all frames
        CompressType::Zst | CompressType::None => true,
    }
}

#[test]
fn streams_of_many_threads_begin_and_end_as_those_of_one() {
    let content = sample(5 * MIB, 1);
    for kind in CompressType::ALL {
        let compression = Compression::new(kind, None).unwrap();
        let one = compress(&mut Compressor::new(compression, Framing::Full).unwrap(), &content, MIB);
        let mut parallel = Compressor::parallel(compression, 3).unwrap();
        let many = compress(&mut parallel, &content, MIB);
        let header = if kind == CompressType::Gz { 10 } else { 4 };
        assert_eq!(many[..header], one[..header], "{kind}");
        if matches!(kind, CompressType::Gz | CompressType::Lz4) {
            assert_eq!(many.last_chunk::<4>(), one.last_chunk::<4>(), "size or checksum of the content, {kind}");
        }
        assert!(is_one_stream(kind, &many), "{kind}");
        // bz2 loses most, because its blocks are smaller then
        assert!(many.len() < one.len() + one.len() / 20, "{kind}: {} instead of {}", many.len(), one.len());
        // A compressor serves for stream after stream
        assert!(compress(&mut parallel, &content, 70_000) == many || kind == CompressType::Zst, "{kind}");
        parallel.push(&content, &mut Vec::new()).unwrap();
        parallel.reset().unwrap();
        round_trips(kind, &compress(&mut parallel, b"x", 1), b"x");
    }
}

#[test]
fn contents_at_the_limits_of_pieces_round_trip() {
    // Runs of four are the worst case of bz2, and level 1 has the smallest blocks
    let runs: Vec<u8> = (0..600_000_u32).flat_map(|number| [(number % 251) as u8; 4]).collect();
    let bz2_piece = (100_000 - 19) / 5 * 4;
    for kind in CompressType::ALL {
        let level = (kind == CompressType::Bz2).then_some(1);
        let mut compressor = Compressor::parallel(Compression::new(kind, level).unwrap(), 2).unwrap();
        let sizes = [0, 1, MIB - 1, MIB, MIB + 1, 4 * MIB, 4 * MIB + 1];
        for content in sizes.map(|size| sample(size, 7)).iter().chain([&runs, &vec![0; 3 * MIB]]) {
            round_trips(kind, &compress(&mut compressor, content, MIB), content);
        }
        for size in [bz2_piece - 1, bz2_piece, bz2_piece + 1, 4 * bz2_piece] {
            round_trips(kind, &compress(&mut compressor, &runs[..size], 1000), &runs[..size]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn streams_of_many_threads_round_trip(
        (kind, level) in proptest::sample::select(CompressType::ALL.to_vec())
            .prop_flat_map(|kind| (Just(kind), *kind.level_range().start()..=*kind.level_range().end().min(&6))),
        threads in 1..5_usize,
        size in 0..6 * MIB,
        seed in any::<u32>(),
        push in 1000..3 * MIB,
    ) {
        let content = sample(size, seed);
        let mut compressor = Compressor::parallel(Compression { kind, level }, threads).unwrap();
        let stream = compress(&mut compressor, &content, push);
        round_trips(kind, &stream, &content);
        prop_assert!(is_one_stream(kind, &stream));
    }
}
