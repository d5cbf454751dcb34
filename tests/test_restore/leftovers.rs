//! A killed test leaves a directory and a server. The next test removes both, and nothing else.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::env::{Background, Scenario, ScenarioOptions, Tool};
use crate::test_restore::{all_arguments, leftovers, proven, with_chain};

/// Starts a test that stays in a query, and returns it with the data directory of its server.
fn start_and_wait(scenario: &Scenario, sql: &str) -> (Background, PathBuf) {
    let before = leftovers(scenario);
    let sql = format!("--sql-file={sql}");
    let arguments = all_arguments(scenario, &["--no-amcheck", "--no-checksums", &sql]);
    let mut running = scenario.start_command(Tool::Rbr, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let new = leftovers(scenario).into_iter().find(|name| !before.contains(name));
        let data = new.map(|name| scenario.space.path(&format!("scratch/{name}/data")));
        if let Some(data) = data
            && fs::read_to_string(data.join("postmaster.pid")).is_ok_and(|text| text.contains("ready"))
        {
            return (running, data);
        }
        assert!(running.is_running() && Instant::now() < end, "no server:\n{}", running.log());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn server_of(data: &std::path::Path) -> PathBuf {
    let text = fs::read_to_string(data.join("postmaster.pid")).expect("postmaster.pid");
    PathBuf::from(format!("/proc/{}", text.lines().next().expect("number")))
}

/// Returns whether a process does nothing any more. It may still have a number until somebody waits for it.
fn has_ended(process: &std::path::Path) -> bool {
    fs::read_link(process.join("cwd")).is_err()
}

#[test]
fn killed_test_is_cleaned_up_by_the_next_and_a_running_one_is_left_alone() {
    let Some(scenario) = with_chain(ScenarioOptions::default()) else { return };
    let sql = scenario.space.write("sleep.sql", "select pg_sleep(600);").display().to_string();
    let (mut dead, dead_data) = start_and_wait(&scenario, &sql);
    let dead_server = server_of(&dead_data);
    dead.kill_alone();
    assert!(dead_server.exists(), "the server ended with its test, which this test is not about");

    let (mut alive, alive_data) = start_and_wait(&scenario, &sql);
    let alive_server = server_of(&alive_data);
    assert!(!dead_data.exists() && has_ended(&dead_server));
    let other = start_and_wait(&scenario, &sql);
    assert!(alive_data.exists() && alive_server.exists());
    drop(other);

    // A signal ends server and directory at once
    alive.terminate();
    assert_eq!(alive.wait(), 63, "{}", alive.log());
    assert!(!alive_data.exists() && has_ended(&alive_server));
    proven(&scenario, &["--no-amcheck", "--no-checksums"]);
}
