//! The program `rbr`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::allocator::give_back_large_buffers();
    ExitCode::from(cli::run(std::env::args_os()))
}
