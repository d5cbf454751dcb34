//! rbr and the real pgBackRest on the same repository.

mod damage;
mod golden;
mod oracle_cycle;
