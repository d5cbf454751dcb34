//! The content of a command's declaration: roles, locks, and sets of commands and roles.

use engine::lock::LockType;

/// A command, in the order in which prefixes are matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is the command of that name, described in `CommandDecl::summary`")]
pub enum Command {
    Annotate,
    ArchiveGet,
    ArchivePush,
    Backup,
    Check,
    Expire,
    Help,
    Info,
    Manifest,
    RepoGet,
    RepoLs,
    RepoRm,
    Restore,
    Server,
    ServerPing,
    StanzaCreate,
    StanzaDelete,
    StanzaUpgrade,
    Start,
    Stop,
    Verify,
    Version,
    RecoveryPoints,
    TestRestore,
    Attest,
    Daemon,
    Schedule,
    Init,
    Metrics,
}

/// The role of a process of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// The process that the user started.
    Main,
    /// The background process of an asynchronous archive command.
    Async,
    /// A worker process on the same host.
    Local,
    /// A process on another host.
    Remote,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 4] = [Role::Main, Role::Async, Role::Local, Role::Remote];

    /// Returns the name after the colon; `None` for main, which has none.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Role::Main => None,
            Role::Async => Some("async"),
            Role::Local => Some("local"),
            Role::Remote => Some("remote"),
        }
    }
}

/// A set of roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleSet(u8);

impl RoleSet {
    /// These roles.
    pub const fn of(roles: &[Role]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < roles.len() {
            bits |= 1 << roles[index] as u8;
            index += 1;
        }
        RoleSet(bits)
    }

    /// Returns whether the role is in the set.
    pub const fn has(self, role: Role) -> bool {
        self.0 & (1 << role as u8) != 0
    }
}

/// Every role that the command has.
pub const ANY_ROLE: RoleSet = RoleSet::of(&Role::ALL);
/// Only the process that the user started.
pub const MAIN: RoleSet = RoleSet::of(&[Role::Main]);
/// Main and async.
pub const MAIN_ASYNC: RoleSet = RoleSet::of(&[Role::Main, Role::Async]);
/// All but remote.
pub const NOT_REMOTE: RoleSet = RoleSet::of(&[Role::Main, Role::Async, Role::Local]);
/// Processes that pgBackRest starts itself.
pub const LOCAL_REMOTE: RoleSet = RoleSet::of(&[Role::Local, Role::Remote]);

/// A set of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandSet(u32);

impl CommandSet {
    /// No command.
    pub const NONE: CommandSet = CommandSet(0);

    /// These commands.
    pub const fn of(commands: &[Command]) -> Self {
        let mut bits = 0;
        let mut index = 0;
        while index < commands.len() {
            bits |= 1 << commands[index] as u8;
            index += 1;
        }
        CommandSet(bits)
    }

    /// The set with these commands too.
    pub const fn with(self, commands: &[Command]) -> Self {
        CommandSet(self.0 | CommandSet::of(commands).0)
    }

    /// The set without these commands.
    pub const fn without(self, commands: &[Command]) -> Self {
        CommandSet(self.0 & !CommandSet::of(commands).0)
    }

    /// Returns whether the command is in the set.
    pub const fn has(self, command: Command) -> bool {
        self.0 & (1 << command as u8) != 0
    }
}

/// Short for [`CommandSet::of`].
pub const fn on(commands: &[Command]) -> CommandSet {
    CommandSet::of(commands)
}

/// The lock that a command takes when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of pgBackRest's lock types")]
pub enum LockKind {
    None,
    Archive,
    Backup,
    Restore,
    All,
}

impl LockKind {
    /// Returns the types of lock that the command takes.
    pub const fn types(self) -> &'static [LockType] {
        match self {
            LockKind::None => &[],
            LockKind::Archive => &[LockType::Archive],
            LockKind::Backup => &[LockType::Backup],
            LockKind::Restore => &[LockType::Restore],
            LockKind::All => &LockType::ALL,
        }
    }
}

/// The declaration of a command.
#[derive(Debug)]
pub struct CommandDecl {
    /// The command.
    pub command: Command,
    /// Its name on the command line.
    pub name: &'static str,
    /// The roles that it has.
    pub roles: RoleSet,
    /// The lock that the command uses.
    pub lock: LockKind,
    /// Whether the command takes the lock as soon as it starts.
    pub lock_required: bool,
    /// Whether the command writes a log file.
    pub log_file: bool,
    /// Whether the begin and end lines are logged at debug level.
    pub quiet: bool,
    /// Whether the command accepts parameters.
    pub parameters: bool,
    /// Whether help omits the command.
    pub internal: bool,
    /// Whether pgBackRest lacks the command. Such a command is accepted by its full name only, so that prefixes keep their
    /// meaning.
    pub own: bool,
    /// Whether a schedule may run the command.
    pub scheduled: bool,
    /// One sentence, with its period.
    pub summary: &'static str,
    /// More sentences; empty lines separate paragraphs.
    pub detail: &'static str,
}
