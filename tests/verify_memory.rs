//! `verify --older-than`, `--max-bytes` and `--max-time`: what was read is remembered, and only the rest is read.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::env::{Run, Scenario, ScenarioOptions, Tool, Weed, restored_matches};
use crate::test_restore::{archive_now, with_chain};

const FOLDER: &str = "repo/proof/demo/verified";

fn verify(scenario: &Scenario, arguments: &[&str]) -> Run {
    let fixed = ["verify", "--output=text", "--log-level-console=warn", "--job-retry=0"];
    scenario.rbr(&[&fixed[..], arguments].concat()).success()
}

/// The files and bytes of a line in a report.
#[track_caller]
fn amount(run: &Run, line: &str) -> (u64, String) {
    let found = run.stdout.lines().find_map(|text| text.trim().strip_prefix(line)?.strip_prefix(": "));
    let found = found.unwrap_or_else(|| panic!("no {line} in {}", run.describe()));
    let (files, bytes) = found.split_once(" file(s), ").expect("an amount");
    (files.parse().expect("number"), bytes.to_owned())
}

#[track_caller]
fn read(run: &Run) -> u64 {
    amount(run, "read now").0
}

/// Changes a byte without changing the time of the file, as a disk does.
fn rot(path: &Path) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("open");
    let data = file.metadata().expect("size");
    let mut byte = [0];
    file.read_exact_at(&mut byte, data.len() / 2).expect("read");
    file.write_all_at(&[byte[0] ^ 0x55], data.len() / 2).expect("write");
    file.set_modified(data.modified().expect("time")).expect("time");
}

fn records(scenario: &Scenario) -> Vec<PathBuf> {
    let entries = fs::read_dir(scenario.space.path(FOLDER)).into_iter().flatten();
    entries.map(|entry| entry.expect("entry").path()).collect()
}

fn bundle(scenario: &Scenario, label: &str, number: u32) -> PathBuf {
    scenario.space.path(&format!("repo/backup/demo/{label}/bundle/{number}"))
}

#[test]
fn verified_repository_is_read_only_where_it_is_new_and_pgbackrest_does_not_mind() {
    let Some(mut scenario) = with_chain(ScenarioOptions::default()) else { return };
    let plain = scenario.rbr(&["verify", "--output=text", "--verbose"]).success().stdout;
    assert!(records(&scenario).is_empty(), "a run without the options begins to remember");
    let first = verify(&scenario, &["--older-than=7d"]);
    first.says("status: ok").never_says("WARN");
    let first = verify(&scenario, &["--older-than=7d"]);
    assert_eq!(read(&first), 0, "{}", first.describe());
    let (all, _) = amount(&first, "good when last read");
    assert!(all > 700, "{all}");
    assert_eq!(records(&scenario).len(), 1);
    let size = records(&scenario)[0].metadata().expect("size").len();
    assert!(size < 20 * all + 2000, "{size} bytes for {all} files");
    // Each directory and file tells its own story of what is new
    scenario.change(3);
    archive_now(&scenario);
    scenario.rbr(&["--type=incr", "backup"]).success();
    scenario.archiving_ends(&["lock"]);
    let second = verify(&scenario, &["--older-than=7d"]);
    assert!((1..all / 4).contains(&read(&second)), "{}", second.describe());
    assert_eq!(amount(&second, "good when last read").0, all);
    // A run without the options reads everything, prints what pgBackRest prints, and is remembered
    let ours = scenario.rbr(&["verify", "--output=text", "--verbose", "--log-level-console=error"]).success().stdout;
    let theirs = scenario.pgbackrest(&["verify", "--output=text", "--verbose", "--log-level-console=error"]).success();
    assert_eq!(ours, theirs.stdout);
    assert_ne!(ours, plain);

    // The directory disturbs none of pgBackRest's commands, nor do the phases of backups in it
    let phases = fs::read_to_string(scenario.space.path("repo/proof/demo/backups.json")).expect("phases");
    assert!(scenario.labels().iter().all(|label| phases.contains(label.as_str())), "{phases}");
    for arguments in [&["info"][..], &["check"], &["expire"], &["backup", "--type=diff"], &["repo-ls", "--recurse"]] {
        scenario.pgbackrest(arguments).success().never_says("WARN");
    }
    let dump = scenario.cluster.dump();
    scenario.cluster.switch_wal();
    let mut restored = scenario.restore(Tool::PgBackRest, "theirs", &[]);
    restored_matches(&mut restored, &dump);
    assert_eq!(records(&scenario).len(), 1);
    scenario.cluster.stop(crate::env::Shutdown::Fast);
    scenario.pgbackrest(&["stop"]).success();
    scenario.pgbackrest(&["stanza-delete"]).success();
    // What is left is replaced by the next run, and removed with the stanza
    scenario.pgbackrest(&["start"]).success();
    scenario.pgbackrest(&["stanza-create", "--no-online"]).success();
    verify(&scenario, &["--older-than=7d"]).never_says("WARN");
    assert_eq!(records(&scenario).len(), 1);
    scenario.rbr(&["stop"]).success();
    scenario.rbr(&["stanza-delete"]).success();
    assert!(records(&scenario).is_empty());
}

#[test]
fn damage_is_found_when_its_turn_comes_and_is_never_forgotten() {
    let Some(scenario) = with_chain(ScenarioOptions::default()) else { return };
    let labels = scenario.labels();
    verify(&scenario, &["--older-than=7d"]).says(&format!("backups: {}, {}", labels[0], labels[1]));
    let bundle = bundle(&scenario, &labels[0], 1);
    let content = fs::read(&bundle).expect("bundle");
    rot(&bundle);
    verify(&scenario, &["--older-than=7d"]).says("status: ok");
    // The incremental backup needs the file, or a block in it
    let bad = |run: Run| {
        run.says("status: error")
            .says(&format!("backup: {}, status: invalid", labels[0]))
            .says(&format!("backup: {}, status: invalid", labels[1]))
            .says("no backup can be recovered to it")
    };
    // A run on one set finds it first, and that is remembered
    let set = format!("--set={}", labels[0]);
    scenario.rbr(&["verify", &set, "--output=text", "--job-retry=0"]).success().says("status: error");
    assert_eq!(records(&scenario).len(), 2);
    bad(verify(&scenario, &["--older-than=7d"]));
    assert_eq!(records(&scenario).len(), 2, "bad files have a file of their own");
    bad(verify(&scenario, &["--older-than=0s"]));
    for arguments in [&["--older-than=7d"][..], &["--max-bytes=1B"], &["--max-time=10s", "--max-bytes=1B"]] {
        let again = bad(verify(&scenario, arguments));
        assert!((1..=2).contains(&read(&again)), "{}", again.describe());
    }
    scenario.rbr(&["verify", "--older-than=7d", "--verify-exit-code", "--job-retry=0"]).fails(104);
    let json = scenario.rbr(&["verify", "--older-than=7d", "--output=json", "--job-retry=0"]).success().json();
    let json = &json["verify"];
    assert_eq!((&json["valid"], &json["backup"][1]["status"]), (&false.into(), &"invalid".into()));
    assert!(json["reading"]["read"]["bytes"].as_u64() < json["reading"]["remembered"]["bytes"].as_u64(), "{json:#}");
    let timeline = &json["recoverable"][0]["timeline"][0];
    assert_eq!((&timeline["timeline"], &timeline["window"]), (&1.into(), &serde_json::json!([])));
    // It is good again, at the same time and size
    let modified = bundle.metadata().expect("data").modified().expect("time");
    fs::write(&bundle, content).expect("write");
    fs::File::options().write(true).open(&bundle).expect("open").set_modified(modified).expect("time");
    assert!(read(&verify(&scenario, &["--older-than=7d"]).says("status: ok")) >= 1);
    assert_eq!(read(&verify(&scenario, &["--older-than=7d"]).says("status: ok")), 0);

    // A file that gets another time or size is read without waiting
    let later = fs::File::options().write(true).open(&bundle).expect("open");
    later.set_modified(SystemTime::now() + Duration::from_secs(5)).expect("time");
    assert!(read(&verify(&scenario, &["--older-than=7d"]).says("status: ok")) > 1);
    fs::remove_file(&bundle).expect("remove");
    bad(verify(&scenario, &["--older-than=7d"]));
}

#[test]
fn block_map_of_a_remembered_file_tells_which_backups_damage_concerns() {
    let Some(scenario) = with_chain(ScenarioOptions::default()) else { return };
    let labels = scenario.labels();
    // All of the full backup is new again, and the incremental one is remembered
    verify(&scenario, &["--older-than=7d"]);
    let folder = scenario.space.path(&format!("repo/backup/demo/{}/bundle", labels[0]));
    let bundles: BTreeSet<PathBuf> =
        fs::read_dir(folder).expect("bundles").map(|entry| entry.unwrap().path()).collect();
    for bundle in &bundles {
        rot(bundle);
        let touched = fs::File::options().write(true).open(bundle).expect("open");
        touched.set_modified(SystemTime::now() + Duration::from_secs(9)).expect("time");
    }
    let theirs = scenario.pgbackrest(&["verify", "--output=text", "--log-level-console=off"]).success().stdout;
    let ours = verify(&scenario, &["--older-than=7d"]);
    let full = scenario.rbr(&["verify", "--output=text", "--log-level-console=off"]).success().stdout;
    assert!(ours.stdout.starts_with(&full), "{}\n{full}\n{theirs}", ours.describe());
    assert!(full.contains(&format!("backup: {}, status: invalid", labels[1])), "{full}");
}

#[test]
fn limit_in_bytes_reads_everything_in_turn() {
    let Some(scenario) = with_chain(ScenarioOptions::default()) else { return };
    let whole = verify(&scenario, &["--max-bytes=1GiB"]);
    let all = read(&whole);
    fs::remove_dir_all(scenario.space.path(FOLDER)).expect("records");
    let mut runs = 0;
    loop {
        let run = verify(&scenario, &["--max-bytes=2MiB"]).never_says("status: error");
        runs += 1;
        assert!(read(&run) < all, "{}", run.describe());
        if !run.stdout.contains("not read yet: ") {
            run.says("status: ok");
            break;
        }
        let run = run.says("status: no fault found, not all read");
        assert!(runs < 30, "{}", run.describe());
    }
    assert!(runs > 2, "{runs} runs");
    // The next one begins again with what was read first, which is WAL
    std::thread::sleep(Duration::from_millis(1100));
    let next = verify(&scenario, &["--max-bytes=2MiB"]);
    assert!((1..all).contains(&read(&next)), "{}", next.describe());
    assert!(amount(&next, "good when last read, to be read again").0 > all / 2);
    verify(&scenario, &["--max-time=30s"]).says(&format!("read now: {all} file(s)"));
    scenario.rbr(&["verify", "--max-bytes=1MiB", "--set=20260101-000000F"]).fails(31).says("are not valid with option");
}

#[test]
fn records_that_are_damaged_or_can_not_be_written_cost_only_time() {
    let Some(scenario) = with_chain(ScenarioOptions::default()) else { return };
    let all = read(&verify(&scenario, &["--older-than=7d"]));
    rot(&records(&scenario)[0]);
    let run = verify(&scenario, &["--older-than=7d"]).says("count as not read earlier").says("it is damaged");
    assert_eq!(read(&run), all);
    assert_eq!(read(&verify(&scenario, &["--older-than=7d"]).never_says("WARN")), 0);
    // Two runs at the same time
    let both: Vec<_> =
        (0..2).map(|_| scenario.start_command(Tool::Rbr, &["verify", "--older-than=0s", "--output=text"])).collect();
    for mut run in both {
        assert_eq!(run.wait(), 0, "{}", run.log());
    }
    assert_eq!(read(&verify(&scenario, &["--older-than=7d"])), 0);
    // A killed run leaves what was there
    let mut killed = scenario.start_command(Tool::Rbr, &["verify", "--older-than=0s", "--output=text"]);
    std::thread::sleep(Duration::from_millis(150));
    killed.kill();
    assert_eq!(read(&verify(&scenario, &["--older-than=7d"]).never_says("WARN")), 0);

    // A file where the directory should be
    fs::remove_dir_all(scenario.space.path(FOLDER)).expect("records");
    scenario.space.write(FOLDER, "");
    let run = scenario.rbr(&["verify", "--output=text", "--older-than=7d", "--log-level-console=warn"]).success();
    assert_eq!(read(&run.says("is not remembered")), all);
    let plain = scenario.rbr(&["verify", "--output=text", "--log-level-console=warn"]).success();
    assert_eq!((plain.stdout.as_str(), plain.stderr.as_str()), ("", ""));
}

#[test]
fn verified_repository_on_s3_needs_few_requests() {
    let Some(weed) = Weed::start() else { return };
    let proxy = weed.proxy();
    let options = ScenarioOptions { global: weed.options(proxy.port()), ..ScenarioOptions::default() };
    let Some(scenario) = with_chain(options) else { return };
    scenario.archiving_ends(&["lock"]);
    let requests = |tool: Tool, arguments: &[&str]| {
        proxy.clear();
        scenario.run(tool, arguments).success();
        proxy.settle();
        proxy.requests().len()
    };
    let arguments = ["verify", "--output=text", "--older-than=7d", "--log-level-console=warn"];
    let theirs = requests(Tool::PgBackRest, &["verify", "--output=text"]);
    let first = requests(Tool::Rbr, &arguments);
    let again = requests(Tool::Rbr, &arguments);
    let limited = requests(Tool::Rbr, &["verify", "--output=text", "--max-bytes=1MiB", "--log-level-console=warn"]);
    println!("requests: pgBackRest {theirs}, first {first}, again {again}, 1MiB {limited}");
    assert!(again < 30 && again * 4 < theirs, "pgBackRest {theirs}, first {first}, again {again}");
    assert!(limited < theirs, "pgBackRest {theirs}, {limited} with a limit");
    assert_eq!(read(&verify(&scenario, &["--older-than=7d"])), 0);
}

#[test]
fn file_that_is_missing_or_has_another_size_is_found_under_every_limit() {
    let Some(scenario) = with_chain(ScenarioOptions::default()) else { return };
    let labels = scenario.labels();
    let first = bundle(&scenario, &labels[0], 1);
    let (content, modified) = (fs::read(&first).expect("bundle"), fs::metadata(&first).unwrap().modified().unwrap());
    let set_time = |path: &Path| fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
    let finds = |what: &str| {
        for arguments in [&["--max-bytes=1B"][..], &["--max-bytes=1B", "--older-than=7d"]] {
            let run =
                verify(&scenario, arguments).says("status: error").never_says(&format!("   backups: {}", labels[0]));
            run.says(&format!("backup: {}, status: invalid", labels[0])).says(what);
        }
        scenario.rbr(&["verify", "--max-bytes=1B", "--verify-exit-code", "--job-retry=0"]).fails(104);
    };
    // Nothing was ever read
    fs::remove_file(&first).expect("remove");
    finds("missing: ");
    fs::write(&first, &content[..content.len() - 1]).expect("write");
    set_time(&first);
    finds("checksum invalid: ");
    fs::write(&first, &content).expect("write");
    set_time(&first);

    // All was read, and no time tells that a file has changed
    verify(&scenario, &["--older-than=7d"]).says("status: ok");
    fs::remove_file(&first).expect("remove");
    finds("missing: ");
    fs::write(&first, &content).expect("write");
    set_time(&first);
    verify(&scenario, &["--max-bytes=1B"]).says("status: ok");
    let dir = scenario.space.path("repo/archive/demo/15-1/0000000100000000");
    let mut wal: Vec<PathBuf> = fs::read_dir(dir).expect("list").map(|entry| entry.unwrap().path()).collect();
    wal.retain(|path| path.extension().is_none_or(|extension| extension != "backup"));
    wal.sort();
    let file = fs::File::options().write(true).open(&wal[0]).expect("open");
    let (size, modified) = (file.metadata().unwrap().len(), file.metadata().unwrap().modified().unwrap());
    file.set_len(size - 1).expect("truncate");
    file.set_modified(modified).expect("time");
    verify(&scenario, &["--max-bytes=1B"]).says("status: error").says("archiveId: 15-1");
}

#[test]
fn file_that_was_never_read_is_neither_valid_nor_recoverable() {
    let Some(scenario) = with_chain(ScenarioOptions::default()) else { return };
    let labels = scenario.labels();
    let json = scenario.rbr(&["verify", "--max-bytes=1B", "--output=json"]).success().json();
    let json = &json["verify"];
    assert_eq!((&json["valid"], &json["errors"]), (&serde_json::Value::Null, &0.into()), "{json:#}");
    assert_eq!(json["backup"][0]["status"], "not all read");
    assert_eq!(json["recoverable"][0]["timeline"][0]["window"], serde_json::json!([]));
    let run = verify(&scenario, &["--max-bytes=1B"]).says("status: no fault found, not all read");
    run.says(&format!("not all read, and therefore not among these backups: {}, {}", labels[0], labels[1]));
    // The backups were read, and the WAL that makes them consistent was not
    verify(&scenario, &["--older-than=7d"]).says("status: ok");
    let dir = scenario.space.path("repo/archive/demo/15-1/0000000100000000");
    for entry in fs::read_dir(dir).expect("list") {
        let file = fs::File::options().write(true).open(entry.expect("entry").path()).expect("open");
        file.set_modified(SystemTime::now() + Duration::from_secs(9)).expect("time");
    }
    let run = verify(&scenario, &["--max-bytes=1B"]).says("is not known to be recoverable: WAL segment ");
    run.says("no backup can be recovered to it").says("was not read yet");
}

#[test]
fn damaged_history_file_is_a_finding_and_not_the_end_of_the_report() {
    let Some(scenario) = with_chain(ScenarioOptions::default()) else { return };
    let labels = scenario.labels();
    scenario.space.write("repo/archive/demo/15-1/00000002.history", "x");
    let plain = scenario.rbr(&["verify", "--output=text", "--log-level-console=off"]).success();
    assert_eq!(plain.stdout, "");
    let json = scenario.rbr(&["verify", "--output=json"]).success().json();
    let json = &json["verify"];
    assert_eq!((&json["valid"], &json["errors"]), (&false.into(), &1.into()), "{json:#}");
    assert_eq!(json["recoverable"][0]["timeline"][0]["window"][0]["backup"], serde_json::json!(labels));
    let run = verify(&scenario, &["--older-than=7d"]).says("status: error");
    run.says("history of timeline 2 in archive 15-1 can't be used")
        .says(&format!("backups: {}, {}", labels[0], labels[1]));
}

#[test]
fn damaged_records_under_a_limit_are_no_success() {
    let Some(scenario) = with_chain(ScenarioOptions::default()) else { return };
    let bundle = bundle(&scenario, &scenario.labels()[0], 1);
    verify(&scenario, &["--older-than=7d"]);
    rot(&bundle);
    verify(&scenario, &["--older-than=0s"]).says("status: error");
    let good = records(&scenario).into_iter().find(|path| path.extension().is_some_and(|it| it == "bin"));
    rot(&good.expect("records"));
    // What is bad is remembered elsewhere
    let run = verify(&scenario, &["--max-bytes=1B"]).says("count as not read earlier").says("status: error");
    run.says("checksum invalid: 1");
    verify(&scenario, &["--max-bytes=1B"]).says("checksum invalid: 1").never_says("WARN");
}
