//! The content of an option's declaration: kinds of values, defaults, dependencies, and the declaration itself.
//!
//! Each option is declared once, in a file of [`super::options`]. The argument parser, the readers of environment and
//! files, help, completions, the manual page and the documents use these declarations. The facts are those of
//! pgBackRest 2.60 (its `build/config.yaml`).

pub use super::command_decl::{
    ANY_ROLE, Command, CommandDecl, CommandSet, LOCAL_REMOTE, LockKind, MAIN, MAIN_ASYNC, NOT_REMOTE, Role, RoleSet, on,
};
pub use super::commands::COMMANDS;

/// The kind of an option's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ValueKind {
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
    /// One word of a list.
    StringId,
    /// Several texts.
    List,
    /// Several `key=value` pairs.
    Hash,
}

impl ValueKind {
    /// Returns whether the option may be repeated.
    pub const fn is_multi(self) -> bool {
        matches!(self, ValueKind::List | ValueKind::Hash)
    }
}

/// Where an option may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Only on the command line and in the environment.
    CommandLine,
    /// Also in every section of a configuration file.
    Global,
    /// In stanza sections of a configuration file, but not in global sections.
    Stanza,
}

/// A group of options that exist once per index, e.g. `repo1-path` and `repo2-path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum IndexGroup {
    /// `pgN-...`: one PostgreSQL cluster each.
    Pg,
    /// `repoN-...`: one repository each.
    Repo,
}

impl IndexGroup {
    /// Both groups.
    pub const ALL: [IndexGroup; 2] = [IndexGroup::Pg, IndexGroup::Repo];

    /// Returns the text before the index. Option names of the group begin with it.
    pub const fn name(self) -> &'static str {
        match self {
            IndexGroup::Pg => "pg",
            IndexGroup::Repo => "repo",
        }
    }
}

/// The value of an option that nobody set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultValue {
    /// No default: the option is required or unset.
    None,
    /// Always this one, as it would be typed.
    Fixed(&'static str),
    /// The default depends on the value of the option that this option depends on.
    ByDepend(&'static [(&'static str, &'static str)]),
    /// The path by which the program was started.
    Program,
}

/// Which numbers are allowed. The limits are written as a user would type them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// All.
    Any,
    /// From the first to the second, inclusive.
    Fixed(&'static str, &'static str),
    /// The range depends on the value of the option that this option depends on.
    ByDepend(&'static [(&'static str, &'static str, &'static str)]),
}

/// The option is valid only if another option is set, or has one of some values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depend {
    /// The other option's name.
    pub option: &'static str,
    /// Values of the other option that make this option valid; empty means any value.
    pub values: &'static [&'static str],
    /// The value of this option if it is not valid; `None` means no value.
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

/// What differs for one command. `None` (or an empty list) keeps the option's own setting.
#[derive(Clone, Copy, Debug)]
pub struct Override {
    /// The command.
    pub command: Command,
    /// The roles of this command that know the option.
    pub roles: Option<RoleSet>,
    /// Whether the option is required.
    pub required: Option<bool>,
    /// The default.
    pub default: Option<DefaultValue>,
    /// The allowed words.
    pub allow: &'static [&'static str],
    /// Allowed words that pgBackRest does not have. It refuses them in the environment, which both programs read.
    pub own_allow: &'static [&'static str],
    /// The meaning of the allowed words.
    pub values: &'static [(&'static str, &'static str)],
    /// The dependency.
    pub depend: Option<Depend>,
    /// Whether help omits the option.
    pub internal: Option<bool>,
    /// One sentence for help; empty means the option's own.
    pub summary: &'static str,
    /// The description for help; empty means the option's own.
    pub detail: &'static str,
}

impl Override {
    /// No difference. Complete it with `..Override::NONE`.
    pub const NONE: Override = Override {
        command: Command::Help,
        roles: None,
        required: None,
        default: None,
        allow: &[],
        own_allow: &[],
        values: &[],
        depend: None,
        internal: None,
        summary: "",
        detail: "",
    };
}

/// Whether an option has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It has.
    Full,
    /// The option is accepted, but there is nothing yet that it could apply to. The text gives the reason.
    Moot(&'static str),
}

/// The heading under which help lists an option.
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
    /// The kind of value.
    pub kind: ValueKind,
    /// Where the option may be set.
    pub section: Section,
    /// The index group that it belongs to.
    pub group: Option<IndexGroup>,
    /// The commands that know it.
    pub commands: CommandSet,
    /// The roles of these commands that know it.
    pub roles: RoleSet,
    /// Whether the option is required if it has no default.
    pub required: bool,
    /// Its value when nobody sets it.
    pub default: DefaultValue,
    /// The allowed words (or numbers, for a size), in the order of pgBackRest's error; empty means no such limit.
    pub allow: &'static [&'static str],
    /// The meaning of the allowed words, in the order of pgBackRest's help, which shell completion reads.
    pub values: &'static [(&'static str, &'static str)],
    /// The allowed numbers.
    pub range: Range,
    /// The option that it depends on.
    pub depend: Option<Depend>,
    /// What differs for some commands.
    pub overrides: &'static [Override],
    /// Deprecated names. A `?` stands for the index.
    pub deprecated: &'static [&'static str],
    /// Whether `--no-name` is allowed although the option is valid on the command line only.
    pub negate: bool,
    /// Whether the option is a word list with `y` and `n` that may be written like a boolean.
    pub bool_like: bool,
    /// Whether the option contains a secret. A secret is refused on the command line and never shown.
    pub secure: bool,
    /// Whether help omits the option from lists.
    pub internal: bool,
    /// Whether pgBackRest lacks the option. Such an option is accepted only on the command line, by its full name.
    pub own: bool,
    /// Commands of pgBackRest for which it lacks the option. They accept it only on the command line.
    pub own_commands: CommandSet,
    /// The heading in help.
    pub help: HelpGroup,
    /// Whether the option has an effect.
    pub support: Support,
    /// One sentence, with its period.
    pub summary: &'static str,
    /// More sentences; empty lines separate paragraphs.
    pub detail: &'static str,
}

impl OptionDecl {
    /// The most common values. Complete it with `..OptionDecl::BASE`.
    pub const BASE: OptionDecl = OptionDecl {
        name: "",
        kind: ValueKind::String,
        section: Section::Global,
        group: None,
        commands: CommandSet::NONE,
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
        own_commands: CommandSet::NONE,
        help: HelpGroup::Command,
        support: Support::Full,
        summary: "",
        detail: "",
    };

    /// Returns what differs for the command, if anything does.
    pub fn for_command(&self, command: Command) -> Option<&'static Override> {
        self.overrides.iter().find(|special| special.command == command)
    }

    /// Returns whether this role of the command knows the option.
    pub fn is_valid(&self, command: Command, role: Role) -> bool {
        self.commands.has(command)
            && command.decl().roles.has(role)
            && self.for_command(command).and_then(|special| special.roles).unwrap_or(self.roles).has(role)
    }

    /// Returns whether `--no-name` is allowed.
    pub fn can_negate(&self) -> bool {
        self.negate || (self.section != Section::CommandLine && (self.kind == ValueKind::Boolean || self.bool_like))
    }

    /// Returns whether `--reset-name` is allowed.
    pub fn can_reset(&self) -> bool {
        self.section != Section::CommandLine
    }

    /// Returns the name with an index, e.g. `repo2-path`, or the plain name if the option has no group.
    pub fn indexed_name(&self, key: u32) -> String {
        match self.group {
            None => self.name.to_owned(),
            Some(group) => format!("{}{key}{}", group.name(), &self.name[group.name().len()..]),
        }
    }

    /// Returns the default for a command, before dependencies are applied.
    pub fn default_for(&self, command: Command) -> DefaultValue {
        self.for_command(command).and_then(|special| special.default).unwrap_or(self.default)
    }

    /// Returns whether a command requires the option.
    pub fn required_for(&self, command: Command) -> bool {
        // init asks for what is missing, and checks what it writes
        command != Command::Init
            && self.for_command(command).and_then(|special| special.required).unwrap_or(self.required)
    }

    /// The allowed words for a command.
    pub fn allow_for(&self, command: Command) -> &'static [&'static str] {
        match self.for_command(command) {
            Some(special) if !special.allow.is_empty() => special.allow,
            _ => self.allow,
        }
    }

    /// The allowed words for a command that pgBackRest does not have.
    pub fn own_allow_for(&self, command: Command) -> &'static [&'static str] {
        self.for_command(command).map_or(&[], |special| special.own_allow)
    }

    /// Returns the allowed words for a command with their meaning; empty if the words need no explanation.
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

    /// Returns whether help omits the option from a command's list.
    pub fn internal_for(&self, command: Command) -> bool {
        self.for_command(command).and_then(|special| special.internal).unwrap_or(self.internal)
    }
}
