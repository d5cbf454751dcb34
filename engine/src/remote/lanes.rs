//! The connections to one host over which files are read and written at the same time.
//!
//! A server answers the requests of a connection one after the other, so a file that it syncs, or reads from a slow disk, holds up
//! those behind it. If rbr is there, files that are in use at the same time get channels of their own. A connection begins only
//! when all others are in use, so a command that reads one file after the other has one.

use std::sync::{Arc, Mutex};

use super::shared::lock;
use super::{Carriers, Connection, RemoteSettings};
use crate::{Error, Result};

/// The most connections. More requests at a time do not make a disk faster.
const LANES_MAX: usize = 32;

/// The connections to one host.
#[derive(Debug)]
pub(crate) struct Lanes {
    /// The connection of the command itself.
    first: Lane,
    more: Mutex<More>,
    carriers: Carriers,
    /// The settings of the command's process, and of those of its workers.
    processes: Vec<RemoteSettings>,
}

#[derive(Debug, Default)]
struct More {
    lanes: Vec<Lane>,
    /// The number of connections that were begun, also without success.
    begun: usize,
    is_opening: bool,
    /// The host has no channels, or no more of them.
    has_no_channels: bool,
    /// The last one could not be opened.
    has_failed: bool,
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
    users: Arc<()>,
}

impl Lane {
    fn new(connection: Arc<Connection>) -> Self {
        Lane { connection, users: Arc::new(()) }
    }

    fn users(&self) -> usize {
        Arc::strong_count(&self.users) - 1
    }
}

/// The use of a connection for one file, and the connection of the command itself.
#[derive(Clone)]
pub(crate) struct LaneUse(Lane, Arc<Connection>);

impl LaneUse {
    /// The connection.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.0.connection
    }

    /// Ends this connection and that of the command itself, so that nothing more is done on the host.
    pub(crate) fn give_up(&self, error: &Error) {
        self.0.connection.fail(error);
        self.1.fail(error);
    }
}

impl Lanes {
    /// The host at the other end of a connection. `processes` are the settings of its process, and of those that may be started
    /// besides.
    pub(crate) fn new(first: Arc<Connection>, processes: Vec<RemoteSettings>) -> Self {
        Lanes { first: Lane::new(first), more: Mutex::default(), carriers: Carriers::default(), processes }
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
        self.take_for(Work::Files)
    }

    /// Returns a connection for work that takes a processor of the host: not that of the command itself, which would not be answered
    /// meanwhile, if there is another one. A host without channels gets processes for them.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn take_to_compute(&self) -> Result<LaneUse> {
        self.take_for(Work::Computing)
    }

    fn take_for(&self, work: Work) -> Result<LaneUse> {
        self.first.connection.check()?;
        let most = self.processes.len().min(LANES_MAX);
        let mut more = lock(&self.more);
        more.lanes.retain(|lane| !lane.connection.has_ended());
        let first = (work == Work::Files).then_some(&self.first);
        let least = first.into_iter().chain(&more.lanes).min_by_key(|lane| lane.users());
        let (least, has_any) = (self.used(least.unwrap_or(&self.first)), least.is_some());
        let is_last = more.has_failed || (work == Work::Files && more.has_no_channels);
        // The clone here counts, too
        if (has_any && least.0.users() <= 1) || more.is_opening || is_last || more.begun + 1 >= most {
            return Ok(least);
        }
        (more.begun, more.is_opening) = (more.begun + 1, true);
        let number = more.begun;
        drop(more);
        let opened = self.open(number, work);
        let mut more = lock(&self.more);
        more.is_opening = false;
        match opened {
            Ok(Some(lane)) => {
                let used = self.used(&lane);
                more.lanes.push(lane);
                Ok(used)
            }
            Ok(None) => {
                more.begun -= 1;
                more.has_no_channels = true;
                Ok(least)
            }
            Err(error) => {
                // What there is goes on, unless the reason is the end of that
                crate::debug!("unable to open one more connection: {error}");
                more.has_failed = true;
                Ok(least)
            }
        }
    }

    fn used(&self, lane: &Lane) -> LaneUse {
        LaneUse(lane.clone(), Arc::clone(&self.first.connection))
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
        Ok(Some(Lane::new(connection)))
    }
}

#[cfg(test)]
mod tests {
    use protocol::Call;

    use super::*;
    use crate::remote::testing::{connect, connect_with_channels, serve_data, thread_settings};

    fn lanes(workers: usize, has_channels: bool) -> (tempfile::TempDir, Lanes) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let serve = move |stream| drop(serve_data(stream, &path));
        let connection = if has_channels { connect_with_channels(serve) } else { connect(serve) }.unwrap();
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
        assert!(more.iter().all(|lane| lane.0.users() == 2));
        drop((held, more));
        assert_eq!(lock(&lanes.more).lanes.len(), 3);
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
        let held: Vec<_> = (0..4).map(|_| lanes.take_to_compute().unwrap()).collect();
        assert!(held.iter().all(|lane| !is_first(&lanes, lane) && lane.0.users() == 2));
        assert!(is_first(&lanes, &lanes.take().unwrap()));
        // Without workers there is nothing else
        let (_dir, alone) = self::lanes(0, true);
        assert!(is_first(&alone, &alone.take_to_compute().unwrap()));
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
