//! A bucket that keeps old versions, read as it was before backups and WAL were expired (`repo-target-time`).

use std::time::Duration;

use crate::env::{History, Scenario, ScenarioOptions, Service, Shutdown, Tool, Weed, restored_matches};

/// When a repository had its first backups, and when they were expired. Both are in the past, so that the test does not
/// have to wait.
const TIMES: [i64; 2] = [1_000_000_000, 1_000_000_100];

/// Returns the current time in the form of the option, at least a second after everything written before and before
/// everything written later.
fn now(scenario: &Scenario) -> String {
    std::thread::sleep(Duration::from_millis(1100));
    let time =
        scenario.cluster.sql("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') || '+00'");
    std::thread::sleep(Duration::from_millis(1100));
    time.trim().to_owned()
}

/// What a program reports about the repository as it was.
fn past(scenario: &Scenario, tool: Tool, time: &str) -> Vec<String> {
    let file_time = regex_lite::Regex::new(",\"time\":[0-9]+").expect("pattern");
    let past = ["--repo=1", time, "--log-level-console=warn", "--no-log-timestamp"];
    let commands: [&[&str]; 4] =
        [&["info", "--output=json"], &["info"], &["repo-ls", "--recurse", "--output=json"], &["verify"]];
    let report = |command: &[&str]| {
        let said = scenario.run(tool, &[&past[..], command].concat()).success().stdout;
        // The times that pgBackRest lists are those of other versions
        format!("{command:?}: {}", file_time.replace_all(&said, ""))
    };
    commands.map(report).to_vec()
}

/// Checks that both programs report the same about the repository as it was. Returns it.
fn same_past(scenario: &Scenario, time: &str) -> Vec<String> {
    let [ours, theirs] = [Tool::Rbr, Tool::PgBackRest].map(|tool| past(scenario, tool, time));
    assert_eq!(ours, theirs, "{time}");
    ours
}

/// Reaches the repository by a process of this program, as if it were on another host. Both hosts know its path.
fn configure_host(scenario: &Scenario, repo: &[String], far: Tool) {
    let space = &scenario.space;
    space.write_program("ssh", "#!/bin/sh\nfor last; do :; done\nexec sh -c \"$last\"\n");
    let folders = [("log-path", "far-log"), ("lock-path", "far-lock")];
    let folders = folders.map(|(option, folder)| format!("{option}={}", space.folder(folder).display()));
    let path = repo.iter().find(|line| line.starts_with("repo1-path=")).expect("path");
    space.write("far.conf", format!("[global]\n{}\n{}\n", repo.join("\n"), folders.join("\n")));
    scenario.configure(&[
        "repo1-host=repository.example".to_owned(),
        format!("repo1-host-cmd={}", scenario.program(far).display()),
        format!("repo1-host-config={}", space.text("far.conf")),
        format!("cmd-ssh={}", space.text("ssh")),
        path.clone(),
    ]);
}

#[test]
fn repository_is_read_as_it_was_before_it_was_expired() {
    let Some(weed) = Weed::start() else { return };
    weed.keep_versions();
    let mut global = weed.options(weed.port());
    global.extend(["repo1-bundle=y", "repo1-block=y", "compress-type=zst"].map(str::to_owned));
    let repo = weed.options(weed.port());
    let options = ScenarioOptions { global: global.clone(), ..ScenarioOptions::default() };
    let Some(scenario) = Scenario::start(options) else { return };
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["backup", "--type=full"]).success();
    scenario.change(1);
    scenario.rbr(&["backup", "--type=incr"]).success();
    scenario.change(2);
    let dump = scenario.cluster.dump();
    scenario.cluster.switch_wal();
    scenario.rbr(&["check"]).success();
    let kept = scenario.labels();
    let time = format!("--repo-target-time={}", now(&scenario));

    // Backups, WAL and info files are replaced and removed
    scenario.change(3);
    scenario.rbr(&["backup", "--type=full", "--repo1-retention-full=1"]).success();
    assert!(!scenario.labels().iter().any(|label| kept.contains(label)));

    let report = same_past(&scenario, &time);
    for label in &kept {
        assert!(report[0].contains(label.as_str()), "{label}");
    }
    // The same repository, on another host
    for (near, far) in [(Tool::Rbr, Tool::Rbr), (Tool::Rbr, Tool::PgBackRest), (Tool::PgBackRest, Tool::Rbr)] {
        configure_host(&scenario, &repo, far);
        assert_eq!(past(&scenario, near, &time), report, "{near:?} with {far:?} on the host of the repository");
        if near != far {
            let mut restored = scenario.restore(near, &format!("by-{near:?}"), &["--repo=1", &time]);
            restored_matches(&mut restored, &dump);
        }
    }
    configure_host(&scenario, &[format!("repo1-path={}", scenario.space.folder("repo").display())], Tool::Rbr);
    scenario
        .rbr(&["--repo=1", &time, "repo-ls"])
        .fails(67)
        .says("versioning required for time limit: the repository of 'repository.example' keeps no old versions");
    scenario.configure(&global);

    // Before anything existed, and with commands that do not support the option
    let long_ago = "--repo-target-time=2001-01-01 00:00:00+00";
    scenario.rbr(&["--repo=1", long_ago, "info"]).success().says("missing stanza data").never_says(&kept[0]);
    scenario.rbr(&[&time, "info"]).fails(31).says("option 'repo-target-time' not valid without option 'repo'");
    scenario
        .rbr(&["--repo=1", &time, "backup"])
        .fails(31)
        .says("option 'repo-target-time' not valid for command 'backup'");
    scenario
        .rbr(&["--repo=1", "--repo-target-time=yesterday", "repo-ls"])
        .fails(29)
        .says("invalid date/time yesterday");
}

/// A repository that was created in a folder is read from servers as of two times.
#[test]
fn azure_and_gcs_repositories_are_read_as_they_were() {
    let global: Vec<String> = ["repo1-bundle=y", "repo1-block=y", "compress-type=zst"].map(str::to_owned).to_vec();
    let options = ScenarioOptions { global: global.clone(), ..ScenarioOptions::default() };
    let Some(mut scenario) = Scenario::start(options) else { return };
    let servers = [Service::Azure, Service::Gcs].map(History::start);
    let folder = scenario.space.path("repo");
    let record = |time| servers.iter().for_each(|server| server.record(&folder, time));
    scenario.rbr(&["stanza-create"]).success();
    record(TIMES[0] - 1);
    scenario.rbr(&["backup", "--type=full"]).success();
    // Of two versions in the same second, the later one counts
    record(TIMES[0]);
    scenario.change(1);
    scenario.rbr(&["backup", "--type=incr"]).success();
    let dump = scenario.cluster.dump();
    scenario.cluster.switch_wal();
    scenario.rbr(&["check"]).success();
    record(TIMES[0]);
    scenario.rbr(&["backup", "--type=full", "--repo1-retention-full=1"]).success();
    scenario.cluster.stop(Shutdown::Fast);
    record(TIMES[1]);

    for (number, server) in servers.iter().enumerate() {
        scenario.configure(&[server.options(), global.clone()].concat());
        for (time, backups) in TIMES.into_iter().zip([2, 1]) {
            let time = format!("--repo-target-time=2001-09-09 01:{:02}:{:02}+00", time / 60 % 60, time % 60);
            same_past(&scenario, &time);
            let info = scenario.rbr(&["--repo=1", &time, "info", "--output=json", "--log-level-console=off"]);
            assert_eq!(info.success().json()[0]["backup"].as_array().map(Vec::len), Some(backups), "{time}");
        }
        let requests = server.proxy.requests();
        for part in ["marker=", "pageToken=", "versionid=", "generation="].iter().skip(number % 2).step_by(2) {
            assert!(requests.iter().any(|request| request.path.contains(part)), "{part}");
        }
        let past = ["--repo=1", "--repo-target-time=2001-09-09 01:46:40+00", "--archive-mode=off"];
        let mut restored = scenario.restore(Tool::Rbr, &format!("restored-{number}"), &past);
        restored_matches(&mut restored, &dump);
    }
}
