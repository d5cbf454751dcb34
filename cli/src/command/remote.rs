//! The role `remote`: serves this host's repository or data directory to a command on another host.

use std::io;

use engine::Result;
use engine::serve::{Server, end_with_client};

use crate::allocator::share_freed_memory;
use crate::config::Config;
use crate::exit::{self, ExitStatus};
use crate::{cancel_token, serve};

/// Serves through standard input and output until the client says that it ends.
///
/// # Errors
/// Those of [`serve::served`] and [`Server::serve`].
pub fn run(config: &Config) -> Result<ExitStatus> {
    share_freed_memory();
    let mut served = serve::served(config, cancel_token())?;
    let (input, output) = serve::standard_streams(config)?;
    let last_words = output.last_words();
    served.last_words = last_words.clone();
    exit::end_by_first_signal();
    exit::before_end_by_signal(move |error| last_words.say(io::stdout(), error));
    end_with_client(cancel_token().clone())?;
    Server::greet(input, output)?.serve(served)?;
    Ok(ExitStatus::SUCCESS)
}
