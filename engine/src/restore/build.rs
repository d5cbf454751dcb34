//! Prepares the target directories: removes everything that the backup does not have, and creates missing directories
//! and links.
//!
//! All changes go through the handles of the target directories, so that no link leads out of them. Source: pgBackRest
//! `restoreCleanBuild` in `src/command/restore/clean.c.inc`, from its second step on.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use repo_format::manifest::{Manifest, ManifestFile, ManifestPath, PG_DATA, PG_TBLSPC};
use rustix::fs::{AtFlags, FileType, Mode, Stat, fchmod, fstat, readlinkat, unlinkat};

use super::clean::{CleanSettings, Directory, MODE_MASK, directories, is_kept, manifest_path, metadata};
use super::handle::{self, HandleEntry};
use super::names::{pg_absolute, target_path};
use super::ownership::{Owner, Ownership};
use super::places::Places;
use super::real_path::resolve;
use super::target_dir::TargetDir;
use crate::{Error, ErrorCode, Result, detail, info};

/// Permissions that the owner of a directory needs to restore into it.
const OWNER_RIGHTS: u32 = 0o700;

/// Opens the data directory, creates it if necessary, and ensures that no server can start in it. Runs after
/// [`super::clean::check`] and before the manifest is written there, so that `--delta` can continue a restore that
/// stops at any later point.
///
/// # Errors
/// Something can't be removed or created.
pub(crate) fn open_data_dir(
    manifest: &Manifest,
    ownership: &Ownership,
    settings: &CleanSettings<'_>,
) -> Result<Places> {
    let pg_path = settings.pg_path;
    let dir = match metadata(pg_path)? {
        Some(_) => TargetDir::open(pg_path)?,
        None => make_target(pg_path, manifest_path(manifest, PG_DATA)?, ownership)?,
    };
    // This comes first, so that a server can't start on a mixture of files. It is synced, so that a crash does not undo
    // it
    let fail = |error| {
        Error::from_io(ErrorCode::FileOpen, format!("unable to get info for path/file '{pg_path}/global'"), error)
    };
    match dir.stat("global").map_err(fail)? {
        Some(stat) if handle::kind(&stat) == FileType::Symlink => {
            let own = manifest.target("pg_data/global").filter(|target| target.file.is_none());
            let own = own.map(|target| target_path(manifest, pg_path, target));
            match own {
                Some(own) if resolve(&own)? == resolve(&format!("{pg_path}/global"))? => {
                    remove_control(&TargetDir::open(&own)?, "")?;
                }
                // The destination of another link does not belong to this restore
                _ => {
                    detail!("remove link 'global' so cluster will not start if restore does not complete");
                    remove(&dir, "global", "")?;
                }
            }
        }
        Some(_) => remove_control(&dir, "global")?,
        None => {}
    }
    let mut places = Places::default();
    places.add_directory(PG_DATA, dir);
    Ok(places)
}

/// Removes `pg_control` from a directory below a target.
fn remove_control(dir: &TargetDir, below: &str) -> Result<()> {
    let name = if below.is_empty() { "pg_control".to_owned() } else { format!("{below}/pg_control") };
    let fail = |error| {
        Error::from_io(ErrorCode::FileOpen, format!("unable to get info for path/file '{}'", dir.shown(&name)), error)
    };
    if dir.stat(&name).map_err(fail)?.is_some() {
        detail!("remove 'global/pg_control' so cluster will not start if restore does not complete");
        remove(dir, &name, below)?;
    }
    Ok(())
}

/// Removes a file or link, and syncs the removal.
fn remove(dir: &TargetDir, name: &str, parent: &str) -> Result<()> {
    dir.remove_file(name).map_err(|error| {
        Error::from_io(ErrorCode::FileRemove, format!("unable to remove '{}'", dir.shown(name)), error)
    })?;
    dir.sync_dir(parent)
}

/// Removes what the backup does not have, and creates the directories and links that it has. Runs after
/// [`open_data_dir`] and opens all other target directories.
///
/// # Errors
/// Something can't be removed, created or changed.
pub fn build(
    manifest: &Manifest,
    ownership: &Ownership,
    settings: &CleanSettings<'_>,
    places: &mut Places,
) -> Result<()> {
    let cleaner = Cleaner { manifest, ownership, settings };
    for directory in directories(manifest, settings) {
        if let Some(file) = &directory.target.file {
            open_file_target(manifest, ownership, &directory, file, places)?;
            continue;
        }
        let path = manifest_path(manifest, &directory.name)?;
        if metadata(&directory.path)?.is_none() {
            // The manifest records a tablespace's permissions at its link
            let path = manifest_path(manifest, &directory.target.name)?;
            places.add_directory(&directory.name, make_target(&directory.path, path, ownership)?);
            continue;
        }
        if places.directory(&directory.name).is_none() {
            places.add_directory(&directory.name, TargetDir::open(&directory.path)?);
        }
        if settings.delta {
            info!("remove invalid files/links/paths from '{}'", directory.path);
        }
        if let Some(dir) = places.directory(&directory.name) {
            cleaner.set_attributes(dir.handle(), path, &directory.path)?;
            cleaner.clean(dir.handle(), &directory.name, &directory.path, directory.name == PG_DATA)?;
        }
    }
    make_paths(manifest, ownership, settings, places)?;
    check_links(manifest, settings)
}

/// Checks that each link leads to the target that is restored to, because a server reads through the links.
fn check_links(manifest: &Manifest, settings: &CleanSettings<'_>) -> Result<()> {
    for target in manifest.targets.iter().filter(|target| target.name != PG_DATA) {
        let link = pg_absolute(settings.pg_path, &target.name);
        let mut path = target_path(manifest, settings.pg_path, target);
        if let Some(file) = &target.file {
            path = format!("{path}/{file}");
        }
        if resolve(&link)? != resolve(&path)? {
            let text = format!("link '{link}' does not lead to its destination '{path}'");
            return Err(Error::new(ErrorCode::LinkDestination, text));
        }
    }
    Ok(())
}

/// Opens the directory that contains the destination of a linked file. Other files in it are not touched.
fn open_file_target(
    manifest: &Manifest,
    ownership: &Ownership,
    directory: &Directory<'_>,
    file: &str,
    places: &mut Places,
) -> Result<()> {
    // The file itself may be a link
    let shown = format!("{}/{file}", directory.path);
    let real = resolve(&shown)?;
    let parts = real.parent().and_then(|parent| Some((parent.to_str()?, real.file_name()?.to_str()?)));
    let Some((parent, file)) = parts else {
        return Err(Error::new(ErrorCode::PathOpen, format!("unable to open path of file '{shown}'")));
    };
    let dir = match metadata(parent)? {
        Some(_) => TargetDir::open(parent)?,
        None => make_target(parent, manifest_path(manifest, PG_DATA)?, ownership)?,
    };
    places.add_file(&directory.target.name, dir, file);
    Ok(())
}

/// Creates a target directory and its missing parents.
fn make_target(path: &str, attributes: &ManifestPath, ownership: &Ownership) -> Result<TargetDir> {
    let owner = ownership.of(attributes.user, attributes.group);
    let new_owner = (owner != ownership.current()).then_some(owner);
    TargetDir::make(path, directory_mode(attributes.mode), new_owner)
}

/// Returns the mode of a directory while files are restored into it.
fn directory_mode(mode: u16) -> Mode {
    Mode::from_raw_mode(u32::from(mode) & MODE_MASK | OWNER_RIGHTS)
}

/// Sets modes that lack permissions for the owner. The directories had these permissions while files were restored.
///
/// # Errors
/// [`ErrorCode::FileMode`].
pub(crate) fn take_rights(manifest: &Manifest, places: &Places) -> Result<()> {
    let is_done = |path: &&ManifestPath| u32::from(path.mode) & OWNER_RIGHTS == OWNER_RIGHTS;
    // Children come before their parents, because a parent without permissions can't be entered. The excluded
    // directories are still needed for the last steps, and a server could not run with such modes.
    let others = |path: &&ManifestPath| !matches!(path.name.as_str(), PG_DATA | PG_TBLSPC | "pg_data/global");
    for path in manifest.paths.iter().rev().filter(|path| !is_done(path)).filter(others) {
        let Ok(place) = places.content(&path.name) else { continue };
        let mode = Mode::from_raw_mode(u32::from(path.mode) & MODE_MASK);
        let result = place.dir.open_sub_dir(place.name).and_then(|dir| {
            fchmod(&dir, mode)?;
            dir.sync_all()
        });
        let shown = place.dir.shown(place.name);
        result
            .map_err(|error| Error::from_io(ErrorCode::FileMode, format!("unable to set mode for '{shown}'"), error))?;
    }
    Ok(())
}

fn is_owned(actual: &Stat, owner: Owner) -> bool {
    (Owner { uid: actual.st_uid, gid: actual.st_gid }) == owner
}

fn has_mode(actual: &Stat, mode: Mode) -> bool {
    actual.st_mode & MODE_MASK == mode.as_raw_mode()
}

fn file_mode(mode: u16) -> Mode {
    Mode::from_raw_mode(u32::from(mode) & MODE_MASK)
}

struct Cleaner<'a> {
    manifest: &'a Manifest,
    ownership: &'a Ownership,
    settings: &'a CleanSettings<'a>,
}

/// An entry of a directory that is cleaned.
struct FoundEntry<'a> {
    dir: BorrowedFd<'a>,
    file_name: &'a CStr,
    stat: Stat,
    /// The name in the manifest, or `None` for a name that is not UTF-8, which no manifest contains.
    name: Option<String>,
    /// The path, for messages.
    shown: String,
}

impl FoundEntry<'_> {
    fn fail(&self, code: ErrorCode, what: &str, error: impl Into<io::Error>) -> Error {
        Error::from_io(code, format!("unable to {what} '{}'", self.shown), error.into())
    }

    fn remove(&self) -> Result<()> {
        unlinkat(self.dir, self.file_name, AtFlags::empty())
            .map_err(|error| self.fail(ErrorCode::FileRemove, "remove", error))
    }

    fn set_owner(&self, owner: Owner) -> Result<()> {
        if is_owned(&self.stat, owner) {
            return Ok(());
        }
        detail!("update ownership for '{}'", self.shown);
        let entry = HandleEntry::open(self.dir, self.file_name, &self.stat);
        entry
            .and_then(|entry| entry.set_owner(owner))
            .map_err(|error| self.fail(ErrorCode::FileOwner, "set ownership for", error))
    }

    fn set_mode(&self, mode: Mode) -> Result<()> {
        if has_mode(&self.stat, mode) {
            return Ok(());
        }
        detail!("update mode for '{}' to {:04o}", self.shown, mode.as_raw_mode());
        let entry = HandleEntry::open(self.dir, self.file_name, &self.stat);
        entry
            .and_then(|entry| entry.set_mode(mode))
            .map_err(|error| self.fail(ErrorCode::FileMode, "set mode for", error))
    }
}

impl Cleaner<'_> {
    /// Sets owner and mode of a target directory.
    fn set_attributes(&self, dir: BorrowedFd<'_>, path: &ManifestPath, shown: &str) -> Result<()> {
        let fail =
            |code, what: &str, error: io::Error| Error::from_io(code, format!("unable to {what} '{shown}'"), error);
        let stat = fstat(dir).map_err(|error| fail(ErrorCode::FileOpen, "get info for path/file", error.into()))?;
        let owner = self.ownership.of(path.user, path.group);
        if !is_owned(&stat, owner) {
            detail!("update ownership for '{shown}'");
            handle::set_owner(dir, owner).map_err(|error| fail(ErrorCode::FileOwner, "set ownership for", error))?;
        }
        let mode = directory_mode(path.mode);
        if !has_mode(&stat, mode) {
            detail!("update mode for '{shown}' to {:04o}", mode.as_raw_mode());
            fchmod(dir, mode).map_err(|error| fail(ErrorCode::FileMode, "set mode for", error.into()))?;
        }
        Ok(())
    }

    /// Cleans a directory and its subdirectories that are in the backup.
    fn clean(&self, dir: BorrowedFd<'_>, name: &str, path: &str, is_base: bool) -> Result<()> {
        let list_error = |error: rustix::io::Errno| {
            Error::from_io(ErrorCode::PathOpen, format!("unable to list file info for path '{path}'"), error.into())
        };
        for file_name in handle::names(dir).map_err(list_error)? {
            let shown = format!("{path}/{}", file_name.to_string_lossy());
            let stat = handle::stat(dir, &file_name).map_err(|error| {
                Error::from_io(ErrorCode::FileOpen, format!("unable to get info for path/file '{shown}'"), error.into())
            })?;
            // It was removed in the meantime
            let Some(stat) = stat else { continue };
            let text = file_name.to_str().ok();
            if is_base && handle::is_file(&stat) && is_kept(text, self.settings) {
                continue;
            }
            let name = text.map(|text| format!("{name}/{text}"));
            self.clean_entry(&FoundEntry { dir, file_name: &file_name, stat, name, shown })?;
        }
        Ok(())
    }

    fn clean_entry(&self, found: &FoundEntry<'_>) -> Result<()> {
        let shown = &found.shown;
        match handle::kind(&found.stat) {
            FileType::RegularFile => {
                let Some(file) = found.name.as_ref().and_then(|name| self.file(name)) else {
                    detail!("remove invalid file '{shown}'");
                    return found.remove();
                };
                let (owner, mode) = (self.ownership.of(file.user, file.group), file_mode(file.mode));
                // The file's other hard links do not belong to the restore
                if found.stat.st_nlink > 1 && !(is_owned(&found.stat, owner) && has_mode(&found.stat, mode)) {
                    detail!("remove file '{shown}', which has other names, because owner or mode changed");
                    return found.remove();
                }
                found.set_owner(owner)?;
                found.set_mode(mode)
            }
            FileType::Directory => {
                let known = found.name.as_ref().and_then(|name| Some((name, self.path(name)?)));
                let Some((name, path)) = known else {
                    detail!("remove invalid path '{shown}'");
                    return handle::remove_tree(found.dir, found.file_name)
                        .map_err(|error| found.fail(ErrorCode::PathRemove, "remove path", error));
                };
                found.set_owner(self.ownership.of(path.user, path.group))?;
                found.set_mode(directory_mode(path.mode))?;
                let dir = handle::open_dir(found.dir, found.file_name)
                    .map_err(|error| found.fail(ErrorCode::PathOpen, "list file info for path", error))?;
                self.clean(dir.as_fd(), name, shown, false)
            }
            FileType::Symlink => self.clean_link(found),
            _ => {
                detail!("remove special file '{shown}'");
                found.remove()
            }
        }
    }

    fn clean_link(&self, found: &FoundEntry<'_>) -> Result<()> {
        let shown = &found.shown;
        let Some(link) = found.name.as_ref().and_then(|name| self.manifest.link(name)) else {
            detail!("remove invalid link '{shown}'");
            return found.remove();
        };
        let destination = readlinkat(found.dir, found.file_name, Vec::new())
            .map_err(|error| found.fail(ErrorCode::FileInfo, "get destination for link", error))?;
        if destination.to_bytes() == link.destination.as_bytes() {
            return found.set_owner(self.ownership.of(link.user, link.group));
        }
        detail!("remove link '{shown}' because destination changed");
        found.remove()
    }

    /// Returns the file with this name, unless it is a link in the manifest.
    fn file(&self, name: &str) -> Option<&ManifestFile> {
        self.manifest.file(name).filter(|_| self.manifest.link(name).is_none())
    }

    /// Returns the directory with this name, unless it is a link in the manifest.
    fn path(&self, name: &str) -> Option<&ManifestPath> {
        self.manifest.path(name).filter(|_| self.manifest.link(name).is_none())
    }
}

/// Creates missing directories and links. Paths are sorted, so parents come first.
fn make_paths(manifest: &Manifest, ownership: &Ownership, settings: &CleanSettings<'_>, places: &Places) -> Result<()> {
    for path in &manifest.paths {
        let name = path.name.as_str();
        // Exists in manifests only
        if name == PG_TBLSPC || name == PG_DATA {
            continue;
        }
        let link_name = if name.starts_with(PG_TBLSPC) { format!("{PG_DATA}/{name}") } else { name.to_owned() };
        if manifest.link(&link_name).is_some() {
            make_link(manifest, &link_name, ownership, settings, places)?;
            continue;
        }
        let place = places.content(name)?;
        let shown = pg_absolute(settings.pg_path, name);
        // The directory of a tablespace is a target itself
        if place.name.is_empty() || exists(place.dir, place.name, &shown)? {
            continue;
        }
        detail!("create path '{shown}'");
        place.dir.make_dir(place.name, directory_mode(path.mode)).map_err(|error| {
            Error::from_io(ErrorCode::PathCreate, format!("unable to create path '{shown}'"), error)
        })?;
        let owner = ownership.of(path.user, path.group);
        if owner != ownership.current() {
            let result = place.dir.open_sub_dir(place.name).and_then(|dir| handle::set_owner(dir.as_fd(), owner));
            result.map_err(|error| owner_error(&shown, error))?;
        }
    }
    for link in &manifest.links {
        make_link(manifest, &link.name, ownership, settings, places)?;
    }
    Ok(())
}

fn make_link(
    manifest: &Manifest,
    name: &str,
    ownership: &Ownership,
    settings: &CleanSettings<'_>,
    places: &Places,
) -> Result<()> {
    let Some(link) = manifest.link(name) else { return Ok(()) };
    let place = places.entry(name)?;
    let shown = pg_absolute(settings.pg_path, name);
    if exists(place.dir, place.name, &shown)? {
        return Ok(());
    }
    detail!("create symlink '{shown}' to '{}'", link.destination);
    place.dir.make_link(place.name, &link.destination).map_err(|error| {
        let message = format!("unable to create symlink '{shown}' to '{}'", link.destination);
        Error::from_io(ErrorCode::FileOpen, message, error)
    })?;
    let owner = ownership.of(link.user, link.group);
    if owner != ownership.current() {
        place.dir.own_link(place.name, owner).map_err(|error| owner_error(&shown, error))?;
    }
    Ok(())
}

fn exists(dir: &TargetDir, name: &str, shown: &str) -> Result<bool> {
    let stat = dir.stat(name).map_err(|error| {
        Error::from_io(ErrorCode::FileOpen, format!("unable to get info for path/file '{shown}'"), error)
    })?;
    Ok(stat.is_some())
}

fn owner_error(shown: &str, error: io::Error) -> Error {
    Error::from_io(ErrorCode::FileOwner, format!("unable to set ownership for '{shown}'"), error)
}

#[cfg(test)]
mod tests;
