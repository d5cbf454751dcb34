//! What can go wrong with the processes on the cluster's host.

use super::Hosts;
use crate::env::{Run, ScenarioOptions, Tool};

#[test]
fn command_line_for_the_host_is_that_of_pgbackrest() {
    let Some(hosts) = Hosts::start(Tool::PgBackRest, ScenarioOptions::default(), &[]) else { return };
    let mut stanza = hosts.cluster_options(1, "pg");
    stanza.extend(hosts.cluster_options(7, "other"));
    stanza.extend(
        [
            "pg7-host-port=2222",
            "pg7-port=6543",
            "pg7-database=d b",
            "pg1-host-config-path=/etc/one",
            "pg-version-force=15",
        ]
        .map(str::to_owned),
    );
    let second = format!("repo2-path={}", hosts.scenario.space.folder("repo2").display());
    hosts.configure(&[&second], &hosts.cluster_options(1, "pg"));
    hosts.rbr(&["stanza-create"]).success();
    let global = [
        &*second,
        "repo2-retention-full=1",
        "compress-type=zst",
        "buffer-size=64KiB",
        "io-timeout=33",
        "protocol-timeout=40m",
        "db-timeout=20m",
        "log-subprocess=y",
        "log-level-file=info",
    ];
    hosts.configure(&global, &stanza);
    hosts.set_client("printf '%s\\n' \"$@\" >> \"$0.arguments\"; exit 255");
    let commands: [&[&str]; 5] = [
        &["backup", "--type=diff", "--repo=2"],
        &["check"],
        &["stanza-create"],
        &["stanza-upgrade"],
        &["backup", "--no-archive-check", "--annotation=a=b c"],
    ];
    for command in commands {
        let sent = [Tool::Rbr, Tool::PgBackRest].map(|tool| {
            let run = hosts.run(tool, &[command, &["--exec-id=7-0123abcd"]].concat());
            assert!(run.code != 0, "{}", run.describe());
            let arguments = hosts.scenario.space.path("ssh.arguments");
            let text = std::fs::read_to_string(&arguments).unwrap_or_else(|_| panic!("{}", run.describe()));
            std::fs::remove_file(arguments).expect("remove");
            text
        });
        assert_eq!(sent[0], sent[1], "{command:?}");
        assert!(sent[0].contains(&format!(" {}:remote", command[0])) && sent[0].contains("2222"), "{}", sent[0]);
    }
}

/// The messages of a run that are not about times.
fn messages(run: &Run) -> Vec<String> {
    let text = |line: &str| line.split_once(" P00 ").map(|(_, text)| text.trim().to_owned());
    run.stdout.lines().filter_map(text).filter(|line| line.starts_with("WARN") || line.starts_with("ERROR")).collect()
}

#[test]
fn host_that_is_out_of_reach_is_a_warning_and_then_an_error() {
    let Some(hosts) = Hosts::start(Tool::PgBackRest, ScenarioOptions::default(), &[]) else { return };
    hosts.rbr(&["stanza-create"]).success();
    hosts.set_client("echo refused >&2; exit 255");
    for command in ["backup", "check", "stanza-create"] {
        let [ours, theirs] = hosts.both(&[command]);
        assert!(ours.code != 0 && ours.code == theirs.code, "{}\n{}", ours.describe(), theirs.describe());
        assert_eq!(messages(&ours), messages(&theirs), "{command}");
        ours.says("unable to check pg1: [UnknownError] remote-0 process on 'cluster1.example' terminated unexpectedly [255]: refused");
    }
}
