//! Checks that the repositories belong to the cluster, and determines where its WAL is stored.

use engine::repo::archive_find::{self, ListedNames};
use engine::repo::{Repo, info_files};
use engine::work::turn::Turn;
use engine::{Error, ErrorCode, Result};
use repo_format::archive_info::ArchiveInfo;
use repo_format::cipher::Cipher;
use repo_format::layout::{self, ArchiveId, Stanza};
use repo_format::pg::PgVersion;
use repo_format::wal_name::WalSegment;

use super::PushSettings;
use crate::repos::{Repos, concurrency, in_order, repo_error};

/// A repository that takes WAL.
#[derive(Clone)]
pub struct PushTarget {
    /// The repository.
    pub repo: Repo,
    /// The turn to compute of the thread that pushes.
    pub turn: Turn,
    /// The directory of the current cluster.
    pub archive_id: ArchiveId,
    /// How files of the archive are encrypted.
    pub cipher: Cipher,
    /// The listing of the archive from the segment to push on, if it was loaded together with archive.info.
    pub listed: Option<ListedNames>,
}

/// Where WAL of the cluster is stored.
#[derive(Clone)]
pub struct PushTargets {
    /// Version of the cluster.
    pub version: PgVersion,
    /// System identifier of the cluster.
    pub system_id: u64,
    /// The repositories that can take it.
    pub repos: Vec<PushTarget>,
    /// Problems of the other repositories, one `repoN: [ErrorType] message` each. The push fails after it has stored
    /// the file where it could.
    pub errors: Vec<String>,
}

impl PushTargets {
    /// Returns the same for the thread that has this turn: calls that wait for a server release it.
    #[must_use]
    pub fn on_turn(&self, turn: &Turn) -> Self {
        let on_turn =
            |target: &PushTarget| PushTarget { repo: target.repo.on_turn(turn), turn: turn.clone(), ..target.clone() };
        PushTargets { repos: self.repos.iter().map(on_turn).collect(), errors: self.errors.clone(), ..*self }
    }
}

/// Reads `pg_control` (if the data directory is known) and every repository's archive.info. On servers it also lists
/// the archive from `segment` on, at the same time.
///
/// # Errors
/// Errors of reading `pg_control`, and [`ErrorCode::RepoInvalid`] if no repository matches.
pub fn check(repos: &Repos, settings: &PushSettings, segment: Option<&WalSegment>) -> Result<PushTargets> {
    let mut reference: Option<(PgVersion, u64)> = match &settings.pg_path {
        Some(path) => {
            let control = engine::pg::control_file::read(path, settings.version_force)?;
            Some((control.version, control.system_id))
        }
        None => None,
    };
    let (mut targets, mut errors) = (Vec::new(), repos.trouble());
    let repos = repos.open.as_slice();
    let ahead = reference.and_then(|(version, _)| Some((version, segment?)));
    let loaded = concurrency(repos).each(repos, |repo| Ok(load(repo, &settings.stanza, ahead)))?;
    for (repo, loaded) in repos.iter().zip(loaded) {
        match check_repo(repo, loaded, repos, settings, reference) {
            Ok((target, cluster)) => {
                reference = Some(cluster);
                targets.push(target);
            }
            Err(error) => errors.push((repo.key, repo_error(repo.key, &error))),
        }
    }
    let errors = in_order(errors);
    match reference {
        Some((version, system_id)) if !targets.is_empty() => {
            Ok(PushTargets { version, system_id, repos: targets, errors })
        }
        _ => Err(Error::new(
            ErrorCode::RepoInvalid,
            format!("unable to find a valid repository:\n{}", errors.join("\n")),
        )),
    }
}

type Loaded = (Result<ArchiveInfo>, Option<ListedNames>);

/// Loads archive.info, and lists a segment's directory in the archive that is probably the right one.
fn load(repo: &Repo, stanza: &Stanza, ahead: Option<(PgVersion, &WalSegment)>) -> Loaded {
    let info = || info_files::load_archive_info(repo, stanza);
    let Some((version, segment)) = ahead else { return (info(), None) };
    let list = || archive_find::list_ahead(&*repo.storage, stanza, version, segment);
    let (info, listed) = repo.with_ahead(info, list);
    // A problem appears again when it is listed later
    (info, listed.and_then(Result::ok))
}

fn check_repo(
    repo: &Repo,
    (info, listed): Loaded,
    repos: &[Repo],
    settings: &PushSettings,
    reference: Option<(PgVersion, u64)>,
) -> Result<(PushTarget, (PgVersion, u64))> {
    let info = info?;
    let current = info.current();
    let cluster = (current.version, current.system_id);
    if let Some((version, system_id)) = reference.filter(|reference| *reference != cluster) {
        let whose = match (&settings.pg_path, repos.first()) {
            (None, Some(first)) => format!("repo{} stanza", first.key),
            _ => "PostgreSQL".to_owned(),
        };
        return Err(Error::new(
            ErrorCode::ArchiveMismatch,
            format!(
                "{whose} version {version}, system-id {system_id} do not match repo{} stanza version {}, system-id {}",
                repo.key, cluster.0, cluster.1
            ),
        )
        .hint("are you archiving to the correct stanza?"));
    }
    info_files::check_keys(repo, &layout::archive_info(&settings.stanza), info.keys.is_some())?;
    let target = PushTarget {
        repo: repo.clone(),
        turn: Turn::FREE,
        archive_id: current.archive_id(),
        cipher: info.cipher(),
        listed,
    };
    Ok((target, cluster))
}
