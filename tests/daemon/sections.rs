//! The real pgBackRest passes over sections of schedules and of the daemon, whatever they contain.

use crate::env::{Scenario, ScenarioOptions, Tool};

const SECTIONS: &str = "[global:daemon]\nstate-path=/nonexistent\njob-max=2\nnonsense=1\n\
    [demo:daemon]\nretry=1\n\
    [demo:schedule:nightly]\nschedule=0 3 * * *\ncommand=backup\ntype=full\nrepo1-retention-full=7\nhook-before=true\n\
    webhook-url=http://localhost/\nnonsense=1\n\
    [demo:schedule:check]\nschedule=@hourly\ncommand=check\n";

#[test]
fn pgbackrest_has_no_word_for_sections_of_schedules_in_any_command() {
    let Some(scenario) = Scenario::start(ScenarioOptions { archive_with: Tool::PgBackRest, ..Default::default() })
    else {
        return;
    };
    let path = scenario.space.path("pgbackrest.conf");
    let text = std::fs::read_to_string(&path).unwrap();
    scenario.space.write("pgbackrest.conf", format!("{text}\n{SECTIONS}"));
    let quiet = |arguments: &[&str]| {
        let mut all = vec!["--log-level-console=warn"];
        all.extend(arguments);
        let run = scenario.pgbackrest(&all).success();
        for word in ["WARN", "schedule", "nonsense", "daemon"] {
            assert!(!run.stdout.contains(word) && !run.stderr.contains(word), "{word}\n{}", run.describe());
        }
    };
    quiet(&["stanza-create"]);
    quiet(&["check"]);
    quiet(&["--type=full", "backup"]);
    let segment = scenario.cluster.switch_wal();
    quiet(&["check"]);
    let target = scenario.space.text("segment");
    quiet(&["archive-get", &segment, &target]);
    let label = scenario.labels().pop().unwrap();
    quiet(&[&format!("--set={label}"), "--annotation=a=b", "annotate"]);
    quiet(&["expire"]);
    quiet(&["info"]);
    quiet(&["verify"]);
    quiet(&["repo-ls", "backup/demo"]);
    quiet(&["repo-get", "backup/demo/backup.info"]);
    quiet(&["stanza-upgrade"]);
    let restored = format!("--pg1-path={}", scenario.space.folder("restored").display());
    quiet(&[&restored, "restore"]);
    quiet(&["stop"]);
    quiet(&["start"]);
    // Without a stanza, the stanzas of all sections are read
    let config = format!("--config={}", scenario.space.text("pgbackrest.conf"));
    let run = scenario.space.run(&scenario.oracles.pgbackrest, &[&config, "--log-level-console=warn", "check"]);
    run.success().never_says("WARN").never_says("nightly");
}
