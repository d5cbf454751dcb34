//! archive-push and archive-get.

mod direct;
mod kill;
