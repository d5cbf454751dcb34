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
pub(super) fn messages(run: &Run) -> Vec<String> {
    let text = |line: &str| line.split_once(" P00 ").map(|(_, text)| text.trim().to_owned());
    let lines = run.stdout.lines().filter_map(text);
    // pgBackRest also says that a process which refused has ended
    let lines = lines.filter(|line| !line.ends_with("terminated unexpectedly [0]"));
    lines.filter(|line| line.starts_with("WARN") || line.starts_with("ERROR")).collect()
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

/// Workers that need more than one process on the host also if rbr is there, where four share one.
const WORKERS: &str = "process-max=8";

/// The number of the process that a client starts, as a condition of a shell script.
const IS_WORKER: &str = r#"case "$last" in *--process=0*) exec sh -c "$last";; esac"#;

#[test]
fn worker_process_that_is_cut_off_ends_the_backup_and_the_next_one_resumes_it() {
    worker_is_cut_off(Tool::PgBackRest);
}

#[test]
fn worker_process_of_rbr_that_is_cut_off_ends_the_backup_and_the_next_one_resumes_it() {
    worker_is_cut_off(Tool::Rbr);
}

fn worker_is_cut_off(far: Tool) {
    let options = ScenarioOptions { tablespace: true, ..ScenarioOptions::default() };
    let Some(hosts) = Hosts::start(far, options, &["job-retry=0", "manifest-save-threshold=64KiB", WORKERS]) else {
        return;
    };
    hosts.rbr(&["stanza-create"]).success();
    // However much comes at a time, at least one worker has more to send than this, also after a resume
    let some = "(dd bs=1 count=1000; dd bs=64k count=2) 2>/dev/null";
    let cuts = [
        // What comes from there ends in the middle of a file; what goes there ends in the middle of a request
        format!(r#"sh -c "$last" | {some}"#),
        format!(r#"sh -c "$last" | ({some}; kill -9 $$)"#),
        r#"dd bs=1 count=3000 2>/dev/null | sh -c "$last""#.to_owned(),
    ];
    for cut in cuts {
        hosts.set_client(&format!("{IS_WORKER}\n{cut}"));
        let run = hosts.rbr(&["backup", "--type=full"]);
        assert!(run.code != 0 && run.stdout.contains("cluster1.example'"), "{cut}\n{}", run.describe());
        assert!(hosts.scenario.labels().is_empty(), "{cut}");
    }
    hosts.restore_client();
    let run = hosts.rbr(&["backup", "--type=full"]).success();
    run.says("resumable backup").says("checksum resumed file cluster1.example:");
    let dump = hosts.scenario.cluster.dump();
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        let mut restored = hosts.scenario.restore(
            tool,
            &format!("restored-{tool:?}"),
            &["--type=immediate", "--target-action=promote"],
        );
        crate::env::restored_matches(&mut restored, &dump);
    }
}

#[test]
fn worker_process_that_is_killed_once_is_replaced() {
    for far in [Tool::PgBackRest, Tool::Rbr] {
        worker_is_killed(far);
    }
}

fn worker_is_killed(far: Tool) {
    let Some(hosts) = Hosts::start(far, ScenarioOptions::default(), &[WORKERS]) else { return };
    hosts.rbr(&["stanza-create"]).success();
    // The first process of each worker ends early
    hosts.set_client(&format!(
        "{IS_WORKER}\nmark=$(printf '%s' \"$last\" | sed 's/.*--process=\\([0-9]*\\).*/\\1/')\n\
         [ -e \"$0.$mark\" ] && exec sh -c \"$last\"\ntouch \"$0.$mark\"\n\
         sh -c \"$last\" | dd bs=64k count=20 2>/dev/null"
    ));
    hosts.rbr(&["backup", "--type=full"]).success();
    assert!(hosts.scenario.space.path("ssh.1").exists());
    assert!(far == Tool::Rbr || hosts.scenario.space.path("ssh.2").exists());
    let dump = hosts.scenario.cluster.dump();
    let mut restored =
        hosts.scenario.restore(Tool::PgBackRest, "restored", &["--type=immediate", "--target-action=promote"]);
    crate::env::restored_matches(&mut restored, &dump);
}

#[test]
fn process_of_the_command_that_ends_or_is_silent_ends_the_backup() {
    let near = ["db-timeout=4", "protocol-timeout=5", "job-retry=0"];
    let Some(hosts) = Hosts::start(Tool::PgBackRest, ScenarioOptions::default(), &near) else { return };
    hosts.rbr(&["stanza-create"]).success();
    let first = r#"case "$last" in *--process=0*) ;; *) sleep 1; exec sh -c "$last";; esac"#;
    // After the start of the backup, in the list of the data directory
    for (cut, code, text) in [
        (
            r#"sh -c "$last" | (dd bs=1 count=12000 2>/dev/null; kill -9 $$)"#,
            102,
            "terminated unexpectedly on signal 9",
        ),
        (
            r#"sh -c "$last" | (dd bs=1 count=12000 2>/dev/null; sleep 60)"#,
            42,
            "timeout after 5000ms waiting for read from",
        ),
    ] {
        hosts.set_client(&format!("{first}\n{cut}"));
        let begin = std::time::Instant::now();
        let run = hosts.rbr(&["backup", "--type=full"]);
        assert!(run.code == code && run.stdout.contains(text), "{cut}\n{}", run.describe());
        run.says("remote-0 process on 'cluster1.example'");
        assert!(begin.elapsed() < std::time::Duration::from_secs(30), "{:?}", begin.elapsed());
        assert!(hosts.scenario.labels().is_empty());
    }
    hosts.restore_client();
    hosts.rbr(&["backup", "--type=full"]).success();
}

#[test]
fn workers_on_a_host_with_rbr_share_one_login_and_its_end_ends_the_backup() {
    let near = ["process-max=4", "job-retry=0", "compress-type=none"];
    let Some(hosts) = Hosts::start(Tool::Rbr, ScenarioOptions::default(), &near) else { return };
    hosts.rbr(&["stanza-create"]).success();
    hosts.set_client("echo login >> \"$0.logins\"\nexec sh -c \"$last\"");
    hosts.rbr(&["backup", "--type=full"]).success();
    let logins = std::fs::read_to_string(hosts.scenario.space.path("ssh.logins")).expect("logins");
    // A host that is as loaded as one far away may get more than one, but not as many as there are workers
    assert!(logins.lines().count() < 5, "{logins}");
    let before = hosts.scenario.labels().len();
    // In the middle of what the workers send, however much comes at a time and over however many logins
    let some = "(dd bs=1 count=20000; dd bs=64k count=30) 2>/dev/null";
    hosts.set_client(&format!("sh -c \"$last\" | ({some}; kill -9 $$)"));
    let run = hosts.rbr(&["backup", "--type=full"]);
    assert!(run.code == 102, "{}", run.describe());
    run.says(" process on 'cluster1.example' terminated unexpectedly on signal 9");
    assert_eq!(hosts.scenario.labels().len(), before);
    hosts.restore_client();
    hosts.rbr(&["backup", "--type=full"]).success();
}
