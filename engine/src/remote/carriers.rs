//! The processes on a host whose ways carry channels.
//!
//! One process and one login are enough for a host nearby. The window of an SSH channel limits what one way carries over a distance
//! (2 MiB in each round trip), so there are more of them the longer an answer takes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use protocol::Capability;

use super::shared::lock;
use super::{Connection, RemoteSettings};
use crate::Result;

/// The time of an answer that is worth one more way: 200 MB/s for each.
const ROUND_TRIP_OF_A_WAY: Duration = Duration::from_millis(10);
/// The most workers on a way, whose data is encrypted by one process.
const WORKERS_OF_A_WAY: usize = 4;
/// The most ways. With the defaults of sshd, ten clients may log in at a time.
const WAYS_MAX: usize = 8;

/// The pause before the next try after a way could not be opened.
const RETRY_PAUSE: Duration = Duration::from_secs(10);

/// Returns how many ways are best for so many workers.
fn ways(round_trip: Duration, workers: usize) -> usize {
    let of_distance = round_trip.as_millis().div_ceil(ROUND_TRIP_OF_A_WAY.as_millis());
    let of_distance = usize::try_from(of_distance).unwrap_or(usize::MAX);
    of_distance.max(workers.div_ceil(WORKERS_OF_A_WAY)).min(workers).clamp(1, WAYS_MAX)
}

/// The processes that carry channels besides that of the command itself. Each ends with the last of its channels.
#[derive(Debug, Default)]
pub(crate) struct Carriers {
    ways: [Mutex<CarrierWay>; WAYS_MAX],
    /// A worker whose way can't be opened gets a channel of the command's own connection.
    falls_back: bool,
    /// A way could not be opened.
    has_failed: AtomicBool,
}

/// A process that carries channels, if there is one.
#[derive(Debug, Default)]
struct CarrierWay {
    connection: Weak<Connection>,
    /// When to try again after it could not be opened.
    next_try: Option<Instant>,
}

impl Carriers {
    /// The processes for workers that can't do without a connection. With others it is better to try a way again later.
    pub(crate) fn for_workers() -> Self {
        Carriers { falls_back: true, ..Carriers::default() }
    }

    /// Opens the connection of a worker on a channel; `None` if the host has no channels, or no more of them. `main` is the
    /// connection of the command itself, `processes` are the settings of its process and of those of its workers, of which
    /// `number` is one. So many of them may be in use.
    ///
    /// # Errors
    /// The connection on which the channel would be has ended or can't be opened, or the host refuses the channel.
    pub(crate) fn open(
        &self,
        main: &Arc<Connection>,
        processes: &[RemoteSettings],
        number: usize,
        workers: usize,
    ) -> Result<Option<Arc<Connection>>> {
        let Some(settings) = processes.get(number).filter(|_| main.has(Capability::Channels)) else { return Ok(None) };
        let index = number.saturating_sub(1) % ways(main.round_trip()?, workers);
        let carrier = match (self.ways.get(index), processes.get(index)) {
            (Some(way), Some(process)) if index > 0 => self.carrier(way, process)?,
            _ => None,
        };
        carrier.unwrap_or_else(|| Arc::clone(main)).open_channel(settings)
    }

    /// Returns the connection of a way, which is opened if it is not open; `None` for that of the command itself.
    fn carrier(&self, way: &Mutex<CarrierWay>, process: &RemoteSettings) -> Result<Option<Arc<Connection>>> {
        let mut way = lock(way);
        if let Some(open) = way.connection.upgrade().filter(|carrier| !carrier.has_ended()) {
            return Ok(Some(open));
        }
        if way.next_try.is_some_and(|next| Instant::now() < next) {
            return Ok(None);
        }
        match Connection::open_with_channels(process) {
            Ok(carrier) => {
                *way = CarrierWay { connection: Arc::downgrade(&carrier), next_try: None };
                Ok(Some(carrier))
            }
            Err(error) if !self.falls_back => Err(error),
            Err(error) => {
                way.next_try = Some(Instant::now() + RETRY_PAUSE);
                if self.has_failed.swap(true, Ordering::Relaxed) {
                    crate::debug!("unable to open one more connection: {error}");
                } else {
                    crate::detail!("unable to open one more connection, continuing with those that are open: {error}");
                }
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::Call;

    use super::*;
    use crate::remote::testing::{connect_with_channels, serve_data, thread_settings};

    #[test]
    fn worker_whose_way_was_refused_failed_although_the_connection_of_the_command_had_channels() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let main = connect_with_channels(move |stream| drop(serve_data(stream, &path))).unwrap();
        // A distant host gets more ways
        while main.round_trip().unwrap() > Duration::from_millis(5) {
            main.call(&Call::Noop).unwrap();
        }
        // Nothing can be started with these
        let (carriers, processes) = (Carriers::for_workers(), [(); 9].map(|()| thread_settings()));
        let open = |number| carriers.open(&main, &processes, number, 8).unwrap().unwrap();
        let next_try = || lock(&carriers.ways[1]).next_try;
        let second = open(2);
        second.call(&Call::Noop).unwrap();
        assert!(lock(&carriers.ways[1]).connection.upgrade().is_none());
        // It is not tried again at once, but later
        let first_try = next_try().unwrap();
        let fourth = open(4);
        fourth.call(&Call::Noop).unwrap();
        assert_eq!(next_try(), Some(first_try));
        let now = Instant::now();
        lock(&carriers.ways[1]).next_try = Some(now);
        let sixth = open(6);
        sixth.call(&Call::Noop).unwrap();
        assert!(next_try() >= Some(now + RETRY_PAUSE));
        // Files of a repository share the connections that there are, and get a way of their own later
        assert!(Carriers::default().open(&main, &processes, 2, 8).is_err());
    }

    #[test]
    fn distant_hosts_and_many_workers_get_more_ways() {
        let near = Duration::from_micros(300);
        assert_eq!([1, 2, 4, 5, 16, 32, 500].map(|workers| ways(near, workers)), [1, 1, 1, 2, 4, 8, 8]);
        let distant = Duration::from_millis(40);
        assert_eq!([1, 2, 4, 8, 32].map(|workers| ways(distant, workers)), [1, 2, 4, 4, 8]);
        assert_eq!(ways(Duration::from_secs(5), 100), WAYS_MAX);
        assert_eq!(ways(Duration::MAX, 2), 2);
        assert_eq!(ways(near, 0), 1);
    }
}
