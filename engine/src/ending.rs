//! Work that a process must complete although it was told to end.
//!
//! A signal cancels the command's [`CancelToken`](crate::CancelToken), and the command ends by itself. If it waits for
//! a server that does not answer, the program ends it after a short while. That loses nothing, because a later run can
//! continue from every state of a repository. Work that is worth waiting for registers here.

use std::sync::atomic::{AtomicUsize, Ordering};

static SAVING: AtomicUsize = AtomicUsize::new(0);
static CLEANING: AtomicUsize = AtomicUsize::new(0);

/// Work in progress until this value is dropped.
#[must_use = "the work counts as done when this is dropped"]
#[derive(Debug)]
pub(crate) struct UnderWay(&'static AtomicUsize);

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

/// Registers work that would be lost or undone if the process ended now. The process waits for it without a limit.
pub(crate) fn saving() -> UnderWay {
    UnderWay::begin(&SAVING)
}

/// Registers the removal of something that costs money. The process waits a while for it.
pub(crate) fn cleaning() -> UnderWay {
    UnderWay::begin(&CLEANING)
}

/// Returns whether something is being saved.
pub fn is_saving() -> bool {
    SAVING.load(Ordering::SeqCst) > 0
}

/// Returns whether something is being removed.
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
