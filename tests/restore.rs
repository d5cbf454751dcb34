//! Restores by rbr.

mod chain;
mod kill;
mod pages;
mod recovery;
mod selective;
mod target;
mod unfinished;
