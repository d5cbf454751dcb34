//! Backups of live clusters by rbr.

mod chain;
mod changed_options;
mod kill;
mod large_file;
mod lock;
mod manifest;
mod matrix;
mod signal;
mod standby;
mod throttle;
mod turns;
mod two_hosts;
