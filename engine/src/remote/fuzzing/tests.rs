//! The clients of the fuzz targets do what they should with a server that answers rightly.

use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use protocol::options::OptionValue;

use super::*;
use crate::serve::{RepositoryKind, Served, ServedOptions, ServedRepository, ServedStorage, Server};
use crate::storage::memory::MemoryStorage;
use crate::storage::{OpenStorage, OpenedStorage};

#[derive(Debug)]
struct Memory(MemoryStorage);

impl OpenStorage for Memory {
    fn open(&self) -> Result<OpenedStorage> {
        Ok(self.0.clone().into())
    }
}

struct Options;

impl ServedOptions for Options {
    fn value(&self, name: &str) -> Result<OptionValue> {
        Ok(match name {
            "repo1-cipher-type" => OptionValue::Number(protocol::StringId::encode("none").expect("an id").0),
            _ => OptionValue::Null,
        })
    }
}

/// Keeps what is read.
struct Tee(UnixStream, Arc<Mutex<Vec<u8>>>);

impl Read for Tee {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.0.read(buffer)?;
        self.1.lock().unwrap().extend_from_slice(&buffer[..size]);
        Ok(size)
    }
}

/// Runs a client against a server, which it asks for a passphrase with `asks`. Returns its errors, and what the server said after its greeting.
fn with_server(
    storage: ServedStorage,
    asks: bool,
    client: impl FnOnce(Arc<Connection>) -> Result<Vec<Error>>,
) -> (Vec<Error>, Vec<u8>) {
    let (near, far) = UnixStream::pair().unwrap();
    let served = Served::new(storage, Box::new(Options), CancelToken::new());
    let server = std::thread::spawn(move || Server::greet(far.try_clone().unwrap(), far)?.serve(served));
    let said = Arc::new(Mutex::new(Vec::new()));
    let input = Box::new(Tee(near.try_clone().unwrap(), Arc::clone(&said)));
    let errors = connect(asks, Paced::default(), input, Box::new(near)).and_then(client).unwrap();
    server.join().unwrap().unwrap();
    let said = said.lock().unwrap();
    let end = said.iter().position(|byte| *byte == b'\n').unwrap();
    (errors, said[end + 1..].to_vec())
}

fn codes(errors: &[Error]) -> Vec<ErrorCode> {
    errors.iter().map(|error| error.code).collect()
}

#[test]
fn client_of_a_repository_gets_everything_and_again_from_what_was_said() {
    let storage = MemoryStorage::new();
    put(&storage, &RepoPath::new("backup/demo/backup.info").unwrap(), b"0123456789", WriteOptions::ATOMIC).unwrap();
    let repository = ServedRepository {
        storage: Box::new(Memory(storage.clone())),
        path: "/repo".to_owned(),
        kind: RepositoryKind::Objects,
        stanza: "demo".parse().ok(),
    };
    let (errors, answers) = with_server(ServedStorage::Repository(repository), true, use_repository);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(storage.paths(), ["backup/demo/backup.info"]);
    assert!(said(true, &answers).and_then(use_repository).unwrap().is_empty());
    assert!(said(true, &answers[..answers.len() / 2]).and_then(use_repository).is_ok_and(|errors| !errors.is_empty()));
}

#[test]
fn client_of_a_cluster_gets_everything_and_again_from_what_was_said() {
    // The path is in the answers
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("pg");
    let control = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/pg/pg_control_15");
    for (name, content) in [
        ("global/pg_control", fs::read(control).unwrap()),
        ("PG_VERSION", b"15\n".to_vec()),
        ("base/5/16400", vec![0; 16384]),
    ] {
        fs::create_dir_all(data.join(name).parent().unwrap()).unwrap();
        fs::write(data.join(name), content).unwrap();
    }
    let storage = ServedStorage::DataDirectory(data.clone());
    let (errors, answers) = with_server(storage, false, |connection| use_cluster(connection, &data));
    // There is no server of PostgreSQL
    assert_eq!(codes(&errors), [ErrorCode::Access], "{errors:?}");
    let again = said(false, &answers).and_then(|connection| use_cluster(connection, &data)).unwrap();
    assert_eq!(codes(&again), [ErrorCode::Access], "{again:?}");
}
