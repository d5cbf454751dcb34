//! Filters that a server runs on a file that it reads or writes.
//!
//! The list is a pack of pairs: the name of a filter and the pack of its parameters, or NULL. Results are pairs of the
//! same form, in the same order. A server may add entries without a result, such as `buffer` (source: pgBackRest
//! `src/common/io/filter/group.c`, the filters' own files, and captured streams for the filters of ciphers).

mod cipher;
mod result;

pub use cipher::{CIPHER_KEYS_MAX, CipherFilter, CipherHeader, CipherKey, Direction, PassphraseBytes};
pub use result::{FilterResult, PageCheckResult, decode_results, encode_results};

use crate::pack::{EMPTY, PackReader, PackWriter};
use crate::{Dialect, StringId, format_error};
use repo_format::{Error, ErrorCode, Result};

/// The largest number of filters in a list. pgBackRest uses up to eight.
pub const FILTERS_MAX: usize = 32;

/// A hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// MD5.
    Md5,
}

/// A compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// gzip.
    Gz,
    /// bzip2.
    Bz2,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zst,
}

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompressFilter {
    /// The compression.
    pub codec: Codec,
    /// The level.
    pub level: i32,
    /// Whether the stream has a shorter form, without what the protocol or the block map already ensures.
    pub is_raw: bool,
}

/// Where the pages of a relation's segment are, and what is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCheckFilter<'a> {
    /// The segment's number.
    pub segment: u32,
    /// The pages of a whole segment.
    pub segment_pages: u32,
    /// The size of a page in bytes.
    pub page_size: u32,
    /// Whether headers of pages are checked.
    pub header_check: bool,
    /// The file, from which pages that look damaged are read again.
    pub file: &'a str,
}

/// How a file is stored block by block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockFilter<'a> {
    /// The size of a super block in bytes.
    pub super_block_size: u64,
    /// The size of a block in bytes.
    pub block_size: u64,
    /// The size of a block's checksum in bytes.
    pub checksum_size: u64,
    /// The number of the backup in the block map.
    pub reference: u32,
    /// The bundle that the blocks go to.
    pub bundle_id: u64,
    /// Where the blocks begin in the bundle.
    pub bundle_offset: u64,
    /// The file's block map in the prior backup.
    pub prior_map: Option<&'a [u8]>,
    /// How super blocks are compressed.
    pub compression: Option<CompressFilter>,
    /// How super blocks are encrypted.
    pub cipher: Option<CipherFilter<'a>>,
}

/// A filter with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter<'a> {
    /// Computes a hash.
    Hash(Digest),
    /// Counts bytes.
    Size,
    /// Swallows the data, so that only results come back.
    Sink,
    /// Compresses.
    Compress(CompressFilter),
    /// Decompresses.
    Decompress {
        /// The compression.
        codec: Codec,
        /// As in [`CompressFilter`].
        is_raw: bool,
    },
    /// Encrypts or decrypts.
    Cipher(CipherFilter<'a>),
    /// Decrypts a file whose header contains the format of its repository.
    CipherFormat {
        /// The keys to choose from.
        keys: Vec<CipherKey<'a>>,
        /// The name of the key to use, if it is not the file's.
        key: Option<&'a str>,
        /// The format that the file must have; 0 for any.
        format: u32,
    },
    /// Puts these bytes in front of the data: the header with the format of a repository.
    CipherPrefix(&'a [u8]),
    /// Checks pages.
    PageCheck(PageCheckFilter<'a>),
    /// Stores changed blocks only.
    BlockIncremental(BlockFilter<'a>),
    /// Computes the checksums of blocks.
    BlockChecksum {
        /// The size of a block in bytes.
        block_size: u64,
        /// The size of a checksum in bytes.
        checksum_size: u64,
    },
}

/// The names of filters.
pub mod name {
    use crate::StringId;

    /// `hash`.
    pub const HASH: StringId = StringId::known("hash");
    /// `size`.
    pub const SIZE: StringId = StringId::known("size");
    /// `sink`.
    pub const SINK: StringId = StringId::known("sink");
    /// `cipher-blk`.
    pub const CIPHER: StringId = StringId::known("cipher-blk");
    /// `cipher-fmt`.
    pub const CIPHER_FORMAT: StringId = StringId::known("cipher-fmt");
    /// `cipher-hdr`.
    pub const CIPHER_PREFIX: StringId = StringId::known("cipher-hdr");
    /// `pg-chksum`.
    pub const PAGE_CHECK: StringId = StringId::known("pg-chksum");
    /// `blk-incr`.
    pub const BLOCK_INCREMENTAL: StringId = StringId::known("blk-incr");
    /// `blk-chk`.
    pub const BLOCK_CHECKSUM: StringId = StringId::known("blk-chk");
    /// `buffer`, which servers add to lists of results.
    pub const BUFFER: StringId = StringId::known("buffer");
}

impl Digest {
    const ALL: [Digest; 3] = [Digest::Sha1, Digest::Sha256, Digest::Md5];

    /// The name on the wire.
    pub const fn id(self) -> StringId {
        match self {
            Digest::Sha1 => StringId::known("sha1"),
            Digest::Sha256 => StringId::known("sha256"),
            Digest::Md5 => StringId::known("md5"),
        }
    }

    pub(crate) fn from_id(id: StringId) -> Result<Self> {
        Self::ALL.into_iter().find(|known| known.id() == id).ok_or_else(|| unsupported("hash", id))
    }
}

impl Codec {
    const ALL: [Codec; 4] = [Codec::Gz, Codec::Bz2, Codec::Lz4, Codec::Zst];

    /// The name of the filter that compresses.
    pub const fn compress_id(self) -> StringId {
        match self {
            Codec::Gz => StringId::known("gz-cmp"),
            Codec::Bz2 => StringId::known("bz2-cmp"),
            Codec::Lz4 => StringId::known("lz4-cmp"),
            Codec::Zst => StringId::known("zst-cmp"),
        }
    }

    /// The name of the filter that decompresses.
    pub const fn decompress_id(self) -> StringId {
        match self {
            Codec::Gz => StringId::known("gz-dcmp"),
            Codec::Bz2 => StringId::known("bz2-dcmp"),
            Codec::Lz4 => StringId::known("lz4-dcmp"),
            Codec::Zst => StringId::known("zst-dcmp"),
        }
    }

    pub(crate) fn compressing(id: StringId) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.compress_id() == id)
    }

    fn decompressing(id: StringId) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.decompress_id() == id)
    }
}

fn unsupported(kind: &str, id: StringId) -> Error {
    Error::new(ErrorCode::Protocol, format!("{kind} '{id}' is not supported"))
}

/// Writes a list of filters. An empty list is an empty pack, never NULL.
pub fn encode_filters<'a>(filters: &[Filter<'a>], dialect: &Dialect) -> PackWriter<'a> {
    let mut list = PackWriter::new();
    for filter in filters {
        list.string_id(filter.id()).pack(filter.parameters(dialect));
    }
    list
}

/// Reads a list of filters.
///
/// # Errors
/// [`ErrorCode::Format`] if it is damaged or too long, [`ErrorCode::Assert`] for an unknown filter as in pgBackRest,
/// [`ErrorCode::Protocol`] for parameters that are not supported.
pub fn decode_filters<'a>(pack: Option<&'a [u8]>, dialect: &Dialect) -> Result<Vec<Filter<'a>>> {
    let mut list = PackReader::new(pack.ok_or_else(|| format_error("filters are missing"))?);
    let mut filters = Vec::new();
    while let Some((id, parameters)) = next_pair(&mut list)? {
        if filters.len() == FILTERS_MAX {
            return Err(format_error(format!("more than {FILTERS_MAX} filters")));
        }
        filters.push(Filter::decode(id, parameters, dialect)?);
    }
    list.finish()?;
    Ok(filters)
}

/// The name of a filter with its parameters or its result.
type Pair<'a> = (StringId, Option<&'a [u8]>);

fn next_pair<'a>(list: &mut PackReader<'a>) -> Result<Option<Pair<'a>>> {
    if list.at_end()? {
        return Ok(None);
    }
    let id = list.string_id()?.filter(|id| id.0 != 0).ok_or_else(|| format_error("name of a filter is missing"))?;
    Ok(Some((id, list.pack()?)))
}

impl<'a> Filter<'a> {
    /// The name on the wire.
    pub fn id(&self) -> StringId {
        match self {
            Filter::Hash(_) => name::HASH,
            Filter::Size => name::SIZE,
            Filter::Sink => name::SINK,
            Filter::Compress(compression) => compression.codec.compress_id(),
            Filter::Decompress { codec, .. } => codec.decompress_id(),
            Filter::Cipher(_) => name::CIPHER,
            Filter::CipherFormat { .. } => name::CIPHER_FORMAT,
            Filter::CipherPrefix(_) => name::CIPHER_PREFIX,
            Filter::PageCheck(_) => name::PAGE_CHECK,
            Filter::BlockIncremental(_) => name::BLOCK_INCREMENTAL,
            Filter::BlockChecksum { .. } => name::BLOCK_CHECKSUM,
        }
    }

    fn parameters(&self, dialect: &Dialect) -> Option<PackWriter<'a>> {
        let mut writer = PackWriter::new();
        match self {
            Filter::Size | Filter::Sink => return None,
            Filter::Hash(digest) => {
                writer.string_id(digest.id());
            }
            Filter::Compress(compression) => writer = compression.encode(),
            Filter::Decompress { is_raw, .. } => {
                writer.bool(*is_raw);
            }
            Filter::Cipher(cipher) => writer = cipher.encode(dialect),
            Filter::CipherFormat { keys, key, format } => {
                CipherKey::write_all(keys, &mut writer);
                writer.text(*key).u32(*format);
            }
            Filter::CipherPrefix(prefix) => {
                writer.binary(*prefix);
            }
            Filter::PageCheck(check) => {
                writer.u32(check.segment).u32(check.segment_pages).u32(check.page_size);
                writer.bool(check.header_check).text(check.file);
            }
            Filter::BlockIncremental(block) => block.write(&mut writer, dialect),
            Filter::BlockChecksum { block_size, checksum_size } => {
                writer.u64(*block_size).u64(*checksum_size);
            }
        }
        Some(writer)
    }

    fn decode(id: StringId, parameters: Option<&'a [u8]>, dialect: &Dialect) -> Result<Self> {
        let mut reader = PackReader::new(parameters.unwrap_or(EMPTY));
        let filter = match id {
            name::HASH => Filter::Hash(Digest::from_id(reader.string_id()?.unwrap_or(StringId(0)))?),
            name::SIZE => Filter::Size,
            name::SINK => Filter::Sink,
            name::CIPHER => Filter::Cipher(CipherFilter::read(&mut reader, dialect)?),
            name::CIPHER_FORMAT => {
                let keys = CipherKey::read_all(&mut reader)?;
                Filter::CipherFormat { keys, key: reader.text()?, format: reader.u32()? }
            }
            name::CIPHER_PREFIX => Filter::CipherPrefix(reader.binary()?.unwrap_or_default()),
            name::PAGE_CHECK => Filter::PageCheck(PageCheckFilter {
                segment: reader.u32()?,
                segment_pages: reader.u32()?,
                page_size: reader.u32()?,
                header_check: reader.bool()?,
                file: reader.text_required("file")?,
            }),
            name::BLOCK_INCREMENTAL => Filter::BlockIncremental(BlockFilter::read(&mut reader, dialect)?),
            name::BLOCK_CHECKSUM => Filter::BlockChecksum { block_size: reader.u64()?, checksum_size: reader.u64()? },
            id => Self::decode_codec(id, &mut reader)?,
        };
        reader.finish()?;
        Ok(filter)
    }

    fn decode_codec(id: StringId, reader: &mut PackReader<'_>) -> Result<Self> {
        if let Some(codec) = Codec::compressing(id) {
            return Ok(Filter::Compress(CompressFilter::read(codec, reader)?));
        }
        let codec = Codec::decompressing(id)
            .ok_or_else(|| Error::new(ErrorCode::Assert, format!("unable to add filter '{id}'")))?;
        Ok(Filter::Decompress { codec, is_raw: reader.bool()? })
    }
}

impl CompressFilter {
    fn encode<'a>(&self) -> PackWriter<'a> {
        let mut writer = PackWriter::new();
        writer.i32(self.level).bool(self.is_raw);
        writer
    }

    fn read(codec: Codec, reader: &mut PackReader<'_>) -> Result<Self> {
        Ok(CompressFilter { codec, level: reader.i32()?, is_raw: reader.bool()? })
    }
}

impl<'a> BlockFilter<'a> {
    fn write(&self, writer: &mut PackWriter<'a>, dialect: &Dialect) {
        writer.u64(self.super_block_size).u64(self.block_size).u64(self.checksum_size).u32(self.reference);
        writer.u64(self.bundle_id).u64(self.bundle_offset).binary(self.prior_map);
        writer.pack(self.compression.map(|compression| compression.encode()));
        // The id of the compression's name exists only if there is a compression
        if let Some(compression) = self.compression {
            writer.string_id(compression.codec.compress_id());
        }
        writer.pack(self.cipher.map(|cipher| cipher.encode(dialect)));
    }

    fn read(reader: &mut PackReader<'a>, dialect: &Dialect) -> Result<Self> {
        Ok(BlockFilter {
            super_block_size: reader.u64()?,
            block_size: reader.u64()?,
            checksum_size: reader.u64()?,
            reference: reader.u32()?,
            bundle_id: reader.u64()?,
            bundle_offset: reader.u64()?,
            prior_map: reader.binary()?,
            compression: match reader.pack()? {
                Some(parameters) => {
                    let id = reader.string_id()?.unwrap_or(StringId(0));
                    let codec = Codec::compressing(id).ok_or_else(|| unsupported("compression", id))?;
                    Some(CompressFilter::read(codec, &mut PackReader::new(parameters))?)
                }
                None => None,
            },
            cipher: match reader.pack()? {
                Some(parameters) => Some(CipherFilter::read(&mut PackReader::new(parameters), dialect)?),
                None => None,
            },
        })
    }
}
