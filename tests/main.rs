//! Integration tests: the built program against real PostgreSQL clusters and the real pgBackRest.
//!
//! One test binary, one folder per subject. [`env`] makes what a test needs and takes it away again. Tests that compare
//! with other programs need `scripts/oracles` to have been run; without it they print that they are skipped, and fail
//! when `RBR_REQUIRE_ORACLES=1`.

mod archive;
mod backup;
mod cli;
mod compat;
mod dependencies;
mod env;
mod expire;
mod fuzz;
mod hostile;
mod info;
mod object;
mod restore;
mod session;
mod stanza;
mod storage;
mod wal;
