//! Checks that the file systems have room for a restore, before anything changes.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use repo_format::manifest::{Manifest, PG_DATA, PG_TBLSPC};
use repo_format::size::format_size;

use super::clean::{CleanSettings, directories, metadata, symlink_metadata};
use super::names::{pg_absolute, target_path};
use super::select_db::ZeroFilter;
use crate::{Error, ErrorCode, Result, warn};

/// File systems that store data as it is, neither compressed nor elsewhere: ext2 to ext4, xfs, tmpfs (numbers from
/// `linux/magic.h`). On others the files may use less space than their sizes.
const PLAIN: [u64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994];

/// What a restore does on one file system.
#[derive(Debug)]
struct Need {
    /// A directory on it, for messages.
    path: String,
    /// Bytes of the files that are restored there.
    bytes: u64,
    /// Existing data that is overwritten or removed.
    reusable: u64,
    /// Existing data that also has other names. It makes no room for anything else, but may already match.
    shared: u64,
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    bytes: u64,
    /// Its files take as much space as their sizes say.
    is_plain: bool,
}

/// Compares what the backup needs on each file system with the available space. With delta or force, the content of the
/// target directories counts as free.
///
/// # Errors
/// [`ErrorCode::FileWrite`], with the numbers, if it can't fit.
pub(super) fn check(manifest: &Manifest, settings: &CleanSettings<'_>, zero: Option<&ZeroFilter>) -> Result<()> {
    let mut needs = needs(manifest, settings, zero)?;
    let rooms = needs.values().map(|need| room(&need.path)).collect::<Result<Vec<_>>>()?;
    // Only if it matters, because a large cluster has many files to check
    if settings.delta && needs.values().zip(&rooms).any(|(need, room)| need.bytes > room.bytes) {
        for directory in directories(manifest, settings) {
            let Some(file) = &directory.target.file else {
                add_reusable(Path::new(&directory.path), &mut needs)?;
                continue;
            };
            if let Some(metadata) = metadata(&format!("{}/{file}", directory.path))? {
                add_file(&metadata, &mut needs);
            }
        }
    }
    needs.values().zip(rooms).try_for_each(|(need, room)| judge(need, room))
}

fn judge(need: &Need, room: Room) -> Result<()> {
    let usable = room.bytes.saturating_add(need.reusable);
    if need.bytes <= usable {
        return Ok(());
    }
    let reused = match need.reusable {
        0 => String::new(),
        bytes => format!(" and {} in files that are replaced", format_size(bytes)),
    };
    let text = format!(
        "{} needed on the file system of '{}', which has {} free{reused}",
        format_size(need.bytes),
        need.path,
        format_size(room.bytes)
    );
    if room.is_plain && need.bytes > usable.saturating_add(need.shared) {
        return Err(Error::new(ErrorCode::FileWrite, format!("not enough space to restore: {text}")));
    }
    match room.is_plain {
        true => warn!("the space may not suffice unless files with several names are already correct: {text}"),
        false => warn!("the space may not suffice unless the file system compresses: {text}"),
    }
    Ok(())
}

/// Returns what is restored to each file system, by its device number.
fn needs(manifest: &Manifest, settings: &CleanSettings<'_>, zero: Option<&ZeroFilter>) -> Result<BTreeMap<u64, Need>> {
    let mut places = Devices { manifest, pg_path: settings.pg_path, devices: HashMap::new() };
    let mut needs: BTreeMap<u64, Need> = BTreeMap::new();
    // Sorted by name, so most files are in the directory of the previous one
    let mut last: Option<(&str, u64)> = None;
    for file in &manifest.files {
        if file.size == 0 || zero.is_some_and(|zero| zero.is_zeroed(&file.name)) {
            continue;
        }
        let directory = file.name.rsplit_once('/').map_or("", |(directory, _)| directory);
        let linked = manifest.target(&file.name);
        let device = match (linked, last) {
            (Some(target), _) => device_of(&target_path(manifest, settings.pg_path, target))?,
            (None, Some((known, device))) if known == directory => device,
            (None, _) => places.device(directory)?,
        };
        if linked.is_none() {
            last = Some((directory, device));
        }
        let need = needs.entry(device).or_insert_with(|| Need {
            path: linked
                .map_or_else(|| places.path(directory), |target| target_path(manifest, settings.pg_path, target)),
            bytes: 0,
            reusable: 0,
            shared: 0,
        });
        need.bytes = need.bytes.saturating_add(file.size);
    }
    Ok(needs)
}

/// Finds the file systems of a manifest's directories.
struct Devices<'a> {
    manifest: &'a Manifest,
    pg_path: &'a str,
    devices: HashMap<&'a str, u64>,
}

impl<'a> Devices<'a> {
    /// Returns the path of a directory of the manifest after links were created.
    fn path(&self, name: &str) -> String {
        let mut above = name;
        loop {
            if let Some(target) = self.manifest.target(above).filter(|target| target.file.is_none()) {
                return format!("{}{}", target_path(self.manifest, self.pg_path, target), &name[above.len()..]);
            }
            match above.rsplit_once('/') {
                Some((parent, _)) => above = parent,
                None => return pg_absolute(self.pg_path, name),
            }
        }
    }

    fn device(&mut self, name: &'a str) -> Result<u64> {
        if let Some(device) = self.devices.get(name) {
            return Ok(*device);
        }
        let path = self.path(name);
        let is_target = self.manifest.target(name).is_some();
        let device = match (symlink_metadata(&path)?, name.rsplit_once('/')) {
            // A mount point in the data directory has its own file system
            (Some(metadata), _) if metadata.is_dir() => metadata.dev(),
            // A link that the manifest does not have is removed
            (_, Some((parent, _))) if !is_target && !matches!(parent, PG_TBLSPC) && name != PG_DATA => {
                self.device(parent)?
            }
            _ => device_of(&path)?,
        };
        self.devices.insert(name, device);
        Ok(device)
    }
}

/// Returns the path itself, or the nearest existing directory above it.
fn existing(path: &str) -> Result<(&str, fs::Metadata)> {
    let mut path = path;
    loop {
        if let Some(metadata) = metadata(path)? {
            return Ok((path, metadata));
        }
        path = super::names::dir_name(path)
            .filter(|parent| *parent != path)
            .ok_or_else(|| Error::new(ErrorCode::PathMissing, format!("unable to find a directory above '{path}'")))?;
    }
}

fn device_of(path: &str) -> Result<u64> {
    Ok(existing(path)?.1.dev())
}

fn room(path: &str) -> Result<Room> {
    let (path, _) = existing(path)?;
    let fail = |error: rustix::io::Errno| {
        Error::from_io(ErrorCode::FileInfo, format!("unable to get free space of '{path}'"), error.into())
    };
    let space = rustix::fs::statvfs(path).map_err(fail)?;
    let kind = rustix::fs::statfs(path).map_err(fail)?;
    // Part of the space is reserved for root
    let blocks = if rustix::process::geteuid().is_root() { space.f_bfree } else { space.f_bavail };
    // A file system without an end says that it has no blocks
    let bytes = if space.f_blocks == 0 { u64::MAX } else { blocks.saturating_mul(space.f_frsize) };
    // The field's type differs between platforms
    Ok(Room { bytes, is_plain: PLAIN.contains(&(kind.f_type as u64)) })
}

fn add_file(metadata: &fs::Metadata, needs: &mut BTreeMap<u64, Need>) {
    if metadata.is_file()
        && let Some(need) = needs.get_mut(&metadata.dev())
    {
        let bytes = metadata.blocks().saturating_mul(512);
        // Another name of the file keeps its space
        let total = if metadata.nlink() == 1 { &mut need.reusable } else { &mut need.shared };
        *total = total.saturating_add(bytes);
    }
}

fn add_reusable(path: &Path, needs: &mut BTreeMap<u64, Need>) -> Result<()> {
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        let fail = |error| {
            let text = format!("unable to list file info for path '{}'", path.display());
            Error::from_io(ErrorCode::PathOpen, text, error)
        };
        let list = match fs::read_dir(&path) {
            Ok(list) => list,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(fail(error)),
        };
        for entry in list {
            let entry = entry.map_err(fail)?;
            let metadata = entry.metadata().map_err(fail)?;
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else {
                add_file(&metadata, needs);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{TABLESPACE_DIR, manifest};
    use super::super::remap::{MapSettings, remap};
    use super::*;

    fn need(bytes: u64, reusable: u64) -> Need {
        Need { path: "/pg".to_owned(), bytes, reusable, shared: 0 }
    }

    #[test]
    fn backup_that_does_not_fit_is_refused_with_the_numbers() {
        let error = judge(&need(3000, 1000), Room { bytes: 1999, is_plain: true }).unwrap_err();
        assert_eq!(error.code, ErrorCode::FileWrite);
        for part in ["2.9KB needed", "'/pg'", "2KB free", "1000B in files"] {
            assert!(error.message.contains(part), "{error}");
        }
    }

    #[test]
    fn backup_that_fits_over_its_old_files_or_when_compressed_passes() {
        judge(&need(3000, 1000), Room { bytes: 2000, is_plain: true }).unwrap();
        judge(&need(3000, 0), Room { bytes: 1, is_plain: false }).unwrap();
        // A copy of the cluster by hard links: what already matches needs no room
        let need = Need { shared: 3000, ..need(3000, 0) };
        judge(&need, Room { bytes: 1, is_plain: true }).unwrap();
    }

    /// Checks the fixture's manifest with a file of this many bytes, restored into a folder of this host.
    fn checked(dir: &tempfile::TempDir, size: u64, delta: bool) -> Result<()> {
        let pg_path = dir.path().join("pg").display().to_string();
        let mut manifest = manifest();
        let all = Some(format!("{}/ts", dir.path().display()));
        remap(&mut manifest, &pg_path, &MapSettings { tablespaces_all: all, ..MapSettings::default() }).unwrap();
        manifest.files[1].size = size;
        let settings = CleanSettings { pg_path: &pg_path, delta, keep: &[], tablespace_dir: TABLESPACE_DIR };
        check(&manifest, &settings, None)
    }

    #[test]
    fn check_asks_the_file_system_of_a_directory_that_is_not_there_yet() {
        let dir = tempfile::tempdir().unwrap();
        checked(&dir, 10, false).unwrap();
        let plain = room(dir.path().to_str().unwrap()).unwrap().is_plain;
        for delta in [false, true] {
            assert_eq!(checked(&dir, 1 << 60, delta).is_err(), plain);
        }
    }

    #[test]
    fn files_in_the_way_count_as_room_but_not_those_with_a_second_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/a"), vec![1; 100_000]).unwrap();
        fs::write(dir.path().join("b"), vec![1; 100_000]).unwrap();
        fs::hard_link(dir.path().join("b"), dir.path().join("c")).unwrap();
        let metadata = fs::metadata(dir.path().join("sub/a")).unwrap();
        let mut needs = BTreeMap::from([(metadata.dev(), need(1, 0))]);
        add_reusable(dir.path(), &mut needs).unwrap();
        let need = &needs[&metadata.dev()];
        assert_eq!((need.reusable, need.shared), (metadata.blocks() * 512, 2 * metadata.blocks() * 512));
    }
}
