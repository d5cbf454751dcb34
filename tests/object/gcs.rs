//! Google Cloud Storage, by its emulator.

use super::cycle;
use crate::env::proxy::{Fault, Rule};
use crate::env::{Gcs, Scenario, ScenarioOptions, Tool, restored_matches};

#[test]
fn gcs_repository_is_shared_with_pgbackrest() {
    let Some(server) = Gcs::start() else { return };
    let mut global = server.options();
    // Without compression, bundles are larger than one chunk
    global.extend(
        ["repo1-bundle=y", "repo1-block=y", "compress-type=none", "repo1-storage-tag=owner=a b"].map(str::to_owned),
    );
    let Some(scenario) = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() }) else { return };
    cycle(&scenario);

    server.proxy.clear();
    scenario.rbr(&["backup", "--type=full", "--repo1-retention-full=1"]).success().never_says("WARN");
    let requests = server.proxy.requests();
    let count = |part: &str| requests.iter().filter(|request| request.path.contains(part)).count();
    assert!(count("uploadType=multipart") > 0 && count("uploadType=resumable&upload_id=") > 1, "{requests:#?}");
    assert!(count("/batch/storage/v1") > 0, "expire deletes many objects at once: {requests:#?}");
    let info = server.describe("demo%2Fbackup%2Fdemo%2Fbackup.info");
    assert_eq!(info["metadata"], serde_json::json!({"owner": "a b"}));

    let cut = Rule::new(Fault::CutBody).on("^GET ").every(3);
    server.proxy.set_rules(vec![cut, Rule::new(Fault::error(503)).every(7), Rule::new(Fault::Reset).every(11)]);
    scenario.change(3);
    scenario.rbr(&["backup", "--type=incr"]).success();
    let dump = scenario.cluster.dump();
    scenario.cluster.switch_wal();
    let mut restored = scenario.restore(Tool::Rbr, "through-faults", &[]);
    let hits = server.proxy.hits();
    server.proxy.set_rules(Vec::new());
    assert!(hits.iter().all(|&hits| hits > 0), "{hits:?}");
    restored_matches(&mut restored, &dump);
}

#[test]
fn gcs_errors_name_the_object_and_the_status_but_no_secret() {
    let Some(server) = Gcs::start() else { return };
    let Some(scenario) = Scenario::start(ScenarioOptions { global: server.options(), ..ScenarioOptions::default() })
    else {
        return;
    };
    let body = r#"{"error":{"code":403,"message":"no access for you"}}"#.to_owned();
    server.proxy.set_rules(vec![Rule::new(Fault::Answer { status: 403, body })]);
    scenario
        .rbr(&["stanza-create", "--log-level-console=trace"])
        .fails(39)
        .says("/demo/archive/demo/archive.info")
        .says("HTTP request failed with 403 (Forbidden):")
        .says("no access for you")
        .never_says("secret-token");
}
