//! A session, through which a program uses the engine: the commands on one stanza.
//!
//! ```no_run
//! use engine::backup::BackupRequest;
//! use engine::pg::PgSettings;
//! use engine::repo::RepoSettings;
//! use engine::restore::RestoreRequest;
//! use engine::storage::posix::PosixSettings;
//! use engine::{BackupType, Session};
//!
//! # fn main() -> engine::Result<()> {
//! let session = Session::new("demo".parse()?, [RepoSettings::new(PosixSettings::new("/var/lib/pgbackrest"))])?;
//! let request = BackupRequest::new(PgSettings::new("/var/lib/postgresql/data")).kind(BackupType::Full);
//! let backup = session.backup(&request)?;
//! println!("{}: {} bytes, {} warning(s)", backup.label, backup.entry.size, backup.warnings.total);
//! for backup in session.backups()? {
//!     println!("{} in repo{}", backup.label, backup.repo_key);
//! }
//! let restored = session.restore(&RestoreRequest::new("/var/lib/postgresql/restored"))?;
//! println!("{} file(s) in {:?}", restored.files, restored.duration);
//! # Ok(())
//! # }
//! ```

mod commands;
pub mod turn;

use std::path::PathBuf;
use std::sync::Arc;

use repo_format::layout::Stanza;

use crate::claim::Claimant;
use crate::host_locks::{HeldLocks, HostLocks, LocalLocks};
use crate::lock::{LockType, new_exec_id};
use crate::progress::{NoProgress, Progress};
use crate::repo::RepoSettings;
use crate::throttle::{Pace, RateLimit};
use crate::{CancelToken, Cipher, Error, ErrorCode, Repo, Result};

/// The directory of lock files, as in pgBackRest.
const LOCK_PATH_DEFAULT: &str = "/tmp/pgbackrest";

/// A stanza in its repositories, and what all commands on it share. Each command opens the repositories that it needs.
pub struct Session {
    stanza: Stanza,
    repos: Vec<RepoSource>,
    /// The repositories whose locks the commands take.
    lock_keys: Vec<u32>,
    locks: Arc<dyn HostLocks>,
    exec_id: String,
    /// The identity for claims.
    claimant: Claimant,
    progress: Arc<dyn Progress>,
    pace: Pace,
    cancel: CancelToken,
}

/// A repository of a session.
pub enum RepoSource {
    /// A command opens it.
    Settings(RepoSettings),
    /// It is open.
    Open(Repo),
    /// It is open, and a turn of this process has a claim on the stanza there. Commands join it.
    Claimed(Repo),
}

impl From<RepoSettings> for RepoSource {
    fn from(settings: RepoSettings) -> Self {
        RepoSource::Settings(settings)
    }
}

impl From<Repo> for RepoSource {
    fn from(repo: Repo) -> Self {
        RepoSource::Open(repo)
    }
}

impl RepoSource {
    fn key(&self) -> u32 {
        match self {
            RepoSource::Settings(settings) => settings.key,
            RepoSource::Open(repo) | RepoSource::Claimed(repo) => repo.key,
        }
    }

    /// Opens it. If that fails, each use of it gives the error.
    fn open_or_unreachable(&self) -> Repo {
        self.open().unwrap_or_else(|error| self.unreachable(error))
    }

    /// Each use of it gives the error of opening it.
    fn unreachable(&self, error: Error) -> Repo {
        match self {
            RepoSource::Settings(settings) => {
                // Only reports show it
                let cipher = Cipher::from_passphrase(settings.cipher_pass.as_ref());
                Repo { cipher, ..Repo::unreachable(settings.key, error) }
            }
            RepoSource::Open(repo) | RepoSource::Claimed(repo) => repo.clone(),
        }
    }

    fn open(&self) -> Result<Repo> {
        match self {
            RepoSource::Settings(settings) => Repo::open(settings),
            RepoSource::Open(repo) | RepoSource::Claimed(repo) => Ok(repo.clone()),
        }
    }
}

impl Session {
    /// A session that shows no progress and that nothing cancels. Backups are made in the first repository. A restore
    /// uses the first one that has a suitable backup.
    ///
    /// # Errors
    /// [`ErrorCode::Kernel`] if the system provides no random bytes.
    pub fn new<R: Into<RepoSource>>(stanza: Stanza, repos: impl IntoIterator<Item = R>) -> Result<Self> {
        let repos: Vec<RepoSource> = repos.into_iter().map(Into::into).collect();
        let exec_id = new_exec_id()?;
        Ok(Session {
            stanza,
            lock_keys: repos.iter().map(RepoSource::key).collect(),
            repos,
            locks: LocalLocks::at(LOCK_PATH_DEFAULT),
            claimant: Claimant::this_process(&exec_id),
            exec_id,
            progress: Arc::new(NoProgress),
            pace: Pace::FREE,
            cancel: CancelToken::new(),
        })
    }

    /// Uses this directory for lock and stop files. All programs that work on the stanza must use the same.
    #[must_use]
    pub fn with_lock_path(self, lock_path: impl Into<PathBuf>) -> Self {
        Session { locks: LocalLocks::at(lock_path), ..self }
    }

    /// Takes the locks of these repositories instead of those of the session.
    #[must_use]
    pub fn with_lock_keys(self, lock_keys: Vec<u32>) -> Self {
        Session { lock_keys, ..self }
    }

    /// Uses this id in lock files and claims. Processes with the same id share their locks.
    #[must_use]
    pub fn with_exec_id(self, exec_id: impl Into<String>) -> Self {
        let exec_id = exec_id.into();
        Session { claimant: Claimant::this_process(&exec_id), exec_id, ..self }
    }

    /// Shows the progress of copies there.
    #[must_use]
    pub fn with_progress(self, progress: Arc<dyn Progress>) -> Self {
        Session { progress, ..self }
    }

    /// Limits the rate of commands. A backup reads no more of the cluster, before compression; if the cluster is on
    /// another host, no more arrives from it. A restore and verify read no more from the repository.
    #[must_use]
    pub fn with_rate_limit(self, limit: Arc<RateLimit>) -> Self {
        Session { pace: Pace::new(limit), ..self }
    }

    /// Ends commands when this token is cancelled.
    #[must_use]
    pub fn with_cancel(self, cancel: CancelToken) -> Self {
        Session { cancel, ..self }
    }

    /// The stanza.
    pub fn stanza(&self) -> &Stanza {
        &self.stanza
    }

    /// Claims stanzas as this process does, e.g. one on another host.
    #[cfg(test)]
    pub(crate) fn with_claimant(self, claimant: Claimant) -> Self {
        Session { claimant, ..self }
    }

    pub(crate) fn locks(&self) -> &dyn HostLocks {
        &*self.locks
    }

    pub(crate) fn claimant(&self) -> &Claimant {
        &self.claimant
    }

    pub(crate) fn exec_id(&self) -> &str {
        &self.exec_id
    }

    pub(crate) fn cancel_token(&self) -> &CancelToken {
        &self.cancel
    }

    pub(crate) fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Returns a repository from which a command reads no more than the rate allows.
    fn paced(&self, repo: Repo) -> Repo {
        repo.paced(&self.pace, &self.cancel)
    }

    pub(crate) fn progress(&self) -> &dyn Progress {
        &*self.progress
    }

    fn lock(&self, kinds: &[LockType]) -> Result<Box<dyn HeldLocks>> {
        self.locks.acquire(&self.stanza, kinds, &self.lock_keys, &self.exec_id)
    }

    /// The keys of the repositories in which commands join a claim.
    fn claimed(&self) -> impl Iterator<Item = u32> {
        self.repos.iter().filter(|source| matches!(source, RepoSource::Claimed(_))).map(RepoSource::key)
    }

    /// Opens the repository of a command that works on one.
    fn open_first(&self) -> Result<Repo> {
        match self.repos.first() {
            Some(source) => source.open(),
            None => Err(Error::new(ErrorCode::Assert, "the session has no repository")),
        }
    }

    /// Opens all repositories of a command that needs all of them.
    fn open_all(&self) -> Result<Vec<Repo>> {
        self.repos.iter().map(RepoSource::open).collect()
    }

    /// Opens the repositories of a command that continues if one of them is out of reach.
    fn open_each(&self) -> Vec<Repo> {
        self.repos.iter().map(RepoSource::open_or_unreachable).collect()
    }

    /// Does the same, unless all of them are out of reach: the command has the error of the first one then, and not one
    /// about what it did not find.
    fn open_some(&self) -> Result<Vec<Repo>> {
        let mut opened: Vec<_> = self.repos.iter().map(|source| (source, source.open())).collect();
        if let [(_, Err(_)), ..] = opened.as_slice()
            && opened.iter().all(|(_, repo)| repo.is_err())
        {
            return opened.swap_remove(0).1.map(|repo| vec![repo]);
        }
        Ok(opened.into_iter().map(|(source, repo)| repo.unwrap_or_else(|error| source.unreachable(error))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::BackupRequest;
    use crate::expire::ExpireRequest;
    use crate::restore::RestoreRequest;
    use crate::storage::open::{OpenStorage, OpenedStorage};
    use crate::storage::posix::PosixSettings;

    fn session(dir: &tempfile::TempDir) -> Session {
        let repo = RepoSettings::new(PosixSettings::new(dir.path().join("repo")));
        Session::new("demo".parse().unwrap(), [repo]).unwrap().with_lock_path(dir.path().join("lock"))
    }

    #[test]
    fn turn_of_one_session_excludes_backups_of_another_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (session(&dir), session(&dir));
        let turn = one.begin_backup().unwrap();
        assert_eq!(other.begin_backup().map(drop).unwrap_err().code, ErrorCode::LockAcquire);
        drop(turn);
        other.begin_backup().unwrap();
    }

    #[test]
    fn turn_locks_the_requested_repositories() {
        let dir = tempfile::tempdir().unwrap();
        let locks = |session: &Session| {
            let _turn = session.begin_backup().unwrap();
            let mut names: Vec<_> = std::fs::read_dir(dir.path().join("lock"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(locks(&session(&dir)), ["demo-backup-1.lock"]);
        assert_eq!(locks(&session(&dir).with_lock_keys(vec![1, 3])), ["demo-backup-1.lock", "demo-backup-3.lock"]);
    }

    #[test]
    fn stopped_stanza_has_no_turn() {
        let dir = tempfile::tempdir().unwrap();
        let session = session(&dir);
        crate::control::stop(&dir.path().join("lock"), Some(session.stanza()), false).unwrap();
        assert_eq!(session.begin_backup().map(drop).unwrap_err().code, ErrorCode::Stop);
    }

    /// A repository on a host that is out of reach.
    #[derive(Debug)]
    struct Down;

    impl OpenStorage for Down {
        fn open(&self) -> Result<OpenedStorage> {
            Err(Error::new(ErrorCode::HostConnect, "unable to connect to 'backup:8432'"))
        }
    }

    #[test]
    fn command_that_reaches_no_repository_has_the_error_of_reaching_it_as_in_pgbackrest() {
        let dir = tempfile::tempdir().unwrap();
        let down = |key| RepoSettings { key, ..RepoSettings::new(Down) };
        let up = |key| RepoSettings { key, ..RepoSettings::new(PosixSettings::new(dir.path().join("repo"))) };
        let with = |repos: Vec<RepoSettings>| {
            Session::new("demo".parse().unwrap(), repos).unwrap().with_lock_path(dir.path().join("lock"))
        };
        let expire = |repos| with(repos).expire(&ExpireRequest::default()).unwrap_err();
        let target = dir.path().join("pg").display().to_string();
        let restore = |repos| with(repos).restore(&RestoreRequest::new(target.clone())).unwrap_err();
        for count in [1, 2] {
            let repos = || (1..=count).map(down).collect();
            for error in [expire(repos()), restore(repos())] {
                assert_eq!(error.code, ErrorCode::HostConnect);
                assert_eq!(error.to_string(), "unable to connect to 'backup:8432'");
            }
        }
        // What can be reached decides otherwise
        assert_eq!(expire(vec![down(1), up(2)]).code, ErrorCode::Command);
        assert_eq!(restore(vec![down(1), up(2)]).code, ErrorCode::BackupSetInvalid);
    }

    #[test]
    fn file_of_a_repository_that_is_out_of_reach_is_not_said_to_be_missing() {
        let error = Error::new(ErrorCode::HostConnect, "unable to connect to 'backup:8432'").hint("is it up?");
        let (repo, stanza) = (Repo::unreachable(1, error), "demo".parse().unwrap());
        let text = "unable to connect to 'backup:8432'\nHINT: is it up?";
        assert_eq!(crate::repo::info_files::load_backup_info(&repo, &stanza).unwrap_err().to_string(), text);
        assert_eq!(crate::repo::info_files::load_archive_info(&repo, &stanza).unwrap_err().to_string(), text);
    }

    #[test]
    fn session_without_a_repository_makes_no_backup() {
        let dir = tempfile::tempdir().unwrap();
        let session = Session::new("demo".parse().unwrap(), Vec::<Repo>::new()).unwrap();
        let session = session.with_lock_path(dir.path());
        let request = BackupRequest::new(crate::pg::PgSettings::new(dir.path()));
        assert_eq!(session.backup(&request).unwrap_err().code, ErrorCode::Assert);
    }

    #[test]
    fn backups_of_an_unreadable_repository_are_an_error_and_no_empty_list() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(session(&dir).backups().unwrap_err().code, ErrorCode::FileMissing);
    }
}
