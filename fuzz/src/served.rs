//! Targets for what clients of a server send.

use std::fs;
use std::io;

use engine::CancelToken;
use engine::fuzzing::{Answers, NoOptions};
use engine::serve::{Served, ServedStorage, Server};
use protocol::{Call, Dialect};
use tempfile::TempDir;

/// The folder of captured streams. A name of the same length takes its place.
const CAPTURED: &[u8] = b"/tmp/repo-sample";
/// What is beside the data directory, and what must not be sent.
const SECRET: &[u8] = b"what nobody may read";
const FILES: [(&str, &[u8]); 5] = [
    ("secret", SECRET),
    // A link of the data directory leads here
    ("linked", b"what a backup reads"),
    ("data/PG_VERSION", b"15\n"),
    ("data/base/5/16400", &[0; 65536]),
    ("data/global/pg_control", &[7; 8192]),
];

/// Makes a folder with a data directory.
fn make_top() -> io::Result<TempDir> {
    let top = tempfile::Builder::new().prefix("repo-").rand_bytes(6).tempdir_in("/tmp")?;
    for (name, content) in FILES {
        let path = top.path().join(name);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&path, content)?;
    }
    std::os::unix::fs::symlink("../linked", top.path().join("data/link"))?;
    Ok(top)
}

/// The requests of a client for a data directory, after the first one. They get nothing from outside, and change nothing.
pub fn served_data(data: &[u8]) {
    let top = make_top().expect("a folder");
    let mut stream = Call::Noop.encode(1, Dialect::NEWEST).to_vec();
    stream.extend_from_slice(data);
    let place = top.path().as_os_str().as_encoded_bytes();
    assert_eq!(place.len(), CAPTURED.len());
    while let Some(at) = stream.windows(CAPTURED.len()).position(|part| part == CAPTURED) {
        stream[at..at + CAPTURED.len()].copy_from_slice(place);
    }
    let directory = ServedStorage::DataDirectory(top.path().join("data"));
    let served = Served::new(directory, Box::new(NoOptions), CancelToken::new());
    let mut answers = Answers::default();
    // Any error is a right one
    let _ = Server::greet(stream.as_slice(), &mut answers).and_then(|server| server.serve(served));
    // An error repeats what the client sent
    let holds_secret = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|part| part == SECRET);
    assert!(holds_secret(data) || !holds_secret(&answers.0));
    for (name, content) in FILES {
        assert!(fs::read(top.path().join(name)).is_ok_and(|now| now == content), "{name}");
    }
    assert!(fs::read_dir(top.path()).is_ok_and(|entries| entries.count() == 3));
}
