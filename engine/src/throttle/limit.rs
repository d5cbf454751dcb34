//! A rate that several threads share.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::cancel::CancelToken;
use crate::system_text;
use crate::warn;

/// The lowest rate in bytes per second. With less, each of many workers would wait longer for its turn than other hosts
/// wait for a sign of life.
pub const RATE_MIN: u64 = 1 << 20;
/// How much time that was not used may be made up for. It makes up for sleeping too long, and is far too short for a
/// burst that matters.
const MADE_UP_MAX: Duration = Duration::from_millis(100);
/// How often the file with the rate is looked at.
const FILE_INTERVAL: Duration = Duration::from_secs(1);
/// The most bytes of that file that count.
const FILE_SIZE_MAX: u64 = 64;
/// How long a thread sleeps at a time, so that it notices a higher rate and the end of the command.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// Where a limit gets the time from. Times are since any fixed moment.
trait Clock: Send + Sync {
    fn now(&self) -> Duration;

    fn sleep(&self, time: Duration);
}

struct SystemClock(Instant);

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Reads a rate as a user writes it; `None` for a text that is none.
pub type ParseRate = fn(&str) -> Option<u64>;

/// A file with a rate that replaces the configured one while it exists.
struct RateFile {
    path: PathBuf,
    parse: ParseRate,
}

/// A rate in bytes per second that the workers of a command share, or none.
pub struct RateLimit {
    clock: Box<dyn Clock>,
    configured: Option<u64>,
    file: Option<RateFile>,
    state: Mutex<LimitState>,
}

struct LimitState {
    /// The rate of the file, otherwise the configured one.
    rate: Option<u64>,
    /// A lower rate while the server has too much to do.
    eased: Option<u64>,
    /// Until when everything so far takes at this rate.
    used_until: Duration,
    /// Bytes so far.
    bytes: u64,
    /// When to look at the file again.
    look_at: Duration,
    /// What the file contained last.
    seen: RateText,
}

impl fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimit").field("configured", &self.configured).finish_non_exhaustive()
    }
}

impl RateLimit {
    /// A limit of so many bytes per second, or none. A rate below [`RATE_MIN`] counts as that.
    pub fn new(rate: Option<u64>) -> Self {
        Self::with_clock(rate, Box::new(SystemClock(Instant::now())))
    }

    fn with_clock(rate: Option<u64>, clock: Box<dyn Clock>) -> Self {
        let configured = rate.map(|rate| rate.max(RATE_MIN));
        let state = LimitState {
            rate: configured,
            eased: None,
            used_until: Duration::ZERO,
            bytes: 0,
            look_at: Duration::ZERO,
            seen: RateText::Absent,
        };
        RateLimit { clock, configured, file: None, state: Mutex::new(state) }
    }

    /// The same, and while this file exists the rate in it counts. It may change at any time.
    #[must_use]
    pub fn with_file(self, path: PathBuf, parse: ParseRate) -> Self {
        RateLimit { file: Some(RateFile { path, parse }), ..self }
    }

    fn state(&self) -> MutexGuard<'_, LimitState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts these bytes, and waits until they are due. Returns early once the token is cancelled.
    fn after(&self, bytes: u64, cancel: &CancelToken) {
        let (mut due, mut rate) = self.count(bytes);
        loop {
            let now = self.clock.now();
            let left = due.saturating_sub(now);
            if left.is_zero() || cancel.is_cancelled() {
                return;
            }
            self.clock.sleep(left.min(SLEEP_MAX));
            // All threads may wait, so they look themselves
            self.look_at_file();
            let changed = self.state().current();
            if changed != rate {
                (due, rate) = (at_rate(due, self.clock.now(), rate, changed), changed);
            }
        }
    }

    /// Counts these bytes. Returns when the next ones may follow, and the rate that says so.
    fn count(&self, bytes: u64) -> (Duration, Option<u64>) {
        self.look_at_file();
        let now = self.clock.now();
        let mut state = self.state();
        state.bytes = state.bytes.saturating_add(bytes);
        let begin = state.used_until.max(now.saturating_sub(MADE_UP_MAX));
        let rate = state.current();
        state.used_until = match rate {
            Some(rate) => begin + time_of(bytes, rate),
            None => now,
        };
        (state.used_until, rate)
    }

    /// Returns whether the next bytes are due.
    fn is_due(&self) -> bool {
        self.state().used_until <= self.clock.now()
    }

    /// The rate of the file or the configuration, without easing.
    pub(super) fn rate(&self) -> Option<u64> {
        self.state().rate
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.state().bytes
    }

    /// Limits the rate further, or no longer.
    pub(super) fn ease(&self, rate: Option<u64>) {
        let now = self.clock.now();
        self.state().change(now, |state| state.eased = rate);
    }

    fn look_at_file(&self) {
        let Some(file) = &self.file else { return };
        {
            let now = self.clock.now();
            let mut state = self.state();
            if now < state.look_at {
                return;
            }
            state.look_at = now + FILE_INTERVAL;
        }
        // Without the lock, because a file system may be slow
        let found = RateText::read(&file.path);
        let mut state = self.state();
        if found == state.seen {
            return;
        }
        state.seen.clone_from(&found);
        let rate = match &found {
            RateText::Absent => self.configured,
            // Somebody writes it at this moment
            RateText::Text(text) if text.is_empty() => return,
            RateText::Text(text) if text == "none" => None,
            RateText::Unreadable(reason) => {
                drop(state);
                return warn!("unable to read rate from '{}': {reason}: the limit stays", file.path.display());
            }
            RateText::Text(text) => match (file.parse)(text) {
                Some(rate) => Some(rate.max(RATE_MIN)),
                None => {
                    let kept = state.rate.map_or_else(|| "none".to_owned(), |rate| format!("{rate} bytes per second"));
                    let path = file.path.display();
                    drop(state);
                    return warn!("'{path}' does not contain a rate, such as 50MiB, or none: the limit stays {kept}");
                }
            },
        };
        let now = self.clock.now();
        state.change(now, |state| state.rate = rate);
        drop(state);
        let shown = rate.map_or_else(|| "unlimited".to_owned(), |rate| format!("{rate} bytes per second"));
        crate::info!("rate is now {shown}");
    }
}

impl LimitState {
    fn current(&self) -> Option<u64> {
        match (self.rate, self.eased) {
            (Some(rate), Some(eased)) => Some(rate.min(eased)),
            (rate, eased) => rate.or(eased),
        }
    }

    /// Changes the rate. What is counted already takes as long as at the new one.
    fn change(&mut self, now: Duration, change: impl FnOnce(&mut Self)) {
        let before = self.current();
        change(self);
        self.used_until = at_rate(self.used_until, now, before, self.current());
    }
}

/// Returns when bytes are due after a change of the rate, that were due at this time.
fn at_rate(due: Duration, now: Duration, before: Option<u64>, after: Option<u64>) -> Duration {
    match (before, after) {
        (Some(before), Some(after)) if due > now => {
            let nanoseconds = (due - now).as_nanos().saturating_mul(before.into()) / u128::from(after.max(1));
            now + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
        }
        (_, None) => due.min(now),
        _ => due,
    }
}

/// What a look at the file found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RateText {
    /// There is no file.
    Absent,
    /// Its text, without white space around it.
    Text(String),
    /// Why it can't be read. A limit does not end because of that.
    Unreadable(String),
}

impl RateText {
    fn read(path: &std::path::Path) -> Self {
        // The open of a pipe would wait for a writer, and all workers with it
        let open = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path);
        let mut text = String::new();
        let read = open.and_then(|file| match file.metadata()?.is_file() {
            true => file.take(FILE_SIZE_MAX).read_to_string(&mut text),
            false => Err(io::Error::other("it is not a regular file")),
        });
        match read {
            Ok(_) => RateText::Text(text.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => RateText::Absent,
            Err(error) => RateText::Unreadable(system_text(&error)),
        }
    }
}

fn time_of(bytes: u64, rate: u64) -> Duration {
    // A rate of 0 never gets here
    let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

/// The pace of a worker: a limit that it shares, or none, which costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Pace(Option<Arc<RateLimit>>);

impl Pace {
    /// No limit.
    pub const FREE: Pace = Pace(None);

    /// Keeps to this limit.
    pub fn new(limit: Arc<RateLimit>) -> Self {
        Pace(Some(limit))
    }

    /// The limit.
    pub(crate) fn limit(&self) -> Option<&Arc<RateLimit>> {
        self.0.as_ref()
    }

    /// Waits as long as the limit requires after so many bytes. Returns early once the token is cancelled.
    pub fn after(&self, bytes: u64, cancel: &CancelToken) {
        if let Some(limit) = &self.0
            && bytes > 0
        {
            limit.after(bytes, cancel);
        }
    }

    /// Returns whether the next bytes are due.
    pub(crate) fn is_due(&self) -> bool {
        self.0.as_ref().is_none_or(|limit| limit.is_due())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A clock that moves only when somebody sleeps, and then by more than was asked for, as real ones do.
    #[derive(Clone, Default)]
    pub(in super::super) struct FakeClock(Arc<Mutex<Duration>>);

    impl FakeClock {
        pub(in super::super) fn add(&self, time: Duration) {
            *self.0.lock().unwrap() += time;
        }
    }

    impl Clock for FakeClock {
        fn now(&self) -> Duration {
            *self.0.lock().unwrap()
        }

        fn sleep(&self, time: Duration) {
            self.add(time + Duration::from_millis(3));
        }
    }

    fn limit(rate: Option<u64>) -> (RateLimit, FakeClock) {
        let clock = FakeClock::default();
        (RateLimit::with_clock(rate, Box::new(clock.clone())), clock)
    }

    /// Passes so many bytes in pieces of this size, each of which takes some time itself. Returns the rate.
    fn pass(limit: &RateLimit, clock: &FakeClock, bytes: u64, piece: u64, work: Duration) -> u64 {
        let begun = clock.now();
        for _ in 0..bytes / piece {
            clock.add(work);
            limit.after(piece, &CancelToken::new());
        }
        u64::try_from(u128::from(bytes) * 1000 / (clock.now() - begun).as_millis()).unwrap()
    }

    #[track_caller]
    fn is_near(rate: u64, wanted: u64) {
        assert!(rate.abs_diff(wanted) * 20 <= wanted, "{rate} bytes per second instead of {wanted}");
    }

    #[test]
    fn rate_is_kept_within_a_twentieth_for_all_sizes_of_pieces() {
        for rate in [MIB, 7 * MIB, 100 * MIB, 3000 * MIB] {
            for piece in [512, 8 << 10, 256 << 10, 4 * MIB] {
                let (limit, clock) = limit(Some(rate));
                // Ten seconds
                let bytes = (rate * 10 / piece).min(100_000) * piece;
                if bytes >= rate {
                    is_near(pass(&limit, &clock, bytes, piece, Duration::ZERO), rate);
                }
            }
        }
    }

    #[test]
    fn time_of_the_work_itself_counts() {
        let (limit, clock) = limit(Some(10 * MIB));
        is_near(pass(&limit, &clock, 200 * MIB, MIB, Duration::from_millis(90)), 10 * MIB);
        // Work that is slower than the limit is not held up
        is_near(pass(&limit, &clock, 20 * MIB, MIB, Duration::from_millis(200)), 5 * MIB);
    }

    #[test]
    fn pause_is_not_made_up_for_by_a_burst() {
        let (limit, clock) = limit(Some(10 * MIB));
        pass(&limit, &clock, 10 * MIB, MIB, Duration::ZERO);
        clock.add(Duration::from_secs(3600));
        is_near(pass(&limit, &clock, 100 * MIB, MIB, Duration::ZERO), 10 * MIB);
    }

    #[test]
    fn threads_share_the_rate() {
        let limit = Arc::new(RateLimit::new(Some(40 * MIB)));
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let pace = Pace::new(Arc::clone(&limit));
                scope.spawn(move || (0..16).for_each(|_| pace.after(256 << 10, &CancelToken::new())));
            }
        });
        // 16 MiB at 40 MiB a second; a busy machine only makes it slower
        assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
        assert_eq!(limit.bytes(), 16 * MIB);
    }

    #[test]
    fn lower_of_both_rates_counts_while_the_server_suffers() {
        let (limit, clock) = limit(Some(20 * MIB));
        limit.ease(Some(2 * MIB));
        is_near(pass(&limit, &clock, 20 * MIB, 256 << 10, Duration::ZERO), 2 * MIB);
        limit.ease(Some(90 * MIB));
        is_near(pass(&limit, &clock, 200 * MIB, 256 << 10, Duration::ZERO), 20 * MIB);
        limit.ease(None);
        is_near(pass(&limit, &clock, 200 * MIB, 256 << 10, Duration::ZERO), 20 * MIB);
    }

    #[test]
    fn rate_in_a_file_replaces_the_configured_one_while_the_command_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rate");
        let parse: ParseRate = |text| text.strip_suffix("MiB")?.parse::<u64>().ok().map(|number| number * MIB);
        let (limit, clock) = limit(Some(10 * MIB));
        let limit = limit.with_file(path.clone(), parse);
        let rate = |text: Option<&str>, wanted: u64| {
            match text {
                Some(text) => std::fs::write(&path, text).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            clock.add(FILE_INTERVAL);
            is_near(pass(&limit, &clock, wanted * 10, 64 << 10, Duration::ZERO), wanted);
        };
        rate(Some("40MiB\n"), 40 * MIB);
        rate(Some("3MiB"), 3 * MIB);
        // A rate that can't be read changes nothing
        rate(Some("fast"), 3 * MIB);
        // Somebody empties it to write it
        rate(Some(""), 3 * MIB);
        rate(Some("0MiB"), RATE_MIN);
        rate(None, 10 * MIB);
        std::fs::write(&path, "none\n").unwrap();
        clock.add(FILE_INTERVAL);
        let before = clock.now();
        limit.after(1 << 40, &CancelToken::new());
        assert_eq!(clock.now(), before);
    }

    #[test]
    fn raised_rate_is_noticed_by_a_thread_that_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rate");
        let (limit, clock) = limit(Some(RATE_MIN));
        let limit = limit.with_file(path.clone(), |text| text.parse().ok());
        clock.add(FILE_INTERVAL);
        // Looks while there is no file, which comes while the next bytes wait for a hundred seconds
        limit.after(1, &CancelToken::new());
        std::fs::write(&path, (100 * MIB).to_string()).unwrap();
        let before = clock.now();
        limit.after(100 * RATE_MIN, &CancelToken::new());
        let took = clock.now() - before;
        assert!(took < Duration::from_secs(3), "{took:?}");
        // Nothing is left of the lower rate
        is_near(pass(&limit, &clock, 500 * MIB, 1 << 20, Duration::ZERO), 100 * MIB);
        // A lower one counts for bytes that wait, too
        std::fs::write(&path, RATE_MIN.to_string()).unwrap();
        let before = clock.now();
        limit.after(1000 * MIB, &CancelToken::new());
        assert!(clock.now() - before > Duration::from_secs(800));
    }

    #[test]
    fn pipe_as_the_file_of_a_rate_does_not_hold_up_workers_nor_ends_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("rate");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(RateText::read(&pipe), RateText::Unreadable("it is not a regular file".to_owned()));
        assert!(matches!(RateText::read(dir.path()), RateText::Unreadable(_)));
        assert_eq!(RateText::read(&dir.path().join("none")), RateText::Absent);
        let bytes = dir.path().join("bytes");
        std::fs::write(&bytes, b"\xff").unwrap();
        for path in [pipe, bytes] {
            let (limit, clock) = limit(Some(10 * MIB));
            let limit = limit.with_file(path, |_| None);
            clock.add(FILE_INTERVAL);
            is_near(pass(&limit, &clock, 100 * MIB, 64 << 10, Duration::ZERO), 10 * MIB);
        }
    }

    #[test]
    fn cancelled_command_does_not_wait() {
        let (limit, clock) = limit(Some(RATE_MIN));
        let cancel = CancelToken::new();
        cancel.cancel();
        limit.after(1 << 40, &cancel);
        assert_eq!(clock.now(), Duration::ZERO);
        assert!(!limit.is_due());
    }

    #[test]
    fn pace_without_a_limit_never_waits() {
        Pace::FREE.after(u64::MAX, &CancelToken::new());
        assert!(Pace::default().is_due());
    }
}
