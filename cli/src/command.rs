//! The commands: one file each, called here.

pub mod annotate;
pub mod archive_get;
pub mod archive_push;
pub mod attest;
pub mod backup;
pub mod check;
pub mod daemon;
pub mod expire;
pub mod help;
pub mod info;
pub mod init;
pub mod manifest;
pub mod metrics;
pub mod recovery_points;
pub mod remote;
pub mod repo_get;
pub mod repo_ls;
pub mod repo_rm;
pub mod restore;
pub mod schedule;
pub mod server;
pub mod server_ping;
pub mod stanza_create;
pub mod stanza_delete;
pub mod stanza_upgrade;
pub mod start;
pub mod stop;
pub mod test_restore;
pub mod verify;
pub mod version;

use engine::{Error, ErrorCode, Result};

use crate::config::{Command, Config, Role};
use crate::exit::ExitStatus;

/// Runs a command with its options.
type Handler = fn(&Config) -> Result<ExitStatus>;

/// Returns the function that runs a command in a role; `None` if it is not built yet. **Change this to add a command**:
/// add `pub mod NAME;` above and `Some(NAME::run)` here.
pub(crate) fn handler(command: Command, role: Role) -> Option<Handler> {
    match (command, role) {
        // Which commands have the role is in their declarations
        (_, Role::Remote) => Some(remote::run),
        (Command::Annotate, Role::Main) => Some(annotate::run),
        (Command::RepoGet, Role::Main) => Some(repo_get::run),
        (Command::RepoLs, Role::Main) => Some(repo_ls::run),
        (Command::RepoRm, Role::Main) => Some(repo_rm::run),
        (Command::ArchiveGet, Role::Main) => Some(archive_get::run),
        (Command::ArchiveGet, Role::Async) => Some(archive_get::run_async),
        (Command::ArchivePush, Role::Main) => Some(archive_push::run),
        (Command::ArchivePush, Role::Async) => Some(archive_push::run_async),
        (Command::Expire, Role::Main) => Some(expire::run),
        (Command::Info, Role::Main) => Some(info::run),
        (Command::Init, Role::Main) => Some(init::run),
        (Command::Metrics, Role::Main) => Some(metrics::run),
        (Command::Manifest, Role::Main) => Some(manifest::run),
        (Command::Backup, Role::Main) => Some(backup::run),
        (Command::Daemon, Role::Main) => Some(daemon::run),
        (Command::Schedule, Role::Main) => Some(schedule::run),
        (Command::Check, Role::Main) => Some(check::run),
        (Command::Help, Role::Main) => Some(help::run),
        (Command::StanzaCreate, Role::Main) => Some(stanza_create::run),
        (Command::StanzaDelete, Role::Main) => Some(stanza_delete::run),
        (Command::StanzaUpgrade, Role::Main) => Some(stanza_upgrade::run),
        (Command::Start, Role::Main) => Some(start::run),
        (Command::Stop, Role::Main) => Some(stop::run),
        (Command::Restore, Role::Main) => Some(restore::run),
        (Command::Attest, Role::Main) => Some(attest::run),
        (Command::Server, Role::Main) => Some(server::run),
        (Command::ServerPing, Role::Main) => Some(server_ping::run),
        (Command::TestRestore, Role::Main) => Some(test_restore::run),
        (Command::Verify, Role::Main) => Some(verify::run),
        (Command::RecoveryPoints, Role::Main) => Some(recovery_points::run),
        (Command::Version, Role::Main) => Some(version::run),
        _ => None,
    }
}

/// Runs the command of a configuration.
///
/// # Errors
/// The command fails, or no process of rbr has the role.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let command = if config.is_help() { Command::Help } else { config.command() };
    match handler(command, config.role()) {
        Some(run) => run(config),
        None => Err(without_process(config)),
    }
}

/// Only a main process of pgBackRest starts processes of the role `local`: always with its own program, whatever the
/// option `cmd` says. So it gets here if its file was replaced while it ran.
fn without_process(config: &Config) -> Error {
    let name = config.command().role_name(config.role());
    let text = format!("command '{name}' is not supported: workers of rbr are threads, not processes");
    Error::new(ErrorCode::FeatureNotSupported, text)
        .hint("was pgBackRest replaced by rbr while a command of pgBackRest was running? Run that command again.")
}
