//! Looks at the repositories of a stanza.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::info::{InfoRequest, RepoFact, StanzaFact};
use engine::session::RepoSource;
use engine::{Error, ErrorCode, Repo, Result, Session};
use monitor::snapshot::{ArchiveView, RepoView};
use repo_format::layout::{self, RepoPath};

use super::ANSWER_MAX;
use super::asked::{self, Asked, Patience};
use crate::config::Config;
use crate::{cancel_token, repos};

/// A repository, and how it answered.
pub(super) struct Answer {
    pub(super) repo: Repo,
    /// How long it took to list a directory; `None` if that failed.
    pub(super) latency_seconds: Option<f64>,
}

/// The repositories of a stanza. Each is asked by itself, so that one that hangs hides no other.
pub(super) struct RepoSet<'a> {
    config: Arc<Config>,
    patience: &'a Patience,
    pub(super) answers: Vec<Answer>,
}

impl<'a> RepoSet<'a> {
    /// Opens all at the same time. One that does not answer gives its error at each use.
    pub(super) fn open(config: &Arc<Config>, patience: &'a Patience) -> Self {
        let ask = |&key: &u32| {
            let of_thread = Arc::clone(config);
            let work = move || {
                let repo = repos::open(&of_thread, key)?;
                let begin = Instant::now();
                // Its result is an error of the repository like any other
                let is_listed = repo.storage.names(&RepoPath::new(layout::BACKUP)?).is_ok();
                Ok(Answer { repo, latency_seconds: is_listed.then(|| begin.elapsed().as_secs_f64()) })
            };
            let id = asked::identity(config, key);
            (key, id, patience.limit_of(id, ANSWER_MAX), Asked::new(work))
        };
        let asked: Vec<_> = config.repo_keys().iter().map(ask).collect();
        let answers = asked.into_iter().map(|(key, id, limit, asked)| {
            let answer = asked.answer(limit).unwrap_or_else(|| {
                patience.note_silent(id);
                Err(asked::no_answer(limit))
            });
            answer.unwrap_or_else(|error| Answer { repo: Repo::unreachable(key, error), latency_seconds: None })
        });
        let answers = answers.collect();
        RepoSet { config: Arc::clone(config), patience, answers }
    }

    /// Asks those repositories that `is_meant` accepts at the same time, each for at most `limit`. One that does not
    /// answer is not asked again.
    ///
    /// # Errors
    /// An error of a repository is its answer.
    pub(super) fn ask<T: Send + 'static>(
        &mut self,
        limit: Duration,
        is_meant: impl Fn(u32) -> bool,
        question: impl Fn(&Session) -> Result<T> + Clone + Send + 'static,
    ) -> Vec<(u32, Result<T>)> {
        let meant = self.answers.iter_mut().filter(|answer| is_meant(answer.repo.key));
        let asked: Vec<_> = meant
            .map(|answer| {
                let (config, repo, question) = (Arc::clone(&self.config), answer.repo.clone(), question.clone());
                (answer, Asked::new(move || question(&session(&config, repo)?)))
            })
            .collect();
        let mut answers = Vec::with_capacity(asked.len());
        for (answer, asked) in asked {
            let key = answer.repo.key;
            let limit = self.patience.limit(limit);
            let found = asked.answer(limit).unwrap_or_else(|| {
                self.patience.note_silent(asked::identity(&self.config, key));
                let cipher = answer.repo.cipher.clone();
                answer.repo = Repo { cipher, ..Repo::unreachable(key, asked::no_answer(limit)) };
                answer.latency_seconds = None;
                Err(asked::no_answer(limit))
            });
            answers.push((key, found));
        }
        answers
    }

    /// Returns the facts of `info` over all repositories.
    ///
    /// # Errors
    /// The configuration is not valid.
    pub(super) fn info(&mut self) -> Result<StanzaFact> {
        let of_each = self.ask(ANSWER_MAX, |_| true, |session| session.info(&InfoRequest::default()));
        let mut facts = Vec::with_capacity(of_each.len());
        for ((_, fact), answer) in of_each.into_iter().zip(&self.answers) {
            facts.push(match fact {
                Ok(fact) => fact,
                // The repository is then one that can't be reached, which is a fact
                Err(_) => session(&self.config, answer.repo.clone())?.info(&InfoRequest::default())?,
            });
        }
        StanzaFact::merged(facts).ok_or_else(|| Error::new(ErrorCode::Assert, "the stanza has no repository"))
    }
}

/// A session with a repository that is open.
fn session(config: &Config, repo: Repo) -> Result<Session> {
    let session = Session::new(repos::stanza(config)?, [RepoSource::Open(repo)])?;
    Ok(session.with_cancel(cancel_token().clone()).with_lock_path(repos::lock_path(config)?))
}

/// Returns what is shown of a repository. What can be recovered is added later.
pub(super) fn view(repo: &RepoFact, fact: &StanzaFact, answers: &[Answer]) -> RepoView {
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
        latency_seconds: answers
            .iter()
            .find(|answer| answer.repo.key == repo.key)
            .and_then(|found| found.latency_seconds),
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

#[cfg(test)]
mod tests {
    use engine::info::StatusCode;

    use super::*;
    use crate::config::tests::resolved;

    #[test]
    fn repository_that_hangs_while_it_is_read_hides_no_other_and_is_asked_once() {
        let dir = tempfile::tempdir().unwrap();
        for repo in ["one", "two"] {
            std::fs::create_dir_all(dir.path().join(repo).join("backup/demo")).unwrap();
        }
        let path = |name: &str| dir.path().join(name).display().to_string();
        let line = format!(
            "info --stanza=demo --repo1-path={} --repo2-path={} --lock-path={}",
            path("one"),
            path("two"),
            path("lock")
        );
        let patience = Patience::new(Duration::from_secs(60));
        let mut repos = RepoSet::open(&Arc::new(resolved(&line)), &patience);
        assert!(repos.answers.iter().all(|answer| answer.latency_seconds.is_some()));
        // The second one was opened, and then does not answer any more
        let info = |session: &Session| {
            let fact = session.info(&InfoRequest::default())?;
            if fact.repos[0].key == 2 {
                std::thread::sleep(Duration::from_secs(600));
            }
            Ok(fact)
        };
        let answers = repos.ask(Duration::from_secs(3), |_| true, info);
        assert_eq!(answers[0].1.as_ref().unwrap().status, StatusCode::MissingStanzaData);
        assert_eq!(answers[1].1.as_ref().unwrap_err().code, ErrorCode::HostConnect);
        // Nothing waits for it again
        let fact = repos.info().unwrap();
        assert_eq!(fact.repos.iter().map(|repo| repo.status.number()).collect::<Vec<_>>(), [3, 99]);
        assert_eq!(fact.repos[1].message(), "[HostConnectError] no answer within 3 seconds");
        assert!(repos.answers[0].latency_seconds.is_some() && repos.answers[1].latency_seconds.is_none());
    }
}
