//! The files of a repository or of a data directory, as requests name them: by absolute paths.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use protocol::storage::{
    FeaturesAnswer, FileInfoRequest, InfoLevel, LinkRequest, LinkType, ListRequest, PathCreateRequest,
    PathRemoveRequest, RemoveRequest, StorageFeatures, WriteRequest,
};
use repo_format::layout::RepoPath;
use rustix::fs::OFlags;

use super::area::{DataArea, RepositoryArea};
use super::entry::{self, Asked, FileInfo, Names, failed};
use super::stages::Stage;
use super::{RepositoryKind, ServedRepository, ServedStorage};
use crate::pg::data_dir::DataDir;
use crate::storage::{Entry, EntryKind, ReadRange, RepoStorage, RepoWriter, VersionedStorage, WriteOptions};
use crate::users::Users;
use crate::{Error, ErrorCode, Result};

/// The modes that pgBackRest gives to files and directories of a repository, and that rbr gives them, too.
const FILE_MODES: [u32; 2] = [0, 0o640];
const PATH_MODES: [u32; 2] = [0, 0o750];

/// What a client reaches.
pub(super) enum Files {
    Repository(Repository),
    Data(DataArea, Users),
}

/// An open repository.
pub(super) struct Repository {
    storage: Arc<dyn RepoStorage>,
    area: RepositoryArea,
    path: String,
    kind: RepositoryKind,
    users: Users,
}

impl Files {
    /// Opens what is served.
    ///
    /// # Errors
    /// Those of the storage.
    pub(super) fn open(served: &ServedStorage) -> Result<Self> {
        Ok(match served {
            ServedStorage::Repository(ServedRepository { storage, path, kind, stanza }) => {
                let is_local = matches!(kind, RepositoryKind::Posix | RepositoryKind::Cifs);
                Files::Repository(Repository {
                    storage: storage.open()?.storage,
                    area: RepositoryArea::new(path, stanza.clone(), is_local),
                    path: path.clone(),
                    kind: *kind,
                    users: Users::new(),
                })
            }
            ServedStorage::DataDirectory(path) => Files::Data(DataArea::new(path), Users::new()),
        })
    }

    /// The answer to the request for features.
    pub(super) fn features(&self) -> FeaturesAnswer<'_> {
        let links = StorageFeatures::PATH
            | StorageFeatures::PATH_SYNC
            | StorageFeatures::HARD_LINK
            | StorageFeatures::INFO_DETAIL
            | StorageFeatures::REMOVE_MISSING;
        match self {
            Files::Data(area, _) => FeaturesAnswer { path: area.base(), features: links | StorageFeatures::SYMLINK },
            Files::Repository(repository) => {
                let features = match repository.kind {
                    // Clients create no symbolic links
                    RepositoryKind::Posix => links,
                    RepositoryKind::Cifs | RepositoryKind::Sftp => StorageFeatures::PATH,
                    RepositoryKind::Objects if repository.storage.versions().is_some() => {
                        StorageFeatures::READ_RETRY | StorageFeatures::VERSIONS
                    }
                    RepositoryKind::Objects => StorageFeatures::READ_RETRY,
                };
                FeaturesAnswer { path: &repository.path, features }
            }
        }
    }

    /// Returns information about a file; `None` if it is missing.
    ///
    /// # Errors
    /// [`ErrorCode::Access`], and those of the storage.
    pub(super) fn info(&self, request: &FileInfoRequest<'_>) -> Result<Option<FileInfo>> {
        let FileInfoRequest { path, level, follow_link } = *request;
        match self {
            Files::Data(area, users) => {
                let path = if follow_link { area.reach(path)? } else { area.reach_link(path)? };
                let found = entry::info(&path, follow_link, Asked { level, names: Names::Exact, users })?;
                if let (Some(target), Some(directory)) = (found.as_ref().and_then(FileInfo::link_target), path.parent())
                {
                    area.told(directory, target);
                }
                Ok(found)
            }
            Files::Repository(repository) => repository.info(path, level, follow_link),
        }
    }

    /// Returns the entries of a directory; `None` if it is missing.
    ///
    /// # Errors
    /// The same.
    pub(super) fn list(&self, request: &ListRequest<'_>) -> Result<Option<Vec<FileInfo>>> {
        let ListRequest { path, level, target_time } = *request;
        match self {
            Files::Data(..) if target_time != 0 => Err(no_versions(path)),
            Files::Data(area, users) => {
                let directory = area.reach(path)?;
                let entries = entry::list(&directory, Asked { level, names: Names::Exact, users })?;
                entries.iter().flatten().filter_map(FileInfo::link_target).for_each(|to| area.told(&directory, to));
                Ok(entries)
            }
            Files::Repository(repository) if target_time != 0 => repository.list_at(path, level, target_time),
            Files::Repository(repository) => repository.list(path, level),
        }
    }

    /// Opens a file; `None` if it is missing.
    ///
    /// # Errors
    /// The same.
    pub(super) fn read(&self, path: &str, range: ReadRange, version: Option<&str>) -> Result<Option<Stage>> {
        match self {
            Files::Data(..) if version.is_some() => Err(no_versions(path)),
            Files::Data(area, _) => {
                let Some(mut file) = open_file(&area.reach(path)?)? else { return Ok(None) };
                if range.offset != 0 {
                    let what = format!("unable to seek to {} in file", range.offset);
                    file.seek(SeekFrom::Start(range.offset))
                        .map_err(|e| failed(ErrorCode::FileOpen, &what, Path::new(path), e))?;
                }
                let file = NamedFile { file, path: path.to_owned() };
                Ok(Some(Box::new(file.take(range.limit.unwrap_or(u64::MAX)))))
            }
            Files::Repository(repository) => {
                let relative = repository.area.reach(path, true)?;
                let reader = match version {
                    None => repository.storage.read(&relative, range)?,
                    Some(version) => repository.versions(path)?.read_version(&relative, range, version)?,
                };
                Ok(reader.map(|reader| Box::new(reader) as Stage))
            }
        }
    }

    /// Opens a file of the data directory from which pages are read again; `None` if it is missing.
    ///
    /// # Errors
    /// [`ErrorCode::Access`], [`ErrorCode::FileOpen`].
    pub(super) fn open_pages(&self, path: &str) -> Result<Option<File>> {
        match self {
            Files::Data(area, _) => open_file(&area.reach(path)?),
            Files::Repository(_) => Err(super::area::refuse(path, "it is not in a data directory of PostgreSQL")),
        }
    }

    /// The data directory, of which whole files are copied.
    ///
    /// # Errors
    /// [`ErrorCode::Access`] for a repository.
    pub(super) fn data_dir(&self) -> Result<DataDir> {
        match self {
            Files::Data(area, _) => Ok(DataDir::new(area.base())),
            Files::Repository(repository) => {
                Err(super::area::refuse(&repository.path, "it is not a data directory of PostgreSQL"))
            }
        }
    }

    /// Checks that a client may reach the file of the data directory with this manifest name.
    ///
    /// # Errors
    /// [`ErrorCode::Access`]
    pub(super) fn check_name(&self, name: &str) -> Result<()> {
        let path = self.data_dir()?.file_path(name);
        match (self, path.to_str()) {
            (Files::Data(area, _), Some(path)) => area.reach(path).map(drop),
            _ => Err(super::area::refuse(name, "it is not a file of the data directory")),
        }
    }

    /// Begins to write a file.
    ///
    /// # Errors
    /// [`ErrorCode::Access`], and those of the storage.
    pub(super) fn write(&self, request: &WriteRequest<'_>) -> Result<Box<dyn RepoWriter>> {
        let repository = self.changed(request.path)?;
        let relative = repository.area.change(request.path, true)?;
        if !FILE_MODES.contains(&request.file_mode)
            || !PATH_MODES.contains(&request.path_mode)
            || request.user.is_some()
            || request.group.is_some()
            || request.modified != 0
        {
            let text = format!("mode, owner and time of file '{}' can't be set in a repository", request.path);
            return Err(Error::new(ErrorCode::FeatureNotSupported, text));
        }
        if !request.create_path && repository.has_paths() {
            repository.check_parent(request.path, &relative)?;
        }
        let options = WriteOptions {
            atomic: request.is_atomic,
            sync_file: request.sync_file,
            sync_path: request.sync_path && repository.storage.features().path_sync,
        };
        repository.storage.write(&relative, options)
    }

    /// Creates a directory.
    ///
    /// # Errors
    /// The same.
    pub(super) fn create_path(&self, request: &PathCreateRequest<'_>) -> Result<()> {
        let repository = self.changed(request.path)?;
        let relative = repository.area.create(request.path)?;
        if !PATH_MODES.contains(&request.mode) {
            let text = format!("mode of path '{}' can't be set in a repository", request.path);
            return Err(Error::new(ErrorCode::FeatureNotSupported, text));
        }
        let create_error = |errno: rustix::io::Errno| {
            failed(ErrorCode::PathCreate, "unable to create path", Path::new(request.path), errno.into())
        };
        if request.error_on_exists && repository.storage.info(&relative)?.is_some() {
            return Err(create_error(rustix::io::Errno::EXIST));
        }
        if request.no_parents
            && let Some(parent) = relative.parent()
            && repository.has_paths()
            && repository.storage.list(&parent)?.is_none()
        {
            return Err(create_error(rustix::io::Errno::NOENT));
        }
        repository.storage.create_path(&relative)
    }

    /// Removes a directory. Returns whether it existed.
    ///
    /// # Errors
    /// The same.
    pub(super) fn remove_path(&self, request: &PathRemoveRequest<'_>) -> Result<bool> {
        let repository = self.changed(request.path)?;
        let relative = repository.area.change(request.path, false)?;
        if !request.recurse && repository.is_local() {
            return match fs::remove_dir(request.path) {
                Ok(()) => Ok(true),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
                Err(e) => Err(failed(ErrorCode::PathRemove, "unable to remove path", Path::new(request.path), e)),
            };
        }
        let entries = repository.storage.list(&relative)?;
        if !request.recurse && entries.as_ref().is_some_and(|entries| !entries.is_empty()) {
            let errno = rustix::io::Errno::NOTEMPTY;
            let path = Path::new(request.path);
            return Err(failed(ErrorCode::PathRemove, "unable to remove path", path, errno.into()));
        }
        match (&entries, request.recurse) {
            (None, _) => {}
            (Some(_), true) => repository.storage.remove_all(&relative)?,
            // Something may have been stored since
            (Some(_), false) => repository.storage.remove_empty(&relative)?,
        }
        Ok(entries.is_some())
    }

    /// Syncs a directory.
    ///
    /// # Errors
    /// The same.
    pub(super) fn sync_path(&self, path: &str) -> Result<()> {
        let repository = self.changed(path)?;
        repository.storage.sync_path(&repository.area.reach(path, true)?)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// The same.
    pub(super) fn remove(&self, request: &RemoveRequest<'_>) -> Result<()> {
        let repository = self.changed(request.path)?;
        let relative = repository.area.change(request.path, false)?;
        if request.error_on_missing && repository.storage.info(&relative)?.is_none() {
            let errno = rustix::io::Errno::NOENT;
            let path = Path::new(request.path);
            return Err(failed(ErrorCode::FileRemove, "unable to remove file", path, errno.into()));
        }
        repository.storage.remove(&relative)
    }

    /// Creates a hard link. Symbolic links are not offered to clients ([`mod@super::area`]).
    ///
    /// # Errors
    /// The same.
    pub(super) fn link(&self, request: &LinkRequest<'_>) -> Result<()> {
        let repository = self.changed(request.path)?;
        let link = repository.area.change(request.path, false)?;
        if request.link_type == LinkType::Symbolic {
            return Err(super::area::refuse(request.path, "symbolic links are not created from another host"));
        }
        if repository.storage.info(&link)?.is_some() {
            let what = format!("unable to create hardlink '{}' to '{}'", request.path, request.target);
            return Err(Error::from_io(ErrorCode::FileOpen, what, rustix::io::Errno::EXIST.into()));
        }
        let existing = repository.area.change(request.target, false)?;
        // Another name of a symbolic link would lead to another place
        if repository.storage.info(&existing)?.is_some_and(|found| found.kind != EntryKind::File) {
            return Err(super::area::refuse(request.target, "it is not a file"));
        }
        repository.storage.hard_link(&existing, &link)
    }

    fn changed(&self, path: &str) -> Result<&Repository> {
        match self {
            Files::Repository(repository) => Ok(repository),
            Files::Data(..) => Err(DataArea::read_only(path)),
        }
    }
}

impl Repository {
    fn is_local(&self) -> bool {
        matches!(self.kind, RepositoryKind::Posix | RepositoryKind::Cifs)
    }

    fn has_paths(&self) -> bool {
        self.storage.features().paths
    }

    fn info(&self, path: &str, level: InfoLevel, follow: bool) -> Result<Option<FileInfo>> {
        let relative = self.area.reach(path, follow)?;
        if self.is_local() {
            return entry::info(Path::new(path), follow, Asked { level, names: Names::Shown, users: &self.users });
        }
        if relative.as_str().is_empty() {
            // Not every store has an entry for its root
            let root = Entry { name: String::new(), kind: EntryKind::Path, size: 0, modified: 0, version: None };
            return Ok(self.storage.list(&relative)?.map(|_| FileInfo::stored(root, level)));
        }
        let found = self.storage.info(&relative)?.filter(|found| found.kind != EntryKind::Path || self.has_paths());
        Ok(found.map(|found| FileInfo::stored(Entry { name: String::new(), ..found }, level)))
    }

    fn list(&self, path: &str, level: InfoLevel) -> Result<Option<Vec<FileInfo>>> {
        let relative = self.area.reach(path, true)?;
        if self.is_local() {
            return entry::list(Path::new(path), Asked { level, names: Names::Shown, users: &self.users });
        }
        let entries = self.storage.list(&relative)?;
        // An object store has no directories, so none is missing
        let entries = if self.has_paths() { entries } else { Some(entries.unwrap_or_default()) };
        Ok(entries.map(|entries| entries.into_iter().map(|entry| FileInfo::stored(entry, level)).collect()))
    }

    fn list_at(&self, path: &str, level: InfoLevel, time: i64) -> Result<Option<Vec<FileInfo>>> {
        let root = Path::new(&self.path);
        if root.parent() == Some(Path::new(path)) {
            return self.root_at(root, level, time);
        }
        let relative = self.area.reach(path, true)?;
        // An object store has no directories, so none is missing
        let entries = self.versions(path)?.list_at(&relative, time)?.unwrap_or_default();
        Ok(Some(entries.into_iter().map(|entry| FileInfo::stored(entry, level)).collect()))
    }

    /// The root as an entry of the directory above it, where pgBackRest looks for it. What else is there is not for clients.
    fn root_at(&self, root: &Path, level: InfoLevel, time: i64) -> Result<Option<Vec<FileInfo>>> {
        let relative = self.area.reach(&self.path, true)?;
        let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let entry = Entry { name, kind: EntryKind::Path, size: 0, modified: 0, version: None };
        let found = self.versions(&self.path)?.list_at(&relative, time)?;
        Ok(Some(found.map(|_| FileInfo::stored(entry, level)).into_iter().collect()))
    }

    fn versions(&self, path: &str) -> Result<&dyn VersionedStorage> {
        self.storage.versions().ok_or_else(|| no_versions(path))
    }

    /// Checks that the directory of a file exists.
    fn check_parent(&self, path: &str, relative: &RepoPath) -> Result<()> {
        match relative.parent() {
            Some(parent) if self.storage.list(&parent)?.is_none() => {
                let text = format!("unable to open file '{path}' for write in missing path");
                Err(Error::new(ErrorCode::FileMissing, text))
            }
            _ => Ok(()),
        }
    }
}

fn no_versions(path: &str) -> Error {
    let text = format!("unable to read '{path}' as of a time: it is in no store that keeps old versions");
    Error::new(ErrorCode::FeatureNotSupported, text)
}

/// Opens a file of this host; `None` if it is missing. A pipe in its place does not block.
fn open_file(path: &Path) -> Result<Option<File>> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => {
            Err(Error::from_io(ErrorCode::FileOpen, format!("unable to open file '{}' for read", path.display()), e))
        }
    }
}

/// A file with its name for errors.
struct NamedFile {
    file: File,
    path: String,
}

impl Read for NamedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.file.read(buffer) {
            Err(e) if e.kind() != ErrorKind::Interrupted => {
                Err(failed(ErrorCode::FileRead, "unable to read", Path::new(&self.path), e).into())
            }
            result => result,
        }
    }
}
