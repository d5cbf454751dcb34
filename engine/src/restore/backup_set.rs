//! Finds the backup set to restore in the repositories, and loads its manifest.

use jiff::Timestamp;
use repo_format::backup_info::PgHistory;
use repo_format::cipher::Cipher;
use repo_format::hash::Sha1;
use repo_format::label::BackupLabel;
use repo_format::layout::{ArchiveId, Stanza};
use repo_format::manifest::Manifest;
use repo_format::wal_name::{Lsn, TimelineId};

use super::recovery_conf::{RecoverySettings, RecoveryType};
use super::request::RestoreRequest;
use super::set_select::{self, Candidate, Choice, Criterion};
use super::target_time::{self, TargetTime};
use super::timeline::{self, ArchivePlace, BackupPosition};
use crate::repo::{info_files, manifest_store};
use crate::{Error, ErrorCode, Repo, Result, info, warn};

/// The backup set to restore.
pub(super) struct BackupSet<'a> {
    /// The first repository with a suitable one.
    pub(super) repo: &'a Repo,
    /// Its manifest.
    pub(super) manifest: Manifest,
    /// How far to recover it.
    pub(super) recovery: RecoverySettings,
    /// The clusters that the stanza had.
    pub(super) history: Vec<PgHistory>,
    /// The timeline that recovery goes to; `None` for an offline backup.
    pub(super) timeline: Option<TimelineId>,
}

/// A backup set in backup.info.
struct ListedSet<'a> {
    repo: &'a Repo,
    label: BackupLabel,
    /// How its manifest is encrypted.
    cipher: Cipher,
    history: Vec<PgHistory>,
}

/// Chooses the backup set, loads its manifest and checks that recovery can follow the timeline.
///
/// # Errors
/// [`ErrorCode::BackupSetInvalid`] if no repository has a suitable set; [`ErrorCode::Format`] if the manifest
/// contradicts itself or the target time has no valid form; the recovery target can't be reached.
pub(super) fn find<'a>(request: &RestoreRequest, stanza: &Stanza, repos: &'a [Repo]) -> Result<BackupSet<'a>> {
    let mut recovery = request.recovery.clone();
    let target_time = match &recovery.kind {
        RecoveryType::Time(text) => Some(read_target_time(text)?),
        _ => None,
    };
    let ListedSet { repo, label, cipher, history } = choose(request, stanza, repos, target_time.as_ref())?;
    if let Some(target) = target_time {
        if target.is_local {
            info!("target time is interpreted in the time zone of this host: '{}'", target.setting);
        }
        recovery.kind = RecoveryType::Time(target.setting);
    }
    let manifest = manifest_store::load(repo, stanza, &label, &cipher)?;
    let timeline = match manifest.data.options.online {
        true => Some(verify_timeline(&recovery, stanza, repo, &manifest)?),
        false => None,
    };
    if timeline.is_none() && request.recovery_is_default {
        recovery.kind = RecoveryType::None;
    }
    recovery.check(manifest.data.pg_version)?;
    check(&manifest, &label)?;
    let start = match manifest.data.options.online {
        true => format!(", recovery will start at {}", local_time(manifest.data.timestamp_start)),
        false => String::new(),
    };
    info!("{}: restore backup set {label}{start}", repo.name());
    Ok(BackupSet { repo, manifest, recovery, history, timeline })
}

/// Checks what a manifest of a complete backup has.
fn check(manifest: &Manifest, label: &BackupLabel) -> Result<()> {
    manifest.validate(false)?;
    if let Some(file) = manifest.files.iter().find(|file| file.size == 0 && file.checksum != Some(Sha1::EMPTY)) {
        return Err(Error::new(
            ErrorCode::Checksum,
            format!("size 0 of file '{}' in the manifest does not match its checksum", file.name),
        ));
    }
    if manifest.files.is_empty() {
        return Err(Error::new(ErrorCode::Format, "manifest missing files"));
    }
    if manifest.data.label != *label {
        return Err(Error::new(
            ErrorCode::Format,
            format!("requested backup '{label}' and manifest label '{}' do not match", manifest.data.label),
        )
        .hint("this indicates some sort of corruption (at the very least paths have been renamed)."));
    }
    Ok(())
}

/// Reads the target that selects the set and ends recovery. Both must be the same instant, and PostgreSQL must be able
/// to read it after hours of copying.
pub(crate) fn read_target_time(text: &str) -> Result<TargetTime> {
    target_time::read(text, crate::time_zone::local()).map_err(|_| {
        Error::new(
            ErrorCode::Format,
            format!("automatic backup set selection cannot be performed with provided time '{text}'"),
        )
        .hint(
            "time format must be YYYY-MM-DD HH:MM:SS with optional msec and optional timezone (+/- HH or HHMM or HH:MM) - if \
             timezone is omitted, local time is assumed (for UTC use +00)",
        )
    })
}

fn choose<'a>(
    request: &RestoreRequest,
    stanza: &Stanza,
    repos: &'a [Repo],
    target_time: Option<&TargetTime>,
) -> Result<ListedSet<'a>> {
    let mut target = "";
    let criterion = match (&request.set, &request.recovery.kind) {
        (Some(label), _) => Criterion::Label(label.clone()),
        (None, RecoveryType::Time(time)) => {
            target = time;
            Criterion::StoppedBefore(target_time.map(|target| target.seconds).unwrap_or_default())
        }
        (None, RecoveryType::Lsn(lsn)) => {
            target = lsn;
            Criterion::StoppedAt(lsn.parse()?)
        }
        (None, _) => Criterion::Newest,
    };
    let mut cipher_hints = Vec::new();
    for repo in repos {
        let name = repo.name();
        let info = match info_files::load_backup_info(repo, stanza) {
            Ok(info) => info,
            Err(error) => {
                warn!("{name}: [{}] {error}", error.code);
                cipher_hints.extend(info_files::cipher_option_hint(&error).map(ToOwned::to_owned));
                continue;
            }
        };
        if info.backups.is_empty() {
            warn!("{name}: [{}] no backup sets to restore", ErrorCode::BackupSetInvalid);
            continue;
        }
        let candidates = Candidate::all(&info);
        match set_select::choose(&criterion, &candidates, info.current().id)? {
            Choice::Found(label) => {
                let cipher = Cipher::from_passphrase(info.cipher_pass.as_ref());
                return Ok(ListedSet { repo, label, cipher, history: info.history });
            }
            Choice::Next => {}
            Choice::NoLsn => warn!(
                "{name} reached backup from prior version missing required LSN info before finding a match -- backup \
                 auto-select has been disabled for this repo\nHINT: you may specify a backup to restore using the --set option."
            ),
        }
    }
    Err(cipher_hints.into_iter().fold(set_select::not_found(&criterion, target), Error::hint))
}

fn verify_timeline(
    recovery: &RecoverySettings,
    stanza: &Stanza,
    repo: &Repo,
    manifest: &Manifest,
) -> Result<TimelineId> {
    let data = &manifest.data;
    let missing = |key: &str| Error::new(ErrorCode::Format, format!("online backup has no '{key}' in its manifest"));
    let archive_start = data.archive_start.ok_or_else(|| missing("backup-archive-start"))?;
    let lsn_start: Lsn = data.lsn_start.as_deref().ok_or_else(|| missing("backup-lsn-start"))?.parse()?;
    let archive_info = info_files::load_archive_info(repo, stanza)?;
    let archive = ArchivePlace {
        repo,
        stanza,
        id: ArchiveId { version: data.pg_version, id: data.pg_id },
        cipher: info_files::archive_cipher(repo, stanza, &archive_info),
    };
    timeline::verify(
        &archive,
        recovery.target_timeline.as_deref(),
        data.pg_version,
        recovery.kind == RecoveryType::Immediate,
        BackupPosition { timeline: archive_start.timeline, lsn_start },
    )
}

/// Formats a time as in messages and recovery settings: `YYYY-MM-DD HH:MM:SS` of this host.
pub(super) fn local_time(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(time) => time.to_zoned(crate::time_zone::local().clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => seconds.to_string(),
    }
}
