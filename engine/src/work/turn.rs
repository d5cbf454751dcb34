//! A scheduler that limits how many threads compute at the same time, and decides their order.
//!
//! `process-max` is the limit. A thread has nothing to do while it waits for a request over a network, so a remote
//! repository gets more threads than the limit. A thread computes only while it holds a slot, and releases the slot
//! while it waits. Short work goes first, because it soon waits for the server again. Long work follows in the order in
//! which it began, because the largest jobs begin first and should not be left at the end. If slots are free, a thread
//! with much to do can borrow helpers ([`borrow`]). For work that would otherwise be left at the end, it can keep
//! others from computing ([`reserve`]).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

thread_local! {
    /// The slot that this thread holds.
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// A number of slots. Computing takes one.
#[derive(Debug)]
pub(crate) struct Slots(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    count: usize,
    free: usize,
    /// Slots that are reserved for helpers, and how many of those others still use.
    reserved: usize,
    owed: usize,
    /// Helpers of computing threads. They never keep a thread from its slot, so for a short time more threads than the
    /// limit may compute.
    borrowed: usize,
    /// The number of pieces of work begun so far.
    begun: u64,
    waiting: BTreeMap<Turn, Arc<Waiter>>,
}

/// The position in the order in which slots are granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    long: bool,
    /// Its number in the order in which work was begun.
    begun: u64,
}

/// A thread that waits for a slot.
#[derive(Debug)]
struct Waiter {
    thread: Thread,
    /// Whether a slot was granted to the thread.
    granted: AtomicBool,
}

/// A slot, and for what.
#[derive(Clone, Debug)]
struct Held {
    slots: Arc<Slots>,
    turn: Turn,
}

impl Slots {
    /// Creates a number of free slots.
    pub fn new(count: u32) -> Arc<Self> {
        let count = usize::try_from(count.max(1)).unwrap_or(usize::MAX);
        Arc::new(Slots(Mutex::new(State { count, free: count, ..State::default() })))
    }

    /// Waits for a slot and computes with it.
    pub fn run<R>(self: &Arc<Self>, work: impl FnOnce() -> R) -> R {
        let begun = {
            let mut state = self.state();
            state.begun += 1;
            state.begun
        };
        let turn = Turn { long: false, begun };
        self.take(turn);
        hold(Held { slots: Arc::clone(self), turn });
        let _guard = Guard;
        work()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot, at once or when the turn has come.
    fn take(&self, turn: Turn) {
        let waiter = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return;
            }
            let waiter = Arc::new(Waiter { thread: std::thread::current(), granted: AtomicBool::new(false) });
            state.waiting.insert(turn, Arc::clone(&waiter));
            waiter
        };
        while !waiter.granted.load(Ordering::Acquire) {
            std::thread::park();
        }
    }

    fn give_back(&self) {
        let next = {
            let mut state = self.state();
            let owed = state.owed > 0;
            match state.waiting.first_entry() {
                Some(first) if !owed || !first.key().long => Some(first.remove()),
                _ if owed => {
                    state.owed -= 1;
                    None
                }
                _ => {
                    state.free += 1;
                    None
                }
            }
        };
        if let Some(next) = next {
            next.granted.store(true, Ordering::Release);
            next.thread.unpark();
        }
    }
}

fn hold(held: Held) {
    HELD.with(|kept| *kept.borrow_mut() = Some(held));
}

fn let_go() -> Option<Held> {
    HELD.with(|kept| kept.borrow_mut().take())
}

/// Releases the thread's slot when it is dropped, even in a panic.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(held) = let_go() {
            held.slots.give_back();
        }
    }
}

/// Waits for something that needs no processor, and releases the thread's slot meanwhile.
pub fn waiting<R>(wait: impl FnOnce() -> R) -> R {
    let Some(held) = let_go() else { return wait() };
    held.slots.give_back();
    let result = wait();
    held.slots.take(held.turn);
    hold(held);
    result
}

/// Declares that the thread's work takes long, and yields to others.
pub(crate) fn takes_long() {
    HELD.with(|kept| {
        if let Some(held) = kept.borrow_mut().as_mut() {
            held.turn.long = true;
        }
    });
    give_way();
}

/// Yields the compute slot to threads with an earlier turn. Long computations call this now and then.
pub(crate) fn give_way() {
    HELD.with(|kept| {
        let kept = kept.borrow();
        let Some(Held { slots, turn }) = kept.as_ref() else { return };
        if slots.state().waiting.first_key_value().is_some_and(|(first, _)| first < turn) {
            slots.give_back();
            slots.take(*turn);
        }
    });
}

/// Borrows up to `wanted` helpers for the thread, if slots are free.
pub fn borrow(wanted: usize) -> Borrowed {
    let slots = HELD.with(|kept| Some(Arc::clone(&kept.borrow().as_ref()?.slots)));
    let taken = slots.as_ref().map_or(0, |slots| {
        let mut state = slots.state();
        let taken = wanted.min(state.free.saturating_sub(state.borrowed));
        state.borrowed += taken;
        taken
    });
    Borrowed { slots, taken }
}

/// Reserves up to `wanted` slots for helpers of the thread: free slots at once, then slots that others release, unless
/// short work waits. One slot always remains for each thread that reserves.
pub(crate) fn reserve(wanted: usize) -> Reserved {
    let slots = HELD.with(|kept| Some(Arc::clone(&kept.borrow().as_ref()?.slots)));
    let count = slots.as_ref().map_or(0, |slots| {
        let mut state = slots.state();
        let count = wanted.min(state.count.saturating_sub(state.reserved + 1));
        let now = count.min(state.free);
        state.free -= now;
        state.owed += count - now;
        state.reserved += count;
        count
    });
    Reserved { slots, count }
}

/// Slots reserved for helpers of a thread. Dropping this releases them.
#[derive(Debug)]
pub(crate) struct Reserved {
    slots: Option<Arc<Slots>>,
    count: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let Some(slots) = &self.slots else { return };
        let in_use = {
            let mut state = slots.state();
            let owed = self.count.min(state.owed);
            state.owed -= owed;
            state.reserved -= self.count;
            self.count - owed
        };
        (0..in_use).for_each(|_| slots.give_back());
    }
}

/// Helpers borrowed by a thread. Dropping this releases them.
#[derive(Debug)]
pub struct Borrowed {
    slots: Option<Arc<Slots>>,
    taken: usize,
}

impl Borrowed {
    /// Returns the number of helpers.
    pub fn taken(&self) -> usize {
        self.taken
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(slots) = &self.slots {
            slots.state().borrowed -= self.taken;
        }
    }
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
        // With one slot, this ends only if all four wait at the same time
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

    #[test]
    fn short_work_goes_first_and_then_what_was_begun_first() {
        let (slots, order) = (Slots::new(1), Mutex::new(Vec::new()));
        let note = |name| order.lock().unwrap().push(name);
        let waits = |count| {
            while slots.state().waiting.len() < count {
                std::thread::yield_now();
            }
        };
        std::thread::scope(|scope| {
            slots.run(|| {
                let work = |name: &'static str, long| {
                    let (slots, note) = (&slots, &note);
                    scope.spawn(move || {
                        slots.run(|| {
                            if long {
                                takes_long();
                            }
                            note(name);
                        });
                    });
                };
                work("second", true);
                waits(1);
                work("third", true);
                waits(2);
                work("short", false);
                waits(3);
                // Later work still counts as short, so all of it comes before this continues
                takes_long();
                note("first");
                give_way();
                note("first, again");
            });
        });
        assert_eq!(order.into_inner().unwrap(), ["short", "first", "first, again", "second", "third"]);
    }

    #[test]
    fn reserved_slots_are_kept_from_long_work_as_they_become_free() {
        let slots = Slots::new(3);
        let (reached, go_on) = (Barrier::new(2), Barrier::new(2));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                slots.run(|| {
                    reached.wait();
                    go_on.wait();
                });
            });
            slots.run(|| {
                reached.wait();
                let reserved = reserve(9);
                let state = || {
                    let state = slots.state();
                    (state.free, state.owed, state.reserved)
                };
                assert_eq!(state(), (0, 1, 2), "one was free, one is in use, and this thread has its own");
                // Nothing is left for another thread
                assert_eq!(reserve(1).count, 0);
                go_on.wait();
                while state() != (0, 0, 2) {
                    std::thread::yield_now();
                }
                // A waiting thread gets its own slot back, and short work comes in between
                waiting(|| ());
                scope.spawn(|| slots.run(|| assert!(slots.state().waiting.len() == 1)));
                while slots.state().waiting.is_empty() {
                    std::thread::yield_now();
                }
                takes_long();
                drop(reserved);
                assert_eq!(state(), (2, 0, 0));
            });
        });
        assert_eq!(slots.state().free, 3);
    }

    #[test]
    fn helpers_are_the_slots_that_nobody_uses() {
        let slots = Slots::new(3);
        assert_eq!(borrow(3).taken(), 0);
        slots.run(|| {
            let rest = borrow(5);
            assert_eq!((rest.taken(), borrow(1).taken()), (2, 0));
            std::thread::scope(|scope| {
                // A helper keeps no thread from its slot, and a waiting thread keeps none
                scope.spawn(|| slots.run(|| assert_eq!(waiting(|| borrow(1).taken()), 0)));
            });
            drop(rest);
            assert_eq!(borrow(1).taken(), 1);
        });
        let state = slots.state();
        assert_eq!((state.free, state.borrowed), (3, 0));
    }
}
