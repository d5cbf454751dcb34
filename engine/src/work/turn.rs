//! A scheduler that limits how many threads compute at the same time, and decides their order.
//!
//! `process-max` is the limit. A thread has nothing to do while it waits for a request over a network, so a storage on a
//! server gets more threads than the limit. A thread computes only while it holds a slot, and releases the slot while it
//! waits. Short work goes first, because it soon waits for the server again. Long work follows in the order in which it
//! began, because the largest jobs begin first and should not be left at the end. If slots are free, a thread with much
//! to do can borrow helpers ([`Turn::borrow`]). For work that would otherwise be left at the end, it can keep others from
//! computing ([`Turn::reserve`]).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Thread, ThreadId};

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
    /// Slots in use that end when they are released.
    ending: usize,
    /// The number of pieces of work begun so far.
    begun: u64,
    waiting: BTreeMap<Position, Arc<Waiter>>,
}

/// The position in the order in which slots are granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
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

impl Waiter {
    fn new() -> Arc<Self> {
        Arc::new(Waiter { thread: std::thread::current(), granted: AtomicBool::new(false) })
    }

    fn wait(&self) {
        while !self.granted.load(Ordering::Acquire) {
            std::thread::park();
        }
    }

    fn grant(&self) {
        self.granted.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl Slots {
    /// Creates a number of free slots.
    pub fn new(count: u32) -> Arc<Self> {
        let count = usize::try_from(count.max(1)).unwrap_or(usize::MAX);
        Arc::new(Slots(Mutex::new(State { count, free: count, ..State::default() })))
    }

    /// Creates no slots. Each [`AddedSlot`] is one.
    pub fn none() -> Arc<Self> {
        Arc::new(Slots(Mutex::default()))
    }

    /// Adds a slot until the returned value is dropped.
    pub fn add(self: &Arc<Self>) -> AddedSlot {
        self.state().count += 1;
        self.give_back();
        AddedSlot(Arc::clone(self))
    }

    /// Creates the turn of the current thread, which does not compute yet.
    pub fn turn(self: &Arc<Self>) -> Turn {
        let owner = std::thread::current().id();
        Turn(Some(Arc::new(Owned { slots: Arc::clone(self), owner, held: Mutex::new(None) })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of free slots.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.state().free
    }

    /// Returns how many threads wait for a slot.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    fn begin(&self) -> Position {
        let mut state = self.state();
        state.begun += 1;
        Position { long: false, begun: state.begun }
    }

    /// Takes a slot, at once or when the turn has come.
    fn take(&self, position: Position) {
        let waiter = {
            let mut state = self.state();
            if state.free > 0 {
                state.free -= 1;
                return;
            }
            let waiter = Waiter::new();
            state.waiting.insert(position, Arc::clone(&waiter));
            waiter
        };
        waiter.wait();
    }

    fn give_back(&self) {
        let next = self.state().release();
        if let Some(next) = next {
            next.grant();
        }
    }

    /// Lets the threads before this position compute, and takes a slot again after them.
    fn give_way(&self, position: Position) {
        let (waiter, next) = {
            let mut state = self.state();
            if state.waiting.first_key_value().is_none_or(|(first, _)| *first > position) {
                return;
            }
            // In the queue before the slot is free, so that nobody overtakes this thread
            let waiter = Waiter::new();
            state.waiting.insert(position, Arc::clone(&waiter));
            (waiter, state.release())
        };
        if let Some(next) = next {
            next.grant();
        }
        waiter.wait();
    }
}

impl State {
    /// Frees a slot. Returns the thread that gets it, if one does.
    fn release(&mut self) -> Option<Arc<Waiter>> {
        if self.ending > 0 {
            self.ending -= 1;
            return None;
        }
        let owed = self.owed > 0;
        match self.waiting.first_entry() {
            Some(first) if !owed || !first.key().long => return Some(first.remove()),
            _ if owed => self.owed -= 1,
            _ => self.free += 1,
        }
        None
    }
}

/// A slot that was added. Dropping this ends it, at once or when the thread that has it releases it.
#[derive(Debug)]
pub(crate) struct AddedSlot(Arc<Slots>);

impl Drop for AddedSlot {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.count -= 1;
        match state.free.checked_sub(1) {
            Some(free) => state.free = free,
            None => state.ending += 1,
        }
    }
}

/// The turn of one thread to compute. Clones are the same turn.
///
/// Other threads that the owner starts have no turn: what they do with a clone neither takes nor releases a slot.
#[derive(Clone, Debug)]
pub struct Turn(Option<Arc<Owned>>);

#[derive(Debug)]
struct Owned {
    slots: Arc<Slots>,
    owner: ThreadId,
    /// For what the thread holds a slot, if it does.
    held: Mutex<Option<Position>>,
}

impl Owned {
    fn held(&self) -> MutexGuard<'_, Option<Position>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases the slot, even in a panic.
    fn end(&self) {
        if self.held().take().is_some() {
            self.slots.give_back();
        }
    }
}

/// Ends a turn when it is dropped.
struct Guard<'a>(&'a Owned);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Turn {
    /// The turn of a thread that competes with nobody: it always computes.
    pub const FREE: Self = Turn(None);

    /// The turn, if the current thread has it.
    fn owned(&self) -> Option<&Owned> {
        self.0.as_deref().filter(|owned| owned.owner == std::thread::current().id())
    }

    /// The turn and for what it was granted, if the current thread computes.
    fn computing(&self) -> Option<(&Owned, Position)> {
        let owned = self.owned()?;
        let position = *owned.held();
        Some((owned, position?))
    }

    /// Waits for a slot and computes with it.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        let Some(owned) = self.owned() else { return work() };
        let position = owned.slots.begin();
        owned.slots.take(position);
        *owned.held() = Some(position);
        let _guard = Guard(owned);
        work()
    }

    /// Waits for something that needs no processor, and releases the slot meanwhile.
    pub fn waiting<R>(&self, wait: impl FnOnce() -> R) -> R {
        let Some((owned, position)) = self.computing() else { return wait() };
        owned.end();
        let result = wait();
        owned.slots.take(position);
        *owned.held() = Some(position);
        result
    }

    /// Declares that the work takes long, and yields to others.
    pub(crate) fn takes_long(&self) {
        if let Some((owned, position)) = self.computing() {
            *owned.held() = Some(Position { long: true, ..position });
        }
        self.give_way();
    }

    /// Yields the slot to threads with an earlier turn. Long computations call this now and then.
    pub(crate) fn give_way(&self) {
        if let Some((owned, position)) = self.computing() {
            owned.slots.give_way(position);
        }
    }

    /// Borrows up to `wanted` helpers, if slots are free.
    pub(crate) fn borrow(&self, wanted: usize) -> Borrowed {
        let slots = self.computing().map(|(owned, _)| Arc::clone(&owned.slots));
        let taken = slots.as_ref().map_or(0, |slots| {
            let mut state = slots.state();
            let taken = wanted.min(state.free.saturating_sub(state.borrowed));
            state.borrowed += taken;
            taken
        });
        Borrowed { slots, taken }
    }

    /// Reserves up to `wanted` slots for helpers: free slots at once, then slots that others release, unless short work
    /// waits. One slot always remains for each thread that reserves.
    pub(crate) fn reserve(&self, wanted: usize) -> Reserved {
        let slots = self.computing().map(|(owned, _)| Arc::clone(&owned.slots));
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
    fn slots_that_are_added_are_used_and_end_with_their_owners() {
        let slots = Slots::none();
        let (first, second) = (slots.add(), slots.add());
        assert_eq!(slots.free(), 2);
        slots.turn().run(|| {
            drop(first);
            assert_eq!(slots.free(), 0);
            // Nobody may go on with the slot that is in use
            drop(second);
        });
        assert_eq!((slots.free(), slots.state().count), (0, 0));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| slots.turn().run(|| 7));
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!waits.is_finished());
            let _third = slots.add();
            assert_eq!(waits.join().unwrap(), 7);
        });
        assert_eq!(slots.free(), 0);
    }

    #[test]
    fn no_more_threads_compute_than_there_are_slots() {
        let (slots, now, most) = (Slots::new(2), AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    slots.turn().run(|| {
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
                scope.spawn(|| {
                    let turn = slots.turn();
                    turn.run(|| turn.waiting(|| all.wait()))
                });
            }
        });
    }

    #[test]
    fn a_panic_gives_the_slot_back() {
        let slots = Slots::new(1);
        std::thread::scope(|scope| {
            let failed = scope.spawn(|| slots.turn().run(|| panic!("on purpose")));
            assert!(failed.join().is_err());
        });
        assert_eq!(slots.turn().run(|| 7), 7);
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
            let turn = slots.turn();
            turn.run(|| {
                let work = |name: &'static str, long| {
                    let (slots, note) = (&slots, &note);
                    scope.spawn(move || {
                        let turn = slots.turn();
                        turn.run(|| {
                            if long {
                                turn.takes_long();
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
                turn.takes_long();
                note("first");
                turn.give_way();
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
                slots.turn().run(|| {
                    reached.wait();
                    go_on.wait();
                });
            });
            let turn = slots.turn();
            turn.run(|| {
                reached.wait();
                let reserved = turn.reserve(9);
                let state = || {
                    let state = slots.state();
                    (state.free, state.owed, state.reserved)
                };
                assert_eq!(state(), (0, 1, 2), "one was free, one is in use, and this thread has its own");
                // Nothing is left for another thread
                assert_eq!(turn.reserve(1).count, 0);
                go_on.wait();
                while state() != (0, 0, 2) {
                    std::thread::yield_now();
                }
                // A waiting thread gets its own slot back, and short work comes in between
                turn.waiting(|| ());
                scope.spawn(|| slots.turn().run(|| assert!(slots.state().waiting.len() == 1)));
                while slots.state().waiting.is_empty() {
                    std::thread::yield_now();
                }
                turn.takes_long();
                drop(reserved);
                assert_eq!(state(), (2, 0, 0));
            });
        });
        assert_eq!(slots.state().free, 3);
    }

    #[test]
    fn helpers_are_the_slots_that_nobody_uses() {
        let slots = Slots::new(3);
        let turn = slots.turn();
        assert_eq!(turn.borrow(3).taken(), 0);
        turn.run(|| {
            let rest = turn.borrow(5);
            assert_eq!((rest.taken(), turn.borrow(1).taken()), (2, 0));
            std::thread::scope(|scope| {
                // A helper keeps no thread from its slot, and a waiting thread keeps none
                scope.spawn(|| {
                    let turn = slots.turn();
                    turn.run(|| assert_eq!(turn.waiting(|| turn.borrow(1).taken()), 0));
                });
            });
            drop(rest);
            assert_eq!(turn.borrow(1).taken(), 1);
        });
        let state = slots.state();
        assert_eq!((state.free, state.borrowed), (3, 0));
    }

    #[test]
    fn other_thread_that_uses_a_turn_neither_takes_nor_releases_a_slot() {
        let slots = Slots::new(1);
        let turn = slots.turn();
        let free = || slots.state().free;
        turn.run(|| {
            std::thread::scope(|scope| {
                scope.spawn(|| turn.waiting(|| assert_eq!(free(), 0)));
                scope.spawn(|| turn.run(|| assert_eq!(turn.borrow(1).taken(), 0)));
            });
            turn.waiting(|| assert_eq!(free(), 1));
            assert_eq!(free(), 0);
        });
        assert_eq!((free(), Turn::FREE.run(|| Turn::FREE.waiting(|| 7))), (1, 7));
    }
}
