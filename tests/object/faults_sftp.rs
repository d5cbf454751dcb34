//! An SFTP server whose connections are cut: commands succeed or report the reason, the next commands succeed, and both
//! programs find the repository valid.

use super::faults::archives_and_recovers;
use crate::env::{Passage, Run, Scenario, ScenarioOptions, Sshd, Tool, restored_matches};

/// A server behind a relay, and a scenario whose repository is reached through it.
struct Faulty {
    passage: Passage,
    scenario: Scenario,
    server: Sshd,
}

impl Faulty {
    fn start(more: &[&str], settings: &[&str]) -> Option<Self> {
        let server = Sshd::start_usual()?;
        let passage = Passage::start(server.port());
        let mut global = server.usual_options(passage.port());
        global.extend(more.iter().map(|&line| line.to_owned()));
        let settings = settings.iter().map(|&line| line.to_owned()).collect();
        let scenario = Scenario::start(ScenarioOptions { global, settings, ..ScenarioOptions::default() })?;
        scenario.rbr(&["stanza-create"]).success();
        Some(Self { passage, scenario, server })
    }

    /// Runs a command while connections are cut. A failure names the server.
    fn cut(&self, bytes: &[u64], arguments: &[&str]) -> Run {
        self.passage.cut_after(bytes);
        let run = self.scenario.rbr(arguments);
        self.passage.cut_after(&[]);
        let server = format!("127.0.0.1:{}", self.passage.port());
        if run.code == 0 { run } else { run.says(&server) }
    }

    /// Archives without the relay. PostgreSQL pauses for a minute after a command has failed three times, and no backup
    /// waits that long.
    fn archive_past_the_passage(&self) {
        let Self { scenario, server, .. } = self;
        scenario.cluster.sql(&format!(
            "alter system set archive_command =
                 '{} --config={} --stanza=demo --repo1-sftp-host-port={} archive-push %p'",
            scenario.program(Tool::Rbr).display(),
            scenario.space.text("pgbackrest.conf"),
            server.port()
        ));
        scenario.cluster.sql("select pg_reload_conf()");
    }

    #[track_caller]
    fn is_sound(&self) {
        for tool in [Tool::Rbr, Tool::PgBackRest] {
            self.scenario
                .run(tool, &["verify", "--output=text", "--verbose", "--log-level-console=off"])
                .success()
                .says("status: ok");
        }
    }
}

#[test]
fn sftp_backup_survives_cut_connections() {
    let Some(faulty) = Faulty::start(&["repo1-bundle=y", "compress-type=none"], &[]) else { return };
    let scenario = &faulty.scenario;
    faulty.archive_past_the_passage();
    let backup = ["backup", "--type=full"];
    for bytes in [&[20_000][..], &[4_000_000, 100_000, 15_000_000]] {
        let before = scenario.labels().len();
        let run = faulty.cut(bytes, &backup);
        assert_eq!(scenario.labels().len(), before + usize::from(run.code == 0), "{}", run.describe());
    }
    // Writes are retried, but not endlessly
    let failed = faulty.cut(&[200_000; 300], &backup);
    assert!(failed.code != 0, "{}", failed.describe());
    scenario.rbr(&backup).success();
    scenario.change(1);
    scenario.rbr(&["backup", "--type=incr"]).success();
    let dump = scenario.cluster.dump();
    scenario.cluster.switch_wal();
    scenario.rbr(&["check"]).success();

    // Reads continue
    faulty.passage.cut_after(&[3_000_000; 5]);
    let cuts = faulty.passage.cuts();
    let mut restored = scenario.restore(Tool::Rbr, "restored", &[]);
    assert!(faulty.passage.cuts() > cuts);
    faulty.passage.cut_after(&[]);
    restored_matches(&mut restored, &dump);
    let expire = ["expire", "--repo1-retention-full=1"];
    faulty.cut(&[12_000, 12_000], &expire);
    scenario.rbr(&expire).success();
    assert_eq!(scenario.labels().len(), 2, "the last full backup and what depends on it");
    faulty.is_sound();
}

#[test]
fn sftp_wal_survives_cut_connections() {
    let settings = ["archive_command = 'true'", "wal_keep_size = '1GB'"];
    let Some(faulty) = Faulty::start(&["compress-type=none"], &settings) else { return };
    let scenario = &faulty.scenario;
    let mut failed = 0;
    for bytes in [0, 3_000, 8_000, 20_000, 2_000_000, 9_000_000, 16_775_000, 16_790_000] {
        scenario.cluster.sql("create table x as select g from generate_series(1, 1000) g; drop table x");
        let segment = scenario.cluster.switch_wal();
        let path = scenario.cluster.data().join("pg_wal").join(&segment);
        let content = std::fs::read(&path).expect("segment");
        let path = path.to_str().expect("UTF-8");
        let pushed = faulty.cut(&[bytes], &["archive-push", path]);
        failed += u64::from(pushed.code != 0);
        let target = scenario.space.path("fetched");
        let get = ["archive-get", &segment, target.to_str().expect("UTF-8")];
        if pushed.code == 0 {
            scenario.pgbackrest(&get).success();
            assert_eq!(std::fs::read(&target).expect("fetched"), content, "acknowledged");
            std::fs::remove_file(&target).expect("remove");
        }
        scenario.rbr(&["archive-push", path]).success();
        faulty.cut(&[bytes, 100_000, 1_000_000], &get).success();
        assert_eq!(std::fs::read(&target).expect("fetched"), content);
        std::fs::remove_file(&target).expect("remove");
    }
    assert!(failed > 0 && faulty.passage.cuts() > failed, "{failed} failed, {} cuts", faulty.passage.cuts());
    // A server that is away
    faulty.passage.set_closed(true);
    let target = scenario.space.path("fetched");
    let get = scenario.rbr(&["archive-get", "000000010000000000000001", target.to_str().expect("UTF-8")]);
    assert!(get.code != 0 && get.code != 1, "missing is another thing than away: {}", get.describe());
    assert!(!target.exists());
    faulty.passage.set_closed(false);
    faulty.is_sound();
}

#[test]
fn sftp_wal_survives_cut_connections_in_the_background() {
    let options = ["compress-type=none", "archive-async=y", "archive-timeout=60"];
    let Some(faulty) = Faulty::start(&options, &[]) else { return };
    let scenario = &faulty.scenario;
    scenario.rbr(&["backup", "--type=full"]).success();
    let cuts = faulty.passage.cuts();
    faulty.passage.cut_after(&[5_000, 9_000_000, 16_000_000, 30_000_000, 60_000_000, 16_000_000]);
    archives_and_recovers(scenario);
    faulty.passage.cut_after(&[]);
    assert!(faulty.passage.cuts() > cuts + 3, "{} cuts", faulty.passage.cuts() - cuts);
    faulty.is_sound();
}
