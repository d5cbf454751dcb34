//! The process that PostgreSQL calls while a worker fetches in the background: it takes the segment from the spool, and
//! starts the worker if too few segments are left.

use std::path::Path;

use engine::{CancelToken, Error, ErrorCode, Result};
use repo_format::pg::control::PgControl;
use repo_format::wal_name::{self, WalFileKind, WalSegment};

use super::claim::{self, Caller, DestinationClaim};
use super::find::WalCluster;
use super::look::{Beliefs, Seen, look};
use crate::background::Background;
use crate::origin::SpoolOrigin;
use crate::repos::Repos;

/// The minimum number of segments that a worker fetches, because fewer would be useless.
const SEGMENTS_MIN: usize = 2;

/// How segments are prefetched.
#[derive(Clone, Copy, Debug)]
pub struct PrefetchSettings {
    /// Bytes to hold in the spool.
    pub queue_max: u64,
    /// Look again for a segment that an earlier call found missing.
    pub missing_retry: bool,
}

/// PostgreSQL's request.
#[derive(Clone, Copy, Debug)]
pub struct GetRequest<'a> {
    /// Whose WAL.
    pub cluster: &'a WalCluster,
    /// The segment, or partial segment.
    pub wal_segment: &'a str,
    /// Where it goes.
    pub destination: &'a Path,
    /// How the next segments are prefetched.
    pub prefetch: PrefetchSettings,
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
    request: &GetRequest<'_>,
    launch: impl Fn(&[String]) -> Result<W>,
    open: impl Fn() -> Repos,
    cancel: &CancelToken,
) -> Result<bool> {
    let GetRequest { cluster, wal_segment, destination, .. } = *request;
    let mut caller = Caller::now();
    let mut claim = DestinationClaim::new(destination);
    let answer = match from_spool(background, request, &mut claim, launch, cancel) {
        Ok(FromSpool::Taken) => claim.finish().map(|()| true),
        Ok(FromSpool::Missing) => Ok(false),
        Ok(FromSpool::NotFetched) => super::get_into(claim, &open(), cluster, wal_segment),
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
enum FromSpool {
    /// The segment is in the claim.
    Taken,
    /// The worker found the segment in no repository.
    Missing,
    /// No worker is fetching the segment.
    NotFetched,
}

/// Who fetches the segment.
enum Fetcher<W> {
    /// The spool was not looked at yet.
    Unknown,
    /// The worker of this call.
    Own(W),
    /// The worker of another call, if it has not ended.
    Other {
        /// An earlier worker failed to fetch the segment, so its error says nothing about the running one.
        had_error: bool,
    },
}

impl<W: FnMut() -> bool> Fetcher<W> {
    /// Returns whether the worker of this call has ended.
    fn has_ended(&mut self) -> bool {
        match self {
            Fetcher::Own(has_ended) => has_ended(),
            Fetcher::Unknown | Fetcher::Other { .. } => false,
        }
    }

    /// Returns what a look at the spool may believe.
    fn beliefs(&self, prefetch: PrefetchSettings) -> Beliefs {
        let (missing_counts, errors_count) = match self {
            Fetcher::Unknown => (!prefetch.missing_retry, false),
            Fetcher::Own(_) => (true, true),
            // A worker of another call may have looked before the segment was archived
            Fetcher::Other { had_error } => (false, !had_error),
        };
        Beliefs { from_earlier: matches!(self, Fetcher::Unknown), missing_counts, errors_count }
    }
}

/// Takes a segment from the spool into `claim` and ensures that a worker fetches the next ones.
///
/// # Errors
/// Any failure of the spool, the worker or the claim. None of them says anything about the archive.
fn from_spool<W: FnMut() -> bool>(
    background: &Background,
    request: &GetRequest<'_>,
    claim: &mut DestinationClaim,
    launch: impl Fn(&[String]) -> Result<W>,
    cancel: &CancelToken,
) -> Result<FromSpool> {
    let GetRequest { cluster, wal_segment, .. } = *request;
    let spool = &background.spool;
    let control = engine::pg::control_file::read(&cluster.pg_path, cluster.version_force)?;
    let origin = SpoolOrigin::of(control.system_id);
    // Without the mark, the files are from before a crash, from another cluster, or from another program
    let mut queue = Queue { background, request, control: &control, is_marked: origin.is_of(spool)?, origin: &origin };
    let mut pauses = background.pauses();
    let mut fetcher = Fetcher::Unknown;
    loop {
        // Asked before the spool is read, which then shows everything that the worker left there
        let has_ended = fetcher.has_ended();
        let seen = match queue.is_marked {
            true => look(spool, &control, wal_segment, fetcher.beliefs(request.prefetch))?,
            false => Seen::Nothing,
        };
        match seen {
            Seen::Here => {
                take(&mut queue, claim, matches!(fetcher, Fetcher::Own(_)), &launch)?;
                return Ok(FromSpool::Taken);
            }
            Seen::Missing => {
                engine::info!("unable to find {wal_segment} in the archive asynchronously");
                return Ok(FromSpool::Missing);
            }
            Seen::Nothing => {}
        }
        fetcher = match fetcher {
            Fetcher::Own(_) if has_ended => return Ok(FromSpool::NotFetched),
            Fetcher::Own(worker) => Fetcher::Own(worker),
            Fetcher::Unknown => {
                // What an earlier worker could not fetch is fetched again, here if that worker is still busy with other
                // segments
                let had_error = queue.is_marked && spool.has_error(wal_segment)?;
                queue.start_worker(None, &launch)?.map_or(Fetcher::Other { had_error }, Fetcher::Own)
            }
            Fetcher::Other { .. } => match queue.start_worker(None, &launch)? {
                Some(worker) => Fetcher::Own(worker),
                None => return Ok(FromSpool::NotFetched),
            },
        };
        if !pauses.wait(cancel)? {
            let text = format!("the asynchronous process needs more than {} second(s)", background.timeout_text());
            return Err(Error::new(ErrorCode::ArchiveTimeout, text).hint(background.log_hint()));
        }
    }
}

/// Takes a segment that is in the spool, and starts a worker for the next ones unless this call has one.
fn take<W>(
    queue: &mut Queue<'_>,
    claim: &mut DestinationClaim,
    has_worker: bool,
    launch: impl Fn(&[String]) -> Result<W>,
) -> Result<()> {
    let wal_segment = queue.request.wal_segment;
    claim.take(&queue.background.spool.file(wal_segment))?;
    engine::info!("found {wal_segment} in the archive asynchronously");
    if !has_worker && let Err(error) = queue.start_worker(Some(claim.path()), launch) {
        engine::warn!("unable to prefetch WAL files: [{}] {error}", error.code);
    }
    Ok(())
}

/// The queue in the spool, for one request.
struct Queue<'a> {
    background: &'a Background,
    request: &'a GetRequest<'a>,
    control: &'a PgControl,
    origin: &'a SpoolOrigin,
    /// Whether the queue has the mark of this boot and cluster.
    is_marked: bool,
}

impl Queue<'_> {
    /// Starts a worker unless one is running or the spool contains enough. `taken` is the segment if it was found.
    ///
    /// # Errors
    /// Anything that prevents the start of a worker.
    fn start_worker<W>(&mut self, taken: Option<&Path>, launch: impl Fn(&[String]) -> Result<W>) -> Result<Option<W>> {
        let Queue { background, request, .. } = *self;
        if let Some(taken) = taken
            && is_half_full(background, request.prefetch, taken)?
        {
            return Ok(None);
        }
        let Some(lock) = background.try_lock()? else { return Ok(None) };
        background.spool.create()?;
        if !self.is_marked {
            self.origin.begin(&background.spool)?;
        }
        let needed = self.needed(taken.is_some())?;
        background.spool.clear_errors(request.wal_segment)?;
        drop(lock);
        let worker = launch(&needed)?;
        self.is_marked = true;
        Ok(Some(worker))
    }

    /// Removes from the spool what PostgreSQL won't ask for next, and returns what it will ask for and is missing.
    fn needed(&self, found: bool) -> Result<Vec<String>> {
        let (spool, wal_segment, size) =
            (&self.background.spool, self.request.wal_segment, self.control.wal_segment_size);
        let queue_max = self.request.prefetch.queue_max;
        let total = usize::try_from(queue_max / u64::from(size)).unwrap_or(usize::MAX).max(SEGMENTS_MIN);
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
        let names = spool.list()?;
        for name in &names {
            // Warnings of a segment that stays must stay too
            let belongs = name.strip_suffix(repo_format::spool::OK_EXTENSION).unwrap_or(name);
            let has_segment = names.binary_search_by(|other| other.as_str().cmp(belongs)).is_ok();
            let stays = has_segment && wanted.iter().any(|segment| segment == belongs);
            if !stays && !self.origin.is_mark(name) {
                spool.remove(name)?;
            }
        }
        Ok(wanted.into_iter().filter(|segment| names.binary_search(segment).is_err()).collect())
    }
}

/// Returns whether the spool is more than half full. `taken` is a segment, for its size.
fn is_half_full(background: &Background, prefetch: PrefetchSettings, taken: &Path) -> Result<bool> {
    let names = background.spool.list()?;
    let total = names.iter().filter(|name| wal_name::kind(name) == WalFileKind::Segment).count() as u64;
    if total == 0 {
        return Ok(false);
    }
    Ok(crate::push::queue::file_size(taken)?.saturating_mul(total) > prefetch.queue_max / 2)
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

    use super::super::look::{Now, is_whole, look_again};
    use super::*;
    use crate::spool::Spool;

    const WAL: &str = "000000010000000000000001";
    /// Of a cluster with segments of 16 MiB.
    const CONTROL: &[u8] = include_bytes!("../../../tests/fixtures/pg/pg_control_15");

    const EXEC_ID: &str = "1-00000000";

    /// A data directory, a spool, and a repository without segments.
    struct Place {
        dir: tempfile::TempDir,
        background: Background,
        cluster: WalCluster,
        repo: Repo,
    }

    impl Place {
        fn make() -> Self {
            let dir = tempfile::tempdir().expect("dir");
            std::fs::create_dir_all(dir.path().join("pg/global")).expect("data directory");
            std::fs::write(dir.path().join("pg/global/pg_control"), CONTROL).expect("pg_control");
            let stanza: Stanza = "demo".parse().expect("stanza");
            let cluster = WalCluster { stanza: stanza.clone(), pg_path: dir.path().join("pg"), version_force: None };
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
            SpoolOrigin::of(control.system_id).begin(&background.spool).expect("mark");
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
            let prefetch = PrefetchSettings { queue_max: 64 << 20, missing_retry: true };
            let destination = self.destination();
            let request = GetRequest { cluster: &self.cluster, wal_segment: WAL, destination: &destination, prefetch };
            let open = || vec![self.repo.clone()].into();
            get(&self.background, &request, launch, open, &CancelToken::new())
        }
    }

    #[test]
    fn state_without_its_segment_means_missing_only_when_none_is_on_its_way() {
        let place = Place::make();
        let spool = &place.background.spool;
        spool.write_ok(WAL, &["a warning".to_owned()]).expect("state");
        assert_eq!(look_again(spool, WAL).expect("look"), Now::Missing);
        let path = spool.file(WAL);
        let mut claim = DestinationClaim::new(&path);
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
            let mut claim = DestinationClaim::new(&path);
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
            std::mem::forget(DestinationClaim::new(&spool.file(WAL)));
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
        SpoolOrigin::of(1).begin(spool).expect("mark");
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
            std::mem::forget(DestinationClaim::new(&place.destination()));
            Ok(())
        };
        assert!(place.get(launch).expect("not in the spool"));
        assert_eq!(std::fs::read(place.destination()).expect("got"), b"archived");
        place.in_spool();
        assert!(place.get(launch).expect("taken from the spool before"));
        assert_eq!(std::fs::read(place.destination()).expect("got"), b"archived");
    }
}
