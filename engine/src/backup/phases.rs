//! How long each phase of a backup took, and how much it moved.
//!
//! The figures of the last backups are kept in the repository, so that those who watch it from another host see them:
//! `proof/<stanza>/backups.json`, beside other records of ours that pgBackRest never looks for.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::time::{Duration, Instant};

use repo_format::cipher::{self, Decryptor, Framing};
use repo_format::label::BackupLabel;
use repo_format::layout::{self, Stanza};
use serde::{Deserialize, Serialize};

use crate::storage::{self, ReadRange, WriteOptions};
use crate::{Error, ErrorCode, Repo, Result};

/// The largest size in bytes of the file. A backup takes less than a thousand.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// How many backups have their phases in the file. Of older ones nobody asks, and to ask which of them are gone would take
/// requests.
const BACKUPS_MAX: usize = 200;
/// The format number of the file.
const FORMAT: u32 = 1;

/// A part of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Serialize, Deserialize)]
struct PhaseFile {
    format: u32,
    backups: BTreeMap<String, Vec<PhaseFigures>>,
}

/// Reads the phases of the backups of a stanza, by label. Backups of pgBackRest have none.
///
/// # Errors
/// The file can't be read, or is damaged or of another format.
pub(crate) fn load(repo: &Repo, stanza: &Stanza) -> Result<BTreeMap<BackupLabel, Vec<PhaseFigures>>> {
    let path = layout::proof_backups(stanza);
    let shown = repo.storage.display(&path);
    let Some(stored) = repo.storage.read(&path, ReadRange::default())? else { return Ok(BTreeMap::new()) };
    let plain = Decryptor::new(&repo.cipher, Framing::Full, BufReader::new(stored));
    let mut bytes = Vec::new();
    plain
        .take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::from_io(ErrorCode::FileRead, format!("unable to read '{shown}'"), error))?;
    let invalid = |text: String| Error::new(ErrorCode::Format, format!("'{shown}': {text}"));
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(invalid("it is too large".to_owned()));
    }
    let file: PhaseFile = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
    if file.format != FORMAT {
        return Err(invalid(format!("format {} is not supported", file.format)));
    }
    // What another version may write under another name is left out
    Ok(file.backups.into_iter().filter_map(|(label, phases)| Some((label.parse().ok()?, phases))).collect())
}

/// Adds the phases of a backup, and forgets old ones. The caller holds the claim on the stanza. A file that is damaged
/// begins anew.
///
/// # Errors
/// The repository can't be read or written.
pub(crate) fn keep(repo: &Repo, stanza: &Stanza, label: &BackupLabel, phases: &[PhaseFigures]) -> Result<()> {
    let mut known = match load(repo, stanza) {
        Err(error) if error.code == ErrorCode::Format => BTreeMap::new(),
        known => known?,
    };
    known.insert(label.clone(), phases.to_vec());
    while known.len() > BACKUPS_MAX {
        known.pop_first();
    }
    let backups = known.into_iter().map(|(label, phases)| (label.to_string(), phases)).collect();
    let text = serde_json::to_string(&PhaseFile { format: FORMAT, backups })
        .map_err(|error| Error::new(ErrorCode::JsonFormat, format!("unable to write the phases: {error}")))?;
    let stored = cipher::encrypt(&repo.cipher, format!("{text}\n").as_bytes())?;
    storage::put(&*repo.storage, &layout::proof_backups(stanza), &stored, WriteOptions::ATOMIC)
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
        let repo = Repo { key: 1, storage: Arc::new(MemoryStorage::new()), cipher: Cipher::None };
        let stanza = "demo".parse().unwrap();
        let label: BackupLabel = "20260101-000000F".parse().unwrap();
        let path = layout::proof_backups(&stanza);
        for text in ["", "{}", "{\"format\":2,\"backups\":{}}", "{\"format\":1,\"backups\":[]}"] {
            storage::put(&*repo.storage, &path, text.as_bytes(), WriteOptions::ATOMIC).unwrap();
            assert_eq!(load(&repo, &stanza).unwrap_err().code, ErrorCode::Format, "{text}");
        }
        let odd = format!("{{\"format\":1,\"backups\":{{\"../x\":[],\"{label}\":[]}}}}");
        storage::put(&*repo.storage, &path, odd.as_bytes(), WriteOptions::ATOMIC).unwrap();
        assert!(load(&repo, &stanza).unwrap().into_keys().eq([label.clone()]));
        storage::put(&*repo.storage, &path, b"x", WriteOptions::ATOMIC).unwrap();
        keep(&repo, &stanza, &label, &figures(None)).unwrap();
        assert_eq!(load(&repo, &stanza).unwrap().len(), 1);
    }
}
