//! A bucket that keeps old versions, read as it was before backups and WAL were expired (`repo-target-time`).

use std::time::Duration;

use crate::env::{Scenario, ScenarioOptions, Tool, Weed, restored_matches};

/// The time now, in the form of the option, at least a second after what was and before what will be written.
fn now(scenario: &Scenario) -> String {
    std::thread::sleep(Duration::from_millis(1100));
    let time =
        scenario.cluster.sql("select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') || '+00'");
    std::thread::sleep(Duration::from_millis(1100));
    time.trim().to_owned()
}

#[test]
fn repository_is_read_as_it_was_before_it_was_expired() {
    let Some(weed) = Weed::start() else { return };
    weed.keep_versions();
    let mut global = weed.options(weed.port());
    global.extend(["repo1-bundle=y", "repo1-block=y", "compress-type=zst"].map(str::to_owned));
    let Some(scenario) = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() }) else { return };
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

    let file_time = regex_lite::Regex::new(",\"time\":[0-9]+").expect("pattern");
    let past = ["--repo=1", time.as_str(), "--log-level-console=warn", "--no-log-timestamp"];
    for arguments in
        [&["info", "--output=json"][..], &["info"], &["repo-ls", "--recurse", "--output=json"], &["verify"]]
    {
        let [ours, theirs] = [Tool::Rbr, Tool::PgBackRest].map(|tool| {
            let said = scenario.run(tool, &[&past[..], arguments].concat()).success().stdout;
            // The times that pgBackRest lists are those of the oldest versions
            file_time.replace_all(&said, "").into_owned()
        });
        assert_eq!(ours, theirs, "{arguments:?}");
    }
    let info = scenario.rbr(&[&past[..], &["info", "--output=json"]].concat()).success();
    for label in &kept {
        assert!(info.stdout.contains(label.as_str()), "{label}");
    }
    for (tool, name) in [(Tool::Rbr, "by-rbr"), (Tool::PgBackRest, "by-pgbackrest")] {
        let mut restored = scenario.restore(tool, name, &["--repo=1", &time]);
        restored_matches(&mut restored, &dump);
    }

    // Before there was anything, and where the option can't be used
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
