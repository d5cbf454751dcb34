//! Renders the manual page and shell completions, from a clap command that mirrors the table.

use clap::{Arg, ArgAction, Command as ClapCommand};
use engine::{Error, ErrorCode, Result};

use crate::config::decl::{COMMANDS, CommandDecl, OptionDecl, Role, Support, ValueKind};
use crate::config::options::ALL;
use crate::help::{summary_of, with_values};

/// The command line as clap sees it. The program itself parses with its own rules (prefixes, indexes, options before
/// the command), which clap does not have.
fn command_line() -> ClapCommand {
    let commands = COMMANDS.iter().filter(|decl| !decl.internal).map(subcommand);
    ClapCommand::new("rbr")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Backup and restore of PostgreSQL in pgBackRest's repository format")
        .long_about(
            "Backs up and restores PostgreSQL clusters and archives their WAL, in the repository format of pgBackRest \
             and with its options. Options may stand before or after the command, in the environment \
             (PGBACKREST_<NAME>) and in configuration files.",
        )
        .disable_help_subcommand(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .subcommands(commands)
}

fn subcommand(decl: &'static CommandDecl) -> ClapCommand {
    let known = ALL.iter().filter(|option| {
        let command = decl.command;
        option.is_valid(command, Role::Main)
            && !option.internal_for(command)
            && !option.secure
            && !matches!(option.support, Support::NotYet(_))
    });
    ClapCommand::new(decl.name)
        .about(decl.summary)
        .long_about(decl.detail)
        .disable_help_flag(true)
        .args(known.map(|option| argument(option, decl)))
}

/// The option, of the first index where it has several.
fn argument(option: &'static OptionDecl, decl: &CommandDecl) -> Arg {
    let name = option.indexed_name(1);
    let (summary, detail) = summary_of(option, decl.command);
    let arg = Arg::new(name.clone()).long(name).help(summary).long_help(with_values(detail, option, decl.command));
    let allowed = option.allow_for(decl.command);
    match option.kind {
        ValueKind::Boolean => arg.action(ArgAction::SetTrue),
        ValueKind::List | ValueKind::Hash => arg.action(ArgAction::Append),
        _ if !allowed.is_empty() => arg.value_parser(allowed.to_vec()),
        _ => arg,
    }
}

/// The manual page.
pub(super) fn man() -> Result<String> {
    let mut out = Vec::new();
    let failed = |error| Error::from_io(ErrorCode::FileWrite, "unable to render the manual page", error);
    clap_mangen::Man::new(command_line()).title("RBR").render(&mut out).map_err(failed)?;
    for command in command_line().get_subcommands() {
        let page = clap_mangen::Man::new(command.clone());
        out.extend_from_slice(format!(".SH COMMAND {}\n", command.get_name().to_uppercase()).as_bytes());
        page.render_description_section(&mut out).map_err(failed)?;
        page.render_options_section(&mut out).map_err(failed)?;
    }
    text(out)
}

/// Completions for bash.
pub(super) fn bash() -> Result<String> {
    completions(clap_complete::Shell::Bash)
}

/// Completions for zsh.
pub(super) fn zsh() -> Result<String> {
    completions(clap_complete::Shell::Zsh)
}

/// Completions for fish.
pub(super) fn fish() -> Result<String> {
    completions(clap_complete::Shell::Fish)
}

fn completions(shell: clap_complete::Shell) -> Result<String> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut command_line(), "rbr", &mut out);
    text(out)
}

fn text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| Error::new(ErrorCode::Format, "the document is not UTF-8").cause(error))
}
