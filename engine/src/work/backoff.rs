//! Waits for an external event with growing pauses.

use std::time::{Duration, Instant};

use crate::{CancelToken, Result};

/// The minimum number of polls, even if a single poll takes longer than the allowed time.
const ATTEMPTS_MIN: u32 = 3;

/// Decides after each unsuccessful poll whether to poll again. The pauses are pgBackRest's (`src/common/wait.c`): the
/// first is a tenth of the time, at most 100 ms, then each is the sum of the two before it.
#[derive(Debug)]
pub struct Wait {
    begin: Instant,
    limit: Duration,
    pause: Duration,
    pause_before: Duration,
    attempts: u32,
}

impl Wait {
    /// Starts to wait, up to `limit`. With zero there is only one poll.
    pub fn new(limit: Duration) -> Self {
        Wait {
            begin: Instant::now(),
            limit,
            pause: (limit / 10).min(Duration::from_millis(100)),
            pause_before: Duration::ZERO,
            attempts: 1,
        }
    }

    /// Pauses and returns whether to poll again.
    ///
    /// # Errors
    /// The token was cancelled meanwhile.
    pub fn more(&mut self, cancel: &CancelToken) -> Result<bool> {
        cancel.check()?;
        let left = self.limit.saturating_sub(self.begin.elapsed());
        if self.pause.is_zero() || (left.is_zero() && self.attempts >= ATTEMPTS_MIN) {
            return Ok(false);
        }
        self.attempts += 1;
        cancel.sleep(if left.is_zero() { self.pause } else { self.pause.min(left) })?;
        (self.pause, self.pause_before) = (self.pause + self.pause_before, self.pause);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_of_zero_looks_once() {
        assert!(!Wait::new(Duration::ZERO).more(&CancelToken::new()).unwrap());
    }

    #[test]
    fn wait_ends_soon_after_its_limit() {
        let cancel = CancelToken::new();
        let start = Instant::now();
        let mut wait = Wait::new(Duration::from_millis(60));
        let mut looks = 1;
        while wait.more(&cancel).unwrap() {
            looks += 1;
        }
        assert!(start.elapsed() >= Duration::from_millis(60));
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!((ATTEMPTS_MIN..12).contains(&looks), "{looks}");
    }
}
