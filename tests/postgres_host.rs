//! PostgreSQL on another host. The tests are the repository's host. A script takes the place of the SSH client and runs
//! the command on this host, with the configuration of the cluster's host.

mod backups;
mod cluster;
mod ends;
mod failures;

use crate::env::{Background, Run, Scenario, ScenarioOptions, Tool};

/// The configuration of the repository's host. The scenario's own is that of the cluster's host.
const NEAR: &str = "near.conf";

/// The script that takes the place of the SSH client. Its last argument is the command.
const SSH: &str = "#!/bin/sh\nfor last; do :; done\nexec sh -c \"$last\"\n";

/// A cluster and its repository on different hosts.
struct Hosts {
    scenario: Scenario,
    /// The program on the cluster's host.
    far: Tool,
}

impl Hosts {
    /// `near` are options of the repository's host.
    fn start(far: Tool, options: ScenarioOptions, near: &[&str]) -> Option<Self> {
        let hosts = Hosts { scenario: Scenario::start(options)?, far };
        hosts.restore_client();
        hosts.configure(near, &hosts.cluster_options(1, "pg"));
        Some(hosts)
    }

    fn restore_client(&self) {
        self.scenario.space.write_program("ssh", SSH);
    }

    /// Makes the SSH client a script with this body.
    fn set_client(&self, body: &str) {
        self.scenario.space.write_program("ssh", &format!("#!/bin/sh\nfor last; do :; done\n{body}\n"));
    }

    /// The options of a cluster in the folder `name`.
    fn cluster_options(&self, number: u32, name: &str) -> Vec<String> {
        let space = &self.scenario.space;
        vec![
            format!("pg{number}-host=cluster{number}.example"),
            format!("pg{number}-host-user=postgres"),
            format!("pg{number}-host-cmd={}", self.scenario.program(self.far).display()),
            format!("pg{number}-host-config={}", space.text("pgbackrest.conf")),
            format!("pg{number}-path={}", space.text(name)),
            format!("pg{number}-socket-path={}", space.text(&format!("{name}-socket"))),
            format!("pg{number}-user=postgres"),
        ]
    }

    /// Writes the configuration of the repository's host.
    fn configure(&self, global: &[&str], stanza: &[String]) {
        let space = &self.scenario.space;
        let mut lines = vec!["[global]".to_owned()];
        let folders = [("repo1-path", "repo"), ("log-path", "near-log"), ("lock-path", "near-lock")];
        lines.extend(folders.map(|(option, folder)| format!("{option}={}", space.folder(folder).display())));
        lines.push(format!("cmd-ssh={}", space.text("ssh")));
        let defaults = [
            "log-level-console=detail",
            "log-level-file=off",
            "start-fast=y",
            "archive-timeout=30",
            "repo1-retention-full=9",
            "process-max=2",
        ];
        let name = |option: &str| option.split('=').next().map(str::to_owned);
        let is_given = |default: &&str| global.iter().any(|option| name(option) == name(default));
        lines.extend(defaults.iter().filter(|default| !is_given(default)).map(ToString::to_string));
        lines.extend(global.iter().map(ToString::to_string));
        lines.push("[demo]".to_owned());
        lines.extend(stanza.iter().cloned());
        space.write(NEAR, lines.join("\n") + "\n");
    }

    fn arguments(&self, arguments: &[&str]) -> Vec<String> {
        let mut all = vec![format!("--config={}", self.scenario.space.text(NEAR)), "--stanza=demo".to_owned()];
        all.extend(arguments.iter().map(ToString::to_string));
        all
    }

    /// Runs a program on the repository's host.
    fn run(&self, tool: Tool, arguments: &[&str]) -> Run {
        self.scenario.space.run(self.scenario.program(tool), &self.arguments(arguments))
    }

    fn rbr(&self, arguments: &[&str]) -> Run {
        self.run(Tool::Rbr, arguments)
    }

    /// Starts a command of rbr on the repository's host.
    fn start_command(&self, arguments: &[&str]) -> Background {
        self.scenario.space.start(self.scenario.program(Tool::Rbr), &self.arguments(arguments))
    }

    fn both(&self, arguments: &[&str]) -> [Run; 2] {
        [Tool::Rbr, Tool::PgBackRest].map(|tool| self.run(tool, arguments))
    }
}
