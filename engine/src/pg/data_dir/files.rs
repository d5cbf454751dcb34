//! What a scan sees of the files on PostgreSQL's host.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use crate::storage::EntryKind;
use crate::users::Users;
use crate::{Error, ErrorCode, Result};

/// The names of an owner. Numbers mean nothing on another host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerNames {
    /// The user; `None` if its number has no name.
    pub user: Option<String>,
    /// The group; `None` if its number has no name.
    pub group: Option<String>,
}

/// The attributes of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// The type of the entry.
    pub kind: EntryKind,
    /// Size in bytes.
    pub size: u64,
    /// Modification time in seconds since the epoch.
    pub modified: i64,
    /// Permission bits.
    pub mode: u16,
    /// The owner. Entries share it, because most have the same.
    pub owner: Arc<OwnerNames>,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name without its directory.
    pub name: String,
    /// The attributes, of a link those of the link itself.
    pub attributes: Attributes,
}

/// The files on PostgreSQL's host. All paths are absolute.
pub trait PgFiles {
    /// Returns the entries of a directory, sorted by name; `None` if it is missing. Omits entries that vanish meanwhile.
    ///
    /// # Errors
    /// [`ErrorCode::PathOpen`], [`ErrorCode::FileOpen`], and [`ErrorCode::Format`] for a name that is not UTF-8.
    fn list(&mut self, path: &str) -> Result<Option<Vec<DirEntry>>>;

    /// Returns the attributes of an entry, of a link those of the link itself; `None` if it is missing.
    ///
    /// # Errors
    /// [`ErrorCode::FileOpen`].
    fn info(&mut self, path: &str) -> Result<Option<Attributes>>;

    /// Like [`PgFiles::info`], but follows links.
    ///
    /// # Errors
    /// [`ErrorCode::FileOpen`].
    fn info_followed(&mut self, path: &str) -> Result<Option<Attributes>>;

    /// Returns the destination that is stored in a link; `None` if the link is missing.
    ///
    /// # Errors
    /// [`ErrorCode::FileRead`], and [`ErrorCode::Format`] if it is not UTF-8.
    fn link_destination(&mut self, link: &str) -> Result<Option<String>>;
}

/// The files on this host.
#[derive(Debug, Default)]
pub struct LocalFiles {
    users: Users,
    /// The owner of the entry before. Adjacent entries mostly have the same.
    last: Option<((u32, u32), Arc<OwnerNames>)>,
}

impl LocalFiles {
    fn attributes(&mut self, metadata: &Metadata) -> Attributes {
        let kind = match metadata.file_type() {
            kind if kind.is_file() => EntryKind::File,
            kind if kind.is_dir() => EntryKind::Path,
            kind if kind.is_symlink() => EntryKind::Link,
            _ => EntryKind::Special,
        };
        Attributes {
            kind,
            size: metadata.len(),
            modified: metadata.mtime(),
            mode: (metadata.mode() & 0o777) as u16,
            owner: self.owner(metadata.uid(), metadata.gid()),
        }
    }

    fn owner(&mut self, uid: u32, gid: u32) -> Arc<OwnerNames> {
        match &self.last {
            Some((numbers, owner)) if *numbers == (uid, gid) => Arc::clone(owner),
            _ => {
                let names = OwnerNames { user: self.users.user_name(uid), group: self.users.group_name(gid) };
                let owner = Arc::new(names);
                self.last = Some(((uid, gid), Arc::clone(&owner)));
                owner
            }
        }
    }

    fn found(&mut self, path: &str, metadata: std::io::Result<Metadata>) -> Result<Option<Attributes>> {
        match metadata {
            Ok(metadata) => Ok(Some(self.attributes(&metadata))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(info_error(path, error)),
        }
    }
}

impl PgFiles for LocalFiles {
    fn list(&mut self, path: &str) -> Result<Option<Vec<DirEntry>>> {
        let fail =
            |error| Error::from_io(ErrorCode::PathOpen, format!("unable to list file info for path '{path}'"), error);
        let reader = match fs::read_dir(path) {
            Ok(reader) => reader,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        let mut entries = Vec::new();
        for entry in reader {
            let entry = entry.map_err(fail)?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(info_error(&entry.path().to_string_lossy(), error)),
            };
            let name = entry.file_name().into_string().map_err(|name| not_utf8(&name, path))?;
            entries.push(DirEntry { name, attributes: self.attributes(&metadata) });
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(Some(entries))
    }

    fn info(&mut self, path: &str) -> Result<Option<Attributes>> {
        self.found(path, fs::symlink_metadata(path))
    }

    fn info_followed(&mut self, path: &str) -> Result<Option<Attributes>> {
        self.found(path, fs::metadata(path))
    }

    fn link_destination(&mut self, link: &str) -> Result<Option<String>> {
        match fs::read_link(link) {
            Ok(destination) => {
                destination.into_os_string().into_string().map(Some).map_err(|text| not_utf8(&text, link))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let text = format!("unable to get destination for link '{link}'");
                Err(Error::from_io(ErrorCode::FileRead, text, error))
            }
        }
    }
}

/// The error for a name that is not UTF-8, which a manifest can't contain either.
fn not_utf8(name: &OsStr, place: &str) -> Error {
    Error::new(ErrorCode::Format, format!("name '{}' in '{place}' is not valid UTF-8", name.display()))
        .hint("rename the file, or exclude its directory.")
}

fn info_error(path: &str, error: std::io::Error) -> Error {
    Error::from_io(ErrorCode::FileOpen, format!("unable to get info for path/file '{path}'"), error)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use repo_format::pg::PgVersion;

    use super::*;
    use crate::pg::data_dir::{Scan, ScanOptions, ServerTablespace, scan};

    /// Files that are not on this host, by path. The destination is that of a link.
    #[derive(Default)]
    struct Elsewhere {
        entries: BTreeMap<String, (Attributes, Option<String>)>,
        /// The path whose attributes can't be read.
        lost: Option<String>,
    }

    impl Elsewhere {
        fn add(&mut self, path: &str, kind: EntryKind, user: Option<&str>, destination: Option<&str>) {
            let owner = OwnerNames { user: user.map(str::to_owned), group: Some("far".to_owned()) };
            let attributes = Attributes { kind, size: 1, modified: 2, mode: 0o600, owner: Arc::new(owner) };
            self.entries.insert(path.to_owned(), (attributes, destination.map(str::to_owned)));
        }

        /// A cluster with a tablespace.
        fn cluster() -> Self {
            let mut files = Self::default();
            for path in ["/far/pg", "/far/pg/base", "/far/pg/pg_tblspc", "/far/pg/pg_tblspc/16385/PG_15_202209061"] {
                files.add(path, EntryKind::Path, Some("postgres"), None);
            }
            files.add("/far/pg/PG_VERSION", EntryKind::File, Some("postgres"), None);
            files.add("/far/pg/note", EntryKind::File, None, None);
            files.add("/far/pg/pg_tblspc/16385", EntryKind::Link, Some("admin"), Some("/far/ts"));
            files
        }

        fn scan(mut self) -> Result<Scan> {
            let options = ScanOptions {
                version: PgVersion::V15,
                tablespace_id: "PG_15_202209061",
                wal_path: "pg_wal",
                online: true,
                exclude: &[],
                tablespaces: Some(&[ServerTablespace { id: 16385, name: "ts".to_owned() }]),
            };
            scan(&mut self, Path::new("/far/pg"), &options, &mut || Ok(Vec::new()))
        }
    }

    impl PgFiles for Elsewhere {
        fn list(&mut self, path: &str) -> Result<Option<Vec<DirEntry>>> {
            let entries = self.entries.iter().filter_map(|(found, (attributes, _))| {
                let name = found.strip_prefix(path)?.strip_prefix('/').filter(|name| !name.contains('/'))?;
                Some(DirEntry { name: name.to_owned(), attributes: attributes.clone() })
            });
            Ok(Some(entries.collect()))
        }

        fn info(&mut self, path: &str) -> Result<Option<Attributes>> {
            match self.lost.as_deref() == Some(path) {
                true => Err(Error::new(ErrorCode::FileOpen, "connection lost")),
                false => Ok(self.entries.get(path).map(|(attributes, _)| attributes.clone())),
            }
        }

        fn info_followed(&mut self, path: &str) -> Result<Option<Attributes>> {
            self.info(path)
        }

        fn link_destination(&mut self, link: &str) -> Result<Option<String>> {
            Ok(self.entries.get(link).and_then(|(_, destination)| destination.clone()))
        }
    }

    #[test]
    fn scan_of_files_elsewhere_has_their_owner_names() {
        let found = Elsewhere::cluster().scan().unwrap();
        let user = |id| found.owners.name(id);
        let files: Vec<_> = found.files.iter().map(|file| (&*file.name, user(file.user), user(file.group))).collect();
        assert_eq!(files, [("pg_data/PG_VERSION", Some("postgres"), Some("far")), ("pg_data/note", None, Some("far"))]);
        assert_eq!(user(found.links[0].user), Some("admin"));
        assert_eq!(found.targets[1].path, "/far/ts");
    }

    #[test]
    fn tablespace_whose_directory_cannot_be_read_fails_the_scan() {
        for lost in ["/far/pg/pg_tblspc/16385/PG_15_202209061", "/far/pg/pg_tblspc/16385"] {
            let mut files = Elsewhere::cluster();
            if lost.ends_with("16385") {
                // The server does not show it any more, so the link is read
                files.entries.remove("/far/pg/pg_tblspc/16385/PG_15_202209061");
            }
            files.lost = Some(lost.to_owned());
            assert_eq!(files.scan().unwrap_err().message, "connection lost", "{lost}");
        }
    }

    #[test]
    fn local_files_have_names_instead_of_numbers_of_owners() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        fs::write(dir.path().join("b"), "12").unwrap();
        std::os::unix::fs::symlink("b", dir.path().join("a")).unwrap();
        let mut files = LocalFiles::default();
        let found = files.list(path).unwrap().unwrap();
        let entries: Vec<_> = found.iter().map(|entry| (entry.name.as_str(), entry.attributes.kind)).collect();
        assert_eq!(entries, [("a", EntryKind::Link), ("b", EntryKind::File)]);
        assert_eq!(found[1].attributes.size, 2);
        assert_eq!(found[1].attributes.owner.user, Users::new().current_user());
        assert!(Arc::ptr_eq(&found[0].attributes.owner, &found[1].attributes.owner));
        assert_eq!(files.info_followed(&format!("{path}/a")).unwrap().unwrap(), found[1].attributes);
        assert_eq!(files.link_destination(&format!("{path}/a")).unwrap().as_deref(), Some("b"));
        assert_eq!(files.list(&format!("{path}/c")).unwrap(), None);
        assert_eq!(files.info(&format!("{path}/c")).unwrap(), None);
    }
}
