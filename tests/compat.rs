//! rbr and the real pgBackRest on the same repository.

mod browse;
mod damage;
mod golden;
mod oracle_cycle;
mod verify;
