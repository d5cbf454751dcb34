//! The connections to one host over which files are read and written at the same time.
//!
//! A server answers the requests of a connection one after the other, so a file that it syncs, or reads from a slow disk, holds up
//! those behind it. If rbr is there, files that are in use at the same time get channels of their own. A connection begins only
//! when all others are in use, so a command that reads one file after the other has one.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::shared::lock;
use super::{Carriers, Connection, RemoteSettings};
use crate::work::thread::caught;
use crate::{CancelToken, Error, Result};

/// The most connections. More requests at a time do not make a disk faster.
const LANES_MAX: usize = 32;

/// The most connections that are replaced after they have ended. A host that ends each one can't serve more.
const LOST_MAX: usize = 16;
/// The pause before the next try after a connection could not be opened, for example because the SSH server had too many new ones
/// at a time.
const RETRY_PAUSE: Duration = Duration::from_secs(10);
/// The most failed tries in a row.
const FAILURES_MAX: usize = 16;
/// How often a wait looks for a cancellation.
const LOOK: Duration = Duration::from_millis(50);

/// The connections to one host.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// The connection of the command itself.
    first: Lane,
    more: Arc<More>,
    carriers: Carriers,
    /// The settings of the command's process, and of those of its workers.
    processes: Vec<RemoteSettings>,
}

/// What there is besides the connection of the command itself, and whether it changed.
#[derive(Debug, Default)]
struct More {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lanes: Vec<Lane>,
    /// The number of connections that have ended.
    lost: usize,
    is_opening: bool,
    /// The host has no channels, or no more of them.
    has_no_channels: bool,
    /// The number of tries since the last one that opened a connection.
    failures: usize,
    /// When to try again after a failure.
    next_try: Option<Instant>,
    /// The host computes something on the connection of the command itself.
    first_computes: bool,
}

impl State {
    /// Takes out the connections that have ended.
    fn take_ended(&mut self) -> Vec<Lane> {
        let (ended, lanes) = std::mem::take(&mut self.lanes).into_iter().partition(|lane| lane.connection.has_ended());
        self.lanes = lanes;
        let ended: Vec<Lane> = ended;
        self.lost += ended.len();
        ended
    }

    /// Returns whether no other connection is opened for this work now.
    fn is_last(&self, work: Work) -> bool {
        let is_too_soon = self.next_try.is_some_and(|next| Instant::now() < next);
        let has_failed = is_too_soon || self.failures > FAILURES_MAX || self.lost > LOST_MAX;
        self.is_opening || has_failed || (work == Work::Files && self.has_no_channels)
    }

    /// Remembers a connection that could not be opened.
    fn fail(&mut self, error: &Error) {
        if self.failures == 0 {
            crate::detail!("unable to open one more connection, continuing with those that are open: {error}");
        } else {
            crate::debug!("unable to open one more connection: {error}");
        }
        self.failures += 1;
        self.next_try = Some(Instant::now() + RETRY_PAUSE);
    }
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Files,
    Computing,
}

/// A connection, and how many files are in use on it: each has a clone of the counter.
#[derive(Clone, Debug)]
struct Lane {
    connection: Arc<Connection>,
    /// Whose settings it has; 0 for the connection of the command itself.
    number: usize,
    users: Arc<()>,
}

impl Lane {
    fn new(connection: Arc<Connection>, number: usize) -> Self {
        Lane { connection, number, users: Arc::new(()) }
    }

    fn users(&self) -> usize {
        Arc::strong_count(&self.users) - 1
    }
}

/// The right to have the host compute on the connection of the command itself.
struct FirstSeat(Arc<More>);

impl Drop for FirstSeat {
    fn drop(&mut self) {
        lock(&self.0.state).first_computes = false;
        self.0.changed.notify_all();
    }
}

/// The use of a connection for one file.
#[derive(Clone)]
pub(crate) struct LaneUse {
    lane: Lane,
    /// The connection of the command itself.
    first: Arc<Connection>,
    more: Arc<More>,
    _seat: Option<Arc<FirstSeat>>,
}

impl LaneUse {
    /// The connection.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.lane.connection
    }

    /// Returns whether files are written over no other connection to the host.
    pub(crate) fn is_alone(&self) -> bool {
        let is_first = Arc::ptr_eq(&self.lane.connection, &self.first);
        let state = lock(&self.more.state);
        is_first && !self.first.is_one_of_several() && state.lanes.is_empty() && !state.is_opening
    }

    /// Ends this connection and that of the command itself, so that nothing more is done on the host.
    pub(crate) fn give_up(&self, error: &Error) {
        self.lane.connection.fail(error);
        self.first.fail(error);
    }
}

/// How a connection is come by.
enum Choice {
    Lane(LaneUse),
    /// The one with this number is to be opened.
    Open(usize),
    /// Another thread opens one, or has the host compute on the connection of the command itself.
    Wait,
}

impl Lanes {
    /// The host at the other end of a connection. `processes` are the settings of its process, and of those that may be started
    /// besides.
    pub(crate) fn new(first: Arc<Connection>, processes: Vec<RemoteSettings>) -> Self {
        Lanes { first: Lane::new(first, 0), more: Arc::default(), carriers: Carriers::default(), processes }
    }

    /// The connection of the command itself.
    pub(crate) fn first(&self) -> &Arc<Connection> {
        &self.first.connection
    }

    /// Returns a connection for a file: one that is not in use, or a new one, or that with the fewest files.
    ///
    /// # Errors
    /// The error that ended the connection of the command itself, whose process has the locks.
    pub(crate) fn take(&self) -> Result<LaneUse> {
        self.take_for(Work::Files, &CancelToken::new())
    }

    /// Returns a connection for work that takes a processor of the host: not that of the command itself, which would not be answered
    /// meanwhile, if there is another one. A host without channels gets processes for them. Without another one, the connection of
    /// the command has one such work at a time, and the others wait.
    ///
    /// # Errors
    /// The same, and [`ErrorCode::Term`](crate::ErrorCode::Term) once cancelled.
    pub(crate) fn take_to_compute(&self, cancel: &CancelToken) -> Result<LaneUse> {
        self.take_for(Work::Computing, cancel)
    }

    fn take_for(&self, work: Work, cancel: &CancelToken) -> Result<LaneUse> {
        loop {
            cancel.check()?;
            self.first.connection.check()?;
            // The end of a process may take long, so that is not waited for under the lock
            let ended = lock(&self.more.state).take_ended();
            drop(ended);
            let mut state = lock(&self.more.state);
            match self.choose(&mut state, work) {
                Choice::Lane(lane) => return Ok(lane),
                Choice::Wait => drop(self.more.changed.wait_timeout(state, LOOK)),
                Choice::Open(number) => {
                    drop(state);
                    if let Some(lane) = self.open_next(number, work) {
                        return Ok(lane);
                    }
                }
            }
        }
    }

    fn choose(&self, state: &mut State, work: Work) -> Choice {
        let first = (work == Work::Files).then_some(&self.first);
        let least = first.into_iter().chain(&state.lanes).min_by_key(|lane| lane.users());
        let most = self.processes.len().min(LANES_MAX);
        let next = (1..most).find(|number| state.lanes.iter().all(|lane| lane.number != *number));
        let next = next.filter(|_| !state.is_last(work));
        match (least, next) {
            (Some(least), next) if least.users() == 0 || next.is_none() => Choice::Lane(self.used(least, None)),
            (_, Some(number)) => {
                state.is_opening = true;
                Choice::Open(number)
            }
            // A try after a failure may take as long as that did
            _ if (state.is_opening && state.failures == 0) || state.first_computes => Choice::Wait,
            _ => {
                state.first_computes = true;
                Choice::Lane(self.used(&self.first, Some(FirstSeat(Arc::clone(&self.more)))))
            }
        }
    }

    /// Opens the connection with this number; `None` if that is not possible. What there is goes on then.
    fn open_next(&self, number: usize, work: Work) -> Option<LaneUse> {
        let opened = caught(|| self.open(number, work));
        let mut state = lock(&self.more.state);
        state.is_opening = false;
        let lane = match opened {
            Ok(Some(lane)) => {
                let used = self.used(&lane, None);
                state.lanes.push(lane);
                (state.failures, state.next_try) = (0, None);
                Some(used)
            }
            Ok(None) => {
                state.has_no_channels = true;
                None
            }
            Err(error) => {
                state.fail(&error);
                None
            }
        };
        drop(state);
        self.more.changed.notify_all();
        lane
    }

    fn used(&self, lane: &Lane, seat: Option<FirstSeat>) -> LaneUse {
        let (first, more) = (Arc::clone(&self.first.connection), Arc::clone(&self.more));
        LaneUse { lane: lane.clone(), first, more, _seat: seat.map(Arc::new) }
    }

    fn open(&self, number: usize, work: Work) -> Result<Option<Lane>> {
        let workers = self.processes.len() - 1;
        let opened = self.carriers.open(&self.first.connection, &self.processes, number, workers)?;
        let connection = match (opened, self.processes.get(number)) {
            (Some(connection), _) => connection,
            (None, Some(process)) if work == Work::Computing => Connection::open(process)?,
            _ => return Ok(None),
        };
        connection.features()?;
        Ok(Some(Lane::new(connection, number)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protocol::Call;

    use super::*;
    use crate::ErrorCode;
    use crate::remote::testing::{connect, connect_with_channels, serve_data, serve_data_watched, thread_settings};

    fn lanes(workers: usize, has_channels: bool) -> (tempfile::TempDir, Lanes) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let serve = move |stream| drop(serve_data(stream, &path));
        let connection = if has_channels { connect_with_channels(serve) } else { connect(serve) }.unwrap();
        // A distant host gets more processes
        while connection.round_trip().unwrap() > Duration::from_millis(5) {
            connection.call(&Call::Noop).unwrap();
        }
        (dir, Lanes::new(connection, vec![thread_settings(); workers + 1]))
    }

    fn is_first(lanes: &Lanes, lane: &LaneUse) -> bool {
        Arc::ptr_eq(lane.connection(), lanes.first())
    }

    #[test]
    fn files_in_use_at_the_same_time_get_connections_of_their_own() {
        // More workers would get a second process
        let (_dir, lanes) = lanes(3, true);
        for _ in 0..10 {
            assert!(is_first(&lanes, &lanes.take().unwrap()));
        }
        let held: Vec<_> = (0..4).map(|_| lanes.take().unwrap()).collect();
        assert_eq!(held.iter().filter(|lane| is_first(&lanes, lane)).count(), 1);
        for pair in held.windows(2) {
            assert!(!Arc::ptr_eq(pair[0].connection(), pair[1].connection()));
        }
        held.iter().for_each(|lane| drop(lane.connection().call(&Call::Noop).unwrap()));
        // There are no more, so the next ones share
        let more: Vec<_> = (0..4).map(|_| lanes.take().unwrap()).collect();
        assert!(more.iter().all(|lane| lane.lane.users() == 2));
        drop((held, more));
        assert_eq!(lock(&lanes.more.state).lanes.len(), 3);
    }

    #[test]
    fn host_without_channels_has_one_connection() {
        for (workers, has_channels) in [(3, false), (0, true)] {
            let (_dir, lanes) = lanes(workers, has_channels);
            let held: Vec<_> = (0..4).map(|_| lanes.take().unwrap()).collect();
            assert!(held.iter().all(|lane| is_first(&lanes, lane)));
        }
    }

    #[test]
    fn work_of_the_host_leaves_the_connection_of_the_command_alone() {
        let (_dir, lanes) = lanes(2, true);
        let held: Vec<_> = (0..4).map(|_| lanes.take_to_compute(&CancelToken::new()).unwrap()).collect();
        assert!(held.iter().all(|lane| !is_first(&lanes, lane) && lane.lane.users() == 2));
        assert!(is_first(&lanes, &lanes.take().unwrap()));
        // Without workers there is nothing else
        let (_dir, alone) = self::lanes(0, true);
        assert!(is_first(&alone, &alone.take_to_compute(&CancelToken::new()).unwrap()));
    }

    #[test]
    fn work_of_the_host_came_to_the_connection_of_the_command_while_the_first_other_one_was_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (path, (sender, opens)) = (dir.path().to_owned(), std::sync::mpsc::channel::<()>());
        let opens = Mutex::new(opens);
        let connection = connect_with_channels(move |stream| {
            // The first channel is not served before the test says so
            drop(serve_data_watched(stream, &path, move |_| lock(&opens).recv().unwrap_or_default()));
        });
        let lanes = Lanes::new(connection.unwrap(), vec![thread_settings(); 2]);
        std::thread::scope(|scope| {
            let take = || lanes.take_to_compute(&CancelToken::new()).unwrap();
            let all: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
            while !lock(&lanes.more.state).is_opening {
                std::thread::yield_now();
            }
            let (cancel, lanes) = (CancelToken::new(), &lanes);
            let stop = cancel.clone();
            let stopped = scope.spawn(move || lanes.take_to_compute(&stop).err().map(|error| error.code));
            std::thread::sleep(3 * LOOK);
            assert!(!stopped.is_finished());
            cancel.cancel();
            assert_eq!(stopped.join().unwrap(), Some(ErrorCode::Term));
            assert!(all.iter().all(|one| !one.is_finished()));
            // Files don't wait
            assert!(is_first(lanes, &lanes.take().unwrap()));
            drop(sender);
            let all: Vec<_> = all.into_iter().map(|one| one.join().unwrap()).collect();
            assert!(all.iter().all(|lane| !is_first(lanes, lane)));
        });
    }

    #[test]
    fn connection_of_the_command_computes_one_thing_at_a_time() {
        let (_dir, lanes) = lanes(0, true);
        let take = || lanes.take_to_compute(&CancelToken::new()).unwrap();
        let held = take();
        std::thread::scope(|scope| {
            let next = scope.spawn(take);
            std::thread::sleep(3 * LOOK);
            assert!(!next.is_finished() && is_first(&lanes, &lanes.take().unwrap()));
            drop(held);
            assert!(is_first(&lanes, &next.join().unwrap()));
        });
        // Those that wait end with the connection
        let _held = take();
        std::thread::scope(|scope| {
            let next = scope.spawn(|| lanes.take_to_compute(&CancelToken::new()).is_err());
            lanes.first().give_up();
            assert!(next.join().unwrap());
        });
    }

    #[test]
    fn connection_beside_a_process_of_its_own_was_taken_for_the_only_one() {
        let (_dir, lanes) = lanes(2, false);
        let first = lanes.take().unwrap();
        assert!(first.is_alone());
        let (_other_dir, other) = self::lanes(0, false);
        lock(&lanes.more.state).lanes.push(Lane::new(Arc::clone(other.first()), 1));
        assert!(!first.is_alone() && !lanes.take().unwrap().is_alone());
        let (_channels_dir, channels) = self::lanes(0, true);
        assert!(!channels.take().unwrap().is_alone());
    }

    #[test]
    fn connection_that_could_not_be_opened_once_was_never_tried_again() {
        // A process for it can't be started
        let (_dir, lanes) = lanes(2, false);
        let take = || assert!(is_first(&lanes, &lanes.take_to_compute(&CancelToken::new()).unwrap()));
        let failures = || lock(&lanes.more.state).failures;
        (0..3).for_each(|_| take());
        assert_eq!(failures(), 1);
        for tries in 2..FAILURES_MAX + 5 {
            lock(&lanes.more.state).next_try = Some(Instant::now());
            take();
            assert_eq!(failures(), tries.min(FAILURES_MAX + 1));
        }
    }

    #[test]
    fn channel_that_was_lost_was_not_replaced() {
        let (_dir, lanes) = lanes(1, true);
        for _ in 0..LOST_MAX {
            let held = [lanes.take().unwrap(), lanes.take().unwrap()];
            let other = held.iter().find(|lane| !is_first(&lanes, lane)).unwrap();
            other.connection().call(&Call::Noop).unwrap();
            other.connection().give_up();
            assert!(!is_first(&lanes, &lanes.take_to_compute(&CancelToken::new()).unwrap()));
        }
        // There is an end to it
        let held = [lanes.take().unwrap(), lanes.take().unwrap()];
        assert_eq!(held.iter().filter(|lane| !is_first(&lanes, lane)).count(), 1);
        held.iter().for_each(|lane| {
            if !is_first(&lanes, lane) {
                lane.connection().give_up()
            }
        });
        let held = [lanes.take().unwrap(), lanes.take().unwrap()];
        assert!(held.iter().all(|lane| is_first(&lanes, lane)));
        assert!(is_first(&lanes, &lanes.take_to_compute(&CancelToken::new()).unwrap()));
    }

    #[test]
    fn channel_that_is_lost_is_used_no_more_and_the_loss_of_the_first_connection_ends_all() {
        let (_dir, lanes) = lanes(3, true);
        let held: Vec<_> = (0..2).map(|_| lanes.take().unwrap()).collect();
        let other = held.iter().find(|lane| !is_first(&lanes, lane)).unwrap();
        other.connection().give_up();
        assert!(other.connection().call(&Call::Noop).is_err());
        drop(held);
        let again: Vec<_> = (0..2).map(|_| lanes.take().unwrap()).collect();
        again.iter().for_each(|lane| drop(lane.connection().call(&Call::Noop).unwrap()));
        drop(again);
        lanes.first().give_up();
        assert!(lanes.take().is_err());
    }
}
