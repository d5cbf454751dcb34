//! Azure Blob Storage, by its emulator.

use super::cycle;
use crate::env::{Azurite, Scenario, ScenarioOptions};

#[test]
fn azure_repository_is_shared_with_pgbackrest() {
    let Some(server) = Azurite::start() else { return };
    let common = ["repo1-bundle=y", "repo1-block=y", "compress-type=none", "repo1-storage-tag=owner=a b"];
    let with_common = |mut lines: Vec<String>| {
        lines.extend(common.map(str::to_owned));
        lines
    };
    let global = with_common(server.options_with_key());
    let Some(scenario) = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() }) else { return };
    cycle(&scenario);
    versions_are_listed(&scenario);

    // The same repository with another proof
    scenario.configure(&with_common(server.options_with_signature()));
    versions_are_listed(&scenario);
    server.proxy.clear();
    scenario.change(3);
    scenario.rbr(&["backup", "--type=diff", "--log-level-console=debug"]).success().never_says("sig=");
    scenario.pgbackrest(&["backup", "--type=incr"]).success();
    let requests = server.proxy.requests();
    assert!(requests.iter().any(|request| request.path.contains("comp=blocklist")), "{requests:#?}");
    assert_eq!(scenario.labels().len(), 3);
    scenario.rbr(&["verify", "--log-level-console=error"]).success();
}

/// The emulator keeps no old versions, but it checks the authorization of requests for them.
fn versions_are_listed(scenario: &Scenario) {
    let past = ["--repo=1", "--repo-target-time=2001-01-01 00:00:00+00", "--log-level-console=off"];
    assert_eq!(scenario.rbr(&[&past[..], &["repo-ls"]].concat()).success().stdout, "archive\nbackup\nproof\n");
}
