//! Information about files of this host, as answers contain it.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use protocol::storage::{FileKind, Info, InfoDetail, InfoLevel, ListEntry, OwnerInfo};

use crate::storage::{Entry, EntryKind};
use crate::users::Users;
use crate::{Error, ErrorCode, Result};

/// The bits of a mode that are passed on.
const MODE_MASK: u32 = 0o777;

/// Information that owns its texts.
#[derive(Clone, Debug)]
pub(super) struct FileInfo {
    /// Empty for a single file.
    pub(super) name: String,
    kind: FileKind,
    modified: i64,
    version: Option<String>,
    detail: Option<FileDetail>,
}

#[derive(Clone, Debug)]
struct FileDetail {
    mode: u32,
    user: (u32, Option<String>),
    group: (u32, Option<String>),
    link_target: Option<String>,
}

impl FileInfo {
    /// The information in the form of an answer.
    pub(super) fn info(&self) -> Info<'_> {
        let detail = self.detail.as_ref().map(|detail| InfoDetail {
            mode: detail.mode,
            user: OwnerInfo { id: detail.user.0, name: detail.user.1.as_deref() },
            group: OwnerInfo { id: detail.group.0, name: detail.group.1.as_deref() },
            link_target: detail.link_target.as_deref(),
        });
        Info { kind: self.kind, modified: self.modified, version: self.version.as_deref(), detail }
    }

    /// Where a link leads, if that was asked.
    pub(super) fn link_target(&self) -> Option<&str> {
        self.detail.as_ref().and_then(|detail| detail.link_target.as_deref())
    }

    /// The entry of a list.
    pub(super) fn entry(&self) -> ListEntry<'_> {
        ListEntry { name: &self.name, info: self.info() }
    }

    /// What a storage says about a file. It knows no modes and owners.
    pub(super) fn stored(entry: Entry, level: InfoLevel) -> Self {
        let kind = match entry.kind {
            EntryKind::File => FileKind::File(if level >= InfoLevel::Basic { entry.size } else { 0 }),
            EntryKind::Path => FileKind::Path,
            EntryKind::Link => FileKind::Link,
            EntryKind::Special => FileKind::Special,
        };
        let known = FileInfo {
            name: entry.name,
            kind,
            modified: if level >= InfoLevel::Basic { entry.modified } else { 0 },
            version: entry.version,
            detail: None,
        };
        if level == InfoLevel::Exists { FileInfo::exists(known.name) } else { known }
    }

    /// A file of which only the name is asked.
    fn exists(name: String) -> Self {
        FileInfo { name, kind: FileKind::File(0), modified: 0, version: None, detail: None }
    }

    fn of(name: String, path: &Path, metadata: &Metadata, asked: Asked<'_>) -> Result<Self> {
        let level = asked.level;
        if level == InfoLevel::Exists {
            return Ok(Self::exists(name));
        }
        let is_basic = level >= InfoLevel::Basic;
        let kind = match metadata.file_type() {
            kind if kind.is_file() => FileKind::File(if is_basic { metadata.len() } else { 0 }),
            kind if kind.is_dir() => FileKind::Path,
            kind if kind.is_symlink() => FileKind::Link,
            // Pipes, sockets and devices
            _ => FileKind::Special,
        };
        let modified = if is_basic { metadata.mtime() } else { 0 };
        let detail = if level == InfoLevel::Detail { Some(detail(path, kind, metadata, asked)?) } else { None };
        Ok(FileInfo { name, kind, modified, version: None, detail })
    }
}

fn detail(path: &Path, kind: FileKind, metadata: &Metadata, asked: Asked<'_>) -> Result<FileDetail> {
    let link_target = if kind == FileKind::Link { Some(link_target(path, asked.names)?) } else { None };
    let users = asked.users;
    Ok(FileDetail {
        mode: metadata.permissions().mode() & MODE_MASK,
        user: (metadata.uid(), users.user_name(metadata.uid())),
        group: (metadata.gid(), users.group_name(metadata.gid())),
        link_target,
    })
}

fn link_target(path: &Path, names: Names) -> Result<String> {
    let target =
        fs::read_link(path).map_err(|e| failed(ErrorCode::FileRead, "unable to get destination for link", path, e))?;
    match target.into_os_string().into_string() {
        Ok(target) => Ok(target),
        // A backup would record a place that does not exist
        Err(target) if names == Names::Exact => {
            let text = format!("destination '{}' of link '{}' is not valid UTF-8", target.display(), path.display());
            Err(Error::new(ErrorCode::Format, text))
        }
        Err(target) => Ok(target.to_string_lossy().into_owned()),
    }
}

/// An error about a path.
pub(super) fn failed(code: ErrorCode, what: &str, path: &Path, error: io::Error) -> Error {
    Error::from_io(code, format!("{what} '{}'", path.display()), error)
}

/// Returns information about a file of this host; `None` if it is missing.
///
/// # Errors
/// [`ErrorCode::FileOpen`], [`ErrorCode::FileRead`], and [`ErrorCode::Format`] for the target of a link that is no text.
pub(super) fn info(path: &Path, follow: bool, asked: Asked<'_>) -> Result<Option<FileInfo>> {
    let metadata = if follow { fs::metadata(path) } else { fs::symlink_metadata(path) };
    match metadata {
        Ok(metadata) => FileInfo::of(String::new(), path, &metadata, asked).map(Some),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(ErrorCode::FileOpen, "unable to get info for path/file", path, e)),
    }
}

/// What is asked about files, and who their owners are.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) level: InfoLevel,
    pub(super) names: Names,
    pub(super) users: &'a Users,
}

/// What happens with names and the targets of links that are no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// They are an error.
    Exact,
    /// They are shown with replacement characters. Nobody looks for them.
    Shown,
}

/// Returns the entries of a directory of this host, in the system's order; `None` if it is missing.
///
/// # Errors
/// [`ErrorCode::PathOpen`], and those of [`info`].
pub(super) fn list(path: &Path, asked: Asked<'_>) -> Result<Option<Vec<FileInfo>>> {
    let list_error = |e| failed(ErrorCode::PathOpen, "unable to list file info for path", path, e);
    let directory = match fs::read_dir(path) {
        Ok(directory) => directory,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(list_error(e)),
    };
    let mut entries = Vec::new();
    for item in directory {
        let item = item.map_err(list_error)?;
        let name = match item.file_name().into_string() {
            Ok(name) => name,
            // The client could not find the file under another name, and would take it for a removed one
            Err(name) if asked.names == Names::Exact => {
                let text = format!("name of file '{}' in path '{}' is not valid UTF-8", name.display(), path.display());
                return Err(Error::new(ErrorCode::Format, text));
            }
            Err(name) => name.to_string_lossy().into_owned(),
        };
        if asked.level == InfoLevel::Exists {
            entries.push(FileInfo::exists(name));
            continue;
        }
        // A file that was removed since the directory was read does not exist
        if let Some(found) = info(&item.path(), false, asked)? {
            entries.push(FileInfo { name, ..found });
        }
    }
    Ok(Some(entries))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn link_target_that_is_no_text_is_an_error_in_a_data_directory() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("16384");
        symlink(OsStr::from_bytes(b"/ts\xff"), &link).unwrap();
        let users = Users::new();
        let asked = |names| Asked { level: InfoLevel::Detail, names, users: &users };
        let found = [info(&link, false, asked(Names::Exact)).err(), list(dir.path(), asked(Names::Exact)).err()];
        for error in found {
            assert_eq!(error.unwrap().code, ErrorCode::Format);
        }
        let shown = info(&link, false, asked(Names::Shown)).unwrap().unwrap();
        assert_eq!(shown.link_target(), Some("/ts\u{fffd}"));
        let basic = Asked { level: InfoLevel::Basic, ..asked(Names::Exact) };
        assert!(info(&link, false, basic).unwrap().is_some());
    }
}
