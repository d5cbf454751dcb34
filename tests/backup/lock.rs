//! Two commands at the same time.

use std::time::{Duration, Instant};

use crate::env::{Background, Scenario, ScenarioOptions, Tool};

/// Makes a backup slow enough to meet another command.
const SLOW: &str = "--compress-type=bz2";

/// A stanza whose backups have one worker.
fn slow_scenario() -> Option<Scenario> {
    let scenario =
        Scenario::start(ScenarioOptions { global: vec!["process-max=1".into()], ..ScenarioOptions::default() })?;
    scenario.rbr(&["stanza-create"]).success();
    Some(scenario)
}

/// Starts a full backup and waits until it shows progress in its lock file.
fn start_backup(scenario: &Scenario, tool: Tool) -> Background {
    let backup = scenario.start_command(tool, &["backup", "--type=full", SLOW]);
    let lock = scenario.space.path("lock/demo-backup-1.lock");
    let end = Instant::now() + Duration::from_secs(30);
    while std::fs::read_to_string(&lock).map_or(true, |content| !content.contains(r#""szCplt":"#)) {
        assert!(Instant::now() < end, "no progress in the lock file:\n{}", backup.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    backup
}

#[test]
fn second_backup_while_one_runs_is_refused_and_info_shows_the_first() {
    for (first, second) in [(Tool::Rbr, Tool::PgBackRest), (Tool::PgBackRest, Tool::Rbr), (Tool::Rbr, Tool::Rbr)] {
        let Some(scenario) = slow_scenario() else { return };
        let mut backup = start_backup(&scenario, first);
        // It must not end before the others have tried
        backup.stand_still();
        scenario.run(second, &["backup", "--type=full"]).fails(50).says("unable to acquire lock on file");
        for tool in [Tool::Rbr, Tool::PgBackRest] {
            let info = scenario.run(tool, &["info", "--output=json", "--log-level-console=warn"]).success().json();
            let held = &info[0]["status"]["lock"]["backup"];
            assert_eq!(held["held"], true, "{tool:?} of a backup by {first:?}");
            assert!(held["size"].as_u64().is_some_and(|size| size > 0), "{tool:?} of a backup by {first:?}: {held}");
        }
        backup.go_on();
        assert_eq!(backup.wait(), 0, "{}", backup.log());
        let info = scenario.rbr(&["info", "--output=json", "--log-level-console=warn"]).success().json();
        assert_eq!(info[0]["status"]["lock"]["backup"]["held"], false);
        assert_eq!(info[0]["backup"].as_array().map(Vec::len), Some(1));
        assert!(!scenario.space.path("lock/demo-backup-1.lock").exists(), "the lock file is left over");
    }
}

#[test]
fn backup_into_a_folder_that_cannot_be_written_has_the_number_of_pgbackrest() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(scenario) = slow_scenario() else { return };
    let set_mode = |mode| {
        let folder = scenario.space.path("repo/backup/demo");
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode)).expect("mode");
    };
    set_mode(0o550);
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        scenario.run(tool, &["backup", "--type=full"]).fails(47).says("Permission denied");
    }
    set_mode(0o750);
}

#[test]
fn expire_of_the_other_program_is_refused_while_a_backup_runs() {
    let Some(scenario) = slow_scenario() else { return };
    for (first, second) in [(Tool::Rbr, Tool::PgBackRest), (Tool::PgBackRest, Tool::Rbr)] {
        let mut backup = start_backup(&scenario, first);
        backup.stand_still();
        for command in ["expire", "stanza-upgrade"] {
            scenario.run(second, &[command]).fails(50).says("unable to acquire lock on file");
        }
        // A command without such a lock succeeds
        scenario.run(second, &["check"]).success();
        backup.go_on();
        assert_eq!(backup.wait(), 0, "{}", backup.log());
        scenario.run(second, &["expire"]).success();
    }
    assert_eq!(scenario.labels().len(), 2);
}

#[test]
fn stop_of_the_other_program_ends_a_backup_and_keeps_commands_from_starting() {
    let Some(scenario) = slow_scenario() else { return };
    for (first, second) in [(Tool::Rbr, Tool::PgBackRest), (Tool::PgBackRest, Tool::Rbr)] {
        let mut backup = start_backup(&scenario, first);
        let end = Instant::now() + Duration::from_secs(30);
        while !backup.log().contains("backup file ") {
            assert!(Instant::now() < end, "nothing is copied:\n{}", backup.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        scenario.run(second, &["stop", "--force"]).success().says("sent term signal to process");
        assert_eq!(backup.wait(), 63, "{}", backup.log());
        assert!(backup.log().contains("terminated on signal SIGTERM"), "{}", backup.log());
        for command in ["backup", "expire", "stanza-upgrade"] {
            scenario.run(first, &[command]).fails(62).says("stop file exists for stanza demo");
        }
        scenario.run(second, &["start"]).success();
        // rbr can't know that no process of pgBackRest still writes into its backup
        let said = if second == Tool::Rbr { "is neither resumed nor removed" } else { "resumable backup" };
        scenario.run(second, &["backup", "--type=full", SLOW]).success().says(said);
    }
    let verify = scenario.pgbackrest(&["verify", "--verbose", "--output=text", "--log-level-console=error"]).success();
    for label in scenario.labels() {
        assert!(verify.stdout.contains(&format!("backup: {label}, status: valid")), "{}", verify.describe());
    }
}

#[test]
fn command_ended_by_a_signal_while_a_server_is_silent_leaves_no_lock_file() {
    let Some(scenario) = Scenario::start(ScenarioOptions::default()) else { return };
    // Accepts connections and never answers
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
    let port = server.local_addr().expect("address").port();
    let mut options = vec![format!("repo1-storage-port={port}")];
    options.extend(
        ["type=s3", "storage-host=127.0.0.1", "s3-bucket=b", "s3-endpoint=e", "s3-region=r", "s3-key=k"]
            .map(|option| format!("repo1-{option}")),
    );
    options.extend(["repo1-s3-key-secret=s", "repo1-retention-full=1", "repo1-s3-uri-style=path"].map(str::to_owned));
    scenario.configure(&options);
    let mut expire = scenario.start_command(Tool::Rbr, &["expire"]);
    let (_connection, _) = server.accept().expect("connection");
    let lock = scenario.space.path("lock/demo-backup-1.lock");
    assert!(lock.exists(), "{}", expire.log());
    expire.terminate();
    assert_eq!(expire.wait(), 63, "{}", expire.log());
    assert!(!lock.exists(), "{}", expire.log());
}
