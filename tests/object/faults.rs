//! An S3 server that throttles, breaks connections and loses answers: commands succeed, or leave nothing incomplete.

use std::time::{Duration, Instant};

use crate::env::proxy::{Fault, Proxy, Rule};
use crate::env::{Run, Scenario, ScenarioOptions, Shutdown, Tool, Weed, restored_matches};

/// Creates a table that is larger than a part of an upload, even compressed.
pub(super) fn load_large_table(scenario: &Scenario) {
    scenario.cluster.sql(
        "create table large as select g, (select string_agg(sha512((g * 100 + i)::text::bytea), '')
         from generate_series(1, 30) i) from generate_series(1, 6000) g",
    );
}

/// Archives some segments and recovers them, in a cluster that was backed up before.
#[track_caller]
pub(super) fn archives_and_recovers(scenario: &Scenario) {
    for round in 1..=6 {
        scenario.cluster.sql(&format!("create table wal_{round} as select g from generate_series(1, 1000) g"));
        scenario.cluster.switch_wal();
    }
    let dump = scenario.cluster.dump();
    // After three failures in a row PostgreSQL rests for a minute
    scenario.rbr(&["check", "--archive-timeout=150"]).success();
    restored_matches(&mut scenario.restore(Tool::Rbr, "restored", &[]), &dump);
}

/// A server behind a proxy, and a scenario whose repository is reached through it.
struct Faulty {
    weed: Weed,
    proxy: Proxy,
    scenario: Scenario,
}

impl Faulty {
    fn start(more: &[&str]) -> Option<Self> {
        let weed = Weed::start()?;
        let proxy = weed.proxy();
        let mut global = weed.options(proxy.port());
        global.extend(["compress-type=zst", "archive-timeout=60", "repo1-bundle=y"].map(str::to_owned));
        global.extend(more.iter().map(|&line| line.to_owned()));
        let scenario = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() })?;
        load_large_table(&scenario);
        Some(Self { weed, proxy, scenario })
    }

    fn rbr(&self, arguments: &[&str]) -> Run {
        self.scenario.rbr(arguments).never_says("rbrsecret")
    }

    /// Every rule must have had its turn.
    #[track_caller]
    fn all_happened(&self) {
        let hits = self.proxy.hits();
        assert!(hits.iter().all(|&hits| hits > 0), "faults that never happened: {hits:?}");
    }

    /// Checks that both programs find the repository valid, and that no upload is left.
    #[track_caller]
    fn is_sound(&self) {
        self.proxy.set_rules(Vec::new());
        for tool in [Tool::Rbr, Tool::PgBackRest] {
            self.scenario
                .run(tool, &["verify", "--output=text", "--verbose", "--log-level-console=off"])
                .success()
                .says("status: ok");
        }
        assert_eq!(self.weed.uploads(), Vec::<String>::new(), "uploads that were not aborted");
    }
}

#[test]
fn throttling_server_is_asked_again() {
    let Some(faulty) = Faulty::start(&[]) else { return };
    let scenario = &faulty.scenario;
    // More than every third request
    faulty.proxy.set_rules(vec![Rule::new(Fault::error(503)).every(5), Rule::new(Fault::error(429)).every(5)]);
    faulty.rbr(&["stanza-create"]).success();
    faulty.rbr(&["backup", "--type=full"]).success().never_says("WARN");
    scenario.change(1);
    faulty.rbr(&["backup", "--type=incr"]).success().never_says("WARN");
    faulty.rbr(&["check"]).success();
    faulty.rbr(&["backup", "--type=full", "--repo1-retention-full=1"]).success().says("expire full backup set");
    faulty.all_happened();
    faulty.is_sound();
}

#[test]
fn broken_connections_and_lost_answers_do_no_harm() {
    let Some(faulty) = Faulty::start(&["io-timeout=5"]) else { return };
    let scenario = &faulty.scenario;
    let lost = |pattern| Rule::new(Fault::LoseReply).on(pattern).times(1);
    faulty.proxy.set_rules(vec![
        lost("^PUT .*backup.info$"),
        lost("^PUT .*archive/demo/15-1/"),
        lost("^POST .*uploadId="),
        lost("^POST .*delete"),
        // Except the answer that begins an upload: a client that does not learn its id can't abort it
        Rule::new(Fault::CutBody).on("^(GET|POST .*(uploadId=|delete))").every(4),
        Rule::new(Fault::Close).every(7),
        Rule::new(Fault::Reset).every(9),
    ]);
    faulty.rbr(&["stanza-create"]).success();
    faulty.rbr(&["backup", "--type=full"]).success();
    scenario.change(1);
    faulty.rbr(&["backup", "--type=incr"]).success();
    faulty.rbr(&["backup", "--type=full", "--repo1-retention-full=1"]).success().says("expire full backup set");
    faulty.all_happened();
    faulty.is_sound();
}

#[test]
fn requests_that_stall_are_sent_again() {
    let Some(faulty) = Faulty::start(&["io-timeout=5"]) else { return };
    let scenario = &faulty.scenario;
    faulty.rbr(&["stanza-create"]).success();
    // Without other faults: waiting for the first answer takes most of the time that a request has
    let stalled = |pattern| Rule::new(Fault::Stall(Duration::from_secs(8))).on(pattern).times(1);
    faulty.proxy.set_rules(["^GET .*backup.info$", "^GET .*list-type=", "^GET .*/bundle/"].map(stalled).into());
    faulty.rbr(&["backup", "--type=full"]).success();
    let dump = scenario.cluster.dump();
    scenario.cluster.switch_wal();
    faulty.rbr(&["check"]).success();
    restored_matches(&mut scenario.restore(Tool::Rbr, "restored", &[]), &dump);
    faulty.all_happened();
    faulty.is_sound();
}

#[test]
fn wal_passes_a_faulty_server_in_the_background() {
    let Some(faulty) = Faulty::start(&["archive-async=y", "io-timeout=5"]) else { return };
    let scenario = &faulty.scenario;
    faulty.rbr(&["stanza-create"]).success();
    faulty.rbr(&["backup", "--type=full"]).success();
    faulty.proxy.set_rules(vec![
        Rule::new(Fault::error(503)).every(4),
        Rule::new(Fault::LoseReply).on("^PUT .*archive/").every(3),
        Rule::new(Fault::CutBody).on("^GET ").every(4),
        Rule::new(Fault::Reset).every(7),
    ]);
    archives_and_recovers(scenario);
    faulty.all_happened();
    faulty.is_sound();
}

#[test]
fn slow_server_gets_one_worker_of_a_call() {
    let Some(mut faulty) = Faulty::start(&["archive-async=y"]) else { return };
    faulty.rbr(&["stanza-create"]).success();
    let scenario = &mut faulty.scenario;
    // Segments wait to be archived, and only this test archives them
    scenario.cluster.sql("alter system set archive_command = ''");
    scenario.cluster.stop(Shutdown::Fast);
    scenario.cluster.start();
    scenario.cluster.sql("create table archived as select g from generate_series(1, 1000) g");
    let segment = scenario.cluster.data().join("pg_wal").join(scenario.cluster.switch_wal());
    let scenario = &faulty.scenario;
    let slow = Fault::Stall(Duration::from_secs(5));
    faulty.proxy.set_rules(vec![Rule::new(slow).on("^PUT .*archive/demo/15-1/").times(1)]);
    let push = ["archive-push", segment.to_str().expect("UTF-8"), "--log-level-file=info"];
    let begin = Instant::now();
    faulty.rbr(&push).success();
    assert!(begin.elapsed() > Duration::from_secs(4), "{:?}", begin.elapsed());
    faulty.all_happened();
    let log = std::fs::read_to_string(scenario.space.path("log/demo-archive-push-async.log")).expect("log");
    assert_eq!(log.matches("archive-push:async command begin").count(), 1, "{log}");
    faulty.is_sound();
}

#[test]
fn server_that_stays_away_is_an_error_and_no_backup() {
    let Some(faulty) = Faulty::start(&["io-timeout=5", "job-retry=0"]) else { return };
    let scenario = &faulty.scenario;
    faulty.rbr(&["stanza-create"]).success();
    faulty.proxy.set_rules(vec![Rule::new(Fault::error(503)).on("^P(UT|OST) .*(bundle/|large|/base/)")]);
    let failed = faulty.rbr(&["backup", "--type=full"]).fails(101);
    // What failed, why, and the server's own message
    failed.says("/demo/backup/demo/").says("503").says("Please reduce your request rate.");
    faulty.proxy.set_rules(Vec::new());
    assert_eq!(scenario.labels(), Vec::<String>::new());
    assert_eq!(faulty.weed.uploads(), Vec::<String>::new());

    // A removal that the server refuses for one file is an error too
    faulty.rbr(&["backup", "--type=full"]).success();
    faulty.rbr(&["backup", "--type=full"]).success();
    let refused = Fault::error_with(403, "AccessDenied", "not this one");
    faulty.proxy.set_rules(vec![Rule::new(refused).on("^POST .*delete")]);
    faulty.rbr(&["expire", "--repo1-retention-full=1"]).fails(104).says("403").says("not this one");
    faulty.proxy.set_rules(Vec::new());
    faulty.rbr(&["expire", "--repo1-retention-full=1"]).success();
    assert_eq!(scenario.labels().len(), 1);
    faulty.is_sound();
}

#[test]
fn fetched_segment_is_whole_or_not_there() {
    let Some(faulty) = Faulty::start(&[]) else { return };
    let scenario = &faulty.scenario;
    faulty.rbr(&["stanza-create"]).success();
    // Archive the WAL of the large table
    let segment = scenario.cluster.switch_wal();
    faulty.rbr(&["check"]).success();
    let content = std::fs::read(scenario.cluster.data().join("pg_wal").join(&segment)).expect("segment");
    let folder = scenario.space.folder("fetch");
    let target = folder.join("RECOVERYXLOG");
    // Enough time for another try on a busy machine, and little time if no try can succeed
    let get = |time| faulty.rbr(&["archive-get", &segment, target.to_str().expect("UTF-8"), time]);
    let on_segment = |fault| Rule::new(fault).on(&format!("^GET .*{segment}"));
    let stall = Fault::Stall(Duration::from_secs(6));
    for fault in [Fault::CutBody, Fault::error(503), Fault::Close, stall] {
        faulty.proxy.set_rules(vec![on_segment(fault.clone()).times(1)]);
        get("--io-timeout=4").success();
        faulty.all_happened();
        assert!(std::fs::read(&target).expect("fetched") == content, "{fault:?} once");
        std::fs::remove_file(&target).expect("remove");
        faulty.proxy.set_rules(vec![on_segment(fault.clone())]);
        let failed = get("--io-timeout=1");
        // 1 means that the segment is not in the archive, and PostgreSQL would end its recovery
        assert!(failed.code > 1, "{fault:?}: {}", failed.describe());
        failed.says(&segment);
        assert_eq!(std::fs::read_dir(&folder).expect("folder").count(), 0, "{fault:?}: {target:?}");
    }
}
