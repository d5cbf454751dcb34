//! The process that PostgreSQL calls while a worker fetches in the background: it takes the segment from the spool, and
//! starts the worker if too few segments are left.

use std::path::Path;

use engine::{CancelToken, Error, ErrorCode, Result};
use repo_format::pg::control::PgControl;
use repo_format::wal_name::{self, WalFileKind, WalSegment};

use super::claim::{self, Caller, Claim};
use super::find::Cluster;
use crate::background::Background;
use crate::origin::Origin;
use crate::repos::Repos;
use crate::spool::Spool;

/// The minimum number of segments that a worker fetches, because fewer would be useless.
const SEGMENTS_MIN: usize = 2;

/// How segments are prefetched.
#[derive(Clone, Debug)]
pub struct PrefetchSettings {
    /// Bytes to hold in the spool.
    pub queue_max: u64,
    /// Look again for a segment that an earlier call found missing.
    pub missing_retry: bool,
}

/// PostgreSQL's request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Whose WAL.
    pub cluster: &'a Cluster,
    /// The segment, or partial segment.
    pub wal_segment: &'a str,
    /// Where it goes.
    pub destination: &'a Path,
}

/// Gets one segment (or partial segment) through the spool. Returns `false` if no repository has it.
///
/// `launch` starts a worker for the given segments and returns a closure that tells whether that worker has ended.
/// `open` opens the repositories if the spool or the worker fails: PostgreSQL takes every error for the end of the
/// archive, so only what the repositories themselves say may be the result.
///
/// # Errors
/// [`ErrorCode::Term`] for a signal, and those of [`super::get`].
pub fn get<W: FnMut() -> bool>(
    background: &Background,
    settings: &PrefetchSettings,
    request: &Request<'_>,
    launch: impl Fn(&[String]) -> Result<W>,
    open: impl Fn() -> Repos,
    cancel: &CancelToken,
) -> Result<bool> {
    let Request { cluster, wal_segment, destination } = *request;
    let mut caller = Caller::now();
    let mut claim = Claim::new(destination);
    let answer = match from_spool(background, settings, request, &mut claim, launch, cancel) {
        Ok(Outcome::Taken) => claim.finish().map(|()| true),
        Ok(Outcome::Missing) => Ok(false),
        Ok(Outcome::NotFetched) => super::get_into(claim, &open(), cluster, wal_segment),
        Err(error) if error.code == ErrorCode::Term => Err(error),
        Err(error) => {
            engine::warn!(
                "unable to get WAL file '{wal_segment}' through the spool, getting it from the repository directly: [{}] {error}",
                error.code
            );
            super::get_into(claim, &open(), cluster, wal_segment)
        }
    };
    match answer {
        Err(error) if claim::is_lost(&error) && caller.still_waits() => {
            super::get(&open(), cluster, wal_segment, destination)
        }
        answer => answer,
    }
}

/// The result from the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The segment is in the claim.
    Taken,
    /// The worker found the segment in no repository.
    Missing,
    /// No worker is fetching the segment.
    NotFetched,
}

/// Takes a segment from the spool into `claim` and ensures that a worker fetches the next ones.
///
/// # Errors
/// Any failure of the spool, the worker or the claim. None of them says anything about the archive.
fn from_spool<W: FnMut() -> bool>(
    background: &Background,
    settings: &PrefetchSettings,
    request: &Request<'_>,
    claim: &mut Claim,
    launch: impl Fn(&[String]) -> Result<W>,
    cancel: &CancelToken,
) -> Result<Outcome> {
    let Request { cluster, wal_segment, .. } = *request;
    let spool = &background.spool;
    let control = engine::pg::control_file::read(&cluster.pg_path, cluster.version_force)?;
    let origin = Origin::of(control.system_id);
    // Without the mark, the files are from before a crash, from another cluster, or from another program
    let mut believed = origin.is_of(spool)?;
    let mut pauses = background.pauses();
    let mut first = true;
    let mut stale = false;
    let mut worker: Option<W> = None;
    loop {
        // Asked before the spool is read, which then shows everything that the worker left there
        let ended = worker.as_mut().is_some_and(|has_ended| has_ended());
        let mut found =
            believed && if first { is_whole(spool, &control, wal_segment)? } else { spool.exists(wal_segment)? };
        // A worker of another call may have looked before the segment was archived
        let missing_counts = if first { !settings.missing_retry } else { worker.is_some() };
        let fail = !first && (worker.is_some() || !stale);
        if believed && spool.status(wal_segment, fail, false)? {
            let now = if found { Now::Here } else { look_again(spool, wal_segment)? };
            found = now == Now::Here;
            if found || (now == Now::Missing && missing_counts) {
                // For its warnings, now that it is decided
                spool.status(wal_segment, false, true)?;
            }
            if now != Now::OnItsWay {
                spool.remove(&repo_format::spool::ok_name(wal_segment))?;
            }
            if now == Now::Missing && missing_counts {
                engine::info!("unable to find {wal_segment} in the archive asynchronously");
                return Ok(Outcome::Missing);
            }
        }
        if found {
            claim.take(&spool.file(wal_segment))?;
            engine::info!("found {wal_segment} in the archive asynchronously");
        }
        // What an earlier worker could not fetch is fetched again, here if that worker is still busy with other
        // segments
        stale |= first && !found && believed && spool.has_error(wal_segment)?;
        if worker.is_none() {
            match start(
                background,
                settings,
                request,
                (&control, &origin),
                believed,
                found.then_some(claim.path()),
                &launch,
            ) {
                Ok(None) => {}
                Ok(started) => {
                    // The queue was begun anew if it had to be
                    believed = true;
                    worker = started;
                }
                Err(error) if found => engine::warn!("unable to prefetch WAL files: [{}] {error}", error.code),
                Err(error) => return Err(error),
            }
        }
        if found {
            return Ok(Outcome::Taken);
        }
        // Nobody is fetching the segment for this call: another call's worker is running, or ours has ended
        if !first && (ended || worker.is_none()) {
            return Ok(Outcome::NotFetched);
        }
        first = false;
        if !pauses.wait(cancel)? {
            let text = format!("the asynchronous process needs more than {} second(s)", background.timeout_text());
            return Err(Error::new(ErrorCode::ArchiveTimeout, text).hint(background.log_hint()));
        }
    }
}

/// Starts a worker unless one is running or the spool contains enough. `taken` is the segment if it was found.
///
/// # Errors
/// Anything that prevents the start of a worker.
fn start<W>(
    background: &Background,
    settings: &PrefetchSettings,
    request: &Request<'_>,
    (control, origin): (&PgControl, &Origin),
    believed: bool,
    taken: Option<&Path>,
    launch: impl Fn(&[String]) -> Result<W>,
) -> Result<Option<W>> {
    if let Some(taken) = taken
        && is_half_full(background, settings, taken)?
    {
        return Ok(None);
    }
    let Some(lock) = background.try_lock()? else { return Ok(None) };
    background.spool.create()?;
    if !believed {
        origin.begin(&background.spool)?;
    }
    let needed = needed(background, origin, settings, request.wal_segment, taken.is_some(), control.wal_segment_size)?;
    background.spool.clear_errors(request.wal_segment)?;
    drop(lock);
    launch(&needed).map(Some)
}

/// Where a segment is that the worker has processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Now {
    /// In the spool.
    Here,
    /// About to get its name there, unless the worker has died.
    OnItsWay,
    /// In no archive.
    Missing,
}

/// Determines where a segment is whose status says that it is done, and that was not in the spool before the status was
/// read. The worker writes warnings before it renames the segment, so the status alone does not mean that the segment
/// is missing. The checks follow the order of the rename: first the temporary name, then the segment's own.
fn look_again(spool: &Spool, wal_segment: &str) -> Result<Now> {
    if spool.list()?.iter().any(|name| claim::is_temporary(name.as_bytes(), wal_segment.as_bytes())) {
        return Ok(Now::OnItsWay);
    }
    Ok(if spool.exists(wal_segment)? { Now::Here } else { Now::Missing })
}

/// Returns whether the spool contains a segment that an earlier worker has fetched. A segment of the wrong size, which
/// a broken file system may leave, is removed and fetched again. (What a worker fetches while this call waits needs no
/// check, because it was just compared with its checksum.)
fn is_whole(spool: &Spool, control: &PgControl, wal_segment: &str) -> Result<bool> {
    if !spool.exists(wal_segment)? {
        return Ok(false);
    }
    let size = crate::push::queue::file_size(&spool.file(wal_segment))?;
    if size == u64::from(control.wal_segment_size) {
        return Ok(true);
    }
    engine::warn!(
        "WAL segment '{wal_segment}' in the spool has {size} byte(s) instead of {} and is fetched again",
        control.wal_segment_size
    );
    // First the status, because without the segment it would mean that the segment is in no archive
    spool.remove(&repo_format::spool::ok_name(wal_segment))?;
    spool.remove(wal_segment)?;
    Ok(false)
}

/// Returns whether the spool is more than half full. `taken` is a segment, for its size.
fn is_half_full(background: &Background, settings: &PrefetchSettings, taken: &Path) -> Result<bool> {
    let names = background.spool.list()?;
    let total = names.iter().filter(|name| wal_name::kind(name) == WalFileKind::Segment).count() as u64;
    if total == 0 {
        return Ok(false);
    }
    Ok(crate::push::queue::file_size(taken)?.saturating_mul(total) > settings.queue_max / 2)
}

/// Removes from the spool what PostgreSQL won't ask for next, and returns what it will ask for and is missing.
fn needed(
    background: &Background,
    origin: &Origin,
    settings: &PrefetchSettings,
    wal_segment: &str,
    found: bool,
    size: u32,
) -> Result<Vec<String>> {
    let total = usize::try_from(settings.queue_max / u64::from(size)).unwrap_or(usize::MAX).max(SEGMENTS_MIN);
    let wanted = match wal_segment.parse::<WalSegment>() {
        Ok(segment) => {
            let first = if found { segment.next(size) } else { segment };
            std::iter::successors(Some(first), |segment| Some(segment.next(size)))
                .take(total)
                .map(|segment| segment.to_string())
                .collect()
        }
        // A partial segment is the end of its timeline
        Err(_) => vec![wal_segment.to_owned()],
    };
    let names = background.spool.list()?;
    for name in &names {
        // Warnings of a segment that stays must stay too
        let belongs = name.strip_suffix(repo_format::spool::OK_EXTENSION).unwrap_or(name);
        let has_segment = names.binary_search_by(|other| other.as_str().cmp(belongs)).is_ok();
        let stays = has_segment && wanted.iter().any(|segment| segment == belongs);
        if !stays && !origin.is_mark(name) {
            background.spool.remove(name)?;
        }
    }
    Ok(wanted.into_iter().filter(|segment| names.binary_search(segment).is_err()).collect())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use engine::lock::{Lock, LockRequest, LockType};
    use engine::repo::{Repo, info_files};
    use engine::storage::memory::MemoryStorage;
    use engine::storage::{self, WriteOptions};
    use repo_format::archive_info::ArchiveInfo;
    use repo_format::cipher::Cipher;
    use repo_format::hash::Sha1Hasher;
    use repo_format::layout::{self, Stanza};
    use repo_format::spool::{SpoolQueue, ok_name};

    use super::*;

    const WAL: &str = "000000010000000000000001";
    /// Of a cluster with segments of 16 MiB.
    const CONTROL: &[u8] = include_bytes!("../../../tests/fixtures/pg/pg_control_15");

    const EXEC_ID: &str = "1-00000000";

    /// A data directory, a spool, and a repository without segments.
    struct Place {
        dir: tempfile::TempDir,
        background: Background,
        cluster: Cluster,
        repo: Repo,
    }

    impl Place {
        fn make() -> Self {
            let dir = tempfile::tempdir().expect("dir");
            std::fs::create_dir_all(dir.path().join("pg/global")).expect("data directory");
            std::fs::write(dir.path().join("pg/global/pg_control"), CONTROL).expect("pg_control");
            let stanza: Stanza = "demo".parse().expect("stanza");
            let cluster = Cluster { stanza: stanza.clone(), pg_path: dir.path().join("pg"), version_force: None };
            let control = engine::pg::control_file::read(&cluster.pg_path, None).expect("control");
            let repo = Repo { key: 1, storage: Arc::new(MemoryStorage::new()), cipher: Cipher::None };
            let info = ArchiveInfo::new(control.version, control.system_id, None);
            info_files::save_archive_info(&repo, &stanza, &info).expect("info");
            let background = Background {
                spool: Spool::new(dir.path(), &stanza, SpoolQueue::In),
                stanza,
                lock_path: dir.path().join("lock"),
                repo_keys: vec![1],
                exec_id: EXEC_ID.to_owned(),
                timeout: Duration::from_secs(60),
                log_file: "log".to_owned(),
            };
            background.spool.create().expect("spool");
            Origin::of(control.system_id).begin(&background.spool).expect("mark");
            Place { dir, background, cluster, repo }
        }

        fn archive(&self, content: &[u8]) {
            let mut hasher = Sha1Hasher::new();
            hasher.update(content);
            let id = "15-1".parse().expect("archive id");
            let path = layout::archive_file(&self.cluster.stanza, id, &format!("{WAL}-{}", hasher.finish()));
            storage::put(&*self.repo.storage, &path.expect("path"), content, WriteOptions::ATOMIC).expect("put");
        }

        /// Creates a segment of the right size there.
        fn in_spool(&self) {
            let file = std::fs::File::create(self.background.spool.file(WAL)).expect("segment");
            file.set_len(16 << 20).expect("size");
        }

        fn destination(&self) -> PathBuf {
            self.dir.path().join("got")
        }

        /// Takes the lock like a worker that a call with this id started.
        fn worker(&self, exec_id: &str) -> Lock {
            let Background { lock_path, stanza, .. } = &self.background;
            Lock::acquire(LockRequest { lock_path, stanza, kinds: &[LockType::Archive], repo_keys: &[1], exec_id })
                .expect("lock")
        }

        /// `launch` does everything that the worker does before it ends.
        fn get(&self, launch: impl Fn(&[String]) -> Result<()>) -> Result<bool> {
            self.get_while(|segments| launch(segments).map(|()| || true))
        }

        /// `launch` returns a closure that tells whether the worker has ended.
        fn get_while<W: FnMut() -> bool>(&self, launch: impl Fn(&[String]) -> Result<W>) -> Result<bool> {
            let settings = PrefetchSettings { queue_max: 64 << 20, missing_retry: true };
            let destination = self.destination();
            let request = Request { cluster: &self.cluster, wal_segment: WAL, destination: &destination };
            let open = || vec![self.repo.clone()].into();
            get(&self.background, &settings, &request, launch, open, &CancelToken::new())
        }
    }

    #[test]
    fn state_without_its_segment_means_missing_only_when_none_is_on_its_way() {
        let place = Place::make();
        let spool = &place.background.spool;
        spool.write_ok(WAL, &["a warning".to_owned()]).expect("state");
        assert_eq!(look_again(spool, WAL).expect("look"), Now::Missing);
        let path = spool.file(WAL);
        let mut claim = Claim::new(&path);
        claim.begin().expect("file").write_all(b"wal").expect("write");
        assert_eq!(look_again(spool, WAL).expect("look"), Now::OnItsWay);
        claim.finish().expect("rename");
        assert_eq!(look_again(spool, WAL).expect("look"), Now::Here);
    }

    #[test]
    fn segment_whose_state_comes_first_is_waited_for() {
        let place = Place::make();
        let launch = |_: &[String]| {
            let (lock, spool) = (place.worker(EXEC_ID), place.background.spool.clone());
            let path = spool.file(WAL);
            let mut claim = Claim::new(&path);
            claim.begin().expect("file").write_all(b"wal").expect("write");
            spool.write_ok(WAL, &["a warning".to_owned()])?;
            let worker = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(100));
                claim.finish().expect("rename");
                drop(lock);
            });
            Ok(move || worker.is_finished())
        };
        assert!(place.get_while(launch).expect("get"));
        assert_eq!(std::fs::read(place.destination()).expect("got"), b"wal");
        assert!(!place.background.spool.exists(&ok_name(WAL)).expect("state"));
    }

    #[test]
    fn segment_of_a_worker_that_died_before_its_last_step_is_got_directly() {
        let place = Place::make();
        place.archive(b"archived");
        let spool = &place.background.spool;
        let launch = |_: &[String]| {
            std::mem::forget(Claim::new(&spool.file(WAL)));
            spool.write_ok(WAL, &["a warning".to_owned()])
        };
        assert!(place.get(launch).expect("get"));
        assert_eq!(std::fs::read(place.destination()).expect("got"), b"archived");
    }

    #[test]
    fn error_of_the_worker_is_no_answer_while_the_repository_has_the_segment() {
        let place = Place::make();
        let spool = &place.background.spool;
        let full = || Error::new(ErrorCode::FileWrite, "no space left on device");
        for about in [Some(WAL), None] {
            let fails = |_: &[String]| spool.write_error(about, &full());
            assert!(!place.get(fails).expect("in no repository"));
        }
        place.archive(b"archived");
        for about in [Some(WAL), None] {
            assert!(place.get(|_| spool.write_error(about, &full())).expect("direct"), "{about:?}");
            assert_eq!(std::fs::read(place.destination()).expect("got"), b"archived");
            std::fs::remove_file(place.destination()).expect("remove");
        }
    }

    #[test]
    fn spool_that_cannot_be_made_does_not_keep_postgresql_from_its_segment() {
        let mut place = Place::make();
        place.archive(b"archived");
        // A file is where the queue's directory should be
        std::fs::write(place.dir.path().join("file"), "").expect("file");
        let stanza = place.cluster.stanza.clone();
        place.background.spool = Spool::new(&place.dir.path().join("file"), &stanza, SpoolQueue::In);
        assert!(place.get(|_| panic!("launched without a spool")).expect("direct"));
        assert_eq!(std::fs::read(place.destination()).expect("got"), b"archived");
    }

    #[test]
    fn stored_segment_that_decodes_to_more_than_a_segment_is_refused_before_it_fills_the_disk() {
        let place = Place::make();
        place.archive(&vec![0; (16 << 20) + 1]);
        let error = place.get(|_| Ok(())).expect_err("too large");
        assert_eq!(error.code, ErrorCode::FileRead);
        assert!(error.message.contains("holds more than 16777216 byte(s)"), "{error}");
        assert!(!place.destination().exists());
    }

    #[test]
    fn worker_that_cannot_be_started_does_not_keep_postgresql_from_its_segment() {
        let place = Place::make();
        let fails = |_: &[String]| Err(Error::new(ErrorCode::Execute, "no more processes"));
        assert!(!place.get(fails).expect("nowhere"));
        place.archive(b"archived");
        assert!(place.get(fails).expect("direct"));
        assert_eq!(std::fs::read(place.destination()).expect("got"), b"archived");
        place.in_spool();
        assert!(place.get(fails).expect("from the spool"));
        assert_eq!(std::fs::metadata(place.destination()).expect("got").len(), 16 << 20);

        // Nor does a lock that can't be tried
        let place = Place {
            background: Background { lock_path: place.destination().join("lock"), ..place.background },
            ..place
        };
        place.in_spool();
        assert!(place.get(|_| panic!("launched without a lock")).expect("from the spool"));
    }

    #[test]
    fn segment_in_the_spool_with_another_size_is_dropped_with_its_state() {
        let place = Place::make();
        let spool = &place.background.spool;
        let control = engine::pg::control_file::read(&place.cluster.pg_path, None).expect("control");
        assert!(!is_whole(spool, &control, WAL).expect("missing"));
        for (size, whole) in [(16 << 20, true), (0, false), ((16 << 20) - 1, false), (32 << 20, false)] {
            let file = std::fs::File::create(spool.file(WAL)).expect("segment");
            file.set_len(size).expect("size");
            spool.write_ok(WAL, &["a warning".to_owned()]).expect("state");
            assert_eq!(is_whole(spool, &control, WAL).expect("look"), whole, "{size}");
            for name in [WAL, &ok_name(WAL)] {
                assert_eq!(spool.exists(name).expect("exists"), whole, "{name} at {size}");
            }
        }
    }

    #[test]
    fn worker_that_takes_too_long_does_not_keep_postgresql_from_its_segment() {
        let place = Place::make();
        let place = Place { background: Background { timeout: Duration::ZERO, ..place.background }, ..place };
        place.archive(b"archived");
        assert!(place.get_while(|_| Ok(|| false)).expect("direct"));
        assert_eq!(std::fs::read(place.destination()).expect("got"), b"archived");
    }

    #[test]
    fn segment_of_another_cluster_in_the_spool_is_not_taken() {
        let place = Place::make();
        place.archive(b"archived");
        let spool = &place.background.spool;
        Origin::of(1).begin(spool).expect("mark");
        place.in_spool();
        spool.write_ok(WAL, &["of another cluster".to_owned()]).expect("state");
        let nothing_left = |_: &[String]| {
            assert!(!spool.exists(WAL)? && !spool.exists(&ok_name(WAL))?);
            Ok(())
        };
        assert!(place.get(nothing_left).expect("direct"));
        assert_eq!(std::fs::read(place.destination()).expect("got"), b"archived");
    }

    #[test]
    fn segment_that_the_worker_of_another_call_did_not_find_is_looked_for() {
        let place = Place::make();
        // That worker looked before the segment was archived, and reports the result only now
        let lock = place.worker("2-00000000");
        let spool = place.background.spool.clone();
        place.archive(b"archived");
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let telling = std::thread::spawn(move || {
            // Repeats the status, so that it is there whenever the call looks
            while !told.load(Ordering::SeqCst) {
                spool.write_ok(WAL, &[]).expect("state");
            }
        });
        let found = place.get(|_| panic!("launched beside a worker"));
        is_over.store(true, Ordering::SeqCst);
        telling.join().expect("worker");
        assert!(found.expect("direct"));
        drop(lock);
    }

    #[test]
    fn call_that_loses_its_claim_begins_again() {
        let place = Place::make();
        place.archive(b"archived");
        // A call of an earlier server begins while this call runs
        let launch = |_: &[String]| {
            std::mem::forget(Claim::new(&place.destination()));
            Ok(())
        };
        assert!(place.get(launch).expect("not in the spool"));
        assert_eq!(std::fs::read(place.destination()).expect("got"), b"archived");
        place.in_spool();
        assert!(place.get(launch).expect("taken from the spool before"));
        assert_eq!(std::fs::read(place.destination()).expect("got"), b"archived");
    }
}
