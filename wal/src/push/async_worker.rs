//! The background worker that pushes everything that PostgreSQL wants archived.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use engine::work::crew::{Crew, CrewSettings, Event};
use engine::work::retry::RetryPolicy;
use engine::{CancelToken, Error, ErrorCode, Result};
use repo_format::wal_name;

use super::check::PushTargets;
use super::segment::ToPush;
use super::{PushSettings, check, queue, segment};
use crate::background::crew_for;
use crate::repos::Repos;
use crate::spool::Spool;

/// How long a worker continues while new WAL keeps coming. Then it leaves the rest to a new worker, which reads its
/// configuration again.
const GO_ON_MAX: Duration = Duration::from_secs(60);

/// The settings of the worker.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// How one file is pushed. The data directory is set.
    pub push: PushSettings,
    /// Bytes to push before the queue is looked at again.
    pub batch_size: u64,
    /// How to retry a failed push.
    pub retry: RetryPolicy,
    /// The file that PostgreSQL waits for. It is pushed first, because an earlier file may fail every time.
    pub asked: Option<String>,
}

/// A background worker that pushes everything that is ready.
#[derive(Clone, Copy)]
pub struct PushWorker<'a> {
    /// The repositories.
    pub repos: &'a Repos,
    /// How to push.
    pub settings: &'a WorkerSettings,
    /// The spool.
    pub spool: &'a Spool,
    /// The WAL directory.
    pub wal_path: &'a Path,
}

impl PushWorker<'_> {
    /// Pushes everything that is ready and writes each file's status to the spool. A failure that concerns all files is
    /// also written there. `check_stop` tells whether the operator stopped the stanza.
    ///
    /// # Errors
    /// The failure that concerns all files. Problems with single files are in the spool.
    pub fn run(&self, check_stop: impl Fn() -> Result<()>, cancel: &CancelToken) -> Result<()> {
        let PushWorker { settings, spool, wal_path, .. } = *self;
        let begin = Instant::now();
        let rounds = || {
            let mut first = true;
            let mut pushed = BTreeSet::new();
            loop {
                check_stop()?;
                let (ready, mut todo) = todo(spool, wal_path, &pushed)?;
                if todo.is_empty() {
                    if first {
                        return Err(Error::new(ErrorCode::Assert, "no WAL files to process"));
                    }
                    return Ok(());
                }
                // In later rounds PostgreSQL is still acknowledging what was pushed before. In the first round everything
                // that waits counts, including files that were pushed already, because PostgreSQL keeps them until earlier
                // files are pushed
                let waiting = if first { ready } else { todo.clone() };
                let is_full = match settings.push.queue_max {
                    Some(queue_max) => queue::is_exceeded(wal_path, &waiting, queue_max)?.then_some(queue_max),
                    None => None,
                };
                if let Some(queue_max) = is_full {
                    return drop_all(spool, &todo, queue_max);
                }
                limit(&mut todo, wal_path, settings)?;
                if !self.round(&todo, cancel)? || begin.elapsed() > GO_ON_MAX {
                    return Ok(());
                }
                pushed.extend(todo);
                first = false;
            }
        };
        rounds().inspect_err(|error| spool.tell_all(error))
    }

    /// Pushes one batch. Returns `false` if it was interrupted.
    fn round(&self, todo: &[String], cancel: &CancelToken) -> Result<bool> {
        let PushWorker { repos, settings, spool, wal_path } = *self;
        begin_line(todo);
        let targets = check::check(repos, &settings.push, None)?;
        let mut failed = false;
        let process_max = settings.push.process_max;
        let left = AtomicUsize::new(todo.len());
        let push = |targets: &mut PushTargets, file: &&String, _: &CancelToken| {
            // Towards the end there are fewer files than workers
            let threads = process_max / left.load(Ordering::Relaxed).clamp(1, process_max.max(1));
            let to_push = ToPush { path: &wal_path.join(file), name: file, threads };
            segment::push_file(targets, &settings.push, to_push, None)
        };
        let mut report = |process, file: &str, result: Result<Vec<String>>| match result {
            Ok(warnings) => {
                for warning in &warnings {
                    engine::warn!(process: process, "{warning}");
                }
                engine::detail!(process: process, "pushed WAL file '{file}' to the archive");
                spool.write_ok(file, &warnings)
            }
            Err(error) => {
                failed = true;
                engine::warn!(
                    process: process,
                    "could not push WAL file '{file}' to the archive (will be retried): [{}] {error}",
                    error.code.number()
                );
                spool.write_error(Some(file), &error)
            }
        };
        let workers = u32::try_from(process_max).unwrap_or(u32::MAX);
        let crew = crew_for(todo.len(), repos, &CrewSettings::new(workers, settings.retry.clone()));
        let mut files = todo.iter();
        Crew { settings: &crew, cancel }.run(
            |_| Ok(files.next()),
            |_, turn| Ok(targets.on_turn(turn)),
            push,
            |event| match event {
                Event::Done { worker, job, result } => {
                    left.fetch_sub(1, Ordering::Relaxed);
                    report(worker, job, result)
                }
                Event::Idle | Event::Stopping => Ok(()),
            },
        )?;
        if failed {
            engine::warn!("stopped archive-push after an error, remaining WAL will be processed on the next run");
        }
        Ok(!failed)
    }
}

/// Returns what PostgreSQL wants archived, and the part of it that is not pushed yet. Removes statuses that nobody asks
/// for any more. `pushed` contains what this worker has pushed, whose statuses are new regardless of file system
/// clocks.
fn todo(spool: &Spool, wal_path: &Path, pushed: &BTreeSet<String>) -> Result<(Vec<String>, Vec<String>)> {
    let states = spool.list()?;
    let ready = queue::ready_list(wal_path)?;
    let mut done = Vec::new();
    for state in &states {
        match state.strip_suffix(repo_format::spool::OK_EXTENSION) {
            Some(file)
                if ready.binary_search_by(|name| name.as_str().cmp(file)).is_ok()
                    && (pushed.contains(file) || !spool.is_stale(file, &wal_path.join(file))?) =>
            {
                done.push(file);
            }
            _ => spool.remove(state)?,
        }
    }
    done.sort_unstable();
    let is_todo = |file: &&String| done.binary_search(&file.as_str()).is_err();
    let todo = ready.iter().filter(is_todo).cloned().collect();
    Ok((ready, todo))
}

/// Moves the file that PostgreSQL waits for to the front, and limits the list to a batch.
fn limit(todo: &mut Vec<String>, wal_path: &Path, settings: &WorkerSettings) -> Result<()> {
    let segments = todo.iter().filter(|file| wal_name::kind(file).is_segment());
    let count = match queue::first_size(wal_path, segments)? {
        Some((file, 0)) => {
            return Err(Error::new(ErrorCode::Format, format!("size of WAL segment '{file}' is 0")));
        }
        Some((_, size)) => usize::try_from(settings.batch_size / size).unwrap_or(usize::MAX).max(1),
        None => usize::MAX,
    };
    if let Some(asked) = todo.iter().position(|file| Some(file) == settings.asked.as_ref()) {
        todo[..=asked].rotate_right(1);
    }
    todo.truncate(count);
    Ok(())
}

fn begin_line(todo: &[String]) {
    let last = match todo {
        [_] | [] => String::new(),
        [.., last] => format!("...{last}"),
    };
    engine::info!("push {} WAL file(s) to archive: {}{last}", todo.len(), todo.first().map_or("", String::as_str));
}

/// Drops everything that waits, so that PostgreSQL's disk does not fill.
fn drop_all(spool: &Spool, todo: &[String], queue_max: u64) -> Result<()> {
    begin_line(todo);
    for file in todo {
        let warning = queue::drop_warning(file, queue_max);
        engine::warn!("{warning}");
        spool.write_ok(file, &[warning])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::repo::{Repo, info_files};
    use engine::storage::memory::MemoryStorage;
    use engine::storage::{self, WriteOptions};
    use repo_format::archive_info::ArchiveInfo;
    use repo_format::cipher::Cipher;
    use repo_format::compress::Compression;
    use repo_format::layout;
    use repo_format::pg::PgVersion;
    use repo_format::spool::SpoolQueue;

    use super::*;

    const SEGMENTS: [&str; 3] = ["000000010000000000000001", "000000010000000000000002", "000000010000000000000003"];
    const HISTORY: &str = "00000002.history";
    const SIZE: u64 = 4096;

    /// Waiting segments and a history file, and a repository.
    struct Place {
        dir: tempfile::TempDir,
        spool: Spool,
        repos: Repos,
        settings: WorkerSettings,
    }

    impl Place {
        fn make() -> Self {
            let dir = tempfile::tempdir().expect("dir");
            let stanza: layout::Stanza = "demo".parse().expect("stanza");
            let spool = Spool::new(dir.path(), &stanza, SpoolQueue::Out);
            spool.create().expect("spool");
            let repo = Repo { key: 1, storage: Arc::new(MemoryStorage::new()), cipher: Cipher::None };
            let info = ArchiveInfo::new(PgVersion::V15, 1, None);
            info_files::save_archive_info(&repo, &stanza, &info).expect("info");
            let settings = WorkerSettings {
                // With more workers, the next file may be pushed before the first one fails
                push: PushSettings { process_max: 1, ..PushSettings::of_tests(Compression::NONE) },
                batch_size: 1 << 30,
                retry: RetryPolicy::NONE,
                asked: None,
            };
            let place = Place { dir, spool, repos: vec![repo].into(), settings };
            for segment in SEGMENTS {
                place.ready(segment, &[7; SIZE as usize]);
            }
            place
        }

        fn ready(&self, name: &str, content: &[u8]) {
            let status = self.dir.path().join("archive_status");
            std::fs::create_dir_all(&status).expect("directory");
            std::fs::write(self.dir.path().join(name), content).expect("file");
            std::fs::write(status.join(format!("{name}.ready")), "").expect("ready");
        }

        /// Stores a segment with other content in the repository.
        fn block(&self, segment: &str) {
            let id = "15-1".parse().expect("archive id");
            let name = format!("{segment}-{}", "0".repeat(40));
            let path = layout::archive_file(&self.settings.push.stanza, id, &name).expect("path");
            storage::put(&*self.repos.open[0].storage, &path, b"other", WriteOptions::ATOMIC).expect("put");
        }

        fn worker(&self) -> PushWorker<'_> {
            PushWorker { repos: &self.repos, settings: &self.settings, spool: &self.spool, wal_path: self.dir.path() }
        }

        fn run(&self, cancel: &CancelToken) -> Result<()> {
            self.worker().run(|| Ok(()), cancel)
        }

        fn states(&self) -> Vec<String> {
            self.spool.list().expect("list")
        }
    }

    #[test]
    fn file_asked_for_is_pushed_though_an_earlier_one_always_fails() {
        let mut place = Place::make();
        place.ready(HISTORY, b"1\t0/3000000\tno recovery target specified\n");
        place.block(SEGMENTS[0]);
        place.run(&CancelToken::new()).expect("without a file asked for");
        assert_eq!(place.states(), [format!("{}.error", SEGMENTS[0])]);
        place.settings.asked = Some(HISTORY.to_owned());
        place.run(&CancelToken::new()).expect("run");
        assert_eq!(place.states(), [format!("{}.error", SEGMENTS[0]), format!("{HISTORY}.ok")]);
    }

    #[test]
    fn batch_is_measured_in_segments_and_begins_with_the_file_asked_for() {
        let mut place = Place::make();
        place.ready(HISTORY, b"1\t0/3000000\tno recovery target specified\n");
        place.settings.asked = Some(HISTORY.to_owned());
        place.settings.batch_size = 2 * SIZE;
        let (_, mut todo) = todo(&place.spool, place.dir.path(), &BTreeSet::new()).expect("todo");
        limit(&mut todo, place.dir.path(), &place.settings).expect("limit");
        assert_eq!(todo, [HISTORY, SEGMENTS[0]]);
        // A file that no longer exists
        place.settings.asked = Some("00000003.history".to_owned());
        limit(&mut todo, place.dir.path(), &place.settings).expect("limit");
        assert_eq!(todo, [HISTORY, SEGMENTS[0]]);
    }

    #[test]
    fn later_rounds_do_not_count_what_they_pushed_as_waiting() {
        let mut place = Place::make();
        place.settings.batch_size = SIZE;
        place.settings.push.queue_max = Some(3 * SIZE);
        let more = format!("{}4", &SEGMENTS[0][..23]);
        // It arrives during the first round, and PostgreSQL has acknowledged nothing yet
        let calls = std::cell::Cell::new(0);
        let check_stop = || {
            calls.set(calls.get() + 1);
            if calls.get() == 2 {
                place.ready(&more, &[7; SIZE as usize]);
            }
            Ok(())
        };
        place.worker().run(check_stop, &CancelToken::new()).expect("run");
        let states = place.states();
        assert_eq!(states.len(), 4, "{states:?}");
        for state in states {
            assert_eq!(std::fs::read(place.spool.file(&state)).expect("state"), b"", "{state}");
        }
        // A new worker measures all
        place.spool.remove(&format!("{more}.ok")).expect("remove");
        place.run(&CancelToken::new()).expect("run");
        let state = std::fs::read_to_string(place.spool.file(&format!("{more}.ok"))).expect("state");
        assert!(state.contains("because archive queue exceeded"), "{state}");
    }

    #[test]
    fn state_of_an_earlier_cluster_does_not_keep_the_worker_from_pushing() {
        let place = Place::make();
        place.spool.write_ok(SEGMENTS[0], &["of an earlier cluster".to_owned()]).expect("ok");
        let state = place.spool.file(&format!("{}.ok", SEGMENTS[0]));
        let file = std::fs::File::options().write(true).open(&state).expect("open");
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(60)).expect("time");
        place.run(&CancelToken::new()).expect("run");
        assert_eq!(std::fs::read(state).expect("state"), b"");
    }

    #[test]
    fn clock_of_the_spool_that_is_behind_makes_no_worker_push_its_files_again() {
        let place = Place::make();
        let dated = |name: &str| {
            let file = std::fs::File::options().write(true).open(place.spool.file(name)).expect("open");
            file.set_modified(std::time::SystemTime::now() - Duration::from_secs(60)).expect("time");
        };
        let states: Vec<String> = SEGMENTS.iter().map(|segment| format!("{segment}.ok")).collect();
        for state in &states {
            place.spool.write(state, b"").expect("state");
            dated(state);
        }
        let own = SEGMENTS.iter().map(|segment| (*segment).to_owned()).collect();
        assert!(todo(&place.spool, place.dir.path(), &own).expect("todo").1.is_empty());
        assert_eq!(todo(&place.spool, place.dir.path(), &BTreeSet::new()).expect("todo").1, SEGMENTS);
    }

    #[test]
    fn worker_that_is_told_to_end_leaves_no_error() {
        let place = Place::make();
        let cancel = CancelToken::new();
        cancel.cancel_by_signal(15);
        assert_eq!(place.run(&cancel).expect_err("ended").code, ErrorCode::Term);
        assert!(place.states().is_empty());
    }
}
