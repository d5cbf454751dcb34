//! How many threads compute at the same time, where more of them than that wait for a server.
//!
//! A request over a network takes a while in which its thread has nothing to do. So a remote repository gets more threads than
//! `process-max` asks for, but only so many of them compute at any time; whoever waits lets another one in.

use std::cell::RefCell;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

thread_local! {
    /// The slots of which this thread holds one.
    static HELD: RefCell<Option<Arc<Slots>>> = const { RefCell::new(None) };
}

/// A number of slots; computing takes one.
#[derive(Debug)]
pub struct Slots {
    free: Mutex<u32>,
    freed: Condvar,
}

impl Slots {
    /// So many slots, all free.
    pub fn new(count: u32) -> Arc<Self> {
        Arc::new(Slots { free: Mutex::new(count.max(1)), freed: Condvar::new() })
    }

    /// Computes with one of the slots, once it is free.
    pub fn run<R>(self: &Arc<Self>, work: impl FnOnce() -> R) -> R {
        self.take();
        let _held = Held::of(Some(Arc::clone(self)));
        work()
    }

    fn free(&self) -> MutexGuard<'_, u32> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) {
        let mut free = self.freed.wait_while(self.free(), |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
    }

    fn give_back(&self) {
        *self.free() += 1;
        self.freed.notify_one();
    }
}

/// Gives back what the thread holds when it goes out of scope, also in a panic.
struct Held;

impl Held {
    fn of(slots: Option<Arc<Slots>>) -> Self {
        HELD.with(|held| *held.borrow_mut() = slots);
        Held
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(slots) = HELD.with(|held| held.borrow_mut().take()) {
            slots.give_back();
        }
    }
}

/// Waits for something that takes no processor, meanwhile without the slot that this thread may hold.
pub fn waiting<R>(wait: impl FnOnce() -> R) -> R {
    let Some(slots) = HELD.with(|held| held.borrow_mut().take()) else { return wait() };
    slots.give_back();
    let result = wait();
    slots.take();
    HELD.with(|held| *held.borrow_mut() = Some(slots));
    result
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn no_more_threads_compute_than_there_are_slots() {
        let (slots, now, most) = (Slots::new(2), AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    slots.run(|| {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(std::time::Duration::from_millis(5));
                        now.fetch_sub(1, Ordering::SeqCst);
                    });
                });
            }
        });
        assert_eq!(most.into_inner(), 2);
    }

    #[test]
    fn who_waits_lets_another_in() {
        // With one slot, this ends only when all four wait at the same time
        let (slots, all) = (Slots::new(1), Barrier::new(4));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| slots.run(|| waiting(|| all.wait())));
            }
        });
    }

    #[test]
    fn a_panic_gives_the_slot_back() {
        let slots = Slots::new(1);
        std::thread::scope(|scope| {
            let failed = scope.spawn(|| slots.run(|| panic!("on purpose")));
            assert!(failed.join().is_err());
        });
        assert_eq!(slots.run(|| 7), 7);
    }
}
