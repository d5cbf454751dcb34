//! Renders the page of the guide about error numbers.

use std::fmt::Write as _;

use engine::ErrorCode;

/// What usually causes an error, and what to do.
struct Advice {
    cause: &'static str,
    remedy: &'static str,
}

const fn advice(cause: &'static str, remedy: &'static str) -> Advice {
    Advice { cause, remedy }
}

const DAMAGED: &str = "Run `verify`: it finds everything that is damaged. Restore from another backup or repository (`--set`, \
                       `--repo`), take a new full backup, and check disk, memory and network.";
const PERMISSIONS: &str = "Run the commands as the user that owns the cluster. Files that root created are the usual reason: give them \
                           to that user with `chown`.";
const DISK: &str = "Look at free space (`df`, `df -i`), mounts and the kernel's log.";
const REPORT: &str = "It is a bug, or damage that nobody thought of. Run the command again with `--log-level-console=debug` and report \
                      the output.";

/// Returns the advice for a number. The compiler requires an entry for each.
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn of(code: ErrorCode) -> Advice {
    match code {
        ErrorCode::Assert => advice("The program contradicts itself.", REPORT),
        ErrorCode::Checksum => advice("A file differs from its recorded checksum: it was damaged or changed.", DAMAGED),
        ErrorCode::Config => advice(
            "The configuration contradicts itself, for example `pg1-host` and `repo1-host` on the same host; or a \
             bucket or container can't be used as configured.",
            "The message names the options. `check --report` prints what was read from where.",
        ),
        ErrorCode::FileInvalid => advice(
            "A file contradicts another one: the stanza was made for another cluster, or PostgreSQL was upgraded.",
            "After an upgrade of PostgreSQL run `stanza-upgrade`. Otherwise compare `pg1-path` and `--stanza` with the cluster.",
        ),
        ErrorCode::Format => advice(
            "A file or value does not have the expected form, also both copies of `archive.info`, `backup.info` or a manifest.",
            "If a file of the repository is named, run `verify`; `verify --repair` mends an info file from its copy.",
        ),
        ErrorCode::CommandRequired => advice("No command was given.", "`rbr help` lists the commands."),
        ErrorCode::OptionInvalid => advice(
            "An option is unknown, or not allowed for the command, on the command line, or without another option.",
            "The message names the option and often the one that was meant. `rbr help COMMAND OPTION` describes it. Secrets are \
             allowed in the configuration file and the environment only.",
        ),
        ErrorCode::OptionInvalidValue => advice(
            "An option has a value that is not allowed or out of range.",
            "`rbr help COMMAND OPTION` lists the allowed values.",
        ),
        ErrorCode::OptionRequired => advice(
            "An option is missing. If it is `pg1-path`, the stanza has no section in the configuration file.",
            "Set it. Check the name of the stanza, and which files are read: `check --report`.",
        ),
        ErrorCode::PgRunning => advice(
            "PostgreSQL is running, but a restore or `stanza-delete` needs it stopped.",
            "Stop the server. If it is not running, a crash left `postmaster.pid`: make sure that no process uses the data directory \
             before you remove the file.",
        ),
        ErrorCode::Protocol => advice(
            "The other host answers something unexpected: another version, or output of a login script.",
            "Both hosts need pgBackRest 2.60 or rbr. `ssh USER@HOST true` must print nothing, and no login script or \
             forced command there may read standard input, since rbr sends its first requests at once.",
        ),
        ErrorCode::PathNotEmpty => advice(
            "A directory must be empty: that of a restore, or the stanza's in the repository.",
            "Restore with `--delta` to replace what is there, or empty the directory. For `stanza-create`, look what is in the repository.",
        ),
        ErrorCode::FileOpen => advice("A file can't be opened, mostly for lack of permission.", PERMISSIONS),
        ErrorCode::FileRead => advice("A file can't be read: the disk or the network failed.", DISK),
        ErrorCode::ParamRequired => advice(
            "A parameter is missing, such as the path of the WAL segment.",
            "`archive_command` must contain `%p`, `restore_command` `%f` and `%p`.",
        ),
        ErrorCode::ArchiveMismatch => advice(
            "A WAL segment belongs to another cluster than the stanza.",
            "`archive_command` names the stanza of another cluster, or PostgreSQL was upgraded: run `stanza-upgrade`.",
        ),
        ErrorCode::ArchiveDuplicate => advice(
            "The archive has another segment of this name: two clusters archive to the same stanza, often a copy or an old primary.",
            "Find the other cluster and stop its archiving. Restore copies with `--archive-mode=off`. Never delete the segment in the \
             archive before you know which is right.",
        ),
        ErrorCode::VersionNotSupported => advice(
            "The version of PostgreSQL is not known, or the control file is damaged.",
            "`rbr version` and the compatibility page tell which versions are known.",
        ),
        ErrorCode::PathCreate => advice("A directory can't be created.", PERMISSIONS),
        ErrorCode::CommandInvalid => advice("There is no such command.", "`rbr help` lists the commands."),
        ErrorCode::HostConnect => advice(
            "A host or its service can't be reached, or its certificate is not trusted.",
            "Check name, port and firewall. For certificates see `repo1-storage-ca-file`; `rbr server-ping HOST` tests a server of rbr.",
        ),
        ErrorCode::LockAcquire => advice(
            "Another command works on the stanza.",
            "Wait for it: `info` shows a running backup. If none is running, look who owns the lock file that the message names.",
        ),
        ErrorCode::BackupMismatch => advice(
            "The cluster is not the one that the stanza was made for.",
            "Compare `pg1-path` with the cluster. After an upgrade of PostgreSQL run `stanza-upgrade`.",
        ),
        ErrorCode::FileSync => advice("A file can't be made durable.", DISK),
        ErrorCode::PathOpen => advice(
            "A directory can't be opened, or its owner or mode does not suit a restore.",
            "The target of a restore must belong to the user that runs it, or run the restore as root.",
        ),
        ErrorCode::PathSync => advice("A directory can't be made durable.", DISK),
        ErrorCode::FileMissing => advice(
            "A file is missing. `archive.info` or `backup.info`: the stanza does not exist in this repository, or the path is wrong.",
            "Check `repo1-path` and `--stanza`; `repo-ls` shows what is there. For a new stanza run `stanza-create`.",
        ),
        ErrorCode::DbConnect => advice(
            "PostgreSQL can't be reached, or no primary was found.",
            "Is the server running? Check `pg1-port`, `pg1-socket-path`, `pg1-user` and `pg_hba.conf`. `check --diagnose` tries each part.",
        ),
        ErrorCode::DbQuery => advice(
            "A query failed or took longer than `db-timeout`.",
            "The server's log has the error. The role needs the rights to start a backup: a superuser, or `pg_read_all_settings` and \
             EXECUTE on the backup functions.",
        ),
        ErrorCode::DbMismatch => advice(
            "PostgreSQL is not in the expected state: another data directory, a promoted standby, another timeline.",
            "Compare `pg1-path` with `show data_directory`. For a restore, choose the timeline with `--target-timeline`.",
        ),
        ErrorCode::FileRemove => advice("A file can't be removed.", PERMISSIONS),
        ErrorCode::PathRemove => advice("A directory can't be removed.", PERMISSIONS),
        ErrorCode::Stop => advice(
            "Commands were stopped with `stop`.",
            "Find out why, then run `start`, with the stanza if the stop was only for it.",
        ),
        ErrorCode::Term => advice(
            "A signal ended the command, or a process that it needs.",
            "After a time-out of a scheduler, allow more time. An interrupted backup is resumed by the next one.",
        ),
        ErrorCode::FileWrite => advice("A file can't be written. The disk is mostly full.", DISK),
        ErrorCode::FeatureNotSupported => advice(
            "A feature that rbr does not have, or that this kernel or server lacks; also `archive_mode = always`.",
            "The message names it. The compatibility page lists what is supported.",
        ),
        ErrorCode::ArchiveCommandInvalid => advice(
            "`archive_command` does not call rbr or pgBackRest.",
            "Set `archive_command = 'rbr --stanza=NAME archive-push %p'`; `init --apply` does so.",
        ),
        ErrorCode::LinkExpected => advice(
            "Something in `pg_tblspc` is no link.",
            "PostgreSQL expects links there. Find out who put it there, and move it away.",
        ),
        ErrorCode::LinkDestination => advice(
            "A link leads into the data directory, or two links to the same place.",
            "Move the tablespace or linked directory outside of the data directory, or map it with `--link-map` or `--tablespace-map`.",
        ),
        ErrorCode::HostInvalid => advice(
            "The command must run on the host of PostgreSQL, as `restore`, `archive-push` and `archive-get` do. Here `pg1-host` says that \
             this is another host.",
            "Run it there, with a configuration that has `pg1-path` and no `pg1-host`. `stanza-create`, `check`, `backup`, `expire` and \
             `info` run on either host.",
        ),
        ErrorCode::PathMissing => advice("A directory is missing.", "Create it, or correct the option that names it."),
        ErrorCode::FileMove => advice("A file can't be renamed.", PERMISSIONS),
        ErrorCode::BackupSetInvalid => advice(
            "There is no backup that fits: none at all, none of this label, or none before the target.",
            "`info` lists the backups, `recovery-points` what can be recovered to.",
        ),
        ErrorCode::TablespaceMap => {
            advice("A mapping of tablespaces does not fit the backup.", "`info --set=LABEL` lists its tablespaces.")
        }
        ErrorCode::LinkMap => {
            advice("A mapping of links does not fit the backup.", "`info --set=LABEL` lists its links.")
        }
        ErrorCode::FileClose => advice("A file can't be closed, which loses what was written.", DISK),
        ErrorCode::DbMissing => advice(
            "A database of `--db-include` or `--db-exclude` is not in the backup.",
            "`info --set=LABEL` lists its databases.",
        ),
        ErrorCode::DbInvalid => {
            advice("A system database can't be chosen.", "Leave it out: system databases are always restored.")
        }
        ErrorCode::ArchiveTimeout => advice(
            "A WAL segment did not arrive in the archive in time.",
            "PostgreSQL's log has the error of `archive_command`. The repository may be full: look at free space on its host. \
             `check --diagnose` looks at the settings and the queue. If pushes are slow, see `archive-async` and \
             `archive-timeout`.",
        ),
        ErrorCode::FileMode => advice("The mode of a file can't be set.", PERMISSIONS),
        ErrorCode::ArchiveDisabled => advice(
            "`archive_mode` is off.",
            "Set `archive_mode = on` and restart the server; `init --apply` does so but for the restart.",
        ),
        ErrorCode::FileOwner => advice(
            "The owner of a file can't be set.",
            "Only root can give files to others. Run the restore as root or as the user that owns the cluster.",
        ),
        ErrorCode::UserMissing => {
            advice("A user or group does not exist on this host.", "Create it, or correct the option that names it.")
        }
        ErrorCode::FileExists => advice(
            "A file is there already: a cluster in the target of a restore, or a configuration that `init` would write.",
            "Restore with `--delta` or into another directory. Nothing is overwritten by itself.",
        ),
        ErrorCode::Memory => {
            advice("Memory is exhausted.", "Use a smaller `process-max`, `buffer-size` or `compress-level`.")
        }
        ErrorCode::Crypto => advice(
            "Decryption failed: mostly the passphrase is wrong, or the repository is not encrypted as configured. Also TLS errors.",
            "Compare `repo1-cipher-type` and `repo1-cipher-pass` with those of the time when the stanza was created.",
        ),
        ErrorCode::ParamInvalid => {
            advice("A parameter is not allowed or one too many.", "Options begin with `--`. Quote values with blanks.")
        }
        ErrorCode::PathClose => advice("A directory can't be closed.", DISK),
        ErrorCode::FileInfo => advice("The attributes of a file can't be read.", PERMISSIONS),
        ErrorCode::JsonFormat => advice("JSON in a file or from another process has not the expected form.", DAMAGED),
        ErrorCode::Kernel => advice(
            "The system refuses something ordinary.",
            "The message has the reason. Look at limits (`ulimit -a`).",
        ),
        ErrorCode::Service => advice(
            "A server answered with a fault that passes, also after several tries.",
            "Try again later. If it stays, the provider's status page or the server's log tells more. A server of rbr that has too many \
             sessions says what allows more of them.",
        ),
        ErrorCode::Execute => advice(
            "A program that was started failed, such as `ssh` or a hook.",
            "The message has its output. Run it by hand as the same user.",
        ),
        ErrorCode::RepoInvalid => {
            advice("No repository could be used.", "The warnings before tell why for each. Choose one with `--repo`.")
        }
        ErrorCode::Command => advice(
            "The command met errors that it reported before. `verify --verify-exit-code`, `test-restore`, `attest` and `check \
             --diagnose` use it for what they found.",
            "Read the lines before it.",
        ),
        ErrorCode::Access => advice(
            "Access is denied: a client is not allowed by `tls-server-auth` or asks for what is not its, or the user is not the owner of the \
             cluster.",
            "The name in `tls-server-auth` is the common name of the client's certificate; the stanza is after the equals sign.",
        ),
        ErrorCode::Clock => advice(
            "The clock is before the last backup: it was set back, or hosts differ.",
            "Synchronize the clocks of all hosts, and wait until the time has passed.",
        ),
        ErrorCode::Runtime => advice("An error without a number of its own.", "The message has the reason."),
        ErrorCode::Unhandled | ErrorCode::Unknown => advice("An error that nobody expected.", REPORT),
    }
}

/// The page.
pub(super) fn render() -> String {
    let mut text = String::from(
        "# Troubleshooting\n\n\
         Each error has a number, in brackets in the log and as the exit status: `ERROR: [055]: ...`. The numbers are \
         pgBackRest's. The lines that begin with `HINT` are about the error at hand; this page has what is behind it in general.\n\n\
         `check --diagnose` finds most causes by itself, and `--log-level-console=detail` shows what a command does. The log of \
         PostgreSQL has the errors of `archive_command` and `restore_command`. With `archive-async=y` they are in \
         `/var/log/pgbackrest/STANZA-archive-push-async.log`, too.\n\n\
         Exit status 1 of `archive-get` and `repo-get` is no error: there is no such file.\n",
    );
    for &code in ErrorCode::ALL {
        let Advice { cause, remedy } = of(code);
        // Writing to a text does not fail
        let _ = write!(text, "\n## {:03} {}\n\n{cause}\n\n*Remedy:* {remedy}\n", code.number(), code.name());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_cause_and_a_remedy() {
        let text = render();
        for &code in ErrorCode::ALL {
            let Advice { cause, remedy } = of(code);
            assert!(cause.ends_with('.') && remedy.ends_with('.'), "{code}");
            assert!(text.contains(&format!("## {:03} ", code.number())), "{code}");
        }
        assert!(!text.contains("  "), "an indentation of the source");
    }
}
