//! rbr and the real pgBackRest on the same repository.

mod oracle_cycle;
