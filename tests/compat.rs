//! rbr and the real pgBackRest on the same repository.

mod browse;
mod damage;
mod golden;
mod odd_names;
mod oracle_cycle;
mod verify;
