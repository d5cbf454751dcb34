//! The process that PostgreSQL calls while a worker pushes in the background: it looks for the segment's status in the
//! spool, starts the worker if none is running, and waits.
//!
//! If the worker has already pushed the segment, one look into the spool is all that happens.

use std::path::Path;
use std::time::{Duration, Instant};

use engine::{CancelToken, Error, ErrorCode, Result};

use crate::background::Background;
use crate::path::file_name;

/// A worker that ended without a status for the file, most likely because it was killed, is replaced after this time,
/// which is long enough for a new worker to take its lock.
const LAUNCH_AGAIN: Duration = Duration::from_secs(2);

/// Waits until the worker has pushed a file. `launch` starts a worker that pushes from the given directory, this file
/// first.
///
/// # Errors
/// The worker's error with this file (or with all), [`ErrorCode::ArchiveTimeout`] if it does not push the file in time,
/// and errors of the spool, the lock and `launch`.
pub fn push(
    background: &Background,
    wal_file: &Path,
    launch: impl Fn(&Path, &str) -> Result<()>,
    cancel: &CancelToken,
) -> Result<()> {
    let name = file_name(wal_file)?;
    if background.spool.is_stale(name, wal_file)? || !background.spool.status(name, false, true)? {
        let wal_path = wal_file.parent().unwrap_or(wal_file);
        wait(background, wal_file, name, || launch(wal_path, name), cancel)?;
    }
    engine::info!("pushed WAL file '{name}' to the archive asynchronously");
    Ok(())
}

/// Waits for a worker that has not pushed the file yet, or has to be started.
fn wait(
    background: &Background,
    wal_file: &Path,
    name: &str,
    launch: impl Fn() -> Result<()>,
    cancel: &CancelToken,
) -> Result<()> {
    let spool = &background.spool;
    // An error that exists already is from an earlier attempt. A new worker may succeed, and the earlier worker may
    // still be busy with other files. Three failed calls in a row would make PostgreSQL pause for a minute
    let stale = spool.has_error(name)?;
    let mut pauses = background.pauses();
    let mut launched: Option<Instant> = None;
    loop {
        let may_launch = launched.is_none_or(|launched| launched.elapsed() > LAUNCH_AGAIN);
        if may_launch {
            match start(background, wal_file, name, launched.is_some(), &launch)? {
                Start::Pushed => return Ok(()),
                Start::Launched => launched = Some(Instant::now()),
                Start::Running => {}
            }
        }
        let more = pauses.wait(cancel)?;
        let fail = !stale || launched.is_some() || !more;
        // A stale status was removed before the worker was started, so an existing status is new, regardless of file
        // system clocks. The worker of another call may not have reached a stale status yet
        let is_new = launched.is_some() || !spool.is_stale(name, wal_file)?;
        if is_new && spool.status(name, fail, true)? {
            return Ok(());
        }
        if !more {
            let text = format!(
                "unable to push WAL file '{name}' to the archive asynchronously after {} second(s)",
                background.timeout_text()
            );
            return Err(Error::new(ErrorCode::ArchiveTimeout, text).hint(background.log_hint()));
        }
    }
}

/// What the start of a worker has come to.
#[derive(Debug, PartialEq, Eq)]
enum Start {
    /// There is one.
    Running,
    /// There was one, which has pushed the file.
    Pushed,
    Launched,
}

/// Starts a worker unless one is running. `is_again` if this call has started one before.
///
/// # Errors
/// That of the worker before, and errors of the spool, the lock and `launch`.
fn start(
    background: &Background,
    wal_file: &Path,
    name: &str,
    is_again: bool,
    launch: impl Fn() -> Result<()>,
) -> Result<Start> {
    let spool = &background.spool;
    let Some(lock) = background.try_lock()? else { return Ok(Start::Running) };
    // It may have ended since the last look at the spool, and has left why
    if is_again && spool.status(name, true, true)? {
        return Ok(Start::Pushed);
    }
    // Created here so that PostgreSQL's log shows why it can't be created
    spool.create()?;
    spool.clear_errors(name)?;
    if spool.is_stale(name, wal_file)? {
        spool.remove(&repo_format::spool::ok_name(name))?;
    }
    drop(lock);
    launch()?;
    Ok(Start::Launched)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use engine::lock::{Lock, LockRequest, LockType};
    use repo_format::layout::Stanza;
    use repo_format::spool::SpoolQueue;

    use super::*;
    use crate::spool::Spool;

    const WAL: &str = "000000010000000000000001";
    const EXEC_ID: &str = "1-00000000";

    fn background(dir: &Path, timeout: Duration) -> Background {
        let stanza: Stanza = "demo".parse().expect("stanza");
        let spool = Spool::new(dir, &stanza, SpoolQueue::Out);
        spool.create().expect("spool");
        Background {
            stanza,
            spool,
            lock_path: dir.join("lock"),
            repo_keys: vec![1],
            exec_id: EXEC_ID.to_owned(),
            timeout,
            log_file: "log".to_owned(),
        }
    }

    /// Takes the lock like a worker that a call with this id started.
    fn worker(background: &Background, exec_id: &str) -> Lock {
        let Background { lock_path, stanza, .. } = background;
        Lock::acquire(LockRequest { lock_path, stanza, kinds: &[LockType::Archive], repo_keys: &[1], exec_id })
            .expect("lock")
    }

    fn failure(text: &str) -> Error {
        Error::new(ErrorCode::FileWrite, text)
    }

    #[test]
    fn a_worker_that_takes_long_is_not_joined_by_another() {
        let dir = tempfile::tempdir().expect("dir");
        let background = background(dir.path(), Duration::from_secs(60));
        let launches = Cell::new(0);
        let running = Cell::new(None);
        let launch = |_: &Path, _: &str| {
            launches.set(launches.get() + 1);
            let lock = worker(&background, EXEC_ID);
            let spool = background.spool.clone();
            running.set(Some(std::thread::spawn(move || {
                std::thread::sleep(LAUNCH_AGAIN + Duration::from_millis(700));
                spool.write_ok(WAL, &[]).expect("ok");
                drop(lock);
            })));
            Ok(())
        };
        push(&background, Path::new("pg_wal").join(WAL).as_path(), launch, &CancelToken::new()).expect("pushed");
        running.take().expect("worker").join().expect("worker");
        assert_eq!(launches.get(), 1);
    }

    /// Checks that the first call starts a worker and that the second one takes the worker's state.
    fn pushes_once(background: &Background, directory: &Path) {
        let wal_file = directory.join(WAL);
        std::fs::write(&wal_file, "wal").expect("segment");
        let launches = Cell::new(0);
        let launch = |_: &Path, _: &str| {
            launches.set(launches.get() + 1);
            background.spool.write_ok(WAL, &[])
        };
        for call in ["pushed", "acknowledged"] {
            push(background, &wal_file, launch, &CancelToken::new()).expect(call);
            assert_eq!(launches.get(), 1, "{call}");
        }
    }

    #[test]
    fn state_of_an_earlier_cluster_acknowledges_nothing() {
        let dir = tempfile::tempdir().expect("dir");
        let background = background(dir.path(), Duration::from_secs(60));
        background.spool.write_ok(WAL, &[]).expect("ok");
        let state = std::fs::File::options().write(true).open(background.spool.file(&format!("{WAL}.ok")));
        state.expect("open").set_modified(std::time::SystemTime::now() - Duration::from_secs(60)).expect("time");
        pushes_once(&background, dir.path());
    }

    #[test]
    fn state_that_is_damaged_acknowledges_nothing_and_fails_nothing() {
        let dir = tempfile::tempdir().expect("dir");
        let background = background(dir.path(), Duration::from_secs(60));
        std::fs::write(background.spool.file(&format!("{WAL}.ok")), [0; 10]).expect("state");
        pushes_once(&background, dir.path());
    }

    #[test]
    fn a_worker_that_was_killed_is_replaced() {
        let dir = tempfile::tempdir().expect("dir");
        let background = background(dir.path(), Duration::from_secs(60));
        let launches = Cell::new(0);
        let launch = |_: &Path, _: &str| {
            launches.set(launches.get() + 1);
            if launches.get() == 2 { background.spool.write_ok(WAL, &[]) } else { Ok(()) }
        };
        push(&background, Path::new(WAL), launch, &CancelToken::new()).expect("pushed");
        assert_eq!(launches.get(), 2);
    }

    #[test]
    fn error_of_a_worker_was_forgotten_if_it_ended_between_two_looks() {
        let dir = tempfile::tempdir().expect("dir");
        let background = background(dir.path(), Duration::from_secs(60));
        let start = |is_again| {
            let launched = Cell::new(false);
            let started = start(&background, Path::new(WAL), WAL, is_again, || {
                launched.set(true);
                Ok(())
            });
            assert_eq!(launched.get(), matches!(started, Ok(Start::Launched)));
            started
        };
        background.spool.write_error(Some(WAL), &failure("no")).expect("error");
        assert_eq!(start(true).expect_err("that of the worker").message, "no");
        // One from before this call is removed
        assert_eq!(start(false).expect("started"), Start::Launched);
        background.spool.write_ok(WAL, &[]).expect("ok");
        assert_eq!(start(true).expect("pushed"), Start::Pushed);
        let _running = worker(&background, "2-00000000");
        assert_eq!(start(true).expect("running"), Start::Running);
    }

    #[test]
    fn an_earlier_error_does_not_count_while_its_worker_is_busy() {
        let dir = tempfile::tempdir().expect("dir");
        let background = background(dir.path(), Duration::from_secs(60));
        background.spool.write_error(Some(WAL), &failure("before")).expect("error");
        let earlier = worker(&background, "2-00000000");
        let busy = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(earlier);
        });
        let launch = |_: &Path, _: &str| background.spool.write_ok(WAL, &[]);
        push(&background, Path::new(WAL), launch, &CancelToken::new()).expect("pushed");
        busy.join().expect("earlier worker");
    }

    #[test]
    fn an_error_counts_once_a_worker_was_started_for_it() {
        let dir = tempfile::tempdir().expect("dir");
        let background = background(dir.path(), Duration::from_secs(60));
        background.spool.write_error(Some(WAL), &failure("before")).expect("error");
        let launch = |_: &Path, _: &str| background.spool.write_error(None, &failure("now"));
        let error = push(&background, Path::new(WAL), launch, &CancelToken::new()).expect_err("failed");
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::FileWrite, "now"));
    }

    #[test]
    fn an_earlier_error_is_told_when_its_worker_never_ends() {
        let dir = tempfile::tempdir().expect("dir");
        let background = background(dir.path(), Duration::from_millis(50));
        background.spool.write_error(Some(WAL), &failure("before")).expect("error");
        let _earlier = worker(&background, "2-00000000");
        let launch = |_: &Path, _: &str| panic!("nothing can be launched");
        let error = push(&background, Path::new(WAL), launch, &CancelToken::new()).expect_err("failed");
        assert_eq!(error.message, "before");
    }
}
