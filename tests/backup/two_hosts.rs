//! Two hosts with one repository. Two lock paths on one machine are equivalent, because no lock file shows the other
//! process.

use std::time::{Duration, Instant};

use crate::env::{Background, Run, Scenario, ScenarioOptions, Tool, Weed, restored_matches};

/// The maximum time until a backup reaches the phase in which the second one begins.
const PHASE_MAX: Duration = Duration::from_secs(60);

/// The option that the other host adds to each command.
const ELSEWHERE: &str = "--lock-path";

/// Makes a backup slow enough for others to begin meanwhile.
const SLOW: &str = "--compress-type=bz2";

/// When the second command begins.
struct Phase {
    name: &'static str,
    /// What the first command has logged by then.
    logged: &'static str,
    /// Whether the first command waits for WAL then, which is held back.
    waits: bool,
    /// Whether it has begun to copy.
    copies: bool,
}

const PHASES: [Phase; 5] = [
    Phase { name: "before the scan", logged: "check archive for ", waits: true, copies: false },
    Phase { name: "at the first file", logged: "backup file ", waits: false, copies: true },
    Phase { name: "at the last files", logged: "100.00%)", waits: false, copies: true },
    Phase { name: "after the stop", logged: "check archive for segment(s)", waits: true, copies: true },
    Phase { name: "at the end", logged: "new backup label", waits: false, copies: true },
];

/// No WAL is archived while this file is next to the data directory.
const NO_ARCHIVE: &str = "no-archive";

/// A cluster that takes some time to back up, with a full backup that retention expires after the next one.
fn scenario(global: &[&str]) -> Option<Scenario> {
    let scenario = scenario_without_stanza(global)?;
    make_first_backup(&scenario);
    Some(scenario)
}

fn scenario_without_stanza(global: &[&str]) -> Option<Scenario> {
    let scenario = Scenario::start(ScenarioOptions { global: configuration(global), ..ScenarioOptions::default() })?;
    scenario.cluster.sql(
        "create table large as select g, (select string_agg(md5((g * 100 + n)::text), '') from generate_series(1, 40) n) as note \
         from generate_series(1, 12000) g; checkpoint",
    );
    Some(scenario)
}

fn configuration(global: &[&str]) -> Vec<String> {
    let all = ["process-max=1", "repo1-retention-full=1", "archive-timeout=60"];
    all.iter().chain(global).map(ToString::to_string).collect()
}

/// Creates the stanza, makes a full backup and changes the cluster.
fn make_first_backup(scenario: &Scenario) {
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["backup", "--type=full"]).success();
    scenario.cluster.sql("update large set note = md5(note || g) where g % 3 = 0; checkpoint");
}

fn elsewhere(scenario: &Scenario, tool: Tool, arguments: &[&str]) -> Run {
    let lock_path = format!("{ELSEWHERE}={}", scenario.space.text("lock-elsewhere"));
    let mut all = vec![lock_path.as_str()];
    all.extend(arguments);
    scenario.run(tool, &all)
}

/// Waits until a backup has logged a text, or has ended.
fn wait_for(backup: &mut Background, text: &str) {
    let end = Instant::now() + PHASE_MAX;
    while !backup.log().contains(text) && backup.is_running() {
        assert!(Instant::now() < end, "'{text}' is not said:\n{}", backup.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Checks that every listed backup is complete, as both programs see it. What a backup leaves that failed is not listed,
/// although verify names it.
fn backups_are_complete(scenario: &Scenario) {
    let labels = scenario.labels();
    assert!(!labels.is_empty());
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        let verify =
            scenario.run(tool, &["verify", "--verbose", "--output=text", "--log-level-console=error"]).success();
        for label in &labels {
            assert!(verify.stdout.contains(&format!("backup: {label}, status: valid")), "{}", verify.describe());
        }
    }
}

/// Checks that every listed backup is complete and restores.
fn repository_is_whole(scenario: &Scenario) {
    backups_are_complete(scenario);
    scenario.labels().iter().for_each(|label| backup_restores(scenario, label));
}

fn backup_restores(scenario: &Scenario, label: &str) {
    scenario.cluster.switch_wal();
    let mut restored = scenario.restore(Tool::Rbr, "restored", &[&format!("--set={label}")]);
    restored_matches(&mut restored, &scenario.cluster.dump());
    std::fs::remove_dir_all(restored.data()).expect("remove the restored cluster");
}

#[test]
fn commands_of_another_host_are_refused_while_a_backup_runs() {
    let Some(scenario) = scenario(&[]) else { return };
    let mut backup = scenario.start_command(Tool::Rbr, &["backup", "--type=full", SLOW]);
    wait_for(&mut backup, "backup file ");
    // It must not end before the others have tried
    backup.stand_still();
    let running = "backup on host '";
    for kind in ["--type=full", "--type=incr"] {
        elsewhere(&scenario, Tool::Rbr, &["backup", kind]).fails(50).says(running);
    }
    elsewhere(&scenario, Tool::Rbr, &["expire"]).fails(104).says(running);
    scenario.rbr(&["repo-rm", "--recurse", "backup/demo"]).fails(50).says(running);
    elsewhere(&scenario, Tool::Rbr, &["stop"]).success();
    elsewhere(&scenario, Tool::Rbr, &["stanza-delete", "--force"]).fails(50).says(running);
    elsewhere(&scenario, Tool::Rbr, &["start"]).success();
    backup.go_on();
    assert_eq!(backup.wait(), 0, "{}", backup.log());
    // Nothing of the backup is left, and nothing blocks the next one
    let left = scenario.rbr(&["repo-ls", "--recurse", "--log-level-console=off"]).success();
    assert!(!left.stdout.contains("claim"), "{}", left.stdout);
    elsewhere(&scenario, Tool::Rbr, &["backup", "--type=incr"]).success();
    repository_is_whole(&scenario);
}

#[test]
fn backup_killed_on_this_host_is_resumed_at_once_from_another_lock_path() {
    let Some(scenario) = scenario(&[]) else { return };
    let mut backup = scenario.start_command(Tool::Rbr, &["backup", "--type=full", SLOW]);
    wait_for(&mut backup, "backup file ");
    assert!(backup.kill());
    elsewhere(&scenario, Tool::Rbr, &["backup", "--type=full", SLOW]).success().says("resumable backup");
    repository_is_whole(&scenario);
}

#[test]
fn backup_of_pgbackrest_is_not_resumed_while_an_orphaned_worker_may_write_into_it() {
    let Some(scenario) = scenario(&[]) else { return };
    let mut backup = scenario.start_command(Tool::PgBackRest, &["backup", "--type=full", SLOW]);
    wait_for(&mut backup, "backup file ");
    backup.kill_alone();
    let sessions = "select count(*) from pg_stat_activity where application_name like 'pgBackRest%'";
    let end = Instant::now() + PHASE_MAX;
    while scenario.cluster.sql(sessions).trim() != "0" {
        assert!(Instant::now() < end, "PostgreSQL keeps the session");
        std::thread::sleep(Duration::from_millis(50));
    }
    elsewhere(&scenario, Tool::Rbr, &["backup", "--type=full", SLOW]).success().says("is neither resumed nor removed");
    repository_is_whole(&scenario);
}

#[test]
fn backup_of_pgbackrest_that_runs_elsewhere_is_left_alone() {
    let Some(scenario) = scenario(&[]) else { return };
    let mut backup = scenario.start_command(Tool::PgBackRest, &["backup", "--type=full", SLOW]);
    wait_for(&mut backup, "backup file ");
    // It must not end before the others have tried
    backup.stand_still();
    for kind in ["--type=full", "--type=incr"] {
        elsewhere(&scenario, Tool::Rbr, &["backup", kind]).fails(50).says("is being made by another process");
    }
    elsewhere(&scenario, Tool::Rbr, &["expire"]).success();
    backup.go_on();
    assert_eq!(backup.wait(), 0, "{}", backup.log());
    repository_is_whole(&scenario);
}

#[test]
fn backup_whose_directory_pgbackrest_takes_does_not_count() {
    let Some(scenario) = scenario(&["repo1-bundle=y"]) else { return };
    let mut backup = scenario.start_command(Tool::Rbr, &["backup", "--type=full", SLOW]);
    wait_for(&mut backup, "backup file ");
    elsewhere(&scenario, Tool::PgBackRest, &["backup", "--type=full", SLOW]).success().says("cannot be resumed");
    assert_eq!(backup.wait(), 50, "{}", backup.log());
    assert!(backup.log().contains("another process has taken over"), "{}", backup.log());
    repository_is_whole(&scenario);
}

/// Lets one backup stand still at a phase while the other runs. A backup that succeeds is listed, and everything listed is whole.
fn meet(scenario: &Scenario, [first, second]: [(Tool, &str); 2], phase: &Phase, context: &str) {
    make_first_backup(scenario);
    let hold_archive = || scenario.space.write(NO_ARCHIVE, "");
    if phase.waits && !phase.copies {
        hold_archive();
    }
    let mut backup = scenario.start_command(first.0, &["backup", first.1]);
    if phase.waits && phase.copies {
        // Not before, or the backup would wait for the WAL of its start
        wait_for(&mut backup, "backup file ");
        hold_archive();
    }
    wait_for(&mut backup, phase.logged);
    backup.stand_still();
    let stood_still = backup.is_running();
    if phase.waits {
        assert!(stood_still, "{context}: {}", backup.log());
        std::fs::remove_file(scenario.space.path(NO_ARCHIVE)).expect("remove file");
    }
    let other = elsewhere(scenario, second.0, &["backup", second.1]);
    backup.go_on();
    let code = backup.wait();
    println!("{context}: {code}{} and {}", if stood_still { "" } else { " (had ended before)" }, other.code);
    let both = || format!("{context}\n{}\n{}", backup.log(), other.describe());
    assert!(code == 0 || other.code == 0, "{}", both());
    if first.0 == Tool::Rbr && second.0 == Tool::Rbr {
        assert_eq!((code, other.code), (0, if stood_still { 50 } else { 0 }), "{}", both());
    }
    let labels = scenario.labels();
    let succeeded = (code == 0) && (other.code == 0);
    for (tool, code, log) in [(first.0, code, &backup.log()), (second.0, other.code, &other.stdout)] {
        let label = log.lines().find_map(|line| line.split_once("new backup label = ")).map(|(_, label)| label.trim());
        let listed = labels.iter().any(|listed| label == Some(listed));
        // If both succeed, the later one may expire the backup of the other
        assert!(tool != Tool::Rbr || code != 0 || listed || succeeded, "{labels:?}, {}", both());
    }
    repository_is_whole(scenario);
    // The next backup works
    elsewhere(scenario, Tool::Rbr, &["backup", "--type=incr"]).success();
    backups_are_complete(scenario);
    backup_restores(scenario, scenario.labels().last().expect("a backup"));
}

/// Backups of several types at all phases. With and without bundles, in a local repository and on a server, in turn.
fn full_matrix(first: Tool, second: Tool) {
    let Some(scenario) = scenario_without_stanza(&[]) else { return };
    let command = scenario.cluster.sql("show archive_command").trim().replace("%p", "\"$1\"");
    scenario.space.write("pgbackrest.sh", format!("while [ -e ../{NO_ARCHIVE} ]; do sleep 0.05; done; {command}"));
    scenario.cluster.sql("alter system set archive_command = 'sh ../pgbackrest.sh %p'");
    scenario.cluster.sql("select pg_reload_conf()");
    let server = Weed::start();
    let store = server.as_ref().map(|weed| weed.options(weed.port())).unwrap_or_default();
    let types = [
        ("--type=full", "--type=full"),
        ("--type=full", "--type=incr"),
        ("--type=incr", "--type=diff"),
        ("--type=diff", "--type=full"),
    ];
    let combinations = types
        .iter()
        .enumerate()
        .flat_map(|(row, types)| PHASES.iter().enumerate().map(move |(column, phase)| (types, phase, row + column)));
    for (number, ((first_type, second_type), phase, variant)) in combinations.enumerate() {
        // Each phase meets all four variants
        let bundle = if variant % 2 == 0 { "repo1-bundle=n" } else { "repo1-bundle=y" };
        let on_server = variant % 4 > 1 && !store.is_empty();
        let mut global = configuration(&[bundle, "compress-type=bz2"]);
        if on_server {
            global.extend(store.iter().filter(|line| !line.starts_with("repo1-path=")).cloned());
            global.push(format!("repo1-path=/two-hosts-{number}"));
        } else {
            global.push(format!("repo1-path={}", scenario.space.text(&format!("repo-{number}"))));
        }
        scenario.configure(&global);
        let place = if on_server { "server" } else { "local" };
        let pair = [(first, *first_type), (second, *second_type)];
        meet(&scenario, pair, phase, &format!("{pair:?} {}, {bundle}, {place}", phase.name));
    }
}

#[test]
fn full_matrix_of_two_hosts_with_rbr_leaves_a_whole_repository() {
    full_matrix(Tool::Rbr, Tool::Rbr);
}

#[test]
fn full_matrix_of_rbr_met_by_pgbackrest_leaves_a_whole_repository() {
    full_matrix(Tool::Rbr, Tool::PgBackRest);
}

#[test]
fn full_matrix_of_pgbackrest_met_by_rbr_leaves_a_whole_repository() {
    full_matrix(Tool::PgBackRest, Tool::Rbr);
}
