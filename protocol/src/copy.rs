//! Jobs of a backup that are done beside the data directory, between two programs that both have
//! [`Capability::CopyJobs`](crate::Capability::CopyJobs).
//!
//! A session is a worker. It gets one job after the other: a large file, or a bundle of small ones. The answer to a job is
//! the first chunk of what is stored of its files; further chunks are asked for. What was done with each file comes with the
//! last chunk. A request for a chunk after that gets an empty one, so that a client may ask before it knows the end.
//!
//! | request | parameters | data of the answer |
//! | --- | --- | --- |
//! | `copy` `opn` | [`WorkerRequest`] | |
//! | `copy` `prc` | [`JobRequest`] | [`JobChunk`] |
//! | `copy` `prc` | | [`JobChunk`] |

use std::fmt;

use crate::filter::{Codec, Digest, PassphraseBytes};
use crate::pack::{EMPTY, PackReader, PackWriter};
use crate::{StringId, format_error};
use repo_format::Result;

/// The most files of a job.
pub const JOB_FILES_MAX: usize = 1_000_000;

/// What all jobs of a worker share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerRequest<'a> {
    /// How files are compressed, with the level; `None` if they are not.
    pub compression: Option<(Codec, i32)>,
    /// The passphrase with which files are encrypted; `None` if they are not.
    pub passphrase: Option<PassphraseBytes<'a>>,
    /// The digest that derives keys from it. Only with [`crate::Capability::CopyDigest`] other than SHA-1.
    pub digest: Digest,
    /// Whether files in bundles have no header.
    pub bundle_raw: bool,
    /// The index of the backup in the list of references, for block maps.
    pub reference: u32,
    /// Bytes of a page.
    pub page_size: u32,
    /// Whether page headers are checked in addition to checksums.
    pub page_header_check: bool,
    /// Stored bytes up to which an unchanged file is found out before anything of it is sent.
    pub compare_buffer_bytes: u64,
    /// The version of PostgreSQL to assume instead of the one in `pg_control`.
    pub version_force: Option<&'a str>,
    /// The level of the lz4 compression of all chunks of a job together; `None` if they are sent as they are stored.
    pub network_level: Option<i32>,
}

/// A job: what is stored as one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRequest<'a> {
    /// The number of the bundle; `None` for a file on its own.
    pub bundle_id: Option<u64>,
    /// The files in the order in which they are stored.
    pub files: Vec<RequestedFile<'a>>,
}

/// A file to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestedFile<'a> {
    /// The name in manifests.
    pub name: &'a str,
    /// Whether it is first compared with its recorded checksum.
    pub compares: bool,
    /// The recorded size.
    pub size: u64,
    /// The size when the directory was listed.
    pub size_original: u64,
    /// Whether no more than that is read.
    pub exact_size: bool,
    /// Whether the prior backup has the file.
    pub has_reference: bool,
    /// The recorded checksum, SHA-1.
    pub checksum: Option<&'a [u8]>,
    /// Whether pages are checked.
    pub page_check: bool,
    /// How it is stored in blocks; `None` for a whole file.
    pub blocks: Option<RequestedBlocks<'a>>,
}

/// How a file is stored in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestedBlocks<'a> {
    /// Bytes of a block.
    pub block_size: u32,
    /// Bytes of a checksum in the map.
    pub checksum_size: u32,
    /// Plain bytes of a super block.
    pub super_block_size: u64,
    /// The map that the file continues.
    pub prior_map: Option<&'a [u8]>,
}

/// A piece of what is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct JobChunk<'a> {
    /// The data.
    pub data: &'a [u8],
    /// What comes with the last chunk.
    pub end: Option<JobEnd<'a>>,
    /// Bytes of files that were copied of the job so far. Versions that do not tell it say 0.
    pub bytes_done: u64,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobEnd<'a> {
    /// Stored bytes of all files.
    pub size: u64,
    /// Their checksum, SHA-1.
    pub checksum: &'a [u8],
    /// One result for each file, in the order of the job.
    pub results: Vec<JobFileResult<'a>>,
}

/// What was done with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobFileResult<'a> {
    /// It was stored.
    Copied(CopiedFile<'a>),
    /// The prior backup has the same content.
    Unchanged {
        /// Bytes of the file.
        size: u64,
        /// Its checksum, SHA-1.
        checksum: &'a [u8],
    },
    /// It is empty by now, and nothing is stored of it.
    Truncated,
    /// It no longer exists.
    Removed,
}

/// A file that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedFile<'a> {
    /// Bytes of the file.
    pub size: u64,
    /// Its checksum, SHA-1.
    pub checksum: &'a [u8],
    /// Stored bytes.
    pub size_repo: u64,
    /// The checksum of the stored bytes if they differ from the file's, SHA-1.
    pub checksum_repo: Option<&'a [u8]>,
    /// The first byte among those of the job.
    pub offset: u64,
    /// Stored bytes of the block map; `None` for a whole file.
    pub map_size: Option<u64>,
    /// The result of the page check; `None` if there was none.
    pub pages: Option<CheckedPages>,
}

/// The result of a page check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckedPages {
    /// Every page is intact.
    Valid,
    /// The file does not consist of whole pages.
    Misaligned,
    /// First and last number of each range of damaged pages.
    Damaged(Vec<[u32; 2]>),
}

const COPIED: StringId = StringId::known("copied");
const UNCHANGED: StringId = StringId::known("unchanged");
const TRUNCATED: StringId = StringId::known("truncated");
const REMOVED: StringId = StringId::known("removed");
const VALID: StringId = StringId::known("valid");
const MISALIGNED: StringId = StringId::known("misaligned");
const DAMAGED: StringId = StringId::known("damaged");

impl<'a> WorkerRequest<'a> {
    pub(crate) fn write(&self, writer: &mut PackWriter<'a>) {
        let (codec, level) = self.compression.unzip();
        writer.string_id(codec.map_or(StringId(0), Codec::compress_id)).i32(level.unwrap_or_default());
        writer.binary(self.passphrase.as_ref().map(|passphrase| passphrase.0)).bool(self.bundle_raw);
        writer.u32(self.reference).u32(self.page_size).bool(self.page_header_check).u64(self.compare_buffer_bytes);
        writer.text(self.version_force).bool(self.network_level.is_some());
        writer.i32(self.network_level.unwrap_or_default());
        // A server without the capability would not look at it
        writer.string_id(if self.digest == Digest::Sha1 { StringId(0) } else { self.digest.id() });
    }

    pub(crate) fn read(reader: &mut PackReader<'a>) -> Result<Self> {
        let (codec, level) = (reader.string_id()?.filter(|id| id.0 != 0), reader.i32()?);
        let unsupported = |id| format_error(format!("compression '{id}' is not supported"));
        let codec = codec.map(|id| Codec::compressing(id).ok_or_else(|| unsupported(id))).transpose()?;
        let passphrase = reader.binary()?.map(PassphraseBytes);
        let bundle_raw = reader.bool()?;
        let (reference, page_size, page_header_check) = (reader.u32()?, reader.u32()?, reader.bool()?);
        let (compare_buffer_bytes, version_force) = (reader.u64()?, reader.text()?);
        let (is_compressed, network_level) = (reader.bool()?, reader.i32()?);
        let digest = reader.string_id()?.filter(|id| id.0 != 0).map(Digest::from_id).transpose()?;
        Ok(WorkerRequest {
            compression: codec.map(|codec| (codec, level)),
            passphrase,
            digest: digest.unwrap_or(Digest::Sha1),
            bundle_raw,
            reference,
            page_size,
            page_header_check,
            compare_buffer_bytes,
            version_force,
            network_level: is_compressed.then_some(network_level),
        })
    }
}

impl<'a> JobRequest<'a> {
    pub(crate) fn write(&self, writer: &mut PackWriter<'a>) {
        writer.u64_or_null(self.bundle_id).array(|list| {
            for file in &self.files {
                list.object(|entry| file.write(entry));
            }
        });
    }

    pub(crate) fn read(reader: &mut PackReader<'a>) -> Result<Self> {
        let bundle_id = reader.u64_or_null()?;
        let mut list = reader.array()?.ok_or_else(|| format_error("files of a job are missing"))?;
        let mut files = Vec::new();
        while !list.at_end()? {
            if files.len() == JOB_FILES_MAX {
                return Err(format_error(format!("more than {JOB_FILES_MAX} files in a job")));
            }
            let mut entry = list.object()?.ok_or_else(|| format_error("file of a job is missing"))?;
            files.push(RequestedFile::read(&mut entry)?);
            entry.finish()?;
        }
        list.finish()?;
        Ok(JobRequest { bundle_id, files })
    }
}

impl<'a> RequestedFile<'a> {
    fn write(&self, entry: &mut PackWriter<'a>) {
        entry.text(self.name).bool(self.compares).u64(self.size).u64(self.size_original);
        entry.bool(self.exact_size).bool(self.has_reference).binary(self.checksum).bool(self.page_check);
        if let Some(blocks) = &self.blocks {
            entry.object(|entry| {
                entry.u32(blocks.block_size).u32(blocks.checksum_size).u64(blocks.super_block_size);
                entry.binary(blocks.prior_map);
            });
        }
    }

    fn read(entry: &mut PackReader<'a>) -> Result<Self> {
        Ok(RequestedFile {
            name: entry.text_required("name")?,
            compares: entry.bool()?,
            size: entry.u64()?,
            size_original: entry.u64()?,
            exact_size: entry.bool()?,
            has_reference: entry.bool()?,
            checksum: entry.binary()?,
            page_check: entry.bool()?,
            blocks: entry.object()?.map(RequestedBlocks::read).transpose()?,
        })
    }
}

impl<'a> RequestedBlocks<'a> {
    fn read(mut entry: PackReader<'a>) -> Result<Self> {
        let blocks = RequestedBlocks {
            block_size: entry.u32()?,
            checksum_size: entry.u32()?,
            super_block_size: entry.u64()?,
            prior_map: entry.binary()?,
        };
        entry.finish()?;
        Ok(blocks)
    }
}

impl<'a> JobChunk<'a> {
    /// The data of the answer.
    pub fn encode(&self) -> PackWriter<'a> {
        let mut writer = PackWriter::new();
        writer.binary(Some(self.data).filter(|data| !data.is_empty()));
        if let Some(end) = &self.end {
            writer.object(|entry| end.write(entry));
        }
        writer.skip_to(3).u64(self.bytes_done);
        writer
    }

    /// Reads the answer.
    ///
    /// # Errors
    /// [`repo_format::ErrorCode::Format`] if it is damaged.
    pub fn decode(data: Option<&'a [u8]>) -> Result<Self> {
        let mut reader = PackReader::new(data.unwrap_or(EMPTY));
        let data = reader.binary()?.unwrap_or_default();
        let end = reader.object()?.map(JobEnd::read).transpose()?;
        let bytes_done = reader.u64()?;
        reader.finish()?;
        Ok(JobChunk { data, end, bytes_done })
    }
}

impl fmt::Debug for JobChunk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobChunk({} bytes, {:?})", self.data.len(), self.end)
    }
}

impl<'a> JobEnd<'a> {
    fn write(&self, entry: &mut PackWriter<'a>) {
        entry.u64(self.size).binary(self.checksum).array(|list| {
            for result in &self.results {
                list.object(|entry| result.write(entry));
            }
        });
    }

    fn read(mut entry: PackReader<'a>) -> Result<Self> {
        let (size, checksum) = (entry.u64()?, entry.binary()?.unwrap_or_default());
        let mut list = entry.array()?.ok_or_else(|| format_error("results of a job are missing"))?;
        let mut results = Vec::new();
        while !list.at_end()? {
            if results.len() == JOB_FILES_MAX {
                return Err(format_error(format!("more than {JOB_FILES_MAX} results of a job")));
            }
            let mut entry = list.object()?.ok_or_else(|| format_error("result of a file is missing"))?;
            results.push(JobFileResult::read(&mut entry)?);
            entry.finish()?;
        }
        list.finish()?;
        entry.finish()?;
        Ok(JobEnd { size, checksum, results })
    }
}

impl<'a> JobFileResult<'a> {
    fn write(&self, entry: &mut PackWriter<'a>) {
        match self {
            JobFileResult::Copied(copied) => {
                entry.string_id(COPIED).u64(copied.size).binary(copied.checksum);
                copied.write_stored(entry);
            }
            JobFileResult::Unchanged { size, checksum } => {
                entry.string_id(UNCHANGED).u64(*size).binary(*checksum);
            }
            JobFileResult::Truncated => {
                entry.string_id(TRUNCATED);
            }
            JobFileResult::Removed => {
                entry.string_id(REMOVED);
            }
        }
    }

    fn read(entry: &mut PackReader<'a>) -> Result<Self> {
        let kind = entry.string_id()?.unwrap_or(StringId(0));
        let (size, checksum) = (entry.u64()?, entry.binary()?.unwrap_or_default());
        Ok(match kind {
            COPIED => JobFileResult::Copied(CopiedFile::read_stored(entry, size, checksum)?),
            UNCHANGED => JobFileResult::Unchanged { size, checksum },
            TRUNCATED => JobFileResult::Truncated,
            REMOVED => JobFileResult::Removed,
            other => return Err(format_error(format!("result '{other}' of a file is not known"))),
        })
    }
}

impl<'a> CopiedFile<'a> {
    fn write_stored(&self, entry: &mut PackWriter<'a>) {
        entry.u64(self.size_repo).binary(self.checksum_repo).u64(self.offset).u64_or_null(self.map_size);
        match &self.pages {
            None => {}
            Some(CheckedPages::Valid) => {
                entry.string_id(VALID);
            }
            Some(CheckedPages::Misaligned) => {
                entry.string_id(MISALIGNED);
            }
            Some(CheckedPages::Damaged(ranges)) => {
                entry.string_id(DAMAGED).array(|list| {
                    for number in ranges.iter().flatten() {
                        list.u32_always(*number);
                    }
                });
            }
        }
    }

    fn read_stored(entry: &mut PackReader<'a>, size: u64, checksum: &'a [u8]) -> Result<Self> {
        let (size_repo, checksum_repo) = (entry.u64()?, entry.binary()?);
        let (offset, map_size) = (entry.u64()?, entry.u64_or_null()?);
        let pages = match entry.string_id()?.filter(|id| id.0 != 0) {
            None => None,
            Some(VALID) => Some(CheckedPages::Valid),
            Some(MISALIGNED) => Some(CheckedPages::Misaligned),
            Some(DAMAGED) => Some(CheckedPages::Damaged(read_ranges(entry.array()?)?)),
            Some(other) => return Err(format_error(format!("result '{other}' of a page check is not known"))),
        };
        Ok(CopiedFile { size, checksum, size_repo, checksum_repo, offset, map_size, pages })
    }
}

fn read_ranges(list: Option<PackReader<'_>>) -> Result<Vec<[u32; 2]>> {
    let mut list = list.ok_or_else(|| format_error("damaged pages are missing"))?;
    let mut ranges = Vec::new();
    while !list.at_end()? {
        // A gap has no size, so a list with defaults could be of any size
        let range = [list.u32_required()?, list.u32_required()?];
        if range[0] > range[1] {
            return Err(format_error(format!("damaged pages {} to {} are no range", range[0], range[1])));
        }
        ranges.push(range);
    }
    list.finish()?;
    Ok(ranges)
}

#[cfg(test)]
mod tests;
