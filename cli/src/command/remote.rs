//! The role `remote`: serves this host's repository or data directory to a command on another host.

use engine::Result;
use engine::serve::{Server, end_with_client};

use crate::allocator::share_freed_memory;
use crate::config::Config;
use crate::exit::ExitStatus;
use crate::{cancel_token, serve};

/// Serves through standard input and output until the client says that it ends.
///
/// # Errors
/// Those of [`serve::served`] and [`Server::serve`].
pub fn run(config: &Config) -> Result<ExitStatus> {
    share_freed_memory();
    let served = serve::served(config, cancel_token())?;
    let (input, output) = serve::standard_streams(config)?;
    end_with_client(cancel_token().clone())?;
    Server::greet(input, output)?.serve(served)?;
    Ok(ExitStatus::SUCCESS)
}
