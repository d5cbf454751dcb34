//! Command lines that clients send.

use engine::{Error, ErrorCode, Result};

use crate::config::decl::OptionDecl;
use crate::config::{CommandLine, Config, Environment, Role, SystemFiles};

/// An option that tells which configuration files are read.
pub(super) struct ConfigOption {
    /// The option.
    pub(super) decl: &'static OptionDecl,
    /// The argument that gives a process the server's value.
    pub(super) argument: String,
    /// Whether the server was started with it, so that the value is not the default.
    pub(super) is_set: bool,
}

/// Parses the arguments of a command in the role `remote`. Opens no file.
///
/// # Errors
/// [`ErrorCode::Access`] for another role, and errors of the syntax.
pub(super) fn parse(program: &str, arguments: &[String]) -> Result<CommandLine> {
    let line = CommandLine::parse(std::iter::once(program).chain(arguments.iter().map(String::as_str)))?;
    if line.role() != Role::Remote {
        let text = format!("access denied: command '{}' is not served", line.command().role_name(line.role()));
        return Err(Error::new(ErrorCode::Access, text));
    }
    Ok(line)
}

/// Resolves the options of a command in the role `remote`, with the files that the arguments name.
///
/// # Errors
/// [`ErrorCode::Access`] for another role, and errors of the options.
pub(super) fn resolve(program: &str, arguments: &[String]) -> Result<Config> {
    let line = parse(program, arguments)?;
    let mut config = Config::resolve(line, Environment::from_process(), &SystemFiles, &mut |_| ())?;
    config.adjust()?;
    Ok(config)
}
