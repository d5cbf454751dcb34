//! Writing files.
//!
//! The request that opens a file has an empty answer. Blocks of data follow, each answered; closing the session gives
//! the results of the filters. A session that is dropped leaves an unfinished file behind.

use crate::Dialect;
use crate::filter::{Filter, FilterResult, decode_filters, decode_results, encode_filters, encode_results};
use crate::format_error;
use crate::pack::{EMPTY, PackReader, PackWriter};
use repo_format::Result;

/// Opens a file for writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteRequest<'a> {
    /// The file.
    pub path: &'a str,
    /// The file's mode.
    pub file_mode: u32,
    /// The mode of directories that are created.
    pub path_mode: u32,
    /// The owner, if not the server's user.
    pub user: Option<&'a str>,
    /// The group, if not the server's.
    pub group: Option<&'a str>,
    /// When the file was changed; 0 for now.
    pub modified: i64,
    /// Whether missing directories are created.
    pub create_path: bool,
    /// Whether the file is synced.
    pub sync_file: bool,
    /// Whether the directory is synced.
    pub sync_path: bool,
    /// Whether the file gets its name only when it is complete.
    pub is_atomic: bool,
    /// The filters to run.
    pub filters: Vec<Filter<'a>>,
}

impl<'a> WriteRequest<'a> {
    pub(crate) fn write(&self, writer: &mut PackWriter<'a>, dialect: &Dialect) {
        writer.text(self.path).mode_unless(self.file_mode, 0).mode_unless(self.path_mode, 0);
        writer.text(self.user).text(self.group).time(self.modified);
        writer.bool(self.create_path).bool(self.sync_file).bool(self.sync_path).bool(self.is_atomic);
        writer.pack(Some(encode_filters(&self.filters, dialect)));
    }

    pub(crate) fn read(reader: &mut PackReader<'a>, dialect: &Dialect) -> Result<Self> {
        Ok(WriteRequest {
            path: reader.text_required("file")?,
            file_mode: reader.mode_or(0)?,
            path_mode: reader.mode_or(0)?,
            user: reader.text()?,
            group: reader.text()?,
            modified: reader.time()?,
            create_path: reader.bool()?,
            sync_file: reader.bool()?,
            sync_path: reader.bool()?,
            is_atomic: reader.bool()?,
            filters: decode_filters(reader.pack()?, dialect)?,
        })
    }
}

/// The answer to the request that closes a written file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteAnswer<'a> {
    /// The results of the filters.
    pub results: Vec<FilterResult<'a>>,
}

impl<'a> WriteAnswer<'a> {
    /// The data of the answer.
    pub fn encode(&self) -> PackWriter<'a> {
        let mut writer = PackWriter::new();
        writer.pack(Some(encode_results(&self.results)));
        writer
    }

    /// Reads the data of the answer.
    ///
    /// # Errors
    /// [`repo_format::ErrorCode::Format`] if it is damaged.
    pub fn decode(data: Option<&'a [u8]>) -> Result<Self> {
        let mut reader = PackReader::new(data.unwrap_or(EMPTY));
        let results = reader.pack()?.ok_or_else(|| format_error("filter results are missing"))?;
        reader.finish()?;
        Ok(WriteAnswer { results: decode_results(results)? })
    }
}
