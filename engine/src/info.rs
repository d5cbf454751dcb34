//! The facts that `info` reports: stanzas, their repositories, archives, backups and running operations.
//!
//! Nothing is rendered here, and nothing fails as a whole: an unreadable repository or stanza is a fact with a status
//! code. The codes, and the rules for combining them over repositories, are pgBackRest's.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use repo_format::archive_info::{self, ArchiveInfo};
use repo_format::backup_info::{BackupEntry, BackupInfo, PgHistory};
use repo_format::label::{BackupLabel, BackupType};
use repo_format::layout::{self, ArchiveId, RepoPath, Stanza};
use repo_format::manifest::Manifest;
use repo_format::pg::PgVersion;
use repo_format::wal_name::{ArchivedSegment, SEGMENT_DIR_LEN};

use crate::lock::{self, LockStatus, LockType};
use crate::repo::info_files::{self, manifest_cipher};
use crate::repo::{Repo, manifest_store};
use crate::{Error, ErrorCode, Result};

mod set;

pub use set::{DatabaseRef, LinkRef, SetFacts, TablespaceRef};

/// The status of a stanza, in one repository or over all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StatusCode {
    /// All is well.
    Ok = 0,
    /// The stanza has no directory.
    MissingStanzaPath = 1,
    /// There is a stanza but no backup yet.
    NoBackup = 2,
    /// The stanza's directory has no backup.info.
    MissingStanzaData = 3,
    /// The repositories differ.
    Mixed = 4,
    /// The repositories contain different clusters.
    PgMismatch = 5,
    /// The backup that was asked for is not there.
    BackupMissing = 6,
    /// Anything else, told by a message.
    Other = 99,
}

impl StatusCode {
    /// The number in the JSON form.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The text of both forms.
    pub fn message(self) -> &'static str {
        match self {
            StatusCode::Ok => "ok",
            StatusCode::MissingStanzaPath => "missing stanza path",
            StatusCode::NoBackup => "no valid backups",
            StatusCode::MissingStanzaData => "missing stanza data",
            StatusCode::Mixed => "different across repos",
            StatusCode::PgMismatch => "database mismatch across repos",
            StatusCode::BackupMissing => "requested backup not found",
            StatusCode::Other => "other",
        }
    }
}

/// How much to collect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Everything.
    Full,
    /// Only status and locks; does not read info files.
    Progress,
}

/// The settings of `info`.
#[derive(Clone, Debug)]
pub struct InfoSettings {
    /// Only this stanza; `None` reports all stanzas found.
    pub stanza: Option<Stanza>,
    /// Only this backup, or the `latest` of each repository, with the facts of its manifest. Requires a stanza.
    pub set: Option<String>,
    /// Only backups of this type.
    pub backup_type: Option<BackupType>,
    /// How much to collect.
    pub detail: Detail,
    /// The directory of lock files.
    pub lock_path: PathBuf,
}

/// A running backup (or expire) or restore on this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunningLock {
    /// Whether the lock is held.
    pub held: bool,
    /// Bytes to copy, 0 while not known.
    pub size: u64,
    /// Bytes copied.
    pub size_complete: u64,
}

impl RepoFact {
    /// Returns the message for the status.
    pub fn message(&self) -> &str {
        match (self.status, &self.error) {
            (StatusCode::Other, Some(error)) => error,
            (status, _) => status.message(),
        }
    }
}

impl StanzaFact {
    /// The value of [`StanzaFact::cipher`] if repositories differ.
    pub const CIPHER_MIXED: &'static str = "mixed";

    /// The cipher of all repositories.
    pub fn cipher(&self) -> &'static str {
        let mut ciphers = self.repos.iter().map(|repo| repo.cipher);
        let first = ciphers.next().unwrap_or("none");
        if ciphers.all(|cipher| cipher == first) { first } else { Self::CIPHER_MIXED }
    }
}

impl BackupFact {
    /// Returns whether invalid pages were found, if that is known.
    pub fn error(&self) -> Option<bool> {
        match &self.set {
            // Old entries in backup.info do not record it, but manifests do
            Some(set) if !set.errors.is_empty() => Some(true),
            _ => self.entry.error,
        }
    }
}

/// One entry of a cluster history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseFact {
    /// The id in the history.
    pub id: u32,
    /// The repository that contains it.
    pub repo_key: u32,
    /// The cluster's system identifier.
    pub system_id: u64,
    /// Its version.
    pub version: PgVersion,
}

/// The WAL of one cluster in one repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveFact {
    /// The id of the cluster in backup.info's history.
    pub db_id: u32,
    /// The repository.
    pub repo_key: u32,
    /// The directory of the archive.
    pub id: ArchiveId,
    /// Name of the first segment.
    pub min: Option<String>,
    /// Name of the last segment.
    pub max: Option<String>,
}

/// One backup.
#[derive(Clone, Debug)]
pub struct BackupFact {
    /// Its label.
    pub label: BackupLabel,
    /// The repository.
    pub repo_key: u32,
    /// Its line in backup.info.
    pub entry: BackupEntry,
    /// The facts of its manifest, if the backup was requested by label.
    pub set: Option<SetFacts>,
}

/// A stanza in one repository.
#[derive(Clone, Debug)]
pub struct RepoFact {
    /// The number of the repository.
    pub key: u32,
    /// `none` or `aes-256-cbc`.
    pub cipher: &'static str,
    /// The status.
    pub status: StatusCode,
    /// The message for [`StatusCode::Other`], as `[ErrorType] text`.
    pub error: Option<String>,
    /// The backup that runs into it.
    pub backup_lock: RunningLock,
}

/// A stanza over all repositories.
#[derive(Clone, Debug)]
pub struct StanzaFact {
    /// Its name, or `[invalid]` when nothing could be read.
    pub name: String,
    /// The status over all repositories.
    pub status: StatusCode,
    /// Its repositories, by key.
    pub repos: Vec<RepoFact>,
    /// The restore that runs.
    pub restore_lock: RunningLock,
    /// The current cluster, from the first repository that has one.
    pub current: Option<(PgVersion, u64)>,
    /// Cluster histories, oldest first within each repository.
    pub databases: Vec<DatabaseFact>,
    /// Archives, in the order of `databases`.
    pub archives: Vec<ArchiveFact>,
    /// Backups of all repositories, by their end.
    pub backups: Vec<BackupFact>,
}

/// A stanza in one repository while it is collected.
struct RepoState {
    fact: RepoFact,
    backup_info: Option<BackupInfo>,
    archive_info: Option<ArchiveInfo>,
    manifest: Option<Manifest>,
    /// The backup that was asked for.
    label: Option<BackupLabel>,
}

struct StanzaState {
    name: String,
    current: Option<(PgVersion, u64)>,
    restore_lock: RunningLock,
    repos: Vec<RepoState>,
}

impl RepoState {
    fn new(repo: &Repo) -> Self {
        let fact = RepoFact {
            key: repo.key,
            cipher: if repo.cipher.is_none() { "none" } else { "aes-256-cbc" },
            status: StatusCode::Ok,
            error: None,
            backup_lock: RunningLock::default(),
        };
        RepoState { fact, backup_info: None, archive_info: None, manifest: None, label: None }
    }

    fn fail(&mut self, error: &Error) {
        self.fact.status = StatusCode::Other;
        self.fact.error = Some(format!("[{}] {error}", error.code));
        self.backup_info = None;
        self.archive_info = None;
        self.manifest = None;
    }
}

/// Collects the facts of all stanzas, sorted by name. `repos` are the repositories to read, by key.
pub fn collect(repos: &[Repo], settings: &InfoSettings) -> Vec<StanzaFact> {
    let mut stanzas: BTreeMap<String, StanzaState> = BTreeMap::new();
    let mut repo_errors: Vec<(usize, Error)> = Vec::new();
    let mut set_found = false;

    for index in 0..repos.len() {
        if let Err(error) = collect_repo(repos, index, settings, &mut stanzas, &mut set_found) {
            repo_errors.push((index, error));
        }
    }

    // An unreadable repository is reported with every stanza, or with a placeholder if there is no stanza
    if !repo_errors.is_empty() && stanzas.is_empty() {
        let name = settings.stanza.as_ref().map_or_else(|| "[invalid]".to_owned(), ToString::to_string);
        stanzas.insert(name.clone(), StanzaState::new(name, repos));
    }
    for stanza in stanzas.values_mut() {
        for (index, error) in &repo_errors {
            stanza.repos[*index].fail(error);
        }
    }

    if settings.set.is_some() && !set_found {
        for repo in stanzas.values_mut().flat_map(|stanza| &mut stanza.repos) {
            if repo.fact.status == StatusCode::Ok {
                repo.fact.status = StatusCode::BackupMissing;
                repo.backup_info = None;
            }
        }
    }
    stanzas.into_values().map(|stanza| finish(stanza, repos, settings)).collect()
}

impl StanzaState {
    fn new(name: String, repos: &[Repo]) -> Self {
        let repos = repos.iter().map(RepoState::new).collect();
        StanzaState { name, current: None, restore_lock: RunningLock::default(), repos }
    }
}

/// Reads one repository. An error concerns the repository as a whole.
fn collect_repo(
    repos: &[Repo],
    index: usize,
    settings: &InfoSettings,
    stanzas: &mut BTreeMap<String, StanzaState>,
    set_found: &mut bool,
) -> Result<()> {
    let repo = &repos[index];
    let mut label = None;
    // Only backup.info says which backup is the latest: object stores have no link of that name
    if let (Some(stanza), Some(set)) = (&settings.stanza, settings.set.as_ref().filter(|set| *set != layout::LATEST))
        && let Ok(set) = set.parse::<BackupLabel>()
        && repo.storage.info(&layout::manifest(stanza, &set))?.is_some()
    {
        *set_found = true;
        label = Some(set);
    }
    let backup_path = RepoPath::new(layout::BACKUP)?;
    let list = || repo.storage.names(&backup_path);
    // A requested stanza usually exists, so load its files without waiting for the listing
    let (found, mut infos) = match settings.stanza.as_ref().filter(|_| settings.detail == Detail::Full) {
        Some(stanza) => repo.with_ahead(list, || Ok(load_infos(repo, stanza))),
        None => (list(), None),
    };
    let found = found?.unwrap_or_default();
    let names = match &settings.stanza {
        Some(stanza) => vec![stanza.to_string()],
        None => found.clone(),
    };
    for name in names {
        let exists = found.contains(&name);
        let stanza = stanzas.entry(name.clone()).or_insert_with(|| StanzaState::new(name, repos));
        let infos = infos.take().and_then(Result::ok);
        collect_stanza(repo, index, stanza, exists.then_some(infos), settings, label.as_ref());
        *set_found |= stanza.repos[index].label.is_some();
    }
    Ok(())
}

/// backup.info, and archive.info if it was loaded at the same time.
type Infos = (Result<BackupInfo>, Result<Option<ArchiveInfo>>);

fn load_infos(repo: &Repo, stanza: &Stanza) -> Infos {
    // archive.info is useless without backup.info, but loading both at once saves a wait
    let (backup, archive) =
        repo.with_ahead(|| info_files::load_backup_info(repo, stanza), || info_files::load_archive_info(repo, stanza));
    (backup, archive.transpose())
}

/// Reads the facts of one stanza in one repository. A failure becomes the stanza's status there. `found` is `None` if
/// the stanza has no directory, and may contain files that were loaded before.
fn collect_stanza(
    repo: &Repo,
    index: usize,
    state: &mut StanzaState,
    found: Option<Option<Infos>>,
    settings: &InfoSettings,
    label: Option<&BackupLabel>,
) {
    match found.map(|infos| load_stanza(repo, index, state, infos, settings, label)) {
        None => state.repos[index].fact.status = StatusCode::MissingStanzaPath,
        Some(Err(error)) => state.repos[index].fail(&error),
        Some(Ok(())) => {}
    }
    if state.current.is_none()
        && let Some(backup_info) = &state.repos[index].backup_info
    {
        let current = backup_info.current();
        state.current = Some((current.version, current.system_id));
    }
}

fn load_stanza(
    repo: &Repo,
    index: usize,
    state: &mut StanzaState,
    infos: Option<Infos>,
    settings: &InfoSettings,
    label: Option<&BackupLabel>,
) -> Result<()> {
    let stanza: Stanza = state.name.parse()?;
    let mut status = StatusCode::Ok;
    let target = &mut state.repos[index];
    if settings.detail == Detail::Full {
        let (backup_info, archive_info) = infos.unwrap_or_else(|| load_infos(repo, &stanza));
        match backup_info {
            Ok(info) => target.backup_info = Some(info),
            Err(error) if error.code == ErrorCode::FileMissing => status = StatusCode::MissingStanzaData,
            Err(error) if error.code == ErrorCode::Crypto => {
                return Err(error.hint(
                    "use option --stanza if encryption settings are different for the stanza than the global settings.",
                ));
            }
            Err(error) => return Err(error),
        }
        if let Some(backup_info) = &target.backup_info {
            target.archive_info = match archive_info? {
                None => Some(info_files::load_archive_info(repo, &stanza)?),
                info => info,
            };
            let is_latest = settings.set.as_deref() == Some(layout::LATEST);
            let latest = || newest(backup_info, settings.backup_type);
            target.label = if is_latest { latest() } else { label.cloned() };
            if let Some(label) = &target.label {
                let cipher = manifest_cipher(backup_info);
                target.manifest = Some(manifest_store::load(repo, &stanza, label, &cipher)?);
            }
        }
    }
    if target.backup_info.is_some() || settings.detail == Detail::Progress {
        add_lock(&mut target.fact.backup_lock, &settings.lock_path, &stanza, LockType::Backup, repo.key);
        add_lock(&mut state.restore_lock, &settings.lock_path, &stanza, LockType::Restore, repo.key);
    }
    state.repos[index].fact.status = status;
    Ok(())
}

/// The newest backup, of a type if one is given.
fn newest(info: &BackupInfo, kind: Option<BackupType>) -> Option<BackupLabel> {
    info.backups.keys().rev().find(|label| kind.is_none_or(|kind| kind == label.backup_type())).cloned()
}

fn add_lock(running: &mut RunningLock, lock_path: &std::path::Path, stanza: &Stanza, kind: LockType, repo_key: u32) {
    if let LockStatus::Valid(content) = lock::read_status(lock_path, stanza, kind, repo_key) {
        running.held = true;
        running.size = running.size.saturating_add(content.size.unwrap_or(0));
        running.size_complete = running.size_complete.saturating_add(content.size_complete.unwrap_or(0));
    }
}

/// Adds up what the repositories say.
fn finish(mut stanza: StanzaState, repos: &[Repo], settings: &InfoSettings) -> StanzaFact {
    let mut status: Option<StatusCode> = None;
    let (mut databases, mut archives) = (Vec::new(), Vec::new());
    for (state, repo) in stanza.repos.iter_mut().zip(repos) {
        if settings.detail == Detail::Full {
            if state.fact.status == StatusCode::Ok && state.backup_info.is_none() {
                // It exists in other repositories, but not in this one
                state.fact.status = StatusCode::MissingStanzaPath;
            }
            match clusters(state, repo, &stanza.name, &mut databases, &mut archives) {
                Ok(Some(current)) if Some(current) != stanza.current => status = Some(StatusCode::PgMismatch),
                Ok(_) => {}
                Err(error) => state.fail(&error),
            }
            if state.fact.status == StatusCode::Ok
                && state.backup_info.as_ref().is_some_and(|info| info.backups.is_empty())
            {
                state.fact.status = StatusCode::NoBackup;
            }
        }
        status = Some(match status {
            None => state.fact.status,
            Some(StatusCode::PgMismatch) => StatusCode::PgMismatch,
            Some(before) if before == state.fact.status => before,
            Some(_) => StatusCode::Mixed,
        });
    }
    let backups = backups(&mut stanza.repos, settings);
    StanzaFact {
        name: stanza.name,
        status: status.unwrap_or(StatusCode::Ok),
        repos: stanza.repos.into_iter().map(|state| state.fact).collect(),
        restore_lock: stanza.restore_lock,
        current: stanza.current,
        databases,
        archives,
        backups,
    }
}

/// Adds the cluster history of one repository with the WAL of each cluster. Returns the current cluster.
fn clusters(
    state: &RepoState,
    repo: &Repo,
    stanza: &str,
    databases: &mut Vec<DatabaseFact>,
    archives: &mut Vec<ArchiveFact>,
) -> Result<Option<(PgVersion, u64)>> {
    let (Some(backup_info), Some(archive_info)) = (&state.backup_info, &state.archive_info) else { return Ok(None) };
    let stanza: Stanza = stanza.parse()?;
    let current = backup_info.current();
    let newest = backup_info.history.last();
    let archive_ids = Archives::new(archive_info);
    for pg in &backup_info.history {
        databases.push(DatabaseFact { id: pg.id, repo_key: repo.key, system_id: pg.system_id, version: pg.version });
        let id = archive_ids.of(pg)?;
        let (min, max) = wal_range(repo, &stanza, id)?;
        if min.is_some() || Some(pg) == newest {
            archives.push(ArchiveFact { db_id: pg.id, repo_key: repo.key, id, min, max });
        }
    }
    Ok(Some((current.version, current.system_id)))
}

/// The archives of a history, indexed, because a hostile history may be long.
struct Archives<'a> {
    by_id: HashMap<(PgVersion, u64, u32), &'a archive_info::PgHistory>,
    /// The last one of a cluster.
    newest: HashMap<(PgVersion, u64), &'a archive_info::PgHistory>,
}

impl<'a> Archives<'a> {
    fn new(info: &'a ArchiveInfo) -> Self {
        let by_id = info.history.iter().map(|pg| ((pg.version, pg.system_id, pg.id), pg)).collect();
        let newest = info.history.iter().map(|pg| ((pg.version, pg.system_id), pg)).collect();
        Archives { by_id, newest }
    }

    /// Returns the archive of a cluster. Both histories usually have the same numbers, but a recreated archive.info may
    /// count differently.
    fn of(&self, pg: &PgHistory) -> Result<ArchiveId> {
        let same_id = self.by_id.get(&(pg.version, pg.system_id, pg.id));
        let found = same_id.or_else(|| self.newest.get(&(pg.version, pg.system_id)));
        found.map(|pg| pg.archive_id()).ok_or_else(|| {
            let text = format!(
                "unable to retrieve the archive id for database version '{}' and system-id '{}'",
                pg.version, pg.system_id
            );
            Error::new(ErrorCode::ArchiveMismatch, text)
        })
    }
}

/// Returns first and last segment of an archive.
fn wal_range(repo: &Repo, stanza: &Stanza, id: ArchiveId) -> Result<(Option<String>, Option<String>)> {
    let path = layout::archive_path(stanza, id);
    let mut directories = repo.storage.names(&path)?.unwrap_or_default();
    directories.retain(|name| name.len() == SEGMENT_DIR_LEN && name.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let segments = |name: &String| -> Result<Vec<String>> {
        let names = repo.storage.names(&path.join(name)?)?.unwrap_or_default();
        let segments = names.iter().filter_map(|name| name.parse::<ArchivedSegment>().ok());
        Ok(segments.filter(|stored| !stored.partial).map(|stored| stored.segment.to_string()).collect())
    };
    if let [only] = directories.as_slice() {
        let segments = segments(only)?;
        return Ok((segments.first().cloned(), segments.last().cloned()));
    }
    // Not every directory contains segments
    let first = || -> Result<Option<String>> {
        for name in &directories {
            if let Some(first) = segments(name)?.first() {
                return Ok(Some(first.clone()));
            }
        }
        Ok(None)
    };
    let last = || -> Result<Option<String>> {
        for name in directories.iter().rev() {
            if let Some(last) = segments(name)?.last() {
                return Ok(Some(last.clone()));
            }
        }
        Ok(None)
    };
    let (first, last) = repo.both(first, last);
    Ok((first?, last?))
}

/// Merges the backups of all repositories by their end. Within a repository, the order by label stays.
fn backups(repos: &mut [RepoState], settings: &InfoSettings) -> Vec<BackupFact> {
    let mut queues: Vec<_> = repos
        .iter_mut()
        .filter_map(|state| {
            let info = state.backup_info.take()?;
            let asked_for = (state.label.take(), state.manifest.take());
            Some((state.fact.key, info.backups.into_iter().peekable(), asked_for))
        })
        .collect();
    let mut result = Vec::new();
    loop {
        let mut next: Option<(usize, i64)> = None;
        for (index, (_, queue, _)) in queues.iter_mut().enumerate() {
            if let Some((_, entry)) = queue.peek()
                && next.is_none_or(|(_, time)| entry.timestamp_stop < time)
            {
                next = Some((index, entry.timestamp_stop));
            }
        }
        let Some((index, _)) = next else { return result };
        let (repo_key, queue, (asked_label, manifest)) = &mut queues[index];
        let Some((label, entry)) = queue.next() else { return result };
        let is_named = settings.set.as_ref().is_none_or(|set| label.as_str() == set);
        let asked_for = is_named || asked_label.as_ref() == Some(&label);
        if asked_for && settings.backup_type.is_none_or(|kind| kind == label.backup_type()) {
            let set = manifest.as_ref().filter(|_| settings.set.is_some()).map(SetFacts::new);
            result.push(BackupFact { label, repo_key: *repo_key, entry, set });
        }
    }
}
