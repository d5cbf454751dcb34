//! A chain of backups by both programs, and the checks for each of its links.

use crate::env::{Run, Scenario, Tool, Tree, restored_matches};

/// Backups of a cluster that changes between them.
pub struct Chain {
    pub scenario: Scenario,
    /// The content of the cluster at the end of each backup.
    dumps: Vec<String>,
}

impl Chain {
    pub fn new(scenario: Scenario) -> Self {
        Self { scenario, dumps: Vec::new() }
    }

    /// Changes the data (except before the first backup) and backs it up.
    #[track_caller]
    pub fn add(&mut self, tool: Tool, kind: &str, options: &[&str]) -> Run {
        let round = u32::try_from(self.dumps.len()).expect("small");
        if round > 0 {
            self.scenario.change(round);
        }
        let kind_option = format!("--type={kind}");
        let mut arguments = vec!["backup", &kind_option];
        arguments.extend(options);
        let run = self.scenario.run(tool, &arguments).success();
        assert!(run.stdout.contains(&format!("{kind} backup size")), "{}", run.describe());
        self.dumps.push(self.scenario.cluster.dump());
        run
    }

    /// Checks that both programs' `verify` finds no error, that both restore every backup to the same files, and that a
    /// server on these files has the content of the cluster at the end of the backup.
    #[track_caller]
    pub fn check(&self) {
        self.check_verified_by(&[Tool::PgBackRest, Tool::Rbr]);
    }

    /// Like [`Chain::check`], if only the `verify` of these programs is reliable.
    #[track_caller]
    pub fn check_verified_by(&self, verifiers: &[Tool]) {
        let scenario = &self.scenario;
        for &tool in verifiers {
            let verify =
                scenario.run(tool, &["verify", "--verbose", "--output=text", "--log-level-console=warn"]).success();
            assert!(verify.stdout.contains("status: ok"), "{}", verify.describe());
        }
        let json = ["info", "--output=json", "--log-level-console=warn"];
        assert_eq!(scenario.rbr(&json).success().stdout, scenario.pgbackrest(&json).success().stdout);
        let labels = scenario.labels();
        assert_eq!(labels.len(), self.dumps.len());
        for (link, (label, dump)) in labels.iter().zip(&self.dumps).enumerate() {
            let set = format!("--set={label}");
            let until = ["--type=immediate", "--target-action=promote", &set];
            let (theirs, ours) = (format!("theirs-{link}"), format!("ours-{link}"));
            let mut by_pgbackrest = scenario.restore(Tool::PgBackRest, &theirs, &until);
            let mut by_rbr = scenario.restore(Tool::Rbr, &ours, &until);
            let tree = |name: &str| Tree::read_restored(&scenario.space.path(name)).without(|path| path == SIGNAL);
            tree(&theirs).assert_same(&tree(&ours));
            // The files are the same, so one server suffices; the two programs take turns to provide its WAL
            restored_matches(if link % 2 == 0 { &mut by_rbr } else { &mut by_pgbackrest }, dump);
        }
    }
}

/// Each restore creates it, at its own time.
const SIGNAL: &str = "recovery.signal";
