//! Slows a backup down while the server has too much to do.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::limit::{Pace, RATE_MIN, RateLimit};
use crate::{Result, info, warn};

/// How often to look. The load of a minute changes slowly.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// The largest and the smallest step down, as a part of the rate.
const DOWN: (f64, f64) = (0.5, 0.96);
/// The smallest and the largest step up.
const UP: (f64, f64) = (1.03, 1.25);
/// Where Linux tells its load.
const LOAD_FILE: &str = "/proc/loadavg";

/// When to slow down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EaseSettings {
    /// The highest load average of this host over one minute.
    pub load_max: Option<u32>,
    /// The most bytes of WAL that a standby may be behind the primary.
    pub replica_lag_max: Option<u64>,
}

impl EaseSettings {
    /// Returns whether there is something to look at.
    pub(crate) fn is_set(self) -> bool {
        self != EaseSettings::default()
    }
}

/// What was seen at a look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Strain {
    load: Option<f64>,
    replica_lag: Option<u64>,
}

impl Strain {
    /// Returns the larger of load and lag in relation to its limit: more than 1 is too much.
    fn pressure(self, settings: EaseSettings) -> f64 {
        let load = self.load.zip(settings.load_max).map_or(0.0, |(load, max)| load / f64::from(max.max(1)));
        #[expect(clippy::cast_precision_loss, reason = "a relation is not exact")]
        let lag = self.replica_lag.zip(settings.replica_lag_max).map_or(0.0, |(lag, max)| match max {
            0 if lag > 0 => f64::MAX,
            max => lag as f64 / max.max(1) as f64,
        });
        load.max(lag)
    }

    /// Returns what is too much, for messages.
    fn excess(self, settings: EaseSettings) -> Option<String> {
        if let (Some(load), Some(max)) = (self.load, settings.load_max)
            && load > f64::from(max)
        {
            return Some(format!("the load is {load:.1}"));
        }
        match (self.replica_lag, settings.replica_lag_max) {
            (Some(lag), Some(max)) if lag > max => Some(format!("a standby is {lag} bytes behind")),
            _ => None,
        }
    }
}

/// Decides on the rate of a backup.
pub(crate) struct Ease {
    settings: EaseSettings,
    limit: Arc<RateLimit>,
    looked: Instant,
    /// Bytes at the last look.
    bytes: u64,
    /// The rate in force, if there is one.
    rate: Option<u64>,
    /// Whether asking for the lag failed, so that it is not asked for again.
    lag_failed: bool,
}

impl Ease {
    /// Starts to look; `None` if there is nothing to look at.
    pub(crate) fn begin(settings: EaseSettings, pace: &Pace) -> Option<Self> {
        let limit = pace.limit().filter(|_| settings.is_set())?;
        let (limit, bytes) = (Arc::clone(limit), limit.bytes());
        Some(Ease { settings, limit, looked: Instant::now(), bytes, rate: None, lag_failed: false })
    }

    /// Looks if it is time to. `replica_lag` asks the primary how far its standbys are behind.
    pub(crate) fn look(&mut self, replica_lag: &mut dyn FnMut() -> Result<Option<u64>>) {
        let elapsed = self.looked.elapsed();
        if elapsed < LOOK_INTERVAL {
            return;
        }
        let mut strain = Strain::default();
        if self.settings.load_max.is_some() {
            strain.load = load(Path::new(LOAD_FILE));
        }
        if self.settings.replica_lag_max.is_some() && !self.lag_failed {
            match replica_lag() {
                Ok(lag) => strain.replica_lag = lag,
                Err(error) => {
                    self.lag_failed = true;
                    warn!("max-replica-lag has no effect: {error}");
                }
            }
        }
        self.looked = Instant::now();
        self.decide(strain, elapsed);
    }

    fn decide(&mut self, strain: Strain, elapsed: Duration) {
        let bytes = self.limit.bytes();
        let milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
        let achieved = (bytes - self.bytes).saturating_mul(1000) / milliseconds;
        self.bytes = bytes;
        let excess = strain.excess(self.settings);
        let rates = Rates { configured: self.limit.rate(), eased: self.rate, achieved };
        let next = rates.next(strain.pressure(self.settings));
        match (&self.rate, next, excess) {
            (None, Some(_), Some(excess)) => info!("backup is slowed down because {excess}"),
            (Some(_), None, _) => info!("backup is no longer slowed down"),
            _ => {}
        }
        self.rate = next;
        self.limit.ease(next);
    }
}

/// The rates of a backup, in bytes per second.
#[derive(Clone, Copy, Debug)]
struct Rates {
    /// The limit that the user set.
    configured: Option<u64>,
    /// The lower limit in force.
    eased: Option<u64>,
    /// What the backup achieved lately.
    achieved: u64,
}

impl Rates {
    /// Returns the limit from now on. While there is too much to do, that is less, the more so the more there is, but never
    /// less than [`RATE_MIN`], so that the backup ends one day. Afterwards it is more each time, until it no longer matters.
    ///
    /// The load of a minute tells late what a lower rate has changed. Large steps would end at the lowest rate each time.
    fn next(self, pressure: f64) -> Option<u64> {
        let Rates { configured, eased, achieved } = self;
        if pressure > 1.0 {
            let rate = eased.unwrap_or(u64::MAX).min(achieved);
            return Some(scaled(rate, pressure.recip().clamp(DOWN.0, DOWN.1)).max(RATE_MIN));
        }
        let next = scaled(eased?, pressure.recip().clamp(UP.0, UP.1));
        let matters = next < achieved.saturating_mul(2) && configured.is_none_or(|configured| next < configured);
        // A backup that waits for something else achieves nothing for a while
        let is_low = next < 64 * RATE_MIN && configured.is_none_or(|configured| next < configured);
        (matters || is_low).then_some(next)
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is not exact, and a factor is positive"
)]
fn scaled(rate: u64, factor: f64) -> u64 {
    (rate as f64 * factor) as u64
}

/// The load average over one minute; `None` if the system does not tell it.
fn load(path: &Path) -> Option<f64> {
    std::fs::read_to_string(path).ok()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn next(configured: Option<u64>, eased: Option<u64>, achieved: u64, is_too_much: bool) -> Option<u64> {
        at(if is_too_much { 9.0 } else { 0.1 }, configured, eased, achieved)
    }

    fn at(pressure: f64, configured: Option<u64>, eased: Option<u64>, achieved: u64) -> Option<u64> {
        let mib = |rate: u64| rate * MIB;
        let rates = Rates { configured: configured.map(mib), eased: eased.map(mib), achieved: mib(achieved) };
        rates.next(pressure).map(|rate| rate / MIB)
    }

    #[test]
    fn step_is_small_near_the_limit_and_large_far_from_it() {
        assert_eq!(at(1.01, None, Some(100), 100), Some(96));
        assert_eq!(at(1.25, None, Some(100), 100), Some(80));
        assert_eq!(at(3.0, None, Some(100), 100), Some(50));
        assert_eq!(at(0.99, None, Some(100), 100), Some(103));
        assert_eq!(at(0.9, None, Some(100), 100), Some(111));
        assert_eq!(at(0.0, None, Some(100), 100), Some(125));
        let lag = EaseSettings { load_max: Some(2), replica_lag_max: Some(0) };
        assert!(Strain { load: Some(1.0), replica_lag: Some(1) }.pressure(lag) > 1e9);
        assert!((Strain { load: Some(1.0), replica_lag: Some(0) }.pressure(lag) - 0.5).abs() < 1e-9);
    }

    /// The load of a host that has two other processes and one more for each 50 MiB/s of the backup.
    #[test]
    fn rate_settles_below_the_limit_of_the_load_and_does_not_swing_to_the_lowest() {
        let (mut eased, mut load) = (None, 2.0);
        let damping = (-LOOK_INTERVAL.as_secs_f64() / 60.0).exp();
        let mut rates = Vec::new();
        for _ in 0..900 {
            let achieved = eased.unwrap_or(u64::MAX).min(400 * MIB);
            load = load * damping + (2.0 + achieved as f64 / (50.0 * MIB as f64)) * (1.0 - damping);
            eased = Rates { configured: None, eased, achieved }.next(load / 4.0);
            rates.push(eased.unwrap_or(400 * MIB) / MIB);
        }
        // 100 MiB/s make a load of 4
        let late = &rates[300..];
        let mean = late.iter().sum::<u64>() / late.len() as u64;
        assert!((60..140).contains(&mean) && *late.iter().min().unwrap() > 10, "{mean} {late:?}");
    }

    #[test]
    fn rate_is_halved_under_strain_but_never_below_the_lowest() {
        assert_eq!(next(None, None, 200, true), Some(100));
        assert_eq!(next(None, Some(100), 100, true), Some(50));
        // What is allowed but not achieved does not count
        assert_eq!(next(Some(1000), None, 80, true), Some(40));
        assert_eq!(next(None, Some(1), 1, true), Some(1));
        assert_eq!(next(None, Some(50), 0, true), Some(1));
    }

    #[test]
    fn rate_rises_again_until_the_limit_no_longer_matters() {
        assert_eq!(next(None, Some(40), 40, false), Some(50));
        assert_eq!(next(None, Some(400), 40, false), None);
        assert_eq!(next(Some(60), Some(50), 50, false), None);
        assert_eq!(next(None, None, 500, false), None);
        // A pause of the backup itself does not lift a low limit
        assert_eq!(next(None, Some(4), 0, false), Some(5));
    }

    #[test]
    fn strain_that_alternates_keeps_the_backup_between_the_lowest_and_its_own_rate() {
        let mut eased = None;
        for round in 0..200 {
            let achieved = eased.unwrap_or(u64::MAX).min(300 * MIB);
            eased = Rates { configured: None, eased, achieved }.next(if round % 7 < 3 { 2.0 } else { 0.5 });
            assert!(eased.is_none_or(|rate| (RATE_MIN..=600 * MIB).contains(&rate)), "{eased:?}");
        }
    }

    #[test]
    fn excess_names_what_is_too_much() {
        let settings = EaseSettings { load_max: Some(4), replica_lag_max: Some(1000) };
        let strain = |load, replica_lag| Strain { load, replica_lag }.excess(settings);
        assert_eq!(strain(Some(4.0), Some(1000)), None);
        assert_eq!(strain(None, None), None);
        assert_eq!(strain(Some(4.26), None).unwrap(), "the load is 4.3");
        assert_eq!(strain(Some(1.0), Some(1001)).unwrap(), "a standby is 1001 bytes behind");
        let none = Strain { load: Some(99.0), replica_lag: Some(u64::MAX) };
        assert_eq!(none.excess(EaseSettings::default()), None);
    }

    #[test]
    fn load_of_this_system_can_be_read() {
        assert!(load(Path::new(LOAD_FILE)).unwrap() >= 0.0);
        assert_eq!(load(Path::new("/nonexistent")), None);
    }

    #[test]
    fn server_that_can_t_be_asked_slows_nothing_down() {
        let pace = Pace::new(Arc::new(RateLimit::new(None)));
        let settings = EaseSettings { load_max: None, replica_lag_max: Some(0) };
        let mut ease = Ease::begin(settings, &pace).unwrap();
        let mut asked = 0;
        for _ in 0..3 {
            ease.looked = Instant::now().checked_sub(LOOK_INTERVAL).unwrap();
            ease.look(&mut || {
                asked += 1;
                Err(crate::Error::new(crate::ErrorCode::DbQuery, "no permission"))
            });
        }
        assert_eq!((asked, ease.rate), (1, None));
        ease.lag_failed = false;
        ease.looked = Instant::now().checked_sub(LOOK_INTERVAL).unwrap();
        ease.look(&mut || Ok(Some(1)));
        assert_eq!(ease.rate, Some(RATE_MIN));
    }

    #[test]
    fn nothing_is_looked_at_without_settings() {
        assert!(Ease::begin(EaseSettings::default(), &Pace::new(Arc::new(RateLimit::new(None)))).is_none());
        assert!(Ease::begin(EaseSettings { load_max: Some(1), replica_lag_max: None }, &Pace::FREE).is_none());
    }
}
