//! Options of the log.

use crate::config::decl::DefaultValue::Fixed;
use crate::config::decl::{HelpGroup, OptionDecl, ValueKind};
use crate::config::handle::{Opt, options};
use crate::config::options::{EVERY, STANZA_AND_REPO};

/// The levels of all outputs.
const LEVELS: &[(&str, &str)] = &[
    ("off", "nothing"),
    ("error", "errors"),
    ("warn", "warnings and above"),
    ("info", "the steps of the command and above"),
    ("detail", "a line for each file and above"),
    ("debug", "debugging information and above"),
    ("trace", "everything"),
];

options! {
    LOG_LEVEL_CONSOLE: Opt<String> = OptionDecl {
        name: "log-level-console",
        kind: ValueKind::StringId,
        commands: EVERY,
        default: Fixed("warn"),
        allow: &["off", "error", "warn", "info", "detail", "debug", "trace"],
        values: LEVELS,
        help: HelpGroup::Log,
        summary: "Level of the log on standard output.",
        detail: "Lines of this level and above go to standard output.",
        ..OptionDecl::BASE
    };

    LOG_LEVEL_FILE: Opt<String> = OptionDecl {
        name: "log-level-file",
        kind: ValueKind::StringId,
        commands: EVERY,
        default: Fixed("info"),
        allow: &["off", "error", "warn", "info", "detail", "debug", "trace"],
        values: LEVELS,
        help: HelpGroup::Log,
        summary: "Level of the log file.",
        detail: "Lines of this level and above go to the log file.",
        ..OptionDecl::BASE
    };

    LOG_LEVEL_STDERR: Opt<String> = OptionDecl {
        name: "log-level-stderr",
        kind: ValueKind::StringId,
        commands: EVERY,
        default: Fixed("off"),
        allow: &["off", "error", "warn", "info", "detail", "debug", "trace"],
        values: LEVELS,
        help: HelpGroup::Log,
        summary: "Level of the log on standard error.",
        detail: "Lines of this level and above go to standard error instead of standard output.",
        ..OptionDecl::BASE
    };

    LOG_PATH: Opt<String> = OptionDecl {
        name: "log-path",
        kind: ValueKind::Path,
        commands: EVERY,
        default: Fixed("/var/log/pgbackrest"),
        help: HelpGroup::Log,
        summary: "Directory of log files.",
        detail: "File names contain the stanza and the command. If a log file can't be opened, the command runs \
            without it.",
        ..OptionDecl::BASE
    };

    LOG_SUBPROCESS: Opt<bool> = OptionDecl {
        name: "log-subprocess",
        kind: ValueKind::Boolean,
        commands: STANZA_AND_REPO,
        default: Fixed("n"),
        help: HelpGroup::Log,
        summary: "Log in subprocesses.",
        detail: "Each process that the command starts on another host writes a log file there, at log-level-file.",
        ..OptionDecl::BASE
    };

    LOG_TIMESTAMP: Opt<bool> = OptionDecl {
        name: "log-timestamp",
        kind: ValueKind::Boolean,
        commands: EVERY,
        default: Fixed("y"),
        help: HelpGroup::Log,
        summary: "Start log lines with the time.",
        detail: "Disable it if something else adds the time.",
        ..OptionDecl::BASE
    };
}
