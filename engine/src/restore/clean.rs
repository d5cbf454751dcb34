//! Makes the target directories ready: nothing in them that the backup does not have, every directory and link in place.
//!
//! Source: pgBackRest `restoreCleanBuild` in `src/command/restore/clean.c.inc`.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use repo_format::layout::TEMP_SUFFIX;
use repo_format::manifest::{Manifest, ManifestFile, ManifestPath, PG_DATA, PG_TBLSPC, Target};

use super::names::{pg_absolute, target_path};
use super::ownership::{Owner, Ownership};
use super::sync::sync_dir;
use crate::{Error, ErrorCode, Result, detail, info};

/// The manifest's copy in the data directory while a restore runs; a later one with `--delta` knows the directory by it.
pub(super) const BACKUP_MANIFEST: &str = "backup.manifest";

/// Permission bits of user, group and others, the only ones that a backup records: no set-user-id from a made-up manifest.
pub(super) const MODE_MASK: u32 = 0o777;

/// What cleaning needs to know beside the manifest.
#[derive(Clone, Copy, Debug)]
pub struct CleanSettings<'a> {
    /// The data directory.
    pub pg_path: &'a str,
    /// Existing files are expected (`--delta` or `--force`).
    pub delta: bool,
    /// Files of the data directory that stay as they are.
    pub keep: &'a [&'a str],
    /// The directory of this version and catalog in a tablespace.
    pub tablespace_dir: &'a str,
}

/// A target directory and the manifest name of what is in it.
pub(super) struct Directory<'a> {
    /// The data directory, link or tablespace.
    pub target: &'a Target,
    /// Its manifest name.
    pub name: String,
    /// Where it is.
    pub path: String,
}

/// Checks that every target directory may be written and, without delta, is empty. Nothing is changed.
///
/// # Errors
/// [`ErrorCode::PathOpen`], [`ErrorCode::PathNotEmpty`], [`ErrorCode::FileExists`].
pub fn check(manifest: &Manifest, ownership: &Ownership, settings: &CleanSettings<'_>) -> Result<()> {
    let mut checked = HashSet::new();
    for directory in directories(manifest, settings) {
        if checked.insert(directory.path.clone()) {
            detail!("check '{}' exists", directory.path);
        }
        let Some(metadata) = metadata(&directory.path)? else { continue };
        if !ownership.is_root() && metadata.uid() != ownership.current().uid {
            return Err(Error::new(
                ErrorCode::PathOpen,
                format!("unable to restore to path '{}' not owned by current user", directory.path),
            ));
        }
        if metadata.mode() & 0o700 != 0o700 {
            return Err(Error::new(
                ErrorCode::PathOpen,
                format!("unable to restore to path '{}' without rwx permissions", directory.path),
            ));
        }
        if settings.delta {
            continue;
        }
        match &directory.target.file {
            None => check_empty(&directory, settings)?,
            Some(file) => {
                let file = format!("{}/{file}", directory.path);
                if self::metadata(&file)?.is_some() {
                    return Err(Error::new(
                        ErrorCode::FileExists,
                        format!("unable to restore file '{file}' because it already exists"),
                    )
                    .hint("try using --delta if this is what you intended."));
                }
            }
        }
    }
    Ok(())
}

/// Makes sure that there is a data directory and that no server starts in it. Comes after [`check`] and before the manifest
/// is left there, so that a restore which ends at any later moment can be continued with delta.
///
/// # Errors
/// Something can't be removed or made.
pub fn open_data_dir(manifest: &Manifest, ownership: &Ownership, settings: &CleanSettings<'_>) -> Result<()> {
    if metadata(settings.pg_path)?.is_none() {
        let path = manifest_path(manifest, PG_DATA)?;
        make_dir(settings.pg_path, path.mode, true)?;
        own_new(settings.pg_path, ownership.of(path.user, path.group), ownership)?;
    }
    // Before anything else, so that a server can't start on a mixture; and durably, so that a crash does not bring it back
    let global = format!("{}/global", settings.pg_path);
    let control = format!("{global}/pg_control");
    if self::metadata(&control)?.is_some() {
        detail!("remove 'global/pg_control' so cluster will not start if restore does not complete");
        remove_file(Path::new(&control))?;
        sync_dir(&global)?;
    }
    Ok(())
}

/// Removes what the backup does not have and makes what it has, but for the files. Comes after [`open_data_dir`].
///
/// # Errors
/// Something can't be removed, made or changed.
pub fn build(manifest: &Manifest, ownership: &Ownership, settings: &CleanSettings<'_>) -> Result<()> {
    let cleaner = Cleaner { manifest, ownership, settings };
    for directory in directories(manifest, settings) {
        match metadata(&directory.path)? {
            Some(metadata) => {
                // A link to a file shares its directory with files that are none of ours
                if directory.target.file.is_some() {
                    continue;
                }
                if settings.delta {
                    info!("remove invalid files/links/paths from '{}'", directory.path);
                }
                let path = manifest_path(manifest, &directory.name)?;
                cleaner.own(&directory.path, ownership.of(path.user, path.group), &metadata)?;
                cleaner.set_mode(&directory.path, path.mode, &metadata)?;
                cleaner.clean(&directory.name, &directory.path, directory.name == PG_DATA)?;
            }
            None => {
                let name = if directory.target.file.is_some() { PG_DATA } else { directory.target.name.as_str() };
                let path = manifest_path(manifest, name)?;
                make_dir(&directory.path, path.mode, true)?;
                own_new(&directory.path, ownership.of(path.user, path.group), ownership)?;
            }
        }
    }
    make_paths(manifest, ownership, settings)
}

pub(super) fn directories<'a>(manifest: &'a Manifest, settings: &CleanSettings<'_>) -> Vec<Directory<'a>> {
    manifest
        .targets
        .iter()
        .map(|target| {
            let mut name = target.name.clone();
            let mut path = target_path(settings.pg_path, target);
            if target.tablespace.is_some() {
                name = format!("{name}/{}", settings.tablespace_dir);
                path = format!("{path}/{}", settings.tablespace_dir);
            }
            Directory { target, name, path }
        })
        .collect()
}

fn manifest_path<'a>(manifest: &'a Manifest, name: &str) -> Result<&'a ManifestPath> {
    manifest
        .path(name)
        .ok_or_else(|| Error::new(ErrorCode::Format, format!("unable to find '{name}' in manifest path list")))
}

pub(super) fn check_empty(directory: &Directory<'_>, settings: &CleanSettings<'_>) -> Result<()> {
    for entry in entries(&directory.path)? {
        let kept = directory.name == PG_DATA
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && is_kept(entry.file_name().to_str(), settings);
        if !kept {
            return Err(Error::new(
                ErrorCode::PathNotEmpty,
                format!("unable to restore to path '{}' because it contains files", directory.path),
            )
            .hint("try using --delta if this is what you intended."));
        }
    }
    Ok(())
}

fn is_kept(name: Option<&str>, settings: &CleanSettings<'_>) -> bool {
    name.is_some_and(|name| {
        // Also the manifest that a restore was writing when it was killed
        name.strip_suffix(TEMP_SUFFIX).unwrap_or(name) == BACKUP_MANIFEST || settings.keep.contains(&name)
    })
}

/// The entries of a directory in the order of their names.
pub(super) fn entries(path: &str) -> Result<Vec<fs::DirEntry>> {
    let fail =
        |error| Error::from_io(ErrorCode::PathOpen, format!("unable to list file info for path '{path}'"), error);
    let mut entries = fs::read_dir(path).map_err(fail)?.collect::<io::Result<Vec<_>>>().map_err(fail)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}

/// Attributes of what a path leads to, links followed; `None` when it is missing.
pub(super) fn metadata(path: &str) -> Result<Option<fs::Metadata>> {
    missing_is_none(path, fs::metadata(path))
}

/// Attributes of the path itself; `None` when it is missing.
pub(super) fn symlink_metadata(path: &str) -> Result<Option<fs::Metadata>> {
    missing_is_none(path, fs::symlink_metadata(path))
}

fn missing_is_none(path: &str, result: io::Result<fs::Metadata>) -> Result<Option<fs::Metadata>> {
    match result {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => {
            Err(Error::from_io(ErrorCode::FileInfo, format!("unable to get info for path/file '{path}'"), error))
        }
    }
}

fn remove_file(path: &Path) -> Result<()> {
    fs::remove_file(path)
        .map_err(|error| Error::from_io(ErrorCode::FileRemove, format!("unable to remove '{}'", path.display()), error))
}

/// Makes a directory; with `parents` also those above it, in the same mode.
fn make_dir(path: &str, mode: u16, parents: bool) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(parents)
        .mode(u32::from(mode) & MODE_MASK)
        .create(path)
        .map_err(|error| Error::from_io(ErrorCode::PathCreate, format!("unable to create path '{path}'"), error))
}

fn set_owner(path: &str, owner: Owner) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid))
        .map_err(|error| Error::from_io(ErrorCode::FileOwner, format!("unable to set ownership for '{path}'"), error))
}

/// Gives something just made its owner.
pub(super) fn own_new(path: &str, owner: Owner, ownership: &Ownership) -> Result<()> {
    if owner == ownership.current() { Ok(()) } else { set_owner(path, owner) }
}

fn is_owned(actual: &fs::Metadata, owner: Owner) -> bool {
    (Owner { uid: actual.uid(), gid: actual.gid() }) == owner
}

fn has_mode(actual: &fs::Metadata, mode: u16) -> bool {
    actual.mode() & 0o777 == u32::from(mode) & MODE_MASK
}

struct Cleaner<'a> {
    manifest: &'a Manifest,
    ownership: &'a Ownership,
    settings: &'a CleanSettings<'a>,
}

impl Cleaner<'_> {
    fn own(&self, path: &str, expected: Owner, actual: &fs::Metadata) -> Result<()> {
        if is_owned(actual, expected) {
            return Ok(());
        }
        detail!("update ownership for '{path}'");
        set_owner(path, expected)
    }

    fn set_mode(&self, path: &str, mode: u16, actual: &fs::Metadata) -> Result<()> {
        if has_mode(actual, mode) {
            return Ok(());
        }
        let mode = u32::from(mode) & MODE_MASK;
        detail!("update mode for '{path}' to {mode:04o}");
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(|error| Error::from_io(ErrorCode::FileMode, format!("unable to set mode for '{path}'"), error))
    }

    /// Cleans one directory and all below it that the backup has.
    fn clean(&self, name: &str, path: &str, is_base: bool) -> Result<()> {
        for entry in entries(path)? {
            let file_name = entry.file_name();
            let entry_path = entry.path();
            let metadata = entry.metadata().map_err(|error| {
                let message = format!("unable to get info for path/file '{}'", entry_path.display());
                Error::from_io(ErrorCode::FileInfo, message, error)
            })?;
            let kind = metadata.file_type();
            if is_base && kind.is_file() && is_kept(file_name.to_str(), self.settings) {
                continue;
            }
            // A name that is no UTF-8 is in no manifest
            let names =
                file_name.to_str().map(|file_name| (format!("{name}/{file_name}"), format!("{path}/{file_name}")));
            let names = names.as_ref().map(|(name, path)| (name.as_str(), path.as_str()));
            let shown = entry_path.display();
            if kind.is_file() {
                match names.and_then(|(name, path)| Some((self.file(name)?, path))) {
                    Some((file, path)) => {
                        let owner = self.ownership.of(file.user, file.group);
                        // What other names lead to is not the restore's
                        if metadata.nlink() > 1 && !(is_owned(&metadata, owner) && has_mode(&metadata, file.mode)) {
                            detail!("remove file '{shown}', which has other names, because owner or mode changed");
                            remove_file(&entry_path)?;
                            continue;
                        }
                        self.own(path, owner, &metadata)?;
                        self.set_mode(path, file.mode, &metadata)?;
                    }
                    None => {
                        detail!("remove invalid file '{shown}'");
                        remove_file(&entry_path)?;
                    }
                }
            } else if kind.is_dir() {
                match names.and_then(|(name, path)| Some((self.path(name)?, name, path))) {
                    Some((manifest_path, name, path)) => {
                        self.own(path, self.ownership.of(manifest_path.user, manifest_path.group), &metadata)?;
                        self.set_mode(path, manifest_path.mode, &metadata)?;
                        self.clean(name, path, false)?;
                    }
                    None => {
                        detail!("remove invalid path '{shown}'");
                        fs::remove_dir_all(&entry_path).map_err(|error| {
                            Error::from_io(ErrorCode::PathRemove, format!("unable to remove path '{shown}'"), error)
                        })?;
                    }
                }
            } else if kind.is_symlink() {
                self.clean_link(names, &entry_path, &metadata)?;
            } else {
                debug_assert!(kind.is_fifo() || kind.is_socket() || kind.is_block_device() || kind.is_char_device());
                detail!("remove special file '{shown}'");
                remove_file(&entry_path)?;
            }
        }
        Ok(())
    }

    fn clean_link(&self, names: Option<(&str, &str)>, entry_path: &Path, metadata: &fs::Metadata) -> Result<()> {
        let shown = entry_path.display();
        match names.and_then(|(name, path)| Some((self.manifest.link(name)?, path))) {
            Some((link, path)) => {
                let destination = fs::read_link(entry_path).map_err(|error| {
                    Error::from_io(ErrorCode::FileInfo, format!("unable to get destination for link '{shown}'"), error)
                })?;
                if destination.as_os_str() == link.destination.as_str() {
                    return self.own(path, self.ownership.of(link.user, link.group), metadata);
                }
                detail!("remove link '{shown}' because destination changed");
            }
            None => detail!("remove invalid link '{shown}'"),
        }
        remove_file(entry_path)
    }

    /// The file with this name, unless it is reached through a link.
    fn file(&self, name: &str) -> Option<&ManifestFile> {
        self.manifest.file(name).filter(|_| self.manifest.link(name).is_none())
    }

    /// The directory with this name, unless it is reached through a link.
    fn path(&self, name: &str) -> Option<&ManifestPath> {
        self.manifest.path(name).filter(|_| self.manifest.link(name).is_none())
    }
}

/// Makes missing directories and links. Paths are sorted, so that parents come first.
fn make_paths(manifest: &Manifest, ownership: &Ownership, settings: &CleanSettings<'_>) -> Result<()> {
    for path in &manifest.paths {
        let name = path.name.as_str();
        // Exists in manifests only
        if name == PG_TBLSPC || name == PG_DATA {
            continue;
        }
        let link_name = if name.starts_with(PG_TBLSPC) { format!("{PG_DATA}/{name}") } else { name.to_owned() };
        if manifest.link(&link_name).is_some() {
            make_link(manifest, &link_name, ownership, settings)?;
            continue;
        }
        let pg_path = pg_absolute(settings.pg_path, name);
        if symlink_metadata(&pg_path)?.is_none() {
            detail!("create path '{pg_path}'");
            make_dir(&pg_path, path.mode, false)?;
            own_new(&pg_path, ownership.of(path.user, path.group), ownership)?;
        }
    }
    for link in &manifest.links {
        make_link(manifest, &link.name, ownership, settings)?;
    }
    Ok(())
}

fn make_link(manifest: &Manifest, name: &str, ownership: &Ownership, settings: &CleanSettings<'_>) -> Result<()> {
    let Some(link) = manifest.link(name) else { return Ok(()) };
    let pg_path = pg_absolute(settings.pg_path, name);
    if symlink_metadata(&pg_path)?.is_some() {
        return Ok(());
    }
    detail!("create symlink '{pg_path}' to '{}'", link.destination);
    symlink(&link.destination, &pg_path).map_err(|error| {
        let message = format!("unable to create symlink '{pg_path}' to '{}'", link.destination);
        Error::from_io(ErrorCode::FileOpen, message, error)
    })?;
    own_new(&pg_path, ownership.of(link.user, link.group), ownership)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{TABLESPACE_DIR, manifest};
    use super::super::remap::{MapSettings, remap};
    use super::*;
    use crate::users::Users;

    /// A manifest whose targets all lie in a new directory.
    fn mapped() -> (tempfile::TempDir, Manifest, Ownership) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        let mut manifest = manifest();
        let settings = MapSettings {
            tablespaces_all: Some(format!("{root}/ts")),
            links: [("pg_wal", "wal"), ("pg_hba.conf", "conf/hba.conf")]
                .map(|(link, destination)| (link.to_owned(), format!("{root}/{destination}")))
                .into(),
            ..MapSettings::default()
        };
        remap(&mut manifest, &format!("{root}/pg"), &settings).unwrap();
        let current = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        let ownership = Ownership::new(&manifest, &Users::new(), current, Some(current));
        (dir, manifest, ownership)
    }

    fn prepare(dir: &tempfile::TempDir, manifest: &Manifest, ownership: &Ownership, delta: bool) -> Result<()> {
        let pg_path = dir.path().join("pg").display().to_string();
        let settings =
            CleanSettings { pg_path: &pg_path, delta, keep: &["recovery.conf"], tablespace_dir: TABLESPACE_DIR };
        check(manifest, ownership, &settings)?;
        open_data_dir(manifest, ownership, &settings)?;
        build(manifest, ownership, &settings)
    }

    #[test]
    fn build_in_nothing_makes_all_directories_and_links() {
        let (dir, manifest, ownership) = mapped();
        prepare(&dir, &manifest, &ownership, false).unwrap();
        let root = dir.path();
        assert!(root.join("pg/base/1").is_dir());
        assert!(root.join("ts/ts1").join(TABLESPACE_DIR).join("1").is_dir());
        assert!(root.join("conf").is_dir());
        assert_eq!(fs::read_link(root.join("pg/pg_wal")).unwrap(), root.join("wal"));
        assert_eq!(fs::read_link(root.join("pg/pg_hba.conf")).unwrap(), root.join("conf/hba.conf"));
        assert_eq!(fs::read_link(root.join("pg/pg_tblspc/16384")).unwrap(), root.join("ts/ts1"));
        assert_eq!(root.join("pg/base").metadata().unwrap().mode() & 0o777, 0o700);
        // Again, with everything there
        prepare(&dir, &manifest, &ownership, true).unwrap();
    }

    #[test]
    fn check_of_directories_with_files_is_refused_and_changes_nothing() {
        for (file, code) in [
            ("pg/x", ErrorCode::PathNotEmpty),
            ("wal/x", ErrorCode::PathNotEmpty),
            ("ts/ts1/PG_15_202209061/x", ErrorCode::PathNotEmpty),
            ("conf/hba.conf", ErrorCode::FileExists),
        ] {
            let (dir, manifest, ownership) = mapped();
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            assert_eq!(prepare(&dir, &manifest, &ownership, false).unwrap_err().code, code, "{file}");
            assert!(path.exists() && !dir.path().join("pg/base").exists());
        }
    }

    #[test]
    fn check_ignores_kept_files_and_other_files_of_shared_directories() {
        let (dir, manifest, ownership) = mapped();
        for file in ["pg/recovery.conf", "pg/backup.manifest", "conf/other.conf", "ts/ts1/PG_14_1/x"] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
        }
        prepare(&dir, &manifest, &ownership, false).unwrap();
        for file in ["pg/recovery.conf", "pg/backup.manifest", "conf/other.conf", "ts/ts1/PG_14_1/x"] {
            assert!(dir.path().join(file).exists(), "{file}");
        }
    }

    #[test]
    fn build_with_delta_removes_what_the_backup_does_not_have() {
        let (dir, manifest, ownership) = mapped();
        prepare(&dir, &manifest, &ownership, false).unwrap();
        let pg = dir.path().join("pg");
        let outside = dir.path().join("outside");
        fs::create_dir_all(outside.join("sub")).unwrap();
        fs::write(outside.join("sub/file"), "x").unwrap();

        for file in ["base/1/1259", "base/1/9999", "global/pg_control", "recovery.conf"] {
            fs::write(pg.join(file), "x").unwrap();
        }
        fs::create_dir_all(pg.join("extra/deep")).unwrap();
        symlink(&outside, pg.join("extra/link")).unwrap();
        symlink(&outside, pg.join("link")).unwrap();
        // A directory that became a link, a link with another destination, a file that became a link
        fs::remove_dir(pg.join("global")).unwrap_err();
        fs::remove_file(pg.join("pg_wal")).unwrap();
        symlink(&outside, pg.join("pg_wal")).unwrap();
        symlink(outside.join("sub/file"), pg.join("PG_VERSION")).unwrap();
        fs::remove_dir_all(pg.join("pg_tblspc")).unwrap();
        symlink(&outside, pg.join("pg_tblspc")).unwrap();

        prepare(&dir, &manifest, &ownership, true).unwrap();
        for gone in ["base/1/9999", "global/pg_control", "extra", "link", "PG_VERSION"] {
            assert!(pg.join(gone).symlink_metadata().is_err(), "{gone}");
        }
        for kept in ["base/1/1259", "recovery.conf"] {
            assert!(pg.join(kept).exists(), "{kept}");
        }
        assert_eq!(fs::read_link(pg.join("pg_wal")).unwrap(), dir.path().join("wal"));
        assert!(pg.join("pg_tblspc").symlink_metadata().unwrap().is_dir());
        // Nothing was removed through a link
        assert!(outside.join("sub/file").exists());
    }

    #[test]
    fn build_does_not_change_the_mode_of_a_file_with_another_name() {
        let (dir, manifest, ownership) = mapped();
        prepare(&dir, &manifest, &ownership, false).unwrap();
        let (file, other) = (dir.path().join("pg/base/1/1259"), dir.path().join("other"));
        let mode = u32::from(manifest.file("pg_data/base/1/1259").unwrap().mode) & MODE_MASK;
        for (actual, stays) in [(mode, true), (mode ^ 0o040, false)] {
            fs::write(&other, "x").unwrap();
            fs::set_permissions(&other, fs::Permissions::from_mode(actual)).unwrap();
            fs::hard_link(&other, &file).unwrap();
            prepare(&dir, &manifest, &ownership, true).unwrap();
            assert_eq!(file.exists(), stays);
            assert_eq!(other.metadata().unwrap().mode() & 0o777, actual);
            let _ = fs::remove_file(&file);
        }
    }

    #[test]
    fn check_of_a_directory_without_rights_is_refused() {
        let (dir, manifest, ownership) = mapped();
        let pg = dir.path().join("pg");
        fs::create_dir(&pg).unwrap();
        fs::set_permissions(&pg, fs::Permissions::from_mode(0o500)).unwrap();
        assert_eq!(prepare(&dir, &manifest, &ownership, true).unwrap_err().code, ErrorCode::PathOpen);
    }
}
