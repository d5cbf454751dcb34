//! Requests that change directories and names. Most of their answers are empty.

use crate::format_error;
use crate::pack::{EMPTY, PackReader, PackWriter};
use repo_format::Result;

/// The kind of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    /// A symbolic link.
    Symbolic = 0,
    /// A hard link.
    Hard = 1,
}

/// Creates a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkRequest<'a> {
    /// What it leads to.
    pub target: &'a str,
    /// The link.
    pub path: &'a str,
    /// Its kind.
    pub link_type: LinkType,
}

impl<'a> LinkRequest<'a> {
    pub(crate) fn write(&self, writer: &mut PackWriter<'a>) {
        writer.text(self.target).text(self.path).u32(self.link_type as u32);
    }

    pub(crate) fn read(reader: &mut PackReader<'a>) -> Result<Self> {
        Ok(LinkRequest {
            target: reader.text_required("link target")?,
            path: reader.text_required("path")?,
            link_type: match reader.u32()? {
                0 => LinkType::Symbolic,
                1 => LinkType::Hard,
                other => return Err(format_error(format!("invalid link type {other}"))),
            },
        })
    }
}

/// Creates a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathCreateRequest<'a> {
    /// The directory.
    pub path: &'a str,
    /// Whether an existing directory is an error.
    pub error_on_exists: bool,
    /// Whether the parent must exist.
    pub no_parents: bool,
    /// The mode; 0 for the server's default.
    pub mode: u32,
}

impl<'a> PathCreateRequest<'a> {
    pub(crate) fn write(&self, writer: &mut PackWriter<'a>) {
        writer.text(self.path).bool(self.error_on_exists).bool(self.no_parents).mode_unless(self.mode, 0);
    }

    pub(crate) fn read(reader: &mut PackReader<'a>) -> Result<Self> {
        Ok(PathCreateRequest {
            path: reader.text_required("path")?,
            error_on_exists: reader.bool()?,
            no_parents: reader.bool()?,
            mode: reader.mode_or(0)?,
        })
    }
}

/// Removes a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRemoveRequest<'a> {
    /// The directory.
    pub path: &'a str,
    /// Whether its content is removed, too.
    pub recurse: bool,
}

impl<'a> PathRemoveRequest<'a> {
    pub(crate) fn write(&self, writer: &mut PackWriter<'a>) {
        writer.text(self.path).bool(self.recurse);
    }

    pub(crate) fn read(reader: &mut PackReader<'a>) -> Result<Self> {
        Ok(PathRemoveRequest { path: reader.text_required("path")?, recurse: reader.bool()? })
    }
}

/// Whether the directory of a [`PathRemoveRequest`] existed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRemoveAnswer {
    /// Whether it existed.
    pub existed: bool,
}

impl PathRemoveAnswer {
    /// The data of the answer.
    pub fn encode(self) -> PackWriter<'static> {
        let mut writer = PackWriter::new();
        writer.bool_always(self.existed);
        writer
    }

    /// Reads the data of the answer.
    ///
    /// # Errors
    /// [`repo_format::ErrorCode::Format`] if it is damaged.
    pub fn decode(data: Option<&[u8]>) -> Result<Self> {
        let mut reader = PackReader::new(data.unwrap_or(EMPTY));
        let existed = reader.bool_required()?;
        reader.finish()?;
        Ok(PathRemoveAnswer { existed })
    }
}

/// Removes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoveRequest<'a> {
    /// The file.
    pub path: &'a str,
    /// Whether a missing file is an error.
    pub error_on_missing: bool,
}

impl<'a> RemoveRequest<'a> {
    pub(crate) fn write(&self, writer: &mut PackWriter<'a>) {
        writer.text(self.path).bool(self.error_on_missing);
    }

    pub(crate) fn read(reader: &mut PackReader<'a>) -> Result<Self> {
        Ok(RemoveRequest { path: reader.text_required("path")?, error_on_missing: reader.bool()? })
    }
}
