//! Stored files that decode to far more bytes than they contain, with every compression type and with several files at
//! a time.

use std::fs;
use std::path::PathBuf;

use repo_format::compress::{CompressType, Compression, Compressor, Framing};

use super::repositories::{Changed, Site};
use super::sealed;
use super::sizes::{fails, finds_fault};

const MIB: u64 = 1 << 20;
/// The largest number of plain bytes in a block of a zst frame.
const ZST_BLOCK: usize = 128 << 10;
/// The largest window that a zst stream can have, as a power of two. pgBackRest's level 22 uses it.
const WINDOW_MAX: u8 = 27;
/// A large segment, which fills the largest window.
const SEGMENT: u64 = 256 << 20;

/// Returns a zst frame that begins with `head`, followed by zeros up to `size` bytes. Its window is two to the power of
/// `window_log`.
pub fn zst_zeros(window_log: u8, head: &[u8], size: u64) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (window_log - 10) << 3];
    let header = |size: usize, kind: u32, last: bool| ((size as u32) << 3 | kind << 1 | u32::from(last)).to_le_bytes();
    if !head.is_empty() {
        assert!(head.len() <= ZST_BLOCK);
        frame.extend_from_slice(&header(head.len(), 0, false)[..3]);
        frame.extend_from_slice(head);
    }
    let blocks = (size - head.len() as u64) / ZST_BLOCK as u64;
    for block in 1..=blocks {
        // An RLE block: one byte stands for the whole block
        frame.extend_from_slice(&header(ZST_BLOCK, 1, block == blocks)[..3]);
        frame.push(0);
    }
    frame
}

/// Compresses `head` and the zeros after it.
fn compressed(kind: CompressType, head: &[u8], size: u64) -> Vec<u8> {
    if kind == CompressType::Zst {
        return zst_zeros(WINDOW_MAX, head, size);
    }
    let mut stream = Vec::new();
    let mut compressor =
        Compressor::new(Compression::new(kind, Some(1)).expect("level"), Framing::Full).expect("memory");
    compressor.push(head, &mut stream).expect("compress");
    let zeros = vec![0; MIB as usize];
    for _ in 0..size / MIB {
        compressor.push(&zeros, &mut stream).expect("compress");
    }
    compressor.finish(&mut stream).expect("compress");
    stream
}

/// Returns the first page of a large segment.
fn segment_head(site: &Site) -> Vec<u8> {
    let (name, _) = site.segments().into_iter().next().expect("an archived segment");
    site.command(&["archive-get", &name, &site.space().text("wal")]).success();
    let mut head = fs::read(site.space().path("wal")).expect("segment")[..8192].to_vec();
    fs::remove_file(site.space().path("wal")).expect("segment");
    // `xlp_seg_size`
    head[32..36].copy_from_slice(&(SEGMENT as u32).to_le_bytes());
    head
}

/// Replaces each archived segment with `content`. Returns the segments' names.
fn replace_segments(site: &Site, kind: CompressType, content: &[u8]) -> Vec<String> {
    let replace = |(name, path): (String, PathBuf)| {
        let stem = path.to_str().expect("path").trim_end_matches(".zst").to_owned();
        fs::remove_file(&path).expect("segment to replace");
        fs::write(format!("{stem}{}", kind.extension()), content).expect("segment");
        name
    };
    let segments =
        site.segments().into_iter().filter(|(_, path)| path.to_str().is_some_and(|path| path.ends_with(".zst")));
    segments.map(replace).collect()
}

#[test]
fn segments_that_decode_to_far_more_than_they_take_need_little_memory() {
    let site = Site::new("online");
    let head = segment_head(&site);
    for (kind, size) in [
        (CompressType::Zst, 4 << 30),
        (CompressType::Lz4, 2 * SEGMENT),
        (CompressType::Gz, 2 * SEGMENT),
        (CompressType::Bz2, 2 * SEGMENT),
    ] {
        let names = replace_segments(&site, kind, &compressed(kind, &head, size));
        assert!(names.len() > 2);
        finds_fault(site.command(&["verify", "--process-max=4", "--output=text"]));
        fails(site.command(&["archive-get", &names[0], &site.space().text("wal")]));
        assert!(!site.space().path("wal").exists());
        site.reset();
    }
}

#[test]
fn stored_files_with_large_windows_take_their_memory_in_turn() {
    let site = Site::new("online");
    let label = site.last().to_owned();
    let manifest = site.text(Changed::Manifest, &label);
    let size = 160 * MIB;
    let content = zst_zeros(WINDOW_MAX, b"", size);
    let mut changed = manifest.clone();
    let mut count = 0;
    let lines = manifest.lines().filter(|line| line.starts_with("pg_data/base/") && line.contains("\"checksum\""));
    for line in lines.take(3) {
        let (name, value) = line.split_once('=').expect("value");
        let value: serde_json::Value = serde_json::from_str(value).expect("JSON");
        let (sum, stored) = (&value["checksum"], content.len());
        let value = format!("{{\"checksum\":{sum},\"repo-size\":{stored},\"size\":{size},\"timestamp\":1}}");
        changed = changed.replace(line, &format!("{name}={value}"));
        let stored = format!("repo/backup/demo/{label}/{name}.zst");
        site.space().folder(stored.rsplit_once('/').expect("folder").0);
        site.space().write(&stored, &content);
        count += 1;
    }
    assert_eq!(count, 3);
    site.replace(Changed::Manifest, &label, &sealed(&changed));
    let run = site.restore(&label, false).fails(26);
    run.says("error restoring");
    finds_fault(site.command(&["verify", "--process-max=4", "--output=text"]));
}
