//! Differential and incremental backups: the backup that they are based on, and what is reused from it.
//!
//! Source of the rules: pgBackRest `src/command/backup/incr.c.inc` and `manifestBuildIncr` in
//! `src/info/manifest/manifest.c`.

use repo_format::backup_info::BackupInfo;
use repo_format::compress::{CompressType, Compression};
use repo_format::label::{BackupLabel, BackupType};
use repo_format::layout::Stanza;
use repo_format::manifest::{Manifest, pg_path};
use repo_format::wal_name::WalSegment;

use super::draft::{BackupFile, Draft, FileState};
use super::settings::BackupRequest;
use crate::pipeline::backup::CopyMethod;
use crate::repo::{Repo, info_files, manifest_store};
use crate::{Error, ErrorCode, Result, info, warn};

/// Returns the newest backup of this cluster on which a backup of this type can be based. All backups of a set have the
/// same format.
pub(super) fn prior_label(info: &BackupInfo, kind: BackupType) -> Option<BackupLabel> {
    let (current, format) = (info.current().id, info.format.number());
    info.backups
        .iter()
        .rev()
        .find(|(label, entry)| {
            (kind != BackupType::Diff || label.backup_type() == BackupType::Full)
                && (entry.pg_id, entry.backrest_format) == (current, format)
        })
        .map(|(label, _)| label.clone())
}

/// What a backup is based on, and the settings that follow from it.
pub(super) struct Basis {
    pub(super) kind: BackupType,
    pub(super) compression: Compression,
    /// Whether pages are checked.
    pub(super) checksum_page: bool,
    /// The manifest of the prior backup; `None` for a full backup.
    pub(super) prior: Option<Manifest>,
}

/// Loads the manifest of the prior backup, and resets settings that must not change within a set to those of the prior
/// backup. Without a prior backup the type becomes full.
///
/// `checksum_page` is what was decided for this backup so far.
///
/// # Errors
/// The manifest can't be loaded.
pub(super) fn load_prior(
    repo: &Repo,
    stanza: &Stanza,
    info: &BackupInfo,
    settings: &BackupRequest,
    checksum_page: bool,
) -> Result<Basis> {
    let (kind, compression) = (settings.kind, settings.compression);
    let full = Basis { kind: BackupType::Full, compression, checksum_page, prior: None };
    if kind == BackupType::Full {
        return Ok(full);
    }
    let Some(label) = prior_label(info, kind) else {
        warn!("no prior backup exists, {kind} backup has been changed to full");
        return Ok(full);
    };
    let prior = manifest_store::load(repo, stanza, &label, &info_files::manifest_cipher(info))?;
    if prior.format != info.format {
        let text = format!("backup '{label}' has repository format {} but backup.info {}", prior.format, info.format);
        return Err(Error::new(ErrorCode::Format, text));
    }
    info!("last backup label = {label}, version = {}", prior.backrest_version);

    let options = &prior.data.options;
    let compression = if options.compress_type == compression.kind {
        compression
    } else {
        warn!("{kind} backup cannot alter compress-type option to '{}', reset to value in {label}", compression.kind);
        prior_compression(options.compress_type, options.compress_level)?
    };
    if let Some(prior_value) = options.checksum_page.filter(|value| *value != checksum_page) {
        warn!(
            "{kind} backup cannot alter 'checksum-page' option to '{checksum_page}', reset to '{prior_value}' from \
             {label}"
        );
    }
    // A set without the option is older than page checks; they start with the next full backup
    let checksum_page = options.checksum_page.unwrap_or(false);
    Ok(Basis { kind, compression, checksum_page, prior: Some(prior) })
}

fn prior_compression(kind: CompressType, level: Option<u32>) -> Result<Compression> {
    let Some(level) = level else {
        return Err(Error::new(ErrorCode::Format, "compress-level missing in prior manifest"));
    };
    // Negative levels are stored unsigned
    Compression::new(kind, Some(level.cast_signed()))
}

/// Reuses entries of the prior manifest that may be unchanged, and decides which files are copied and how they are
/// compared.
///
/// # Errors
/// [`ErrorCode::Format`] if references of the prior manifest contradict each other.
pub(super) fn merge(draft: &mut Draft, prior: &Manifest, archive_start: Option<&WalSegment>) -> Result<()> {
    let manifest = &mut draft.manifest;
    manifest.data.prior = Some(prior.data.label.clone());
    manifest.references = prior.references.clone();
    manifest.references.push(manifest.data.label.clone());
    // Raw framing must be the same in a whole set
    manifest.data.bundle_raw = prior.data.bundle_raw;
    let prior_index = prior
        .references
        .iter()
        .position(|label| *label == prior.data.label)
        .and_then(|index| u32::try_from(index).ok())
        .ok_or_else(|| {
            Error::new(ErrorCode::Format, format!("backup '{}' is missing in its own references", prior.data.label))
        })?;

    let delta = decide_delta(draft, prior, archive_start);
    draft.manifest.data.options.delta = Some(delta);
    for BackupFile { entry: file, state } in &mut draft.files {
        if *state == FileState::Complete {
            continue;
        }
        let Some(known) = prior.file(&file.name) else { continue };
        let same_size = file.size == known.size;
        // With less than one block left, the prior map is useless, and the map of an empty file has no blocks
        let keeps_map =
            known.size > 0 && known.block.is_some_and(|block| block.map_size > 0 && file.size >= u64::from(block.size));
        let compare = delta && same_size && file.size != 0;
        if (file.size == 0 && known.size == 0) || (!compare && same_size && file.timestamp == known.timestamp) {
            *state = FileState::Complete;
        } else if compare {
            *state = FileState::Pending(CopyMethod::Compare);
        }
        if same_size || keeps_map {
            file.size = known.size;
            file.size_repo = known.size_repo;
            file.checksum = known.checksum;
            file.checksum_repo = known.checksum_repo;
            file.reference = Some(known.reference.unwrap_or(prior_index));
            file.page_check = known.page_check.clone();
            file.bundle = known.bundle;
            file.block = known.block;
        }
    }
    Ok(())
}

/// Returns whether files have to be compared by checksum because their times can't be trusted.
fn decide_delta(draft: &Draft, prior: &Manifest, archive_start: Option<&WalSegment>) -> bool {
    let manifest = &draft.manifest;
    let mut delta = manifest.data.options.delta == Some(true);
    let timelines = archive_start.zip(prior.data.archive_stop.as_ref());
    if timelines.is_some_and(|(start, stop)| start.timeline != stop.timeline) {
        warn!(
            "a timeline switch has occurred since the {} backup, enabling delta checksum\nHINT: this is normal after \
             restoring from backup or promoting a standby.",
            prior.data.label
        );
        delta = true;
    } else if prior.data.options.online != manifest.data.options.online {
        warn!("the online option has changed since the {} backup, enabling delta checksum", prior.data.label);
        delta = true;
    }
    if delta {
        return true;
    }
    for file in draft.files.iter().map(|file| &file.entry) {
        let Some(known) = prior.file(&file.name) else { continue };
        let path = pg_path(&file.name);
        if file.timestamp < known.timestamp {
            warn!(
                "file '{path}' has timestamp earlier than prior backup (prior {}, current {}), enabling delta checksum",
                known.timestamp, file.timestamp
            );
            return true;
        }
        if file.size_original != known.size_original && file.timestamp == known.timestamp {
            warn!(
                "file '{path}' has same timestamp ({}) as prior but different size (prior {}, current {}), enabling \
                 delta checksum",
                file.timestamp, known.size_original, file.size_original
            );
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use repo_format::hash::Sha1;
    use repo_format::label::CivilTime;
    use repo_format::manifest::{BlockIncr, Bundle, ManifestData, ManifestFile};
    use repo_format::pg::PgVersion;

    use super::*;
    use crate::backup::draft::all_pending;

    const TIME: CivilTime = CivilTime { year: 2026, month: 1, day: 1, hour: 0, minute: 0, second: 0 };

    fn prior() -> Manifest {
        let label = BackupLabel::format(BackupType::Full, None, &TIME).unwrap();
        let mut prior = Manifest::new(ManifestData::new(label, BackupType::Full, 1_000, PgVersion::V15, 1));
        prior.data.archive_stop = Some("000000010000000000000005".parse().unwrap());
        prior.data.options.online = true;
        prior.data.bundle_raw = true;
        prior
    }

    fn stored(name: &str, size: u64, time: i64) -> ManifestFile {
        ManifestFile {
            checksum: Some(Sha1::of(name.as_bytes())),
            size_repo: size / 2,
            bundle: Bundle::new(1, 7),
            ..ManifestFile::new(name, size, time)
        }
    }

    fn next(prior: &Manifest, files: &[(&str, u64, i64)]) -> Draft {
        let label =
            BackupLabel::format(BackupType::Diff, Some(&prior.data.label), &CivilTime { day: 2, ..TIME }).unwrap();
        let mut manifest = Manifest::new(ManifestData::new(label, BackupType::Diff, 2_000, PgVersion::V15, 1));
        manifest.data.options.online = true;
        manifest.data.options.delta = Some(false);
        manifest.files = files.iter().map(|(name, size, time)| ManifestFile::new(name, *size, *time)).collect();
        all_pending(manifest)
    }

    fn segment(text: &str) -> WalSegment {
        text.parse().unwrap()
    }

    #[test]
    fn merge_refers_to_files_of_equal_size_and_copies_what_has_another_time() {
        let mut prior = prior();
        prior.files = vec![stored("pg_data/a", 10, 5), stored("pg_data/b", 10, 5), stored("pg_data/c", 10, 5)];
        let mut draft =
            next(&prior, &[("pg_data/a", 10, 5), ("pg_data/b", 10, 6), ("pg_data/c", 11, 6), ("pg_data/d", 1, 6)]);
        merge(&mut draft, &prior, Some(&segment("000000010000000000000006"))).unwrap();
        let copies: Vec<bool> = draft.files.iter().map(|file| file.pending().is_some()).collect();
        assert_eq!(copies, [false, true, true, true]);
        let references: Vec<Option<u32>> = draft.files.iter().map(|file| file.entry.reference).collect();
        assert_eq!(references, [Some(0), Some(0), None, None]);
        let Draft { manifest, files } = draft;
        assert_eq!(files[1].entry.checksum, prior.files[1].checksum);
        assert_eq!(files[1].entry.bundle, prior.files[1].bundle);
        assert_eq!(manifest.references, [prior.data.label.clone(), manifest.data.label.clone()]);
        assert_eq!(manifest.data.prior, Some(prior.data.label.clone()));
        assert!(manifest.data.bundle_raw);
        assert_eq!(manifest.data.options.delta, Some(false));
    }

    #[test]
    fn merge_keeps_the_map_of_a_file_that_still_has_a_block() {
        let mut prior = prior();
        let block = Some(BlockIncr { size: 8192, checksum_size: 6, map_size: 30 });
        prior.files = ["pg_data/a", "pg_data/b"].map(|name| ManifestFile { block, ..stored(name, 80_000, 5) }).into();
        // pgBackRest can write an empty map for a file that became empty before it was copied
        let empty = Some(BlockIncr { size: 8192, checksum_size: 6, map_size: 1 });
        prior.files.push(ManifestFile { block: empty, size_repo: 1, bundle: None, ..stored("pg_data/c", 0, 5) });
        let mut draft = next(&prior, &[("pg_data/a", 8192, 6), ("pg_data/b", 8191, 6), ("pg_data/c", 80_000, 6)]);
        merge(&mut draft, &prior, None).unwrap();
        // Until it is copied, the entry describes the prior backup's file
        let first = &draft.files[0].entry;
        assert_eq!((first.size, first.size_original), (80_000, 8192));
        assert_eq!((first.block, first.reference), (block, Some(0)));
        for file in draft.files[1..].iter().map(|file| &file.entry) {
            assert_eq!((file.block, file.reference), (None, None), "{}", file.name);
        }
        assert!(draft.files.iter().all(|file| file.pending() == Some(CopyMethod::Copy)));
    }

    #[test]
    fn merge_with_delta_compares_files_of_equal_size_but_no_empty_ones() {
        let mut prior = prior();
        prior.files = vec![stored("pg_data/a", 10, 5), stored("pg_data/b", 0, 5), stored("pg_data/c", 3, 5)];
        let mut draft = next(&prior, &[("pg_data/a", 10, 5), ("pg_data/b", 0, 6), ("pg_data/c", 4, 6)]);
        draft.manifest.data.options.delta = Some(true);
        merge(&mut draft, &prior, None).unwrap();
        let states: Vec<Option<CopyMethod>> = draft.files.iter().map(BackupFile::pending).collect();
        assert_eq!(states, [Some(CopyMethod::Compare), None, Some(CopyMethod::Copy)]);
    }

    #[test]
    fn delta_is_switched_on_when_times_can_not_be_trusted() {
        let mut prior = prior();
        prior.files = vec![stored("pg_data/a", 10, 5)];
        let delta = |file: (&str, u64, i64), start: &str, online: bool| {
            let mut draft = next(&prior, &[file]);
            draft.manifest.data.options.online = online;
            merge(&mut draft, &prior, Some(&segment(start))).unwrap();
            draft.manifest.data.options.delta == Some(true)
        };
        let (same, other) = ("000000010000000000000006", "000000020000000000000006");
        assert!(!delta(("pg_data/a", 10, 5), same, true));
        assert!(delta(("pg_data/a", 10, 5), other, true));
        assert!(delta(("pg_data/a", 10, 5), same, false));
        assert!(delta(("pg_data/a", 10, 4), same, true));
        assert!(delta(("pg_data/a", 11, 5), same, true));
        assert!(!delta(("pg_data/a", 11, 6), same, true));
    }
}
