//! Clients that send what no client sends: captured connections, modified at random.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use engine::CancelToken;
use engine::serve::{RepositoryKind, Served, ServedOptions, ServedRepository, ServedStorage, Server};
use engine::storage::posix::PosixSettings;
use protocol::options::OptionValue;
use tempfile::TempDir;

/// The folder of captured streams with a repository and a data directory. A name of the same length takes its place.
const CAPTURED: &str = "/tmp/repo-sample";
/// Modified copies of each stream.
const COPIES: u32 = 150;
/// More than all answers to one stream.
const ANSWER_BYTES_MAX: usize = 1 << 30;

struct NoOptions;

impl ServedOptions for NoOptions {
    fn value(&self, _: &str) -> engine::Result<OptionValue> {
        Ok(OptionValue::Null)
    }
}

struct Answers(usize);

impl Write for Answers {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0 += buffer.len();
        assert!(self.0 < ANSWER_BYTES_MAX);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Numbers that look random and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % limit.max(1)
    }
}

fn fill(top: &Path) {
    for (file, size) in [
        ("repo/backup/demo/backup.info", 500),
        ("repo/archive/demo/archive.info", 500),
        ("repo/backup/demo/20261129-154844F_20261129-154850D/bundle/1", 100_000),
        ("data/base/5/16400", 65_536),
        ("data/PG_VERSION", 3),
        ("repo/backup/other/backup.info", 9),
        ("secret", 9),
    ] {
        let path = top.join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        fs::write(path, vec![b'x'; size]).expect("file");
    }
}

/// The content of everything that a client must not change.
fn untouched(top: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut left, mut found) = (vec![top.to_owned()], Vec::new());
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let own = ["repo/backup/demo", "repo/archive/demo"].map(|name| top.join(name));
            if !own.contains(&path) {
                left.extend(fs::read_dir(&path).expect("folder").map(|entry| entry.expect("entry").path()));
            }
        } else {
            found.push((path.clone(), fs::read(&path).expect("file")));
        }
    }
    found.sort();
    found
}

/// Serves a stream that follows the first request.
fn serve(stream: &[u8], storage: ServedStorage) {
    let served = Served::new(storage, Box::new(NoOptions), CancelToken::new());
    let server = Server::greet(stream, Answers(0)).expect("greeting");
    // Any error is a right one
    let _ = server.serve(served);
}

fn storages(top: &Path) -> [ServedStorage; 2] {
    let path = top.join("repo");
    let repository = ServedRepository {
        storage: Box::new(PosixSettings { path: path.clone(), symlinks: false }),
        path: path.to_string_lossy().into_owned(),
        kind: RepositoryKind::Posix,
        stanza: "demo".parse().ok(),
    };
    [ServedStorage::Repository(repository), ServedStorage::DataDirectory(top.join("data"))]
}

fn changed(stream: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut stream = stream.to_vec();
    for _ in 0..=numbers.below(6) {
        let index = numbers.below(stream.len());
        match numbers.below(6) {
            0 => stream[index] ^= 1 << numbers.below(8),
            1 => stream[index] = [0, 1, 0x7f, 0x80, 0xff][numbers.below(5)],
            2 => stream.insert(index, numbers.below(256) as u8),
            3 => drop(stream.drain(index..(index + numbers.below(20)).min(stream.len()))),
            4 => {
                // A part of the stream at another place
                let part = stream[index..(index + numbers.below(200)).min(stream.len())].to_vec();
                let at = numbers.below(stream.len());
                drop(stream.splice(at..at, part));
            }
            _ => {
                // A path that leads upwards, with the same length
                let name = *b"/repo/";
                if let Some(at) = stream.windows(name.len()).skip(index).position(|part| part == name) {
                    stream[index + at..index + at + name.len()].copy_from_slice(b"/../..");
                }
            }
        }
        if stream.is_empty() {
            break;
        }
    }
    stream
}

#[test]
fn modified_connections_change_nothing_that_is_not_the_clients() {
    let captured = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/protocol");
    let mut numbers = Numbers(88_172_645_463_325_252);
    for name in ["messages", "by-hand", "info", "check"] {
        let captured = fs::read(captured.join(name).with_extension("c2s")).expect("stream");
        for copy in 0..=COPIES {
            let top: TempDir =
                tempfile::Builder::new().prefix("repo-").rand_bytes(6).tempdir_in("/tmp").expect("folder");
            let place = top.path().to_string_lossy().into_owned();
            assert_eq!(place.len(), CAPTURED.len());
            fill(top.path());
            let before = untouched(top.path());
            let mut stream = captured.clone();
            while let Some(at) = stream.windows(CAPTURED.len()).position(|part| part == CAPTURED.as_bytes()) {
                stream[at..at + CAPTURED.len()].copy_from_slice(place.as_bytes());
            }
            let stream = if copy == 0 { stream } else { changed(&stream, &mut numbers) };
            for storage in storages(top.path()) {
                serve(&stream, storage);
            }
            assert!(untouched(top.path()) == before, "{name}, copy {copy}");
        }
    }
}
