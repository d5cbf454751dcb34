//! Metrics, the status page and the API, of real clusters and repositories.

mod contrib;
mod served;

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::env::{Scenario, ScenarioOptions, Tool};

fn start() -> Option<Scenario> {
    let scenario = Scenario::start(ScenarioOptions {
        version: 17,
        global: vec!["repo1-bundle=y".into(), "log-level-console=warn".into()],
        segment_mib: 1,
        ..ScenarioOptions::default()
    })?;
    scenario.rbr(&["stanza-create"]).success();
    Some(scenario)
}

/// The value of a series; `None` if there is none.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(found, _)| found == series))?;
    Some(line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

#[track_caller]
fn is(text: &str, series: &str, wanted: f64) {
    assert_eq!(value(text, series), Some(wanted), "{series}\n{text}");
}

/// Switches the segment and waits until it is archived.
#[track_caller]
fn archive(scenario: &Scenario) -> String {
    let segment = scenario.cluster.switch_wal();
    let archived = format!("select last_archived_wal >= '{segment}' from pg_stat_archiver");
    for _ in 0..300 {
        if scenario.cluster.sql(&archived) == "t" {
            return segment;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("the last segment is not archived");
}

/// The stored file of a segment.
fn stored(scenario: &Scenario, segment: &str) -> PathBuf {
    let folder = scenario.space.path("repo/archive/demo/17-1").join(&segment[..16]);
    let found = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    found.into_iter().find(|path| path.to_string_lossy().contains(segment)).unwrap()
}

#[test]
fn metrics_are_those_of_a_real_cluster_and_of_a_backup_of_the_real_pgbackrest() {
    let Some(scenario) = start() else { return };
    scenario.pgbackrest(&["backup", "--type=full", "--annotation=a=1", "--annotation=b=2"]).success();
    let segment = archive(&scenario);
    let text = scenario.rbr(&["metrics", "--metrics-databases=all"]).success().stdout;
    let info = scenario.pgbackrest(&["info", "--output=json", "--log-level-console=off"]).success().json();
    let backup = &info[0]["backup"][0];
    let label = backup["label"].as_str().unwrap();
    let labels = format!(
        "{{backup_name=\"{label}\",backup_type=\"full\",block_incr=\"n\",database_id=\"1\",repo_key=\"1\",stanza=\"demo\"}}"
    );
    is(&text, &format!("pgbackrest_backup_size_bytes{labels}"), backup["info"]["size"].as_f64().unwrap());
    is(&text, &format!("pgbackrest_backup_annotations{labels}"), 2.0);
    is(&text, &format!("pgbackrest_backup_databases{labels}"), 1.0);
    is(&text, "pgbackrest_exporter_status{stanza=\"demo\"}", 1.0);
    is(&text, "pgbackrest_stanza_status{stanza=\"demo\"}", 0.0);
    is(&text, "rbr_repo_up{repo_key=\"1\",stanza=\"demo\"}", 1.0);
    is(&text, "rbr_cluster_up{pg_key=\"1\",stanza=\"demo\"}", 1.0);
    is(&text, "rbr_wal_archive_lag_segments{pg_key=\"1\",repo_key=\"1\",stanza=\"demo\"}", 0.0);
    is(&text, "rbr_wal_missing_segments{repo_key=\"1\",since=\"all_backups\",stanza=\"demo\"}", 0.0);
    is(&text, "rbr_recovery_windows{repo_key=\"1\",stanza=\"demo\"}", 1.0);
    is(&text, "rbr_collect_errors", 0.0);
    assert_eq!(text.lines().last(), Some("# EOF"));
    let json = scenario.rbr(&["metrics", "--output=json"]).success().json();
    assert_eq!(json["stanzas"][0]["repos"][0]["archives"][0]["max"], segment, "{json}");
    // A segment that the archiver can't push is a lag and a failure
    scenario.cluster.sql("alter system set archive_command = 'false'");
    scenario.cluster.sql("select pg_reload_conf()");
    for _ in 0..3 {
        scenario.cluster.switch_wal();
    }
    let failed = "select failed_count > 0 from pg_stat_archiver";
    let end = Instant::now() + Duration::from_secs(30);
    while scenario.cluster.sql(failed) != "t" {
        assert!(Instant::now() < end, "the archiver does not fail");
        std::thread::sleep(Duration::from_millis(100));
    }
    let text = scenario.rbr(&["metrics"]).success().stdout;
    is(&text, "rbr_archiver_failing{pg_key=\"1\",stanza=\"demo\"}", 1.0);
    is(&text, "rbr_wal_archive_lag_segments{pg_key=\"1\",repo_key=\"1\",stanza=\"demo\"}", 3.0);
    assert!(value(&text, "rbr_archiver_ready_files{pg_key=\"1\",stanza=\"demo\"}").is_some_and(|files| files >= 3.0));
}

#[test]
fn missing_segment_is_counted_and_a_stopped_cluster_is_down() {
    let Some(mut scenario) = start() else { return };
    scenario.rbr(&["backup", "--type=full"]).success();
    let lost = archive(&scenario);
    scenario.change(1);
    archive(&scenario);
    scenario.rbr(&["backup", "--type=incr"]).success();
    archive(&scenario);
    fs::remove_file(stored(&scenario, &lost)).unwrap();
    let after = archive(&scenario);
    scenario.change(2);
    archive(&scenario);
    let text = scenario.rbr(&["metrics"]).success().stdout;
    is(&text, "rbr_wal_missing_segments{repo_key=\"1\",since=\"all_backups\",stanza=\"demo\"}", 1.0);
    is(&text, "rbr_wal_missing_segments{repo_key=\"1\",since=\"newest_backup\",stanza=\"demo\"}", 0.0);
    is(&text, "rbr_recovery_unrecoverable_backups{repo_key=\"1\",stanza=\"demo\"}", 0.0);
    is(&text, "rbr_recovery_windows{repo_key=\"1\",stanza=\"demo\"}", 2.0);
    // The phases of the newest backup of each type, with what they moved
    let phase = |metric: &str, kind: &str, phase: &str| {
        let labels = format!("{{backup_type=\"{kind}\",phase=\"{phase}\",repo_key=\"1\",stanza=\"demo\"}}");
        value(&text, &format!("rbr_backup_phase_{metric}{labels}"))
    };
    for kind in ["full", "incr"] {
        for name in ["prepare", "start", "plan", "copy", "stop", "archive", "save", "expire"] {
            assert!(phase("seconds", kind, name).is_some_and(|seconds| seconds < 60.0), "{kind} {name}\n{text}");
        }
        assert!(phase("bytes", kind, "copy").is_some_and(|bytes| bytes > 8192.0), "{text}");
        assert!(phase("bytes", kind, "archive").is_some_and(|bytes| (1.0..1e8).contains(&bytes)), "{text}");
        assert_eq!(phase("bytes", kind, "save"), None);
    }
    fs::remove_file(stored(&scenario, &after)).unwrap();
    scenario.cluster.stop(crate::env::Shutdown::Fast);
    let text = scenario.rbr(&["metrics"]).success().stdout;
    is(&text, "rbr_wal_missing_segments{repo_key=\"1\",since=\"all_backups\",stanza=\"demo\"}", 2.0);
    is(&text, "rbr_wal_missing_segments{repo_key=\"1\",since=\"newest_backup\",stanza=\"demo\"}", 1.0);
    is(&text, "rbr_cluster_up{pg_key=\"1\",stanza=\"demo\"}", 0.0);
    is(&text, "rbr_repo_up{repo_key=\"1\",stanza=\"demo\"}", 1.0);
}

#[test]
fn wal_that_is_missing_after_a_failover_is_told() {
    let Some(mut scenario) = start() else { return };
    scenario.rbr(&["backup", "--type=full"]).success();
    archive(&scenario);
    scenario.cluster.stop(crate::env::Shutdown::Fast);
    scenario.space.write("pg/standby.signal", "");
    scenario.cluster.start();
    scenario.cluster.sql("select pg_promote()");
    let first = archive(&scenario);
    assert!(first.starts_with("00000002"), "{first}");
    scenario.change(1);
    archive(&scenario);
    let text = scenario.rbr(&["metrics"]).success().stdout;
    is(&text, "rbr_recovery_newest_backup_is_current{repo_key=\"1\",stanza=\"demo\"}", 1.0);
    is(&text, "rbr_wal_archive_lag_segments{pg_key=\"1\",repo_key=\"1\",stanza=\"demo\"}", 0.0);
    fs::remove_file(stored(&scenario, &first)).unwrap();
    let text = scenario.rbr(&["metrics"]).success().stdout;
    is(&text, "rbr_recovery_newest_backup_is_current{repo_key=\"1\",stanza=\"demo\"}", 0.0);
    assert_eq!(value(&text, "rbr_recovery_current_since_timestamp_seconds{repo_key=\"1\",stanza=\"demo\"}"), None);
}

#[test]
fn repository_that_never_answers_is_told_and_hides_nothing_else() {
    let Some(scenario) = start() else { return };
    scenario.rbr(&["backup", "--type=full"]).success();
    // It accepts connections and says nothing
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let s3 =
        ["type=s3", "path=/repo", "s3-bucket=b", "s3-region=r", "s3-key=k", "s3-key-secret=s", "s3-endpoint=localhost"];
    let mut global: Vec<String> = s3.iter().map(|option| format!("repo2-{option}")).collect();
    global.extend([format!("repo2-storage-port={port}"), "repo2-storage-verify-tls=n".to_owned()]);
    scenario.configure(&global);
    let file = scenario.space.path("rbr.prom");
    let begin = Instant::now();
    let run = scenario.rbr(&["metrics", &format!("--metrics-file={}", file.display())]).success();
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    assert_eq!(run.stdout, "");
    let text = fs::read_to_string(file).unwrap();
    is(&text, "rbr_repo_up{repo_key=\"2\",stanza=\"demo\"}", 0.0);
    is(&text, "pgbackrest_repo_status{cipher=\"none\",repo_key=\"2\",stanza=\"demo\"}", 99.0);
    assert_eq!(value(&text, "rbr_repo_stored_bytes{repo_key=\"2\",stanza=\"demo\"}"), None);
    is(&text, "rbr_repo_up{repo_key=\"1\",stanza=\"demo\"}", 1.0);
    is(&text, "rbr_repo_backups{backup_type=\"full\",repo_key=\"1\",stanza=\"demo\"}", 1.0);
    is(&text, "rbr_recovery_windows{repo_key=\"1\",stanza=\"demo\"}", 1.0);
    is(&text, "rbr_cluster_up{pg_key=\"1\",stanza=\"demo\"}", 1.0);
    drop(silent);
}

#[test]
fn metrics_of_all_stanzas_include_those_of_the_repository_and_broken_ones() {
    let Some(scenario) = start() else { return };
    let space = &scenario.space;
    fs::create_dir_all(space.path("repo/backup/foreign")).unwrap();
    let config = fs::read_to_string(space.path("pgbackrest.conf")).unwrap();
    let broken = format!("{config}\n[broken]\npg1-path=/nonexistent\nrepo1-path={}\n", space.text("nowhere"));
    space.write("all.conf", broken);
    let mut command = space.command(scenario.program(Tool::Rbr));
    command.arg(format!("--config={}", space.text("all.conf"))).args(["metrics", "--output=json"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let statuses: Vec<(&str, u64)> = json["stanzas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stanza| (stanza["name"].as_str().unwrap(), stanza["status_code"].as_u64().unwrap()))
        .collect();
    assert_eq!(statuses, [("broken", 1), ("demo", 2), ("foreign", 3)], "{json}");
}
