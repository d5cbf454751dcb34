use std::fs;
use std::path::Path;

use protocol::filter::{Codec, Filter};
use protocol::message::NoSpace;
use protocol::options::OptionValue;
use protocol::storage::{FileRange, LinkRequest, LinkType, ReadManyRequest, WriteRequest};

use super::*;
use crate::CancelToken;
use crate::serve::{RepositoryKind, ServedOptions, ServedRepository, ServedStorage};
use crate::storage::posix::PosixSettings;

struct NoOptions;

impl ServedOptions for NoOptions {
    fn value(&self, _: &str) -> Result<OptionValue> {
        Ok(OptionValue::Null)
    }
}

/// Serves a repository to a client of one stanza, in blocks of four bytes.
fn handlers(path: &Path) -> Handlers {
    handlers_for(path, Capabilities::default())
}

/// The same for a client with these capabilities.
fn handlers_for(path: &Path, capabilities: Capabilities) -> Handlers {
    fs::create_dir_all(path.join("backup/demo")).unwrap();
    let repository = ServedRepository {
        storage: Box::new(PosixSettings { path: path.to_owned(), symlinks: true }),
        path: path.to_string_lossy().into_owned(),
        kind: RepositoryKind::Posix,
        stanza: "demo".parse().ok(),
    };
    let mut served = Served::new(ServedStorage::Repository(repository), Box::new(NoOptions), CancelToken::new());
    served.block_bytes = 4;
    let mut handlers = Handlers::new(served, capabilities);
    handlers.handle(&Call::Features, 0).unwrap();
    handlers
}

fn write<'a>(path: &'a str, filters: Vec<Filter<'a>>) -> Call<'a> {
    Call::WriteOpen(WriteRequest {
        path,
        file_mode: 0o640,
        path_mode: 0o750,
        user: None,
        group: None,
        modified: 0,
        create_path: true,
        sync_file: true,
        sync_path: true,
        is_atomic: filters.is_empty(),
        filters,
    })
}

#[test]
fn client_that_knows_it_is_told_of_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let full = Error::from_io(ErrorCode::FileWrite, "unable to write 'x'", rustix::io::Errno::NOSPC.into());
    let other = Error::new(ErrorCode::FileWrite, full.message.clone());
    let own = handlers_for(dir.path(), Capabilities::own());
    assert_eq!(own.error_answer(&full).no_space, Some(NoSpace::Certain));
    assert_eq!(own.error_answer(&other).no_space, None);
    let pgbackrest = handlers(dir.path()).error_answer(&full);
    assert_eq!(pgbackrest, ErrorAnswer::from(&full));
    assert_eq!(pgbackrest.no_space, None);
}

fn code(result: Result<Reply>) -> Option<ErrorCode> {
    result.err().map(|error| error.code)
}

#[test]
fn file_of_which_a_block_failed_is_not_completed() {
    let dir = tempfile::tempdir().unwrap();
    let mut handlers = handlers(dir.path());
    let path = dir.path().join("backup/demo/file").to_string_lossy().into_owned();
    let filters = vec![Filter::Decompress { codec: Codec::Gz, is_raw: false }];
    handlers.handle(&write(&path, filters), 7).unwrap();
    assert!(handlers.handle(&Call::WriteBlock(&[0xff; 100]), 7).is_err());
    for call in [Call::WriteBlock(b"more"), Call::Close(CallKind::StorageWrite)] {
        assert_eq!(code(handlers.handle(&call, 7)), Some(ErrorCode::Protocol), "{call:?}");
    }
    // A client that gives up is told that the session is closed
    assert!(handlers.handle(&Call::Cancel(CallKind::StorageWrite), 7).unwrap().is_closed);
}

#[test]
fn block_larger_than_a_buffer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut handlers = handlers(dir.path());
    let path = dir.path().join("backup/demo/file").to_string_lossy().into_owned();
    handlers.handle(&write(&path, Vec::new()), 7).unwrap();
    handlers.handle(&Call::WriteBlock(&vec![0; 16 << 20]), 7).unwrap();
    assert_eq!(code(handlers.handle(&Call::WriteBlock(&vec![0; (16 << 20) + 1]), 7)), Some(ErrorCode::Format));
    assert_eq!(code(handlers.handle(&Call::Close(CallKind::StorageWrite), 7)), Some(ErrorCode::Protocol));
    assert!(!Path::new(&path).exists());
}

#[test]
fn read_that_failed_does_not_continue_behind_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut handlers = handlers(dir.path());
    fs::write(dir.path().join("backup/demo/file"), "1234").unwrap();
    let range = |path| FileRange { path, offset: 0, limit: None, version: None, is_compressible: false };
    let ranges = vec![range("backup/demo/file"), range("backup/demo/missing"), range("backup/demo/file")];
    let open = Call::ReadManyOpen(ReadManyRequest { filters: Vec::new(), ranges });
    assert!(!handlers.handle(&open, 7).unwrap().is_closed);
    assert_eq!(code(handlers.handle(&Call::ReadManyNext, 7)), Some(ErrorCode::FileMissing));
    assert_eq!(code(handlers.handle(&Call::ReadManyNext, 7)), Some(ErrorCode::Protocol));
}

#[test]
fn file_of_a_session_number_in_use_keeps_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let mut handlers = handlers(dir.path());
    let path = |name: &str| dir.path().join("backup/demo").join(name).to_string_lossy().into_owned();
    fs::write(path("old"), "content").unwrap();
    let filters = || vec![Filter::Size];
    handlers.handle(&write(&path("new"), filters()), 7).unwrap();
    assert_eq!(code(handlers.handle(&write(&path("old"), filters()), 7)), Some(ErrorCode::Protocol));
    assert_eq!(fs::read_to_string(path("old")).unwrap(), "content");
    assert!(handlers.handle(&Call::Close(CallKind::StorageWrite), 7).unwrap().is_closed);
}

#[test]
fn symbolic_link_is_refused_and_hard_link_of_one_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut handlers = handlers(dir.path());
    let path = |name: &str| dir.path().join("backup/demo").join(name).to_string_lossy().into_owned();
    let (top, inside, link) = (dir.path().join("backup").to_string_lossy().into_owned(), path("file"), path("link"));
    let latest = path("latest");
    for target in [top.as_str(), "file", "../demo/file", inside.as_str()] {
        let request = LinkRequest { target, path: &link, link_type: LinkType::Symbolic };
        assert_eq!(code(handlers.handle(&Call::Link(request), 0)), Some(ErrorCode::Access), "{target}");
    }
    std::os::unix::fs::symlink("20250101-000000F", &latest).unwrap();
    fs::write(&inside, "content").unwrap();
    let hard = |target| Call::Link(LinkRequest { target, path: &link, link_type: LinkType::Hard });
    assert_eq!(code(handlers.handle(&hard(&latest), 0)), Some(ErrorCode::Access));
    assert!(!Path::new(&link).is_symlink());
    handlers.handle(&hard(&inside), 0).unwrap();
    assert_eq!(fs::read_to_string(&link).unwrap(), "content");
}

#[test]
fn file_of_which_a_block_was_no_block_was_completed_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut handlers = handlers(dir.path());
    let file = dir.path().join("backup/demo/file");
    handlers.handle(&write(&file.display().to_string(), Vec::new()), 7).unwrap();
    handlers.handle(&Call::WriteBlock(b"first"), 7).unwrap();
    let message = Call::WriteBlock(b"second").encode(7, Dialect::NEWEST).to_vec();
    let mut whole = Vec::new();
    protocol::pack::read_message(&mut message.as_slice(), &mut whole, 1 << 20).unwrap();
    let mut damaged = RequestMessage::decode(&whole).unwrap();
    damaged.parameters = None;
    assert!(handlers.decode(&damaged, Dialect::NEWEST).is_err());
    assert_eq!(code(handlers.handle(&Call::Close(CallKind::StorageWrite), 7)), Some(ErrorCode::Protocol));
    assert!(!file.exists());
}

#[test]
fn channels_of_a_connection_share_what_they_may_use() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, mut second) = (handlers(dir.path()), handlers(dir.path()));
    second.served.usage = first.served.usage.clone();
    let path = |name: &str| dir.path().join("backup/demo").join(name).to_string_lossy().into_owned();
    let mut opened = 0;
    let refused = loop {
        match first.handle(&write(&path(&opened.to_string()), Vec::new()), opened) {
            Ok(_) => opened += 1,
            Err(error) => break error.code,
        }
    };
    assert_eq!((refused, opened), (ErrorCode::Memory, 128));
    assert_eq!(code(second.handle(&write(&path("second"), Vec::new()), 1)), Some(ErrorCode::Memory));
    assert!(!Path::new(&path("second")).exists());
    first.handle(&Call::Cancel(CallKind::StorageWrite), 0).unwrap();
    second.handle(&write(&path("second"), Vec::new()), 1).unwrap();
    // Sessions and those with PostgreSQL
    let held: Vec<_> = (0..8).map(|_| first.served.usage.databases.take(8, "").unwrap()).collect();
    let error = second.handle(&Call::DatabaseOpen, 2).err().unwrap();
    assert_eq!((error.code, &*error.message), (ErrorCode::Access, "too many sessions with PostgreSQL"));
    drop(held);
    let error = second.handle(&Call::DatabaseOpen, 2).err().unwrap();
    assert!(error.message.starts_with("connection to PostgreSQL denied"), "{error}");
    let usage = first.served.usage.clone();
    assert_eq!((usage.sessions.taken(), usage.databases.taken()), (128, 0));
    drop((first, second));
    assert_eq!((usage.sessions.taken(), usage.memory.bytes()), (0, 0));
}
