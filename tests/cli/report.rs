//! `check --report` compared with pgBackRest: the same environment and files yield the same output and exit status.

use crate::env::{Run, Space, oracles};

/// Exit status and output, without the time of log lines.
fn outcome(run: &Run) -> (i32, String) {
    // Only rbr suggests names
    let lines = run.stdout.lines().chain(run.stderr.lines()).filter(|line| !line.contains("HINT: did you mean"));
    let lines: Vec<&str> = lines.map(|line| line.find(" P00").map_or(line, |start| &line[start..])).collect();
    (run.code, lines.join("\n"))
}

/// Runs both programs with a configuration file, an environment and more arguments.
#[track_caller]
fn same(space: &Space, config: &[u8], environment: &[&str], arguments: &[&str]) {
    let Some(oracles) = oracles(&[]) else { return };
    space.write("test.conf", config);
    let run = |program: &str| {
        let common = ["-i", "TZ=UTC"].into_iter().chain(environment.iter().copied());
        let command = common.chain([program, "check", "--report"]).map(str::to_owned);
        let arguments = arguments.iter().map(|argument| argument.replace("SPACE", &space.text(".")));
        space.run("/usr/bin/env", &command.chain(arguments).collect::<Vec<_>>())
    };
    let theirs = run(oracles.pgbackrest.to_str().expect("UTF-8"));
    let ours = run(&space.text("bin/rbr"));
    assert_eq!(outcome(&theirs), outcome(&ours), "{}\n{}", String::from_utf8_lossy(config), environment.join(" "));
}

/// Each option in many places, most of them wrong.
const MUCH: &[u8] = b"[global]
repo1-path=/r
log-level-file=off
repo1-cipher-pass=secret
db-include=x
db-include=y
compres-type=zst
no-online=y
reset-repo1-path=x
repo-cipher-type=none
backup-host=foo
stop-auto=y
db-timeout=xx
[demo]
pg1-path=/pg
pg1-path=/pg2
recovery-option=a=b
[global:backup]
process-max=x
process-max=2
[z:backup]
foo=bar
foo=bar2
start-fast=
repo1-s3-key=abc
db-exclude=a:b
db-exclude=c
exclude=
tablespace-map=a=b\tc
recovery-option=restore_command=\"a\" \\
[a b]
repair=y
annotation=x=y
report=y
";

const FILES: &[&[u8]] = &[
    MUCH,
    b"",
    b"# nothing\n",
    b"[global]\n",
    b"[b]\nrepo999-path=x\n",
    b"[b]\nrepo-path=x\n",
    b"[b]\nno-type=full\n",
    b"[b]\npg1-path=x\npg01-path=y\n",
    b"[b]\n-x=1\n",
    b"[b]\n1-x=1\n",
    b"[b]\ndb-path=1\ndb1-path=2\nhardlink=y\narchive-queue-max=3\n",
    b"[b]\nx=1\n[a]\ny=1\n[b]\nx=2\nexclude=1\n",
    b"[b]\nexclude=\xc3\xa4 \"q\" \\ /x\ty\n",
    b"[b]\nstart-fast=\"y\"\nstart-fast=n\n",
    b"[b]\nrepo1-cipher-pass=a\nrepo1-cipher-pass=b\n",
    b"[b]\nstanza=x\nconfig=y\ndelta=y\n",
    // Of other hosts
    b"[global]\nrepo1-host=backup\nrepo1-host-type=tls\nrepo1-format=6\n[demo]\npg1-host=db\npg1-path=/pg\n",
    // Errors before the report
    b"[global]\nprocess-max=0\nrepo1-path=x\n",
    b"[global]\nrepo1-type=s3\n",
    b"[global]\nrepo1-path=/x\nrepo1-path=/y\n",
    b"[global]\nlog-level-console=\n",
];

#[test]
fn report_of_configuration_files_equals_pgbackrest() {
    let space = Space::new();
    for file in FILES {
        same(&space, file, &[], &["--config=SPACE/test.conf"]);
    }
    let hosts = b"[global]\nrepo1-host=backup\nlog-level-file=off\n[demo]\npg1-host=db\npg1-path=/pg\n";
    same(&space, hosts, &[], &["--config=SPACE/test.conf", "--stanza=demo"]);
    for more in [&["--stanza=demo"], &["--stanza=z"], &["--no-report"], &["--report=y"], &["extra"]] {
        same(&space, MUCH, &[], &[&["--config=SPACE/test.conf"], &more[..]].concat());
    }
}

#[test]
fn report_without_files_equals_pgbackrest() {
    let space = Space::new();
    same(&space, b"", &[], &["--no-config"]);
    same(&space, b"", &[], &["--no-config", "--stanza=x", "--pg1-path=/x"]);
    same(&space, b"", &[], &["--no-config", "--stanza=x"]);
    same(&space, b"", &[], &["--config=SPACE/nosuch.conf"]);
}

#[test]
fn report_of_several_files_equals_pgbackrest() {
    let space = Space::new();
    space.folder("etc/conf.d");
    let path = &["--config-path=SPACE/etc"];
    same(&space, b"", &[], path);
    space.write("etc/conf.d/a.conf", "");
    same(&space, b"", &[], path);
    space.write("etc/conf.d/b.conf", "[b]\nstart-fast=n\nexclude=2\n[a]\nexclude=3");
    same(&space, b"", &[], path);
    space.write("etc/pgbackrest.conf", "[a]\nexclude=4\n");
    same(&space, b"", &[], path);
    same(&space, b"", &[], &["--config-include-path=SPACE/etc/conf.d"]);
    same(&space, b"", &[], &["--config-include-path=SPACE/nosuch"]);
}

#[test]
fn report_of_the_environment_equals_pgbackrest() {
    let space = Space::new();
    let environment = [
        "PGBACKREST_REPO1_PATH=/x",
        "PGBACKREST_foo=bar",
        "PGBACKREST_REPO1_CIPHER_PASS=abc",
        "PGBACKREST_DB_INCLUDE=a:b:c",
        "PGBACKREST_EXCLUDE=",
        "PGBACKREST_NO_ONLINE=y",
        "PGBACKREST_=x",
        "PGBACKREST_RESET_REPO1_PATH=3",
        "PGBACKREST_process_max=7",
        "PGBACKREST_PROCESS_MAX=5",
        "PGBACKREST_PG1_PATH=/xx",
        "PGBACKREST_REPO_CIPHER_PASS=x",
        "PGBACKREST_REPORT=y",
        "OTHER=1",
    ];
    same(&space, MUCH, &environment, &["--config=SPACE/test.conf"]);
    same(&space, b"", &environment, &["--no-config"]);
    same(&space, b"", &["PGBACKREST_REPO999_PATH=/x"], &["--no-config"]);
    same(&space, b"", &["PGBACKREST_ONLINE="], &["--no-config"]);
}

#[test]
fn report_is_valid_json_and_has_no_secret() {
    let space = Space::new();
    space.write(
        "test.conf",
        "[a\"b]\nexclude=\x01 \"\\\nrepo1-cipher-pass=topsecret\n[c]\nspool-path=/xrepo1-s3-key=topsecret\n",
    );
    let config = format!("--config={}", space.text("test.conf"));
    let report = space.run(space.path("bin/rbr"), &["check", "--report", &config]).success().never_says("topsecret");
    let files = &report.json()["cfg"]["file"];
    assert_eq!(files["a\"b"]["exclude"]["val"][0], "\u{1} \"\\");
    assert_eq!(files["a\"b"]["repo1-cipher-pass"]["val"], "<repo1-cipher-pass>");
    assert_eq!(files["c"]["spool-path"]["val"], "<spool-path>");
}
