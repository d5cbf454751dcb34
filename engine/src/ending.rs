//! What a process that was told to end still has under way.
//!
//! A signal cancels the command's [`CancelToken`](crate::CancelToken); the command then ends by itself. Where it waits for a
//! server that does not answer, the program ends it after a short while, which loses nothing: every state of a repository is one
//! to go on from. What is worth waiting for says so here.

use std::sync::atomic::{AtomicUsize, Ordering};

static SAVING: AtomicUsize = AtomicUsize::new(0);
static CLEANING: AtomicUsize = AtomicUsize::new(0);

/// Work that is under way until this is dropped.
#[must_use = "the work counts as done when this is dropped"]
#[derive(Debug)]
pub struct UnderWay(&'static AtomicUsize);

impl UnderWay {
    fn begin(count: &'static AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        UnderWay(count)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Hours of work would be lost or undone if the process ended now: it goes on, however long that takes.
pub fn saving() -> UnderWay {
    UnderWay::begin(&SAVING)
}

/// Something would be left over that costs money: the process waits a while for it to be removed.
pub fn cleaning() -> UnderWay {
    UnderWay::begin(&CLEANING)
}

/// Whether something is being saved.
pub fn is_saving() -> bool {
    SAVING.load(Ordering::SeqCst) > 0
}

/// Whether something is to be removed.
pub fn is_cleaning() -> bool {
    CLEANING.load(Ordering::SeqCst) > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_under_way_until_the_last_part_is_done() {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let (first, second) = (UnderWay::begin(&COUNT), UnderWay::begin(&COUNT));
        drop(first);
        assert_eq!(COUNT.load(Ordering::SeqCst), 1);
        drop(second);
        assert_eq!(COUNT.load(Ordering::SeqCst), 0);
    }
}
