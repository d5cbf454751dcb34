//! Backups that rbr takes of live clusters.

mod kill;
mod lock;
mod manifest;
mod matrix;
mod turns;
