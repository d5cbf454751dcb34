//! Makes a restored cluster durable with few system calls.
//!
//! pgBackRest syncs each file when it closes it, which costs a wait for the disk per file. Here the file systems of the
//! cluster are synced once, before `pg_control` appears. Until then the cluster can't be started, and an interrupted
//! restore is repeated anyway. If a file system may not report failed writes that way, every file is synced too.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};

use repo_format::manifest::{Manifest, ManifestFile, PG_TBLSPC};
use rustix::fs::{OFlags, syncfs};

use super::names::{pg_absolute, restored_name, restored_path};
use super::places::{Place, Places};
use crate::storage::page_cache::PageCache;
use crate::storage::whole_sync;
use crate::work::together;
use crate::{Error, ErrorCode, Result, detail};

/// Files that a thread syncs before it takes more.
const FILES_PER_PART: usize = 64;

struct FileSystem {
    dir: File,
    trusted: bool,
}

struct SyncDir<'a> {
    /// The location. `None` for the directory that contains a tablespace's own directory. It is only synced.
    place: Option<Place<'a>>,
    path: String,
}

impl SyncDir<'_> {
    fn open(&self) -> Result<File> {
        let dir = match &self.place {
            Some(place) => place.dir.open_sub_dir(place.name),
            None => File::open(&self.path),
        };
        dir.map_err(|error| {
            Error::from_io(ErrorCode::PathOpen, format!("unable to open path '{}' for sync", self.path), error)
        })
    }

    fn sync(&self) -> Result<()> {
        self.open()?
            .sync_all()
            .map_err(|error| Error::from_io(ErrorCode::PathSync, format!("unable to sync path '{}'", self.path), error))
    }
}

/// The file systems that a restore writes to. Opened before the first write, because errors are reported to descriptors
/// that were open when they happened.
pub(super) struct SyncSet<'a> {
    manifest: &'a Manifest,
    places: &'a Places,
    pg_path: &'a str,
    /// Every directory of the cluster, in the order of the manifest and without duplicates.
    dirs: Vec<SyncDir<'a>>,
    file_systems: Vec<FileSystem>,
    /// The device numbers of the file systems.
    devices: HashSet<u64>,
    /// Manifest names of files that are on none of these file systems. Each is a mount point itself.
    elsewhere: Mutex<Vec<String>>,
}

impl<'a> SyncSet<'a> {
    /// Opens every directory that gets files. They exist already.
    pub fn open(manifest: &'a Manifest, places: &'a Places, pg_path: &'a str) -> Result<Self> {
        let mut dirs = Vec::new();
        let mut known = HashSet::new();
        for target in manifest.targets.iter().filter(|target| target.file.is_some()) {
            let Place { dir, .. } = places.content(&target.name)?;
            let path = dir.shown("");
            if known.insert(path.clone()) {
                dirs.push(SyncDir { place: Some(Place { dir, name: "" }), path });
            }
        }
        for path in manifest.paths.iter().filter(|path| path.name != PG_TBLSPC) {
            let is_tablespace = manifest.target(&path.name).is_some_and(|target| target.tablespace.is_some());
            let place = if is_tablespace { None } else { Some(places.content(&path.name)?) };
            dirs.push(SyncDir { place, path: pg_absolute(pg_path, &path.name) });
        }

        let mut file_systems = Vec::new();
        let mut devices = HashSet::new();
        for sync_dir in &dirs {
            let dir = sync_dir.open()?;
            let metadata = dir.metadata().map_err(|error| {
                let text = format!("unable to get info for path/file '{}'", sync_dir.path);
                Error::from_io(ErrorCode::FileOpen, text, error)
            })?;
            if !devices.insert(metadata.dev()) {
                continue;
            }
            let trusted = whole_sync::is_trusted(&dir);
            file_systems.push(FileSystem { dir, trusted });
        }
        Ok(SyncSet { manifest, places, pg_path, dirs, file_systems, devices, elsewhere: Mutex::default() })
    }

    /// Records the device that a file was written to.
    pub fn wrote(&self, device: u64, name: &str) {
        if !self.devices.contains(&device) {
            self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
        }
    }

    /// Returns a cache handle for reading these file systems from disk and not from memory.
    pub fn write_back(&self) -> PageCache {
        PageCache::write_back(self.file_systems.iter().map(|file_system| &file_system.dir))
    }

    /// Makes everything durable that was written to these directories, except later writes to `last_dir`, for which the
    /// caller is responsible.
    ///
    /// # Errors
    /// [`ErrorCode::FileSync`] and [`ErrorCode::PathSync`]: what was restored must not be used.
    pub fn sync(&self, process_max: u32, last_dir: &str) -> Result<()> {
        let SyncSet { manifest, places, pg_path, .. } = *self;
        for file_system in &self.file_systems {
            syncfs(file_system.dir.as_fd()).map_err(|error| {
                Error::from_io(ErrorCode::FileSync, format!("unable to sync file system of '{pg_path}'"), error.into())
            })?;
        }
        if self.file_systems.iter().any(|file_system| !file_system.trusted) {
            sync_files(manifest, places, pg_path, process_max)?;
        }
        for name in self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            sync_file(places, pg_path, name)?;
        }
        for dir in self.dirs.iter().filter(|dir| dir.path != last_dir) {
            detail!("sync path '{}'", dir.path);
            dir.sync()?;
        }
        Ok(())
    }
}

fn sync_file(places: &Places, pg_path: &str, name: &str) -> Result<()> {
    let result = places.content(restored_name(name))?.open(OFlags::RDONLY).and_then(|file| file.sync_all());
    result.map_err(|error| {
        let path = restored_path(pg_path, name);
        Error::from_io(ErrorCode::FileSync, format!("unable to sync file '{path}' after write"), error)
    })
}

/// Syncs every file of the manifest individually. Their data is being written already, so each sync only waits for its
/// own errors.
fn sync_files(manifest: &Manifest, places: &Places, pg_path: &str, process_max: u32) -> Result<()> {
    let at_once = usize::try_from(process_max).unwrap_or(1);
    let parts: Vec<_> = manifest.files.chunks(FILES_PER_PART).collect();
    let sync_part = |part: &&[ManifestFile]| part.iter().try_for_each(|file| sync_file(places, pg_path, &file.name));
    together::each(at_once, &parts, sync_part).map(drop)
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn file_on_a_file_system_of_its_own_is_synced_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let places = fixture::places(dir.path());
        let mut manifest = fixture::manifest();
        manifest.targets.retain(|target| target.name == "pg_data");
        manifest.paths.retain(|path| path.name == "pg_data");
        manifest.files.clear();
        let pg_path = dir.path().to_str().unwrap();
        let set = SyncSet::open(&manifest, &places, pg_path).unwrap();
        let device = dir.path().metadata().unwrap().dev();
        set.wrote(device, "pg_data/none");
        set.sync(1, "").unwrap();
        // The error shows that the file was synced separately
        set.wrote(device + 1, "pg_data/none");
        assert_eq!(set.sync(1, "").unwrap_err().code, ErrorCode::FileSync);
        std::fs::write(dir.path().join("none"), "x").unwrap();
        set.sync(1, "").unwrap();
    }
}
