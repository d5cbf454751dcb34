//! The output of `info` and of the repository's file commands, byte for byte compared with the real pgBackRest.

use std::fs;

use crate::env::{Scenario, ScenarioOptions, Tool};

/// Checks that both programs print the same and exit with the same status.
#[track_caller]
fn same(scenario: &Scenario, arguments: &[&str]) {
    let config = format!("--config={}", scenario.space.text("pgbackrest.conf"));
    let mut all = vec![config.as_str(), "--log-level-console=off"];
    all.extend(arguments);
    let run = |tool| scenario.space.run(scenario.program(tool), &all);
    let (ours, theirs) = (run(Tool::Rbr), run(Tool::PgBackRest));
    assert!(
        (ours.code, &ours.stdout) == (theirs.code, &theirs.stdout),
        "{arguments:?}\nours:\n{}\ntheirs:\n{}",
        ours.describe(),
        theirs.describe()
    );
}

/// Backups of all types in a plain and an encrypted repository, made by pgBackRest.
fn scenario() -> Option<Scenario> {
    let scenario = Scenario::start(ScenarioOptions {
        tablespace: true,
        archive_with: Tool::PgBackRest,
        ..ScenarioOptions::default()
    })?;
    let second = format!("repo2-path={}", scenario.space.folder("repo2").display());
    let lines = [second.as_str(), "repo2-cipher-type=aes-256-cbc", "repo2-cipher-pass=secret", "repo1-bundle=y"];
    scenario.configure(&lines.map(str::to_owned));
    scenario.pgbackrest(&["stanza-create"]).success();
    for (kind, repo) in [("full", 1), ("diff", 1), ("full", 2), ("incr", 1), ("incr", 2)] {
        let (kind, repo) = (format!("--type={kind}"), format!("--repo={repo}"));
        scenario.pgbackrest(&[&kind, &repo, "--annotation=note=a \"b\"", "--repo1-block", "backup"]).success();
    }
    Some(scenario)
}

#[test]
fn info_prints_what_pgbackrest_prints() {
    let Some(scenario) = scenario() else { return };
    let labels = scenario.labels();
    let check = |scenario: &Scenario| {
        for output in ["--output=text", "--output=json"] {
            same(scenario, &[output, "info"]);
            same(scenario, &[output, "--stanza=demo", "info"]);
            same(scenario, &[output, "--stanza=other", "info"]);
            same(scenario, &[output, "--detail-level=progress", "info"]);
            same(scenario, &[output, "--stanza=demo", "--type=incr", "info"]);
            same(scenario, &[output, "--stanza=demo", "--repo=2", "info"]);
            for label in labels.iter().map(String::as_str).chain(["20200101-000000F", "none"]) {
                same(scenario, &[output, "--stanza=demo", "--set", label, "info"]);
            }
        }
    };
    check(&scenario);
    // A backup that runs, as its lock tells
    let lock = scenario.space.write(
        "lock/demo-backup-1.lock",
        r#"{"execId":"1-00000000","pctCplt":8369,"pid":1,"sz":1356479,"szCplt":1135285}"#,
    );
    let held = fs::File::open(lock).expect("lock");
    rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive).expect("lock");
    check(&scenario);
    drop(held);
    // Stanzas that are damaged, without data, and without backups
    scenario.space.folder("repo/backup/empty");
    scenario.space.folder("repo/backup/damaged");
    scenario.space.write("repo/backup/damaged/backup.info", "nonsense");
    fs::rename(scenario.space.path("repo2/archive/demo/archive.info"), scenario.space.path("hidden")).expect("hide");
    fs::rename(scenario.space.path("repo2/archive/demo/archive.info.copy"), scenario.space.path("hidden2"))
        .expect("hide");
    check(&scenario);
}

#[test]
fn repository_files_are_shown_as_pgbackrest_shows_them() {
    let Some(scenario) = scenario() else { return };
    let label = scenario.labels().remove(0);
    let backup = format!("backup/demo/{label}");
    let absolute = scenario.space.text("repo/backup");
    for arguments in [
        &["repo-ls"][..],
        &["--recurse", "repo-ls"],
        &["--recurse", "--sort=desc", "repo-ls", "backup"],
        &["--recurse", "--output=json", "repo-ls"],
        &["--output=json", "repo-ls", "backup/demo"],
        &["--output=json", "repo-ls", "backup/demo/backup.info"],
        &["--output=json", "repo-ls", "no/such"],
        &["--recurse", "--filter=manifest", "repo-ls", "backup"],
        &["--output=json", "--filter=^demo$", "repo-ls", "backup/"],
        &["repo-ls", &absolute],
        &["repo-ls", "/elsewhere"],
        &["repo-ls", "a//b"],
        &["repo-ls", "a", "b"],
        &["repo-get", "backup/demo/backup.info"],
        &["--repo=2", "repo-get", "backup/demo/backup.info.copy"],
        &["--repo=2", "repo-get", "archive/demo/archive.info"],
        &["--repo=2", "--raw", "repo-get", "archive/demo/archive.info"],
        &["--repo=2", "--stanza=other", "repo-get", "archive/demo/archive.info"],
        &["--repo=2", "repo-get", "archive/x"],
        &["repo-get", &format!("{backup}/backup.manifest")],
        &["repo-get", "backup/none"],
        &["--ignore-missing", "repo-get", "backup/none"],
        &["repo-get"],
    ] {
        same(&scenario, arguments);
    }
    let second =
        scenario.pgbackrest(&["--repo=2", "info", "--output=json", "--log-level-console=off"]).success().json();
    let label = second[0]["backup"][0]["label"].as_str().expect("label");
    for file in ["backup.manifest", "pg_data/PG_VERSION.gz"] {
        same(&scenario, &["--repo=2", "repo-get", &format!("backup/demo/{label}/{file}")]);
    }
    let program = scenario.space.path("bin/rbr");
    let config = format!("--config={}", scenario.space.text("pgbackrest.conf"));
    let run = |arguments: &[&str]| {
        let mut all = vec![config.as_str()];
        all.extend(arguments);
        scenario.space.run(&program, &all)
    };
    for path in [backup.as_str(), "backup/demo"] {
        run(&["repo-rm", path]).fails(31).says("recurse option must be used to delete non-empty path");
    }
    // A claim that is left makes others wait
    let entries = std::fs::read_dir(scenario.space.path("repo/backup/demo")).expect("read backups");
    let names: Vec<_> = entries.map(|entry| entry.expect("entry").file_name().into_string().expect("name")).collect();
    assert!(!names.iter().any(|name| name.starts_with("backup.claim.")), "{names:?}");
    run(&["repo-rm", "../outside"]).fails(96);
    run(&["repo-rm", "backup/demo/latest"]).success();
    assert!(!scenario.space.path("repo/backup/demo/latest").is_symlink());
    run(&["--recurse", "repo-rm", &backup]).success();
    assert!(!scenario.space.path(&format!("repo/{backup}")).exists());
}

#[test]
fn annotations_are_changed_in_the_repository_that_has_the_backup() {
    let Some(scenario) = scenario() else { return };
    let second =
        scenario.pgbackrest(&["--repo=2", "info", "--output=json", "--log-level-console=off"]).success().json();
    let label = second[0]["backup"][0]["label"].as_str().expect("label").to_owned();
    let before = fs::read(scenario.space.path("repo/backup/demo/backup.info")).expect("backup.info");
    let set = format!("--set={label}");
    scenario.rbr(&[&set, "--annotation=note=", "--annotation=more=x=y", "annotate"]).success().says("found in repo2");
    assert_eq!(fs::read(scenario.space.path("repo/backup/demo/backup.info")).expect("backup.info"), before);
    let info =
        scenario.pgbackrest(&["--repo=2", &set, "info", "--output=json", "--log-level-console=off"]).success().json();
    assert_eq!(info[0]["backup"][0]["annotation"], serde_json::json!({"more": "x=y"}));
    scenario.rbr(&[&set, "--annotation=a\"b=c", "annotate"]).fails(32);
    scenario.rbr(&["--set=20200101-000000F", "--annotation=a=b", "annotate"]).fails(75);
    scenario.pgbackrest(&["verify"]).success();
}
