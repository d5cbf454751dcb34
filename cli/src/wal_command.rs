//! The command that PostgreSQL runs to get WAL.

use engine::test_restore::WalCommandPaths;

use crate::config::{Command, Config, ExecTarget, Replacement, Role, Source, opt, quote_for_shell};

/// Options of restore that `restore_command` must not pass on, because they have no meaning for archive-get or would
/// mislead it.
const NOT_FOR_ARCHIVE_GET: [&str; 11] = [
    "exec-id",
    "job-retry",
    "job-retry-interval",
    "log-format",
    "log-level-console",
    "log-level-file",
    "log-level-stderr",
    "log-subprocess",
    "log-timestamp",
    "process-max",
    "cmd",
];

/// Options of restore that are for the restore itself. A recovery on it comes later, and may be the production cluster's.
const NOT_FOR_RECOVERY: [&str; 2] = ["max-rate", "max-rate-file"];

/// Options of a test that archive-get gets with other values.
const NOT_FOR_TESTS: [&str; 5] = ["archive-async", "lock-path", "pg1-path", "repo", "spool-path"];

/// Returns `restore_command` of a restored cluster: this program, with those options of this command line that
/// archive-get knows.
pub(crate) fn restore_command(config: &Config) -> String {
    let omitted = NOT_FOR_ARCHIVE_GET.into_iter().chain(NOT_FOR_RECOVERY);
    let replace: Vec<_> = omitted.map(|name| (name, Replacement::Omit)).collect();
    command(config, &archive_get_options(config, &replace))
}

/// The same for a test: it gets WAL from the repository of the backup, leaves alone what belongs to the original
/// cluster (its spool, its locks, its data directory, its host), and writes problems to the log of the server.
pub(crate) fn test_restore_command(config: &Config, paths: &WalCommandPaths) -> String {
    let omitted = NOT_FOR_ARCHIVE_GET.into_iter().chain(NOT_FOR_TESTS);
    let replace: Vec<_> = omitted.map(|name| (name, Replacement::Omit)).collect();
    let mut args = archive_get_options(config, &replace);
    let path =
        |option: &str, path: &std::path::Path| format!("--{option}={}", quote_for_shell(&path.to_string_lossy()));
    let own = [
        "--no-archive-async".to_owned(),
        path("lock-path", &paths.lock),
        "--log-level-console=off".to_owned(),
        "--log-level-file=off".to_owned(),
        "--log-level-stderr=warn".to_owned(),
        "--no-log-timestamp".to_owned(),
        path("pg1-path", &paths.data),
        "--reset-pg1-host".to_owned(),
        format!("--repo={}", paths.repo_key),
    ];
    // The name of the command comes last
    args.splice(..0, own);
    command(config, &args)
}

fn archive_get_options(config: &Config, replace: &[(&str, Replacement)]) -> Vec<String> {
    config.options_for_exec(&ExecTarget {
        command: Command::ArchiveGet,
        role: Role::Main,
        replace,
        local: true,
        quote: true,
    })
}

fn command(config: &Config, args: &[String]) -> String {
    let program = match (config.source(opt::CMD), config.find(opt::CMD)) {
        (Source::Default, _) | (_, None) => called_program(config.program()),
        (_, Some(cmd)) => cmd.to_owned(),
    };
    // PostgreSQL expands what follows a percent sign
    let command = format!("{} {}", quote_for_shell(&program), args.join(" ")).replace('%', "%%");
    format!("{command} %f \"%p\"")
}

/// Returns the name by which this program was called. A name without a path stays unchanged, so that the restored
/// cluster may recover on a host where the program is elsewhere. A relative path becomes absolute, because PostgreSQL
/// calls it from another directory.
fn called_program(called: &str) -> String {
    if !called.contains('/') {
        return called.to_owned();
    }
    let absolute = std::path::absolute(called).ok().and_then(|path| path.to_str().map(ToOwned::to_owned));
    absolute.unwrap_or_else(|| called.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::resolved;

    #[test]
    fn program_called_by_path_is_called_by_its_absolute_path() {
        assert_eq!(called_program("/usr/bin/pgbackrest"), "/usr/bin/pgbackrest");
        let relative = called_program("./pgbackrest");
        assert!(relative.starts_with('/') && relative.ends_with("/pgbackrest"), "{relative}");
    }

    #[test]
    fn program_called_by_bare_name_keeps_it() {
        assert_eq!(called_program("pgbackrest"), "pgbackrest");
    }

    #[test]
    fn rate_of_a_restore_is_not_that_of_later_recoveries_but_that_of_a_test_is() {
        let rate = "--max-rate=5MiB --max-rate-file=/rate";
        let config = resolved(&format!("restore --stanza=demo --pg1-path=/pg {rate}"));
        assert!(!restore_command(&config).contains("max-rate"), "{}", restore_command(&config));
        let config = resolved(&format!("test-restore --stanza=demo --scratch-path=/s {rate}"));
        let paths = WalCommandPaths { repo_key: 1, data: "/s/data".into(), lock: "/s/lock".into() };
        let command = test_restore_command(&config, &paths);
        assert!(command.contains(rate), "{command}");
    }

    #[test]
    fn command_of_a_test_leaves_alone_what_belongs_to_the_original_cluster() {
        let config =
            resolved("test-restore --stanza=demo --scratch-path=/s --repo1-path=/repo --lock-path=/locks --repo=1");
        let paths = WalCommandPaths { repo_key: 1, data: "/s/x y/data".into(), lock: "/s/lock".into() };
        let command = test_restore_command(&config, &paths);
        for part in [
            "--pg1-path=\"/s/x y/data\"",
            "--lock-path=/s/lock",
            "--no-archive-async",
            "--reset-pg1-host",
            "--repo1-path=/repo",
            "--stanza=demo",
        ] {
            assert!(command.contains(part), "{part} not in {command}");
        }
        assert!(!command.contains("/locks") && !command.contains("scratch-path"), "{command}");
        assert!(command.ends_with(" archive-get %f \"%p\""), "{command}");
        assert_eq!(command.matches("--repo=").count(), 1);
    }
}
