//! `init` sets up backups of a real cluster, from nothing to a proven restore.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use crate::env::{Cluster, Run, Shutdown, Space, Weed, oracles};

/// The PostgreSQL version of these tests.
const VERSION: u32 = 17;

/// A host with a cluster that archives nothing, and no configuration.
struct Host {
    space: Arc<Space>,
    cluster: Cluster,
}

impl Host {
    fn start(settings: &[&str]) -> Option<Self> {
        let oracles = oracles(&[VERSION])?;
        let space = Arc::new(Space::new());
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut cluster = Cluster::create(&space, oracles, VERSION, "pg", &settings);
        cluster.start();
        Some(Host { space, cluster })
    }

    fn file(&self) -> String {
        self.space.text("etc/pgbackrest.conf")
    }

    /// Runs a command with the configuration that init is to write, and these variables.
    fn rbr_with(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Run {
        let mut command = self.space.command("timeout");
        command.args(["--kill-after=5", "120"]).arg(self.space.path("bin/rbr"));
        // As a superuser that has another name than the test user
        command.env("PGUSER", "postgres").envs(variables.iter().copied());
        command.arg(format!("--config={}", self.file())).args(arguments);
        Run::of(command)
    }

    fn rbr(&self, arguments: &[&str]) -> Run {
        self.rbr_with(&[], arguments)
    }

    /// Runs init for this cluster, with directories of the test.
    fn init(&self, arguments: &[&str]) -> Run {
        let (pg, log) =
            (format!("--pg1-path={}", self.cluster.data_text()), format!("--log-path={}", self.space.text("log")));
        let lock = format!("--lock-path={}", self.space.text("lock"));
        self.rbr(&[&[pg.as_str(), &log, &lock, "init"], arguments].concat())
    }

    fn written(&self) -> String {
        fs::read_to_string(self.file()).expect("configuration")
    }

    fn restart(&mut self) {
        self.cluster.stop(Shutdown::Fast);
        self.cluster.start();
    }
}

#[test]
fn host_without_anything_gets_to_a_proven_backup() {
    let Some(mut host) = Host::start(&[]) else { return };
    let repo = format!("--repo1-path={}", host.space.text("new/repo"));

    // Nothing is written without being asked for
    let shown = host.init(&[&repo]).fails(1).says("Nothing was written").says("[global]").stdout;
    assert!(!host.space.path("etc").exists() && !host.space.path("new").exists(), "{shown}");

    let run = host.init(&[&repo, "--yes", "--apply", "--repo1-cipher-type=aes-256-cbc"]);
    run.clone()
        .fails(1)
        .says("PostgreSQL 17")
        .says("archive_mode = 'on'  # needs a restart")
        .says("Restart PostgreSQL");
    let text = host.written();
    let pass = text.lines().find_map(|line| line.strip_prefix("repo1-cipher-pass=")).expect("passphrase");
    assert!(pass.len() == 64, "{text}");
    // The output of a script goes to logs
    run.says("repo1-cipher-pass=<secret>").says("Keep a copy").never_says(pass);
    for wanted in ["repo1-retention-full=2\n", "repo1-bundle=y\n", "repo1-block=y\n", "compress-type=zst\n", "[main]\n"]
    {
        assert!(text.contains(wanted), "{wanted} is not in\n{text}");
    }
    let mode = |name: &str| fs::metadata(host.space.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("etc/pgbackrest.conf"), mode("new/repo")), (0o600, 0o750));

    host.restart();
    host.rbr(&["init"]).success().says("The first backup");
    // The same command line succeeds again. One that asks for something else does not
    host.init(&[&repo, "--yes", "--apply", "--repo1-cipher-type=aes-256-cbc"]).success();
    host.init(&["--repo1-path=/elsewhere"]).fails(31).says("'repo1-path'").says("does not change an existing");
    assert_eq!(host.written(), text);
    host.rbr(&["--stanza=main", "backup"]).success();
    host.rbr(&["--stanza=main", "--log-level-console=off", "info"]).success().says("status: ok");
    let scratch = format!("--scratch-path={}", host.space.folder("scratch").display());
    let programs = format!("--pg-bin-path={}", oracles(&[VERSION]).unwrap().postgres[&VERSION].display());
    host.rbr(&["--stanza=main", &scratch, &programs, "--superuser=postgres", "test-restore"]).success().says("passed");
}

#[test]
fn existing_configuration_stays_and_what_it_lacks_is_shown() {
    let Some(host) = Host::start(&[]) else { return };
    host.space.folder("etc");
    let text = "[global]\ncompress-type=lz4\n\n[other]\npg1-path=/other\n";
    host.space.write("etc/pgbackrest.conf", text);
    let run = host.init(&["--yes", "--apply"]).fails(93);
    run.says("[main]").says("start-fast=y").says("add what is shown").never_says("compress-type");
    assert_eq!(host.written(), text);
    assert_eq!(host.cluster.sql("show archive_command"), "(disabled)");
}

#[test]
fn other_archive_command_is_not_replaced() {
    let Some(host) = Host::start(&["archive_mode = on", "archive_command = '/bin/true'"]) else { return };
    let repo = format!("--repo1-path={}", host.space.text("repo"));
    host.init(&[&repo, "--yes", "--apply"]).fails(68).says("something else archives WAL");
    assert_eq!(host.cluster.sql("show archive_command"), "/bin/true");

    // A command that pushes to the stanza is right, whatever its path
    host.cluster.sql(&format!(
        "alter system set archive_command = '{} --config={} --stanza=main archive-push %p'",
        host.space.text("bin/rbr"),
        host.file()
    ));
    host.cluster.sql("select pg_reload_conf()");
    std::thread::sleep(std::time::Duration::from_secs(1));
    host.rbr(&["init"]).success().says("The first backup").never_says("needs these settings");
}

#[test]
fn settings_are_only_shown_without_apply() {
    let Some(host) = Host::start(&["archive_mode = on"]) else { return };
    let repo = format!("--repo1-path={}", host.space.text("repo"));
    host.init(&[&repo, "--yes"]).fails(1).says("archive_command = '").says("--apply").never_says("restart");
    assert_eq!(host.cluster.sql("show archive_command"), "");
    // The stanza is there already
    host.rbr(&["init", "--apply"]).success().says("The first backup");
}

#[test]
fn secrets_come_from_the_environment_and_not_from_the_command_line() {
    let Some(host) = Host::start(&[]) else { return };
    host.init(&["--repo1-type=s3", "--repo1-s3-key=K"]).fails(31).says("not allowed on the command-line");

    let Some(weed) = Weed::start() else { return };
    let mut variables: Vec<(String, String)> = Vec::new();
    for line in weed.options(weed.port()) {
        let (key, value) = line.split_once('=').unwrap();
        variables.push((format!("PGBACKREST_{}", key.to_uppercase().replace('-', "_")), value.to_owned()));
    }
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let pg = format!("--pg1-path={}", host.cluster.data_text());
    let lock = format!("--lock-path={}", host.space.text("lock"));
    let log = format!("--log-path={}", host.space.text("log"));
    let run = host.rbr_with(&variables, &[&pg, &lock, &log, "init", "--yes"]).fails(1);
    let (_, secret) = crate::env::weed::KEY;
    run.says("repo1-s3-key-secret=<secret>").says("repo1-type=s3").never_says(secret);
    assert!(host.written().contains(&format!("repo1-s3-key-secret={secret}\n")), "{}", host.written());
    // The file suffices from now on
    host.rbr(&["--stanza=main", "info"]).success().says("no valid backups");
}

#[test]
fn configuration_that_a_command_would_refuse_is_not_written() {
    let Some(host) = Host::start(&[]) else { return };
    host.init(&["--yes", "--repo1-type=s3", "--repo1-s3-bucket=b"]).fails(37).says("requires option: repo1-s3-");
    host.rbr(&["init", "--yes", "--pg1-path=/nowhere"]).fails(55).says("'/nowhere' is no data directory");
    assert!(!host.space.path("etc").exists());
}

#[test]
fn server_that_is_not_running_is_left_for_later() {
    let Some(mut host) = Host::start(&[]) else { return };
    host.cluster.stop(Shutdown::Fast);
    let repo = format!("--repo1-path={}", host.space.text("repo"));
    host.init(&[&repo, "--yes", "--apply"]).fails(1).says("not running").says("Start it, then run:");
    host.cluster.start();
    // Where its socket is could not be known before
    let socket = format!("pg1-socket-path={}", host.cluster.socket());
    host.rbr(&["init", "--apply"]).fails(56).says(&socket).never_says("WARN");
    fs::write(host.file(), format!("{}{socket}\n", host.written())).unwrap();
    host.rbr(&["init", "--apply"]).fails(1).says("Restart PostgreSQL");
}

#[test]
fn questions_on_a_terminal_lead_to_a_configuration() {
    let Some(host) = Host::start(&["archive_mode = on"]) else { return };
    // A terminal of its own, in which each answer follows its question
    let script = r#"
import os, pty, sys, time
answers = [(b"Where do backups go?", b""), (b"Directory of the repository?", sys.argv[1].encode()), (b"Encrypt", b"y"),
           (b"full backups to keep?", b"5"), (b"Write it?", b"y"), (b"ALTER SYSTEM?", b"y")]
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
seen = b""
while True:
    try:
        part = os.read(fd, 4096)
    except OSError:
        break
    if not part:
        break
    seen += part
    if answers and answers[0][0] in seen:
        os.write(fd, answers.pop(0)[1] + b"\n")
        seen = b""
    sys.stdout.buffer.write(part)
sys.stdout.flush()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if not answers else 99)
"#;
    let mut command = host.space.command("timeout");
    command.args(["--kill-after=5", "60", "python3", "-c", script]).arg(host.space.text("answers/repo"));
    command.arg(host.space.path("bin/rbr")).arg(format!("--config={}", host.file())).env("PGUSER", "postgres");
    command.arg(format!("--pg1-path={}", host.cluster.data_text()));
    command
        .arg(format!("--log-path={}", host.space.text("log")))
        .arg(format!("--lock-path={}", host.space.text("lock")));
    command.arg("init");
    let run = Run::of(command).success();
    let text = host.written();
    assert!(text.contains("repo1-retention-full=5\n"), "{text}");
    assert!(text.contains(&format!("repo1-path={}\n", host.space.text("answers/repo"))), "{text}");
    // The user sees the passphrase, to keep it
    let pass = text.lines().find_map(|line| line.strip_prefix("repo1-cipher-pass=")).expect("passphrase");
    run.says(pass).says("The first backup");
}

#[test]
fn root_gives_everything_to_the_owner_of_the_cluster() {
    if !rustix::process::geteuid().is_root() {
        crate::env::oracle::say("root_gives_everything_to_the_owner_of_the_cluster: not root, nothing to test");
        return;
    }
    let Some(host) = Host::start(&["archive_mode = on"]) else { return };
    let mut command = std::process::Command::new("timeout");
    command.args(["--kill-after=5", "60"]).arg(host.space.path("bin/rbr")).arg(format!("--config={}", host.file()));
    for (option, value) in [
        ("pg1-path", host.cluster.data_text()),
        ("repo1-path", host.space.text("of-root/repo")),
        ("log-path", host.space.text("of-root/log")),
        ("lock-path", host.space.text("lock")),
    ] {
        command.arg(format!("--{option}={value}"));
    }
    command.env("PGUSER", "postgres").args(["init", "--yes", "--apply"]);
    Run::of(command).success().says("The first backup, as ").says("(readable by ");
    let owner = |name: &str| {
        use std::os::unix::fs::MetadataExt;
        let meta = fs::metadata(host.space.path(name)).unwrap();
        (meta.uid(), meta.gid(), meta.mode() & 0o777)
    };
    let user = host.space.user();
    assert_eq!(owner("etc/pgbackrest.conf"), (0, user.gid, 0o640));
    for name in ["of-root/repo", "of-root/log", "of-root/repo/archive/main/archive.info"] {
        assert_eq!((owner(name).0, owner(name).1), (user.uid, user.gid), "{name}");
    }
    // The owner can go on alone
    host.rbr(&["--stanza=main", "backup"]).success();
}
