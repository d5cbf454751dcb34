//! Repositories on servers: S3, Azure, GCS and SFTP, written by both programs in turn and restored by both.

mod azure;
mod ciphers;
mod faults;
mod faults_elsewhere;
mod faults_sftp;
mod gateway;
mod gcs;
mod past;
mod proxy;
mod read_ahead;
mod requests;
mod s3;
mod s3_options;
mod s3_secrets;
mod sftp;
mod sftp_keys;

use crate::env::{Scenario, Tool, restored_matches};

/// The checks for every kind of repository: both programs write to it in turn, and each restores what the other wrote.
fn cycle(scenario: &Scenario) {
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["check"]).success();
    scenario.rbr(&["backup", "--type=full"]).success().says("new backup label").never_says("WARN");
    scenario.change(1);
    scenario.pgbackrest(&["backup", "--type=diff"]).success();
    scenario.change(2);
    scenario.rbr(&["backup", "--type=incr"]).success().says("new backup label");
    let dump = scenario.cluster.dump();
    scenario.cluster.switch_wal();
    let info = scenario.rbr(&["info", "--output=json", "--log-level-console=off"]).success().json();
    assert_eq!(info[0]["backup"].as_array().map(Vec::len), Some(3));
    for (tool, name) in [(Tool::Rbr, "by-rbr"), (Tool::PgBackRest, "by-pgbackrest")] {
        let mut restored = scenario.restore(tool, name, &[]);
        restored_matches(&mut restored, &dump);
    }
    assert_eq!(scenario.labels().len(), 3);
    scenario.rbr(&["backup", "--type=full", "--repo1-retention-full=1"]).success();
    assert_eq!(scenario.labels().len(), 1, "expire removed the older backups");
    scenario.rbr(&["verify", "--log-level-console=error"]).success();
}
