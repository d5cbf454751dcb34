//! The protocol between hosts, with the real pgBackRest on one side or on both.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;

use protocol::filter::{Digest, Filter, FilterResult};
use protocol::greeting::{self, Service};
use protocol::options::{OptionValue, OptionsAnswer, OptionsRequest};
use protocol::pack::{MESSAGE_SIZE_MAX, read_message};
use protocol::storage::{
    Chunk, Features, FeaturesAnswer, FileKind, InfoAnswer, InfoRequest, Level, LinkRequest, LinkType, ListAnswer,
    ListRequest, ReadAnswer, ReadRequest, WriteAnswer, WriteRequest,
};
use protocol::{AnswerMessage, Call, Dialect};

use crate::env::{Cluster, Space, oracles};

#[path = "../protocol/src/captured/streams.rs"]
mod streams;

/// A process of pgBackRest in the role `remote`.
struct Remote {
    child: Child,
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    dialect: &'static Dialect,
    message: Vec<u8>,
    sessions: u64,
}

impl Remote {
    /// Starts a server for the repository of `space`, or returns `None` if the test is skipped.
    fn start(space: &Space) -> Option<Self> {
        let program = &oracles(&[])?.pgbackrest;
        let config = space.write("remote.conf", format!("[global]\nrepo1-path={}\n", space.text("repo")));
        let mut command = space.command(program);
        command.arg(format!("--config={}", config.display()));
        command.args(["--exec-id=1-00000000", "--log-level-console=off", "--log-level-file=off"]);
        command.args(["--log-level-stderr=error", "--process=0", "--remote-type=repo", "--repo=1", "--stanza=demo"]);
        command.args([&format!("--lock-path={}", space.text("lock")), "info:remote"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start pgBackRest");
        let mut answers = BufReader::new(child.stdout.take().expect("standard output"));
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            answers.read_exact(&mut byte).expect("greeting");
            line.push(byte[0]);
        }
        let dialect = greeting::check(&line[..line.len() - 1], Service::Remote).expect("a known version");
        let requests = child.stdin.take();
        Some(Remote { child, requests, answers, dialect, message: Vec::new(), sessions: 0 })
    }

    fn send(&mut self, call: &Call<'_>, session: u64) {
        let requests = self.requests.as_mut().expect("open");
        call.encode(session, self.dialect).write_to(requests).expect("write");
        requests.flush().expect("flush");
    }

    fn receive(&mut self) -> AnswerMessage<'_> {
        read_message(&mut self.answers, &mut self.message, MESSAGE_SIZE_MAX).expect("an answer");
        AnswerMessage::decode(&self.message).expect("an answer")
    }

    /// Sends a request with a number of its own and returns the answer.
    fn call(&mut self, call: &Call<'_>) -> AnswerMessage<'_> {
        self.sessions += 1;
        self.send(call, self.sessions);
        let session = self.sessions;
        let answer = self.receive();
        assert_eq!(answer.session, Some(session));
        answer
    }

    /// Sends a request of the last session and returns the answer.
    fn go_on(&mut self, call: &Call<'_>) -> AnswerMessage<'_> {
        self.send(call, self.sessions);
        self.receive()
    }

    fn exit(mut self) {
        self.sessions += 1;
        self.send(&Call::Exit, self.sessions);
        drop(self.requests.take());
        let mut rest = Vec::new();
        self.answers.read_to_end(&mut rest).expect("end");
        assert!(rest.is_empty(), "{rest:?}");
        assert_eq!(self.child.wait().expect("exit status").code(), Some(0));
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The data of an answer that is no error.
fn data<'a>(answer: &AnswerMessage<'a>) -> Option<&'a [u8]> {
    *answer.outcome.as_ref().expect("no error")
}

fn read<'a>(path: &'a str, limit: Option<u64>) -> Call<'a> {
    let filters = vec![Filter::Hash(Digest::Sha1), Filter::Size];
    Call::ReadOpen(ReadRequest { path, offset: 0, limit, version: None, filters })
}

#[test]
fn request_for_files_is_answered_by_pgbackrest() {
    let space = Space::new();
    fs::write(space.folder("repo").join("file"), vec![7; 2_500_000]).unwrap();
    symlink("file", space.path("repo/link")).unwrap();
    let Some(mut remote) = Remote::start(&space) else { return };
    assert_eq!(data(&remote.call(&Call::Noop)), None);
    let answer = remote.call(&Call::Features);
    let FeaturesAnswer { path, features } = FeaturesAnswer::decode(data(&answer)).unwrap();
    assert_eq!(path, space.text("repo"));
    assert!(features.has(Features::PATH | Features::PATH_SYNC | Features::INFO_DETAIL));

    let list = Call::List(ListRequest { path: &space.text("repo"), level: Level::Detail, target_time: 0 });
    let answer = remote.call(&list);
    let mut names: Vec<_> = ListAnswer::decode(data(&answer), Level::Detail)
        .unwrap()
        .entries
        .expect("the directory")
        .map(|entry| entry.map(|entry| (entry.name, entry.info.kind)).unwrap())
        .collect();
    names.sort_by_key(|(name, _)| *name);
    assert_eq!(names, [("file", FileKind::File(2_500_000)), ("link", FileKind::Link)]);

    let (file, missing) = (space.text("repo/file"), space.text("repo/missing"));
    let answer = remote.call(&Call::Info(InfoRequest { path: &file, level: Level::Basic, follow_link: false }));
    let info = InfoAnswer::decode(data(&answer), Level::Basic).unwrap().info.expect("the file");
    assert_eq!((info.kind, info.detail), (FileKind::File(2_500_000), None));
    let answer = remote.call(&read(&missing, None));
    assert_eq!(ReadAnswer::decode(data(&answer), answer.is_closed).unwrap(), ReadAnswer::Missing);

    let answer = remote.call(&read(&file, None));
    let ReadAnswer::Chunk(mut chunk) = ReadAnswer::decode(data(&answer), answer.is_closed).unwrap() else {
        panic!("the file is missing");
    };
    let mut size = chunk.data.len();
    while chunk.results.is_none() {
        let answer = remote.go_on(&Call::ReadNext);
        chunk = Chunk::decode(data(&answer), answer.is_closed).unwrap();
        assert!(chunk.data.iter().all(|byte| *byte == 7));
        size += chunk.data.len();
    }
    let results = chunk.results.unwrap();
    assert_eq!((size, &results[1]), (2_500_000, &FilterResult::Size(2_500_000)));

    let answer = remote.call(&Call::PathSync(&missing));
    let error = answer.outcome.unwrap_err().to_error("remote-0");
    assert_eq!(error.code.number(), 73);
    assert_eq!(error.to_string(), format!("raised from remote-0: unable to sync missing path '{missing}'"));
    remote.exit();
}

#[test]
fn request_for_a_limit_of_zero_gives_no_data() {
    let space = Space::new();
    fs::write(space.folder("repo").join("file"), "content").unwrap();
    let Some(mut remote) = Remote::start(&space) else { return };
    remote.call(&Call::Noop);
    remote.call(&Call::Features);
    let file = space.text("repo/file");
    for (limit, expected) in [(Some(0), ""), (Some(3), "con"), (None, "content")] {
        let answer = remote.call(&read(&file, limit));
        let ReadAnswer::Chunk(chunk) = ReadAnswer::decode(data(&answer), answer.is_closed).unwrap() else {
            panic!("the file is missing");
        };
        assert_eq!(chunk.data, expected.as_bytes(), "{limit:?}");
    }
    remote.exit();
}

#[test]
fn requests_that_write_are_carried_out_by_pgbackrest() {
    let space = Space::new();
    space.folder("repo");
    let Some(mut remote) = Remote::start(&space) else { return };
    remote.call(&Call::Noop);
    remote.call(&Call::Features);
    let (file, link) = (space.text("repo/new/file"), space.text("repo/link"));
    let answer = remote.call(&Call::WriteOpen(WriteRequest {
        path: &file,
        file_mode: 0o640,
        path_mode: 0o750,
        user: None,
        group: None,
        modified: 1_700_000_000,
        create_path: true,
        sync_file: true,
        sync_path: true,
        is_atomic: true,
        filters: vec![Filter::Size],
    }));
    assert_eq!((data(&answer), answer.is_closed), (None, false));
    let block = vec![9; 100_000];
    for _ in 0..2 {
        assert_eq!(data(&remote.go_on(&Call::WriteBlock(&block))), None);
    }
    let answer = remote.go_on(&Call::Close(protocol::call::Command::StorageWrite));
    let results = WriteAnswer::decode(data(&answer)).unwrap().results;
    assert_eq!((&results[0], answer.is_closed), (&FilterResult::Size(200_000), true));
    assert_eq!(fs::read(&file).unwrap(), vec![9; 200_000]);
    let request = LinkRequest { target: "new/file", path: &link, link_type: LinkType::Symbolic };
    assert_eq!(data(&remote.call(&Call::Link(request))), None);
    assert_eq!(fs::read_link(&link).unwrap().to_str(), Some("new/file"));
    let names = vec!["repo1-cipher-type", "repo1-cipher-pass"];
    let answer = remote.call(&Call::Options(OptionsRequest { names }));
    let values = OptionsAnswer::decode(data(&answer), 2).unwrap().values;
    assert_eq!(values[0].choice().map(|choice| choice.text()).as_deref(), Some("none"));
    assert_eq!(values[1], OptionValue::Null);
    remote.exit();
}

#[test]
fn connections_of_pgbackrest_decode_and_encode_to_the_same_bytes() {
    let Some(oracles) = oracles(&[15]) else { return };
    let space = Arc::new(Space::new());
    let cluster = Cluster::create(&space, oracles, 15, "pg", &[]);
    let program = oracles.pgbackrest.display().to_string();
    // In place of ssh: the last argument is the command line, and both directions are kept
    let captured = space.folder("captured").display().to_string();
    let ssh = format!(
        "#!/bin/bash\nname=$(mktemp {captured}/XXXXXX)\nexec sh -c \"exec ${{@: -1}}\" \
         < <(exec tee $name.c2s) > >(exec tee $name.s2c)\n"
    );
    let ssh = space.write("ssh", ssh);
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let text = |name: &str| space.text(name);
    let far = format!("[global]\nrepo1-path={}\nlock-path={}\n", text("repo"), text("lock"));
    let far = space.write("far.conf", far + "repo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=secret\n");
    let near = format!(
        "[global]\nrepo1-host=far\nrepo1-host-cmd={program}\nrepo1-host-config={}\ncmd-ssh={}\nlock-path={}\n\
         log-level-file=off\nrepo1-bundle=y\nrepo1-block=y\nrepo1-retention-full=1\n[demo]\npg1-path={}\n",
        far.display(),
        ssh.display(),
        space.folder("near-lock").display(),
        cluster.data_text()
    );
    let config = format!("--config={}", space.write("near.conf", near).display());
    let run = |arguments: &[&str]| {
        let arguments: Vec<&str> = [&config, "--stanza=demo"].into_iter().chain(arguments.iter().copied()).collect();
        space.run(&program, &arguments).success();
    };
    run(&["--no-online", "stanza-create"]);
    let mut content = vec![1; 1_000_000];
    space.write("pg/extra", &content);
    run(&["--no-online", "backup"]);
    // So that the next backup sends the block map of this one
    content[500_000] = 2;
    content.push(3);
    space.write("pg/extra", &content);
    run(&["--no-online", "--type=incr", "backup"]);
    run(&["verify"]);
    run(&["info"]);
    run(&["restore", "--delta"]);

    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for entry in fs::read_dir(space.path("captured")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "c2s") {
            let requests = fs::read(&path).unwrap();
            let answers = fs::read(path.with_extension("s2c")).unwrap();
            for (kind, count) in streams::count(&streams::check(&requests, &answers)) {
                *counts.entry(kind).or_default() += count;
            }
        }
    }
    for kind in ["StorageRead:Open", "StorageReadMany:Open", "StorageWrite:Close", "StorageList:Process"] {
        assert!(counts.contains_key(kind), "{kind} in {counts:#?}");
    }
}
