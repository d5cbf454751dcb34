//! Answers of rbr and of the real pgBackRest to the same requests, byte for byte.

use std::fs::{self, File};
use std::io::{BufReader, Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, SystemTime};

use protocol::call::CallKind;
use protocol::filter::{Codec, CompressFilter, Digest, Filter};
use protocol::message::ErrorAnswer;
use protocol::options::OptionsRequest;
use protocol::pack::read_message;
use protocol::storage::{
    FileInfoRequest, FileRange, InfoLevel, LinkRequest, LinkType, ListRequest, PathCreateRequest, PathRemoveRequest,
    ReadManyRequest, ReadRequest, RemoveRequest, WriteRequest,
};
use protocol::{AnswerMessage, Call, Dialect};

use crate::env::{Space, oracles};

/// The size of a greeting.
const GREETING_BYTES: usize = 60;
/// A size of two blocks and a half.
const LARGE_BYTES: usize = 2_500_000;

/// A process that serves.
pub struct Served {
    child: Child,
    input: BufReader<ChildStdout>,
    output: ChildStdin,
    session: u64,
}

impl Served {
    /// Starts a program with a configuration that has `repo1-path` in `space`.
    pub fn start(space: &Space, program: &std::path::Path, kind: &str, more: &[&str]) -> Self {
        let lines = ["repo1-path=REPO", "lock-path=LOCK", "log-path=LOG"].join("\n");
        let lines = lines.replace("REPO", &space.text("repo")).replace("LOCK", &space.text("lock"));
        let config = space.write("served.conf", format!("[global]\n{}\n", lines.replace("LOG", &space.text("log"))));
        let mut command = space.command(program);
        command.arg(format!("--config={}", config.display()));
        command.args(["--exec-id=1-00000000", "--log-level-console=off"]);
        if !more.iter().any(|option| option.starts_with("--log-level-file=")) {
            command.arg("--log-level-file=off");
        }
        command.args(["--log-level-stderr=error", "--process=0", "--stanza=demo"]);
        command.arg(format!("--remote-type={kind}")).args(more);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start");
        let mut input = BufReader::new(child.stdout.take().expect("standard output"));
        let output = child.stdin.take().expect("standard input");
        let mut greeting = [0; GREETING_BYTES];
        input.read_exact(&mut greeting).expect("a greeting");
        let mut served = Served { child, input, output, session: 0 };
        served.ask(&Call::Noop, None);
        served
    }

    /// Sends a request, and returns the answer without its stack trace. Without a session it gets a number of its own.
    pub fn ask(&mut self, call: &Call<'_>, session: Option<u64>) -> Vec<u8> {
        let session = session.unwrap_or_else(|| {
            self.session += 1;
            self.session
        });
        call.encode(session, Dialect::NEWEST).write_to(&mut self.output).expect("request");
        self.output.flush().expect("request");
        let mut message = Vec::new();
        read_message(&mut self.input, &mut message, 64 << 20).expect("answer");
        let answer = AnswerMessage::decode(&message).expect("answer");
        match answer.outcome {
            Ok(_) => message,
            Err(error) => {
                let error = ErrorAnswer { stack_trace: "".into(), ..error };
                AnswerMessage::encode_error(answer.session, &error).to_vec()
            }
        }
    }

    /// Sends a request that fails, and returns number and message.
    pub fn refuses(&mut self, call: &Call<'_>) -> (i32, String) {
        let answer = self.ask(call, None);
        let error = AnswerMessage::decode(&answer).expect("answer").outcome.expect_err("an error");
        (error.code, error.message.into_owned())
    }

    /// Returns the exit status and standard error after the end of the input.
    pub fn end(mut self) -> (Option<i32>, String) {
        drop(self.output);
        // What it still says is read, as by an SSH server
        let mut rest = Vec::new();
        self.input.read_to_end(&mut rest).expect("end");
        let output = self.child.wait_with_output().expect("end");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// A repository whose files have a known time.
fn make_repository(space: &Space) {
    let _ = fs::remove_dir_all(space.path("repo"));
    let folder = space.folder("repo/backup/demo");
    let large: Vec<u8> = (0..LARGE_BYTES).map(|index| (index / 3) as u8).collect();
    for (name, content) in [("large", &large[..]), ("whole", &large[..1 << 20]), ("small", b"abc"), ("empty", b"")] {
        fs::write(folder.join(name), content).expect("file");
        let file = File::options().write(true).open(folder.join(name)).expect("file");
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).expect("time");
    }
    symlink("small", folder.join("link")).expect("link");
}

fn filters(kind: usize) -> Vec<Filter<'static>> {
    let lz4 = CompressFilter { codec: Codec::Lz4, level: 1, is_raw: true };
    match kind {
        0 => Vec::new(),
        1 => vec![Filter::Hash(Digest::Sha1), Filter::Size],
        2 => vec![Filter::Hash(Digest::Sha256), Filter::Hash(Digest::Md5)],
        3 => vec![Filter::Size, Filter::Sink],
        _ => vec![Filter::Compress(lz4), Filter::Decompress { codec: Codec::Lz4, is_raw: true }, Filter::Size],
    }
}

/// Sends all requests to a program, and returns the answers with a description.
fn answers(space: &Space, program: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    make_repository(space);
    let mut served = Served::start(space, program, "repo", &["--repo=1", "info:remote"]);
    let mut answers = Vec::new();
    let mut ask = |served: &mut Served, call: &Call<'_>, session: Option<u64>| {
        let answer = served.ask(call, session);
        answers.push((format!("{call:?}"), answer));
    };
    let path = |name: &str| space.text(&format!("repo/backup/demo/{name}"));
    let names = ["repo1-cipher-type", "repo1-cipher-pass"];
    ask(&mut served, &Call::Options(OptionsRequest { names: names.to_vec() }), None);
    ask(&mut served, &Call::Features, None);
    for level in [InfoLevel::Exists, InfoLevel::Type, InfoLevel::Basic, InfoLevel::Detail] {
        for name in ["small", "empty", "link", "missing"] {
            // The time of a link is not known
            if name == "link" && level >= InfoLevel::Basic {
                continue;
            }
            for follow_link in [false, true] {
                ask(&mut served, &Call::Info(FileInfoRequest { path: &path(name), level, follow_link }), None);
            }
        }
        for name in ["missing", "small"] {
            ask(&mut served, &Call::List(ListRequest { path: &path(name), level, target_time: 0 }), None);
        }
    }
    read_all(&mut served, &path, &mut ask);
    change_all(&mut served, &path, &mut ask);
    let other = OptionsRequest { names: vec!["repo2-cipher-type"] };
    ask(&mut served, &Call::Options(other), None);
    answers
}

type Ask<'a> = &'a mut dyn FnMut(&mut Served, &Call<'_>, Option<u64>);

fn read_all(served: &mut Served, path: &dyn Fn(&str) -> String, ask: Ask<'_>) {
    for kind in 0..5 {
        for (name, offset, limit, chunks) in [
            ("large", 0, None, 2),
            ("whole", 0, None, 1),
            ("large", 5, Some(1000), 0),
            ("large", 0, Some(1 << 20), 1),
            ("large", 1 << 40, None, 0),
            ("empty", 0, None, 0),
            ("link", 0, None, 0),
            ("missing", 0, None, 0),
        ] {
            let path = path(name);
            let request = ReadRequest { path: &path, offset, limit, version: None, filters: filters(kind) };
            ask(served, &Call::ReadOpen(request), None);
            let session = served.session;
            for _ in 0..if kind == 3 { 0 } else { chunks } {
                ask(served, &Call::ReadNext, Some(session));
            }
        }
    }
    let directory = path("");
    let directory = directory.trim_end_matches('/');
    let request = ReadRequest { path: directory, offset: 0, limit: None, version: None, filters: Vec::new() };
    ask(served, &Call::ReadOpen(request), None);
    let range = |path, offset, limit| FileRange { path, is_compressible: false, offset, limit, version: None };
    let (large, small, missing) = (path("large"), path("small"), path("missing"));
    for ranges in [
        vec![range(&large, 0, Some(10)), range(&large, 20, Some(10)), range(&small, 1, None)],
        vec![range("backup/demo/small", 0, Some(2))],
        vec![range(&missing, 0, Some(2))],
        vec![range(&large, 0, Some(2_000_000))],
    ] {
        ask(served, &Call::ReadManyOpen(ReadManyRequest { filters: filters(1), ranges }), None);
    }
    ask(served, &Call::ReadManyNext, Some(served.session));
    ask(served, &Call::ReadNext, Some(999));
    ask(served, &Call::Close(CallKind::StorageRead), Some(999));
    ask(served, &Call::Cancel(CallKind::StorageRead), Some(999));
}

fn change_all(served: &mut Served, path: &dyn Fn(&str) -> String, ask: Ask<'_>) {
    let (new, other) = (path("new/a"), path("other/a"));
    let create =
        |path, error_on_exists, no_parents| PathCreateRequest { path, error_on_exists, no_parents, mode: 0o750 };
    ask(served, &Call::PathCreate(create(&new, false, false)), None);
    ask(served, &Call::PathCreate(create(&new, true, false)), None);
    ask(served, &Call::PathCreate(create(&other, false, true)), None);
    for (name, create_path, is_atomic, end) in [
        ("new/file", true, true, Call::Close(CallKind::StorageWrite)),
        ("deep/er/file", true, false, Call::Close(CallKind::StorageWrite)),
        ("none/file", false, false, Call::Cancel(CallKind::StorageWrite)),
        ("new/dropped", true, true, Call::Cancel(CallKind::StorageWrite)),
    ] {
        let path = path(name);
        let request = WriteRequest {
            path: &path,
            file_mode: 0o640,
            path_mode: 0o750,
            user: None,
            group: None,
            modified: 0,
            create_path,
            sync_file: true,
            sync_path: true,
            is_atomic,
            filters: filters(1),
        };
        ask(served, &Call::WriteOpen(request), None);
        let session = served.session;
        if create_path {
            ask(served, &Call::WriteBlock(b"abc"), Some(session));
            ask(served, &Call::WriteBlock(b"defg"), Some(session));
        }
        ask(served, &end, Some(session));
    }
    let (link, hard, dropped, missing) = (path("new/link"), path("new/hard"), path("new/dropped"), path("missing"));
    let file = path("new/file");
    for (target, path, link_type) in [(file.as_str(), &hard, LinkType::Hard), (file.as_str(), &hard, LinkType::Hard)] {
        ask(served, &Call::Link(LinkRequest { target, path, link_type }), None);
    }
    for path in [&hard, &link, &dropped] {
        let info = FileInfoRequest { path, level: InfoLevel::Type, follow_link: false };
        ask(served, &Call::Info(info), None);
    }
    for path in [&missing, &hard] {
        ask(served, &Call::Remove(RemoveRequest { path, error_on_missing: false }), None);
        ask(served, &Call::Remove(RemoveRequest { path, error_on_missing: true }), None);
    }
    let folder = path("new");
    for recurse in [false, true, false] {
        ask(served, &Call::PathRemove(PathRemoveRequest { path: &folder, recurse }), None);
    }
    for path in [&missing, &path("deep")] {
        ask(served, &Call::PathSync(path), None);
    }
}

#[test]
fn answers_are_those_of_pgbackrest_to_the_byte() {
    let Some(oracles) = oracles(&[]) else { return };
    let space = Space::new();
    let theirs = answers(&space, &oracles.pgbackrest);
    let ours = answers(&space, &space.path("bin/rbr"));
    assert!(theirs.len() > 130, "{}", theirs.len());
    assert_eq!(ours.len(), theirs.len());
    for ((call, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        let shown =
            |answer: &[u8]| format!("{:?} {:02x?}", AnswerMessage::decode(answer), &answer[..answer.len().min(80)]);
        assert!(ours == theirs, "{call}\nours   {}\ntheirs {}", shown(ours), shown(theirs));
    }
}

#[test]
fn client_of_a_process_that_a_signal_ended_at_work_was_not_told_why() {
    let space = Space::new();
    let folder = space.folder("repo/many");
    (0..20_000).for_each(|number| fs::write(folder.join(format!("{number}")), "").expect("file"));
    let folder = space.text("repo/many");
    let list = Call::List(ListRequest { path: &folder, level: InfoLevel::Detail, target_time: 0 });
    let last_words = || {
        let mut served = Served::start(&space, &space.path("bin/rbr"), "repo", &["--repo=1", "info:remote"]);
        served.ask(&Call::Features, None);
        // Far more work than it does before a signal ends it
        for session in 3..200 {
            list.encode(session, Dialect::NEWEST).write_to(&mut served.output).expect("request");
        }
        let mut message = Vec::new();
        read_message(&mut served.input, &mut message, 64 << 20).expect("answer");
        let process = rustix::process::Pid::from_child(&served.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).expect("kill");
        let mut told = None;
        while read_message(&mut served.input, &mut message, 64 << 20).is_ok() {
            let answer = AnswerMessage::decode(&message).expect("answer");
            if answer.session.is_none() {
                told = answer.outcome.err().map(|error| (error.code, error.message.into_owned()));
            }
        }
        let end = served.child.wait_with_output().expect("end");
        assert_eq!(end.status.code(), Some(63), "{}", String::from_utf8_lossy(&end.stderr));
        told
    };
    // Within an answer nothing can be said
    let told = (0..20).find_map(|_| last_words()).expect("last words");
    assert_eq!(told, (63, "terminated on signal SIGTERM".to_owned()));
}

#[test]
fn process_ends_as_that_of_pgbackrest() {
    let Some(oracles) = oracles(&[]) else { return };
    let space = Space::new();
    make_repository(&space);
    let ends = [oracles.pgbackrest.clone(), space.path("bin/rbr")].map(|program| {
        let start = |more: &[&str]| Served::start(&space, &program, "repo", more);
        let mut exit = start(&["info:remote"]);
        Call::Exit.encode(9, Dialect::NEWEST).write_to(&mut exit.output).expect("request");
        [start(&["info:remote"]).end(), exit.end()]
    });
    assert_eq!(ends[0], ends[1]);
    assert_eq!(ends[0][0], (Some(29), "ERROR: [029]: unexpected EOF\n".to_owned()));
}
