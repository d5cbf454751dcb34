//! Repositories on another host. A script takes the place of the SSH client and runs the command on this host, with a
//! configuration of its own.

mod failures;
mod repository;

use crate::env::{Scenario, ScenarioOptions, Tool};

/// What the other host's configuration contains by default.
const FAR: &str = "far.conf";

/// The script that takes the place of the SSH client. Its last argument is the command.
pub const SSH: &str = "#!/bin/sh\nfor last; do :; done\nexec sh -c \"$last\"\n";

/// Returns the options of a repository on another host, which runs pgBackRest.
fn host_options(scenario: &Scenario) -> Vec<String> {
    vec![
        "repo1-host=repository.example".to_owned(),
        "repo1-host-user=backup".to_owned(),
        format!("repo1-host-cmd={}", scenario.program(Tool::PgBackRest).display()),
        format!("repo1-host-config={}", scenario.space.text(FAR)),
        format!("cmd-ssh={}", scenario.space.text("ssh")),
    ]
}

fn restore_client(scenario: &Scenario) {
    scenario.space.write_program("ssh", SSH);
}

/// A cluster whose repository is on another host. `far` are options there, `near` are options here.
fn scenario(far: &[&str], near: &[&str]) -> Option<Scenario> {
    let scenario = Scenario::start(ScenarioOptions::default())?;
    let space = &scenario.space;
    restore_client(&scenario);
    let folders = [("repo1-path", "repo"), ("log-path", "far-log"), ("lock-path", "far-lock")];
    let mut lines = vec!["[global]".to_owned()];
    lines.extend(folders.map(|(option, folder)| format!("{option}={}", space.folder(folder).display())));
    lines.extend(far.iter().map(ToString::to_string));
    space.write(FAR, lines.join("\n") + "\n");
    let mut global = host_options(&scenario);
    global.extend(near.iter().map(ToString::to_string));
    scenario.configure(&global);
    Some(scenario)
}
