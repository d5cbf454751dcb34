//! Two commands at once.

use std::time::{Duration, Instant};

use crate::env::{Scenario, ScenarioOptions, Tool};

#[test]
fn second_backup_while_one_runs_is_refused_and_info_shows_the_first() {
    for (first, second) in [(Tool::Rbr, Tool::PgBackRest), (Tool::PgBackRest, Tool::Rbr), (Tool::Rbr, Tool::Rbr)] {
        let Some(scenario) = Scenario::start(ScenarioOptions {
            // Slow enough that the first still runs
            global: vec!["compress-type=bz2".into(), "process-max=1".into()],
            ..ScenarioOptions::default()
        }) else {
            return;
        };
        scenario.rbr(&["stanza-create"]).success();
        let mut backup = scenario.start_command(first, &["backup", "--type=full"]);
        let lock = scenario.space.path("lock/demo-backup-1.lock");
        let end = Instant::now() + Duration::from_secs(30);
        while std::fs::read_to_string(&lock).map_or(true, |content| !content.ends_with('}')) {
            assert!(Instant::now() < end, "no lock file:\n{}", backup.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        scenario.run(second, &["backup", "--type=full"]).fails(50).says("unable to acquire lock on file");
        for tool in [Tool::Rbr, Tool::PgBackRest] {
            let info = scenario.run(tool, &["info", "--output=json", "--log-level-console=warn"]).success().json();
            assert_eq!(info[0]["status"]["lock"]["backup"]["held"], true, "{tool:?} of a backup by {first:?}");
        }
        assert_eq!(backup.wait(), 0, "{}", backup.log());
        let info = scenario.rbr(&["info", "--output=json", "--log-level-console=warn"]).success().json();
        assert_eq!(info[0]["status"]["lock"]["backup"]["held"], false);
        assert_eq!(info[0]["backup"].as_array().map(Vec::len), Some(1));
        assert!(!lock.exists(), "the lock file is left over");
    }
}
