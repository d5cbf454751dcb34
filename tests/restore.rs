//! Restores by rbr.

mod chain;
mod kill;
mod recovery;
mod selective;
mod target;
mod unfinished;
