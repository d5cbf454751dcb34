//! What filters found.

use super::{FILTERS_MAX, name, next_pair};
use crate::pack::{PackReader, PackWriter};
use crate::{StringId, format_error};
use repo_format::Result;

/// The result of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilterResult<'a> {
    /// The hash.
    Hash(&'a [u8]),
    /// The size in bytes.
    Size(u64),
    /// The format of the repository that wrote the file.
    CipherFormat(u32),
    /// What the page check found.
    PageCheck(PageCheckResult),
    /// The size of the new block map in bytes. 0 means that nothing changed, so there is no data.
    BlockIncremental(u64),
    /// The checksums of all blocks, one after the other.
    BlockChecksum(&'a [u8]),
    /// Any other entry. pgBackRest has none with a result.
    Other {
        /// The filter.
        filter: StringId,
        /// The pack.
        result: Option<&'a [u8]>,
    },
}

/// What a page check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageCheckResult {
    /// The numbers of damaged pages, in ascending order.
    pub errors: Vec<u32>,
    /// Whether every page is intact.
    pub is_valid: bool,
    /// Whether the file consists of whole pages.
    pub is_aligned: bool,
}

/// The most damaged pages that an answer may name: those of a file of 32 GiB.
const PAGE_ERRORS_MAX: usize = 1 << 22;

/// Writes the results of a list.
pub fn encode_results<'a>(results: &[FilterResult<'a>]) -> PackWriter<'a> {
    let mut list = PackWriter::new();
    for result in results {
        result.write(&mut list);
    }
    list
}

/// Reads the results of a list.
///
/// # Errors
/// `ErrorCode::Format` if the list is damaged or too long.
pub fn decode_results(pack: &[u8]) -> Result<Vec<FilterResult<'_>>> {
    let mut list = PackReader::new(pack);
    let mut results = Vec::new();
    while let Some((filter, result)) = next_pair(&mut list)? {
        if results.len() == FILTERS_MAX {
            return Err(format_error(format!("more than {FILTERS_MAX} filter results")));
        }
        results.push(FilterResult::decode(filter, result)?);
    }
    list.finish()?;
    Ok(results)
}

impl<'a> FilterResult<'a> {
    fn write(&self, list: &mut PackWriter<'a>) {
        let mut writer = PackWriter::new();
        let id = match self {
            FilterResult::Hash(hash) => {
                writer.binary(*hash);
                name::HASH
            }
            FilterResult::Size(size) => {
                writer.u64(*size);
                name::SIZE
            }
            FilterResult::CipherFormat(format) => {
                writer.u32(*format);
                name::CIPHER_FORMAT
            }
            FilterResult::PageCheck(result) => {
                result.write(&mut writer);
                name::PAGE_CHECK
            }
            FilterResult::BlockIncremental(map_size) => {
                writer.u64(*map_size);
                name::BLOCK_INCREMENTAL
            }
            FilterResult::BlockChecksum(checksums) => {
                writer.binary(*checksums);
                name::BLOCK_CHECKSUM
            }
            FilterResult::Other { filter, result } => {
                list.string_id(*filter).pack_bytes(*result);
                return;
            }
        };
        list.string_id(id).pack(Some(writer));
    }

    fn decode(filter: StringId, result: Option<&'a [u8]>) -> Result<Self> {
        let Some(pack) = result else { return Ok(FilterResult::Other { filter, result }) };
        let mut reader = PackReader::new(pack);
        let missing = || format_error(format!("result of filter '{filter}' is missing"));
        let decoded = match filter {
            name::HASH => FilterResult::Hash(reader.binary()?.ok_or_else(missing)?),
            name::SIZE => FilterResult::Size(reader.u64()?),
            name::CIPHER_FORMAT => FilterResult::CipherFormat(reader.u32()?),
            name::PAGE_CHECK => FilterResult::PageCheck(PageCheckResult::read(&mut reader)?),
            name::BLOCK_INCREMENTAL => FilterResult::BlockIncremental(reader.u64()?),
            name::BLOCK_CHECKSUM => FilterResult::BlockChecksum(reader.binary()?.ok_or_else(missing)?),
            filter => return Ok(FilterResult::Other { filter, result }),
        };
        reader.finish()?;
        Ok(decoded)
    }
}

impl PageCheckResult {
    fn write(&self, writer: &mut PackWriter<'_>) {
        if self.errors.is_empty() {
            writer.null();
        } else {
            writer.array(|errors| {
                for page in &self.errors {
                    errors.skip_to(page.saturating_add(1)).object(|_| ());
                }
            });
        }
        writer.bool_always(self.is_valid).bool_always(self.is_aligned);
    }

    fn read(reader: &mut PackReader<'_>) -> Result<Self> {
        let mut errors = Vec::new();
        if let Some(mut array) = reader.array()? {
            // A field's id is the number of the page plus 1
            while let Some((id, _)) = array.value()? {
                if errors.len() == PAGE_ERRORS_MAX {
                    return Err(format_error(format!("more than {PAGE_ERRORS_MAX} damaged pages")));
                }
                errors.push(id - 1);
            }
            array.finish()?;
        }
        Ok(PageCheckResult { errors, is_valid: reader.bool_required()?, is_aligned: reader.bool_required()? })
    }
}
