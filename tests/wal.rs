//! archive-push and archive-get.

mod background;
mod calls;
mod direct;
mod exit_status;
mod full;
mod kill;
mod load;
mod other_cluster;
mod segment_size;
