//! Integration tests: the built program with real PostgreSQL clusters and the real pgBackRest.
//!
//! There is one test binary and one folder per subject. [`env`] creates what a test needs and removes it again. Tests
//! that compare with other programs require `scripts/oracles`. Without it they print that they are skipped, or fail if
//! `RBR_REQUIRE_ORACLES=1`.

mod archive;
mod backup;
mod between_hosts;
mod cli;
mod compat;
mod daemon;
mod dependencies;
mod env;
mod expire;
mod failover;
mod far_side;
mod format_6;
mod fuzz;
mod guide;
mod hostile;
mod info;
mod init;
mod library;
mod monitor;
mod object;
mod packaging;
mod postgres_host;
mod recovery_points;
mod remote;
mod repository_host;
mod restore;
mod session;
mod slow_link;
mod stanza;
mod storage;
mod test_restore;
mod tls_server;
mod verify_memory;
mod wal;
