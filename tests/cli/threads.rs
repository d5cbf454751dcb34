//! Commands on a system that provides no more threads.

use crate::env::{Run, Space};

/// Runs a command as a user who may have no more processes than this one, with a repository on a server that the
/// command does not need.
fn run(space: &Space, arguments: &[&str]) -> Run {
    let config = "[global]\nrepo1-type=s3\nrepo1-s3-bucket=b\nrepo1-s3-endpoint=127.0.0.1\nrepo1-s3-region=r\nrepo1-s3-uri-style=path\n\
        repo1-s3-key=k\nrepo1-s3-key-secret=s\nrepo1-storage-port=9\nio-timeout=1\nlog-level-file=off\n\
        [demo]\npg1-path=/nonexistent\n";
    space.write("threads.conf", config);
    let mut command = space.command("prlimit");
    command.arg("--nproc=0").arg(space.path("bin/rbr"));
    command.arg(format!("--config={}", space.text("threads.conf"))).arg("--stanza=demo").args(arguments);
    Run::of(command)
}

#[test]
fn threads_that_cannot_be_started_are_an_error_with_a_code() {
    let space = Space::new();
    let lock = format!("--lock-path={}", space.text("lock"));
    for arguments in [vec!["repo-ls"], vec!["verify"], vec!["stanza-create", "--no-online", &lock]] {
        let run = run(&space, &arguments);
        assert!(!run.stderr.contains("panicked"), "{}", run.describe());
        run.fails(100).says("unable to start network threads");
    }
    run(&space, &["info"]).success().says("unable to start network threads");
    // Commands that need no threads succeed
    run(&space, &["stop", &lock]).success();
    run(&space, &["start", &lock]).success();
}
