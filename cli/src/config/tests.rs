//! Tests of the complete resolver: command line, environment and files to values, warnings and errors. Messages and
//! numbers are those of pgBackRest 2.60.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Files of a test.
#[derive(Default)]
struct TestFiles(BTreeMap<String, String>);

impl ConfigFiles for TestFiles {
    fn read(&self, path: &str) -> Result<Option<String>> {
        Ok(self.0.get(path).cloned())
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>> {
        let inside = format!("{path}/");
        let names: Vec<String> =
            self.0.keys().filter_map(|name| name.strip_prefix(&inside)).map(str::to_owned).collect();
        Ok(Some(names).filter(|names| !names.is_empty()))
    }
}

/// One run of the resolver.
#[derive(Default)]
struct Run {
    environment: Vec<(String, String)>,
    files: TestFiles,
}

impl Run {
    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((format!("PGBACKREST_{name}"), value.to_owned()));
        self
    }

    fn file(mut self, path: &str, text: &str) -> Self {
        self.files.0.insert(path.to_owned(), text.to_owned());
        self
    }

    /// The default configuration file.
    fn config(self, text: &str) -> Self {
        self.file("/etc/pgbackrest/pgbackrest.conf", text)
    }

    /// Arguments separated by blanks.
    fn run(self, args: &str) -> (Result<Config>, Vec<String>) {
        let args = std::iter::once("/usr/bin/rbr").chain(args.split_whitespace());
        let mut warnings = Vec::new();
        let config = CommandLine::parse(args).and_then(|line| {
            Config::resolve(line, Environment(self.environment), &self.files, &mut |text| warnings.push(text))
        });
        (config, warnings)
    }

    fn ok(self, args: &str) -> Config {
        let (config, warnings) = self.run(args);
        assert_eq!(warnings, Vec::<String>::new());
        config.unwrap()
    }

    /// Number and text of the error.
    fn err(self, args: &str) -> String {
        let error = self.run(args).0.unwrap_err();
        format!("[{:03}] {error}", error.code.number())
    }

    fn warnings(self, args: &str) -> Vec<String> {
        let (config, warnings) = self.run(args);
        config.unwrap();
        warnings
    }
}

fn run() -> Run {
    Run::default()
}

const BACKUP: &str = "--stanza=s --pg1-path=/p backup";

/// Resolves a command line with this configuration file.
pub(crate) fn resolved_with(config: &str, args: &str) -> Config {
    run().config(config).ok(args)
}

/// Returns the warnings about this configuration file.
pub(crate) fn warnings_of(config: &str, args: &str) -> Vec<String> {
    run().config(config).warnings(args)
}

/// Resolves a command line without files and environment.
pub(crate) fn resolved(args: &str) -> Config {
    Run::default().ok(args)
}

#[test]
fn value_from_each_source_follows_precedence() {
    let text =
        "[global]\nprocess-max=2\n[global:backup]\nprocess-max=3\n[s]\nprocess-max=4\n[s:backup]\nprocess-max=5\n";
    let get = |config: &Config| (config.get(opt::PROCESS_MAX).unwrap(), config.source(opt::PROCESS_MAX));
    assert_eq!(get(&run().ok(BACKUP)), (1, Source::Default));
    let mut text = text.to_owned();
    for expected in [5, 4, 3, 2] {
        assert_eq!(get(&run().config(&text).ok(BACKUP)), (expected, Source::File));
        let env = run().config(&text).env("PROCESS_MAX", "8");
        assert_eq!(get(&env.ok(BACKUP)), (8, Source::Environment));
        let env = run().config(&text).env("PROCESS_MAX", "8");
        assert_eq!(get(&env.ok(&format!("{BACKUP} --process-max=9"))), (9, Source::CommandLine));
        text = text.replace(&format!("process-max={expected}\n"), "");
    }
}

#[test]
fn option_before_or_after_the_command_is_the_same() {
    for args in ["--start-fast --stanza=s --pg1-path=/p backup", "backup --start-fast --stanza s --pg1-path /p"] {
        let config = run().ok(args);
        assert!(config.get(opt::START_FAST).unwrap());
        assert_eq!(config.get_at(opt::PG_PATH, 1).unwrap(), "/p");
        assert_eq!(config.params().len(), 0);
    }
}

#[test]
fn command_by_prefix_is_the_first_that_fits() {
    assert_eq!(CommandLine::parse(["x", "v"]).unwrap().command(), Command::Verify);
    assert_eq!(CommandLine::parse(["x", "vers"]).unwrap().command(), Command::Version);
    assert_eq!(CommandLine::parse(["x", "arch:async"]).unwrap().role(), Role::Async);
}

#[test]
fn reset_option_ignores_files_and_environment() {
    let config =
        run().config("[global]\nprocess-max=4\n").env("PROCESS_MAX", "5").ok(&format!("{BACKUP} --reset-process-max"));
    assert_eq!(config.get(opt::PROCESS_MAX).unwrap(), 1);
    assert_eq!(config.begin_text(), " --pg1-path=/p --reset-process-max --stanza=s");
}

#[test]
fn numbers_with_units_are_bytes_and_milliseconds() {
    let config = run().ok(&format!("{BACKUP} --manifest-save-threshold=2kB --archive-timeout=90 --io-timeout=150MS"));
    assert_eq!(config.get(opt::MANIFEST_SAVE_THRESHOLD).unwrap(), 2048);
    assert_eq!(config.get(opt::ARCHIVE_TIMEOUT).unwrap(), Duration::from_secs(90));
    assert_eq!(config.get(opt::IO_TIMEOUT).unwrap(), Duration::from_millis(150));
}

#[test]
fn repositories_keep_their_numbers() {
    let config = run().config("[global]\nrepo2-path=/b\nrepo7-path=/c/\n").ok(BACKUP);
    assert_eq!(config.repo_keys(), [2, 7]);
    assert_eq!(config.get_at(opt::REPO_PATH, 7).unwrap(), "/c");
    assert_eq!(config.find_at(opt::REPO_PATH, 1), None);
    assert_eq!(config.repo_default(), 2);
    let config = run().config("[global]\nrepo2-path=/b\nrepo7-path=/c\n").ok(&format!("{BACKUP} --repo=7"));
    assert_eq!(config.repo_keys_selected(), [7]);
}

#[test]
fn repository_with_nothing_but_unmet_options_is_dropped() {
    // Valid only for repo2-type=s3
    let config = run().config("[global]\nrepo1-path=/a\nrepo2-s3-bucket=b\n").ok(BACKUP);
    assert_eq!(config.repo_keys(), [1]);
    let config = run().config("[global]\nrepo2-s3-bucket=b\n").ok(BACKUP);
    assert_eq!(config.repo_keys(), [1]);
}

#[test]
fn cluster_1_always_exists() {
    let config = run().config("[s]\npg1-path=/p\npg3-path=/q\n").ok("--stanza=s backup");
    assert_eq!(config.pg_keys(), [1, 3]);
    assert_eq!(
        run().err("--stanza=s --pg3-path=/q backup"),
        "[037] backup command requires option: pg1-path\nHINT: does this stanza exist?"
    );
}

#[test]
fn unmet_dependency_takes_the_value_for_that_case() {
    let config =
        run().config("[global]\ncompress-level=5\nrepo1-block=y\n").ok(&format!("{BACKUP} --compress-type=none"));
    assert_eq!(config.get(opt::COMPRESS_LEVEL).unwrap(), 0);
    assert!(!config.get_at(opt::REPO_BLOCK, 1).unwrap());
    let config = run().ok(&format!("{BACKUP} --compress-type=zst"));
    assert_eq!(config.get(opt::COMPRESS_LEVEL).unwrap(), 3);
    assert_eq!(config.find(opt::SPOOL_PATH), None);
}

#[test]
fn lists_and_maps_collect_their_values() {
    let config = run().env("EXCLUDE", "a:b").ok(&format!("{BACKUP} --annotation=z=1 --annotation=a=2=3"));
    assert_eq!(config.get(opt::EXCLUDE).unwrap(), ["a", "b"]);
    let pairs: Vec<(String, String)> = config.get(opt::ANNOTATION).unwrap().into_iter().collect();
    assert_eq!(pairs, [("a".to_owned(), "2=3".to_owned()), ("z".to_owned(), "1".to_owned())]);
    assert_eq!(
        config.begin_text(),
        " --annotation=z=1 --annotation=a=2=3 --exclude=a --exclude=b --pg1-path=/p --stanza=s"
    );
    let config = run().config("[global]\nexclude=a\nexclude=b c\n").ok(BACKUP);
    assert_eq!(config.begin_text(), " --exclude=a --exclude=\"b c\" --pg1-path=/p --stanza=s");
}

#[test]
fn secret_is_shown_nowhere() {
    let config = run().env("REPO1_CIPHER_PASS", "xyzzy").env("REPO1_CIPHER_TYPE", "aes-256-cbc").ok(BACKUP);
    assert_eq!(config.get_at(opt::REPO_CIPHER_PASS, 1).unwrap(), "xyzzy");
    assert!(config.begin_text().contains("--repo1-cipher-pass=<redacted> --repo1-cipher-type=aes-256-cbc"));
    assert!(!format!("{config:?}").contains("xyzzy"));
    let args = config.options_for_exec(&ExecTarget {
        command: Command::Backup,
        role: Role::Local,
        replace: &[],
        local: false,
        quote: false,
    });
    assert!(!args.iter().any(|arg| arg.contains("xyzzy") || arg.contains("cipher")), "{args:?}");
}

#[test]
fn options_for_a_child_on_this_host_are_those_of_the_command_line() {
    let run = || run().config("[global]\nprocess-max=4\n[s]\npg1-path=/p q\n").env("COMPRESS_TYPE", "lz4");
    let config = run().ok("--stanza=s --archive-timeout=5 --no-neutral-umask --reset-log-path archive-push x");
    let replace = [("log-level-console", Replacement::Text("off".to_owned())), ("stanza", Replacement::Omit)];
    let (command, role) = (Command::ArchivePush, Role::Async);
    let local = config.options_for_exec(&ExecTarget { command, role, replace: &replace, local: true, quote: true });
    assert_eq!(local, ["--log-level-console=off", "--reset-log-path", "--no-neutral-umask", "archive-push:async"]);
    let remote = config.options_for_exec(&ExecTarget { command, role, replace: &[], local: false, quote: true });
    let expected = [
        "--compress-type=lz4",
        "--reset-log-path",
        "--no-neutral-umask",
        "--pg1-path=\"/p q\"",
        "--process-max=4",
        "--stanza=s",
        "archive-push:async",
    ];
    assert_eq!(remote, expected);
}

#[test]
fn files_are_found_where_the_options_say() {
    let files = || {
        run()
            .file("/etc/pgbackrest.conf", "[global]\nprocess-max=1\n")
            .file("/a/pgbackrest.conf", "[global]\nprocess-max=2\n")
            .file("/a/conf.d/x.conf", "[global]\nlock-path=/l")
            .file("/a/conf.d/y.conf", "[global]\nbuffer-size=2MiB")
            .file("/a/conf.d/z.txt", "garbage")
            .file("/c", "[global]\nprocess-max=3\n")
    };
    let values = |args: &str| {
        let config = files().ok(&format!("{BACKUP} {args}"));
        (config.get(opt::PROCESS_MAX).unwrap(), config.get(opt::BUFFER_SIZE).unwrap() == 2 << 20)
    };
    assert_eq!(values(""), (1, false));
    assert_eq!(values("--config-path=/a"), (2, true));
    assert_eq!(values("--config=/c"), (3, false));
    assert_eq!(values("--config=/c --config-path=/a"), (3, true));
    assert_eq!(values("--config-include-path=/a/conf.d"), (1, true));
    assert_eq!(values("--config=/c --config-include-path=/a/conf.d"), (3, true));
    assert_eq!(values("--no-config"), (1, false));
    assert_eq!(values("--no-config --config-path=/a"), (1, true));
    assert_eq!(files().err(&format!("{BACKUP} --config=/d")), "[055] unable to open missing file '/d' for read");
    assert_eq!(
        files().err(&format!("{BACKUP} --config-include-path=/d")),
        "[073] unable to list file info for missing path '/d'"
    );
}

#[test]
fn help_and_version_read_neither_files_nor_environment() {
    run().config("garbage").env("BOGUS", "x").ok("version");
    run().config("garbage").env("BOGUS", "x").ok("help");
}

#[test]
fn questionable_lines_are_warned_about() {
    let text = "[global]\nbogus=1\nno-delta=y\nreset-delta=y\nonline=n\npg1-port=5\n[global:backup]\ntarget-action=x\n\
                lock-path=/l\narchive-push-queue-max=1\n";
    let expected = [
        "configuration file contains command-line only option 'target-action'",
        "configuration file contains option 'archive-push-queue-max' invalid for section 'global:backup'",
        "configuration file contains invalid option 'bogus'",
        "configuration file contains negate option 'no-delta'",
        "configuration file contains reset option 'reset-delta'",
        "configuration file contains command-line only option 'online'",
        "configuration file contains stanza-only option 'pg1-port' in global section 'global'",
    ];
    assert_eq!(run().config(text).warnings(BACKUP), expected);
    let environment = run().env("BOGUS", "1").env("NO_DELTA", "y").env("RESET_DELTA", "y");
    let expected = [
        "environment contains invalid option 'bogus'",
        "environment contains invalid negate option 'no-delta'",
        "environment contains invalid reset option 'reset-delta'",
    ];
    assert_eq!(environment.warnings(BACKUP), expected);
    assert_eq!(
        run().warnings(&format!("{BACKUP} --annotation=a=1 --annotation=a=2")),
        ["key 'a' value '1' is overwritten with '2' for 'annotation' option"]
    );
}

#[test]
fn wrong_command_lines_have_pgbackrests_errors() {
    let cases = [
        ("bogus", "[048] invalid command 'bogus'"),
        ("backup:bogus", "[048] invalid command role 'bogus'"),
        ("backup:async", "[048] invalid command/role combination 'backup:async'"),
        ("help backup:local", "[048] help is not available for the 'local' role"),
        ("--stanza=x", "[030] no command found"),
        ("backup x", "[096] command does not allow parameters"),
        ("-x", "[031] option '-x' must begin with --"),
        ("--bogus=1", "[031] invalid option '--bogus=1'"),
        ("--re", "[031] invalid option '--re'"),
        ("--", "[031] invalid option '--'"),
        ("--no--x", "[031] option 'no--x' cannot begin with a dash"),
        ("--1-x", "[031] option '1-x' cannot begin with a number"),
        ("--stanza", "[031] option '--stanza' requires an argument"),
        ("--no-delta=y", "[031] option 'no-delta' does not allow an argument"),
        ("--delta=x", "[032] boolean option '--delta' argument must be 'y' or 'n'"),
        ("--no-stanza", "[031] option 'no-stanza' cannot be negated"),
        ("--reset-stanza", "[031] option 'reset-stanza' cannot be reset"),
        ("--stanza=a --stanza=b", "[031] option 'stanza' cannot be set multiple times"),
        ("--delta --no-delta", "[031] option 'delta' cannot be set and negated"),
        ("--delta --reset-delta", "[031] option 'delta' cannot be set and reset"),
        ("--no-delta --no-delta", "[031] option 'delta' is negated multiple times"),
        ("--reset-delta --reset-delta", "[031] option 'delta' is reset multiple times"),
        ("--reset-delta --no-delta", "[031] option 'delta' cannot be negated and reset"),
        ("--stanza1-x=1", "[031] invalid option '--stanza1-x=1'\nHINT: did you mean '--stanza'?"),
        ("--start1-fast", "[031] option 'start1-fast' cannot have an index"),
        ("--repo0-path=/x", "[031] option 'repo0-path' key must be between 1 and 256"),
        (
            "--repo-symlink",
            "[031] option 'repo-symlink' requires an index\nHINT: add the required index, e.g. repo1-symlink.",
        ),
        ("--backup1-host=x", "[031] deprecated option 'backup1-host' cannot have an index"),
        (
            "--repo-s3-verify-tls",
            "[031] deprecated option 'repo-s3-verify-tls' requires an index\n\
             HINT: add the required index, e.g. repo1-s3-verify-tls.\n\
             HINT: consider using the non-deprecated name, e.g. repo1-storage-verify-tls.",
        ),
        (
            "--repo1-cipher-pass=x",
            "[031] option 'repo1-cipher-pass' is not allowed on the command-line\n\
             HINT: this option could expose secrets in the process list.\n\
             HINT: specify the option in a configuration file or an environment variable instead.",
        ),
    ];
    for (args, expected) in cases {
        assert_eq!(run().err(args), expected, "{args}");
    }
    let long = "a".repeat(65);
    assert_eq!(run().err(&format!("--{long}")), format!("[031] option '{long}' exceeds maximum size of 64"));
}

#[test]
fn wrong_values_have_pgbackrests_errors() {
    let cases = [
        (
            "--process-max=0",
            "[032] '0' is out of range for 'process-max' option\nHINT: allowed range is 1 to 999 inclusive",
        ),
        ("--process-max=x", "[032] 'x' is not valid for 'process-max' option"),
        (
            "--buffer-size=3m",
            "[032] '3m' is not allowed for 'buffer-size' option\nHINT: allowed values are '16KiB', \
            '32KiB', '64KiB', '128KiB', '256KiB', '512KiB', '1MiB', '2MiB', '4MiB', '8MiB', '16MiB'",
        ),
        ("--type=x", "[032] 'x' is not allowed for 'type' option\nHINT: allowed values are 'full', 'diff', 'incr'"),
        ("--repo1-path=x", "[032] 'x' must begin with / for 'repo1-path' option"),
        ("--repo1-path=/x//y", "[032] '/x//y' cannot contain // for 'repo1-path' option"),
        ("--repo1-host=", "[032] '' must be >= 1 character for 'repo1-host' option"),
        ("--annotation=x", "[031] key/value 'x' not valid for 'annotation' option"),
        (
            "--compress-level=30",
            "[032] '30' is out of range for 'compress-level' option when 'compress-type' option = 'gz'\n\
            HINT: allowed range is -1 to 9 inclusive",
        ),
        ("--force", "[031] option 'force' not valid without option 'no-online'"),
        ("--no-online --archive-copy", "[031] option 'archive-copy' not valid without option 'archive-check'"),
        ("--repo1-s3-bucket=x", "[031] option 'repo1-s3-bucket' not valid without option 'repo1-type' = 's3'"),
        (
            "--repo1-storage-host=x",
            "[031] option 'repo1-storage-host' not valid without option 'repo1-type' in ('azure', 's3')",
        ),
        ("--repo1-host-user=x", "[031] option 'repo1-host-user' not valid without option 'repo1-host-type'"),
        ("--target=x", "[031] option 'target' not valid for command 'backup'"),
        ("--repo=3", "[032] key '3' is not valid for 'repo' option"),
    ];
    for (args, expected) in cases {
        assert_eq!(run().err(&format!("{BACKUP} {args}")), expected, "{args}");
    }
    assert_eq!(run().err("backup"), "[037] backup command requires option: stanza");
}

#[test]
fn wrong_line_names_the_file_that_it_is_in() {
    let old = run().file("/etc/pgbackrest.conf", "[global]\nx").err(BACKUP);
    assert_eq!(old, "[029] configuration file '/etc/pgbackrest.conf': missing '=' in key/value at line 2");
    let part = run().config("[global]\n").file("/etc/pgbackrest/conf.d/a.conf", "[main]\n\nx").err(BACKUP);
    assert_eq!(part, "[029] configuration file '/etc/pgbackrest/conf.d/a.conf': missing '=' in key/value at line 3");
}

#[test]
fn wrong_files_and_variables_have_pgbackrests_errors() {
    let cases = [
        ("a=b", "[029] FILE: key/value found outside of section at line 1"),
        ("[global]\nx", "[029] FILE: missing '=' in key/value at line 2"),
        ("[global]\n =x", "[029] FILE: key is zero-length at line 2"),
        ("[global", "[029] FILE: ini section should end with ] at line 1"),
        ("[]", "[029] FILE: invalid empty section at line 1: []"),
        ("[global]\ndelta=x", "[032] boolean option 'delta' must be 'y' or 'n'"),
        ("[global]\nlock-path=", "[032] section 'global', key 'lock-path' must have a value"),
        ("[global]\nlock-path=/a\nlock-path=/b", "[031] option 'lock-path' cannot be set multiple times"),
        (
            "[global]\nretention-full=1\nrepo1-retention-full=2",
            "[031] configuration file contains duplicate options ('repo1-retention-full', 'retention-full') in section \
             '[global]'",
        ),
    ];
    for (text, expected) in cases {
        let expected = expected.replace("FILE", "configuration file '/etc/pgbackrest/pgbackrest.conf'");
        assert_eq!(run().config(text).err(BACKUP), expected, "{text}");
    }
    assert_eq!(run().env("DELTA", "x").err(BACKUP), "[032] environment boolean option 'delta' must be 'y' or 'n'");
    assert_eq!(run().env("DELTA", "").err(BACKUP), "[032] environment variable 'delta' must have a value");
}

#[test]
fn sections_of_the_same_name_are_one() {
    let text = "[global]\n# comment\n  exclude = a \n\n[s]\npg1-path=/p\n[global]\nexclude=b=c\n";
    let config = run().config(text).ok("--stanza=s backup");
    assert_eq!(config.get(opt::EXCLUDE).unwrap(), ["a", "b=c"]);
}

#[test]
fn another_stanza_reads_its_own_sections() {
    let text = "[global]\nrepo1-path=/r\n[b]\npg1-path=/b\n[a]\npg1-path=/a\n[a:check]\narchive-timeout=7\n";
    let config = run().config(text).ok("check");
    assert_eq!(config.stanzas(), ["a", "b"]);
    let config = config.with_stanza("a").unwrap();
    assert_eq!(config.get(opt::STANZA).unwrap(), "a");
    assert_eq!(config.get_at(opt::PG_PATH, 1).unwrap(), "/a");
    assert_eq!(config.get(opt::ARCHIVE_TIMEOUT).unwrap(), Duration::from_secs(7));
}

#[test]
fn options_without_value_are_an_error_only_for_get() {
    let config = run().ok("info");
    assert_eq!(config.find(opt::STANZA), None);
    assert_eq!(config.get(opt::STANZA).unwrap_err().code, ErrorCode::Assert);
    assert_eq!(config.get(opt::DELTA).unwrap_err().message, "option 'delta' is not valid for the current command");
}

#[test]
fn timeouts_follow_each_other() {
    let timeouts = |args: &str| {
        let mut config = run().ok(&format!("{BACKUP} --repo1-retention-full=1 {args}"));
        config.adjust().unwrap();
        let get = |option: Opt<Duration>| config.get(option).unwrap().as_secs();
        (get(opt::DB_TIMEOUT), get(opt::PROTOCOL_TIMEOUT))
    };
    assert_eq!(timeouts(""), (1800, 1860));
    assert_eq!(timeouts("--db-timeout=1h"), (3600, 3630));
    assert_eq!(timeouts("--protocol-timeout=60"), (30, 60));
    assert_eq!(timeouts("--protocol-timeout=10"), (5, 10));
    let mut config = run().ok(&format!("{BACKUP} --protocol-timeout=10 --db-timeout=11"));
    assert_eq!(
        config.adjust().unwrap_err().to_string(),
        "'10' is not valid for 'protocol-timeout' option\n\
         HINT 'protocol-timeout' option (10) should be greater than 'db-timeout' option (11)."
    );
}

#[test]
fn archive_retention_follows_the_type_that_it_counts() {
    let archive = |args: &str| {
        let mut config = run().ok(&format!("--stanza=s expire {args}"));
        config.adjust().unwrap();
        config.find_at(opt::REPO_RETENTION_ARCHIVE, 1)
    };
    assert_eq!(archive("--repo1-retention-full=4"), Some(4));
    assert_eq!(archive("--repo1-retention-full=4 --repo1-retention-archive=2"), Some(2));
    assert_eq!(archive("--repo1-retention-full=4 --repo1-retention-full-type=time"), None);
    assert_eq!(archive("--repo1-retention-archive-type=diff --repo1-retention-diff=3"), Some(3));
    assert_eq!(archive("--repo1-retention-archive-type=incr"), None);
}

#[test]
fn old_compress_option_becomes_compress_type() {
    let mut config = run().ok(&format!("{BACKUP} --no-compress"));
    config.adjust().unwrap();
    assert_eq!(config.get(opt::COMPRESS_TYPE).unwrap(), "none");
    assert_eq!(config.get(opt::COMPRESS_LEVEL).unwrap(), 0);
    assert_eq!(config.find(opt::COMPRESS), None);
}

#[test]
fn contradictions_between_options_are_errors() {
    let adjusted = |args: &str| {
        let error = run().ok(args).adjust().unwrap_err();
        format!("[{:03}] {error}", error.code.number())
    };
    assert_eq!(
        adjusted(&format!("{BACKUP} --repo1-path=/a --repo3-path=/a")),
        "[032] local repo1 and repo3 paths are both '/a' but must be different"
    );
    assert_eq!(
        adjusted("--stanza=s --pg1-path=/p stanza-delete --repo2-path=/b"),
        "[037] stanza-delete command requires option: repo\nHINT: this command requires a specific repository to operate on"
    );
    assert_eq!(
        adjusted("--stanza=s --pg1-path=/p restore --repo-target-time=x"),
        "[031] option 'repo-target-time' not valid without option 'repo'"
    );
    assert_eq!(
        adjusted(&format!("{BACKUP} --pg1-host=a --repo1-host=b")),
        "[027] pg and repo hosts cannot both be configured as remote"
    );
}

#[test]
fn repository_format_6_is_supported() {
    let config = run().ok("--stanza=s --pg1-path=/p --repo1-format=6 stanza-create");
    assert_eq!(config.get_at(opt::REPO_FORMAT, 1).unwrap(), 6);
}

fn words() -> impl Strategy<Value = String> {
    let names: Vec<String> = options::ALL.iter().map(|decl| decl.indexed_name(1)).collect();
    let commands: Vec<String> = decl::COMMANDS.iter().map(|decl| decl.name.to_owned()).collect();
    let values = ["y", "n", "1", "5GiB", "10m", "/path", "a=b", "none", "zst", "x y"];
    prop_oneof![
        prop::sample::select(commands),
        (prop::sample::select(names), prop::sample::select(values.to_vec()))
            .prop_map(|(name, value)| format!("--{name}={value}")),
        "--(no-|reset-)?[a-z0-9-]{0,20}(=.{0,5})?",
        ".{0,10}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn command_line_of_any_words_gives_a_config_or_an_error(args in prop::collection::vec(words(), 0..6)) {
        let args = std::iter::once("rbr".to_owned()).chain(args);
        if let Ok(line) = CommandLine::parse(args)
            && let Ok(mut config) = Config::resolve(line, Environment::default(), &TestFiles::default(), &mut |_| ())
        {
            let _ = config.adjust();
            let _ = config.begin_text();
            let _ = crate::help::render(&config);
        }
    }

    #[test]
    fn environment_and_file_of_any_text_give_a_config_or_an_error(
        text in prop_oneof![".{0,200}", "(\\[(global|s)(:backup)?\\]\n([a-z0-9-]{1,20}|process-max|repo[0-9]-path) ?= ?.{0,10}\n){0,4}"],
        names in prop::collection::vec(("[A-Z0-9_]{1,20}", ".{0,10}"), 0..3),
    ) {
        let environment: Vec<_> = names.iter().map(|(name, value)| (format!("PGBACKREST_{name}"), value.clone())).collect();
        let line = CommandLine::parse(["rbr", "--stanza=s", "backup"]).unwrap();
        let files = run().config(&text).files;
        let _ = Config::resolve(line, Environment(environment), &files, &mut |_| ());
    }

    #[test]
    fn what_is_set_comes_back_from_the_begin_text(process in 1_i64..=999, fast: bool, exclude in "[a-z]{1,8}") {
        let fast_arg = if fast { "--start-fast" } else { "--no-start-fast" };
        let config = run().ok(&format!("{BACKUP} --process-max={process} {fast_arg} --exclude={exclude}"));
        let again = run().ok(&format!("backup {}", config.begin_text()));
        prop_assert_eq!(again.get(opt::PROCESS_MAX).unwrap(), process);
        prop_assert_eq!(again.get(opt::START_FAST).unwrap(), fast);
        prop_assert_eq!(again.get(opt::EXCLUDE).unwrap(), &[exclude][..]);
    }
}

#[test]
fn passphrase_in_a_damaged_line_is_not_shown() {
    let shows_nothing = |text: &str| assert!(!text.contains("topsecret"), "{text}");
    for line in [
        "repo1-cipher-pass topsecret",
        "repo1-cipher-passtopsecret",
        "repo1-cipher-passtopsecret=",
        "repo1-cipher-passtopsecret=x",
        "repo1-cipher-pass: topsecret",
        "=topsecret",
        "[topsecret",
        "TOPSECRET topsecret=x",
        "repo1-cipher-pass=topsecret\nrepo1-cipher-pass=topsecret",
    ] {
        let (config, warnings) = run().config(&format!("[global]\n{line}\n")).run(BACKUP);
        warnings.iter().for_each(|text| shows_nothing(text));
        if let Err(error) = config {
            shows_nothing(&format!("{error} {error:?}"));
        }
    }
    let (_, warnings) = run().env("REPO1_CIPHER_PASSTOPSECRET", "x").run(BACKUP);
    assert_eq!(warnings, ["environment contains invalid option 'repo1-cipher-pass...'"]);
    shows_nothing(&run().err("--repo1-cipher-passtopsecret backup"));
    shows_nothing(&run().err("--repo1-cipher-pass=topsecret backup"));
}

/// A text as it is read from outside.
fn outside(bytes: &[u8]) -> String {
    super::text::decode(bytes)
}

#[test]
fn bytes_that_are_not_utf8_do_not_matter_where_no_used_value_holds_them() {
    let text = outside(
        b"# caf\xe9\n[global]\nrepo1-path=/r\nlog-path=/l\xff\n[other]\npg1-path=/\xff\n[demo]\npg1-path=/pg\n\
          [global:restore]\ndb-exclude=\xff\n",
    );
    let config = Run::default()
        .file("/etc/pgbackrest/pgbackrest.conf", &text)
        .env("DB_EXCLUDE", &outside(b"\xff"))
        .ok("--stanza=demo --log-path=/log check");
    assert_eq!(config.find_at(opt::PG_PATH, 1), Some("/pg"));
}

#[test]
fn value_that_is_not_utf8_is_an_error_that_names_the_option() {
    let text = outside(b"[global]\nlog-path=/l\xff\n[demo]\npg1-path=/pg\n");
    let run = || Run::default().file("/etc/pgbackrest/pgbackrest.conf", &text);
    assert_eq!(run().err("--stanza=demo check"), "[032] value of option 'log-path' is not valid UTF-8");
    assert_eq!(
        run().env("REPO1_PATH", &outside(b"/\xff")).err("--stanza=demo --log-path=/l check"),
        "[032] value of option 'repo1-path' is not valid UTF-8"
    );
}

#[test]
fn argument_that_is_not_utf8_is_an_error_that_names_the_option() {
    use std::os::unix::ffi::OsStringExt;
    let bytes = |bytes: &[u8]| std::ffi::OsString::from_vec(bytes.to_vec());
    for args in [vec![bytes(b"--log-path=/\xff")], vec![bytes(b"--log-path"), bytes(b"/\xff")]] {
        let args = [bytes(b"rbr"), bytes(b"--stanza=demo"), bytes(b"info")].into_iter().chain(args);
        let line = CommandLine::parse(args).unwrap();
        let files = TestFiles::default();
        let error = Config::resolve(line, Environment::default(), &files, &mut |_| ()).unwrap_err();
        assert_eq!(error.message, "value of option 'log-path' is not valid UTF-8");
    }
    let error = CommandLine::parse([bytes(b"rbr"), bytes(b"repo-get"), bytes(b"\xff")]).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (ErrorCode::ParamInvalid, "parameter '\u{FFFD}' is not valid UTF-8")
    );
}

#[test]
fn value_that_pgbackrest_lacks_is_refused_in_the_environment_as_pgbackrest_does() {
    let json = || Run::default().env("OUTPUT", "json");
    let refused = "[032] 'json' is not allowed for 'output' option\nHINT: allowed values are 'none', 'text'";
    assert_eq!(json().err("--stanza=demo verify"), refused);
    assert_eq!(json().ok("--stanza=demo --output=json verify").find(opt::OUTPUT), Some("json"));
    assert_eq!(Run::default().env("OUTPUT", "text").ok("--stanza=demo verify").find(opt::OUTPUT), Some("text"));
    // Shared commands and those of ours
    assert_eq!(json().ok("info").find(opt::OUTPUT), Some("json"));
    assert_eq!(json().ok("schedule").find(opt::OUTPUT), Some("json"));
    // pgBackRest does not know it here
    assert_eq!(json().ok("--stanza=demo --pg1-path=/pg backup").find(opt::OUTPUT), Some("text"));
}
