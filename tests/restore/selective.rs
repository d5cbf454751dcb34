//! Restores of selected databases.

use crate::env::{Scenario, ScenarioOptions, Shutdown, Tool, Tree};

#[test]
fn db_include_restores_that_database_and_zeroes_the_others() {
    let Some(scenario) = Scenario::start(ScenarioOptions {
        version: 15,
        global: vec!["compress-type=zst".into(), "repo1-bundle=y".into()],
        archive_with: Tool::Rbr,
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    scenario.cluster.sql("create database wanted");
    scenario.cluster.sql("create database unwanted");
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["backup", "--type=full"]).success();

    for (number, arguments) in
        [&["--db-include=wanted"][..], &["--db-exclude=unwanted"], &["--db-include=wanted", "--db-exclude=postgres"]]
            .into_iter()
            .enumerate()
    {
        let mut arguments = arguments.to_vec();
        arguments.push("--type=none");
        scenario.restore(Tool::PgBackRest, &format!("theirs-{number}"), &arguments);
        scenario.restore(Tool::Rbr, &format!("ours-{number}"), &arguments);
        Tree::read_restored(&scenario.space.path(&format!("theirs-{number}")))
            .assert_same(&Tree::read_restored(&scenario.space.path(&format!("ours-{number}"))));
    }

    let mut restored = scenario.restore(
        Tool::Rbr,
        "restored",
        &["--db-include=wanted", "--type=immediate", "--target-action=promote"],
    );
    restored.start();
    restored.wait_writable();
    assert_eq!(restored.sql("select count(*) from plain"), "20000");
    restored.sql("drop database unwanted");
    restored.stop(Shutdown::Fast);

    scenario.space.folder("refused");
    let path = format!("--pg1-path={}", scenario.space.text("refused"));
    scenario.rbr(&[&path, "--db-include=nosuch", "restore"]).fails(80);
    scenario.rbr(&[&path, "--db-include=postgres", "restore"]).fails(81);
}
