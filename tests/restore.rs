//! Restores by rbr.

mod chain;
mod kill;
mod pages;
mod plan;
mod recovery;
mod selective;
mod target;
mod unfinished;
