//! What the other host does with a file while it reads it, and what it finds.
//!
//! Source of the order: pgBackRest `src/command/backup/file.c.inc` (`backupFile`).

use protocol::filter::{
    BlockFilter, CipherFilter, Codec, CompressFilter, Digest, Direction, Filter, FilterResult, PageCheckFilter,
    PageCheckResult, PassphraseBytes,
};
use repo_format::compress::CompressType;
use repo_format::hash::Sha1;
use repo_format::manifest::PageRange;
use repo_format::pg::page::SEGMENT_SIZE;

use crate::pg::data_dir::segment_number;
use crate::pipeline::PageOutcome;
use crate::pipeline::backup::{BlockJob, CopyFile, CopyRules};
use crate::pipeline::restore::{BlockGeometry, Hashed};
use crate::remote::filters::{HEADER_FULL, HEADER_RAW, codec, digest};
use crate::{Error, ErrorCode, Result};

/// How a file is copied.
pub(super) struct FileFilters<'a> {
    pub(super) rules: &'a CopyRules,
    pub(super) file: &'a CopyFile,
    /// The absolute path on the other host.
    pub(super) path: &'a str,
    /// The bundle that the file goes to.
    pub(super) bundle_id: Option<u64>,
    /// The offset of the file's first byte in the bundle.
    pub(super) offset: u64,
    /// The block map that the file continues.
    pub(super) prior_map: Option<&'a [u8]>,
    /// The level of the compression on the way; `None` if there is none.
    pub(super) network_level: Option<i32>,
}

impl<'a> FileFilters<'a> {
    /// Whether stored bytes differ from the file's.
    pub(super) fn transforms(&self) -> bool {
        transforms(self.rules, self.file)
    }

    /// The filters in the order in which they run.
    pub(super) fn list(&self) -> Vec<Filter<'a>> {
        let FileFilters { rules, file, .. } = *self;
        let mut filters = vec![Filter::Hash(Digest::Sha1), Filter::Size];
        if file.page_check {
            filters.push(Filter::PageCheck(PageCheckFilter {
                segment: segment_number(&file.name),
                segment_pages: (SEGMENT_SIZE / u64::from(rules.page_size.max(1))) as u32,
                page_size: rules.page_size,
                header_check: rules.page_header_check,
                file: self.path,
            }));
        }
        let is_raw = file.block.is_some() || (self.bundle_id.is_some() && rules.bundle_raw);
        let (compress, cipher) = (self.compress(is_raw), self.cipher(is_raw));
        match &file.block {
            Some(block) => filters.push(Filter::BlockIncremental(self.blocks(block, compress, cipher))),
            None => filters.extend(compress.map(Filter::Compress).into_iter().chain(cipher.map(Filter::Cipher))),
        }
        if self.transforms() {
            filters.push(Filter::Hash(Digest::Sha1));
        }
        filters.push(Filter::Size);
        if let Some(level) = self.network_level {
            filters.push(Filter::Compress(CompressFilter { codec: Codec::Lz4, level, is_raw: true }));
        }
        filters
    }

    fn compress(&self, is_raw: bool) -> Option<CompressFilter> {
        let codec = codec(self.rules.compression.kind)?;
        Some(CompressFilter { codec, level: self.rules.compression.level, is_raw })
    }

    fn cipher(&self, is_raw: bool) -> Option<CipherFilter<'a>> {
        let passphrase = self.rules.cipher.passphrase()?;
        Some(CipherFilter {
            direction: Direction::Encrypt,
            digest: Some(digest(passphrase)),
            passphrase: PassphraseBytes(passphrase.expose().as_bytes()),
            header: if is_raw { HEADER_RAW } else { HEADER_FULL },
        })
    }

    fn blocks(
        &self,
        block: &BlockJob,
        compression: Option<CompressFilter>,
        cipher: Option<CipherFilter<'a>>,
    ) -> BlockFilter<'a> {
        BlockFilter {
            super_block_size: block.super_block_size,
            block_size: u64::from(block.block_size),
            checksum_size: u64::from(block.checksum_size),
            reference: self.rules.reference,
            bundle_id: self.bundle_id.unwrap_or(0),
            bundle_offset: self.offset,
            prior_map: self.prior_map,
            compression,
            cipher,
        }
    }
}

/// Whether stored bytes of a file differ from its own.
pub(super) fn transforms(rules: &CopyRules, file: &CopyFile) -> bool {
    file.block.is_some() || rules.compression.kind != CompressType::None || !rules.cipher.is_none()
}

/// The filters that only find out size and checksum of a file.
pub(super) fn sum_filters() -> Vec<Filter<'static>> {
    vec![Filter::Hash(Digest::Sha1), Filter::Size, Filter::Sink]
}

/// The filters that only find out the checksums of a file and of its blocks.
pub(super) fn block_filters(geometry: BlockGeometry) -> Vec<Filter<'static>> {
    let (block_size, checksum_size) = (geometry.block_size as u64, geometry.checksum_size as u64);
    vec![Filter::Hash(Digest::Sha1), Filter::BlockChecksum { block_size, checksum_size }, Filter::Sink]
}

/// What the other host found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Checksums: of the file, and of the stored bytes if they differ.
    checksums: Vec<Sha1>,
    /// Numbers of bytes: of the file, then as stored.
    sizes: Vec<u64>,
    /// Stored bytes of the block map; `None` unless block incremental.
    pub(super) map_size: Option<u64>,
    /// The result of the page check; `None` if not requested.
    pub(super) pages: Option<PageOutcome>,
    /// The checksums of the blocks; `None` if not requested.
    blocks: Option<Vec<u8>>,
}

impl Findings {
    /// # Errors
    /// [`ErrorCode::Protocol`] for a checksum of another size.
    pub(super) fn new(results: &[FilterResult<'_>]) -> Result<Self> {
        let mut findings = Findings::default();
        for result in results {
            match result {
                FilterResult::Hash(hash) => {
                    let hash = <[u8; 20]>::try_from(*hash).map_err(|_| missing("checksum"))?;
                    findings.checksums.push(Sha1(hash));
                }
                FilterResult::Size(size) => findings.sizes.push(*size),
                FilterResult::BlockIncremental(size) => findings.map_size = Some(*size),
                FilterResult::BlockChecksum(checksums) => findings.blocks = Some(checksums.to_vec()),
                FilterResult::PageCheck(pages) => findings.pages = Some(page_outcome(pages)),
                _ => {}
            }
        }
        Ok(findings)
    }

    /// Size and checksum of the file.
    ///
    /// # Errors
    /// [`ErrorCode::Protocol`] if one is missing.
    pub(super) fn plain(&self) -> Result<(u64, Sha1)> {
        let (size, checksum) = (self.sizes.first().copied(), self.checksums.first().copied());
        Ok((size.ok_or_else(|| missing("size"))?, checksum.ok_or_else(|| missing("checksum"))?))
    }

    /// The checksums of the file and of its blocks.
    ///
    /// # Errors
    /// [`ErrorCode::Protocol`] if they are missing.
    pub(super) fn blocks(&self) -> Result<Hashed> {
        let sha1 = self.checksums.first().copied().ok_or_else(|| missing("checksum"))?;
        Ok(Hashed { sha1, blocks: self.blocks.clone().ok_or_else(|| missing("list of block checksums"))? })
    }

    /// Size and checksum of the stored bytes.
    ///
    /// # Errors
    /// [`ErrorCode::Protocol`] if one is missing.
    pub(super) fn stored(&self, transforms: bool) -> Result<(u64, Sha1)> {
        let checksum = self.checksums.get(usize::from(transforms)).copied();
        let size = self.sizes.get(1).copied();
        Ok((size.ok_or_else(|| missing("stored size"))?, checksum.ok_or_else(|| missing("stored checksum"))?))
    }
}

fn missing(what: &str) -> Error {
    Error::new(ErrorCode::Protocol, format!("the {what} is missing in the answer"))
}

/// Returns whether a file of this size can have these damaged pages: ranges that follow one another, no further apart than the
/// file is long. The number of its first page depends on its segment.
pub(super) fn pages_fit(outcome: Option<&PageOutcome>, size: u64, page_size: u32) -> bool {
    let Some(PageOutcome::Errors(ranges)) = outcome else { return true };
    let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return false };
    let pages = size / u64::from(page_size.max(1));
    ranges.windows(2).all(|pair| pair[0].last < pair[1].first)
        && ranges.iter().all(|range| range.first <= range.last)
        && u64::from(last.last.saturating_sub(first.first)) < pages
}

fn page_outcome(found: &PageCheckResult) -> PageOutcome {
    if found.is_valid {
        return PageOutcome::Valid;
    }
    if !found.is_aligned {
        return PageOutcome::Misaligned;
    }
    let mut ranges: Vec<PageRange> = Vec::new();
    for &number in &found.errors {
        match ranges.last_mut() {
            Some(range) if range.last.checked_add(1) == Some(number) => range.last = number,
            _ => ranges.push(PageRange { first: number, last: number }),
        }
    }
    PageOutcome::Errors(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_pages_that_no_file_of_this_size_has_are_noticed() {
        let fit = |errors: &[u32], size| {
            let found = PageCheckResult { errors: errors.to_vec(), is_valid: false, is_aligned: true };
            pages_fit(Some(&page_outcome(&found)), size, 8192)
        };
        let segment = 131_072;
        assert!(fit(&[0], 8192) && fit(&[0, 1, 9], 10 * 8192) && fit(&[segment, segment + 9], 10 * 8192));
        // Beyond the file, whatever the segment
        assert!(!fit(&[0, 10], 10 * 8192) && !fit(&[3, u32::MAX], 10 * 8192) && !fit(&[0], 8191));
        // Damaged without a page
        assert!(!fit(&[], 8192));
        assert!(pages_fit(Some(&PageOutcome::Valid), 0, 8192) && pages_fit(None, 0, 0));
    }
}
