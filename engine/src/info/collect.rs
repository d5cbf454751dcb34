//! Reads the repositories and combines what they say.

use std::collections::BTreeMap;

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::label::{BackupLabel, BackupType};
use repo_format::layout::{self, RepoPath, Stanza};
use repo_format::manifest::Manifest;
use repo_format::pg::PgVersion;

use super::archives::{self, History};
use super::{BackupFact, Detail, InfoRequest, ManifestFacts, RepoFact, RunningLock, StanzaFact, StatusCode};
use crate::host_locks::HostLocks;
use crate::lock::{LockStatus, LockType};
use crate::objectives::{self, MeasuredRto, RecoveryObjectives};
use crate::proof::{ProofFact, store};
use crate::repo::info_files::{self, manifest_cipher};
use crate::repo::{Repo, manifest_store};
use crate::session::Session;
use crate::work::retry::{is_about_content, is_missing};
use crate::{Error, ErrorCode, Result};

/// A stanza in one repository while it is collected.
struct RepoState {
    fact: RepoFact,
    backup_info: Option<BackupInfo>,
    archive_info: Option<ArchiveInfo>,
    manifest: Option<Manifest>,
    /// The backup that was asked for.
    label: Option<BackupLabel>,
    /// The last proof of each backup.
    proofs: BTreeMap<BackupLabel, ProofFact>,
}

/// A stanza in all repositories while it is collected.
struct StanzaState {
    name: String,
    current: Option<(PgVersion, u64)>,
    restore_lock: RunningLock,
    repos: Vec<RepoState>,
}

/// What is known of a stanza in a repository before it is read.
struct Preloaded {
    /// The backup that was asked for, if the repository has it.
    label: Option<BackupLabel>,
    /// The files, if they were loaded.
    infos: Option<Infos>,
}

/// All that was collected so far.
struct InfoCollector<'a> {
    repos: &'a [Repo],
    settings: &'a InfoSettings<'a>,
    stanzas: BTreeMap<String, StanzaState>,
    /// Whether some repository has the backup that was asked for.
    set_found: bool,
}

/// backup.info, and archive.info if it was loaded at the same time.
type Infos = (Result<BackupInfo>, Result<Option<ArchiveInfo>>);

/// A request, and what it is about.
struct InfoSettings<'a> {
    /// Only this stanza; `None` reports all stanzas found.
    stanza: Option<&'a Stanza>,
    request: &'a InfoRequest,
    /// The locks of this host.
    locks: &'a dyn HostLocks,
}

/// Collects the facts of all stanzas, sorted by name. `repos` are the repositories to read, by key.
pub fn of_all_stanzas(request: &InfoRequest, repos: &[Repo], locks: &dyn HostLocks) -> Vec<StanzaFact> {
    collect(repos, &InfoSettings { stanza: None, request, locks })
}

/// Collects the facts of the stanza of a session.
///
/// # Errors
/// [`ErrorCode::Assert`] without a repository.
pub(crate) fn of_stanza(request: &InfoRequest, session: &Session, repos: &[Repo]) -> Result<StanzaFact> {
    let settings = InfoSettings { stanza: Some(session.stanza()), request, locks: session.locks() };
    let fact = collect(repos, &settings).pop();
    fact.ok_or_else(|| Error::new(ErrorCode::Assert, "the session has no repository"))
}

fn collect(repos: &[Repo], settings: &InfoSettings<'_>) -> Vec<StanzaFact> {
    let mut collector = InfoCollector { repos, settings, stanzas: BTreeMap::new(), set_found: false };
    let mut repo_errors: Vec<(usize, Error)> = Vec::new();
    for index in 0..repos.len() {
        if let Err(error) = collector.read_repo(index) {
            repo_errors.push((index, error));
        }
    }
    let InfoCollector { mut stanzas, set_found, .. } = collector;

    // An unreadable repository is reported with every stanza, or with a placeholder if there is no stanza
    if !repo_errors.is_empty() && stanzas.is_empty() {
        let name = settings.stanza.map_or_else(|| "[invalid]".to_owned(), ToString::to_string);
        stanzas.insert(name.clone(), StanzaState::new(name, repos));
    }
    for stanza in stanzas.values_mut() {
        for (index, error) in &repo_errors {
            stanza.repos[*index].fail(error);
        }
    }

    if settings.request.set.is_some() && !set_found {
        for repo in stanzas.values_mut().flat_map(|stanza| &mut stanza.repos) {
            if repo.fact.status == StatusCode::Ok {
                repo.fact.status = StatusCode::BackupMissing;
                repo.backup_info = None;
            }
        }
    }
    stanzas.into_values().map(|stanza| finish(stanza, repos, settings)).collect()
}

impl InfoCollector<'_> {
    /// Reads one repository. An error concerns the repository as a whole.
    fn read_repo(&mut self, index: usize) -> Result<()> {
        let (repos, settings) = (self.repos, self.settings);
        let repo = &repos[index];
        let label = requested_label(repo, settings)?;
        self.set_found |= label.is_some();
        let backup_path = RepoPath::new(layout::BACKUP)?;
        let list = || repo.storage.names(&backup_path);
        // A requested stanza usually exists, so load its files without waiting for the listing
        let (found, mut infos) = match settings.stanza.filter(|_| settings.request.detail == Detail::Full) {
            Some(stanza) => repo.with_ahead(list, || Ok(load_infos(repo, stanza))),
            None => (list(), None),
        };
        let found = found?.unwrap_or_default();
        let names = match settings.stanza {
            Some(stanza) => vec![stanza.to_string()],
            None => found.clone(),
        };
        for name in names {
            let exists = found.contains(&name);
            let stanza = self.stanzas.entry(name.clone()).or_insert_with(|| StanzaState::new(name, repos));
            if exists {
                let infos = infos.take().and_then(Result::ok);
                stanza.read(repo, index, settings, Preloaded { label: label.clone(), infos });
            } else {
                stanza.repos[index].fact.status = StatusCode::MissingStanzaPath;
            }
            self.set_found |= stanza.repos[index].label.is_some();
        }
        Ok(())
    }
}

/// Returns the requested backup if the repository has it.
fn requested_label(repo: &Repo, settings: &InfoSettings<'_>) -> Result<Option<BackupLabel>> {
    // Only backup.info says which backup is the latest: object stores have no link of that name
    let set = settings.request.set.as_ref().filter(|set| *set != layout::LATEST).and_then(|set| set.parse().ok());
    let (Some(stanza), Some(set)) = (settings.stanza, set) else { return Ok(None) };
    let exists = repo.storage.info(&layout::manifest(stanza, &set))?.is_some();
    Ok(exists.then_some(set))
}

fn load_infos(repo: &Repo, stanza: &Stanza) -> Infos {
    // archive.info is useless without backup.info, but loading both at once saves a wait
    let (backup, archive) =
        repo.with_ahead(|| info_files::load_backup_info(repo, stanza), || info_files::load_archive_info(repo, stanza));
    (backup, archive.transpose())
}

impl StanzaState {
    fn new(name: String, repos: &[Repo]) -> Self {
        let repos = repos.iter().map(RepoState::new).collect();
        StanzaState { name, current: None, restore_lock: RunningLock::default(), repos }
    }

    /// Reads the facts of this stanza in one repository. A failure becomes its status there.
    fn read(&mut self, repo: &Repo, index: usize, settings: &InfoSettings<'_>, known: Preloaded) {
        let target = &mut self.repos[index];
        let stanza = self.name.parse::<Stanza>();
        let loaded = stanza.and_then(|stanza| {
            if settings.request.detail == Detail::Full {
                target.load(repo, &stanza, settings, known)?;
            }
            if target.backup_info.is_some() || settings.request.detail == Detail::Progress {
                let lock = |kind| read_lock(settings.locks, &stanza, kind, repo.key);
                target.fact.backup_lock.add(lock(LockType::Backup));
                self.restore_lock.add(lock(LockType::Restore));
            }
            Ok(())
        });
        if let Err(error) = loaded {
            target.fail(&error);
        }
        if let (None, Some(backup_info)) = (self.current, &target.backup_info) {
            let current = backup_info.current();
            self.current = Some((current.version, current.system_id));
        }
    }
}

impl RepoState {
    fn new(repo: &Repo) -> Self {
        let fact = RepoFact {
            key: repo.key,
            cipher: if repo.cipher.is_none() { "none" } else { "aes-256-cbc" },
            status: StatusCode::Ok,
            error: None,
            backup_lock: RunningLock::default(),
            objectives: None,
        };
        RepoState { fact, backup_info: None, archive_info: None, manifest: None, label: None, proofs: BTreeMap::new() }
    }

    fn fail(&mut self, error: &Error) {
        self.fact.status = StatusCode::Other;
        self.fact.error = Some(format!("[{}] {error}", error.code));
        self.backup_info = None;
        self.archive_info = None;
        self.manifest = None;
    }

    /// Loads the info files, and the manifest of the requested backup.
    fn load(&mut self, repo: &Repo, stanza: &Stanza, settings: &InfoSettings<'_>, known: Preloaded) -> Result<()> {
        let (backup_info, archive_info) = known.infos.unwrap_or_else(|| load_infos(repo, stanza));
        let backup_info = match backup_info {
            Ok(info) => info,
            Err(error) if is_missing(&error) => {
                self.fact.status = StatusCode::MissingStanzaData;
                return Ok(());
            }
            Err(error) if error.code == ErrorCode::Crypto && is_about_content(&error) => {
                return Err(error.hint(
                    "use option --stanza if encryption settings are different for the stanza than the global settings.",
                ));
            }
            Err(error) => return Err(error),
        };
        let backup_info = self.backup_info.insert(backup_info);
        self.archive_info = match archive_info? {
            None => Some(info_files::load_archive_info(repo, stanza)?),
            info => info,
        };
        let is_latest = settings.request.set.as_deref() == Some(layout::LATEST);
        self.label = if is_latest { newest(backup_info, settings.request.backup_type) } else { known.label };
        if let Some(label) = &self.label {
            let cipher = manifest_cipher(backup_info);
            self.manifest = Some(manifest_store::load(repo, stanza, label, &cipher)?);
        }
        Ok(())
    }

    /// Completes the status once all repositories were read. Returns the clusters.
    fn finish(&mut self, repo: &Repo, stanza: &str) -> History {
        let mut history = History { databases: Vec::new(), archives: Vec::new() };
        if self.fact.status == StatusCode::Ok && self.backup_info.is_none() {
            // It exists in other repositories, but not in this one
            self.fact.status = StatusCode::MissingStanzaPath;
        }
        if let (Some(backup_info), Some(archive_info)) = (&self.backup_info, &self.archive_info) {
            let read = stanza.parse().and_then(|stanza| {
                let read_history = || Ok(archives::read_history(repo, &stanza, backup_info, archive_info));
                let (read, proofs) = repo.both(read_history, || store::last_proofs(repo, &stanza));
                // Without them the report is as useful as pgBackRest's
                self.proofs = proofs.unwrap_or_else(|error| {
                    crate::warn!("{}: proofs can't be read: {error}", repo.name());
                    BTreeMap::new()
                });
                let (read, result) = read?;
                history = read;
                self.fact.objectives = objectives(repo, &stanza, &self.proofs, archive_info);
                result
            });
            if let Err(error) = read {
                self.fail(&error);
            }
        }
        if self.fact.status == StatusCode::Ok && self.backup_info.as_ref().is_some_and(|info| info.backups.is_empty()) {
            self.fact.status = StatusCode::NoBackup;
        }
        history
    }

    fn current(&self) -> Option<(PgVersion, u64)> {
        self.backup_info.as_ref().map(|info| info.current()).map(|current| (current.version, current.system_id))
    }
}

/// Returns what a recovery takes and loses, if the repository has proofs. Others need no more requests than pgBackRest.
fn objectives(
    repo: &Repo,
    stanza: &Stanza,
    proofs: &BTreeMap<BackupLabel, ProofFact>,
    archive_info: &ArchiveInfo,
) -> Option<RecoveryObjectives> {
    if proofs.is_empty() {
        return None;
    }
    let rpo = objectives::newest_wal(repo, stanza, archive_info.current().archive_id()).unwrap_or_else(|error| {
        crate::warn!("{}: time of the newest WAL can't be read: {error}", repo.name());
        None
    });
    Some(RecoveryObjectives { rto: MeasuredRto::of(proofs.values()), rpo })
}

/// The newest backup, of a type if one is given.
fn newest(info: &BackupInfo, kind: Option<BackupType>) -> Option<BackupLabel> {
    info.backups.keys().rev().find(|label| kind.is_none_or(|kind| kind == label.backup_type())).cloned()
}

fn read_lock(locks: &dyn HostLocks, stanza: &Stanza, kind: LockType, repo_key: u32) -> RunningLock {
    match locks.status(stanza, kind, repo_key) {
        LockStatus::Valid(content) => {
            let size_complete = content.size_complete.unwrap_or(0);
            let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
            let rate = content.begun.map(|begun| size_complete / now.saturating_sub(begun).max(1));
            RunningLock { held: true, size: content.size.unwrap_or(0), size_complete, rate }
        }
        _ => RunningLock::default(),
    }
}

/// Adds up what the repositories say.
fn finish(mut stanza: StanzaState, repos: &[Repo], settings: &InfoSettings<'_>) -> StanzaFact {
    let mut status: Option<StatusCode> = None;
    let (mut databases, mut archives) = (Vec::new(), Vec::new());
    for (state, repo) in stanza.repos.iter_mut().zip(repos) {
        if settings.request.detail == Detail::Full {
            let history = state.finish(repo, &stanza.name);
            databases.extend(history.databases);
            archives.extend(history.archives);
            if state.current().is_some_and(|current| Some(current) != stanza.current) {
                status = Some(StatusCode::PgMismatch);
            }
        }
        status = Some(match status {
            None => state.fact.status,
            Some(StatusCode::PgMismatch) => StatusCode::PgMismatch,
            Some(before) if before == state.fact.status => before,
            Some(_) => StatusCode::Mixed,
        });
    }
    let backups = merge_backups(&mut stanza.repos, settings);
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

/// Merges the backups of all repositories by their end. Within a repository, the order by label stays.
fn merge_backups(repos: &mut [RepoState], settings: &InfoSettings<'_>) -> Vec<BackupFact> {
    let mut queues: Vec<_> = repos
        .iter_mut()
        .filter_map(|state| {
            let info = state.backup_info.take()?;
            let asked_for = (state.label.take(), state.manifest.take());
            let proofs = std::mem::take(&mut state.proofs);
            Some((state.fact.key, info.backups.into_iter().peekable(), asked_for, proofs))
        })
        .collect();
    let mut result = Vec::new();
    loop {
        let mut next: Option<(usize, i64)> = None;
        for (index, (_, queue, ..)) in queues.iter_mut().enumerate() {
            if let Some((_, entry)) = queue.peek()
                && next.is_none_or(|(_, time)| entry.timestamp_stop < time)
            {
                next = Some((index, entry.timestamp_stop));
            }
        }
        let Some((index, _)) = next else { return result };
        let (repo_key, queue, (asked_label, manifest), proofs) = &mut queues[index];
        let Some((label, entry)) = queue.next() else { return result };
        let is_named = settings.request.set.as_ref().is_none_or(|set| label.as_str() == set);
        let asked_for = is_named || asked_label.as_ref() == Some(&label);
        if asked_for && settings.request.backup_type.is_none_or(|kind| kind == label.backup_type()) {
            let set = manifest.as_ref().filter(|_| settings.request.set.is_some()).map(ManifestFacts::new);
            let proof = proofs.remove(&label);
            result.push(BackupFact { label, repo_key: *repo_key, entry, set, proof });
        }
    }
}
