//! A gateway that answers instead of an S3 server: no command believes it, and nothing is lost.

use crate::env::proxy::{Fault, Rule};
use crate::env::{Scenario, ScenarioOptions, Weed};

/// Output that claims that there is no repository, or that it is fine.
const BELIEVED: [&str; 5] =
    ["No stanzas exist", "missing stanza", "no valid backups", "status: ok", "remove expired backup"];

fn tricks() -> Vec<Fault> {
    let answer = |status, body: &str| Fault::Answer { status, body: body.to_owned() };
    vec![
        answer(200, "<html><body>login</body></html>"),
        answer(200, "<Error><Code>AccessDenied</Code><Message>not today</Message></Error>"),
        answer(200, "<ListBucketResult></ListBucketResult>"),
        answer(302, ""),
    ]
}

#[test]
fn gateway_that_asks_for_a_login_is_believed_by_no_command_and_costs_no_backup() {
    let Some(weed) = Weed::start() else { return };
    let proxy = weed.proxy();
    let global = weed.options(proxy.port());
    let Some(scenario) = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() }) else { return };
    scenario.rbr(&["stanza-create"]).success();
    for _ in 0..2 {
        scenario.rbr(&["backup", "--type=full"]).success();
    }
    scenario.rbr(&["check"]).success();
    // From here on only this test archives
    scenario.cluster.sql("alter system set archive_command = 'false'");
    scenario.cluster.sql("select pg_reload_conf()");
    let segment = scenario.cluster.data().join("pg_wal").join(scenario.cluster.switch_wal());
    let segment = segment.to_str().expect("UTF-8").to_owned();
    let target = scenario.space.text("fetched");
    let commands: [&[&str]; 10] = [
        &["info", "--log-level-console=off"],
        &["check"],
        &["verify", "--output=text", "--verbose"],
        &["expire", "--repo1-retention-full=1"],
        &["backup", "--type=full"],
        &["archive-push", &segment],
        &["archive-get", "000000010000000000000001", &target],
        &["repo-ls"],
        &["repo-get", "backup/demo/backup.info"],
        &["stanza-create"],
    ];
    for on in ["", "^GET .*list-type=2"] {
        for trick in tricks() {
            proxy.set_rules(vec![Rule::new(trick.clone()).on(on)]);
            for command in commands {
                // Some commands send no listing
                let before = proxy.hits()[0];
                let run = scenario.rbr(command);
                if proxy.hits()[0] == before && !on.is_empty() {
                    continue;
                }
                // Two reports mention what can't be read and succeed, like pgBackRest's. From archive-get, 1 means that
                // there is no such segment, and PostgreSQL would end its recovery.
                let is_told = match command[0] {
                    "info" => run.stdout.contains("error (other)"),
                    "verify" => run.stdout.contains("status: error") || run.code != 0,
                    "archive-get" => run.code > 1,
                    _ => run.code != 0 && run.stdout.contains("ERROR"),
                };
                assert!(is_told, "{trick:?} on '{on}', {command:?}: {}", run.describe());
                for text in BELIEVED {
                    assert!(!run.stdout.contains(text), "{trick:?} on '{on}', {command:?}: {}", run.describe());
                }
            }
        }
    }
    proxy.set_rules(Vec::new());
    assert_eq!(scenario.labels().len(), 2);
    scenario.rbr(&["archive-push", &segment]).success();
    scenario.rbr(&["verify", "--output=text", "--verbose", "--log-level-console=off"]).success().says("status: ok");
}
