//! Invalid command lines, environments and configuration files: exit status and message are pgBackRest's.

use crate::env::{Run, Space, oracles};

/// Returns the error message without header, time and program name.
fn message(run: &Run) -> String {
    let text = format!("{}{}", run.stdout, run.stderr);
    let mut lines = text.lines().skip_while(|line| !line.contains("ERROR: ["));
    let Some(first) = lines.next() else { return text };
    let mut message = first[first.find("ERROR: [").unwrap_or(0)..].to_owned();
    let hints = lines.take_while(|line| line.trim_start().starts_with("HINT"));
    // Only rbr suggests names
    for line in hints.filter(|line| !line.contains("HINT: did you mean")) {
        message.push('\n');
        message.push_str(line.trim_start());
    }
    message
}

/// Runs both programs with the same arguments, environment and configuration. Exit status and message must be the same.
#[track_caller]
fn same_error(config: &str, environment: &[(&str, &str)], arguments: &[&str]) {
    let Some(oracles) = oracles(&[]) else { return };
    let space = Space::new();
    space.write("test.conf", config);
    let mut results = Vec::new();
    for program in [oracles.pgbackrest.clone(), space.path("bin/rbr")] {
        let mut all = vec!["-i".to_owned(), "PATH=/usr/bin:/bin".to_owned(), "TZ=UTC".to_owned()];
        all.push(format!("PGBACKREST_LOCK_PATH={}", space.text("lock")));
        all.extend(environment.iter().map(|(name, value)| format!("{name}={value}")));
        all.push(program.to_str().expect("UTF-8").to_owned());
        all.extend(arguments.iter().map(|argument| argument.replace("CONF", &space.text("test.conf"))));
        results.push(space.run("/usr/bin/env", &all));
    }
    assert_ne!(results[0].code, 0, "pgBackRest takes it: {}", results[0].describe());
    assert_eq!(
        (results[0].code, message(&results[0])),
        (results[1].code, message(&results[1])),
        "{arguments:?}\npgBackRest: {}\nrbr: {}",
        results[0].describe(),
        results[1].describe()
    );
}

macro_rules! errors {
    ($($name:ident: $config:literal $environment:tt $arguments:tt;)+) => {$(
        #[test]
        fn $name() {
            same_error($config, &$environment, &$arguments);
        }
    )+};
}

errors! {
    command_unknown: "" [] ["--no-config", "bogus"];
    command_missing: "" [] ["--no-config", "--stanza=demo"];
    option_unknown: "" [] ["--no-config", "--bogus", "info"];
    option_with_one_dash: "" [] ["--no-config", "-stanza=demo", "info"];
    option_twice: "" [] ["--no-config", "--stanza=a", "--stanza=b", "info"];
    option_without_value: "" [] ["--no-config", "info", "--stanza"];
    option_not_of_the_command: "" [] ["--no-config", "--stanza=demo", "--process-max=2", "info"];
    option_negated_that_can_not: "" [] ["--no-config", "--no-stanza", "info"];
    option_negated_and_set: "" [] ["--no-config", "--stanza=d", "--pg1-path=/x", "--delta", "--no-delta", "restore"];
    option_negated_with_value: "" [] ["--no-config", "--stanza=d", "--no-delta=y", "restore"];
    option_of_an_index_too_high: "" [] ["--no-config", "--stanza=d", "--repo257-path=/x", "info"];
    option_without_its_index: "" [] ["--no-config", "--stanza=d", "--pg-path=/x", "restore"];
    stanza_missing: "" [] ["--no-config", "backup"];
    pg_path_missing: "" [] ["--no-config", "--stanza=demo", "backup"];
    path_not_absolute: "" [] ["--no-config", "--stanza=demo", "--pg1-path=relative", "backup"];
    path_with_two_slashes: "" [] ["--no-config", "--stanza=demo", "--pg1-path=/a//b", "backup"];
    integer_out_of_range: "" [] ["--no-config", "--stanza=d", "--pg1-path=/x", "--process-max=1000", "backup"];
    integer_that_is_none: "" [] ["--no-config", "--stanza=d", "--pg1-path=/x", "--process-max=two", "backup"];
    size_that_is_none: "" [] ["--no-config", "--stanza=d", "--pg1-path=/x", "--buffer-size=1.5MiB", "backup"];
    size_not_in_the_list: "" [] ["--no-config", "--stanza=d", "--pg1-path=/x", "--buffer-size=17", "backup"];
    time_that_is_none: "" [] ["--no-config", "--stanza=d", "--pg1-path=/x", "--archive-timeout=1y", "backup"];
    value_not_in_the_list: "" [] ["--no-config", "--stanza=d", "--pg1-path=/x", "--type=bogus", "backup"];
    compress_type_unknown: "" [] ["--no-config", "--stanza=d", "--pg1-path=/x", "--compress-type=rar", "backup"];
    boolean_that_is_none: "" [] ["--no-config", "--stanza=d", "--pg1-path=/x", "--online=maybe", "backup"];
    target_without_its_type: "" [] ["--no-config", "--stanza=d", "--pg1-path=/x", "--target=1", "restore"];
    target_action_without_its_type: "" [] ["--no-config", "--stanza=d", "--pg1-path=/x", "--target-action=promote", "restore"];
    type_without_its_target: "" [] ["--no-config", "--stanza=d", "--pg1-path=/x", "--type=time", "restore"];
    secret_on_the_command_line: "" [] ["--no-config", "--stanza=d", "--repo1-cipher-pass=x", "info"];
    protocol_timeout_below_db_timeout: "" [] ["--no-config", "--stanza=d", "--pg1-path=/x", "--db-timeout=100", "--protocol-timeout=50", "backup"];
    environment_with_empty_value: "" [("PGBACKREST_STANZA", "")] ["--no-config", "info"];
    environment_with_bad_boolean: "" [("PGBACKREST_ONLINE", "yes"), ("PGBACKREST_PG1_PATH", "/x")] ["--no-config", "--stanza=d", "backup"];
    config_file_missing: "" [] ["--config=/nonexistent/pgbackrest.conf", "--stanza=d", "info"];
    config_empty_value: "[global]\nrepo1-path=\n" [] ["--config=CONF", "--stanza=d", "info"];
    config_key_twice: "[global]\nrepo1-path=/a\nrepo1-path=/b\n" [] ["--config=CONF", "--stanza=d", "info"];
    config_boolean_not_y_or_n: "[global]\nstart-fast=true\n[d]\npg1-path=/x\n" [] ["--config=CONF", "--stanza=d", "backup"];
    config_value_out_of_range: "[global]\ncompress-level=99\n[d]\npg1-path=/x\n" [] ["--config=CONF", "--stanza=d", "backup"];
    two_repositories_in_one_place: "[global]\nrepo1-path=/x\nrepo2-path=/x\n" [] ["--config=CONF", "--stanza=d", "info"];
    root_is_refused_or_stanza_is_missing: "[global]\nlog-level-file=off\n[d]\npg1-path=/x\n" [] ["--config=CONF", "--stanza=d", "backup", "--repo=3"];
    archive_push_without_parameter: "[global]\nlog-level-file=off\n[d]\npg1-path=/x\n" [] ["--config=CONF", "--stanza=d", "archive-push"];
    archive_get_with_one_parameter: "[global]\nlog-level-file=off\n[d]\npg1-path=/x\n" [] ["--config=CONF", "--stanza=d", "archive-get", "000000010000000000000001"];
    parameter_for_a_command_without: "" [] ["--no-config", "--stanza=d", "info", "extra"];
}

#[test]
fn mistyped_names_are_suggested_with_the_error_of_pgbackrest() {
    let space = Space::new();
    space.write("test.conf", "[global]\nrepo1-pth=/x\n");
    let config = format!("--config={}", space.text("test.conf"));
    for (arguments, code, hint) in [
        (&["--no-config", "bakup"][..], 48, "did you mean 'backup'?"),
        (&["--no-config", "help", "bakup"], 48, "did you mean 'backup'?"),
        (&["--no-config", "help", "backup", "proces-max"], 31, "did you mean 'process-max'?"),
        (&["--no-config", "backup", "--stnaza=demo"], 31, "did you mean '--stanza'?"),
        (&["--no-config", "backup", "--cipher-type=none"], 31, "did you mean '--repo1-cipher-type'?"),
        (&[&config, "--stanza=demo", "backup"], 37, "did you mean 'repo1-path'?"),
    ] {
        let run = space.run(space.path("bin/rbr"), arguments).fails(code);
        run.says(&format!("HINT: {hint}"));
    }
}
