//! A restore after an unfinished one, whose files may be in memory and not on disk.

use std::fs;
use std::path::Path;

use crate::env::{Scenario, ScenarioOptions, Tool, Tree, oracle};

/// Runs a restore into `pg` under strace. Returns how often it dropped a file from the page cache.
fn files_forgotten(scenario: &Scenario, arguments: &[&str]) -> usize {
    let log = scenario.space.text("log/strace");
    let program = scenario.program(Tool::Rbr);
    let options = [
        format!("--config={}", scenario.space.text("pgbackrest.conf")),
        format!("--pg1-path={}", scenario.space.text("restored")),
    ];
    let mut all = vec!["-f", "-qq", "-e", "trace=fadvise64,syncfs", "-o", &log, program.to_str().expect("UTF-8")];
    all.extend(options.iter().map(String::as_str));
    all.extend(["--stanza=demo", "--type=none"]);
    all.extend(arguments);
    all.push("restore");
    scenario.space.run("strace", &all).success();
    let trace = fs::read_to_string(log).expect("trace");
    // Only clean pages can be dropped
    let first = trace.lines().find(|line| line.contains("syncfs(") || line.contains("fadvise64(")).expect("a sync");
    assert!(first.contains("syncfs("), "{first}");
    trace.lines().filter(|line| line.contains("POSIX_FADV_DONTNEED")).count()
}

/// Changes a byte of a file but neither its size nor its time.
fn damage(path: &Path) {
    let modified = path.metadata().expect("metadata").modified().expect("time");
    let mut content = fs::read(path).expect("file");
    content[5000] ^= 1;
    fs::write(path, content).expect("file");
    fs::File::options().write(true).open(path).expect("file").set_modified(modified).expect("time");
}

#[test]
fn restore_after_an_unfinished_one_compares_what_is_on_disk() {
    if !Path::new("/usr/bin/strace").exists() {
        return oracle::skip("no strace");
    }
    let Some(scenario) = Scenario::start(ScenarioOptions {
        version: 18,
        global: vec!["compress-type=zst".into()],
        on_disk: true,
        ..ScenarioOptions::default()
    }) else {
        return;
    };
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["backup", "--type=full"]).success();
    scenario.restore(Tool::Rbr, "restored", &["--type=none"]);
    let path = scenario.space.path("restored");
    let whole = Tree::read_restored(&path);
    let (table, control) = (path.join("base/1/1259"), path.join("global/pg_control"));

    // After a successful restore the page cache is good enough, and with --force even the time of a file
    assert_eq!(files_forgotten(&scenario, &["--delta"]), 0);
    damage(&table);
    assert_eq!(files_forgotten(&scenario, &["--delta", "--force"]), 0);
    assert_eq!(whole.differences(&Tree::read_restored(&path)).len(), 1);

    // A restore that failed at its last sync leaves everything but this
    fs::remove_file(&control).expect("pg_control");
    let forgotten = files_forgotten(&scenario, &["--delta", "--force"]);
    assert!(forgotten > 500, "{forgotten} files were read from disk");
    whole.assert_same(&Tree::read_restored(&path));

    // A killed restore leaves the manifest
    damage(&table);
    scenario.space.write("restored/backup.manifest", "");
    assert!(files_forgotten(&scenario, &["--delta"]) > 500);
    whole.assert_same(&Tree::read_restored(&path));
}
