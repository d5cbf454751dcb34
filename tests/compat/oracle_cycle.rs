//! Tests the harness itself: with the real pgBackRest on both sides, every comparison must be equal. Otherwise a
//! difference in another test would say nothing about rbr.

use crate::env::{Scenario, ScenarioOptions, Tool, Tree, restored_matches};

#[test]
fn pgbackrest_backup_restored_by_itself_compares_equal() {
    let Some(scenario) = Scenario::start(ScenarioOptions {
        tablespace: true,
        archive_with: Tool::PgBackRest,
        global: vec!["compress-type=zst".into(), "repo1-bundle=y".into()],
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    scenario.pgbackrest(&["stanza-create"]).success();
    scenario.pgbackrest(&["check"]).success();
    scenario.pgbackrest(&["backup", "--type=full"]).success();
    let dump = scenario.cluster.dump();
    assert!(dump.contains("elsewhere") && dump.lines().count() > 20_000, "the dump is too small to compare anything");
    let _first = scenario.restore(Tool::PgBackRest, "first", &["--type=none"]);
    let _second = scenario.restore(Tool::PgBackRest, "second", &["--type=none"]);
    Tree::read_restored(&scenario.space.path("first"))
        .assert_same(&Tree::read_restored(&scenario.space.path("second")));
    let mut restored = scenario.restore(Tool::PgBackRest, "restored", &[]);
    restored_matches(&mut restored, &dump);
    assert_eq!(scenario.labels().len(), 1);
}
