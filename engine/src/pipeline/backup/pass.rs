//! One pass over a file: each buffer is hashed, checked, encoded and gathered while it is in the processor's cache.

use std::fs::File;
use std::io::{self, Cursor, Read, Take};

use repo_format::block_map::BlockMap;
use repo_format::cipher::Framing;
use repo_format::compress::Compression;
use repo_format::hash::{Sha1, Sha1Hasher};
use repo_format::read::read_full;

use super::CopyRules;
use super::job::{CopyFile, CopyJob};
use crate::pipeline::PageOutcome;
use crate::pipeline::block_writer::{BlockLayout, BlockWriter, SuperBlockEncoders};
use crate::pipeline::encode::StreamEncoder;
use crate::pipeline::page_check::PageChecker;
use crate::work::turn::Turn;
use crate::{Error, ErrorCode, Result};

/// What a file's bytes are read from.
pub(crate) enum Input {
    File(Take<File>),
    /// What was read at once, such as a consistent copy of `pg_control`.
    Bytes(Cursor<Vec<u8>>),
}

impl Input {
    pub(super) fn file(file: File, job: &CopyFile) -> Self {
        Input::File(file.take(if job.exact_size { job.size_original } else { u64::MAX }))
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Input::File(file) => file.read(buffer),
            Input::Bytes(bytes) => bytes.read(buffer),
        }
    }
}

/// A codec that needs no more than this many bytes is kept for each kind of stream also where memory is scarce.
const KEPT_CODEC_BYTES_MAX: u64 = 32 << 20;
/// Whole files with and without headers, and super blocks.
const STREAM_KINDS: u64 = 3;

/// The most memory, in bytes, of the codecs of a worker that spares memory.
pub(crate) fn spared_codecs_bytes_max(compression: Compression) -> u64 {
    let bytes = compression.memory_bytes_max();
    if bytes > KEPT_CODEC_BYTES_MAX { bytes } else { bytes * STREAM_KINDS }
}

/// A kind of stream, which needs a codec of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StreamKind {
    Full,
    Raw,
    SuperBlocks,
}

/// The codecs for one file at a time, kept from file to file.
pub(super) struct Encoders {
    full: Option<StreamEncoder>,
    raw: Option<StreamEncoder>,
    super_blocks: SuperBlockEncoders,
    /// Only the codec of one kind of stream is kept.
    keeps_one: bool,
}

impl Encoders {
    /// None yet. `spares_memory` tells whether codecs that need much are not kept for another kind of stream.
    pub(super) fn new(rules: &CopyRules, spares_memory: bool) -> Self {
        Encoders {
            full: None,
            raw: None,
            super_blocks: SuperBlockEncoders::new(rules.compression, rules.cipher.clone(), &Turn::FREE),
            keeps_one: spares_memory && rules.compression.memory_bytes_max() > KEPT_CODEC_BYTES_MAX,
        }
    }

    /// Returns whether these are codecs for the compression and encryption of the rules.
    pub(super) fn is_of(&self, rules: &CopyRules) -> bool {
        self.super_blocks.is_of(rules.compression, &rules.cipher)
    }

    /// Tells whose turn to compute it is.
    pub(super) fn compute_in(&mut self, turn: &Turn) {
        self.super_blocks.compute_in(turn);
    }

    /// Drops the codecs of the other kinds, if they must not be there together.
    fn spare(&mut self, kind: StreamKind) {
        if !self.keeps_one {
            return;
        }
        if kind != StreamKind::Full {
            self.full = None;
        }
        if kind != StreamKind::Raw {
            self.raw = None;
        }
        if kind != StreamKind::SuperBlocks {
            self.super_blocks.clear();
        }
    }

    /// Encodes a file of this job as one stream: in a bundle without headers, if the rules say so.
    pub(super) fn stream(&mut self, rules: &CopyRules, job: &CopyJob) -> Result<Transform<'_>> {
        let (kept, framing) = if job.bundle_id.is_some() && rules.bundle_raw {
            self.spare(StreamKind::Raw);
            (&mut self.raw, Framing::Raw)
        } else {
            self.spare(StreamKind::Full);
            (&mut self.full, Framing::Full)
        };
        if framing == Framing::Full && job.threads > 1 {
            // Not kept, because it needs more memory than others
            let encoder = StreamEncoder::parallel(rules.compression, &rules.cipher, job.threads)?;
            return Ok(Transform::Parallel(Box::new(encoder)));
        }
        Ok(Transform::Whole(match kept {
            Some(kept) => kept,
            none => none.insert(StreamEncoder::new(rules.compression, &rules.cipher, framing)?),
        }))
    }

    /// Encodes the blocks of a file that the prior backup lacks.
    pub(super) fn blocks(&mut self, layout: BlockLayout, prior: Option<BlockMap>) -> Result<Transform<'_>> {
        self.spare(StreamKind::SuperBlocks);
        Ok(Transform::Blocks(BlockWriter::new(layout, prior, &mut self.super_blocks)?))
    }
}

/// How the bytes of a file become stored bytes.
pub(super) enum Transform<'a> {
    Whole(&'a mut StreamEncoder),
    Parallel(Box<StreamEncoder>),
    Blocks(BlockWriter<&'a mut SuperBlockEncoders>),
}

impl Transform<'_> {
    /// Returns whether stored bytes differ from plain bytes.
    pub(super) fn transforms(&self) -> bool {
        match self {
            Transform::Whole(encoder) => encoder.transforms(),
            Transform::Parallel(encoder) => encoder.transforms(),
            Transform::Blocks(_) => true,
        }
    }

    fn push(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match self {
            Transform::Whole(encoder) => encoder.push(data, out),
            Transform::Parallel(encoder) => encoder.push(data, out),
            Transform::Blocks(blocks) => blocks.push(data, out),
        }
    }

    /// Ends the stream. Returns the size of the block map for a block incremental file.
    fn finish(self, out: &mut Vec<u8>) -> Result<Option<u64>> {
        match self {
            Transform::Whole(encoder) => encoder.finish(out).map(|()| None),
            Transform::Parallel(mut encoder) => encoder.finish(out).map(|()| None),
            Transform::Blocks(blocks) => blocks.finish(out).map(Some),
        }
    }
}

/// What is known about a file after the pass.
pub(crate) struct Passed {
    pub(crate) size: u64,
    pub(crate) checksum: Sha1,
    /// Stored bytes of the block map; `None` unless block incremental.
    pub(crate) map_size: Option<u64>,
    /// `None` if no page check was requested.
    pub(crate) pages: Option<PageOutcome>,
}

/// The pass.
pub(super) struct Pass<'a> {
    input: Input,
    transform: Transform<'a>,
    pages: Option<PageChecker>,
    hasher: Sha1Hasher,
    size: u64,
}

impl<'a> Pass<'a> {
    pub(super) fn new(input: Input, transform: Transform<'a>, pages: Option<PageChecker>) -> Self {
        Pass { input, transform, pages, hasher: Sha1Hasher::new(), size: 0 }
    }

    /// Fills the buffer once and appends the stored bytes of it to `out`. Returns whether the file may have more.
    /// `display` is the file's path for messages.
    pub(super) fn advance(
        &mut self,
        buffer: &mut [u8],
        out: &mut Vec<u8>,
        display: &dyn Fn() -> String,
    ) -> Result<bool> {
        let count = read_full(&mut self.input, buffer).map_err(|error| read_error(display, error))?;
        let data = &buffer[..count];
        self.size += count as u64;
        self.hasher.update(data);
        if let (Some(pages), Input::File(file)) = (&mut self.pages, &self.input) {
            pages.push(data, file.get_ref()).map_err(|error| read_error(display, error))?;
        }
        self.transform.push(data, out)?;
        Ok(count == buffer.len())
    }

    /// Bytes read so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Ends the stream.
    pub(super) fn finish(self, out: &mut Vec<u8>) -> Result<Passed> {
        Ok(Passed {
            map_size: self.transform.finish(out)?,
            size: self.size,
            checksum: self.hasher.finish(),
            pages: self.pages.map(PageChecker::finish),
        })
    }
}

/// Returns size and checksum of all bytes. `after_read` is called with the number of bytes of each piece, and its error ends the
/// reading.
pub(super) fn sum(
    input: &mut dyn Read,
    buffer: &mut [u8],
    display: &dyn Fn() -> String,
    after_read: &dyn Fn(u64) -> Result<()>,
) -> Result<(u64, Sha1)> {
    let mut input = input;
    let mut hasher = Sha1Hasher::new();
    let mut size = 0;
    loop {
        let count = read_full(&mut input, buffer).map_err(|error| read_error(display, error))?;
        hasher.update(&buffer[..count]);
        size += count as u64;
        after_read(count as u64)?;
        if count < buffer.len() {
            return Ok((size, hasher.finish()));
        }
    }
}

fn read_error(display: &dyn Fn() -> String, error: io::Error) -> Error {
    Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", display()), error)
}
