//! The last step of a restore. Before it, no server can start on the files.

use std::io::{Read, Seek, Write};

use repo_format::manifest::Manifest;
use repo_format::pg::control::invalidate_checkpoint;
use rustix::fs::OFlags;

use super::file::set_time;
use super::names::{PG_CONTROL_TEMP, restored_path};
use super::places::{Places, regular};
use super::request::RestoreRequest;
use crate::pg::data_dir::PG_CONTROL;
use crate::{Error, ErrorCode, Result, info, warn};

/// Renames `pg_control` to its final name, so that the cluster can be started.
///
/// # Errors
/// The file can't be read or written, or does not match its version.
pub(super) fn give_control_its_name(request: &RestoreRequest, places: &Places, manifest: &Manifest) -> Result<()> {
    let path = format!("{}/global/pg_control", request.pg_path);
    let temp = restored_path(&request.pg_path, PG_CONTROL);
    let Some(file) = manifest.file(PG_CONTROL) else {
        warn!("backup does not contain 'global/pg_control' -- cluster will not start");
        return Ok(());
    };
    let place = places.content(PG_CONTROL_TEMP)?;
    if manifest.data.options.online {
        // Without backup_label the cluster must not start, because it would begin at the wrong checkpoint
        let fail = |error| Error::from_io(ErrorCode::FileRead, format!("unable to read '{temp}'"), error);
        let mut out = place.open(OFlags::RDWR).map_err(fail)?;
        regular(&out, &temp)?;
        let mut control = Vec::new();
        out.read_to_end(&mut control).map_err(fail)?;
        invalidate_checkpoint(&mut control, request.pg_version_force)?;
        let fail = |error| Error::from_io(ErrorCode::FileWrite, format!("unable to write '{temp}'"), error);
        out.rewind().map_err(fail)?;
        out.write_all(&control).map_err(fail)?;
        out.sync_all().map_err(|error| {
            Error::from_io(ErrorCode::FileSync, format!("unable to sync file '{temp}' after write"), error)
        })?;
        set_time(&out, file.timestamp, &temp)?;
    }
    info!("restore global/pg_control (performed last to ensure aborted restores cannot be started)");
    place
        .dir
        .rename(place.name, "pg_control")
        .map_err(|error| Error::from_io(ErrorCode::FileMove, format!("unable to move '{temp}' to '{path}'"), error))
}
