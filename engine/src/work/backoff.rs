//! Pauses between tries of something that depends on others.

use std::time::{Duration, Instant};

use crate::{CancelToken, Result};

/// How long to pause between tries, and when to give up.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first pause. Without it there is only one try.
    pub first: Duration,
    /// The longest pause.
    pub max: Duration,
    /// How the pauses grow.
    pub growth: Growth,
    /// No try begins later than this after the first one, except for [`Backoff::tries_min`].
    pub limit: Duration,
    /// The number of tries that are made even if a single try takes longer than the limit.
    pub tries_min: u32,
}

/// How pauses grow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Growth {
    /// Every pause is as long as the first.
    Constant,
    /// Each pause is this many times as long as the one before it.
    Times(f64),
    /// Each pause is random, between the first one and this many times the one before it. Clients that a server
    /// refuses at the same time then do not return at the same time.
    Random(f64),
    /// Each pause is the sum of the two before it.
    Sum,
}

impl Backoff {
    /// Returns pgBackRest's pauses for a wait of this length (`src/common/wait.c`). The first is a tenth of the time, at
    /// most 100 ms. Without time there is only one try.
    pub(crate) fn polling(limit: Duration) -> Self {
        let first = (limit / 10).min(Duration::from_millis(100));
        Backoff { first, max: limit, growth: Growth::Sum, limit, tries_min: 3 }
    }

    /// Starts the clock. The first try follows, or is under way.
    pub fn start(self) -> Pauses {
        Pauses { backoff: self, begun: Instant::now(), tries: 1, next: self.first, before: Duration::ZERO }
    }
}

/// The pauses between the tries of one thing.
#[derive(Debug)]
pub struct Pauses {
    backoff: Backoff,
    begun: Instant,
    tries: u32,
    next: Duration,
    before: Duration,
}

impl Pauses {
    /// Pauses after an unsuccessful try. Returns `false` if it is time to give up.
    ///
    /// # Errors
    /// The token was cancelled meanwhile.
    pub fn wait(&mut self, cancel: &CancelToken) -> Result<bool> {
        cancel.check()?;
        match self.after(self.begun.elapsed()) {
            Some(pause) => cancel.sleep(pause).map(|()| true),
            None => Ok(false),
        }
    }

    /// Does the same in asynchronous code, which is cancelled by dropping it.
    pub(crate) async fn wait_async(&mut self) -> bool {
        let pause = self.after(self.begun.elapsed());
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
        pause.is_some()
    }

    /// Returns the next pause after a try that ended this long after the start.
    fn after(&mut self, elapsed: Duration) -> Option<Duration> {
        let left = self.backoff.limit.saturating_sub(elapsed);
        if self.next.is_zero() || (left.is_zero() && self.tries >= self.backoff.tries_min) {
            return None;
        }
        self.tries += 1;
        let pause = if left.is_zero() { self.next } else { self.next.min(left) };
        let next = self.backoff.growth.next(self.backoff.first, self.before, self.next);
        (self.before, self.next) = (self.next, next.min(self.backoff.max));
        Some(pause)
    }
}

impl Growth {
    fn next(self, first: Duration, before: Duration, last: Duration) -> Duration {
        match self {
            Growth::Constant => first,
            Growth::Times(factor) => last.mul_f64(factor),
            Growth::Random(factor) => {
                // Without random bytes all wait for the maximum
                let chance = getrandom::u32().map_or(1.0, |number| f64::from(number) / f64::from(u32::MAX));
                first + last.mul_f64(factor).saturating_sub(first).mul_f64(chance)
            }
            Growth::Sum => before + last,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Returns the pauses in milliseconds if the tries themselves take this long each.
    fn pauses(backoff: Backoff, try_ms: u32) -> Vec<u128> {
        let mut pauses = backoff.start();
        let mut elapsed = try_ms * MS;
        let mut all = Vec::new();
        while let Some(pause) = pauses.after(elapsed) {
            elapsed += pause + try_ms * MS;
            all.push(pause.as_millis());
        }
        all
    }

    #[test]
    fn pauses_of_each_growth_end_at_the_limit() {
        let of = |growth| Backoff { first: 100 * MS, max: 400 * MS, growth, limit: 1000 * MS, tries_min: 0 };
        assert_eq!(pauses(of(Growth::Constant), 0), [100; 10]);
        assert_eq!(pauses(of(Growth::Times(2.0)), 0), [100, 200, 400, 300]);
        assert_eq!(pauses(of(Growth::Sum), 0), [100, 100, 200, 300, 300]);
    }

    #[test]
    fn polling_without_time_is_one_try_and_with_slow_tries_at_least_three() {
        assert_eq!(pauses(Backoff::polling(Duration::ZERO), 0), [0; 0]);
        assert_eq!(pauses(Backoff::polling(60 * MS), 0), [6, 6, 12, 18, 18]);
        assert_eq!(pauses(Backoff::polling(60 * MS), 500), [6, 6]);
        let unhurried = Backoff { tries_min: 0, ..Backoff::polling(60 * MS) };
        assert_eq!(pauses(unhurried, 500), [0; 0]);
    }

    #[test]
    fn random_pauses_grow_within_bounds_and_differ() {
        let (first, last) = (100 * MS, 1000 * MS);
        let drawn: Vec<Duration> = (0..100).map(|_| Growth::Random(3.0).next(first, Duration::ZERO, last)).collect();
        assert!(drawn.iter().all(|pause| (first..=3 * last).contains(pause)), "{drawn:?}");
        assert!(drawn.iter().any(|pause| *pause != drawn[0]));
        let backoff =
            Backoff { first, max: 500 * MS, growth: Growth::Random(3.0), limit: 3_600_000 * MS, tries_min: 0 };
        assert!(pauses(backoff, 0).iter().all(|pause| *pause <= 500));
    }

    #[test]
    fn wait_that_is_cancelled_is_an_error() {
        let cancel = CancelToken::new();
        let mut pauses = Backoff::polling(Duration::from_secs(3600)).start();
        cancel.cancel();
        assert!(pauses.wait(&cancel).is_err());
        assert!(!Backoff::polling(Duration::ZERO).start().wait(&CancelToken::new()).unwrap());
    }
}
