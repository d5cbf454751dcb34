//! Single-threaded throughput of codecs, ciphers and hashes over data that resembles table pages.
//!
//! `cargo bench --bench codec -- zst` runs the benchmarks whose names contain `zst`.

use std::hint::black_box;
use std::io::Read;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use repo_format::cipher::{Cipher, Decryptor, Encryptor, Framing, Passphrase};
use repo_format::compress::{CompressType, Compression, Compressor, DecompressContext, Decompressor};
use repo_format::hash::{Sha1, block_checksum};
use repo_format::pg::page::{PageRules, checksum};

const PAGE_SIZE: usize = 8192;
const DATA_PAGES: usize = 2048;
/// Bytes that a worker pushes at a time.
const PUSH_BYTES: usize = 1024 * 1024;
/// Size of the small files that make up most of a database.
const SMALL_FILE_BYTES: usize = 4096;

/// Pages of rows with counters, random numbers and words, and with valid checksums.
fn table_pages() -> Vec<u8> {
    const WORDS: [&str; 8] = ["alpha", "order", "shipped", "2024-05-17", "customer", "paid", "zürich", "null"];
    let mut state = 88_172_645_463_325_252u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut data = Vec::with_capacity(DATA_PAGES * PAGE_SIZE);
    let mut row = 0u32;
    for block in 0..DATA_PAGES {
        let begin = data.len();
        data.resize(begin + 24, 0);
        data[begin + 14..begin + 16].copy_from_slice(&500u16.to_le_bytes());
        while data.len() < begin + PAGE_SIZE - 100 {
            data.extend_from_slice(&[0x2a, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            data.extend_from_slice(&row.to_le_bytes());
            data.extend_from_slice(&random().to_le_bytes());
            for _ in 0..3 {
                data.extend_from_slice(WORDS[random() as usize % WORDS.len()].as_bytes());
            }
            row += 1;
        }
        data.resize(begin + PAGE_SIZE, 0);
        let sum = checksum(&data[begin..], block as u32);
        data[begin + 8..begin + 10].copy_from_slice(&sum.to_le_bytes());
    }
    data
}

fn group<'a>(criterion: &'a mut Criterion, name: &str, bytes: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(bytes as u64)).sample_size(10);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group
}

fn hashes(criterion: &mut Criterion) {
    let data = table_pages();
    let mut group = group(criterion, "hash", data.len());
    group.bench_function("sha1", |bench| bench.iter(|| Sha1::of(black_box(&data))));
    group.bench_function("xxh3_128 blocks of 8 KiB", |bench| {
        bench.iter(|| {
            data.chunks(PAGE_SIZE).map(|block| block_checksum(black_box(block))[0]).fold(0, |sum, byte| sum ^ byte)
        });
    });
    let check = PageRules { page_size: PAGE_SIZE as u32, first_page: 0, header_check: true };
    group.bench_function("page check", |bench| {
        bench.iter(|| {
            let mut suspects = Vec::new();
            let rest = check.check(black_box(&data), 0, &mut suspects);
            assert!(rest == 0 && suspects.is_empty());
        });
    });
    group.finish();
}

fn ciphers(criterion: &mut Criterion) {
    let data = table_pages();
    let cipher = Cipher::Aes256Cbc(Passphrase::new("benchmark"));
    let mut encryptor = Encryptor::new(&cipher, Framing::Full);
    let mut encrypt = |data: &[u8], out: &mut Vec<u8>| {
        for piece in data.chunks(PUSH_BYTES) {
            encryptor.push(piece, out).unwrap();
        }
        encryptor.finish(out).unwrap();
    };
    let mut stream = Vec::new();
    encrypt(&data, &mut stream);
    let mut out = Vec::new();
    let mut buffer = vec![0; PUSH_BYTES];
    let mut group = group(criterion, "aes-256-cbc", data.len());
    group.bench_function("encrypt", |bench| {
        bench.iter(|| {
            out.clear();
            encrypt(black_box(&data), &mut out);
        });
    });
    group.bench_function("decrypt", |bench| {
        bench.iter(|| {
            let mut decryptor = Decryptor::new(&cipher, Framing::Full, black_box(stream.as_slice()));
            while decryptor.read(&mut buffer).unwrap() > 0 {}
        });
    });
    group.finish();
    let mut group = self::group(criterion, "aes-256-cbc small file", SMALL_FILE_BYTES);
    group.bench_function("encrypt", |bench| {
        bench.iter(|| {
            out.clear();
            encrypt(black_box(&data[..SMALL_FILE_BYTES]), &mut out);
        });
    });
    group.finish();
}

fn levels() -> Vec<Compression> {
    [
        (CompressType::Gz, vec![1, 6, 9]),
        (CompressType::Bz2, vec![1, 9]),
        (CompressType::Lz4, vec![-5, 1, 2, 3, 9]),
        (CompressType::Zst, vec![-7, 1, 3, 9]),
    ]
    .into_iter()
    .flat_map(|(kind, levels)| levels.into_iter().map(move |level| Compression { kind, level }))
    .collect()
}

fn compression(criterion: &mut Criterion) {
    let data = table_pages();
    let mut out = Vec::new();
    let mut buffer = vec![0; PUSH_BYTES];
    for compression in levels() {
        let name = format!("{} {}", compression.kind, compression.level);
        let mut compressor = Compressor::new(compression, Framing::Full).unwrap();
        let mut compress = |data: &[u8], out: &mut Vec<u8>| {
            out.clear();
            for piece in data.chunks(PUSH_BYTES) {
                compressor.push(piece, out).unwrap();
            }
            compressor.finish(out).unwrap();
        };
        compress(&data, &mut out);
        let stream = out.clone();
        println!("{name}: {:.1} % of the size", stream.len() as f64 / data.len() as f64 * 100.0);

        let mut group = group(criterion, "compress", data.len());
        group.bench_function(BenchmarkId::from_parameter(&name), |bench| {
            bench.iter(|| compress(black_box(&data), &mut out))
        });
        group.finish();

        let mut group = self::group(criterion, "decompress", data.len());
        let mut context = Some(DecompressContext::new(compression.kind, Framing::Full).unwrap());
        group.bench_function(BenchmarkId::from_parameter(&name), |bench| {
            bench.iter(|| {
                let mut decompressor =
                    Decompressor::with_context(context.take().unwrap(), black_box(stream.as_slice()));
                while decompressor.read(&mut buffer).unwrap() > 0 {}
                context = decompressor.into_context().ok();
            });
        });
        group.finish();

        let mut group = self::group(criterion, "compress small file", SMALL_FILE_BYTES);
        let small = &data[..SMALL_FILE_BYTES];
        group.bench_function(BenchmarkId::from_parameter(&name), |bench| {
            bench.iter(|| compress(black_box(small), &mut out))
        });
        group.finish();

        let stream = out.clone();
        let mut group = self::group(criterion, "decompress small file", SMALL_FILE_BYTES);
        group.bench_function(BenchmarkId::from_parameter(&name), |bench| {
            bench.iter(|| {
                let mut decompressor =
                    Decompressor::with_context(context.take().unwrap(), black_box(stream.as_slice()));
                while decompressor.read(&mut buffer).unwrap() > 0 {}
                context = decompressor.into_context().ok();
            });
        });
        group.finish();
    }
}

criterion_group!(benches, hashes, ciphers, compression);
criterion_main!(benches);
