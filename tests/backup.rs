//! Backups that rbr takes of live clusters.

mod kill;
mod manifest;
mod matrix;
mod turns;
