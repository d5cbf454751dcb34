//! Secrets of S3 repositories: temporary credentials are renewed in time, keys for server-side encryption are sent with
//! every request, and no secret is ever shown.

use std::time::Duration;

use super::cycle;
use crate::env::{Scenario, ScenarioOptions, Weed};

/// Checks that no file of this folder contains the text.
#[track_caller]
fn nowhere_in(scenario: &Scenario, folder: &str, secret: &str) {
    let found = scenario.space.run("grep", &["-rl", secret, &scenario.space.text(folder)]);
    assert_eq!(found.code, 1, "{}", found.describe());
}

#[test]
fn credentials_of_a_process_are_renewed_during_a_backup_and_never_shown() {
    let Some(weed) = Weed::start() else { return };
    let proxy = weed.proxy();
    let mut global = weed.options(proxy.port());
    global.retain(|line| !line.starts_with("repo1-s3-key"));
    let fixed = ["repo1-bundle=y", "log-level-console=trace", "log-level-file=trace", "process-max=1"];
    global.extend(fixed.map(str::to_owned));
    let Some(scenario) = Scenario::start(ScenarioOptions { global: global.clone(), ..ScenarioOptions::default() })
    else {
        return;
    };
    // The credentials that it prints are valid for two seconds
    let space = &scenario.space;
    let script = space.write(
        "credentials.sh",
        format!(
            "echo >> {}\necho '{{\"Version\":1,\"AccessKeyId\":\"rbrkey\",\"SecretAccessKey\":\"rbrsecret\",\"Expiration\":\"'$(date -u \
             -d '+2 seconds' +%Y-%m-%dT%H:%M:%SZ)'\"}}'\n",
            space.text("runs")
        ),
    );
    global.push("repo1-s3-key-type=process".to_owned());
    global.extend(["/bin/sh", &script.display().to_string()].map(|word| format!("repo1-s3-process-cmd={word}")));
    scenario.configure(&global);
    scenario.rbr(&["stanza-create"]).success().never_says("rbrsecret");
    space.write("runs", "");
    proxy.set_latency(Duration::from_millis(150));
    scenario.rbr(&["backup"]).success().says("DEBUG").never_says("rbrsecret");
    proxy.set_latency(Duration::ZERO);
    let runs = std::fs::read_to_string(space.path("runs")).expect("runs").lines().count();
    assert!(runs >= 2, "asked {runs} times");
    scenario.rbr(&["check"]).success().never_says("rbrsecret");
    nowhere_in(&scenario, "log", "rbrsecret");

    // A command that fails, and one whose credentials are refused
    space.write("credentials.sh", "echo rbrsecret; echo rbrsecret >&2; exit 3\n");
    scenario.rbr(&["repo-ls"]).fails(102).says("credential command '/bin/sh' failed").never_says("rbrsecret");
    space.write("credentials.sh", "echo '{\"AccessKeyId\":\"rbrkey\",\"SecretAccessKey\":\"othersecret\"}'\n");
    scenario.rbr(&["repo-ls"]).fails(39).says("403 (Forbidden)").never_says("othersecret");
    nowhere_in(&scenario, "log", "othersecret");
}

#[test]
fn objects_are_encrypted_by_the_server_with_our_key_and_tagged() {
    let Some(weed) = Weed::start() else { return };
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let mut global = weed.options(weed.port());
    global.extend(
        ["repo1-bundle=y", "compress-type=zst", "repo1-storage-tag=team=data base", "repo1-storage-tag=kind=backup"]
            .map(str::to_owned),
    );
    global.push(format!("repo1-s3-sse-customer-key={key}"));
    let Some(scenario) = Scenario::start(ScenarioOptions { global: global.clone(), ..ScenarioOptions::default() })
    else {
        return;
    };
    cycle(&scenario);
    let info = "/demo/backup/demo/backup.info";
    let tags = weed.curl("GET", &format!("{info}?tagging="));
    for text in ["<Key>team</Key><Value>data base</Value>", "<Key>kind</Key><Value>backup</Value>"] {
        assert!(tags.stdout.contains(text), "{}", tags.describe());
    }
    // Nobody can read the object without the key or with another key
    let refused = weed.curl("GET", info);
    assert!(refused.stdout.ends_with("\n400"), "{}", refused.describe());
    scenario.rbr(&["repo-get", "backup/demo/backup.info"]).success().says("backrest-format").never_says(key);
    let other =
        global.iter().map(|line| line.replace(key, "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVowMTIzNDU=")).collect::<Vec<_>>();
    scenario.configure(&other);
    scenario.rbr(&["repo-get", "backup/demo/backup.info", "--log-level-console=trace"]).fails(39).never_says("QUJDREV");
}
