//! Output for programs: log lines and summaries as JSON.

use std::fs;

use serde_json::{Value, json};

use crate::env::{Scenario, ScenarioOptions, Space, Tool};

/// Each line as an object.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// A stanza whose cluster archives into two repositories.
fn scenario() -> Option<Scenario> {
    let global = ["repo1-retention-full=1", "start-fast=y"].map(str::to_owned).to_vec();
    Scenario::start(ScenarioOptions { global, archive_with: Tool::Rbr, ..ScenarioOptions::default() })
}

#[test]
fn log_in_json_has_only_objects_everywhere() {
    let space = Space::new();
    let lock = format!("--lock-path={}", space.text("lock"));
    let log = format!("--log-path={}", space.text("log"));
    let base = ["--no-config", "--stanza=demo", &lock, &log, "--log-format=json"];
    let run = space.run(space.path("bin/rbr"), &[&base[..], &["--log-level-console=info", "start"]].concat()).success();
    let console = lines(&run.stdout);
    assert_eq!((run.stderr.as_str(), console.len()), ("", 3), "{}", run.describe());
    for line in &console {
        let time = line["time"].as_str().expect("time");
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        assert_eq!((&line["command"], &line["stanza"]), (&json!("start"), &json!("demo")));
        assert_eq!(line["process"], 0);
    }
    assert!(console[0]["message"].as_str().expect("message").starts_with("start command begin "), "{console:?}");
    assert_eq!(console[1]["level"], "warn");
    // The second run appends, without a banner
    space.run(space.path("bin/rbr"), &[&base[..], &["--log-level-stderr=info", "start"]].concat()).success();
    let file = lines(&fs::read_to_string(space.path("log/demo-start.log")).expect("log file"));
    assert_eq!(file.len(), 6, "{file:?}");
}

#[test]
fn errors_in_json_have_code_and_hints_also_before_the_options_are_known() {
    let space = Space::new();
    let run = space.run(space.path("bin/rbr"), &["--log-format=json", "--bogus", "backup"]).fails(31);
    let found = lines(&run.stderr);
    assert_eq!((found.len(), run.stdout.as_str()), (1, ""), "{}", run.describe());
    assert_eq!((&found[0]["code"], &found[0]["level"]), (&json!(31), &json!("error")));
    assert_eq!(found[0]["message"], "invalid option '--bogus'");
    let run = space.run(space.path("bin/rbr"), &["--log-format", "json", "--no-config", "backup"]).fails(37);
    // Once options are parsed, errors go to standard output as in text
    let found = lines(&run.stdout);
    assert_eq!((&found[0]["command"], &found[0]["code"]), (&json!("backup"), &json!(37)), "{}", run.describe());
    // A hint has its own place
    let lock = format!("--lock-path={}", space.text("lock"));
    let missing =
        ["--no-config", "--stanza=demo", "--log-format=json", "--log-level-file=off", &lock, "--repo1-path=/x"];
    let run = space.run(space.path("bin/rbr"), &[&missing[..], &["annotate", "--set=a", "--annotation=a=b"]].concat());
    let found = lines(&run.fails(32).stdout);
    assert_eq!(found[0]["message"], "'a' is not a valid backup label format");
}

#[test]
fn format_of_the_log_is_no_option_of_a_file_or_the_environment() {
    let space = Space::new();
    let run =
        space.run(space.path("bin/rbr"), &["--log-format=xml", "--no-config", "--stanza=demo", "start"]).fails(32);
    run.says("'xml' is not allowed for 'log-format' option");
}

#[test]
fn each_command_prints_its_summary_and_nothing_else_on_standard_output() {
    let Some(scenario) = scenario() else { return };
    let run = |arguments: &[&str]| {
        let all = [&["--output=json", "--log-level-console=info"], arguments].concat();
        let run = scenario.rbr(&all).success();
        assert!(run.stderr.contains("command end: completed successfully"), "{}", run.describe());
        let summary: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|_| panic!("{}", run.describe()));
        assert_eq!((&summary["status"], &summary["error"]), (&json!("ok"), &Value::Null), "{summary}");
        assert_eq!(summary["stanza"], "demo");
        summary
    };
    let created = run(&["stanza-create"]);
    assert_eq!(created["stanza-create"]["repo"], json!([{ "key": 1, "change": "created" }]));
    assert_eq!(run(&["stanza-upgrade"])["stanza-upgrade"]["repo"][0]["change"], "unchanged");

    let checked = run(&["check"]);
    let segment = checked["check"][0]["segment"].as_str().expect("segment");
    assert!(checked["check"][0]["archived"][0]["path"].as_str().expect("path").contains(segment), "{checked}");

    run(&["--type=full", "backup"]);
    let backup = run(&["--type=full", "backup"]);
    let labels = scenario.labels();
    assert_eq!(labels.len(), 1, "{labels:?}");
    let (done, expired) = (&backup["backup"], &backup["expire"]["repo"][0]);
    assert_eq!((&done["label"], &done["type"]), (&json!(labels[0]), &json!("full")));
    assert_eq!(expired["backup"].as_array().expect("backups").len(), 1, "{backup}");
    // The same members as in info
    let info = scenario.rbr(&["--output=json", "info"]).success().json();
    for (name, value) in info[0]["backup"][0].as_object().expect("backup") {
        assert_eq!(&done[name], value, "{name}");
    }
    assert!(done["files"].as_u64().expect("files") > 500, "{done}");

    let verified = &run(&["verify"])["verify"];
    assert_eq!((&verified["valid"], &verified["errors"]), (&json!(true), &json!(0)));
    assert_eq!(
        (&verified["backup"][0]["label"], &verified["backup"][0]["status"]),
        (&json!(labels[0]), &json!("valid"))
    );
    assert_eq!(verified["backup"][0]["files"]["total"], verified["backup"][0]["files"]["valid"]);

    let set = format!("--set={}", labels[0]);
    assert_eq!(run(&[&set, "--annotation=a=b", "annotate"])["annotate"]["repo-key"], json!([1]));
    let dry = run(&["--dry-run", "expire"]);
    assert_eq!((&dry["expire"]["dry-run"], &dry["expire"]["repo"][0]["backup"]), (&json!(true), &json!([])));
    let target = format!("--pg1-path={}", scenario.space.folder("restored").display());
    let restored = run(&[&target, "restore"]);
    assert_eq!((&restored["restore"]["backup"], &restored["restore"]["files"]), (&json!(labels[0]), &done["files"]));
    assert_eq!(restored["restore"]["archive"], done["archive"]);
}

#[test]
fn failed_command_says_why_in_its_summary() {
    let Some(scenario) = scenario() else { return };
    let failed = |arguments: &[&str], code: i32| {
        let all = [&["--output=json"], arguments].concat();
        let run = scenario.rbr(&all).fails(code);
        let summary: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|_| panic!("{}", run.describe()));
        assert_eq!((&summary["status"], &summary["error"]["code"]), (&json!("error"), &json!(code)), "{summary}");
        summary
    };
    let without_stanza = failed(&["check"], 55);
    assert_eq!(without_stanza["error"]["name"], "FileMissingError");
    assert!(!without_stanza["error"]["hints"].as_array().expect("hints").is_empty(), "{without_stanza}");
    assert_eq!(failed(&["--bogus", "backup"], 31)["command"], "backup");
    // An abbreviation is known once the arguments are parsed
    let run = scenario.rbr(&["--outp=json", "--type=bogus", "backup"]).fails(32);
    assert_eq!((run.stdout.lines().count(), run.json()["command"].clone()), (1, json!("backup")), "{}", run.describe());
    assert_eq!(failed(&["--type=bogus", "backup"], 32)["command"], "backup");
    scenario.rbr(&["stanza-create"]).success();
    assert_eq!(failed(&["--repo1-retention-archive-type=bogus", "backup"], 32).get("backup"), None);
    assert_eq!(failed(&["--set=20200101-000000F", "--annotation=a=b", "annotate"], 75)["stanza"], "demo");
    // The backup counts although expire fails after it
    let half = failed(&["--repo2-path=/dev/null/repo", "--repo2-retention-full=1", "--type=full", "backup"], 104);
    let newest = scenario.labels().pop().expect("label");
    assert_eq!((&half["backup"]["label"], half.get("expire")), (&json!(newest), None), "{half}");
}

#[test]
fn output_that_pgbackrest_refuses_stays_refused_where_rbr_has_no_summary() {
    let space = Space::new();
    for (arguments, code) in [
        (&["--no-config", "--stanza=demo", "--output=bogus", "verify"][..], 32),
        (&["--output=json", "version"], 32),
        (&["--no-config", "--stanza=demo", "--output=none", "--pg1-path=/pg", "backup"], 32),
        (&["--no-config", "--stanza=demo", "--output=json", "start"], 31),
        (&["--no-config", "--output=none", "info"], 32),
    ] {
        space.run(space.path("bin/rbr"), arguments).fails(code);
    }
}
