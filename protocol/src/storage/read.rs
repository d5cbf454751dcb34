//! Reading files.
//!
//! The answer to the request that opens a file already contains the first chunk. Each further chunk is asked for.
//! Chunks have the size of the server's buffer, but for the last one. The results of the filters come with the last
//! chunk, or alone if the server learned only then that there is no more; the answer also closes the session.

use crate::filter::{Filter, FilterResult, decode_filters, decode_results, encode_filters, encode_results};
use crate::pack::{EMPTY, PackReader, PackWriter};
use crate::{Dialect, format_error};
use repo_format::Result;

/// The largest number of ranges in a request. A restore of pgBackRest asks for those of one bundle.
pub const RANGES_MAX: usize = 1_000_000;

/// Opens a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRequest<'a> {
    /// The file.
    pub path: &'a str,
    /// Where to begin.
    pub offset: u64,
    /// How many bytes to read at most. pgBackRest cannot send a limit of 0: its client leaves it out, like any 0.
    pub limit: Option<u64>,
    /// The version in a store with versions.
    pub version: Option<&'a str>,
    /// The filters to run.
    pub filters: Vec<Filter<'a>>,
}

impl<'a> ReadRequest<'a> {
    pub(crate) fn write(&self, writer: &mut PackWriter<'a>, dialect: &Dialect) {
        writer.text(self.path).u64(self.offset).u64_or_null(self.limit).text(self.version);
        writer.pack(Some(encode_filters(&self.filters, dialect)));
    }

    pub(crate) fn read(reader: &mut PackReader<'a>, dialect: &Dialect) -> Result<Self> {
        Ok(ReadRequest {
            path: reader.text_required("file")?,
            offset: reader.u64()?,
            limit: reader.u64_or_null()?,
            version: reader.text()?,
            filters: decode_filters(reader.pack()?, dialect)?,
        })
    }
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileRange<'a> {
    /// The file.
    pub path: &'a str,
    /// Whether the data can be compressed on the way.
    pub is_compressible: bool,
    /// Where to begin. It must grow from range to range of one file.
    pub offset: u64,
    /// How many bytes to read at most.
    pub limit: Option<u64>,
    /// The version in a store with versions.
    pub version: Option<&'a str>,
}

/// Opens parts of files, which are read as one stream. A missing file is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadManyRequest<'a> {
    /// The filters to run on the stream.
    pub filters: Vec<Filter<'a>>,
    /// The parts.
    pub ranges: Vec<FileRange<'a>>,
}

impl<'a> ReadManyRequest<'a> {
    pub(crate) fn write(&self, writer: &mut PackWriter<'a>, dialect: &Dialect) {
        writer.pack(Some(encode_filters(&self.filters, dialect)));
        for range in &self.ranges {
            writer.text(range.path).bool(range.is_compressible).u64(range.offset);
            writer.u64_or_null(range.limit).text(range.version);
        }
    }

    pub(crate) fn read(reader: &mut PackReader<'a>, dialect: &Dialect) -> Result<Self> {
        let filters = decode_filters(reader.pack()?, dialect)?;
        let mut ranges = Vec::new();
        while !reader.at_end()? {
            if ranges.len() == RANGES_MAX {
                return Err(format_error(format!("more than {RANGES_MAX} ranges")));
            }
            ranges.push(FileRange {
                path: reader.text_required("file")?,
                is_compressible: reader.bool()?,
                offset: reader.u64()?,
                limit: reader.u64_or_null()?,
                version: reader.text()?,
            });
        }
        Ok(ReadManyRequest { filters, ranges })
    }
}

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// The data. Empty only at the end.
    pub data: &'a [u8],
    /// The results of the filters. They are there exactly if this is the last chunk.
    pub results: Option<Vec<FilterResult<'a>>>,
}

/// The answer to a request that opens a file or asks for the next chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadAnswer<'a> {
    /// The file is missing.
    Missing,
    /// A chunk.
    Chunk(Chunk<'a>),
}

impl<'a> ReadAnswer<'a> {
    /// The data of the answer to a [`ReadRequest`].
    pub fn encode(&self) -> PackWriter<'a> {
        let mut writer = PackWriter::new();
        match self {
            ReadAnswer::Missing => {
                writer.bool_always(false);
            }
            ReadAnswer::Chunk(chunk) => {
                writer.bool_always(true);
                chunk.write(&mut writer);
            }
        }
        writer
    }

    /// Reads the answer to a [`ReadRequest`]. `is_closed` is that of the message.
    ///
    /// # Errors
    /// [`repo_format::ErrorCode::Format`] if it is damaged.
    pub fn decode(data: Option<&'a [u8]>, is_closed: bool) -> Result<Self> {
        let mut reader = PackReader::new(data.unwrap_or(EMPTY));
        if reader.bool_required()? {
            return Chunk::read(reader, is_closed).map(ReadAnswer::Chunk);
        }
        reader.finish()?;
        Ok(ReadAnswer::Missing)
    }
}

impl<'a> Chunk<'a> {
    /// The data of the answer to a [`ReadManyRequest`], and to requests for the next chunk of any file.
    pub fn encode(&self) -> PackWriter<'a> {
        let mut writer = PackWriter::new();
        self.write(&mut writer);
        writer
    }

    /// Reads the answer to a [`ReadManyRequest`] or a request for the next chunk. `is_closed` is that of the message.
    ///
    /// # Errors
    /// [`repo_format::ErrorCode::Format`] if it is damaged.
    pub fn decode(data: Option<&'a [u8]>, is_closed: bool) -> Result<Self> {
        Self::read(PackReader::new(data.unwrap_or(EMPTY)), is_closed)
    }

    fn write(&self, writer: &mut PackWriter<'a>) {
        writer.bool(self.data.is_empty());
        if !self.data.is_empty() {
            writer.binary(self.data);
        }
        if let Some(results) = &self.results {
            writer.pack(Some(encode_results(results)));
        }
    }

    fn read(mut reader: PackReader<'a>, is_closed: bool) -> Result<Self> {
        let is_empty = reader.bool()?;
        let data = if is_empty { None } else { reader.binary()? };
        let results = reader.pack()?.map(decode_results).transpose()?;
        reader.finish()?;
        // An end without results, or results without an end, would hide that a part of the file is missing
        if data.is_none_or(<[u8]>::is_empty) != is_empty || results.is_some() != is_closed {
            return Err(format_error("invalid chunk"));
        }
        if is_empty && !is_closed {
            return Err(format_error("empty chunk before the end"));
        }
        Ok(Chunk { data: data.unwrap_or_default(), results })
    }
}
