//! Asks what may hang, in threads that are left behind if they do.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::{Error, ErrorCode, Result};

use crate::config::{Config, IndexGroup};

/// How long a repository may take that has not answered for another stanza.
const SILENT_MAX: Duration = Duration::from_secs(2);

/// A question that a thread asks.
pub(super) struct Asked<T> {
    receiver: Receiver<Result<T>>,
    since: Instant,
}

impl<T: Send + 'static> Asked<T> {
    /// Begins to ask.
    pub(super) fn new(work: impl FnOnce() -> Result<T> + Send + 'static) -> Self {
        let (sender, receiver) = channel();
        let of_thread = sender.clone();
        let run = move || {
            // Nobody may wait any more
            let _ = of_thread.send(work());
        };
        if let Err(error) = std::thread::Builder::new().spawn(run) {
            let _ = sender.send(Err(Error::from_io(ErrorCode::Kernel, "unable to start a thread", error)));
        }
        Asked { receiver, since: Instant::now() }
    }

    /// Returns the answer; `None` if there is none so long after the question.
    pub(super) fn answer(self, limit: Duration) -> Option<Result<T>> {
        let rest = limit.saturating_sub(self.since.elapsed());
        match self.receiver.recv_timeout(rest) {
            Ok(answer) => Some(answer),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => None,
            // A panic, which was reported
            Err(_) => Some(Err(Error::new(ErrorCode::Assert, "a part of the collection ended without a result"))),
        }
    }

    /// The same with an error instead of `None`.
    ///
    /// # Errors
    /// [`ErrorCode::HostConnect`] if it takes too long, and those of the work.
    pub(super) fn within(self, limit: Duration) -> Result<T> {
        self.answer(limit).unwrap_or_else(|| Err(no_answer(limit)))
    }
}

/// The error of what did not answer in time.
pub(super) fn no_answer(limit: Duration) -> Error {
    Error::new(ErrorCode::HostConnect, format!("no answer within {} seconds", limit.as_secs()))
}

/// How long the parts of a collection may take.
#[derive(Clone)]
pub(super) struct Patience {
    /// When the collection has to be complete.
    end: Instant,
    /// Repositories that did not answer. Other stanzas do not wait for them as long.
    silent: Arc<Mutex<BTreeSet<u64>>>,
}

impl Patience {
    /// A collection that may take so long.
    pub(super) fn new(limit: Duration) -> Self {
        Patience { end: Instant::now() + limit, silent: Arc::default() }
    }

    /// Returns how long a part may take that would be given `limit`.
    pub(super) fn limit(&self, limit: Duration) -> Duration {
        limit.min(self.end.saturating_duration_since(Instant::now()))
    }

    /// The same for a repository.
    pub(super) fn limit_of(&self, repo: u64, limit: Duration) -> Duration {
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner);
        self.limit(if silent.contains(&repo) { SILENT_MAX } else { limit })
    }

    /// Notes that a repository has not answered.
    pub(super) fn note_silent(&self, repo: u64) {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner).insert(repo);
    }
}

/// Returns something that is the same for the same repository of several stanzas.
pub(super) fn identity(config: &Config, key: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (decl, of_key, _) in config.each_slot() {
        if decl.group == Some(IndexGroup::Repo) && of_key == key {
            (decl.name, config.display(decl, key)).hash(&mut hasher);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::resolved;

    #[test]
    fn repository_that_is_silent_for_one_stanza_costs_the_next_one_little() {
        let patience = Patience::new(Duration::from_secs(60));
        let config = |stanza: &str, path: &str| {
            resolved(&format!("info --stanza={stanza} --repo1-path={path} --repo2-path=/two"))
        };
        let id = |stanza: &str, path: &str, key| identity(&config(stanza, path), key);
        assert_eq!(id("a", "/one", 1), id("b", "/one", 1));
        assert_ne!(id("a", "/one", 1), id("a", "/other", 1));
        assert_ne!(id("a", "/one", 1), id("a", "/one", 2));
        patience.note_silent(id("a", "/one", 1));
        let limit = Duration::from_secs(15);
        assert_eq!(patience.limit_of(id("b", "/one", 1), limit), SILENT_MAX);
        assert_eq!(patience.limit_of(id("b", "/one", 2), limit), limit);
        // No part takes longer than the whole
        assert!(patience.limit(Duration::from_secs(100)) <= Duration::from_secs(60));
    }

    #[test]
    fn question_without_an_answer_ends_in_time() {
        let hangs = || {
            std::thread::sleep(Duration::from_secs(600));
            Ok(())
        };
        let begun = Instant::now();
        let (one, two) = (Asked::new(hangs), Asked::new(hangs));
        // Both time spans begin with the question
        assert!(one.answer(Duration::from_millis(300)).is_none() && two.answer(Duration::from_millis(300)).is_none());
        assert!(begun.elapsed() < Duration::from_secs(60));
        let error = Asked::new(hangs).within(Duration::ZERO).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::HostConnect, "no answer within 0 seconds"));
        assert_eq!(Asked::new(|| Ok(7)).within(Duration::from_secs(60)).unwrap(), 7);
        let error = Asked::<()>::new(|| panic!("no result")).within(Duration::from_secs(60)).unwrap_err();
        assert_eq!(error.code, ErrorCode::Assert);
    }
}
