//! How long each phase of a backup took, and how much it moved.
//!
//! The figures of the last backups are kept in the repository, so that those who watch it from another host see them:
//! `proof/<stanza>/backups.json`, beside other records of ours that pgBackRest never looks for.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::time::{Duration, Instant};

use repo_format::cipher::{self, Decryptor, Framing};
use repo_format::label::{BackupLabel, BackupType};
use repo_format::layout::{self, Stanza};
use serde::{Deserialize, Serialize};

use crate::storage::{self, ReadRange, WriteOptions};
use crate::work::retry::is_about_content;
use crate::{Error, ErrorCode, Repo, Result};

/// The largest size in bytes of the file. A backup takes less than a thousand.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How many backups have their phases in the file. Of older ones nobody asks, and to ask which of them are gone would take
/// requests.
const BACKUPS_MAX: usize = 200;
/// The format number of the file.
const FORMAT: u32 = 1;
/// The error for another format.
const NEWER: ErrorCode = ErrorCode::VersionNotSupported;

/// A part of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BackupPhase {
    /// Connects to PostgreSQL, reads the info files and the manifest of the prior backup.
    Prepare,
    /// Starts the backup in PostgreSQL, which waits for a checkpoint, and waits for the first WAL segment in the archive.
    Start,
    /// Lists the files and compares them with the prior backup.
    Plan,
    /// Copies files and makes them durable.
    Copy,
    /// Stops the backup in PostgreSQL.
    Stop,
    /// Waits for the last WAL segment in the archive, and copies WAL if that was requested.
    Archive,
    /// Writes the manifest and the info files.
    Save,
    /// Expires old backups.
    Expire,
}

impl BackupPhase {
    /// All phases, in their order.
    pub const ALL: [Self; 8] =
        [Self::Prepare, Self::Start, Self::Plan, Self::Copy, Self::Stop, Self::Archive, Self::Save, Self::Expire];

    /// The name in files, metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            BackupPhase::Prepare => "prepare",
            BackupPhase::Start => "start",
            BackupPhase::Plan => "plan",
            BackupPhase::Copy => "copy",
            BackupPhase::Stop => "stop",
            BackupPhase::Archive => "archive",
            BackupPhase::Save => "save",
            BackupPhase::Expire => "expire",
        }
    }
}

/// How a phase went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhaseFigures {
    /// Which.
    pub phase: BackupPhase,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
    /// How much it moved: bytes of the cluster that were copied, or of WAL that was written meanwhile and found in the
    /// archive; `None` in other phases.
    pub bytes: Option<u64>,
}

impl PhaseFigures {
    /// The figures of a phase that took so long.
    pub fn new(phase: BackupPhase, took: Duration) -> Self {
        PhaseFigures { phase, milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX), bytes: None }
    }
}

/// Measures the phases of a backup, one after the other.
pub(super) struct PhaseClock {
    since: Instant,
    phases: Vec<PhaseFigures>,
}

impl PhaseClock {
    /// The first phase begins now.
    pub(super) fn new() -> Self {
        PhaseClock { since: Instant::now(), phases: Vec::new() }
    }

    /// A phase has ended, and the next one begins.
    pub(super) fn end(&mut self, phase: BackupPhase) {
        let now = Instant::now();
        self.phases.push(PhaseFigures::new(phase, now.saturating_duration_since(self.since)));
        self.since = now;
    }

    /// Returns the phases, with the bytes of those that are known.
    pub(super) fn finish(mut self, bytes: &[(BackupPhase, Option<u64>)]) -> Vec<PhaseFigures> {
        for figures in &mut self.phases {
            let found = bytes.iter().find(|(phase, _)| *phase == figures.phase);
            figures.bytes = found.and_then(|(_, bytes)| *bytes);
        }
        self.phases
    }
}

/// The content of the file.
#[derive(Default, Serialize, Deserialize)]
struct PhaseFile {
    format: u32,
    backups: BTreeMap<String, Vec<StoredFigures>>,
}

/// What every format begins with.
#[derive(Deserialize)]
struct PhaseFileHead {
    format: u32,
}

/// [`PhaseFigures`] of a phase that this version may not know.
#[derive(Clone, Serialize, Deserialize)]
struct StoredFigures {
    phase: String,
    milliseconds: u64,
    bytes: Option<u64>,
}

impl From<&PhaseFigures> for StoredFigures {
    fn from(figures: &PhaseFigures) -> Self {
        let PhaseFigures { phase, milliseconds, bytes } = *figures;
        StoredFigures { phase: phase.name().to_owned(), milliseconds, bytes }
    }
}

/// Returns the phases that are known, each once: a repository is not trusted.
fn known_phases(stored: &[StoredFigures]) -> Vec<PhaseFigures> {
    let mut known: Vec<PhaseFigures> = Vec::new();
    for StoredFigures { phase, milliseconds, bytes } in stored {
        let found = BackupPhase::ALL.into_iter().find(|known| known.name() == phase);
        if let Some(phase) = found.filter(|phase| known.iter().all(|known| known.phase != *phase)) {
            known.push(PhaseFigures { phase, milliseconds: *milliseconds, bytes: *bytes });
        }
    }
    known
}

/// Reads the phases of the backups of a stanza, by label. Backups of pgBackRest have none.
///
/// # Errors
/// The file can't be read, or is damaged or of another format.
pub(crate) fn load(repo: &Repo, stanza: &Stanza) -> Result<BTreeMap<BackupLabel, Vec<PhaseFigures>>> {
    let file = read(repo, stanza)?;
    let backups = file.backups.iter();
    // What another version may write under another name is left out
    Ok(backups.filter_map(|(label, stored)| Some((label.parse().ok()?, known_phases(stored)))).collect())
}

fn read(repo: &Repo, stanza: &Stanza) -> Result<PhaseFile> {
    let path = layout::proof_backups(stanza);
    let text = || format!("unable to read '{}'", repo.storage.display(&path));
    let Some(stored) = repo.storage.read(&path, ReadRange::default())? else { return Ok(PhaseFile::default()) };
    let plain = Decryptor::new(&repo.cipher, Framing::Full, BufReader::new(stored));
    let mut bytes = Vec::new();
    plain
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::from_io(ErrorCode::FileRead, "unable to read", error).context(text()))?;
    let invalid = |code, why: String| Error::new(code, why).context(text());
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(invalid(ErrorCode::Format, "it is too large".to_owned()));
    }
    let failed = |error: serde_json::Error| invalid(ErrorCode::Format, error.to_string());
    let PhaseFileHead { format } = serde_json::from_slice(&bytes).map_err(failed)?;
    if format != FORMAT {
        return Err(invalid(NEWER, format!("format {format} is not supported")));
    }
    serde_json::from_slice(&bytes).map_err(failed)
}

/// Adds the phases of a backup, and forgets old ones. The caller holds the claim on the stanza. A file that is damaged
/// begins anew, but not one that another version has written.
///
/// # Errors
/// The repository can't be read or written, or the file has another format.
pub(crate) fn keep(repo: &Repo, stanza: &Stanza, label: &BackupLabel, phases: &[PhaseFigures]) -> Result<()> {
    let known = match read(repo, stanza) {
        Err(error) if is_about_content(&error) && error.code != NEWER => PhaseFile::default(),
        known => known?,
    };
    let parsed = known.backups.into_iter().filter_map(|(label, stored)| Some((label.parse().ok()?, stored)));
    let mut known: BTreeMap<BackupLabel, Vec<StoredFigures>> = parsed.collect();
    known.insert(label.clone(), phases.iter().map(StoredFigures::from).collect());
    forget_old(&mut known);
    let backups = known.into_iter().map(|(label, phases)| (label.to_string(), phases)).collect();
    let text = serde_json::to_string(&PhaseFile { format: FORMAT, backups })
        .map_err(|error| Error::new(ErrorCode::JsonFormat, format!("unable to write the phases: {error}")))?;
    let stored = cipher::encrypt(&repo.cipher, format!("{text}\n").as_bytes())?;
    storage::put(&*repo.storage, &layout::proof_backups(stanza), &stored, WriteOptions::ATOMIC)
}

/// Removes the oldest backups above the limit, but not the last one of a type, which metrics show.
fn forget_old(known: &mut BTreeMap<BackupLabel, Vec<StoredFigures>>) {
    let types = [BackupType::Full, BackupType::Diff, BackupType::Incr];
    // Labels of different types are not in the order of their time
    let last = |kind| {
        let of_kind = known.keys().filter(|label| label.backup_type() == kind);
        of_kind.max_by(|a, b| a.time_part().cmp(b.time_part())).cloned()
    };
    let last: Vec<BackupLabel> = types.into_iter().filter_map(last).collect();
    let mut others: Vec<BackupLabel> = known.keys().filter(|label| !last.contains(label)).cloned().collect();
    others.sort_unstable_by(|a, b| a.time_part().cmp(b.time_part()));
    let above = known.len().saturating_sub(BACKUPS_MAX);
    others.iter().take(above).for_each(|label| drop(known.remove(label)));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repo_format::cipher::{Cipher, Passphrase};

    use super::*;
    use crate::storage::memory::MemoryStorage;

    fn figures(bytes: Option<u64>) -> Vec<PhaseFigures> {
        let mut clock = PhaseClock::new();
        clock.end(BackupPhase::Copy);
        clock.end(BackupPhase::Save);
        clock.finish(&[(BackupPhase::Copy, bytes), (BackupPhase::Archive, Some(1))])
    }

    #[test]
    fn phases_of_the_last_backups_are_kept_in_an_encrypted_repository() {
        let cipher = Cipher::Aes256Cbc(Passphrase::new("secret"));
        let repo = Repo { key: 1, storage: Arc::new(MemoryStorage::new()), cipher };
        let stanza = "demo".parse().unwrap();
        assert!(load(&repo, &stanza).unwrap().is_empty());
        let labels: Vec<BackupLabel> =
            ["20260101-000000F", "20260102-000000F"].iter().map(|label| label.parse().unwrap()).collect();
        let first = figures(Some(7));
        assert_eq!((first[0].bytes, first[1].bytes), (Some(7), None));
        keep(&repo, &stanza, &labels[0], &first).unwrap();
        keep(&repo, &stanza, &labels[1], &figures(None)).unwrap();
        let known = load(&repo, &stanza).unwrap();
        assert_eq!(known.keys().collect::<Vec<_>>(), [&labels[0], &labels[1]]);
        assert_eq!(known[&labels[0]], first);
        let stored = storage::get(&*repo.storage, &layout::proof_backups(&stanza), 9999).unwrap().unwrap();
        assert!(stored.starts_with(cipher::MAGIC));
        for second in 0..BACKUPS_MAX {
            let label = format!("20260103-{:02}{:02}00F", second / 60, second % 60).parse().unwrap();
            keep(&repo, &stanza, &label, &first).unwrap();
        }
        let known = load(&repo, &stanza).unwrap();
        assert!(known.len() == BACKUPS_MAX && labels.iter().all(|label| !known.contains_key(label)));
    }

    #[test]
    fn damaged_phases_are_told_and_begin_anew() {
        let stanza = "demo".parse().unwrap();
        let label: BackupLabel = "20260101-000000F".parse().unwrap();
        let path = layout::proof_backups(&stanza);
        for cipher in [Cipher::None, Cipher::Aes256Cbc(Passphrase::new("secret"))] {
            let repo = Repo { key: 1, storage: Arc::new(MemoryStorage::new()), cipher };
            let put = |text: &[u8]| storage::put(&*repo.storage, &path, text, WriteOptions::ATOMIC).unwrap();
            keep(&repo, &stanza, &label, &figures(None)).unwrap();
            let stored = storage::get(&*repo.storage, &path, 9999).unwrap().unwrap();
            let invalid = cipher::encrypt(&repo.cipher, b"{\"format\":1,\"backups\":[]}").unwrap();
            for damaged in [b"".as_slice(), b"{}", b"x", &stored[..40], &invalid] {
                put(damaged);
                let error = load(&repo, &stanza).unwrap_err();
                assert!(error.message.contains("proof/demo/backups.json"), "{error}");
                keep(&repo, &stanza, &label, &figures(None)).unwrap();
                assert_eq!(load(&repo, &stanza).unwrap().len(), 1);
            }
            // After another passphrase, too
            let other = Repo { cipher: Cipher::Aes256Cbc(Passphrase::new("other")), ..repo.clone() };
            keep(&other, &stanza, &label, &figures(None)).unwrap();
            assert_eq!(load(&other, &stanza).unwrap().len(), 1);
        }
    }

    #[test]
    fn phases_of_a_newer_version_are_not_replaced() {
        let repo = Repo { key: 1, storage: Arc::new(MemoryStorage::new()), cipher: Cipher::None };
        let stanza = "demo".parse().unwrap();
        let label: BackupLabel = "20260102-000000F".parse().unwrap();
        let path = layout::proof_backups(&stanza);
        let put = |text: &str| storage::put(&*repo.storage, &path, text.as_bytes(), WriteOptions::ATOMIC).unwrap();
        let get = || String::from_utf8(storage::get(&*repo.storage, &path, 9999).unwrap().unwrap()).unwrap();
        let newer = "{\"format\":2,\"backups\":[]}";
        put(newer);
        assert!(load(&repo, &stanza).is_err() && keep(&repo, &stanza, &label, &figures(None)).is_err());
        assert_eq!(get(), newer);
        let phase = |name: &str| format!("{{\"phase\":\"{name}\",\"milliseconds\":1,\"bytes\":null}}");
        let phases = [phase("copy"), phase("polish"), phase("copy")].join(",");
        put(&format!("{{\"format\":1,\"backups\":{{\"../x\":[],\"20260101-000000F\":[{phases}]}}}}"));
        keep(&repo, &stanza, &label, &figures(None)).unwrap();
        assert!(get().contains("polish"));
        let known = load(&repo, &stanza).unwrap();
        let kinds: Vec<_> =
            known.values().map(|phases| phases.iter().map(|known| known.phase).collect::<Vec<_>>()).collect();
        assert_eq!(kinds, [vec![BackupPhase::Copy], vec![BackupPhase::Copy, BackupPhase::Save]]);
    }

    #[test]
    fn phases_of_the_last_full_backup_stay_however_many_incrementals_follow() {
        let full: BackupLabel = "20260101-000000F".parse().unwrap();
        let mut known = BTreeMap::from([(full.clone(), Vec::new())]);
        for minute in 0..BACKUPS_MAX + 9 {
            let label = format!("20260101-000000F_20260102-{:02}{:02}00I", minute / 60, minute % 60);
            known.insert(label.parse().unwrap(), Vec::new());
        }
        forget_old(&mut known);
        assert!(known.len() == BACKUPS_MAX && known.contains_key(&full));
        assert!(!known.contains_key(&"20260101-000000F_20260102-000900I".parse().unwrap()));
        assert!(known.contains_key(&"20260101-000000F_20260102-001100I".parse().unwrap()));
    }
}
