//! The filters that a client asks for, run beside the file.
//!
//! Source of the results: pgBackRest `src/common/io/filter/group.c`. A list whose last filter does not put out data gets
//! an entry `buffer`, which has no result.

use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use protocol::StringId;
use protocol::filter::{CipherFilter, Codec, Direction, Filter, FilterResult, PageCheckFilter, PageCheckResult, name};
use repo_format::cipher::{Decryptor, Encryptor};
use repo_format::compress::{Compression, Compressor, Decompressor};
use repo_format::pg::page::check_page_size;

use super::Shared;
use super::block::{BlockChecksums, BlockConvert};
use super::codecs::{cipher, framing, kind};
use super::files::Files;
use super::formats::FormatStage;
use super::hashes::RunningHash;
use super::memory::{CountedMemory, Grown, Usage};
use super::stages::{Convert, ConvertStage, SinkStage, Stage, Tap, TapStage};
use crate::pipeline::PageChecker;
use crate::{Error, ErrorCode, Result};

/// Estimates of what a filter uses: its buffers, a decoder, and the largest window of zst.
const FILTER_BYTES: u64 = 256 << 10;
const DECODER_BYTES: u64 = 8 << 20;
const ZST_DECODER_BYTES: u64 = 144 << 20;

/// A chain of filters behind a file.
pub(super) struct Chain {
    pub(super) stage: Stage,
    /// One for each filter, in order.
    entries: Vec<(StringId, Outcome)>,
    memory: CountedMemory,
}

/// Where the result of a filter comes from.
enum Outcome {
    None,
    Hash(Shared<RunningHash>),
    Size(Shared<u64>),
    Format(Shared<u32>),
    Pages(Shared<PageTap>),
    MapSize(Shared<Option<u64>>),
    Checksums(Shared<BlockChecksums>),
}

/// A result that owns its data.
#[derive(Clone, Debug)]
pub(super) enum OwnedResult {
    Hash(Vec<u8>),
    Size(u64),
    Format(u32),
    Pages(PageCheckResult),
    MapSize(u64),
    Checksums(Vec<u8>),
    Other(StringId),
}

impl OwnedResult {
    /// The result in the form of an answer.
    pub(super) fn result(&self) -> FilterResult<'_> {
        match self {
            OwnedResult::Hash(hash) => FilterResult::Hash(hash),
            OwnedResult::Size(size) => FilterResult::Size(*size),
            OwnedResult::Format(format) => FilterResult::CipherFormat(*format),
            OwnedResult::Pages(pages) => FilterResult::PageCheck(pages.clone()),
            OwnedResult::MapSize(size) => FilterResult::BlockIncremental(*size),
            OwnedResult::Checksums(checksums) => FilterResult::BlockChecksum(checksums),
            OwnedResult::Other(filter) => FilterResult::Other { filter: *filter, result: None },
        }
    }
}

impl Chain {
    /// Puts filters behind `input`.
    ///
    /// # Errors
    /// [`ErrorCode::Access`] for a file of a page check that is out of reach, [`ErrorCode::Memory`] if the filters need
    /// too much, and others for parameters that are not valid.
    pub(super) fn new(input: Stage, filters: &[Filter<'_>], files: &Files, usage: &Usage) -> Result<Self> {
        let mut chain = Chain { stage: input, entries: Vec::new(), memory: usage.memory.count(0)? };
        for filter in filters {
            chain.memory.add(memory_bytes(filter))?;
            let input = std::mem::replace(&mut chain.stage, Box::new(io::empty()));
            let (stage, outcome) = build(filter, input, files, &usage.grown)?;
            chain.stage = stage;
            chain.entries.push((filter.id(), outcome));
        }
        if filters.last().is_none_or(|last| !changes_data(last)) {
            chain.entries.push((name::BUFFER, Outcome::None));
        }
        Ok(chain)
    }

    /// Returns the results, once the data has ended.
    pub(super) fn results(&mut self) -> Vec<OwnedResult> {
        self.entries.iter().map(|(id, outcome)| outcome.result(*id)).collect()
    }
}

impl Outcome {
    fn result(&self, id: StringId) -> OwnedResult {
        match self {
            Outcome::None => OwnedResult::Other(id),
            Outcome::Hash(hash) => OwnedResult::Hash(locked(hash, |hash| hash.clone().finish())),
            Outcome::Size(size) => OwnedResult::Size(locked(size, |size| *size)),
            Outcome::Format(format) => OwnedResult::Format(locked(format, |format| *format)),
            Outcome::Pages(pages) => OwnedResult::Pages(locked(pages, |pages| pages.result())),
            Outcome::MapSize(size) => OwnedResult::MapSize(locked(size, |size| size.unwrap_or(0))),
            Outcome::Checksums(checksums) => OwnedResult::Checksums(locked(checksums, BlockChecksums::result)),
        }
    }
}

fn locked<T, R>(shared: &Shared<T>, work: impl FnOnce(&mut T) -> R) -> R {
    work(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Whether a filter puts out data of its own. Others only look at what passes.
fn changes_data(filter: &Filter<'_>) -> bool {
    !matches!(filter, Filter::Hash(_) | Filter::Size | Filter::PageCheck(_) | Filter::BlockChecksum { .. })
}

fn memory_bytes(filter: &Filter<'_>) -> u64 {
    let codec = match filter {
        Filter::Compress(compression) => {
            super::codecs::compression(compression).map_or(0, Compression::memory_bytes_max)
        }
        Filter::Decompress { codec: Codec::Zst, .. } => ZST_DECODER_BYTES,
        Filter::Decompress { .. } => DECODER_BYTES,
        Filter::BlockIncremental(block) => super::block::memory_bytes(block),
        _ => 0,
    };
    codec.saturating_add(FILTER_BYTES)
}

fn build(filter: &Filter<'_>, input: Stage, files: &Files, grown: &Grown) -> Result<(Stage, Outcome)> {
    Ok(match filter {
        Filter::Hash(digest) => {
            let (stage, tap) = tapped(input, RunningHash::new(*digest));
            (stage, Outcome::Hash(tap))
        }
        Filter::Size => {
            let (stage, tap) = tapped(input, 0);
            (stage, Outcome::Size(tap))
        }
        Filter::PageCheck(check) => {
            let (stage, tap) = tapped(input, PageTap::new(check, files)?);
            (stage, Outcome::Pages(tap))
        }
        Filter::BlockChecksum { block_size, checksum_size } => {
            let (stage, tap) = tapped(input, BlockChecksums::new(*block_size, *checksum_size, grown)?);
            (stage, Outcome::Checksums(tap))
        }
        Filter::Sink => (Box::new(SinkStage::new(input)), Outcome::None),
        Filter::Compress(compression) => {
            let compressor = Compressor::new(super::codecs::compression(compression)?, framing(compression.is_raw))?;
            (Box::new(ConvertStage::new(input, compressor)), Outcome::None)
        }
        Filter::Decompress { codec, is_raw } => {
            (Box::new(Decompressor::new(kind(*codec), framing(*is_raw), input)?), Outcome::None)
        }
        Filter::Cipher(cipher) => (ciphered(cipher, input)?, Outcome::None),
        Filter::CipherPrefix(prefix) => (Box::new(ConvertStage::new(input, Prefix(prefix.to_vec()))), Outcome::None),
        Filter::CipherFormat { keys, key, format } => {
            let (stage, format) = FormatStage::new(input, keys, *key, *format)?;
            (Box::new(stage), Outcome::Format(format))
        }
        Filter::BlockIncremental(block) => {
            let (convert, map_size) = BlockConvert::new(block, grown)?;
            (Box::new(ConvertStage::new(input, convert)), Outcome::MapSize(map_size))
        }
    })
}

fn tapped<T: Tap + 'static>(input: Stage, tap: T) -> (Stage, Shared<T>) {
    let tap = Shared::new(Mutex::new(tap));
    (Box::new(TapStage { input, tap: Shared::clone(&tap) }), tap)
}

fn ciphered(filter: &CipherFilter<'_>, input: Stage) -> Result<Stage> {
    let (cipher, framing) = cipher(filter)?;
    Ok(match filter.direction {
        Direction::Encrypt => Box::new(ConvertStage::new(input, Encryptor::new(&cipher, framing))),
        Direction::Decrypt => Box::new(Decryptor::new(&cipher, framing, input)),
    })
}

/// Bytes that come before the data.
struct Prefix(Vec<u8>);

impl Convert for Prefix {
    fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.append(&mut self.0);
        out.extend_from_slice(data);
        Ok(())
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        out.append(&mut self.0);
        Ok(())
    }
}

impl Convert for Compressor {
    fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        Compressor::push(self, data, out)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        Compressor::finish(self, out)
    }
}

impl Convert for Encryptor {
    fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        Encryptor::push(self, data, out)
    }

    fn finish(&mut self, out: &mut Vec<u8>) -> Result<()> {
        Encryptor::finish(self, out)
    }
}

impl Tap for RunningHash {
    fn push(&mut self, data: &[u8]) -> io::Result<()> {
        self.update(data);
        Ok(())
    }
}

impl Tap for u64 {
    fn push(&mut self, data: &[u8]) -> io::Result<()> {
        *self += data.len() as u64;
        Ok(())
    }
}

/// Checks pages. Suspect pages are read again.
pub(super) struct PageTap {
    checker: PageChecker,
    file: File,
    page_size: usize,
    /// Bytes of a page that is not complete yet.
    partial: Vec<u8>,
}

impl PageTap {
    fn new(check: &PageCheckFilter<'_>, files: &Files) -> Result<Self> {
        check_page_size(check.page_size)?;
        let file = files.open_pages(check.file)?.ok_or_else(|| {
            Error::new(ErrorCode::FileMissing, format!("unable to open missing file '{}' for read", check.file))
        })?;
        let first_page = check.segment.wrapping_mul(check.segment_pages);
        Ok(PageTap {
            checker: PageChecker::of_segment(first_page, check.page_size, check.header_check),
            file,
            page_size: check.page_size as usize,
            partial: Vec::new(),
        })
    }

    fn result(&mut self) -> PageCheckResult {
        self.checker.result(&self.partial)
    }
}

impl Tap for PageTap {
    fn push(&mut self, mut data: &[u8]) -> io::Result<()> {
        if !self.partial.is_empty() {
            let taken = data.len().min(self.page_size - self.partial.len());
            self.partial.extend_from_slice(&data[..taken]);
            data = &data[taken..];
            if self.partial.len() < self.page_size {
                return Ok(());
            }
            self.checker.push(&self.partial, &self.file)?;
            self.partial.clear();
        }
        let (pages, rest) = data.split_at(data.len() - data.len() % self.page_size);
        if !pages.is_empty() {
            self.checker.push(pages, &self.file)?;
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }
}
