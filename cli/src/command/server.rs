//! `server`: serves other hosts by TLS.

use engine::Result;

use crate::allocator::share_freed_memory;
use crate::config::Config;
use crate::{ExitStatus, server};

/// Serves until a signal ends the server.
///
/// # Errors
/// Those of [`server::run`].
pub fn run(config: &Config) -> Result<ExitStatus> {
    share_freed_memory();
    server::run(config)
}
