//! A backup of a file with an invalid page checksum.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::env::{Run, Scenario, ScenarioOptions, Shutdown, Tool};

/// The warnings about pages, without time and process.
fn warnings(run: &Run, folder: &str) -> Vec<String> {
    let text = format!("{}{}", run.stdout, run.stderr);
    let warnings =
        text.lines().filter_map(|line| line.split_once("WARN: ")).map(|(_, text)| text.replace(folder, "DATA"));
    warnings.filter(|text| text.contains("page checksum")).collect()
}

#[test]
fn file_with_invalid_pages_ends_a_restore_unless_only_warned_about_as_in_pgbackrest() {
    let options = ScenarioOptions { version: 15, ..ScenarioOptions::default() };
    let Some(mut scenario) = Scenario::start(options) else { return };
    scenario.rbr(&["stanza-create"]).success();
    let relation = scenario.cluster.sql("select pg_relation_filepath('plain')");
    scenario.cluster.stop(Shutdown::Fast);
    let file = File::options().write(true).open(scenario.cluster.data().join(&relation)).expect("relation");
    file.write_all_at(b"damage", 4000).expect("write");
    scenario.cluster.start();
    scenario.rbr(&["backup", "--type=full"]).success().says("invalid page checksum");

    let mut seen = Vec::new();
    for (tool, name) in [(Tool::PgBackRest, "theirs"), (Tool::Rbr, "ours")] {
        let folder = scenario.space.folder(name);
        let path = format!("--pg1-path={}", folder.display());
        let refused = scenario.run(tool, &[&path, "restore"]).fails(26);
        let control = folder.join("global/pg_control");
        assert!(!control.exists(), "{name}: a cluster that was not restored to the end can be started");
        let again = scenario.space.folder(&format!("{name}-again"));
        let again_path = format!("--pg1-path={}", again.display());
        let warned = scenario.run(tool, &[&again_path, "--no-checksum-page-error", "restore"]).success();
        assert!(again.join("global/pg_control").exists(), "{name}");
        let words = warnings(&warned, &again.display().to_string());
        seen.push((refused.error().replace(&folder.display().to_string(), "DATA"), words));
    }
    // pgBackRest reports nothing for a file that exists already, as after the failed restore
    scenario.rbr(&[&format!("--pg1-path={}", scenario.space.text("ours")), "--delta", "restore"]).fails(26);
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[1].1.len(), 2, "{seen:?}");
}
