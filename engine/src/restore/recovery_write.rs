//! Writes the recovery settings into a restored data directory.

use std::io::{ErrorKind, Read, Write};

use jiff::Timestamp;
use repo_format::manifest::PG_DATA;
use repo_format::pg::PgVersion;
use rustix::fs::{Mode, OFlags, fstat};

use super::backup_set::local_time;
use super::names::pg_absolute;
use super::ownership::{Owner, Ownership};
use super::places::{Places, regular};
use super::recovery_conf::{RecoverySettings, RecoveryType, VERSION_RECOVERY_SETTINGS};
use crate::{Error, ErrorCode, Result, info, warn};

/// Bits of the data directory's mode that the files get. They are not secret to anybody who may read the directory, and
/// only their owner writes them.
const MODE_MASK: u32 = 0o644;

/// Mode and owner of the files.
struct FileAttributes {
    mode: Mode,
    owner: Owner,
    is_root: bool,
}

/// Writes `postgresql.auto.conf` and a signal file, or `recovery.conf` before PostgreSQL 12.
///
/// # Errors
/// A file can't be written.
pub(super) fn write(
    recovery: &RecoverySettings,
    pg_path: &str,
    places: &Places,
    version: PgVersion,
    ownership: &Ownership,
) -> Result<()> {
    let files = Files { places, pg_path };
    let has_settings_file = version >= VERSION_RECOVERY_SETTINGS;
    let file_name = if has_settings_file { "postgresql.auto.conf" } else { "recovery.conf" };
    let path = format!("{}/{file_name}", pg_path);
    if recovery.kind == RecoveryType::Preserve {
        if files.read(file_name)?.is_none() {
            warn!("recovery type is preserve but recovery file does not exist at '{path}'");
        }
        return Ok(());
    }

    let data_dir = fstat(places.data_dir()?.handle()).map_err(|error| {
        let text = format!("unable to get info for path/file '{}'", pg_path);
        Error::from_io(ErrorCode::FileOpen, text, error.into())
    })?;
    let attributes = FileAttributes {
        mode: Mode::from_raw_mode(data_dir.st_mode & MODE_MASK),
        owner: ownership.of_new_file(Owner { uid: data_dir.st_uid, gid: data_dir.st_gid }),
        is_root: ownership.is_root(),
    };
    let time = local_time(Timestamp::now().as_second());
    if !has_settings_file {
        if recovery.kind != RecoveryType::None {
            info!("write {path}");
            files.write(file_name, recovery.text(version, &time).as_bytes(), &attributes)?;
        }
        return Ok(());
    }

    let existing = files.read(file_name)?;
    if existing.is_none() {
        warn!("postgresql.auto.conf does not exist -- creating to contain recovery settings");
    }
    info!("write {}{path}", if existing.is_some() { "updated " } else { "" });
    files.write(file_name, &recovery.auto_conf(version, existing.as_deref(), &time), &attributes)?;
    match recovery.signal_file() {
        Some(name) => files.write(name, b"", &attributes),
        None => Ok(()),
    }
}

/// The files of the data directory.
struct Files<'a> {
    places: &'a Places,
    pg_path: &'a str,
}

impl Files<'_> {
    /// Returns the content of a file, or `None` if it is missing.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let name = format!("{PG_DATA}/{name}");
        let path = pg_absolute(self.pg_path, &name);
        let mut file = match self.places.content(&name)?.open(OFlags::RDONLY) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(Error::from_io(
                    ErrorCode::FileOpen,
                    format!("unable to open file '{path}' for read"),
                    error,
                ));
            }
        };
        regular(&file, &path)?;
        let mut content = Vec::new();
        file.read_to_end(&mut content)
            .map_err(|error| Error::from_io(ErrorCode::FileRead, format!("unable to read '{path}'"), error))?;
        Ok(Some(content))
    }

    fn write(&self, name: &str, content: &[u8], attributes: &FileAttributes) -> Result<()> {
        let name = format!("{PG_DATA}/{name}");
        let path = pg_absolute(self.pg_path, &name);
        let fail = |error| Error::from_io(ErrorCode::FileWrite, format!("unable to write '{path}'"), error);
        let (mut file, _) = self.places.content(&name)?.write(OFlags::WRONLY, attributes.mode, false, &path)?;
        if attributes.is_root {
            let Owner { uid, gid } = attributes.owner;
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid)).map_err(|error| {
                Error::from_io(ErrorCode::FileOwner, format!("unable to set ownership for '{path}'"), error)
            })?;
        }
        file.write_all(content).map_err(fail)?;
        // Not in the manifest, so no other sync of single files would reach it
        file.sync_all().map_err(|error| {
            Error::from_io(ErrorCode::FileSync, format!("unable to sync file '{path}' after write"), error)
        })
    }
}
