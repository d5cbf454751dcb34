//! All sessions of the server: their number, and their processes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::remote::TOO_MANY_SESSIONS;
use engine::{Error, ErrorCode, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::limits::SessionLimits;

/// The time between two looks at processes.
const LOOK: Duration = Duration::from_millis(10);
/// How long a process may take to end after its input has ended.
const END_WAIT: Duration = Duration::from_secs(2);
/// The time between two errors in the log about too many sessions of one client, which tries again meanwhile.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// A client that takes nothing for this time does not hold up the end of the server.
const STALLED_MAX: Duration = Duration::from_secs(2);
/// How long a process may take to end after a signal.
const SIGNALLED_MAX: Duration = Duration::from_secs(30);

/// The sessions of a server.
#[derive(Clone, Default)]
pub(super) struct Sessions(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    limits: SessionLimits,
    unknown: BTreeMap<IpAddr, usize>,
    of_client: BTreeMap<String, usize>,
    processes: BTreeMap<u32, SharedChild>,
    /// The clients that were refused lately because of too many sessions, and when the log said so.
    refused: BTreeMap<String, Instant>,
    /// The number of sessions whose client has not got the last answer.
    passing: usize,
    /// The number of parts that these clients have taken. It changes without the lock, with each part that is passed on.
    parts: Arc<AtomicU64>,
    is_stopping: bool,
}

/// A process that one thread waits for and others may end.
pub(super) type SharedChild = Arc<Mutex<Child>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sessions {
    /// No session yet.
    pub(super) fn new(limits: SessionLimits) -> Self {
        Sessions(Arc::new(Mutex::new(Table { limits, ..Table::default() })))
    }

    /// Counts a client that has not said who it is; `None` if there are too many.
    pub(super) fn enter(&self, address: IpAddr) -> Option<UnknownClient> {
        let mut table = lock(&self.0);
        let all: usize = table.unknown.values().sum();
        let of_address = table.unknown.get(&address).copied().unwrap_or(0);
        if all >= table.limits.unknown || of_address >= table.limits.of_address {
            return None;
        }
        table.unknown.insert(address, of_address + 1);
        Some(UnknownClient { sessions: self.clone(), address })
    }

    /// Counts a session of a client.
    ///
    /// # Errors
    /// [`ErrorCode::Service`] if there are too many.
    pub(super) fn begin(&self, client: &str) -> Result<KnownClient> {
        let mut table = lock(&self.0);
        let all: usize = table.of_client.values().sum();
        let count = table.of_client.get(client).copied().unwrap_or(0);
        if count >= table.limits.of_client || all >= table.limits.all {
            return Err(too_many(table.limits, client, count, all));
        }
        table.of_client.insert(client.to_owned(), count + 1);
        Ok(KnownClient { sessions: self.clone(), client: client.to_owned() })
    }

    /// Returns whether the log should say at this time that a client was refused because of too many sessions.
    pub(super) fn is_news(&self, error: &Error, client: &str, now: Instant) -> bool {
        if error.code != ErrorCode::Service || !error.message.starts_with(TOO_MANY_SESSIONS) {
            return true;
        }
        let refused = &mut lock(&self.0).refused;
        refused.retain(|_, said| now.saturating_duration_since(*said) < REFUSED_PAUSE);
        let is_news = !refused.contains_key(client);
        if is_news {
            refused.insert(client.to_owned(), now);
        }
        is_news
    }

    /// Adds a process.
    ///
    /// # Errors
    /// [`ErrorCode::Term`] if the server ends. The process was ended.
    pub(super) fn add(&self, child: Child) -> Result<OwnedProcess> {
        let mut table = lock(&self.0);
        let (id, child) = (child.id(), Arc::new(Mutex::new(child)));
        if table.is_stopping {
            signal(&child, Signal::TERM);
            return Err(server_ends());
        }
        table.processes.insert(id, Arc::clone(&child));
        Ok(OwnedProcess { sessions: self.clone(), id, child })
    }

    /// The error of a session that the end of the server has ended; `None` if the server goes on.
    pub(super) fn end_by_stop(&self) -> Option<Error> {
        lock(&self.0).is_stopping.then(server_ends)
    }

    /// Forgets processes that have ended. One that could not be ended is waited for by a later call.
    fn forget_ended(&self) {
        lock(&self.0).processes.retain(|_, child| is_running(child));
    }

    /// Counts a session whose client waits for answers, until it has got the last one.
    pub(super) fn passing(&self) -> Passing {
        let mut table = lock(&self.0);
        table.passing += 1;
        Passing { sessions: self.clone(), parts: Arc::clone(&table.parts) }
    }

    /// Ends all processes, and lets no more begin. Waits for them, and until their clients know why they end, at most for
    /// `timeout`. Clients that take nothing are not waited for.
    pub(super) fn stop(&self, timeout: Duration) {
        let processes: Vec<(u32, SharedChild)> = {
            let mut table = lock(&self.0);
            table.is_stopping = true;
            table.processes.iter().map(|(id, child)| (*id, Arc::clone(child))).collect()
        };
        for (id, child) in &processes {
            if signal(child, Signal::TERM) {
                engine::warn!("terminate child process {id}");
            }
        }
        let (begun, mut stall) = (Instant::now(), Stall::default());
        while begun.elapsed() < timeout {
            if !processes.iter().any(|(_, child)| is_running(child)) {
                let (passing, parts) = {
                    let table = lock(&self.0);
                    (table.passing, table.parts.load(Ordering::Relaxed))
                };
                if passing == 0 || stall.is_over(parts, Instant::now()) {
                    return;
                }
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Finds out that clients take nothing any more.
#[derive(Default)]
struct Stall {
    /// The last number of parts that they have taken, and when it was new.
    seen: Option<(u64, Instant)>,
}

impl Stall {
    /// Returns whether the number of parts has been this one for too long.
    fn is_over(&mut self, parts: u64, now: Instant) -> bool {
        match self.seen {
            Some((seen, since)) if seen == parts => now.saturating_duration_since(since) > STALLED_MAX,
            _ => {
                self.seen = Some((parts, now));
                false
            }
        }
    }
}

fn server_ends() -> Error {
    Error::new(ErrorCode::Term, "server ends")
}

/// The error of a client for which there is no session left.
fn too_many(limits: SessionLimits, client: &str, count: usize, all: usize) -> Error {
    let SessionLimits { of_client: of_client_max, all: all_max, .. } = limits;
    let text = format!("{TOO_MANY_SESSIONS}: {count} of client '{client}', {all} of all clients");
    let limits_text = format!("the server allows {of_client_max} sessions of one client and {all_max} of all");
    let error = Error::new(ErrorCode::Service, text).hint(if limits.is_lowered() {
        format!("{limits_text}, because its limit of open files is low. LimitNOFILE of its service raises that.")
    } else {
        format!("{limits_text}. Commands that run at other times, or a smaller process-max, need fewer.")
    });
    error.hint("the log of the server names the clients (log-level-console=detail).")
}

/// Returns whether a process has not ended.
pub(super) fn is_running(child: &SharedChild) -> bool {
    // A process whose state is unknown can't be waited for
    matches!(lock(child).try_wait(), Ok(None))
}

/// Sends a signal to a process that has not ended. Returns whether it was sent.
pub(super) fn signal(child: &SharedChild, signal: Signal) -> bool {
    let mut child = lock(child);
    // Its number belongs to it until it was waited for
    matches!(child.try_wait(), Ok(None)) && kill_process(Pid::from_child(&child), signal).is_ok()
}

/// Waits until a process has ended, at most for `timeout`. Returns whether it has.
pub(super) fn wait(child: &SharedChild, timeout: Duration) -> bool {
    let end = Instant::now() + timeout;
    while is_running(child) {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(LOOK);
    }
    true
}

/// Waits until a process has ended, and ends it after `patience`. A process that nobody waits for would stay in the system's
/// table until the server ends.
pub(super) fn end(child: &SharedChild, patience: Duration) {
    let is_over = wait(child, patience)
        || (signal(child, Signal::TERM) && wait(child, SIGNALLED_MAX))
        || (signal(child, Signal::KILL) && wait(child, SIGNALLED_MAX));
    if !is_over && is_running(child) {
        engine::warn!("process {} does not end", lock(child).id());
    }
}

/// A process of a session. Dropping it ends it and waits for it. What it reads from must be dropped before, so that it can
/// end by itself.
pub(super) struct OwnedProcess {
    sessions: Sessions,
    id: u32,
    child: SharedChild,
}

impl OwnedProcess {
    /// The system's number of it.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// The process, for another thread that waits for it or ends it.
    pub(super) fn shared(&self) -> SharedChild {
        Arc::clone(&self.child)
    }
}

impl Drop for OwnedProcess {
    fn drop(&mut self) {
        end(&self.child, END_WAIT);
        self.sessions.forget_ended();
    }
}

/// A session whose client waits for answers. Dropping it says that the client has got the last one, or is gone.
pub(super) struct Passing {
    sessions: Sessions,
    parts: Arc<AtomicU64>,
}

impl Passing {
    /// The client has taken something.
    pub(super) fn moves(&self) {
        self.parts.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        lock(&self.sessions.0).passing -= 1;
    }
}

/// A client that has not said who it is. Dropping it counts it no more.
pub(super) struct UnknownClient {
    sessions: Sessions,
    address: IpAddr,
}

impl Drop for UnknownClient {
    fn drop(&mut self) {
        count_down(&mut lock(&self.sessions.0).unknown, &self.address);
    }
}

/// A session of a client. Dropping it counts it no more.
pub(super) struct KnownClient {
    sessions: Sessions,
    client: String,
}

impl Drop for KnownClient {
    fn drop(&mut self) {
        count_down(&mut lock(&self.sessions.0).of_client, &self.client);
    }
}

/// Counts one less, and forgets a key without any.
fn count_down<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_and_sessions_have_limits_and_ended_ones_do_not_count() {
        let SessionLimits { of_client, all, unknown: unknown_max, of_address } = SessionLimits::default();
        let sessions = Sessions::default();
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let mut unknown: Vec<_> = (0..of_address).map(|_| sessions.enter(address(1)).unwrap()).collect();
        assert!(sessions.enter(address(1)).is_none());
        for other in 2..5 {
            unknown.extend((0..of_address).map(|_| sessions.enter(address(other)).unwrap()));
        }
        assert_eq!(unknown.len(), unknown_max);
        assert!(sessions.enter(address(5)).is_none());
        drop(unknown);
        assert!(sessions.enter(address(1)).is_some() && lock(&sessions.0).unknown.is_empty());
        let mut known: Vec<_> = (0..of_client).map(|_| sessions.begin("a").unwrap()).collect();
        let error = sessions.begin("a").err().unwrap();
        assert_eq!(error.code, ErrorCode::Service);
        assert!(
            error.message.starts_with(TOO_MANY_SESSIONS) && error.hints[0].contains("400 sessions of one client"),
            "{error}"
        );
        known.extend((0..of_client).map(|_| sessions.begin("b").unwrap()));
        known.extend((2 * of_client..all).map(|_| sessions.begin("c").unwrap()));
        assert!(sessions.begin("c").is_err() && sessions.begin("d").is_err());
        drop(known);
        assert!(sessions.begin("a").is_ok() && lock(&sessions.0).of_client.is_empty());
    }

    #[test]
    fn client_that_waited_for_a_session_filled_the_log_of_the_server() {
        let sessions = Sessions::default();
        let (refused, begun) = (too_many(SessionLimits::default(), "a", 400, 400), Instant::now());
        let is_news = |client, ms| sessions.is_news(&refused, client, begun + Duration::from_millis(ms));
        assert_eq!([0, 1, 9_999, 10_000, 10_001].map(|ms| is_news("a", ms)), [true, false, false, true, false]);
        assert!(is_news("b", 10_001));
        // Other errors are always said, and clients that come no more are forgotten
        let other = Error::new(ErrorCode::Access, "access denied");
        assert!(sessions.is_news(&other, "a", begun) && sessions.is_news(&other, "a", begun));
        assert!(is_news("c", 30_000) && lock(&sessions.0).refused.len() == 1);
    }

    #[test]
    fn client_that_is_one_too_many_was_not_told_what_raises_the_limit() {
        let hints = |files| too_many(SessionLimits::within(files), "a", 1, 2).hints[0].clone();
        assert!(
            hints(1024).contains("76 sessions of one client and 192 of all") && hints(1024).contains("LimitNOFILE")
        );
        assert!(hints(1 << 20).contains("process-max") && !hints(1 << 20).contains("LimitNOFILE"));
    }

    #[test]
    fn stop_ends_processes_and_a_process_that_comes_later() {
        let sessions = Sessions::default();
        let sleep = || std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let child = sessions.add(sleep()).unwrap();
        sessions.stop(Duration::from_secs(10));
        assert!(!is_running(&child.shared()));
        let late = sleep();
        let id = late.id();
        assert_eq!(sessions.add(late).err().unwrap().code, ErrorCode::Term);
        assert!(!signal(&child.shared(), Signal::TERM), "its number may be another's");
        assert!(!lock(&sessions.0).processes.contains_key(&id));
    }

    #[test]
    fn last_words_of_a_process_were_cut_off_by_the_end_of_the_server() {
        let sessions = Sessions::default();
        let passing = sessions.passing();
        let begun = Instant::now();
        sessions.stop(Duration::from_millis(50));
        assert!(begun.elapsed() >= Duration::from_millis(50));
        let passed = std::thread::spawn(move || {
            // This thread may wait for a processor
            for _ in 0..5 {
                std::thread::sleep(Duration::from_millis(10));
                passing.moves();
            }
            let now = Instant::now();
            drop(passing);
            now
        });
        sessions.stop(Duration::from_secs(60));
        let stopped = Instant::now();
        assert!(passed.join().unwrap() <= stopped && begun.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn client_that_took_nothing_held_up_the_end_of_the_server() {
        let sessions = Sessions::default();
        let passing = sessions.passing();
        let begun = Instant::now();
        sessions.stop(Duration::from_secs(60));
        assert!(begun.elapsed() >= STALLED_MAX && begun.elapsed() < Duration::from_secs(60));
        // A client that takes something is waited for
        let mut stall = Stall::default();
        let mut is_over = |ms| {
            let parts = lock(&sessions.0).parts.load(Ordering::Relaxed);
            stall.is_over(parts, begun + Duration::from_millis(ms))
        };
        assert_eq!([0, 1_000, 2_000, 2_001].map(&mut is_over), [false, false, false, true]);
        passing.moves();
        assert_eq!([2_002, 4_002, 4_003].map(&mut is_over), [false, false, true]);
    }

    #[test]
    fn process_whose_session_fails_is_ended_and_leaves_no_zombie() {
        let sessions = Sessions::default();
        let mut ends = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let input = ends.stdin.take();
        let endless = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        for (process, input) in [(ends, input), (endless, None)] {
            let process = sessions.add(process).unwrap();
            let status = format!("/proc/{}/status", process.id());
            assert!(std::path::Path::new(&status).exists());
            drop(input);
            drop(process);
            // The system still lists a process that has ended and that nobody has waited for
            assert!(!std::path::Path::new(&status).exists());
            assert!(lock(&sessions.0).processes.is_empty());
        }
    }
}
