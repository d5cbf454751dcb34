//! Renders the manual page and shell completions, from a clap command that mirrors the table.

use clap::{Arg, ArgAction, Command as ClapCommand};
use engine::{Error, ErrorCode, Result};

use crate::config::decl::{COMMANDS, Command, CommandDecl, OptionDecl, Role, ValueKind};
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
        option.is_valid(command, Role::Main) && !option.internal_for(command) && !option.secure
    });
    ClapCommand::new(decl.name)
        .about(decl.summary)
        .long_about(decl.detail)
        .disable_help_flag(true)
        .args(known.map(|option| argument(option, decl)))
        .args(parameters(decl))
}

/// The words that a command takes after its name, as far as they are known.
fn parameters(decl: &CommandDecl) -> Vec<Arg> {
    let words = |name: &'static str, words: Vec<&'static str>| Arg::new(name).value_parser(words);
    match decl.command {
        Command::Attest => vec![words("verify", vec!["verify"])],
        Command::Schedule => vec![words("run", vec!["run"]), Arg::new("NAME")],
        Command::Help => {
            let names = COMMANDS.iter().filter(|decl| !decl.internal).map(|decl| decl.name).collect();
            vec![words("COMMAND", names), Arg::new("OPTION")]
        }
        _ => Vec::new(),
    }
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

/// The manual page of the program, `rbr(1)`. Each command has one of its own.
pub(super) fn man() -> Result<String> {
    let mut out = Vec::new();
    clap_mangen::Man::new(command_line()).title("RBR").render(&mut out).map_err(not_rendered)?;
    out.extend_from_slice(
        b".SH FILES\n.TP\n/etc/pgbackrest/pgbackrest.conf, /etc/pgbackrest/conf.d/*.conf\nConfiguration.\n\
        .TP\n/var/lib/pgbackrest\nRepository.\n.TP\n/var/log/pgbackrest\nLog files.\n\
        .TP\n/var/spool/pgbackrest\nQueues of asynchronous archiving.\n\
        .TP\n/var/lib/rbr\nState of the daemon.\n\
        .SH EXIT STATUS\n0 after success. archive-get and repo-get exit with 1 if the file does not exist, init if something is left \
        to do. Errors have the numbers of pgBackRest, from 25 to 125, which the guide explains.\n",
    );
    text(out)
}

/// The manual page of a command, `rbr-COMMAND(1)`.
///
/// # Errors
/// [`ErrorCode::CommandInvalid`] if there is no such command.
pub(super) fn man_of(name: &str) -> Result<String> {
    let unknown = || Error::new(ErrorCode::CommandInvalid, format!("there is no command '{name}'"));
    let decl = COMMANDS.iter().find(|decl| decl.name == name && !decl.internal).ok_or_else(unknown)?;
    let title = format!("rbr-{name}");
    let command = subcommand(decl).display_name(&title).bin_name(format!("rbr {name}"));
    let mut out = Vec::new();
    let page =
        clap_mangen::Man::new(command).title(title.to_uppercase()).source(concat!("rbr ", env!("CARGO_PKG_VERSION")));
    page.render_title(&mut out).map_err(not_rendered)?;
    page.render_name_section(&mut out).map_err(not_rendered)?;
    // A list of all options would fill the first screen
    let parameters = if decl.parameters { " [\\fIPARAMETERS\\fR]" } else { "" };
    let synopsis = format!(".SH SYNOPSIS\n\\fBrbr {}\\fR [\\fIOPTIONS\\fR]{parameters}\n", name.replace('-', "\\-"));
    out.extend_from_slice(synopsis.as_bytes());
    page.render_description_section(&mut out).map_err(not_rendered)?;
    page.render_options_section(&mut out).map_err(not_rendered)?;
    out.extend_from_slice(b".SH SEE ALSO\n\\fBrbr\\fR(1)\n");
    text(out)
}

fn not_rendered(error: std::io::Error) -> Error {
    Error::from_io(ErrorCode::FileWrite, "unable to render the manual page", error)
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
    // The generator leaves out words after commands
    let mut script = completions(clap_complete::Shell::Fish)?;
    for decl in COMMANDS.iter().filter(|decl| !decl.internal) {
        let words = parameters(decl).into_iter().next().map(|arg| arg.get_possible_values()).unwrap_or_default();
        let words: Vec<&str> = words.iter().map(clap::builder::PossibleValue::get_name).collect();
        if !words.is_empty() {
            let seen = format!("__fish_seen_subcommand_from {}", decl.name);
            script += &format!("complete -c rbr -n \"{seen}\" -f -a \"{}\"\n", words.join(" "));
        }
    }
    Ok(script)
}

fn completions(shell: clap_complete::Shell) -> Result<String> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut command_line(), "rbr", &mut out);
    text(out)
}

fn text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| Error::new(ErrorCode::Format, "the document is not UTF-8").cause(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_to_which_the_page_of_the_program_leads() {
        let main = man().unwrap();
        for decl in COMMANDS.iter().filter(|decl| !decl.internal) {
            let page = man_of(decl.name).unwrap();
            // roff needs hyphens escaped
            let escaped = decl.name.replace('-', "\\-");
            assert!(page.contains(&format!("rbr {escaped}")), "{page}");
            assert!(main.contains(&format!("rbr\\-{escaped}(1)")), "{}", decl.name);
        }
        assert_eq!(man_of("bogus").unwrap_err().code, ErrorCode::CommandInvalid);
    }

    #[test]
    fn completions_know_words_after_commands() {
        let script = bash().unwrap();
        let after = |command: &str| {
            let start = script
                .find(&format!("        rbr__subcmd__{command})"))
                .or_else(|| script.find(&format!("        rbr__{command})")));
            let rest = &script[start.unwrap()..];
            rest.lines().find(|line| line.contains("opts=")).unwrap().to_owned()
        };
        assert!(after("help").contains("test-restore"), "{}", after("help"));
        assert!(after("schedule").contains(" run"), "{}", after("schedule"));
        assert!(after("init").contains("--apply"), "{}", after("init"));
        assert!(fish().unwrap().contains("from schedule\" -f -a \"run\""));
    }
}
