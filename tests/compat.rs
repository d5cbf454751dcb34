//! rbr and the real pgBackRest on the same repository.

mod browse;
mod check_pgbackrest;
mod damage;
mod far_verify;
pub mod golden;
mod leftovers;
mod manifest;
mod odd_names;
mod oracle_cycle;
mod verify;
