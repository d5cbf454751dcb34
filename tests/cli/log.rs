//! Log lines, log files and exit status of the complete program.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::env::Space;

/// Arguments of a command that needs only its lock directory.
fn start_command(space: &Space, more: &[&str]) -> Vec<String> {
    let mut arguments = vec!["start".to_owned(), "--no-config".to_owned(), "--stanza=demo".to_owned()];
    arguments.push(format!("--lock-path={}", space.text("lock")));
    arguments.push(format!("--log-path={}", space.text("log")));
    arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    arguments
}

fn pattern(text: &str) -> regex_lite::Regex {
    regex_lite::Regex::new(text).expect("pattern")
}

#[test]
fn console_line_has_time_process_and_level() {
    let space = Space::new();
    let run = space.run(space.path("bin/rbr"), &start_command(&space, &["--log-level-console=info"])).success();
    let begin = r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} P00   INFO: start command begin 0\.1\.0: --no-config --exec-id=\d+-[0-9a-f]{8} --lock-path=\S+ --log-level-console=info --log-path=\S+ --stanza=demo$";
    let end = r"(?m)^\S+ \S+ P00   INFO: start command end: completed successfully \(\d+ms\)$";
    for expected in [begin, end] {
        assert!(pattern(expected).is_match(&run.stdout), "{expected}\n{}", run.describe());
    }
    assert_eq!(run.stderr, "");
}

#[test]
fn log_file_begins_each_run_with_a_banner() {
    let space = Space::new();
    for _ in 0..2 {
        space
            .run(space.path("bin/rbr"), &start_command(&space, &["--log-level-console=off", "--no-log-timestamp"]))
            .success();
    }
    let text = fs::read_to_string(space.path("log/demo-start.log")).expect("log file");
    let banner = "-------------------PROCESS START-------------------\n";
    assert!(text.starts_with(&format!("{banner}P00   INFO: start command begin")), "{text}");
    assert!(text.contains(&format!("command end: completed successfully\n\n{banner}")), "{text}");
    let mode = fs::metadata(space.path("log/demo-start.log")).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn lines_for_stderr_have_no_time_and_leave_stdout_alone() {
    let space = Space::new();
    let run = space
        .run(space.path("bin/rbr"), &start_command(&space, &["--log-level-console=info", "--log-level-stderr=info"]))
        .success();
    assert_eq!(run.stdout, "");
    assert!(run.stderr.starts_with("INFO: start command begin "), "{}", run.describe());
}

#[test]
fn missing_log_folder_is_warned_about_and_the_command_goes_on() {
    let space = Space::new();
    fs::remove_dir_all(space.path("log")).expect("remove");
    let run = space.run(space.path("bin/rbr"), &start_command(&space, &["--no-log-timestamp"])).success();
    let folder = space.text("log");
    let expected = format!(
        "P00   WARN: unable to open log file '{folder}/demo-start.log': No such file or directory\n\
         \x20           NOTE: process will continue without log file.\n"
    );
    assert!(run.stdout.starts_with(&expected), "{}", run.describe());
}

#[test]
fn error_before_the_options_are_known_goes_to_stderr() {
    let space = Space::new();
    let run = space.run(space.path("bin/rbr"), &["bogus"]);
    assert_eq!((run.code, run.stdout.as_str()), (48, ""));
    assert_eq!(run.stderr, "ERROR: [048]: invalid command 'bogus'\n");
}

#[test]
fn error_while_options_are_resolved_goes_to_stdout_without_time() {
    let space = Space::new();
    let run = space.run(space.path("bin/rbr"), &["backup", "--no-config", "--stanza=demo"]);
    assert_eq!((run.code, run.stderr.as_str()), (37, ""));
    let expected = "P00  ERROR: [037]: backup command requires option: pg1-path\n\
                    \x20           HINT: does this stanza exist?\n";
    assert_eq!(run.stdout, expected);
}

#[test]
fn worker_process_of_pgbackrest_is_refused_on_standard_error() {
    let space = Space::new();
    // As a main process of pgBackRest starts it: its standard output belongs to the protocol
    let arguments = ["--exec-id=1-a", "--process=1", "--remote-type=repo", "--stanza=demo", "--log-level-console=off"];
    let files = ["--log-level-stderr=error", "--log-level-file=off", "--no-config", "--pg1-path=/p", "--repo=1"];
    let run = space.run(space.path("bin/rbr"), &[&arguments[..], &files[..], &["backup:local"]].concat());
    assert_eq!((run.code, run.stdout.as_str()), (67, ""), "{}", run.describe());
    assert!(
        run.stderr.contains("command 'backup:local' is not supported: workers of rbr are threads"),
        "{}",
        run.stderr
    );
}

#[test]
fn signal_ends_a_command_whose_storage_server_never_answers() {
    let space = Space::new();
    // Connections wait in its queue
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = server.local_addr().expect("address").port();
    let config = format!(
        "[global]\nrepo1-type=s3\nrepo1-s3-bucket=b\nrepo1-s3-endpoint=127.0.0.1\nrepo1-s3-region=r\nrepo1-s3-uri-style=path\nrepo1-s3-key=k\n\
         repo1-s3-key-secret=s\nrepo1-storage-port={port}\nlog-level-file=off\n[demo]\npg1-path=/nonexistent\n"
    );
    space.write("silent.conf", config);
    let config = format!("--config={}", space.text("silent.conf"));
    let mut command =
        space.start(space.path("bin/rbr"), &[&config, "--stanza=demo", "--log-level-console=info", "verify"]);
    let end = Instant::now() + Duration::from_secs(30);
    while !command.log().contains("verify command begin") {
        assert!(Instant::now() < end, "{}", command.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    command.terminate();
    // Long before the server times out
    assert_eq!(command.wait(), 63, "{}", command.log());
    assert!(command.log().ends_with("terminated on signal SIGTERM\n"), "{}", command.log());
    drop(server);
}

#[test]
fn signal_ends_a_waiting_command_with_63() {
    let space = Space::new();
    // A server that never answers
    let _server = UnixListener::bind(space.path("bin/.s.PGSQL.5432")).expect("bind");
    fs::set_permissions(space.path("bin/.s.PGSQL.5432"), fs::Permissions::from_mode(0o777)).expect("chmod");
    let mut command = space.command(space.path("bin/rbr"));
    command.args(["check", "--no-config", "--stanza=demo", "--log-level-console=info"]);
    command.args(
        [("log-path", "log"), ("pg1-path", "data"), ("pg1-socket-path", "bin")]
            .map(|(option, name)| format!("--{option}={}", space.text(name))),
    );
    let mut child = command.stdout(Stdio::piped()).spawn().expect("start");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map(|line| line.expect("read"));
    let begin = lines.next().expect("begin line");
    assert!(begin.contains("check command begin"), "{begin}");
    let started = Instant::now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .expect("kill");
    let rest: Vec<String> = lines.collect();
    let status = child.wait().expect("wait");
    assert_eq!((status.code(), rest.join("|").as_str()), (Some(63), "terminated on signal SIGTERM"));
    // It does not wait for the server, which never answers
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn signal_ends_a_command_whose_output_nobody_reads() {
    let space = Space::new();
    for number in 0..3000 {
        fs::write(space.path(&format!("repo/{number:060}")), "").expect("file");
    }
    let mut command = space.command(space.path("bin/rbr"));
    command.args(["repo-ls", "--no-config", &format!("--repo1-path={}", space.text("repo"))]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("start");
    let output = child.stdout.take().expect("piped");
    let end = Instant::now() + Duration::from_secs(60);
    // The pipe has no more room
    while rustix::io::ioctl_fionread(&output).expect("size") < 60_000 {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .expect("kill");
    while child.try_wait().expect("wait").is_none() {
        if Instant::now() >= end {
            child.kill().expect("kill");
            panic!("it waits for a reader");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(child.wait().expect("wait").code(), Some(63));
    drop(output);
}
