//! An S3 server that throttles, breaks connections and loses answers: commands succeed, or leave nothing half-made.

use crate::env::proxy::{Fault, Proxy, Rule};
use crate::env::{Scenario, ScenarioOptions, Weed};

/// A server behind a proxy and a scenario whose repository is reached through it.
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
        global.extend(["compress-type=zst", "archive-timeout=60"].map(str::to_owned));
        global.extend(more.iter().map(|&line| line.to_owned()));
        let scenario = Scenario::start(ScenarioOptions { global, ..ScenarioOptions::default() })?;
        Some(Self { weed, proxy, scenario })
    }

    /// Sound in the eyes of both programs, and without remains of uploads.
    #[track_caller]
    fn is_sound(&self) {
        self.proxy.set_rules(Vec::new());
        self.scenario.rbr(&["verify", "--log-level-console=error"]).success();
        self.scenario.pgbackrest(&["verify", "--log-level-console=error"]).success().never_says("ERROR");
        assert_eq!(self.weed.uploads(), Vec::<String>::new(), "uploads that were not aborted");
    }
}

#[test]
fn throttling_server_is_asked_again() {
    let Some(faulty) = Faulty::start(&["repo1-bundle=y"]) else { return };
    let (proxy, scenario) = (&faulty.proxy, &faulty.scenario);
    proxy.set_rules(vec![Rule::new(Fault::error(503)).every(3), Rule::new(Fault::error(429)).every(3)]);
    scenario.rbr(&["stanza-create"]).success();
    scenario.rbr(&["backup", "--type=full"]).success().never_says("WARN");
    scenario.change(1);
    scenario.rbr(&["backup", "--type=incr", "--repo1-retention-full=1"]).success().never_says("WARN");
    scenario.rbr(&["check"]).success();
    scenario.restore(crate::env::Tool::Rbr, "restored", &[]);
    scenario.rbr(&["backup", "--type=full", "--repo1-retention-full=1"]).success();
    assert_eq!(scenario.labels().len(), 1, "expire removed the others");
    assert!(proxy.hits().iter().all(|&hits| hits > 10), "{:?}", proxy.hits());
    faulty.is_sound();
}
