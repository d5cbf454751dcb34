//! Passes over a repository: each plans all files and reads those that are due.
//!
//! Without limits one pass reads everything. A limit in bytes or time needs to know first which files were read longest
//! ago, and time also how fast they are read, so that a first pass reads nothing and others read a part. Files are too many
//! to keep their checks in memory, but manifests are quickly read again.

mod recall;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use repo_format::archive_info::ArchiveInfo;
use repo_format::label::BackupLabel;

use self::recall::{Next, Recall};
use super::file::FileChecker;
use super::memory::{Cutoff, Keeper, ReadFigures, Survey, Unseen};
use super::plan::{CheckStep, Plan, PlanSettings};
use super::repair::HalfWhole;
use super::scope::Scope;
use super::tally::{Tally, VerifyJob};
use super::unread::UnopenedBundles;
use super::walk::{Walk, WalkSettings};
use super::{VerifyTask, lost_connection};
use crate::storage::on_turn::OnTurn;
use crate::work::crew::{Crew, CrewSettings, Event};
use crate::work::retry::{RetryPolicy, is_lasting_locally, is_stop};
use crate::{Error, Result, detail, warn};

/// Jobs of one worker that read. Each has a decoder with its window.
const JOBS_PER_WORKER_MAX: u32 = 3;
/// Jobs of one worker that wait until files are summed up elsewhere, so that the way there costs little.
const SUMS_PER_WORKER: u32 = 12;
/// Bytes that are read to learn how fast they are read.
const FIRST_BYTES: u64 = 256 << 20;
/// The part of the remaining time that a pass is to use, in percent. What is read at its end is not in order.
const TIME_USED_PERCENT: u128 = 90;

/// What all passes have in common.
pub(super) struct Passes<'a> {
    pub task: &'a VerifyTask<'a>,
    pub walk: WalkSettings<'a>,
    pub archive_ids: Vec<String>,
    pub scope: Scope,
    pub archive_info: &'a ArchiveInfo,
}

/// The results of all passes.
pub(super) struct Passed {
    pub found: PassFindings,
    /// What was read, if earlier runs are remembered.
    pub figures: Option<ReadFigures>,
    /// Why records of earlier runs can't be used.
    pub record_faults: Vec<Error>,
}

/// The results of a pass. The last one counts.
#[derive(Default)]
pub(super) struct PassFindings {
    pub tally: Tally,
    /// Manifests of which either the file or the copy is damaged.
    pub half_whole: Vec<HalfWhole>,
    /// Backups whose files can't be listed, and why.
    pub unlisted: Vec<(BackupLabel, Error)>,
    /// Why the pass ended before all was looked at. Then only faults are known, not what is valid.
    pub ended: Option<Error>,
}

impl PassFindings {
    /// Adds what an earlier pass has found to that of one that has ended early.
    fn add_earlier(&mut self, known: u32, half_whole: Vec<HalfWhole>) {
        let tally = &mut self.tally;
        tally.errors = tally.known_faults().max(known).saturating_add(tally.unread.total);
        for file in half_whole {
            if !self.half_whole.iter().any(|met| met.path == file.path) {
                self.half_whole.push(file);
            }
        }
    }
}

/// What there is to read, and what was found while that was added up.
struct Surveyed {
    survey: Survey,
    earlier: PassFindings,
}

impl Passes<'_> {
    /// Reads the files that are due, or all of them.
    ///
    /// # Errors
    /// A signal arrived, or what is remembered can't be loaded.
    pub fn run(&self) -> Result<Passed> {
        let Some(recall) = self.recall()? else {
            let found = self.pass(None, PassFindings::default())?;
            return Ok(Passed { found, figures: None, record_faults: Vec::new() });
        };
        let recall = Mutex::new(recall);
        let mut found = self.rounds(&recall)?;
        let bad_holders = if found.ended.is_none() { found.tally.bad_holders() } else { BTreeSet::new() };
        if !bad_holders.is_empty() && lock(&recall).has_skipped_maps {
            // Which of the files that are remembered as good need a bad part
            lock(&recall).read_maps(bad_holders);
            found = self.pass(Some(&recall), found)?;
        }
        let mut recall = recall.into_inner().unwrap_or_else(PoisonError::into_inner);
        // What an unfinished run did not see stays remembered. The rest was saved when it ended
        if found.ended.is_none() {
            self.save(&mut recall, &found);
        }
        Ok(Passed { found, figures: Some(recall.limits.figures), record_faults: recall.take_faults() })
    }

    /// Loads what is remembered if that is asked for. A run that reads everything keeps what is remembered up to date, but
    /// does not begin to remember.
    fn recall(&self) -> Result<Option<Recall<'_>>> {
        let (request, repo, stanza) = (self.task.request, self.walk.repo, self.walk.stanza);
        if !request.remembers() {
            match Keeper::exists(repo, stanza) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(error) => {
                    self.task.session.cancel_token().check()?;
                    detail!("records of earlier runs can't be listed: {error}");
                    return Ok(None);
                }
            }
        }
        Recall::load(repo, stanza, request).map(Some)
    }

    fn rounds(&self, recall: &Mutex<Recall<'_>>) -> Result<PassFindings> {
        let request = self.task.request;
        if !request.is_limited() {
            return self.pass(Some(recall), PassFindings::default());
        }
        let deadline = request.max_time.and_then(|time| Instant::now().checked_add(time));
        let remaining = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        lock(recall).limits.deadline = deadline;
        let Surveyed { mut survey, mut earlier } = self.survey(recall)?;
        if earlier.ended.is_some() {
            return Ok(earlier);
        }
        let mut bytes_max = request.max_bytes.unwrap_or(u64::MAX);
        let mut round = if deadline.is_some() { FIRST_BYTES } else { u64::MAX };
        loop {
            let cutoff = survey.take(bytes_max.min(round));
            lock(recall).begin_pass(cutoff);
            let begin = Instant::now();
            let found = self.pass(Some(recall), earlier)?;
            if found.ended.is_some() {
                return Ok(found);
            }
            let read = lock(recall).pass_bytes;
            bytes_max = bytes_max.saturating_sub(read);
            let time = remaining().unwrap_or_default();
            if cutoff.is_none() || bytes_max == 0 || read == 0 || is_short(time, request.max_time) {
                return Ok(found);
            }
            round = bytes_in(read, begin.elapsed(), time);
            earlier = found;
        }
    }

    /// Adds up what there is to read.
    ///
    /// # Errors
    /// A signal arrived.
    fn survey(&self, recall: &Mutex<Recall<'_>>) -> Result<Surveyed> {
        let (mut walk, mut plan) = (self.new_walk(true), self.new_plan());
        let mut survey = Survey::default();
        let mut next = || -> Result<bool> {
            self.task.session.cancel_token().check()?;
            while let Some(step) = plan.next()? {
                if let CheckStep::CheckSegment(named) | CheckStep::CheckFile(named) = step {
                    let shown = walk.shown(&named.check.path);
                    lock(recall).survey(&mut survey, &named.check, shown);
                }
            }
            Ok(walk.next()?.map(|fact| plan.add(fact)).is_some())
        };
        let ended = loop {
            match next() {
                Ok(true) => {}
                Ok(false) => break None,
                Err(error) if is_stop(&error) => return Err(error),
                Err(error) => break Some(error),
            }
        };
        let earlier = PassFindings { half_whole: walk.half_whole, ended, ..PassFindings::default() };
        Ok(Surveyed { survey, earlier })
    }

    /// Plans all files and reads those that are due. What an earlier pass has found counts if this one ends early.
    ///
    /// # Errors
    /// A signal arrived.
    fn pass(&self, recall: Option<&Mutex<Recall<'_>>>, earlier: PassFindings) -> Result<PassFindings> {
        let (task, cancel, repo) = (self.task, self.task.session.cancel_token(), self.walk.repo);
        let (mut walk, mut plan) = (self.new_walk(recall.is_some()), self.new_plan());
        let PassFindings { tally: earlier, half_whole: half_whole_before, .. } = earlier;
        let known_before = earlier.known_faults();
        // Only locked to count, so that results never wait for the repository
        let tally = Mutex::new(Tally::after(earlier));
        let unopened = UnopenedBundles::default();
        // A file that can't be checked is a result here, and is checked again below
        let (storage, readers) = (&*repo.storage, repo.storage.concurrency().jobs_per_worker.min(JOBS_PER_WORKER_MAX));
        let jobs_per_worker = if storage.sums() { SUMS_PER_WORKER } else { readers };
        let crew = CrewSettings { jobs_per_worker, retry: RetryPolicy::NONE, ..task.crew.clone() };
        let places = Places::new(storage.sums().then_some(crew.workers.saturating_mul(readers)));
        let is_answer = |error: &Error| storage.features().errors_last && is_lasting_locally(error);
        let done = Crew { settings: &crew, cancel }.run(
            |_| {
                // What the rest of the repository is like can't be told any more
                storage.connected()?;
                next_job(&mut walk, &mut plan, &tally, recall)
            },
            |_, turn| Ok((FileChecker::new(turn, places.next()), turn.clone())),
            |(checker, turn), job, cancel| {
                let connected = || storage.connected();
                let storage = OnTurn::new(storage, turn);
                let check = || match job.only_map {
                    true => checker.check_map(&storage, &job.check),
                    false => checker.check(&storage, &job.check, cancel),
                };
                let pause = |interval| connected().and_then(|()| turn.waiting(|| cancel.sleep(interval)));
                let result = unopened.check(&job.check, || task.crew.retry.run_to_finding(pause, is_answer, check));
                cancel.check()?;
                if result.is_err() {
                    connected()?;
                }
                Ok(result)
            },
            |event| {
                match (event, recall) {
                    (Event::Done { worker, job, result }, recall) => {
                        let result = result?;
                        if let Some(recall) = recall {
                            lock(recall).record(&job, &result);
                        }
                        lock(&tally).add_result(worker, &job, result);
                    }
                    (Event::Stopping, Some(recall)) => lock(recall).save_new(),
                    (Event::Idle | Event::Stopping, _) => {}
                }
                Ok(())
            },
        );
        let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        let ended = match done {
            Err(error) if is_stop(&error) => return Err(error),
            // The last manifests of the walk can't be read after the end of a connection either
            done => done.err().or_else(|| lost_connection(repo, &tally.unread)),
        };
        let mut found = PassFindings { tally, half_whole: walk.half_whole, unlisted: walk.unlisted, ended };
        match found.ended {
            None => found.tally.settle(),
            // Some of what the earlier pass found was not met again
            Some(_) => found.add_earlier(known_before, half_whole_before),
        }
        Ok(found)
    }

    fn new_walk(&self, states: bool) -> Walk<'_> {
        Walk::new(WalkSettings { states, ..self.walk.clone() }, self.archive_ids.clone(), self.scope.clone())
    }

    fn new_plan(&self) -> Plan<'_> {
        Plan::new(PlanSettings {
            stanza: self.walk.stanza,
            archive_cipher: self.walk.archive_cipher.clone(),
            history: &self.archive_info.history,
        })
    }

    /// Writes what is known now. A repository that can't be written is no reason to fail.
    fn save(&self, recall: &mut Recall<'_>, found: &PassFindings) {
        let is_set = self.task.request.set.is_some();
        // In a repository that removes nothing, each such run leaves a file until the next one that sees everything
        if is_set && found.tally.errors == 0 {
            return;
        }
        let unseen = if is_set || !found.unlisted.is_empty() { Unseen::KeepAll } else { found.tally.unseen };
        let Err(error) = recall.save_all(unseen) else { return };
        let text = format!("{}: what was read is not remembered: {error}", self.walk.repo.name());
        // Bad files that are remembered as good would be read too late
        if self.task.request.remembers() || found.tally.errors > 0 { warn!("{text}") } else { detail!("{text}") }
    }
}

/// Where threads read files, if fewer may read than there are.
struct Places {
    places: Vec<Mutex<()>>,
    next: AtomicUsize,
}

impl Places {
    fn new(count: Option<u32>) -> Self {
        let places = (0..count.unwrap_or(0)).map(|_| Mutex::new(())).collect();
        Places { places, next: AtomicUsize::new(0) }
    }

    /// The place of the next thread; `None` if all may read.
    fn next(&self) -> Option<&Mutex<()>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.places.get(number.checked_rem(self.places.len())?)
    }
}

/// Returns the next file to read.
fn next_job(
    walk: &mut Walk<'_>,
    plan: &mut Plan<'_>,
    tally: &Mutex<Tally>,
    recall: Option<&Mutex<Recall<'_>>>,
) -> Result<Option<VerifyJob>> {
    loop {
        while let Some(step) = plan.next()? {
            let Some(mut job) = lock(tally).take(step) else { continue };
            let Some(recall) = recall else { return Ok(Some(job)) };
            let shown = walk.shown(&job.check.path);
            let next = lock(recall).next(&mut job, shown);
            match next {
                Next::Read => return Ok(Some(job)),
                Next::Known(fault) => lock(tally).add_known(&job, fault),
                Next::Left => lock(tally).add_left(&job),
            }
        }
        match walk.next()? {
            Some(fact) => plan.add(fact),
            None => return Ok(None),
        }
    }
}

/// Whether the time that is left is not worth another pass.
fn is_short(time: Duration, of: Option<Duration>) -> bool {
    of.is_none_or(|of| time < of / 10) || time < Duration::from_secs(1)
}

/// The bytes that can be read in a time, if it took `duration` to read `bytes`.
fn bytes_in(bytes: u64, duration: Duration, time: Duration) -> u64 {
    let used = u128::from(bytes).saturating_mul(time.as_millis()) / duration.as_millis().max(1);
    u64::try_from(used.saturating_mul(TIME_USED_PERCENT) / 100).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cutoff before which no file was read.
const NOTHING: Cutoff = Cutoff { time: 0, bytes: 0 };
