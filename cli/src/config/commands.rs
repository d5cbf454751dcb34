//! The table of all commands.

use super::decl::{ANY_ROLE, Command, CommandDecl, LockKind, MAIN, Role, RoleSet};

const MAIN_REMOTE: RoleSet = RoleSet::of(&[Role::Main, Role::Remote]);
const MAIN_LOCAL_REMOTE: RoleSet = RoleSet::of(&[Role::Main, Role::Local, Role::Remote]);

/// The most common values.
const BASE: CommandDecl = CommandDecl {
    command: Command::Help,
    name: "",
    roles: MAIN,
    lock: LockKind::None,
    lock_required: false,
    log_file: false,
    quiet: false,
    parameters: false,
    internal: false,
    summary: "",
    detail: "",
};

/// Every command, in the order of [`Command`], which is also the order in which prefixes are matched.
pub static COMMANDS: [CommandDecl; 22] = [
    CommandDecl {
        command: Command::Annotate,
        name: "annotate",
        roles: MAIN_REMOTE,
        lock: LockKind::Backup,
        lock_required: true,
        summary: "Add or change the annotation of a backup.",
        detail: "An annotation is a set of key/value pairs that info shows with the backup. A key without a value removes \
                 that key; other keys stay as they are.",
        ..BASE
    },
    CommandDecl {
        command: Command::ArchiveGet,
        name: "archive-get",
        roles: ANY_ROLE,
        lock: LockKind::Archive,
        parameters: true,
        summary: "Get a WAL segment from the archive.",
        detail: "PostgreSQL calls it as restore_command during recovery and gives it the name of the wanted file (%f) and \
                 the path to write it to (%p). Exit status 1 means that no repository has the file.",
        ..BASE
    },
    CommandDecl {
        command: Command::ArchivePush,
        name: "archive-push",
        roles: ANY_ROLE,
        lock: LockKind::Archive,
        parameters: true,
        summary: "Push a WAL segment to the archive.",
        detail: "PostgreSQL calls it as archive_command and gives it the path of the finished segment (%p). It succeeds only \
                 when the segment is durable in every configured repository.",
        ..BASE
    },
    CommandDecl {
        command: Command::Backup,
        name: "backup",
        roles: MAIN_LOCAL_REMOTE,
        lock: LockKind::Backup,
        lock_required: true,
        log_file: true,
        summary: "Backup a database cluster.",
        detail: "The backup is stored in the repository with the lowest number unless --repo names another one. There is no \
                 scheduler: run it from cron, a systemd timer or the like.",
        ..BASE
    },
    CommandDecl {
        command: Command::Check,
        name: "check",
        roles: MAIN_REMOTE,
        summary: "Check the configuration.",
        detail: "Verifies that the clusters can be reached, that each repository fits them, and, on a primary, that a switched \
                 WAL segment arrives in every repository before archive-timeout is over. On a standby only the repositories \
                 are checked.",
        ..BASE
    },
    CommandDecl {
        command: Command::Expire,
        name: "expire",
        roles: MAIN_REMOTE,
        lock: LockKind::Backup,
        lock_required: true,
        log_file: true,
        summary: "Expire backups that exceed retention.",
        detail: "Removes backups beyond the retention settings together with the WAL that no remaining backup needs. backup \
                 does this at its end unless expire-auto is off.",
        ..BASE
    },
    CommandDecl {
        command: Command::Help,
        name: "help",
        quiet: true,
        parameters: true,
        summary: "Get help.",
        detail: "Without a command: the list of commands. With a command: what it does and its options. With a command and \
                 an option: what the option means to that command.",
        ..BASE
    },
    CommandDecl {
        command: Command::Info,
        name: "info",
        roles: MAIN_REMOTE,
        quiet: true,
        summary: "Retrieve information about backups.",
        detail: "Shows the stanzas with their state, backups and archived WAL, as text for people or as JSON for programs. \
                 Without --stanza every stanza is shown.",
        ..BASE
    },
    CommandDecl {
        command: Command::Manifest,
        name: "manifest",
        roles: MAIN_REMOTE,
        quiet: true,
        internal: true,
        summary: "Query a manifest.",
        detail: "Shows what the manifest of a backup holds and how a restore would go about it.",
        ..BASE
    },
    CommandDecl {
        command: Command::RepoGet,
        name: "repo-get",
        roles: MAIN_REMOTE,
        quiet: true,
        parameters: true,
        summary: "Get a file from a repository.",
        detail: "Writes the file to standard output, decrypted unless --raw is given. The path is absolute or relative to \
                 the repository. Exit status 1 means that the file is missing and --ignore-missing was given.",
        ..BASE
    },
    CommandDecl {
        command: Command::RepoLs,
        name: "repo-ls",
        roles: MAIN_REMOTE,
        quiet: true,
        parameters: true,
        summary: "List files in a repository.",
        detail: "Lists a directory of any kind of repository. The path is absolute or relative to the repository. The text \
                 output has one name per line, the JSON output has types, sizes and times too.",
        ..BASE
    },
    CommandDecl {
        command: Command::RepoRm,
        name: "repo-rm",
        roles: MAIN_REMOTE,
        quiet: true,
        parameters: true,
        internal: true,
        summary: "Remove files in a repository.",
        detail: "Removes a file, or with --recurse a directory and all below it.",
        ..BASE
    },
    CommandDecl {
        command: Command::Restore,
        name: "restore",
        roles: MAIN_LOCAL_REMOTE,
        lock: LockKind::Restore,
        lock_required: true,
        log_file: true,
        summary: "Restore a database cluster.",
        detail: "Restores the latest backup of the first repository that has one, unless --repo, --set or a recovery target \
                 choose another. The data directory must be empty unless --delta or --force is given.",
        ..BASE
    },
    CommandDecl {
        command: Command::Server,
        name: "server",
        log_file: true,
        summary: "Serve other hosts by TLS.",
        detail: "Lets other hosts reach this one without SSH; both sides prove themselves by certificates.",
        ..BASE
    },
    CommandDecl {
        command: Command::ServerPing,
        name: "server-ping",
        parameters: true,
        summary: "Ping a server.",
        detail: "Connects to a server and tells whether it answers. No certificates are needed, so this shows nothing about \
                 authorization.",
        ..BASE
    },
    CommandDecl {
        command: Command::StanzaCreate,
        name: "stanza-create",
        roles: MAIN_REMOTE,
        lock: LockKind::All,
        lock_required: true,
        log_file: true,
        summary: "Create the required stanza data.",
        detail: "Has to run once for each stanza, before the first backup and before archiving can work. Running it again \
                 is harmless and says whether the stanza is valid.",
        ..BASE
    },
    CommandDecl {
        command: Command::StanzaDelete,
        name: "stanza-delete",
        roles: MAIN_REMOTE,
        lock: LockKind::All,
        lock_required: true,
        log_file: true,
        summary: "Delete a stanza.",
        detail: "Removes all backups and archived WAL of the stanza from one repository. PostgreSQL must be down (or --force \
                 be given) and the stanza must have been stopped by the stop command.",
        ..BASE
    },
    CommandDecl {
        command: Command::StanzaUpgrade,
        name: "stanza-upgrade",
        roles: MAIN_REMOTE,
        lock: LockKind::All,
        lock_required: true,
        log_file: true,
        summary: "Upgrade a stanza.",
        detail: "Has to run after PostgreSQL was upgraded to a new major version. Backups of older versions stay.",
        ..BASE
    },
    CommandDecl {
        command: Command::Start,
        name: "start",
        log_file: true,
        summary: "Allow processes to run.",
        detail: "Undoes the stop command, for one stanza or for all.",
        ..BASE
    },
    CommandDecl {
        command: Command::Stop,
        name: "stop",
        log_file: true,
        summary: "Stop processes from running.",
        detail: "Lets no new process that writes to the repository start, for one stanza or for all. Running ones go on \
                 unless --force is given.",
        ..BASE
    },
    CommandDecl {
        command: Command::Verify,
        name: "verify",
        roles: MAIN_LOCAL_REMOTE,
        log_file: true,
        summary: "Verify contents of a repository.",
        detail: "Reads backups and archived WAL again and compares them with their recorded checksums.",
        ..BASE
    },
    CommandDecl {
        command: Command::Version,
        name: "version",
        quiet: true,
        summary: "Get version.",
        detail: "Shows the version of the program.",
        ..BASE
    },
];
