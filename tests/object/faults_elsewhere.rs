//! Servers of Azure and GCS that throttle, stall, break connections and lose answers: commands succeed, and both
//! programs find the result valid.

use std::time::Duration;

use super::faults::{archives_and_recovers, load_large_table};
use crate::env::proxy::{Fault, Proxy, Rule};
use crate::env::{Azurite, Gcs, Run, Scenario, ScenarioOptions, Tool, restored_matches};

/// The properties in which the services differ.
struct Server<'a> {
    proxy: &'a Proxy,
    options: Vec<String>,
    /// The answer to one request too many.
    busy: Fault,
    /// Requests of which the nth answer is lost.
    lost: &'a [(&'a str, u64)],
    /// Requests that store a segment.
    stores_segment: &'a str,
    secret: &'a str,
}

impl Server<'_> {
    fn rbr(&self, scenario: &Scenario, arguments: &[&str]) -> Run {
        scenario.rbr(arguments).never_says(self.secret)
    }

    /// Faults of all kinds, one after another, on one repository.
    fn suffers(&self) {
        let mut global = self.options.clone();
        let more = ["compress-type=zst", "archive-timeout=60", "repo1-bundle=y", "io-timeout=5"];
        global.extend(more.map(str::to_owned));
        let Some(scenario) = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() }) else { return };
        load_large_table(&scenario);
        self.throttles(&scenario);
        self.breaks(&scenario);
        self.stalls(&scenario);
        is_sound(&scenario);
        self.stays_away(&scenario);
        is_sound(&scenario);
    }

    /// Faults while segments are stored and fetched in the background.
    fn suffers_in_the_background(&self) {
        let mut global = self.options.clone();
        let more = ["compress-type=zst", "archive-timeout=60", "archive-async=y", "repo1-bundle=y", "io-timeout=5"];
        global.extend(more.map(str::to_owned));
        let Some(scenario) = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() }) else { return };
        self.rbr(&scenario, &["stanza-create"]).success();
        self.rbr(&scenario, &["backup", "--type=full"]).success();
        self.proxy.set_rules(vec![
            Rule::new(self.busy.clone()).every(4),
            Rule::new(Fault::LoseReply).on(self.stores_segment).every(3),
            Rule::new(Fault::CutBody).on("^GET ").every(4),
            Rule::new(Fault::Reset).every(7),
        ]);
        archives_and_recovers(&scenario);
        self.all_happened();
        is_sound(&scenario);
    }

    fn throttles(&self, scenario: &Scenario) {
        self.proxy.set_rules(vec![Rule::new(self.busy.clone()).every(3)]);
        self.rbr(scenario, &["stanza-create"]).success();
        self.rbr(scenario, &["backup", "--type=full"]).success().never_says("WARN");
        self.rbr(scenario, &["check"]).success();
        self.all_happened();
    }

    fn breaks(&self, scenario: &Scenario) {
        let mut rules: Vec<Rule> = self
            .lost
            .iter()
            .map(|&(pattern, every)| Rule::new(Fault::LoseReply).on(pattern).every(every).times(1))
            .collect();
        rules.extend([
            Rule::new(Fault::CutBody).on("^GET ").every(4),
            Rule::new(Fault::Close).every(7),
            Rule::new(Fault::Reset).every(9),
        ]);
        self.proxy.set_rules(rules);
        scenario.change(1);
        self.rbr(scenario, &["backup", "--type=incr"]).success();
        let dump = scenario.cluster.dump();
        scenario.cluster.switch_wal();
        self.rbr(scenario, &["check"]).success();
        restored_matches(&mut scenario.restore(Tool::Rbr, "restored", &[]), &dump);
        self.rbr(scenario, &["backup", "--type=full", "--repo1-retention-full=1"])
            .success()
            .says("expire full backup set");
        self.all_happened();
        assert_eq!(scenario.labels().len(), 1);
    }

    /// Without other faults: waiting for the first answer takes most of the time that a request has.
    fn stalls(&self, scenario: &Scenario) {
        self.proxy.set_rules(vec![Rule::new(Fault::Stall(Duration::from_secs(8))).on("^GET ").times(1)]);
        self.rbr(scenario, &["check"]).success();
        self.all_happened();
    }

    /// No backup can be written. The command fails in time, and nothing counts as a backup, although every file is
    /// there.
    fn stays_away(&self, scenario: &Scenario) {
        self.proxy.set_rules(vec![Rule::new(Fault::LoseReply).on("^P(UT|OST) .*(bundle|base)")]);
        let failed = self.rbr(scenario, &["backup", "--type=full", "--job-retry=0"]);
        assert!(failed.code != 0, "{}", failed.describe());
        failed.says("/demo/backup/demo/");
        self.all_happened();
        assert_eq!(scenario.labels().len(), 1);
        self.rbr(scenario, &["backup", "--type=full"]).success();
    }

    /// Checks that every rule has applied, and removes the rules.
    #[track_caller]
    fn all_happened(&self) {
        let hits = self.proxy.hits();
        assert!(hits.iter().all(|&hits| hits > 0), "faults that never happened: {hits:?}");
        self.proxy.set_rules(Vec::new());
    }
}

/// Checks that both programs find the repository valid.
#[track_caller]
fn is_sound(scenario: &Scenario) {
    for tool in [Tool::Rbr, Tool::PgBackRest] {
        let verify = ["verify", "--output=text", "--verbose", "--log-level-console=off"];
        scenario.run(tool, &verify).success().says("status: ok");
    }
}

fn azure(server: &Azurite) -> Server<'_> {
    Server {
        proxy: &server.proxy,
        options: server.options_with_key(),
        busy: Fault::error_with(503, "ServerBusy", "The server is busy."),
        lost: &[
            ("^PUT .*backup.info$", 1),
            ("^PUT .*archive/demo/15-1/", 1),
            ("^PUT .*comp=block&", 2),
            ("^PUT .*comp=blocklist", 1),
            ("^(DELETE|POST .*comp=batch)", 1),
        ],
        stores_segment: "^PUT .*archive/demo/15-1/",
        secret: "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq",
    }
}

fn gcs(server: &Gcs) -> Server<'_> {
    let body = r#"{"error":{"code":429,"message":"The rate of requests is too high."}}"#.to_owned();
    Server {
        proxy: &server.proxy,
        options: server.options(),
        busy: Fault::Answer { status: 429, body },
        lost: &[
            ("uploadType=multipart", 2),
            ("uploadType=multipart", 7),
            ("uploadType=resumable&name", 1),
            ("upload_id=", 2),
            ("^POST /batch", 1),
            ("^DELETE", 1),
        ],
        stores_segment: "^POST .*uploadType=(multipart|resumable)",
        secret: "secret-token",
    }
}

#[test]
fn faults_of_azure_do_no_harm() {
    if let Some(server) = Azurite::start() {
        azure(&server).suffers();
    }
}

#[test]
fn faults_of_gcs_do_no_harm() {
    if let Some(server) = Gcs::start() {
        gcs(&server).suffers();
    }
}

#[test]
fn wal_passes_a_faulty_azure_in_the_background() {
    if let Some(server) = Azurite::start() {
        azure(&server).suffers_in_the_background();
    }
}

#[test]
fn wal_passes_a_faulty_gcs_in_the_background() {
    if let Some(server) = Gcs::start() {
        gcs(&server).suffers_in_the_background();
    }
}
