//! The table of all commands.

use super::command_decl::{ANY_ROLE, Command, CommandDecl, CommandSet, LockKind, MAIN, Role, RoleSet};

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
    own: false,
    scheduled: false,
    summary: "",
    detail: "",
};

/// Every command, in the order of [`Command`], which is also the order in which prefixes match.
pub static COMMANDS: [CommandDecl; 29] = [
    CommandDecl {
        command: Command::Annotate,
        name: "annotate",
        roles: MAIN_REMOTE,
        lock: LockKind::Backup,
        lock_required: true,
        summary: "Add or change the annotation of a backup.",
        detail: "An annotation is a set of key/value pairs that info shows with the backup. A key without a value is \
            removed. Other keys stay unchanged.",
        ..BASE
    },
    CommandDecl {
        command: Command::ArchiveGet,
        name: "archive-get",
        roles: ANY_ROLE,
        lock: LockKind::Archive,
        parameters: true,
        summary: "Get a WAL segment from the archive.",
        detail: "PostgreSQL calls it as restore_command during recovery, with the name of the requested file (%f) and \
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
        detail: "PostgreSQL calls it as archive_command with the path of the finished segment (%p). It succeeds only \
            if the segment is durable in every configured repository.",
        ..BASE
    },
    CommandDecl {
        command: Command::Backup,
        name: "backup",
        roles: MAIN_LOCAL_REMOTE,
        lock: LockKind::Backup,
        lock_required: true,
        log_file: true,
        scheduled: true,
        summary: "Backup a database cluster.",
        detail: "Stores the backup in the repository with the lowest number, unless --repo selects another one. Run it from \
            the daemon command, cron, a systemd timer or similar.",
        ..BASE
    },
    CommandDecl {
        command: Command::Check,
        name: "check",
        roles: MAIN_REMOTE,
        scheduled: true,
        summary: "Check the configuration.",
        detail: "Verifies that the clusters can be reached and that each repository matches them. On a primary, it \
            also switches the WAL segment and verifies that the segment reaches every repository within \
            archive-timeout. On a standby, it checks only the repositories.",
        ..BASE
    },
    CommandDecl {
        command: Command::Expire,
        name: "expire",
        roles: MAIN_REMOTE,
        lock: LockKind::Backup,
        lock_required: true,
        log_file: true,
        scheduled: true,
        summary: "Expire backups that exceed retention.",
        detail: "Removes backups that exceed the retention settings, and the WAL that no remaining backup needs. \
            backup runs it at the end unless expire-auto is disabled.",
        ..BASE
    },
    CommandDecl {
        command: Command::Help,
        name: "help",
        quiet: true,
        parameters: true,
        summary: "Get help.",
        detail: "Without a command, it lists the commands. With a command, it describes the command and lists its \
            options. With a command and an option, it describes the option.",
        ..BASE
    },
    CommandDecl {
        command: Command::Info,
        name: "info",
        roles: MAIN_REMOTE,
        quiet: true,
        summary: "Retrieve information about backups.",
        detail: "Shows stanzas with their status, backups and archived WAL, as text or as JSON. Without --stanza it \
            shows every stanza.",
        ..BASE
    },
    CommandDecl {
        command: Command::Manifest,
        name: "manifest",
        roles: MAIN_REMOTE,
        quiet: true,
        internal: true,
        summary: "Query a manifest.",
        detail: "Shows the content of a backup's manifest and how a restore would use it.",
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
        detail: "Lists a directory of a repository of any type. The path is absolute or relative to the repository. \
            The text output has one name per line. The JSON output also has types, sizes and times.",
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
        detail: "Removes a file, or with --recurse a directory and everything below it.",
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
        detail: "Restores the latest backup of the first repository that has one, unless --repo, --set or a recovery \
            target selects another. The data directory must be empty unless --delta or --force is given.",
        ..BASE
    },
    CommandDecl {
        command: Command::Server,
        name: "server",
        log_file: true,
        summary: "Serve other hosts by TLS.",
        detail: "Allows other hosts to connect to this one without SSH. Both sides authenticate with certificates.",
        ..BASE
    },
    CommandDecl {
        command: Command::ServerPing,
        name: "server-ping",
        parameters: true,
        summary: "Ping a server.",
        detail: "Connects to a server and checks that it responds. It needs no certificates, so it does not check \
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
        detail: "Run it once for each stanza, before the first backup and before archiving. Running it again is safe \
            and checks whether the stanza is valid.",
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
        detail: "Removes all backups and archived WAL of the stanza from one repository. The stanza must have been \
            stopped with the stop command, and PostgreSQL must not be running unless --force is given.",
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
        detail: "Run it after PostgreSQL was upgraded to a new major version. Backups of older versions are kept.",
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
        detail: "Prevents new processes that write to the repository from starting, for one stanza or for all. \
            Running processes continue unless --force is given.",
        ..BASE
    },
    CommandDecl {
        command: Command::Verify,
        name: "verify",
        roles: MAIN_LOCAL_REMOTE,
        log_file: true,
        scheduled: true,
        summary: "Verify contents of a repository.",
        detail: "Reads backups and archived WAL and compares them with their recorded checksums.",
        ..BASE
    },
    CommandDecl {
        command: Command::Version,
        name: "version",
        quiet: true,
        summary: "Get version.",
        detail: "Prints the version of the program.",
        ..BASE
    },
    CommandDecl {
        command: Command::RecoveryPoints,
        name: "recovery-points",
        quiet: true,
        own: true,
        summary: "List the points to recover to.",
        detail: "Lists for each repository and timeline the ranges of WAL positions that a restore can recover to, from which \
            backups, and why a range ends. With --scan it also reads the WAL and lists named restore points, commit times, and \
            what removed data: dropped, truncated and rewritten relations, and dropped databases. So the position before a \
            mistake can be found.",
        ..BASE
    },
    CommandDecl {
        command: Command::TestRestore,
        name: "test-restore",
        log_file: true,
        own: true,
        scheduled: true,
        summary: "Prove that a backup can be recovered.",
        detail: "Restores a backup into a scratch directory, starts PostgreSQL on it, replays WAL, checks the cluster and \
            removes everything. Nothing of the original cluster is touched, and nobody else can connect to the copy: it \
            archives nothing, runs no jobs or subscriptions and does not listen to TCP. Exit status 104 means that the \
            backup was not proven; the report gives the reason. Other exit statuses mean that it could not be tested. \
            PostgreSQL refuses root, so run it as another user that can read the repository. The kernel must be able to \
            confine the server to the scratch directory: Linux 5.13 or later with Landlock.",
        ..BASE
    },
    CommandDecl {
        command: Command::Attest,
        name: "attest",
        parameters: true,
        own: true,
        summary: "Verify proofs of recovery.",
        detail: "attest verify checks the proofs that test-restore keeps in the repository: whether they are signed by the \
            key in --public-key-file, and whether each is about the backup that is there now. Exit status 104 means that \
            something speaks against a proof.",
        ..BASE
    },
    CommandDecl {
        command: Command::Daemon,
        name: "daemon",
        log_file: true,
        own: true,
        summary: "Run commands by schedule.",
        detail: "Runs until it gets SIGTERM, which also ends running commands cleanly. Schedules are sections of the \
            configuration files, which pgBackRest ignores:\n\n[demo:schedule:nightly]\nschedule=0 3 * * *\n\
            command=backup\ntype=full\n\nThe key schedule has five fields (minute, hour, day of month, month, day of \
            week), six with seconds first, or is @hourly, @daily, @weekly, @monthly or @yearly. A field has values, names \
            (JAN-DEC, SUN-SAT), lists (1,2), ranges (FRI-MON), steps (*/5), * and, for days, ?. The key command is backup, \
            check, expire, test-restore or verify. Other keys are options of that command, or \
            options of the daemon for this schedule only. Options of the daemon for all schedules are in \
            [global:daemon].\n\nEach run is a process of its own with its own log. Runs of one stanza and repository do \
            not overlap. A run that was missed is made up for once. A scheduled verify fails if anything is invalid.\n\n\
            SIGHUP, or a change of the files, reads the configuration again. If it is not valid, the daemon says why, and the \
            schedules and their commands go on with the configuration that it has.",
        ..BASE
    },
    CommandDecl {
        command: Command::Schedule,
        name: "schedule",
        quiet: true,
        parameters: true,
        own: true,
        summary: "Show schedules, or run one now.",
        detail: "Without parameters, shows the schedules of the daemon with their next runs, their last results and what is \
            late. 'schedule run NAME' runs the command of a schedule now, with its hooks and webhook, whether or not a \
            daemon is running. The exit status is 0 if the command succeeds.",
        ..BASE
    },
    CommandDecl {
        command: Command::Init,
        name: "init",
        own: true,
        summary: "Set up backups of a cluster.",
        detail: "Finds the clusters of this host, writes a configuration for one of them and shows the settings that PostgreSQL \
            needs, then runs stanza-create and check. Options that describe the repository, and others that a configuration \
            file can contain, are written to the file. Unless they say otherwise, the file gets what suits most: \
            retention-full=2, bundle=y and block=y for each repository, compress-type=zst, start-fast=y, and process-max by \
            the number of processors. On a terminal, init asks for what is missing, and before it writes. \
            Secrets come from the terminal or the environment (PGBACKREST_REPO1_S3_KEY and so on).\n\n\
            Nothing is written before it is shown. An existing file is never changed: if it has no section of the stanza, init \
            shows what to add and fails. If it has one, init writes nothing and goes on with the settings of PostgreSQL. So it \
            can be run again after a restart of the server. Run as root, it gives the file and the directories to the owner of \
            the cluster and runs the commands as this user.\n\n\
            The exit status is 0 if everything is done and the check succeeded, and 1 if something is left to do, which the \
            output tells.",
        ..BASE
    },
    CommandDecl {
        command: Command::Metrics,
        name: "metrics",
        quiet: true,
        own: true,
        summary: "Print metrics for Prometheus.",
        detail: "Looks at the repositories and clusters of all stanzas of the configuration and at the jobs of the daemon, \
            and prints metrics in the text format of Prometheus and OpenMetrics, among them all those of \
            pgbackrest_exporter. With --metrics-file it writes a file for the text collector of node_exporter instead. The \
            daemon does the same at intervals and serves the result. What can't be reached is a value of a metric and no \
            error.",
        ..BASE
    },
];

impl CommandSet {
    /// The commands in the set, in table order.
    pub fn iter(self) -> impl Iterator<Item = Command> {
        COMMANDS.iter().map(|decl| decl.command).filter(move |&command| self.has(command))
    }
}

impl Command {
    /// Its declaration.
    pub fn decl(self) -> &'static CommandDecl {
        &COMMANDS[self as usize]
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        self.decl().name
    }

    /// Returns name and role as shown in log lines and arguments, e.g. `archive-push:async`.
    pub fn role_name(self, role: Role) -> String {
        match role.name() {
            None => self.name().to_owned(),
            Some(role) => format!("{}:{role}", self.name()),
        }
    }
}
