//! Looks at the repositories of a stanza.

use std::sync::Arc;
use std::time::Instant;

use engine::info::{RepoFact, StanzaFact};
use engine::{Error, Repo};
use monitor::snapshot::{ArchiveView, RepoView};
use repo_format::layout::{self, RepoPath};

use super::{ANSWER_MAX, within};
use crate::config::Config;
use crate::repos;

/// A repository, and how it answered.
pub(super) struct Answer {
    pub(super) repo: Repo,
    /// How long it took to list a directory; `None` if that failed.
    pub(super) latency_seconds: Option<f64>,
}

/// Opens all repositories at the same time. One that does not answer gives its error at each use.
pub(super) fn open_all(config: &Arc<Config>) -> Vec<Answer> {
    let open = |key: u32| {
        let config = Arc::clone(config);
        let ask = move || {
            within(ANSWER_MAX, move || {
                let repo = repos::open(&config, key)?;
                let begin = Instant::now();
                // Its result is an error of the repository like any other
                let is_listed = repo.storage.names(&RepoPath::new(layout::BACKUP)?).is_ok();
                Ok(Answer { repo, latency_seconds: is_listed.then(|| begin.elapsed().as_secs_f64()) })
            })
        };
        (key, std::thread::Builder::new().spawn(ask))
    };
    let asked: Vec<_> = config.repo_keys().iter().copied().map(open).collect();
    let lost = || Error::new(engine::ErrorCode::Kernel, "unable to look at the repository");
    let answers = asked.into_iter().map(|(key, thread)| {
        let answer = thread.ok().and_then(|thread| thread.join().ok()).unwrap_or_else(|| Err(lost()));
        answer.unwrap_or_else(|error| Answer { repo: Repo::unreachable(key, error), latency_seconds: None })
    });
    answers.collect()
}

/// Returns what is shown of a repository. What can be recovered is added later.
pub(super) fn view(repo: &RepoFact, fact: &StanzaFact, latencies: &[(u32, Option<f64>)]) -> RepoView {
    let backups = || fact.backups.iter().filter(|backup| backup.repo_key == repo.key);
    let archives = fact.archives.iter().filter(|archive| archive.repo_key == repo.key);
    let version = |id| {
        let found = fact.databases.iter().find(|database| database.id == id && database.repo_key == repo.key);
        found.map(|database| database.version.to_string()).unwrap_or_default()
    };
    RepoView {
        key: repo.key,
        cipher: repo.cipher.to_owned(),
        status_code: repo.status.number(),
        status: repo.message().to_owned(),
        latency_seconds: latencies.iter().find(|(key, _)| *key == repo.key).and_then(|(_, latency)| *latency),
        stored_bytes: backups().map(|backup| backup.entry.repo_size_delta).fold(0, u64::saturating_add),
        database_bytes: backups().map(|backup| backup.entry.size).fold(0, u64::saturating_add),
        newest_wal_time: repo.objectives.as_ref().and_then(|known| Some(known.rpo.as_ref()?.stored)),
        archives: archives
            .map(|archive| ArchiveView {
                id: archive.id.to_string(),
                pg_version: version(archive.db_id),
                min: archive.min.clone(),
                max: archive.max.clone(),
            })
            .collect(),
        ..RepoView::default()
    }
}
