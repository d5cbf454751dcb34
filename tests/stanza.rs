//! Stanza commands, check, start and stop, compared with the real pgBackRest.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::env::{Scenario, ScenarioOptions, Tool, Tree};

const FILES: [&str; 4] = [
    "archive/demo/archive.info",
    "archive/demo/archive.info.copy",
    "backup/demo/backup.info",
    "backup/demo/backup.info.copy",
];
const TOOLS: [Tool; 2] = [Tool::Rbr, Tool::PgBackRest];

fn scenario(global: &[&str]) -> Option<Scenario> {
    let global = global.iter().map(|&line| line.to_owned()).collect();
    Scenario::start(ScenarioOptions { global, archive_with: Tool::PgBackRest, ..ScenarioOptions::default() })
}

#[test]
fn stanza_create_writes_the_same_bytes_as_pgbackrest() {
    let Some(scenario) = scenario(&[]) else { return };
    for (tool, name) in [(Tool::Rbr, "ours"), (Tool::PgBackRest, "theirs")] {
        let repo = format!("--repo1-path={}", scenario.space.folder(name).display());
        scenario.run(tool, &[&repo, "stanza-create"]).success();
        // The second that they were written in is all that may differ
        for file in FILES {
            let file = fs::File::options().write(true).open(scenario.space.path(name).join(file)).expect("open");
            file.set_modified(std::time::UNIX_EPOCH).expect("set time");
        }
    }
    Tree::read(&scenario.space.path("ours")).assert_same(&Tree::read(&scenario.space.path("theirs")));
}

#[test]
fn stanza_made_by_one_program_serves_the_other() {
    for cipher in [&[][..], &["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=secret"]] {
        for (first, second) in [(Tool::Rbr, Tool::PgBackRest), (Tool::PgBackRest, Tool::Rbr)] {
            let Some(scenario) = scenario(cipher) else { return };
            scenario.run(first, &["stanza-create"]).success();
            scenario
                .run(second, &["stanza-create"])
                .success()
                .says("stanza 'demo' already exists on repo1 and is valid");
            scenario.run(second, &["check"]).success().says("successfully archived to");
            scenario.run(first, &["stanza-upgrade"]).success().says("stanza 'demo' on repo1 is already up to date");
            // One file of each pair may be lost
            fs::remove_file(scenario.space.path("repo/archive/demo/archive.info")).expect("remove");
            fs::remove_file(scenario.space.path("repo/backup/demo/backup.info.copy")).expect("remove");
            scenario.run(second, &["stanza-create"]).success();
            scenario.run(first, &["stanza-create"]).success().says("already exists on repo1 and is valid");
        }
    }
}

/// The info files of a repository.
fn info_files(scenario: &Scenario) -> Vec<Vec<u8>> {
    FILES.iter().map(|file| fs::read(scenario.space.path("repo").join(file)).expect("info file")).collect()
}

#[test]
fn upgrade_to_format_6_that_was_interrupted_is_completed() {
    for cipher in [&[][..], &["repo1-cipher-type=aes-256-cbc", "repo1-cipher-pass=secret"]] {
        let Some(scenario) = scenario(cipher) else { return };
        scenario.rbr(&["stanza-create"]).success();
        let old = info_files(&scenario);
        scenario.run(Tool::PgBackRest, &["stanza-upgrade", "--repo1-format=6"]).success();
        let new = info_files(&scenario);
        let keys = || {
            let text = scenario.rbr(&["repo-get", "archive/demo/archive.info"]).success().stdout;
            text.lines().filter(|line| line.starts_with("cipher-pass")).map(str::to_owned).collect::<Vec<_>>()
        };
        let new_keys = keys();
        for (left, left_name) in FILES.iter().enumerate() {
            for (index, file) in FILES.iter().enumerate() {
                let bytes = if index == left { &old[index] } else { &new[index] };
                fs::write(scenario.space.path("repo").join(file), bytes).expect("info file");
            }
            let before = Tree::read(&scenario.space.path("repo"));
            // What is saved now could lose keys
            for (command, code) in
                [(&["backup"][..], 28), (&["check"], 28), (&["stanza-create"], 28), (&["expire"], 104)]
            {
                scenario.rbr(command).fails(code).says("different repository formats").says("--repo1-format=6");
            }
            Tree::read(&scenario.space.path("repo")).assert_same(&before);
            scenario.rbr(&["stanza-upgrade"]).success().says("interrupted stanza-upgrade will be repaired");
            assert_eq!(keys(), new_keys, "{left_name}");
            scenario.run(Tool::PgBackRest, &["stanza-upgrade"]).success().says("is already up to date");
        }
        for tool in TOOLS {
            scenario.run(tool, &["check"]).success();
            scenario.run(tool, &["stanza-upgrade", "--repo1-format=5"]).fails(29).says("unable to downgrade");
        }
    }
}

#[test]
fn check_reports_what_is_wrong_as_pgbackrest_does() {
    let Some(scenario) = scenario(&[]) else { return };
    let set = |setting: &str| {
        scenario.cluster.sql(setting);
        scenario.cluster.sql("select pg_reload_conf()");
        sleep(Duration::from_millis(300));
    };
    for tool in TOOLS {
        scenario.run(tool, &["check"]).fails(55).says("HINT: has a stanza-create been performed?");
    }
    scenario.rbr(&["stanza-create"]).success();
    for tool in TOOLS {
        scenario.run(tool, &["check", "--pg1-socket-path=/nonexistent"]).fails(27).says("no database found");
        scenario.run(tool, &["check", "--pg1-user=nobody-here"]).fails(27).says("role \"nobody-here\" does not exist");
    }
    set("alter system set archive_command = 'cp %p /nowhere/%f'");
    for tool in TOOLS {
        scenario.run(tool, &["check"]).fails(68).says("archive_command 'cp %p /nowhere/%f' must contain pgbackrest");
        scenario.run(tool, &["check", "--no-archive-check", "--archive-timeout=100ms"]).fails(82);
    }
    set("alter system set archive_command = 'false # pgbackrest'");
    for tool in TOOLS {
        scenario
            .run(tool, &["check", "--archive-timeout=500ms"])
            .fails(82)
            .says("was not archived before the 500ms timeout")
            .says("HINT: run the 'start' command if the stanza was previously stopped.");
    }
    let failed = "select last_failed_time > coalesce(last_archived_time, '-infinity') from pg_stat_archiver";
    let has_failed = || scenario.cluster.sql(failed) == "t";
    let start = Instant::now();
    while !has_failed() {
        assert!(start.elapsed() < Duration::from_secs(60), "archive_command was not called");
        sleep(Duration::from_millis(50));
    }
    scenario.rbr(&["check", "--archive-timeout=500ms"]).fails(82).says("HINT: archive_command fails for '0000000");
}

#[test]
fn stop_and_start_rule_both_programs() {
    let Some(scenario) = scenario(&[]) else { return };
    for (first, second) in [(Tool::Rbr, Tool::PgBackRest), (Tool::PgBackRest, Tool::Rbr)] {
        scenario.run(first, &["stop"]).success();
        scenario.run(second, &["stop"]).success().says("stop file already exists for stanza demo");
        scenario.run(second, &["stanza-create"]).fails(62).says("stop file exists for stanza demo");
        scenario.run(second, &["start"]).success();
        scenario.run(first, &["start"]).success().says("stop file does not exist for stanza demo");
    }
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["stop"]).success();
    for tool in TOOLS {
        // This command is not refused: it waits for the segment that archive-push may not store
        scenario
            .run(tool, &["check", "--archive-timeout=500ms"])
            .fails(82)
            .says("was not archived before the 500ms timeout")
            .says("HINT: run the 'start' command if the stanza was previously stopped.");
    }
}

#[test]
fn stanza_delete_asks_for_stop_and_stopped_server() {
    for tool in TOOLS {
        let Some(scenario) = scenario(&[]) else { return };
        scenario.rbr(&["stanza-create"]).success();
        scenario.run(tool, &["stanza-delete"]).fails(55).says("stop file does not exist for stanza 'demo'");
        scenario.rbr(&["stop"]).success();
        scenario
            .run(tool, &["stanza-delete"])
            .fails(38)
            .says("postmaster.pid exists - looks like PostgreSQL is running.");
        scenario.run(tool, &["stanza-delete", "--force"]).success();
        assert!(!scenario.space.path("repo/archive/demo").exists());
        assert!(!scenario.space.path("lock/demo.stop").exists());
        assert!(scenario.space.path("repo/archive").exists());
    }
}

#[test]
fn stanza_of_another_cluster_is_refused_until_upgraded() {
    let Some(first) = scenario(&[]) else { return };
    let Some(second) = scenario(&[&format!("repo1-path={}", first.space.text("repo"))]) else { return };
    first.rbr(&["stanza-create"]).success();
    for tool in TOOLS {
        second.run(tool, &["stanza-create"]).fails(28).says("do not match the database");
        second.run(tool, &["check"]).fails(28).says("HINT: did an error occur during stanza-upgrade?");
    }
    second.rbr(&["stanza-upgrade"]).success();
    second.pgbackrest(&["check"]).success().says("/15-2/");
    second.pgbackrest(&["stanza-upgrade"]).success().says("is already up to date");
}

#[test]
fn locks_exclude_the_other_program() {
    let Some(scenario) = scenario(&[]) else { return };
    let lock = scenario.space.write("lock/demo-backup-1.lock", "");
    let file = fs::File::options().read(true).write(true).open(lock).expect("open lock");
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).expect("lock");
    for tool in TOOLS {
        scenario
            .run(tool, &["stanza-create"])
            .fails(50)
            .says("/lock/demo-backup-1.lock': Resource temporarily unavailable")
            .says("HINT: is another pgBackRest process running?");
    }
    drop(file);
    scenario.rbr(&["stanza-create"]).success();
    assert_eq!(fs::read_dir(scenario.space.path("lock")).expect("list").count(), 0);
}
