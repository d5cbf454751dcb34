//! The command line of rbr: options, configuration, help, log lines and exit codes.
//!
//! Every option is declared once (see [`config::options`]); a command is one file in [`mod@command`] that turns the
//! configuration into the plain settings of the engine and shows what comes back.

pub mod command;
pub mod config;
pub mod exit;
pub mod identity;
pub mod render;

pub use config::{Command, Config, Role, Source, opt};
pub use exit::ExitStatus;

/// Writes a text to standard output and makes sure that it is out.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Runs the program with these arguments, the first of which is its path, and returns the exit status.
pub fn run(args: impl IntoIterator<Item = std::ffi::OsString>) -> u8 {
    match try_run(args) {
        Ok(status) => status.0,
        Err(error) => {
            eprintln!("ERROR: [{:03}]: {error}", error.code.number());
            error.code.number()
        }
    }
}

fn try_run(args: impl IntoIterator<Item = std::ffi::OsString>) -> engine::Result<ExitStatus> {
    let line = config::CommandLine::parse(args)?;
    let environment = config::Environment::from_process()?;
    let mut warn = |text: String| engine::warn!("{text}");
    let mut config = Config::resolve(line, environment, &config::SystemFiles, &mut warn)?;
    config.check_support()?;
    config.adjust()?;
    command::run(&config)
}
