//! Identifies the cluster in the data directory that a restore is about to overwrite.

use std::path::Path;

use repo_format::backup_info::PgHistory;
use repo_format::pg::PgVersion;

use super::clean::metadata;
use crate::pg::{control_file, data_dir};
use crate::{Error, ErrorCode, Result, detail, warn};

/// The content of the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Present {
    /// No cluster, one that belonged to this stanza at some time, or an unidentifiable one.
    Own,
    /// Another cluster, which the user wants to overwrite.
    Foreign,
}

/// Bytes of `PG_VERSION` that are looked at.
const VERSION_SIZE_MAX: u64 = 64;

/// Checks that the cluster in the data directory belongs to the stanza: by its system identifier, or by its version if
/// `pg_control` can't be read. A cluster from before or after an upgrade belongs to the stanza. pgBackRest overwrites
/// any cluster.
///
/// `force` allows overwriting another cluster.
///
/// # Errors
/// [`ErrorCode::BackupMismatch`] for another cluster.
pub(super) fn check(
    pg_path: &str,
    history: &[PgHistory],
    version_force: Option<PgVersion>,
    force: bool,
) -> Result<Present> {
    let Some(difference) = difference(pg_path, history, version_force)? else { return Ok(Present::Own) };
    if force {
        warn!("{difference}: it is overwritten because of --force, and its files are compared by checksum");
        return Ok(Present::Foreign);
    }
    Err(Error::new(
        ErrorCode::BackupMismatch,
        format!("unable to restore over the cluster in '{pg_path}': {difference}"),
    )
    .hint("is this the right stanza and the right pg-path?")
    .hint("move the cluster away, or use --force to overwrite it."))
}

/// Returns how the cluster differs from those of the stanza, for messages.
fn difference(pg_path: &str, history: &[PgHistory], version_force: Option<PgVersion>) -> Result<Option<String>> {
    let control = format!("{pg_path}/{}", control_file::FILE_NAME);
    if metadata(&control)?.is_some() {
        match control_file::read(Path::new(pg_path), version_force) {
            Ok(control) => {
                let known = history.iter().any(|known| known.system_id == control.system_id);
                return Ok((!known)
                    .then(|| format!("its system identifier {} does not belong to this stanza", control.system_id)));
            }
            // Damage is a reason to restore
            Err(error) => detail!("unable to identify the cluster from '{control}': {error}"),
        }
    }
    let Some(version) = version(pg_path)? else { return Ok(None) };
    let known = history.iter().any(|known| known.version == version);
    Ok((!known).then(|| format!("its version {version} does not belong to this stanza")))
}

/// Returns the version in `PG_VERSION`; `None` if the file is missing or unreadable.
fn version(pg_path: &str) -> Result<Option<PgVersion>> {
    use std::io::Read;
    let path = format!("{pg_path}/PG_VERSION");
    let Some(file) = data_dir::open_file(Path::new(&path))? else { return Ok(None) };
    let mut text = String::new();
    if file.take(VERSION_SIZE_MAX).read_to_string(&mut text).is_err() {
        return Ok(None);
    }
    Ok(text.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use repo_format::pg::control::{CONTROL_FILE_SIZE, PgControl};

    use super::*;

    fn history(version: PgVersion, system_id: u64) -> PgHistory {
        PgHistory { id: 1, version, system_id, catalog_version: 202_209_061, control_version: 1300 }
    }

    /// Creates a data directory with the control file of a real cluster. Returns its system identifier.
    fn cluster() -> (tempfile::TempDir, u64) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("global")).unwrap();
        let bytes = include_bytes!("../../../tests/fixtures/pg/pg_control_15");
        std::fs::write(dir.path().join(control_file::FILE_NAME), bytes).unwrap();
        std::fs::write(dir.path().join("PG_VERSION"), "15\n").unwrap();
        (dir, PgControl::parse(bytes, None).unwrap().system_id)
    }

    fn result(dir: &tempfile::TempDir, history: &[PgHistory], force: bool) -> Result<Present> {
        check(dir.path().to_str().unwrap(), history, None, force)
    }

    #[test]
    fn cluster_of_another_stanza_is_refused_unless_forced() {
        let (dir, id) = cluster();
        let foreign = [history(PgVersion::V15, id ^ 1)];
        let error = result(&dir, &foreign, false).unwrap_err();
        assert_eq!(error.code, ErrorCode::BackupMismatch);
        assert!(error.message.contains(&id.to_string()), "{error}");
        assert_eq!(result(&dir, &foreign, true).unwrap(), Present::Foreign);
    }

    #[test]
    fn cluster_from_before_or_after_an_upgrade_is_the_stanzas_own() {
        let (dir, id) = cluster();
        for history in [
            [history(PgVersion::V15, id), history(PgVersion::V17, 2)],
            [history(PgVersion::V13, 2), history(PgVersion::V15, id)],
        ] {
            assert_eq!(result(&dir, &history, false).unwrap(), Present::Own);
        }
    }

    #[test]
    fn cluster_with_a_damaged_control_file_is_told_by_its_version() {
        let (dir, id) = cluster();
        std::fs::write(dir.path().join(control_file::FILE_NAME), [0; CONTROL_FILE_SIZE]).unwrap();
        assert_eq!(result(&dir, &[history(PgVersion::V15, id)], false).unwrap(), Present::Own);
        assert_eq!(result(&dir, &[history(PgVersion::V17, id)], false).unwrap_err().code, ErrorCode::BackupMismatch);
    }

    #[test]
    fn directory_without_a_cluster_is_no_other_cluster() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(result(&dir, &[history(PgVersion::V15, 1)], false).unwrap(), Present::Own);
    }
}
