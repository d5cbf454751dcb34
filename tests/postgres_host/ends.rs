//! Commands and processes that end while others wait for them, and what a diagnosis sees of the cluster's host.

use std::time::{Duration, Instant};

use super::Hosts;
use crate::env::{ScenarioOptions, Shutdown, Tool};

/// Waits until a condition holds.
#[track_caller]
fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn signal_while_the_other_host_starts_the_backup_ends_the_command_at_once() {
    for far in [Tool::PgBackRest, Tool::Rbr] {
        let Some(hosts) = Hosts::start(far, ScenarioOptions::default(), &[]) else { return };
        hosts.rbr(&["stanza-create"]).success();
        // As with SSH, the process there goes on when the client ends
        hosts.set_client("exec 3<&0\nsh -c \"exec $last\" <&3 3<&- &\nexec 3<&-\nwait");
        let cluster = &hosts.scenario.cluster;
        cluster.sql("alter system set checkpoint_timeout = '1h'");
        cluster.sql("alter system set checkpoint_completion_target = 1");
        cluster.sql("select pg_reload_conf()");
        // Its checkpoint writes these pages one after the other
        cluster.sql("update plain set note = md5(note); update wide set body = body || 'x'");
        let mut backup = hosts.start_command(&["backup", "--type=full", "--no-start-fast"]);
        let starting = "select count(*) from pg_stat_activity where query ~ 'pg_(backup_start|start_backup).*pgBackRest' \
                        and pid <> pg_backend_pid() and state = 'active'";
        let limit = Duration::from_secs(60);
        eventually("the backup does not start", limit, || cluster.sql(starting) == "1" || !backup.is_running());
        let begin = Instant::now();
        backup.terminate();
        assert_eq!(backup.wait(), 63, "{}", backup.log());
        // The checkpoint would take an hour, and a process that is left alone ten seconds
        assert!(begin.elapsed() < Duration::from_secs(7), "{:?}\n{}", begin.elapsed(), backup.log());
        let log = backup.log();
        assert!(log.contains("terminated on signal SIGTERM"), "{log}");
        if far == Tool::Rbr {
            // It waits for PostgreSQL and holds the lock
            eventually("the process is still there", Duration::from_secs(20), || cluster.sql(starting) == "0");
            hosts.restore_client();
            hosts.rbr(&["backup", "--type=full"]).success();
        }
    }
}

#[test]
fn process_that_holds_the_lock_of_the_host_ends_an_offline_backup_when_it_dies() {
    let Some(mut hosts) = Hosts::start(Tool::Rbr, ScenarioOptions::default(), &[]) else { return };
    hosts.rbr(&["stanza-create"]).success();
    hosts.scenario.cluster.stop(Shutdown::Fast);
    hosts.set_client(
        r#"case "$last" in *--process=0*) echo $$ > "$0.first";; *) sleep 4;; esac; exec sh -c "exec $last""#,
    );
    let mut backup = hosts.start_command(&["backup", "--type=full", "--no-online"]);
    eventually("no process has the lock", Duration::from_secs(60), || {
        hosts.scenario.space.path("lock/demo-backup-1.lock").exists() && hosts.scenario.space.path("ssh.first").exists()
    });
    // A small cluster may be copied before the process is killed
    backup.stand_still();
    let first = std::fs::read_to_string(hosts.scenario.space.path("ssh.first")).expect("process");
    let killed = std::process::Command::new("kill").args(["-9", first.trim()]).status().expect("kill");
    assert!(killed.success(), "{}", backup.log());
    backup.go_on();
    assert_eq!(backup.wait(), 102, "{}", backup.log());
    let log = backup.log();
    assert!(log.contains("remote-0 process on 'cluster1.example' terminated unexpectedly on signal 9"), "{log}");
    assert!(hosts.scenario.labels().is_empty());
    hosts.restore_client();
    hosts.rbr(&["backup", "--type=full", "--no-online"]).success();
}

#[test]
fn diagnosis_asks_the_host_of_the_cluster_and_not_this_one() {
    for far in [Tool::Rbr, Tool::PgBackRest] {
        let Some(hosts) = Hosts::start(far, ScenarioOptions::default(), &[]) else { return };
        hosts.rbr(&["stanza-create"]).success();
        hosts.rbr(&["check"]).success();
        hosts.rbr(&["backup", "--type=full"]).success();
        let run = hosts.rbr(&["check", "--diagnose=json", "--log-level-console=off"]).success();
        let all = run.json();
        let found: Vec<_> = all[0]["found"].as_array().expect("array").iter().collect();
        let of = |topic: &str| found.iter().filter(|found| found["topic"] == topic).collect::<Vec<_>>();
        for topic in ["archive-settings", "archive-queue"] {
            assert!(of(topic).len() == 1 && of(topic)[0]["severity"] == "ok", "{far:?} {topic}: {}", run.describe());
        }
        assert!(of("archive-queue")[0]["text"].as_str().is_some_and(|text| text.contains("segment(s) wait")));
        // PostgreSQL and its queues are elsewhere
        assert!(of("spool-path").is_empty() && of("spool-disk").is_empty(), "{}", run.describe());
        assert_eq!(of("lock-path").len(), 1, "{}", run.describe());
    }
}
