//! Requests and results of workers in the terms of a backup on this host.

use std::sync::Arc;

use protocol::copy::{
    CheckedPages, CopiedFile, JobFileResult, JobRequest, RequestedBlocks, RequestedFile, WorkerRequest,
};
use protocol::filter::CompressFilter;
use repo_format::cipher::{Cipher, Passphrase};
use repo_format::compress::Compression;
use repo_format::hash::Sha1;
use repo_format::layout::RepoPath;
use repo_format::pg::PgVersion;
use repo_format::pg::page::check_page_size;

use super::PIECES_WAITING_MAX;
use crate::pipeline::PageOutcome;
use crate::pipeline::backup::{
    BlockJob, CodecPool, CopyFile, CopyFrom, CopyJob, CopyMethod, CopyOutcome, CopyResult, CopyRules,
    spared_codecs_bytes_max,
};
use crate::serve::block;
use crate::serve::codecs::compression;
use crate::serve::formats::{key_digest, passphrase_text};
use crate::storage::WriteOptions;
use crate::{Error, ErrorCode, Result};

/// The most stored bytes up to which an unchanged file is found out. pgBackRest's largest buffer.
const COMPARE_BYTES_MAX: u64 = 16 << 20;
/// An estimate of the buffers of a worker, and of what a file of a job needs beside its name.
const BUFFER_BYTES: u64 = 4 << 20;
const FILE_BYTES: u64 = 256;

/// An estimate of the memory that a worker uses apart from its job.
///
/// # Errors
/// [`ErrorCode::Format`] for a buffer that is too large, and those of the codec.
pub(super) fn worker_memory_bytes(request: &WorkerRequest<'_>) -> Result<u64> {
    if request.compare_buffer_bytes > COMPARE_BYTES_MAX {
        return Err(Error::new(ErrorCode::Format, format!("compared bytes exceed {COMPARE_BYTES_MAX}")));
    }
    // A file that is not stored yet may be in a buffer and in all pieces that wait
    let pieces = request.compare_buffer_bytes * (PIECES_WAITING_MAX as u64 + 2);
    Ok(spared_codecs_bytes_max(request_compression(request)?) + pieces + BUFFER_BYTES)
}

/// An estimate of the memory that a job uses.
pub(super) fn job_memory_bytes(request: &JobRequest<'_>) -> u64 {
    let files = request.files.iter().map(|file| FILE_BYTES + file.name.len() as u64);
    let blocks = || request.files.iter().filter_map(|file| file.blocks.as_ref());
    let maps = blocks().map(|blocks| blocks.prior_map.map_or(0, <[u8]>::len) as u64);
    // One map after the other is decoded, and as much is made
    let largest = blocks().map(|blocks| {
        let size = blocks.super_block_size.saturating_add(blocks.block_size.into()).saturating_mul(2);
        size.saturating_add(block::map_bytes(blocks.prior_map).saturating_mul(2))
    });
    files.chain(maps).fold(0, u64::saturating_add).saturating_add(largest.max().unwrap_or(0))
}

fn request_compression(request: &WorkerRequest<'_>) -> Result<Compression> {
    match request.compression {
        None => Ok(Compression::NONE),
        Some((codec, level)) => compression(&CompressFilter { codec, level, is_raw: false }),
    }
}

/// The rules of a worker, which shares codecs with the others of its connection.
///
/// # Errors
/// [`ErrorCode::Format`] for a passphrase that is no text, and those of its digest and the codec.
pub(super) fn rules(request: &WorkerRequest<'_>, codecs: Arc<CodecPool>) -> Result<CopyRules> {
    let digest = key_digest(request.digest)?;
    let with_digest = |text: &str| Passphrase::with_digest(text, digest);
    let passphrase = request.passphrase.as_ref().map(|bytes| passphrase_text(bytes.0).map(with_digest));
    Ok(CopyRules {
        compression: request_compression(request)?,
        cipher: Cipher::from_passphrase(passphrase.transpose()?.as_ref()),
        bundle_raw: request.bundle_raw,
        reference: request.reference,
        page_size: request.page_size,
        page_header_check: request.page_header_check,
        compare_buffer_bytes: usize::try_from(request.compare_buffer_bytes).unwrap_or_default(),
        // The client writes
        write_options: WriteOptions::IN_PLACE,
        codecs,
    })
}

/// The version to assume.
///
/// # Errors
/// It is no version.
pub(super) fn version(request: &WorkerRequest<'_>) -> Result<Option<PgVersion>> {
    request.version_force.map(str::parse).transpose()
}

/// The job. `page_size` is that of its worker.
///
/// # Errors
/// [`ErrorCode::Format`] for sizes out of range.
pub(super) fn job(request: &JobRequest<'_>, page_size: u32) -> Result<CopyJob> {
    if request.files.iter().any(|file| file.page_check) {
        check_page_size(page_size)?;
    }
    if request.bundle_id.is_none() && request.files.len() > 1 {
        return Err(Error::new(ErrorCode::Format, "several files are in no bundle"));
    }
    Ok(CopyJob {
        from: CopyFrom::Primary,
        // Only the client knows where it is stored
        path: RepoPath::root(),
        bundle_id: request.bundle_id,
        files: request.files.iter().map(file).collect::<Result<_>>()?,
        threads: 1,
    })
}

fn file(file: &RequestedFile<'_>) -> Result<CopyFile> {
    Ok(CopyFile {
        name: file.name.into(),
        method: if file.compares { CopyMethod::Compare } else { CopyMethod::Copy },
        size: file.size,
        size_original: file.size_original,
        exact_size: file.exact_size,
        has_reference: file.has_reference,
        checksum: file.checksum.map(checksum).transpose()?,
        checksum_repo: None,
        size_repo: 0,
        page_check: file.page_check,
        block: file.blocks.as_ref().map(blocks).transpose()?,
    })
}

fn blocks(blocks: &RequestedBlocks<'_>) -> Result<BlockJob> {
    let super_block_size = block::check_super_block_size(blocks.super_block_size)?;
    let (block_size, checksum_size) = block::sizes(blocks.block_size.into(), blocks.checksum_size.into())?;
    Ok(BlockJob { block_size, checksum_size, super_block_size, prior: None })
}

fn checksum(bytes: &[u8]) -> Result<Sha1> {
    let bytes = bytes.try_into().map_err(|_| Error::new(ErrorCode::Format, "checksum has another size"))?;
    Ok(Sha1(bytes))
}

/// The result in the form of an answer.
pub(super) fn result(result: &CopyResult) -> JobFileResult<'_> {
    match &result.outcome {
        CopyOutcome::Copied(copied) => JobFileResult::Copied(CopiedFile {
            size: copied.size,
            checksum: &copied.checksum.0,
            size_repo: copied.size_repo,
            checksum_repo: copied.checksum_repo.as_ref().map(|checksum| checksum.0.as_slice()),
            offset: copied.bundle_offset,
            map_size: copied.map_size,
            pages: copied.pages.as_ref().map(pages),
        }),
        // Nothing of an interrupted backup is here
        CopyOutcome::Unchanged { size, checksum } | CopyOutcome::Resumed { size, checksum } => {
            JobFileResult::Unchanged { size: *size, checksum: &checksum.0 }
        }
        CopyOutcome::Truncated => JobFileResult::Truncated,
        CopyOutcome::Removed => JobFileResult::Removed,
    }
}

fn pages(pages: &PageOutcome) -> CheckedPages {
    match pages {
        PageOutcome::Valid => CheckedPages::Valid,
        PageOutcome::Misaligned => CheckedPages::Misaligned,
        PageOutcome::Errors(ranges) => {
            CheckedPages::Damaged(ranges.iter().map(|range| [range.first, range.last]).collect())
        }
    }
}
