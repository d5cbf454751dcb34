//! What can go wrong with the process on the other host.

use super::{FAR, host_options, scenario};
use crate::env::{Run, Scenario, Shutdown, Tool};

/// Makes the SSH client a script with this body.
fn set_client(scenario: &Scenario, body: &str) {
    scenario.space.write_program("ssh", &format!("#!/bin/sh\nfor last; do :; done\n{body}\n"));
}

fn both(scenario: &Scenario, arguments: &[&str]) -> [Run; 2] {
    [Tool::Rbr, Tool::PgBackRest].map(|tool| scenario.run(tool, arguments))
}

#[test]
fn command_line_for_the_host_is_that_of_pgbackrest() {
    let Some(scenario) = scenario(&[], &[]) else { return };
    let mut options = host_options(&scenario);
    options.extend(
        [
            "repo1-host-port=2222",
            "repo1-retention-archive=3",
            "repo1-retention-archive-type=incr",
            "repo1-symlink=n",
            "repo2-host=other.example",
            "repo2-host-cmd=/usr/bin/pgbackrest",
            "repo2-host-config=/etc/other host.conf",
            "repo2-retention-full=3",
            "compress-type=zst",
            "buffer-size=64KiB",
            "io-timeout=33",
            "protocol-timeout=40m",
            "log-subprocess=y",
            "spool-path=/with a blank",
        ]
        .map(str::to_owned),
    );
    scenario.configure(&options);
    set_client(&scenario, "printf '%s\\n' \"$@\" > \"$0.arguments\"; exit 255");
    let segment = scenario.space.text("pg/pg_wal/000000010000000000000001");
    let path = scenario.space.text("x");
    let elsewhere = format!("--pg1-path={}", scenario.space.folder("restored").display());
    let commands: [&[&str]; 13] = [
        &["annotate", "--set=20260101-000000F", "--annotation=a=b c"],
        &["archive-get", "000000010000000000000001", &path],
        &["archive-push", &segment],
        &["backup", "--type=diff"],
        &["check"],
        &["expire"],
        &["info", "--set=20260101-000000F", "--repo=1"],
        &["repo-get", "archive/demo/archive.info"],
        &["repo-ls", "archive", "--recurse"],
        &["restore", "--delta", "--type=immediate", &elsewhere],
        &["stanza-create"],
        &["stanza-upgrade"],
        &["verify"],
    ];
    for command in commands {
        let repo = if matches!(command[0], "check" | "archive-push" | "stanza-create" | "stanza-upgrade" | "info") {
            vec![]
        } else {
            vec!["--repo=2"]
        };
        let sent = [Tool::Rbr, Tool::PgBackRest].map(|tool| {
            let all = [command, &repo, &["--exec-id=7-0123abcd"]].concat();
            let run = scenario.run(tool, &all);
            let arguments = scenario.space.path("ssh.arguments");
            let text = std::fs::read_to_string(&arguments).unwrap_or_else(|_| panic!("{}", run.describe()));
            std::fs::remove_file(arguments).expect("remove");
            text
        });
        assert_eq!(sent[0], sent[1], "{command:?}");
        assert!(sent[0].contains(&format!(" {}:remote", command[0])), "{}", sent[0]);
    }
}

#[test]
fn asynchronous_worker_had_another_name_for_the_program_of_the_host_than_the_command() {
    let Some(mut scenario) = scenario(&[], &[]) else { return };
    // Its own commands would come in between
    scenario.cluster.stop(Shutdown::Fast);
    scenario.space.write("pg/pg_wal/archive_status/000000010000000000000001.ready", "");
    let mut options = host_options(&scenario);
    options.retain(|option| !option.starts_with("repo1-host-cmd"));
    scenario.configure(&options);
    set_client(&scenario, "echo \"${last%% *}\" > \"$0.called\"; exit 255");
    let space = &scenario.space;
    let called = space.path("ssh.called");
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        let folder = space.folder(&format!("named-{tool:?}"));
        std::os::unix::fs::symlink(scenario.program(tool), folder.join("pgbackrest")).expect("link");
        for mode in ["--no-archive-async", "--archive-async"] {
            let config = space.text("pgbackrest.conf");
            let (pg, path) = (space.text("pg"), folder.display());
            let push = format!("--config={config} --stanza=demo {mode} archive-push pg_wal/000000010000000000000001");
            let line = format!("cd {pg}; PATH={path}:$PATH pgbackrest {push}");
            let run = space.run("sh", &["-c", &line]);
            let text = std::fs::read_to_string(&called).unwrap_or_else(|_| panic!("{}", run.describe()));
            assert_eq!(text, "pgbackrest\n", "{tool:?} {mode}");
            scenario.worker_ends();
            std::fs::remove_file(&called).expect("remove");
            if mode == "--archive-async" {
                std::fs::remove_dir_all(space.path("spool")).expect("remove");
            }
        }
    }
}

#[test]
fn host_that_cannot_serve_is_an_error_with_the_code_of_pgbackrest() {
    let Some(scenario) = scenario(&[], &["db-timeout=1", "protocol-timeout=2"]) else { return };
    scenario.rbr(&["stanza-create"]).success();
    let cases = [
        ("echo Welcome to this host; cat >/dev/null", 99, "[099]: invalid type at: Welcome to this host"),
        ("echo '{}'; cat >/dev/null", 39, "[039]: unable to find greeting key 'name'"),
        (
            r#"echo '{"name":"pgBackRest","service":"remote","version":"2.59.1"}'; cat >/dev/null"#,
            39,
            "[039]: expected value '2.60.0' for greeting key 'version' but got '2.59.1'",
        ),
        ("echo refused >&2; exit 255", 125, "terminated unexpectedly [255]: refused"),
        ("exit 127", 125, "terminated unexpectedly [127]"),
        ("echo ERROR: no such option >&2; exit 31", 31, "terminated unexpectedly [31]: ERROR: no such option"),
        ("kill -9 $$", 102, "terminated unexpectedly on signal 9"),
        (
            "cat >/dev/null",
            42,
            "timeout after 2000ms waiting for read from 'remote-0 process on 'repository.example' read'",
        ),
    ];
    for (client, code, text) in cases {
        set_client(&scenario, client);
        let [ours, theirs] = both(&scenario, &["verify"]);
        for run in [&ours, &theirs] {
            assert!(run.code == code && run.stdout.contains(text), "{client}\n{}", run.describe());
        }
        ours.says("repository.example");
    }
    // A process that the client leaves behind holds the pipes, and reads nothing
    set_client(&scenario, "sleep 60 & cat >/dev/null");
    let begin = std::time::Instant::now();
    scenario.rbr(&["verify"]).fails(42).says("timeout after 2000ms");
    assert!(begin.elapsed() < std::time::Duration::from_secs(50), "{:?}", begin.elapsed());
    // A file that can't be asked for is not missing
    set_client(&scenario, "echo refused >&2; exit 255");
    let fetched = scenario.space.text("RECOVERYXLOG");
    for run in both(&scenario, &["archive-get", "000000010000000000000001", &fetched]) {
        assert!(run.code > 1 && run.stdout.contains("[255]: refused"), "{}", run.describe());
    }
    for run in both(&scenario, &["info"]) {
        assert!(run.code == 0 && run.stdout.contains("status: error (other)"), "{}", run.describe());
    }
    // A server that sends rubbish
    let greeting = r#"echo '{"name":"pgBackRest","service":"remote","version":"2.60.0"}'"#;
    for rubbish in ["printf 'no message'", "head -c 100000 /dev/urandom", "head -c 100000 /dev/zero", "yes"] {
        set_client(&scenario, &format!("{greeting}; {rubbish}"));
        let run = scenario.rbr(&["verify"]);
        // 101 is also the exit status of a panic
        assert!(![0, 101, 134].contains(&run.code) && run.stdout.contains("ERROR: ["), "{rubbish}: {}", run.describe());
        run.says("repository.example");
    }
}

#[test]
fn stop_file_of_the_host_stops_what_changes_the_repository() {
    let Some(scenario) = scenario(&[], &[]) else { return };
    scenario.rbr(&["stanza-create"]).success();
    let config = format!("--config={}", scenario.space.text(FAR));
    let far = |command| scenario.space.run(scenario.program(Tool::PgBackRest), &[&config, "--stanza=demo", command]);
    far("stop").success();
    for run in both(&scenario, &["backup"]) {
        run.fails(62)
            .says("raised from remote-0 ssh protocol on 'repository.example': stop file exists for stanza demo");
    }
    scenario.rbr(&["info"]).success();
    far("start").success();
    scenario.rbr(&["backup"]).success();
}

#[test]
fn connection_that_is_cut_is_an_error_and_what_it_leaves_is_no_backup() {
    let Some(scenario) = scenario(&[], &["repo1-bundle=y", "job-retry=0"]) else { return };
    scenario.rbr(&["stanza-create"]).success();
    // What goes there ends in the middle of the first bundle
    set_client(&scenario, "dd bs=64k count=40 2>/dev/null | sh -c \"$last\"");
    let run = scenario.rbr(&["backup", "--type=full"]);
    assert!(run.code != 0, "{}", run.describe());
    super::restore_client(&scenario);
    assert!(scenario.labels().is_empty());
    scenario.rbr(&["backup", "--type=full"]).success();
    // What comes from there ends in the middle of a file
    set_client(&scenario, "sh -c \"$last\" | dd bs=64k count=20 2>/dev/null");
    let path = format!("--pg1-path={}", scenario.space.folder("cut").display());
    let run = scenario.rbr(&[path.as_str(), "restore"]);
    assert!(run.code != 0 && !scenario.space.path("cut/global/pg_control").exists(), "{}", run.describe());
    super::restore_client(&scenario);
    let dump = scenario.cluster.dump();
    let mut restored = scenario.restore(Tool::Rbr, "whole", &[]);
    crate::env::restored_matches(&mut restored, &dump);
}
