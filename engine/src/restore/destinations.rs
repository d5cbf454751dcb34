//! Where a restore may write and clean: in the data directory, and in the destinations of links and tablespaces.
//!
//! With `--delta` or `--force` a restore removes everything in these directories that is not in the backup. A wrong
//! destination would lose other files, so each is checked here before anything changes. pgBackRest cleans every
//! destination.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use repo_format::manifest::{Manifest, PG_DATA, pg_path as pg_relative};
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};

use super::clean::{CleanSettings, Directory, check_empty, directories, entries, metadata, symlink_metadata};
use super::names::pg_absolute;
use super::real_path::resolve;
use crate::{Error, ErrorCode, Result};

/// A place of this program that no restore may clean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeepOut {
    /// What it is, for messages.
    pub what: &'static str,
    /// Its absolute path.
    pub path: PathBuf,
    /// Whether it is a repository. Nothing is restored into it either, and the data directory must not contain it.
    pub is_repository: bool,
}

/// Checks every destination, with all links resolved. Changes nothing.
///
/// # Errors
/// [`ErrorCode::LinkDestination`] for a destination that contains something that is not the link's, or that is inside
/// another one; [`ErrorCode::PathNotEmpty`] and [`ErrorCode::FileExists`] for one with files that did not belong to
/// this cluster before.
pub(super) fn check(manifest: &Manifest, settings: &CleanSettings<'_>, keep_out: &[KeepOut]) -> Result<()> {
    let keep_out = keep_out
        .iter()
        .map(|place| Ok((place, resolve(&place.path.to_string_lossy())?)))
        .collect::<Result<Vec<_>>>()?;
    let data_dir = resolve(settings.pg_path)?;
    let directories = directories(manifest, settings);
    let mut known: HashMap<PathBuf, &Directory<'_>> = HashMap::new();
    for directory in directories.iter().filter(|directory| directory.target.file.is_none()) {
        let real = resolve(&directory.path)?;
        check_keep_out(directory, &real, &data_dir, &keep_out)?;
        if let Some(other) = known.insert(real, directory) {
            return Err(overlap(directory, other, "the same directory as"));
        }
    }
    for (real, directory) in &known {
        if let Some(other) = real.ancestors().skip(1).find_map(|parent| known.get(parent)) {
            return Err(overlap(directory, other, "a subdirectory of"));
        }
    }
    check_files(manifest, settings, &directories, &known, &keep_out)?;
    if settings.delta {
        check_owned(settings, &directories)?;
        for directory in directories.iter().filter(|directory| directory.target.file.is_none()) {
            check_removed(manifest, directory)?;
        }
    }
    Ok(())
}

fn link_of<'a>(directory: &'a Directory<'_>) -> &'a str {
    pg_relative(&directory.target.name)
}

fn refused(message: String) -> Error {
    Error::new(ErrorCode::LinkDestination, message)
}

fn overlap(directory: &Directory<'_>, other: &Directory<'_>, relation: &str) -> Error {
    let name = |directory: &Directory<'_>| match link_of(directory) {
        "" => "data directory".to_owned(),
        link => format!("link '{link}'"),
    };
    refused(format!(
        "{} ({}) destination is {relation} {} ({})",
        name(directory),
        directory.path,
        name(other),
        other.path
    ))
}

fn check_keep_out(
    directory: &Directory<'_>,
    real: &Path,
    data_dir: &Path,
    keep_out: &[(&KeepOut, PathBuf)],
) -> Result<()> {
    let link = link_of(directory);
    let is_data_dir = directory.name == PG_DATA;
    if !is_data_dir && data_dir.starts_with(real) {
        return Err(refused(format!(
            "link '{link}' destination '{}' contains the data directory '{}'",
            directory.path,
            data_dir.display()
        )));
    }
    for (place, place_real) in keep_out {
        let (what, path) = (place.what, place.path.display());
        match is_data_dir {
            true if place.is_repository && place_real.starts_with(real) => {
                return Err(Error::new(
                    ErrorCode::PathNotEmpty,
                    format!("unable to restore to path '{}' because it contains the {what} '{path}'", directory.path),
                ));
            }
            false if place_real.starts_with(real) => {
                return Err(refused(format!(
                    "link '{link}' destination '{}' contains the {what} '{path}'",
                    directory.path
                )));
            }
            false if place.is_repository && real.starts_with(place_real) => {
                return Err(refused(format!(
                    "link '{link}' destination '{}' is in the {what} '{path}'",
                    directory.path
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Links to files may lead anywhere, except into a repository and to the path of another file of the backup.
fn check_files(
    manifest: &Manifest,
    settings: &CleanSettings<'_>,
    directories: &[Directory<'_>],
    known: &HashMap<PathBuf, &Directory<'_>>,
    keep_out: &[(&KeepOut, PathBuf)],
) -> Result<()> {
    let mut files: HashMap<PathBuf, &str> = HashMap::new();
    for directory in directories {
        let Some(file) = &directory.target.file else { continue };
        let link = link_of(directory);
        let shown = format!("{}/{file}", directory.path);
        let real = resolve(&shown)?;
        if let Some((place, _)) = keep_out.iter().find(|(place, path)| place.is_repository && real.starts_with(path)) {
            return Err(refused(format!(
                "link '{link}' destination '{shown}' is in the {} '{}'",
                place.what,
                place.path.display()
            )));
        }
        if let Some(other) = files.insert(real.clone(), link) {
            return Err(refused(format!("link '{link}' ({shown}) destination is the same file as link '{other}'")));
        }
        let holder =
            real.ancestors().skip(1).find_map(|parent| Some((known.get(parent)?, real.strip_prefix(parent).ok()?)));
        if let Some((holder, rest)) = holder {
            let name = format!("{}/{}", holder.name, rest.display());
            if holder.name == PG_DATA {
                return Err(refused(format!("link '{link}' destination '{shown}' is in PGDATA")));
            }
            if manifest.file(&name).is_some() || manifest.path(&name).is_some() || manifest.link(&name).is_some() {
                return Err(refused(format!("link '{link}' destination '{shown}' is where '{name}' is restored to")));
            }
        }
        // Opening a pipe could wait forever
        if metadata(&shown)?.is_some_and(|metadata| !metadata.is_file()) {
            return Err(Error::new(
                ErrorCode::FileExists,
                format!("unable to restore file '{shown}' because it exists and is not a regular file"),
            ));
        }
        let is_own = || leads_to(&pg_absolute(settings.pg_path, &directory.target.name), &real);
        if settings.delta && metadata(&shown)?.is_some() && !is_own()? {
            return Err(Error::new(
                ErrorCode::FileExists,
                format!("unable to restore file '{shown}' because it already exists"),
            )
            .hint(format!("the link '{link}' in '{}' does not lead to it.", settings.pg_path))
            .hint("remove the file or choose another destination."));
        }
    }
    Ok(())
}

/// Returns whether a link exists that leads to this path.
fn leads_to(link: &str, real: &Path) -> Result<bool> {
    let is_link = symlink_metadata(link)?.is_some_and(|metadata| metadata.file_type().is_symlink());
    Ok(is_link && resolve(link)? == real)
}

/// Checks that a destination is cleaned only if it was this link's, or a tablespace's of this cluster, before.
fn check_owned(settings: &CleanSettings<'_>, directories: &[Directory<'_>]) -> Result<()> {
    let mut tablespaces: Option<BTreeSet<PathBuf>> = None;
    for directory in directories {
        let target = directory.target;
        if directory.name == PG_DATA || target.file.is_some() || metadata(&directory.path)?.is_none() {
            continue;
        }
        let is_own = if target.tablespace.is_some() {
            let known = match &mut tablespaces {
                Some(known) => known,
                None => tablespaces.insert(present_tablespaces(settings.pg_path)?),
            };
            // The directory of this version is below the link's destination
            resolve(&directory.path)?.parent().is_some_and(|place| known.contains(place))
        } else {
            leads_to(&pg_absolute(settings.pg_path, &target.name), &resolve(&directory.path)?)?
        };
        if !is_own {
            check_empty(directory, settings).map_err(|mut error| {
                error.hints.clear();
                error
                    .hint(format!("no link of the cluster in '{}' leads to this path.", settings.pg_path))
                    .hint("empty it if nothing in it is needed, or choose another destination.")
            })?;
        }
    }
    Ok(())
}

/// Returns the destinations of the tablespaces of the present cluster, regardless of their oids: a tablespace that was
/// dropped and recreated has another one.
fn present_tablespaces(pg_path: &str) -> Result<BTreeSet<PathBuf>> {
    let links = format!("{pg_path}/pg_tblspc");
    let mut places = BTreeSet::new();
    if symlink_metadata(&links)?.is_none_or(|metadata| !metadata.is_dir()) {
        return Ok(places);
    }
    for entry in entries(&links)? {
        if let Some(path) = entry.path().to_str().filter(|_| entry.file_type().is_ok_and(|kind| kind.is_symlink())) {
            places.insert(resolve(path)?);
        }
    }
    Ok(places)
}

/// Something that must not be removed together with the directory that contains it.
#[derive(Debug, PartialEq, Eq)]
enum Obstacle {
    /// A cluster.
    Cluster(PathBuf),
    /// A mount point. Cleaning would remove its files, and then fail to remove the mount point itself.
    Mount(PathBuf),
}

/// Searches for clusters and mount points in everything that cleaning would remove.
fn check_removed(manifest: &Manifest, directory: &Directory<'_>) -> Result<()> {
    let path = Path::new(&directory.path);
    if metadata(&directory.path)?.is_none() {
        return Ok(());
    }
    let found = if directory.name != PG_DATA && is_cluster(path) {
        Some(Obstacle::Cluster(path.to_owned()))
    } else {
        find_obstacle(manifest, &directory.name, path)?
    };
    let (what, hint) = match found {
        None => return Ok(()),
        Some(Obstacle::Cluster(path)) => {
            (format!("the cluster '{}'", path.display()), "move the cluster away, or choose another destination.")
        }
        Some(Obstacle::Mount(path)) => {
            (format!("the mount point '{}'", path.display()), "unmount it: the backup has no such directory.")
        }
    };
    Err(Error::new(
        ErrorCode::PathNotEmpty,
        format!("unable to restore to path '{}' because it contains {what}", directory.path),
    )
    .hint(hint))
}

/// A data directory of PostgreSQL that is whole or in use.
fn is_cluster(path: &Path) -> bool {
    let has = |name: &str| fs::symlink_metadata(path.join(name)).is_ok();
    has("postmaster.pid") || (has("PG_VERSION") && has("global/pg_control"))
}

/// Returns whether a file system is mounted at this path. Kernels before 5.8 do not report it.
fn is_mount_point(path: &Path) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(rustix::fs::CWD, path, flags, StatxFlags::empty())
        .is_ok_and(|statx| statx.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Returns an obstacle in a directory that the manifest does not have. `path` is in the manifest as `name`.
fn find_obstacle(manifest: &Manifest, name: &str, path: &Path) -> Result<Option<Obstacle>> {
    for (entry, path) in sub_directories(path)? {
        let name = entry.to_str().map(|entry| format!("{name}/{entry}"));
        let found = match name.filter(|name| manifest.path(name).is_some() && manifest.link(name).is_none()) {
            Some(name) => find_obstacle(manifest, &name, &path)?,
            None => find_obstacle_below(path)?,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn find_obstacle_below(path: PathBuf) -> Result<Option<Obstacle>> {
    // A stack of its own: what is there may be deep
    let mut waiting = vec![path];
    while let Some(path) = waiting.pop() {
        if is_mount_point(&path) {
            return Ok(Some(Obstacle::Mount(path)));
        }
        if is_cluster(&path) {
            return Ok(Some(Obstacle::Cluster(path)));
        }
        waiting.extend(sub_directories(&path)?.into_iter().map(|(_, path)| path));
    }
    Ok(None)
}

fn sub_directories(path: &Path) -> Result<Vec<(std::ffi::OsString, PathBuf)>> {
    let fail = |error| {
        let text = format!("unable to list file info for path '{}'", path.display());
        Error::from_io(ErrorCode::PathOpen, text, error)
    };
    let mut directories = Vec::new();
    for entry in fs::read_dir(path).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        if entry.file_type().map_err(fail)?.is_dir() {
            directories.push((entry.file_name(), entry.path()));
        }
    }
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::fixture::{TABLESPACE_DIR, file, manifest, path};
    use super::super::remap::{MapSettings, remap};
    use super::*;

    /// A data directory at `pg`, a repository at `backup/repo`, a lock path at `run/lock`.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Place(tempfile::tempdir().unwrap());
            place.dir("pg");
            place
        }

        fn text(&self, name: &str) -> String {
            format!("{}/{name}", self.0.path().display())
        }

        fn dir(&self, name: &str) {
            fs::create_dir_all(self.text(name)).unwrap();
        }

        fn file(&self, name: &str) {
            self.dir(name.rsplit_once('/').map_or("", |(dir, _)| dir));
            fs::write(self.text(name), "x").unwrap();
        }

        fn link(&self, name: &str, destination: &str) {
            self.dir(name.rsplit_once('/').map_or("", |(dir, _)| dir));
            symlink(self.text(destination), self.text(name)).unwrap();
        }

        fn check_with(
            &self,
            delta: bool,
            links: &[(&str, &str)],
            spaces: &str,
            change: fn(&mut Manifest),
        ) -> Result<()> {
            let mut manifest = manifest();
            change(&mut manifest);
            manifest.sort();
            let links = links.iter().map(|&(link, to)| (link.to_owned(), self.text(to))).collect();
            let all = Some(self.text(spaces));
            let settings = MapSettings { links, tablespaces_all: all, ..MapSettings::default() };
            let pg_path = self.text("pg");
            remap(&mut manifest, &pg_path, &settings).unwrap();
            let settings = CleanSettings { pg_path: &pg_path, delta, keep: &[], tablespace_dir: TABLESPACE_DIR };
            let keep_out = [("repository", "backup/repo", true), ("lock path", "run/lock", false)]
                .map(|(what, path, is_repository)| KeepOut { what, path: self.text(path).into(), is_repository });
            check(&manifest, &settings, &keep_out)
        }

        fn check(&self, links: &[(&str, &str)]) -> Result<()> {
            self.check_with(true, links, "ts", |_| {})
        }
    }

    fn code(result: Result<()>) -> ErrorCode {
        result.unwrap_err().code
    }

    #[test]
    fn link_to_a_parent_of_something_else_is_refused() {
        let place = Place::new();
        place.link("short", "backup/repo");
        place.dir("backup/repo");
        for (destination, what) in [
            (".", "data directory"),
            ("wal/../pg/..", "data directory"),
            ("backup", "repository"),
            ("backup/repo", "repository"),
            ("backup/repo/new", "repository"),
            ("short/new", "repository"),
            ("run", "lock path"),
            ("run/lock", "lock path"),
        ] {
            for delta in [false, true] {
                let error = place.check_with(delta, &[("pg_wal", destination)], "ts", |_| {}).unwrap_err();
                assert_eq!(error.code, ErrorCode::LinkDestination, "{destination}: {error}");
                assert!(error.message.contains(what), "{destination}: {error}");
            }
        }
        place.check(&[("pg_wal", "run/other")]).unwrap();
        assert_eq!(code(place.check_with(true, &[], "backup/repo/ts", |_| {})), ErrorCode::LinkDestination);
        assert_eq!(code(place.check(&[("pg_hba.conf", "short/hba.conf")])), ErrorCode::LinkDestination);
    }

    #[test]
    fn data_directory_that_holds_a_repository_is_refused() {
        let place = Place::new();
        place.link("backup", "pg/backup");
        place.dir("pg/backup/repo");
        assert_eq!(code(place.check(&[])), ErrorCode::PathNotEmpty);
    }

    #[test]
    fn link_that_leads_through_another_link_into_a_target_is_refused() {
        let place = Place::new();
        place.dir("wal");
        place.link("to-pg", "pg");
        place.link("to-wal", "wal");
        assert_eq!(code(place.check(&[("pg_wal", "to-pg/x")])), ErrorCode::LinkDestination);
        assert_eq!(code(place.check(&[("pg_hba.conf", "to-pg/x")])), ErrorCode::LinkDestination);
        for base in ["to-wal", "to-wal/sub"] {
            assert_eq!(code(place.check(&[("pg_wal", "wal"), ("base", base)])), ErrorCode::LinkDestination, "{base}");
        }
        let files = [("pg_hba.conf", "wal/a"), ("PG_VERSION", "to-wal/a")];
        assert_eq!(code(place.check(&files)), ErrorCode::LinkDestination);
    }

    #[test]
    fn link_to_a_file_of_another_link_of_the_backup_is_refused() {
        let place = Place::new();
        let links = [("base", "base"), ("pg_hba.conf", "base/1/1259")];
        assert_eq!(code(place.check(&links)), ErrorCode::LinkDestination);
        place.check(&[("base", "base"), ("pg_hba.conf", "base/1/hba.conf")]).unwrap();
    }

    #[test]
    fn delta_into_a_destination_that_was_never_the_links_is_refused() {
        let place = Place::new();
        place.file("wal/precious");
        let error = place.check(&[("pg_wal", "wal")]).unwrap_err();
        assert_eq!(error.code, ErrorCode::PathNotEmpty);
        assert!(error.hints.iter().any(|hint| hint.contains("no link of the cluster")), "{error:?}");
        // A directory in its place does not make it the link's
        place.dir("pg/pg_wal");
        assert_eq!(code(place.check(&[("pg_wal", "wal")])), ErrorCode::PathNotEmpty);
        fs::remove_dir(place.text("pg/pg_wal")).unwrap();
        place.link("pg/pg_wal", "wal/../wal");
        place.check(&[("pg_wal", "wal")]).unwrap();
    }

    #[test]
    fn delta_into_an_empty_destination_passes() {
        let place = Place::new();
        place.dir("wal");
        place.dir("conf");
        place.file("conf/other");
        place.check(&[("pg_wal", "wal"), ("pg_hba.conf", "conf/hba.conf")]).unwrap();
    }

    #[test]
    fn delta_over_a_file_that_was_never_the_links_is_refused() {
        let place = Place::new();
        place.file("conf/hba.conf");
        assert_eq!(code(place.check(&[("pg_hba.conf", "conf/hba.conf")])), ErrorCode::FileExists);
        place.link("pg/pg_hba.conf", "conf/hba.conf");
        place.check(&[("pg_hba.conf", "conf/hba.conf")]).unwrap();
    }

    #[test]
    fn delta_into_a_tablespace_of_this_cluster_passes_whatever_its_number_was() {
        let place = Place::new();
        place.file("ts/ts1/PG_15_202209061/1/3000");
        assert_eq!(code(place.check(&[])), ErrorCode::PathNotEmpty);
        place.link("pg/pg_tblspc/99", "ts/ts1");
        place.check(&[]).unwrap();
    }

    #[test]
    fn delta_that_would_remove_another_cluster_is_refused() {
        for root in ["wal", "wal/main", "pg/base/old/main"] {
            for marks in [&["postmaster.pid"][..], &["PG_VERSION", "global/pg_control"][..]] {
                let place = Place::new();
                place.dir("wal");
                place.link("pg/pg_wal", "wal");
                place.check(&[("pg_wal", "wal")]).unwrap();
                marks.iter().for_each(|mark| place.file(&format!("{root}/{mark}")));
                assert_eq!(code(place.check(&[("pg_wal", "wal")])), ErrorCode::PathNotEmpty, "{root} {marks:?}");
            }
        }
        // A database has the file too
        let place = Place::new();
        place.link("pg/base/1", "db");
        place.file("db/PG_VERSION");
        place.check(&[("base/1", "db")]).unwrap();
    }

    #[test]
    fn pipe_where_a_linked_file_goes_is_refused_at_once() {
        let place = Place::new();
        place.link("pg/pg_hba.conf", "conf/hba.conf");
        place.dir("conf");
        let pipe = place.text("conf/hba.conf");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(code(place.check(&[("pg_hba.conf", "conf/hba.conf")])), ErrorCode::FileExists);
    }

    #[test]
    fn ten_thousand_tablespaces_are_checked_at_once() {
        let place = Place::new();
        place
            .check_with(true, &[], "ts", |manifest| {
                let space = manifest.targets.pop().unwrap();
                for id in 20_000u32..30_000 {
                    let mut space = space.clone();
                    space.name = format!("pg_tblspc/{id}");
                    let tablespace = space.tablespace.as_mut().unwrap();
                    (tablespace.id, tablespace.name) = (id, format!("ts{id}"));
                    manifest.links.push(super::super::fixture::link(&format!("pg_data/pg_tblspc/{id}"), "/x"));
                    manifest.targets.push(space);
                    manifest.paths.push(path(&format!("pg_tblspc/{id}")));
                    manifest.files.push(file(&format!("pg_tblspc/{id}/{TABLESPACE_DIR}/1"), b"x"));
                }
                manifest.links.retain(|link| link.name != "pg_data/pg_tblspc/16384");
            })
            .unwrap();
    }

    #[test]
    fn mount_point_that_the_backup_does_not_have_is_found() {
        assert!(is_mount_point(Path::new("/proc")));
        assert!(!is_mount_point(tempfile::tempdir().unwrap().path()));
        let found = find_obstacle_below("/proc".into()).unwrap();
        assert_eq!(found, Some(Obstacle::Mount("/proc".into())));
    }
}
