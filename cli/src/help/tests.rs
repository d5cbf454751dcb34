use super::*;
use crate::config::decl::CommandDecl;
use crate::config::{CommandLine, Environment, SystemFiles};

/// Returns what help prints for these arguments if the program is called as pgbackrest.
fn help(args: &str) -> String {
    let args = std::iter::once("/usr/bin/pgbackrest").chain(args.split_whitespace());
    let line = CommandLine::parse(args).unwrap();
    let config = Config::resolve(line, Environment::default(), &SystemFiles, &mut |_| ()).unwrap();
    render(&config).unwrap()
}

#[test]
fn general_help_lists_commands_that_are_not_internal() {
    // The set of commands changes; the layout must not
    let text = help("help").replace(" (not supported yet)", "");
    insta::assert_snapshot!(text);
}

#[test]
fn command_help_lists_options_by_group() {
    insta::assert_snapshot!(help("--no-config help stop"));
}

#[test]
fn command_help_shows_current_values() {
    insta::assert_snapshot!(help(
        "--no-config --stanza=s --log-level-console=info --repo1-path=/a --repo2-path=/b help info"
    ));
}

#[test]
fn option_help_lists_values_of_several_repositories() {
    insta::assert_snapshot!(help("--no-config --repo1-path=/a --repo3-path=/b help expire repo-path"));
}

#[test]
fn option_help_names_old_names() {
    insta::assert_snapshot!(help("--no-config help check pg-socket-path"));
}

#[test]
fn option_help_is_the_commands_own() {
    assert_ne!(help("--no-config help backup type"), help("--no-config help restore type"));
    assert!(help("--no-config help restore type").contains("default: default"));
}

#[test]
fn option_help_for_unknown_option_is_an_error() {
    let line = CommandLine::parse(["x", "--no-config", "help", "stop", "delta"]).unwrap();
    let config = Config::resolve(line, Environment::default(), &SystemFiles, &mut |_| ()).unwrap();
    let error = render(&config).unwrap_err();
    assert_eq!(error.message, "option 'delta' is not valid for command 'stop'");
}

#[test]
fn own_name_is_used_under_the_own_name() {
    let line = CommandLine::parse(["/x/rbr"]).unwrap();
    let config = Config::resolve(line, Environment::default(), &SystemFiles, &mut |_| ()).unwrap();
    let text = render(&config).unwrap();
    assert!(text.starts_with("rbr ") && text.contains("    rbr [options] [command]"), "{text}");
}

#[test]
fn no_line_is_wider_than_the_console() {
    let known = |decl: &&CommandDecl| !decl.internal && !matches!(decl.name, "help" | "version");
    for command in COMMANDS.iter().filter(known) {
        for line in help(&format!("--no-config help {}", command.name)).lines() {
            // Only a single word may be longer
            assert!(line.len() <= WIDTH || line.trim().split(' ').count() == 1, "{}: {line}", command.name);
        }
    }
}

#[test]
fn split_breaks_before_the_word_that_reaches_the_size() {
    assert_eq!(split("aa bb cc", 5), ["aa", "bb cc"]);
    assert_eq!(split("aa bb cc", 6), ["aa bb", "cc"]);
    assert_eq!(split("aa bb", 5), ["aa bb"]);
    assert_eq!(split("aaaaaaaaa b", 3), ["aaaaaaaaa", "b"]);
    assert_eq!(split("", 3), [""]);
}

#[test]
fn list_summary_lowers_words_but_no_acronyms() {
    assert_eq!(list_summary("Backup a cluster."), "backup a cluster");
    assert_eq!(list_summary("SSH client command."), "SSH client command");
    assert_eq!(list_summary("I/O timeout."), "I/O timeout");
    assert_eq!(list_summary("PostgreSQL port."), "PostgreSQL port");
}

#[test]
fn option_help_lists_the_allowed_values_as_completion_reads_them() {
    let stars = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.strip_prefix("* ")?.split(' ').next()).map(str::to_owned).collect()
    };
    let text = help("--no-config help backup compress-type");
    assert_eq!(stars(&text), ["none", "bz2", "gz", "lz4", "zst"]);
    assert!(text.contains("\ndefault: gz\n\nwhen to change: to zst"), "{text}");
    assert!(text.contains("\nexample: --compress-type=none\nin a configuration file: compress-type=none "), "{text}");
    let text = help("--no-config help repo-ls output");
    assert_eq!(stars(&text), ["text", "json", "name", "type", "size", "time", "destination"]);
    let text = help("--no-config help restore type");
    assert_eq!(stars(&text), ["default", "immediate", "lsn", "name", "xid", "time", "preserve", "standby", "none"]);
    let text = help("--no-config help info buffer-size");
    assert!(text.contains(
        "Allowed values are 16KiB, 32KiB, 64KiB, 128KiB, 256KiB, 512KiB, 1MiB, 2MiB,\n4MiB, 8MiB, and 16MiB.\n"
    ));
}

#[test]
fn option_help_names_the_place_of_the_value() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("test.conf");
    std::fs::write(
        &path,
        "[global]\nrepo1-path=/a\nprocess-max=2\n[demo]\nprocess-max=3\n[demo:backup]\nstart-fast=y\n",
    )
    .unwrap();
    let path = path.display();
    let line = |option: &str| {
        let args = format!("x --config={path} --stanza=demo --delta help backup {option}");
        let line = CommandLine::parse(args.split_whitespace()).unwrap();
        let environment = Environment(vec![("PGBACKREST_COMPRESS_TYPE".to_owned(), "zst".to_owned())]);
        let config = Config::resolve(line, environment, &SystemFiles, &mut |_| ()).unwrap();
        let text = render(&config).unwrap();
        text.lines().find(|line| line.starts_with("source: ")).map(ToOwned::to_owned)
    };
    for (option, place) in [
        ("repo-path", format!("{path}, section [global]")),
        ("process-max", format!("{path}, section [demo]")),
        ("start-fast", format!("{path}, section [demo:backup]")),
        ("compress-type", "environment variable PGBACKREST_COMPRESS_TYPE".to_owned()),
        ("delta", "command line".to_owned()),
    ] {
        assert_eq!(line(option), Some(format!("source: {place}")), "{option}");
    }
    assert_eq!(line("resume"), None);
}

#[test]
fn option_help_has_an_example_for_each_kind_of_value() {
    for (option, example) in [
        ("backup repo-bundle", "--repo1-bundle"),
        ("backup archive-check", "--no-archive-check"),
        ("backup annotation", "--annotation=key=value"),
        ("backup process-max", "--process-max=1"),
        ("backup repo-path", "--repo1-path=/var/lib/pgbackrest"),
        ("backup repo-bundle-size", "--repo1-bundle-size=20MiB"),
    ] {
        let text = help(&format!("--no-config help {option}"));
        assert!(text.contains(&format!("example: {example}\n")), "{text}");
    }
    assert!(!help("--no-config help backup repo-cipher-pass").contains("example:"));
}
