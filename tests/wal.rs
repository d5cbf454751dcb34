//! archive-push and archive-get.

mod calls;
mod direct;
mod full;
mod kill;
mod segment_size;
