//! The codecs of a backup. The threads that copy files share them.
//!
//! A storage on a server has more threads than may compute at a time, and a codec of zst needs some megabytes even if the
//! file is small. So a thread has one only while it encodes a file.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::pass::Encoders;
use super::{CopyRules, READ_BUFFER_BYTES};
use crate::work::turn::Turn;

/// What a thread needs to encode a file.
pub(super) struct Codecs {
    pub(super) encoders: Encoders,
    pub(super) read_buffer: Vec<u8>,
}

/// The codecs that no thread has, and the number of those that threads have.
#[derive(Default)]
struct State {
    free: Vec<Codecs>,
    taken: usize,
    /// The threads that asked for codecs so far, and those that got them. They get them in the order in which they asked.
    asked: u64,
    served: u64,
}

/// The codecs of all threads that copy by the same rules.
pub struct CodecPool {
    max: usize,
    /// Those that are kept while no thread has them.
    kept_max: usize,
    spares_memory: bool,
    state: Mutex<State>,
    given_back: Condvar,
}

impl CodecPool {
    /// Codecs for this number of files at a time.
    pub(crate) fn new(max: usize) -> Self {
        let (state, given_back) = (Mutex::default(), Condvar::new());
        CodecPool { max: max.max(1), kept_max: usize::MAX, spares_memory: false, state, given_back }
    }

    /// Codecs for one file are kept while no thread has them, and no more than
    /// [`spared_codecs_bytes_max`](super::spared_codecs_bytes_max) says.
    #[must_use]
    pub(crate) fn sparing_memory(mut self) -> Self {
        (self.kept_max, self.spares_memory) = (1, true);
        self
    }

    /// The number that no thread has.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.state().free.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns codecs for a file of these rules, once fewer than the most are taken. The thread does not compute while it
    /// waits.
    pub(super) fn take(&self, rules: &CopyRules, turn: &Turn) -> (Place<'_>, Codecs) {
        let free = self.try_take().unwrap_or_else(|number| turn.waiting(|| self.wait(number)));
        let place = Place(self);
        // Never those of other rules, with which the files could not be read again
        let free = free.filter(|codecs| codecs.encoders.is_of(rules));
        let mut codecs = free.unwrap_or_else(|| Codecs {
            encoders: Encoders::new(rules, self.spares_memory),
            read_buffer: vec![0; READ_BUFFER_BYTES],
        });
        codecs.encoders.compute_in(turn);
        (place, codecs)
    }

    /// Takes codecs, or a place in the queue. They are to be made if there is nothing to keep.
    fn try_take(&self) -> Result<Option<Codecs>, u64> {
        let mut state = self.state();
        let number = state.asked;
        state.asked += 1;
        if state.served == number && state.taken < self.max { Ok(state.serve()) } else { Err(number) }
    }

    fn wait(&self, number: u64) -> Option<Codecs> {
        let mut state = self.state();
        while state.served != number || state.taken >= self.max {
            state = self.given_back.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let codecs = state.serve();
        // The next in the queue may have been told before its place had come
        self.given_back.notify_all();
        codecs
    }
}

impl State {
    fn serve(&mut self) -> Option<Codecs> {
        self.served += 1;
        self.taken += 1;
        self.free.pop()
    }
}

impl std::fmt::Debug for CodecPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodecPool").field("max", &self.max).finish_non_exhaustive()
    }
}

/// The right to use codecs. It ends when this is dropped. After a failure the codecs are dropped, too, because their state
/// is unknown.
pub(super) struct Place<'a>(&'a CodecPool);

impl Place<'_> {
    /// Gives codecs back after a complete file.
    pub(super) fn give_back(self, mut codecs: Codecs) {
        codecs.encoders.compute_in(&Turn::FREE);
        let mut state = self.0.state();
        if state.free.len() < self.0.kept_max {
            state.free.push(codecs);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.state().taken -= 1;
        self.0.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use repo_format::cipher::{Cipher, Passphrase};

    use super::*;
    use crate::pipeline::backup::tests::rules;
    use crate::work::turn::Slots;

    #[test]
    fn threads_have_no_more_codecs_than_the_most_and_do_not_compute_while_they_wait() {
        let (pool, rules, slots) = (CodecPool::new(2), rules(), Slots::new(1));
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let turn = slots.turn();
                    for _ in 0..50 {
                        turn.run(|| {
                            let (place, codecs) = pool.take(&rules, &turn);
                            most.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                            // Others need the slot, and wait for codecs with it
                            turn.waiting(std::thread::yield_now);
                            now.fetch_sub(1, Ordering::Relaxed);
                            place.give_back(codecs);
                        });
                    }
                });
            }
        });
        let state = pool.state();
        assert_eq!((most.into_inner(), state.free.len(), state.taken), (2, 2, 0));
        assert_eq!(slots.free(), 1);
    }

    #[test]
    fn codecs_of_a_file_that_failed_are_not_used_again() {
        let (pool, rules) = (CodecPool::new(1), rules());
        let (place, codecs) = pool.take(&rules, &Turn::FREE);
        place.give_back(codecs);
        let (place, codecs) = pool.take(&rules, &Turn::FREE);
        assert!(pool.state().free.is_empty());
        drop((place, codecs));
        assert!(pool.state().free.is_empty());
        assert!(pool.try_take().is_ok_and(|free| free.is_none()));
    }

    #[test]
    fn codecs_of_other_rules_are_not_used() {
        let (pool, rules) = (CodecPool::new(1), rules());
        let other = CopyRules { cipher: Cipher::from_passphrase(Some(&Passphrase::new("other"))), ..rules.clone() };
        let (place, codecs) = pool.take(&rules, &Turn::FREE);
        place.give_back(codecs);
        let (_place, codecs) = pool.take(&other, &Turn::FREE);
        assert!(codecs.encoders.is_of(&other) && !codecs.encoders.is_of(&rules));
    }
}
