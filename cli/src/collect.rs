//! Collects what metrics, the status page and the API show.
//!
//! What does not answer in time is reported as such and left behind: a thread that hangs on a file system ends with the
//! process, which collects once.

mod asked;
mod cluster;
mod phases;
mod recovery;
mod repo;
mod spool;
mod stanza;

use std::collections::BTreeSet;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use engine::{Error, ErrorCode, Result};
use jiff::Timestamp;
use monitor::snapshot::{self, JobView, RepoView, Snapshot, StanzaView};
use serde_json::json;

use crate::config::{Command, Config};
use repo_format::layout::{self, RepoPath};

use crate::command::schedule::list;
use crate::repos;
use asked::{Asked, Patience};
use stanza::CollectedStanza;

/// How long everything may take.
const ALL_MAX: Duration = Duration::from_secs(95);
/// How long to wait for stanzas after that. The daemon ends a collection that takes longer than two minutes.
const LAST_MAX: Duration = Duration::from_secs(10);
/// How long a repository or cluster may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// How long listing all archives of a stanza may take.
const LIST_MAX: Duration = Duration::from_secs(60);
/// How many stanzas are looked at at all. A repository may be hostile.
const STANZAS_MAX: usize = 1000;
/// How many stanzas are looked at at the same time. Most of the time a worker waits, for some of them in vain.
const WORKERS: usize = 16;

/// What was collected.
pub(crate) struct Collected {
    pub(crate) snapshot: Snapshot,
    /// The JSON of `info` for all stanzas.
    pub(crate) info: String,
}

/// What is collected, for threads that may outlive the collection.
#[derive(Clone)]
pub(crate) struct CollectRequest {
    /// The configuration of the daemon.
    pub(crate) daemon: Arc<Config>,
    /// The last collection. What changes rarely is looked up again only after a while.
    pub(crate) previous: Option<Arc<Snapshot>>,
    /// The only stanza.
    pub(crate) stanza: Option<String>,
}

/// What the threads of a collection have in common.
#[derive(Clone)]
struct Collection {
    request: CollectRequest,
    patience: Patience,
}

/// Looks at everything.
pub(crate) fn collect(request: &CollectRequest) -> Collected {
    let begin = Instant::now();
    let mut errors = Vec::new();
    let time = now();
    let collection = Collection { request: request.clone(), patience: Patience::new(ALL_MAX) };
    let (names, listing_errors) = stanzas(&collection);
    errors.extend(listing_errors);
    let found = all_stanzas(&collection, &names, begin + ALL_MAX + LAST_MAX);
    let info: Vec<&str> = found.iter().map(|stanza| stanza.info.as_str()).collect();
    let info = format!("[{}]", info.join(","));
    let (jobs, daemon) = match jobs(&request.daemon) {
        Ok(jobs) => jobs,
        Err(error) => {
            errors.push(format!("jobs: {error}"));
            (Vec::new(), false)
        }
    };
    for stanza in &found {
        errors.extend(stanza.errors.iter().map(|error| format!("stanza {}: {error}", stanza.view.name)));
    }
    let snapshot = Snapshot {
        format: snapshot::FORMAT,
        time,
        duration_seconds: begin.elapsed().as_secs_f64(),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        daemon,
        errors,
        stanzas: found.into_iter().map(|stanza| stanza.view).collect(),
        jobs,
    };
    Collected { snapshot, info }
}

/// The time in seconds since 1970.
fn now() -> i64 {
    Timestamp::now().as_second()
}

/// Returns the stanzas of the configuration, and those in the repositories that all stanzas share. Those of the last
/// collection stay as long as a repository does not say that they are gone.
fn stanzas(collection: &Collection) -> (Vec<String>, Vec<String>) {
    let request = &collection.request;
    if let Some(stanza) = &request.stanza {
        return (vec![stanza.clone()], Vec::new());
    }
    let mut names: BTreeSet<String> = request.daemon.stanzas().into_iter().collect();
    let mut errors = Vec::new();
    let mut is_complete = true;
    match request.daemon.of_command(Command::Info) {
        Ok(config) => {
            for (key, listed) in listed_stanzas(collection, &Arc::new(config)) {
                is_complete &= matches!(listed, Ok(Some(_)));
                match listed {
                    Ok(found) => {
                        names.extend(found.into_iter().flatten().filter(|name| name.parse::<engine::Stanza>().is_ok()))
                    }
                    // A stanza of the configuration shows the error
                    Err(error) if names.is_empty() => errors.push(format!("repo{key}: [{}] {error}", error.code)),
                    Err(_) => (),
                }
            }
        }
        // Without global repositories there is nothing to list
        Err(error) if error.code == ErrorCode::OptionRequired => (),
        Err(error) => {
            is_complete = false;
            errors.push(format!("stanzas of the repositories: {error}"));
        }
    }
    if !is_complete && let Some(previous) = &request.previous {
        names.extend(previous.stanzas.iter().map(|stanza| stanza.name.clone()));
    }
    if names.len() > STANZAS_MAX {
        errors.push(format!("there are {} stanzas, of which only {STANZAS_MAX} are looked at", names.len()));
    }
    (names.into_iter().take(STANZAS_MAX).collect(), errors)
}

/// The names in a directory of a repository.
type Listed = Result<Option<Vec<String>>>;

/// Lists the stanzas of each repository that all stanzas share.
fn listed_stanzas(collection: &Collection, config: &Arc<Config>) -> Vec<(u32, Listed)> {
    let ask = |&key: &u32| {
        let of_thread = Arc::clone(config);
        let work = move || repos::open(&of_thread, key)?.storage.names(&RepoPath::new(layout::BACKUP)?);
        (key, Asked::new(work))
    };
    let asked: Vec<_> = config.repo_keys().iter().map(ask).collect();
    let answers = asked.into_iter().map(|(key, asked)| {
        let answer = asked.answer(ANSWER_MAX);
        if answer.is_none() {
            collection.patience.note_silent(asked::identity(config, key));
        }
        (key, answer.unwrap_or_else(|| Err(asked::no_answer(ANSWER_MAX))))
    });
    answers.collect()
}

/// Looks at each stanza, several at a time.
fn all_stanzas(collection: &Collection, names: &[String], end: Instant) -> Vec<CollectedStanza> {
    let owned: Vec<String> = names.to_vec();
    let queue = Arc::new(Mutex::new(owned.into_iter().enumerate()));
    let (sender, receiver) = channel();
    for _ in 0..WORKERS.min(names.len()) {
        let (queue, sender, collection) = (Arc::clone(&queue), sender.clone(), collection.clone());
        let work = move || {
            loop {
                let next = queue.lock().ok().and_then(|mut queue| queue.next());
                let Some((index, name)) = next else { return };
                if sender.send((index, stanza::collect(&collection, &name))).is_err() {
                    return;
                }
            }
        };
        // The stanza is then one that does not answer
        let _ = std::thread::Builder::new().spawn(work);
    }
    drop(sender);
    let mut found: Vec<Option<CollectedStanza>> = names.iter().map(|_| None).collect();
    while let Ok((index, stanza)) = receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
        found[index] = Some(stanza);
    }
    let unanswered = |name: &String| unreadable(&collection.request, name, &asked::no_answer(ALL_MAX));
    found.into_iter().zip(names).map(|(found, name)| found.unwrap_or_else(|| unanswered(name))).collect()
}

/// A stanza of which only an error is known.
fn unreadable(request: &CollectRequest, name: &str, error: &Error) -> CollectedStanza {
    let text = format!("[{}] {error}", error.code);
    let config = request.daemon.for_stanza(Command::Info, name);
    let keys = config.as_ref().map(|config| config.repo_keys().to_vec()).unwrap_or_default();
    let lock = json!({ "backup": { "held": false }, "restore": { "held": false } });
    let repo = |key: &u32| json!({ "cipher": "none", "key": key, "status": { "code": 99, "message": text } });
    let repos: Vec<_> = keys.iter().map(repo).collect();
    let status = json!({ "code": 99, "lock": lock, "message": "other" });
    let info = json!({ "archive": [], "backup": [], "cipher": "none", "db": [], "name": name, "repo": repos, "status": status });
    let repo_view = |key: u32| RepoView {
        key,
        cipher: "none".to_owned(),
        status_code: RepoView::STATUS_OTHER,
        status: text.clone(),
        ..RepoView::default()
    };
    let view = StanzaView {
        name: name.to_owned(),
        status_code: RepoView::STATUS_OTHER,
        status: text.clone(),
        repos: keys.into_iter().map(repo_view).collect(),
        ..StanzaView::default()
    };
    CollectedStanza { view, info: info.to_string(), errors: vec![text] }
}

/// Returns the jobs, and whether a daemon is running.
fn jobs(daemon: &Config) -> Result<(Vec<JobView>, bool)> {
    let (jobs, has_daemon) = list::jobs_json(daemon)?;
    let read = |job| {
        serde_json::from_value(job)
            .map_err(|error| Error::new(ErrorCode::Assert, format!("a job has another form than expected: {error}")))
    };
    Ok((jobs.into_iter().map(read).collect::<Result<_>>()?, has_daemon))
}
