//! Which processor cores have nothing to do.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the cores that no worker keeps busy, so that one worker with a large file may use them and many workers do not
/// hinder each other.
#[derive(Debug)]
pub struct CoreBudget {
    idle: AtomicUsize,
}

impl CoreBudget {
    /// A budget of `cores` cores, all idle.
    pub fn new(cores: usize) -> Self {
        CoreBudget { idle: AtomicUsize::new(cores) }
    }

    /// Takes one core for a worker that has something to do, even if none is idle: a worker is never kept waiting.
    pub fn enter(&self) -> CoreGuard<'_> {
        self.take(1)
    }

    /// Takes up to `wanted` idle cores; the guard says how many.
    pub fn borrow(&self, wanted: usize) -> CoreGuard<'_> {
        self.take(wanted)
    }

    fn take(&self, wanted: usize) -> CoreGuard<'_> {
        let mut taken = 0;
        // The closure always answers Some, so the update can't fail
        let _ = self.idle.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |idle| {
            taken = wanted.min(idle);
            Some(idle - taken)
        });
        CoreGuard { budget: self, taken }
    }
}

/// Cores taken from a [`CoreBudget`], given back on drop.
#[derive(Debug)]
pub struct CoreGuard<'a> {
    budget: &'a CoreBudget,
    taken: usize,
}

impl CoreGuard<'_> {
    /// How many cores were idle and are taken now.
    pub fn taken(&self) -> usize {
        self.taken
    }
}

impl Drop for CoreGuard<'_> {
    fn drop(&mut self) {
        self.budget.idle.fetch_add(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borrow_takes_only_idle_cores_and_gives_them_back() {
        let budget = CoreBudget::new(3);
        let worker = budget.enter();
        let rest = budget.borrow(5);
        assert_eq!((worker.taken(), rest.taken()), (1, 2));
        // More workers than cores: they run, but hold nothing
        let second = budget.enter();
        assert_eq!((second.taken(), budget.borrow(1).taken()), (0, 0));
        drop(rest);
        drop(second);
        drop(worker);
        assert_eq!(budget.borrow(5).taken(), 3);
    }
}
