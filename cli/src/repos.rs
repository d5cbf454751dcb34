//! Converts the configuration to what the engine opens: repositories, locks, the stanza.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::claim::Claimant;
use engine::host_locks::{HostLocks, LocalLocks};
use engine::lock::{Lock, LockRequest};
use engine::remote::RemoteSettings;
use engine::repo::RepoSettings;
use engine::session::RepoSource;
use engine::storage::OpenStorage;
use engine::storage::RemoteRepoSettings;
use engine::storage::posix::{CifsSettings, PosixSettings};
use engine::{Error, ErrorCode, Repo, Result, Session};
use repo_format::cipher::{Cipher, Passphrase};
use repo_format::layout::Stanza;
use wal::repos::Repos;

use crate::config::{Config, opt};
use crate::{cancel_token, object_store, remote, sftp_store, throttle};

/// Opens the repository with this number.
///
/// # Errors
/// [`ErrorCode::FeatureNotSupported`] for a type of storage that is not built yet.
pub fn open(config: &Config, key: u32) -> Result<Repo> {
    Repo::open(&settings(config, key)?)
}

/// Opens the repositories that the command applies to. One that can't be opened is there, too: each use of it gives the
/// error, so that the command can handle the others.
///
/// # Errors
/// The same as [`settings`]: an option that is not supported is no error of a repository.
pub fn open_each(config: &Config) -> Result<Vec<Repo>> {
    let open = |key| {
        let settings = settings(config, key)?;
        Ok(Repo::open(&settings).unwrap_or_else(|error| {
            // Only reports show it
            let cipher = Cipher::from_passphrase(settings.cipher_pass.as_ref());
            Repo { cipher, ..Repo::unreachable(key, error) }
        }))
    };
    config.repo_keys_selected().into_iter().map(open).collect()
}

/// Opens as many of these repositories as possible.
pub fn open_usable(config: &Config, keys: &[u32]) -> Repos {
    let mut repos = Repos::default();
    for &key in keys {
        match open(config, key) {
            Ok(repo) => repos.open.push(repo),
            Err(error) => repos.broken.push((key, error)),
        }
    }
    repos
}

/// Opens the repository of a command that works on a single one: the one of `--repo`, otherwise the lowest.
///
/// # Errors
/// The same as [`open`].
pub fn open_default(config: &Config) -> Result<Repo> {
    open(config, config.repo_default())
}

/// Returns a session with these repositories.
///
/// # Errors
/// The same as [`settings`], and the name of the stanza is not valid.
pub fn session(config: &Config, keys: &[u32]) -> Result<Session> {
    session_with(config, keys, None)
}

/// Returns a session with these repositories, one of which may be open and claimed by a turn.
///
/// # Errors
/// The same as [`session`].
pub fn session_with(config: &Config, keys: &[u32], claimed: Option<&Repo>) -> Result<Session> {
    let source = |key: u32| match claimed.filter(|repo| repo.key == key) {
        Some(repo) => Ok(RepoSource::Claimed(repo.clone())),
        None => settings(config, key).map(RepoSource::from),
    };
    let repos = keys.iter().map(|&key| source(key)).collect::<Result<Vec<_>>>()?;
    let session = Session::new(stanza(config)?, repos)?
        .with_exec_id(config.get(opt::EXEC_ID)?)
        .with_cancel(cancel_token().clone());
    let session = match throttle::limit(config) {
        Some(limit) => session.with_rate_limit(limit),
        None => session,
    };
    // A command without locks does not know the option
    Ok(match config.find(opt::LOCK_PATH) {
        Some(path) => session.with_lock_path(path),
        None => session,
    })
}

/// Returns how to open a repository.
///
/// # Errors
/// The same as [`open`].
pub fn settings(config: &Config, key: u32) -> Result<RepoSettings> {
    let path = PathBuf::from(config.get_at(opt::REPO_PATH, key)?);
    let kind = config.get_at(opt::REPO_TYPE, key)?;
    let host = remote::REPO.host(config, key);
    // The host of a repository says itself whether it keeps old versions
    if host.is_none() && !matches!(kind, "azure" | "gcs" | "s3") && config.find(opt::REPO_TARGET_TIME).is_some() {
        // Reading the present when the past was requested would be worse than an error
        let text = format!("option 'repo-target-time' is not supported for repo{key}-type '{kind}'");
        return Err(Error::new(ErrorCode::FeatureNotSupported, text)
            .hint("only repositories in object stores can be read as of a time"));
    }
    // The option is valid only with a cipher type that needs it
    let cipher_pass = config.find_at(opt::REPO_CIPHER_PASS, key).map(Passphrase::new);
    let storage: Box<dyn OpenStorage> = match (kind, host) {
        (_, Some(_)) => {
            let asks_passphrase = cipher_pass.is_none();
            let target_time = object_store::target_time(config)?;
            let workers = config.find(opt::PROCESS_MAX).and_then(|workers| u32::try_from(workers).ok()).unwrap_or(0);
            let settings = |process| remote::REPO.settings(config, key, process);
            let settings = |process| Ok(RemoteSettings { asks_passphrase, target_time, ..settings(process)? });
            Box::new(RemoteRepoSettings { processes: (0..=workers).map(settings).collect::<Result<_>>()? })
        }
        ("posix", None) => {
            // Commands that create no links do not know the option
            let symlinks = config.find_at(opt::REPO_SYMLINK, key).unwrap_or(false);
            Box::new(PosixSettings { path, symlinks })
        }
        ("cifs", None) => Box::new(CifsSettings { path }),
        ("s3", None) => Box::new(object_store::s3(config, key)?),
        ("azure", None) => Box::new(object_store::azure(config, key)?),
        ("gcs", None) => Box::new(object_store::gcs(config, key)?),
        ("sftp", None) => Box::new(sftp_store::sftp(config, key)?),
        (other, None) => {
            let text = format!("repo{key}-type '{other}' is not supported yet");
            return Err(Error::new(ErrorCode::FeatureNotSupported, text));
        }
    };
    Ok(RepoSettings { key, storage, cipher_pass })
}

/// Returns the stanza of a command that requires one.
///
/// # Errors
/// The name is not a valid stanza name.
pub fn stanza(config: &Config) -> Result<Stanza> {
    config.get(opt::STANZA)?.parse()
}

/// Returns the stanza, if one is given.
///
/// # Errors
/// The name is not a valid stanza name.
pub fn stanza_if_set(config: &Config) -> Result<Option<Stanza>> {
    config.find(opt::STANZA).map(str::parse).transpose()
}

/// Returns the directory of lock and stop files.
///
/// # Errors
/// [`ErrorCode::Assert`] if the command has no such path.
pub fn lock_path(config: &Config) -> Result<&Path> {
    config.get(opt::LOCK_PATH).map(Path::new)
}

/// Returns the locks and stop files of this host.
///
/// # Errors
/// The same as [`lock_path`].
pub fn locks(config: &Config) -> Result<Arc<dyn HostLocks>> {
    Ok(LocalLocks::at(lock_path(config)?))
}

/// Returns the identity with which this process claims a stanza in a repository.
///
/// # Errors
/// [`ErrorCode::Kernel`] if the system provides no random bytes.
pub fn claimant(config: &Config) -> Result<Claimant> {
    let exec_id = if config.is_valid(opt::EXEC_ID.decl()) { config.find(opt::EXEC_ID) } else { None };
    Ok(Claimant::this_process(&exec_id.map_or_else(engine::lock::new_exec_id, |id| Ok(id.to_owned()))?))
}

/// Takes the lock that the command declares, on the repository of `--repo` or otherwise on all. Does nothing for a
/// command without a lock. The lock is held until the value is dropped.
///
/// # Errors
/// [`ErrorCode::LockAcquire`] if another process holds it.
pub fn lock(config: &Config) -> Result<Option<Lock>> {
    let kinds = config.command().decl().lock.types();
    if kinds.is_empty() {
        return Ok(None);
    }
    let repo_keys = config.repo_keys_selected();
    Lock::acquire(LockRequest {
        lock_path: lock_path(config)?,
        stanza: &stanza(config)?,
        kinds,
        repo_keys: &repo_keys,
        exec_id: config.get(opt::EXEC_ID)?,
    })
    .map(Some)
}
