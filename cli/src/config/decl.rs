//! What a declaration says: commands, roles, kinds of values, and the option declaration itself.
//!
//! Each option is declared once, in a file of [`super::options`]; the argument parser, the environment and file readers, help,
//! completions, the manual page and the documents are all made from these declarations. The facts are pgBackRest 2.60's
//! (its `build/config.yaml`).

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
}

/// Which process of a command this is.
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

    /// The name after the colon; `None` for main, which has none.
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

    /// Whether the role is in the set.
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
/// Processes started by pgBackRest itself.
pub const LOCAL_REMOTE: RoleSet = RoleSet::of(&[Role::Local, Role::Remote]);

/// A set of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandSet(u32);

impl CommandSet {
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

    /// Whether the command is in the set.
    pub const fn has(self, command: Command) -> bool {
        self.0 & (1 << command as u8) != 0
    }

    /// The commands in the set, in table order.
    pub fn iter(self) -> impl Iterator<Item = Command> {
        COMMANDS.iter().map(|decl| decl.command).filter(move |&command| self.has(command))
    }
}

/// Shorthand for [`CommandSet::of`].
pub const fn on(commands: &[Command]) -> CommandSet {
    CommandSet::of(commands)
}

/// Which lock a command takes when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of pgBackRest's lock types")]
pub enum LockKind {
    None,
    Archive,
    Backup,
    Restore,
    All,
}

/// What a command is.
#[derive(Debug)]
pub struct CommandDecl {
    /// The command.
    pub command: Command,
    /// Its name on the command line.
    pub name: &'static str,
    /// The roles that it has.
    pub roles: RoleSet,
    /// Which lock it is about.
    pub lock: LockKind,
    /// Whether the lock is taken as soon as the command starts.
    pub lock_required: bool,
    /// Whether it writes a log file.
    pub log_file: bool,
    /// Whether its begin and end lines are for debugging only.
    pub quiet: bool,
    /// Whether it takes parameters.
    pub parameters: bool,
    /// Whether help leaves it out.
    pub internal: bool,
    /// One sentence, with its period.
    pub summary: &'static str,
    /// Some more sentences; paragraphs are separated by an empty line.
    pub detail: &'static str,
}

pub use super::commands::COMMANDS;
pub(in crate::config) use super::handle::options;
pub use super::handle::{Opt, OptIndexed, OptionType};

impl Command {
    /// Its declaration.
    pub fn decl(self) -> &'static CommandDecl {
        &COMMANDS[self as usize]
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        self.decl().name
    }

    /// Name and role as log lines and arguments show them, e.g. `archive-push:async`.
    pub fn role_name(self, role: Role) -> String {
        match role.name() {
            None => self.name().to_owned(),
            Some(role) => format!("{}:{role}", self.name()),
        }
    }
}

/// What kind of value an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// `y` or `n`; on the command line also `--name` and `--no-name`.
    Boolean,
    /// A decimal number.
    Integer,
    /// A number of bytes with an optional unit (powers of 1024).
    Size,
    /// A time span with an optional unit, seconds without one.
    Time,
    /// An absolute path.
    Path,
    /// Any text.
    String,
    /// One of a list of words.
    StringId,
    /// Several texts.
    List,
    /// Several `key=value` pairs.
    Hash,
}

impl Kind {
    /// Whether the option may be given several times.
    pub const fn is_multi(self) -> bool {
        matches!(self, Kind::List | Kind::Hash)
    }
}

/// Where an option may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// On the command line and in the environment only.
    CommandLine,
    /// In every section of a configuration file too.
    Global,
    /// In stanza sections of a configuration file, not in global ones.
    Stanza,
}

/// A group of options that exist once per index, e.g. `repo1-path` and `repo2-path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Group {
    /// `pgN-...`: one PostgreSQL cluster each.
    Pg,
    /// `repoN-...`: one repository each.
    Repo,
}

impl Group {
    /// Both groups.
    pub const ALL: [Group; 2] = [Group::Pg, Group::Repo];

    /// The text before the index; option names of the group begin with it.
    pub const fn name(self) -> &'static str {
        match self {
            Group::Pg => "pg",
            Group::Repo => "repo",
        }
    }
}

/// The value of an option that nobody set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultValue {
    /// None: required or unset.
    None,
    /// Always this one, as it would be typed.
    Fixed(&'static str),
    /// It depends on the value of the option that this one depends on.
    ByDepend(&'static [(&'static str, &'static str)]),
    /// The path by which the program was started.
    Program,
}

/// Which numbers are allowed; the limits as they would be typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// All.
    Any,
    /// From the first to the second, both included.
    Fixed(&'static str, &'static str),
    /// It depends on the value of the option that this one depends on.
    ByDepend(&'static [(&'static str, &'static str, &'static str)]),
}

/// The option has a meaning only when another option is set, or has one of some values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depend {
    /// The other option's name.
    pub option: &'static str,
    /// Its values that make this option valid; empty: any.
    pub values: &'static [&'static str],
    /// This option's value where it is not valid; none without it.
    pub otherwise: Option<&'static str>,
}

/// A dependency without a replacement value, for declarations.
pub const fn depend(option: &'static str, values: &'static [&'static str]) -> Option<Depend> {
    Some(Depend { option, values, otherwise: None })
}

/// A dependency with a replacement value, for declarations.
pub const fn depend_or(
    option: &'static str,
    values: &'static [&'static str],
    otherwise: &'static str,
) -> Option<Depend> {
    Some(Depend { option, values, otherwise: Some(otherwise) })
}

/// What is different for one command. `None` (or an empty list) keeps what the option says.
#[derive(Clone, Copy, Debug)]
pub struct Override {
    /// The command.
    pub command: Command,
    /// The roles of this command that know the option.
    pub roles: Option<RoleSet>,
    /// Whether the option must be set.
    pub required: Option<bool>,
    /// The default.
    pub default: Option<DefaultValue>,
    /// The allowed words.
    pub allow: &'static [&'static str],
    /// What the allowed words mean.
    pub values: &'static [(&'static str, &'static str)],
    /// The dependency.
    pub depend: Option<Depend>,
    /// Whether help leaves the option out.
    pub internal: Option<bool>,
    /// Values whose feature is missing, each with what it is.
    pub not_yet: &'static [(&'static str, &'static str)],
    /// One sentence for help; empty: the option's.
    pub summary: &'static str,
    /// The description for help; empty: the option's.
    pub detail: &'static str,
}

impl Override {
    /// Nothing is different. To be completed with `..Override::NONE`.
    pub const NONE: Override = Override {
        command: Command::Help,
        roles: None,
        required: None,
        default: None,
        allow: &[],
        values: &[],
        depend: None,
        internal: None,
        not_yet: &[],
        summary: "",
        detail: "",
    };
}

/// Whether the feature behind an option exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does.
    Full,
    /// The option is accepted, and there is nothing yet that it could apply to; the text says why.
    Moot(&'static str),
    /// Setting the option is refused; the text names the missing feature.
    NotYet(&'static str),
}

/// Under which heading help lists an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the headings of pgBackRest's help")]
pub enum HelpGroup {
    Command,
    General,
    Log,
    Maintainer,
    Repository,
    Stanza,
}

impl HelpGroup {
    /// Every group, in the order of help.
    pub const ALL: [HelpGroup; 6] = [
        HelpGroup::Command,
        HelpGroup::General,
        HelpGroup::Log,
        HelpGroup::Maintainer,
        HelpGroup::Repository,
        HelpGroup::Stanza,
    ];

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            HelpGroup::Command => "Command",
            HelpGroup::General => "General",
            HelpGroup::Log => "Log",
            HelpGroup::Maintainer => "Maintainer",
            HelpGroup::Repository => "Repository",
            HelpGroup::Stanza => "Stanza",
        }
    }
}

/// All that is known about one option.
#[derive(Clone, Copy, Debug)]
pub struct OptionDecl {
    /// Its name without an index, e.g. `repo-path`.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Where it may be set.
    pub section: Section,
    /// The index group that it belongs to.
    pub group: Option<Group>,
    /// The commands that know it.
    pub commands: CommandSet,
    /// The roles of these commands that know it.
    pub roles: RoleSet,
    /// Whether it must be set where it has no default.
    pub required: bool,
    /// Its value when nobody sets it.
    pub default: DefaultValue,
    /// The allowed words (or numbers, for a size), in the order of pgBackRest's error; empty: no such limit.
    pub allow: &'static [&'static str],
    /// What the allowed words mean, in the order of pgBackRest's help, which shell completion reads.
    pub values: &'static [(&'static str, &'static str)],
    /// The allowed numbers.
    pub range: Range,
    /// The option that it depends on.
    pub depend: Option<Depend>,
    /// What is different for some commands.
    pub overrides: &'static [Override],
    /// Old names; a `?` stands for the index.
    pub deprecated: &'static [&'static str],
    /// `--no-name` is allowed even though the option is for the command line only.
    pub negate: bool,
    /// A word list with `y` and `n` that may be written like a boolean.
    pub bool_like: bool,
    /// Holds a secret: refused on the command line, never shown.
    pub secure: bool,
    /// Help leaves it out of lists.
    pub internal: bool,
    /// pgBackRest does not have it: it can be given on the command line alone, by its full name.
    pub own: bool,
    /// Help's heading.
    pub help: HelpGroup,
    /// Whether the feature behind it exists.
    pub support: Support,
    /// Values whose feature is missing, each with what it is.
    pub not_yet: &'static [(&'static str, &'static str)],
    /// One sentence, with its period.
    pub summary: &'static str,
    /// Some more sentences; paragraphs are separated by an empty line.
    pub detail: &'static str,
}

impl OptionDecl {
    /// The most common values. To be completed with `..OptionDecl::BASE`.
    pub const BASE: OptionDecl = OptionDecl {
        name: "",
        kind: Kind::String,
        section: Section::Global,
        group: None,
        commands: CommandSet(0),
        roles: ANY_ROLE,
        required: true,
        default: DefaultValue::None,
        allow: &[],
        values: &[],
        range: Range::Any,
        depend: None,
        overrides: &[],
        deprecated: &[],
        negate: false,
        bool_like: false,
        secure: false,
        internal: false,
        own: false,
        help: HelpGroup::Command,
        support: Support::Full,
        not_yet: &[],
        summary: "",
        detail: "",
    };

    /// What is different for the command, if anything is.
    pub fn for_command(&self, command: Command) -> Option<&'static Override> {
        self.overrides.iter().find(|special| special.command == command)
    }

    /// Whether this process of the command knows the option.
    pub fn is_valid(&self, command: Command, role: Role) -> bool {
        self.commands.has(command)
            && command.decl().roles.has(role)
            && self.for_command(command).and_then(|special| special.roles).unwrap_or(self.roles).has(role)
    }

    /// Whether `--no-name` is allowed.
    pub fn can_negate(&self) -> bool {
        self.negate || (self.section != Section::CommandLine && (self.kind == Kind::Boolean || self.bool_like))
    }

    /// Whether `--reset-name` is allowed.
    pub fn can_reset(&self) -> bool {
        self.section != Section::CommandLine
    }

    /// The name with an index, e.g. `repo2-path`; the plain name where there is no group.
    pub fn indexed_name(&self, key: u32) -> String {
        match self.group {
            None => self.name.to_owned(),
            Some(group) => format!("{}{key}{}", group.name(), &self.name[group.name().len()..]),
        }
    }

    /// The default for a command, before dependencies are looked at.
    pub fn default_for(&self, command: Command) -> DefaultValue {
        self.for_command(command).and_then(|special| special.default).unwrap_or(self.default)
    }

    /// Whether the option must be set for a command.
    pub fn required_for(&self, command: Command) -> bool {
        self.for_command(command).and_then(|special| special.required).unwrap_or(self.required)
    }

    /// The allowed words for a command.
    pub fn allow_for(&self, command: Command) -> &'static [&'static str] {
        match self.for_command(command) {
            Some(special) if !special.allow.is_empty() => special.allow,
            _ => self.allow,
        }
    }

    /// The allowed words for a command with what they mean; empty where the words speak for themselves.
    pub fn values_for(&self, command: Command) -> impl Iterator<Item = (&'static str, &'static str)> {
        let values = match self.for_command(command) {
            Some(special) if !special.values.is_empty() => special.values,
            _ => self.values,
        };
        let allowed = self.allow_for(command);
        values.iter().copied().filter(|(value, _)| allowed.contains(value))
    }

    /// The dependency for a command.
    pub fn depend_for(&self, command: Command) -> Option<Depend> {
        self.for_command(command).and_then(|special| special.depend).or(self.depend)
    }

    /// Whether help leaves the option out of a command's list.
    pub fn internal_for(&self, command: Command) -> bool {
        self.for_command(command).and_then(|special| special.internal).unwrap_or(self.internal)
    }
}
