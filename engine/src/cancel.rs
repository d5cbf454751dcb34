//! Cancellation: one token per command, set by a signal or by the first error that ends a group of jobs.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use crate::{Error, ErrorCode, Result};

/// Value of a token that an error cancelled. A positive value is the number of the signal that cancelled it.
const BY_ERROR: i32 = -1;

/// The maximum time until a sleeping thread notices the cancellation.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Tells whether to continue. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct CancelToken {
    state: Arc<AtomicI32>,
    parent: Option<Arc<CancelToken>>,
}

impl CancelToken {
    /// A token that nothing cancelled yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a token that is cancelled when this one is, and can be cancelled alone.
    #[must_use]
    pub fn child(&self) -> Self {
        CancelToken { state: Arc::default(), parent: Some(Arc::new(self.clone())) }
    }

    /// Cancels because of an error that is reported elsewhere.
    pub fn cancel(&self) {
        self.set(BY_ERROR);
    }

    /// Cancels because of a signal. Only stores a number, so a signal handler may call it.
    pub fn cancel_by_signal(&self, signal: i32) {
        self.set(signal);
    }

    fn set(&self, value: i32) {
        // The first reason stays
        let _ = self.state.compare_exchange(0, value, Ordering::SeqCst, Ordering::SeqCst);
    }

    fn value(&self) -> i32 {
        match self.state.load(Ordering::SeqCst) {
            0 => self.parent.as_ref().map_or(0, |parent| parent.value()),
            value => value,
        }
    }

    /// Returns whether to stop.
    pub fn is_cancelled(&self) -> bool {
        self.value() != 0
    }

    /// The signal that cancelled, if one did.
    pub fn signal(&self) -> Option<i32> {
        Some(self.value()).filter(|value| *value > 0)
    }

    /// Returns an error once cancelled.
    ///
    /// # Errors
    /// [`ErrorCode::Term`], with the signal's name if a signal cancelled it.
    pub fn check(&self) -> Result<()> {
        match self.value() {
            0 => Ok(()),
            BY_ERROR => Err(Error::new(ErrorCode::Term, "stopped after the error of another job")),
            signal => {
                // The three signals that pgBackRest handles; no others are installed
                let name = match signal {
                    1 => "SIGHUP".to_owned(),
                    2 => "SIGINT".to_owned(),
                    15 => "SIGTERM".to_owned(),
                    other => other.to_string(),
                };
                Err(Error::new(ErrorCode::Term, format!("terminated on signal {name}")))
            }
        }
    }

    /// Sleeps until the time is over or the token is cancelled.
    ///
    /// # Errors
    /// The same as [`CancelToken::check`].
    pub fn sleep(&self, duration: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            self.check()?;
            let left = duration.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(POLL_INTERVAL));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn child_cancelled_leaves_parent_running() {
        let parent = CancelToken::new();
        let child = parent.child();
        child.cancel();
        assert!(child.is_cancelled());
        assert!(!parent.is_cancelled());
    }

    #[test]
    fn parent_cancelled_by_signal_names_it_in_child() {
        let parent = CancelToken::new();
        let child = parent.child().child();
        parent.cancel_by_signal(15);
        parent.cancel();
        let error = child.check().unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Term, "terminated on signal SIGTERM"));
        assert_eq!(child.signal(), Some(15));
    }

    #[test]
    fn sleep_ends_early_when_cancelled() {
        let token = CancelToken::new();
        token.cancel();
        let start = Instant::now();
        assert!(token.sleep(Duration::from_secs(60)).is_err());
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(CancelToken::new().sleep(Duration::from_millis(1)).is_ok());
    }
}
