//! What a run checks: everything, or one backup with what it needs.

use std::collections::BTreeSet;

use repo_format::label::BackupLabel;
use repo_format::layout::ArchiveId;
use repo_format::manifest::Manifest;

use crate::Result;
use crate::work::retry::is_about_content;

/// The backups to check, by label, and the WAL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    pub labels: Vec<BackupLabel>,
    pub wal: WalScope,
}

/// Which part of the archives is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WalScope {
    All,
    None,
    /// The WAL of one backup.
    Backup(WalFilter),
}

/// The segments that a single backup needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WalFilter {
    /// The archive that has them.
    pub archive_id: String,
    pub first: String,
    pub last: String,
}

impl WalScope {
    /// Returns whether a segment is checked.
    pub fn has(&self, archive_id: &str, segment: &str) -> bool {
        match self {
            WalScope::All => true,
            WalScope::None => false,
            WalScope::Backup(filter) => {
                filter.archive_id == archive_id && segment >= filter.first.as_str() && segment <= filter.last.as_str()
            }
        }
    }
}

impl Scope {
    /// All backups with a directory or an entry in backup.info, and all WAL.
    pub fn all(on_disk: Vec<BackupLabel>, listed: impl IntoIterator<Item = BackupLabel>) -> Self {
        let labels: BTreeSet<BackupLabel> = on_disk.into_iter().chain(listed).collect();
        Scope { labels: labels.into_iter().collect(), wal: WalScope::All }
    }

    /// One backup, its WAL, and, if it has block maps, all backups that it refers to. The map of each file is only known
    /// when the file is read.
    ///
    /// # Errors
    /// The manifest could not be read for a reason that says nothing about it, such as a server that does not answer.
    pub fn of_set(label: BackupLabel, manifest: Result<Manifest>) -> Result<Self> {
        let manifest = match manifest {
            Ok(manifest) => manifest,
            // The backup is reported as invalid later, and no WAL belongs to it
            Err(error) if is_about_content(&error) => {
                return Ok(Scope { labels: vec![label], wal: WalScope::None });
            }
            Err(error) => return Err(error),
        };
        let mut labels = BTreeSet::from([label]);
        if manifest.files.iter().any(|file| file.stored_blocks().is_some()) {
            labels.extend(manifest.references.iter().cloned());
        }
        Ok(Scope { labels: labels.into_iter().collect(), wal: wal_of(&manifest) })
    }
}

fn wal_of(manifest: &Manifest) -> WalScope {
    let data = &manifest.data;
    let (Some(first), Some(last)) = (data.archive_start, data.archive_stop) else { return WalScope::None };
    let archive_id = ArchiveId { version: data.pg_version, id: data.pg_id }.to_string();
    WalScope::Backup(WalFilter { archive_id, first: first.to_string(), last: last.to_string() })
}

#[cfg(test)]
mod tests {
    use super::super::facts::{DIFF, FULL, INCR, block, manifest, plain};
    use super::*;
    use crate::{Error, ErrorCode};

    fn label(text: &str) -> BackupLabel {
        text.parse().unwrap()
    }

    #[test]
    fn all_backups_are_those_on_disk_and_those_in_the_info_file() {
        let scope = Scope::all(vec![label(FULL), label(INCR)], [label(FULL), label(DIFF)]);
        assert_eq!(scope.labels, [label(FULL), label(DIFF), label(INCR)]);
        assert!(scope.wal.has("15-1", "000000010000000000000001"));
    }

    #[test]
    fn set_with_block_maps_has_the_backups_that_it_refers_to() {
        for (file, labels) in [(plain("pg_data/a"), vec![INCR]), (block("pg_data/a"), vec![FULL, INCR])] {
            let mut manifest = manifest(INCR, [file]);
            manifest.references = vec![label(FULL), label(INCR)];
            let labels: Vec<BackupLabel> = labels.into_iter().map(label).collect();
            assert_eq!(Scope::of_set(label(INCR), Ok(manifest)).unwrap().labels, labels);
        }
    }

    #[test]
    fn set_has_only_its_own_wal() {
        let mut manifest = manifest(FULL, [plain("pg_data/a")]);
        assert_eq!(Scope::of_set(label(FULL), Ok(manifest.clone())).unwrap().wal, WalScope::None, "offline");
        manifest.data.archive_start = Some("000000010000000000000002".parse().unwrap());
        manifest.data.archive_stop = Some("000000010000000000000003".parse().unwrap());
        let wal = Scope::of_set(label(FULL), Ok(manifest)).unwrap().wal;
        for (archive_id, segment, expected) in [
            ("15-1", "000000010000000000000001", false),
            ("15-1", "000000010000000000000002", true),
            ("15-1", "000000010000000000000003", true),
            ("15-1", "000000010000000000000004", false),
            ("15-2", "000000010000000000000002", false),
        ] {
            assert_eq!(wal.has(archive_id, segment), expected, "{archive_id}/{segment}");
        }
    }

    #[test]
    fn set_whose_manifest_is_damaged_is_checked_without_wal() {
        for code in [ErrorCode::Checksum, ErrorCode::Format, ErrorCode::Crypto, ErrorCode::FileMissing] {
            let scope = Scope::of_set(label(DIFF), Err(Error::new(code, "x"))).unwrap();
            assert_eq!(scope, Scope { labels: vec![label(DIFF)], wal: WalScope::None }, "{code:?}");
        }
    }

    #[test]
    fn set_whose_manifest_can_not_be_read_now_is_an_error() {
        for code in [ErrorCode::FileRead, ErrorCode::FileOpen, ErrorCode::Service, ErrorCode::HostConnect] {
            let error = Scope::of_set(label(DIFF), Err(Error::new(code, "x"))).unwrap_err();
            assert_eq!(error.code, code);
        }
    }
}
