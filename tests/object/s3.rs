//! SeaweedFS, an S3 server that checks signatures, over TLS.

use super::cycle;
use crate::env::{Scenario, ScenarioOptions, Weed};

#[test]
fn s3_repository_is_shared_with_pgbackrest() {
    let Some(weed) = Weed::start() else { return };
    let mut global = weed.options(weed.port());
    global.extend(["repo1-bundle=y", "repo1-block=y", "compress-type=zst"].map(str::to_owned));
    let Some(scenario) = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() }) else { return };
    cycle(&scenario);
    scenario.rbr(&["repo-ls", "--log-level-console=debug"]).success().says("storage requests: GET");
}
