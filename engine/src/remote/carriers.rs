//! The processes on a host whose ways carry channels.
//!
//! One process and one login are enough for a host nearby. The window of an SSH channel limits what one way carries over a distance
//! (2 MiB in each round trip), so there are more of them the longer an answer takes.

use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

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

/// Returns how many ways are best for so many workers.
fn ways(round_trip: Duration, workers: usize) -> usize {
    let of_distance = round_trip.as_millis().div_ceil(ROUND_TRIP_OF_A_WAY.as_millis());
    let of_distance = usize::try_from(of_distance).unwrap_or(usize::MAX);
    of_distance.max(workers.div_ceil(WORKERS_OF_A_WAY)).min(workers).clamp(1, WAYS_MAX)
}

/// The processes that carry channels besides that of the command itself. Each ends with the last of its channels.
#[derive(Debug, Default)]
pub(crate) struct Carriers([Mutex<Weak<Connection>>; WAYS_MAX]);

impl Carriers {
    /// Opens the connection of a worker on a channel; `None` if the host has no channels, or no more of them. `main` is the
    /// connection of the command itself, `processes` are the settings of its process and of those of its workers, of which
    /// `number` is one. So many of them may be in use.
    ///
    /// # Errors
    /// The host can't be reached, or refuses.
    pub(crate) fn open(
        &self,
        main: &Arc<Connection>,
        processes: &[RemoteSettings],
        number: usize,
        workers: usize,
    ) -> Result<Option<Arc<Connection>>> {
        let Some(settings) = processes.get(number).filter(|_| main.has(Capability::Channels)) else { return Ok(None) };
        let index = number.saturating_sub(1) % ways(main.round_trip()?, workers);
        let carrier = match (self.0.get(index), processes.get(index)) {
            (Some(slot), Some(process)) if index > 0 => {
                let mut slot = lock(slot);
                match slot.upgrade().filter(|carrier| !carrier.has_ended()) {
                    Some(carrier) => carrier,
                    None => {
                        let carrier = Connection::open_with_channels(process)?;
                        *slot = Arc::downgrade(&carrier);
                        carrier
                    }
                }
            }
            _ => Arc::clone(main),
        };
        carrier.open_channel(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
