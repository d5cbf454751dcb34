//! Writes the recovery settings into a restored data directory.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use jiff::Timestamp;
use repo_format::pg::PgVersion;
use rustix::fs::OFlags;

use super::file::check_regular;
use super::ownership::{Owner, Ownership};
use super::recovery_conf::{RecoveryType, VERSION_RECOVERY_SETTINGS};
use super::{RestoreSettings, local_time};
use crate::pg::data_dir;
use crate::{Error, ErrorCode, Result, info, warn};

/// Bits of the data directory's mode that the files get: they are no secrets to who may read the directory, and only their
/// owner writes them.
const MODE_MASK: u32 = 0o644;

/// Mode and owner of the files.
struct Attributes {
    mode: u32,
    owner: Owner,
    is_root: bool,
}

/// Writes `postgresql.auto.conf` and a signal file, or `recovery.conf` before PostgreSQL 12.
///
/// # Errors
/// A file can't be written.
pub(super) fn write(settings: &RestoreSettings, version: PgVersion, ownership: &Ownership) -> Result<()> {
    let path_of = |name: &str| format!("{}/{name}", settings.pg_path);
    let recovery = &settings.recovery;
    let has_settings_file = version >= VERSION_RECOVERY_SETTINGS;
    let file_name = if has_settings_file { "postgresql.auto.conf" } else { "recovery.conf" };
    let path = path_of(file_name);
    if recovery.kind == RecoveryType::Preserve {
        if super::metadata(&path)?.is_none() {
            warn!("recovery type is preserve but recovery file does not exist at '{path}'");
        }
        return Ok(());
    }

    let data_dir = fs::metadata(&settings.pg_path).map_err(|error| {
        Error::from_io(ErrorCode::FileInfo, format!("unable to get info for path/file '{}'", settings.pg_path), error)
    })?;
    let attributes = Attributes {
        mode: data_dir.mode() & MODE_MASK,
        owner: ownership.of_new_file(Owner { uid: data_dir.uid(), gid: data_dir.gid() }),
        is_root: ownership.is_root(),
    };
    let time = local_time(Timestamp::now().as_second());
    if !has_settings_file {
        if recovery.kind != RecoveryType::None {
            info!("write {path}");
            write_file(&path, recovery.text(version, &time).as_bytes(), &attributes)?;
        }
        return Ok(());
    }

    let mut existing = None;
    if let Some(mut file) = data_dir::open_file(Path::new(&path))? {
        let mut content = Vec::new();
        file.read_to_end(&mut content)
            .map_err(|error| Error::from_io(ErrorCode::FileRead, format!("unable to read '{path}'"), error))?;
        existing = Some(content);
    }
    if existing.is_none() {
        warn!("postgresql.auto.conf does not exist -- creating to contain recovery settings");
    }
    info!("write {}{path}", if existing.is_some() { "updated " } else { "" });
    write_file(&path, &recovery.auto_conf(version, existing.as_deref(), &time), &attributes)?;
    match recovery.signal_file() {
        Some(name) => write_file(&path_of(name), b"", &attributes),
        None => Ok(()),
    }
}

fn write_file(path: &str, content: &[u8], attributes: &Attributes) -> Result<()> {
    let fail = |error| Error::from_io(ErrorCode::FileWrite, format!("unable to write '{path}'"), error);
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(attributes.mode)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .map_err(|error| {
            Error::from_io(ErrorCode::FileOpen, format!("unable to open file '{path}' for write"), error)
        })?;
    check_regular(&file, path)?;
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
