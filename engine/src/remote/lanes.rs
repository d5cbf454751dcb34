//! The connections to one host over which files are read and written at the same time.
//!
//! A server answers the requests of a connection one after the other, so a file that it syncs, or reads from a slow disk, holds up
//! those behind it. If rbr is there, files that are in use at the same time get channels of their own. A connection begins only
//! when all others are in use, so a command that reads one file after the other has one.

use std::sync::{Arc, Mutex};

use super::shared::lock;
use super::{Carriers, Connection, RemoteSettings};
use crate::Result;

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

/// The use of a connection for one file.
pub(crate) struct LaneUse(Lane);

impl LaneUse {
    /// The connection.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.0.connection
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
        self.first.connection.check()?;
        let mut more = lock(&self.more);
        more.lanes.retain(|lane| !lane.connection.has_ended());
        let least = more.lanes.iter().chain([&self.first]).min_by_key(|lane| lane.users());
        let least = LaneUse(least.unwrap_or(&self.first).clone());
        let most = self.processes.len().min(LANES_MAX);
        // The clone here counts, too
        if least.0.users() <= 1 || more.is_opening || more.begun + 1 >= most {
            return Ok(least);
        }
        (more.begun, more.is_opening) = (more.begun + 1, true);
        let number = more.begun;
        drop(more);
        let opened = self.open(number);
        let mut more = lock(&self.more);
        more.is_opening = false;
        match opened {
            Ok(Some(lane)) => {
                more.lanes.push(lane.clone());
                Ok(LaneUse(lane))
            }
            Ok(None) => {
                // The host has no channels
                more.begun = most;
                Ok(least)
            }
            Err(error) => {
                // What there is goes on, unless the reason is the end of that
                crate::debug!("unable to open one more connection: {error}");
                more.begun = most;
                Ok(least)
            }
        }
    }

    fn open(&self, number: usize) -> Result<Option<Lane>> {
        let workers = self.processes.len() - 1;
        let opened = self.carriers.open(&self.first.connection, &self.processes, number, workers)?;
        let Some(connection) = opened else { return Ok(None) };
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
