use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use protocol::call::CallKind;
use protocol::filter::{Codec, CompressFilter, Filter};
use protocol::options::ConfigRequest;
use protocol::storage::{Chunk, ReadAnswer, WriteAnswer};
use protocol::{Capabilities, PackWriter};
use repo_format::cipher::Framing;
use repo_format::compress::{CompressType, Compression, Compressor, Decompressor};

use super::write::{BLOCK_BYTES, RemoteWriter};
use super::*;
use crate::CancelToken;
use crate::remote::LaneUse;
use crate::remote::testing::{Script, connect, connect_with_channels, serve_repository, thread_settings};
use crate::storage::on_turn::OnTurn;
use crate::storage::paced::Paced;
use crate::throttle::{Pace, RATE_MIN, RateLimit};
use crate::work::retry::is_about_content;
use crate::work::turn::Slots;

/// A storage whose server fails at the block with this number. What it is asked for arrives at the receiver.
fn storage(capabilities: Option<Capabilities>, fails_at: usize) -> (RemoteStorage, Receiver<&'static str>) {
    let (sender, asked) = channel();
    let connection = connect(move |stream| {
        let mut script = Script::new(stream);
        script.begin(capabilities.as_ref().map(Capabilities::encode));
        let mut blocks = 0;
        while let Some(call) = script.read() {
            let (name, fails) = match call {
                Call::WriteOpen(_) => ("open", false),
                Call::WriteBlock(_) => ("block", true),
                Call::Close(_) => ("close", false),
                Call::Cancel(_) => ("cancel", false),
                Call::Remove(_) => ("remove", false),
                _ => return,
            };
            // The test may have ended
            let _ = sender.send(name);
            blocks += usize::from(fails);
            if fails && blocks - 1 == fails_at {
                script.refuse(&Error::new(ErrorCode::FileWrite, "no space"));
            } else if name == "close" {
                script.answer(Some(WriteAnswer { results: Vec::new() }.encode()));
            } else {
                script.answer(None);
            }
        }
    });
    let features = Features { paths: true, hard_links: true, symlinks: true, path_sync: true, errors_last: false };
    let (lanes, root) = (Arc::new(Lanes::new(connection.unwrap(), Vec::new())), "/repo".to_owned());
    (RemoteStorage { lanes, root, features, network_level: None, compresses_reads: false }, asked)
}

/// Writes a file of several blocks. Returns the result, and what the server was asked for.
fn write(capabilities: Option<Capabilities>, fails_at: usize) -> (Result<()>, Vec<&'static str>) {
    let (storage, asked) = storage(capabilities, fails_at);
    let mut writer = storage.write(&RepoPath::new("file").unwrap(), WriteOptions::ATOMIC).unwrap();
    let written = writer
        .write_all(&vec![7; 3 * BLOCK_BYTES])
        .map_err(|error| Error::from_io(ErrorCode::FileWrite, "test", error));
    let result = written.and_then(|()| writer.finish());
    drop(storage);
    (result, asked.iter().collect())
}

#[test]
fn file_of_which_a_block_failed_is_not_completed_by_pgbackrest() {
    for fails_at in 0..3 {
        let (result, mut asked) = write(None, fails_at);
        assert!(result.unwrap_err().message.contains("no space"));
        // How many follow depends on when the answer comes. pgBackRest would give it its final name with "close"
        asked.dedup();
        assert_eq!(asked, ["open", "block", "cancel", "remove"], "{fails_at}");
    }
    let (result, asked) = write(None, 9);
    result.unwrap();
    assert_eq!(asked, ["open", "block", "block", "block", "close"]);
}

#[test]
fn server_that_completes_only_whole_files_is_asked_at_once() {
    let (result, asked) = write(Some(Capabilities::own()), 9);
    result.unwrap();
    assert_eq!(asked, ["open", "block", "block", "block", "close"]);
    let (result, mut asked) = write(Some(Capabilities::own()), 2);
    assert!(result.unwrap_err().message.contains("no space"));
    // Unless the answer to the last block was there before
    asked.retain(|asked| *asked != "close");
    assert_eq!(asked, ["open", "block", "block", "block", "cancel", "remove"]);
}

const LZ4_BACK: Filter<'static> = Filter::Decompress { codec: Codec::Lz4, is_raw: true };

/// A storage that compresses on the way, with a script in the place of the server.
fn compressing(serve: impl FnOnce(&mut Script) + Send + 'static) -> RemoteStorage {
    let connection = connect(move |stream| {
        let mut script = Script::new(stream);
        script.begin(None);
        serve(&mut script);
    });
    let features = Features { paths: true, hard_links: true, symlinks: true, path_sync: true, errors_last: false };
    let (lanes, root) = (Arc::new(Lanes::new(connection.unwrap(), Vec::new())), "/repo".to_owned());
    RemoteStorage { lanes, root, features, network_level: Some(1), compresses_reads: false }
}

/// Writes a file. Returns whether it was compressed on its way, the bytes that were sent and what the server stores.
fn sent(content: &[u8], piece: usize) -> (bool, usize, Vec<u8>) {
    let (sender, arrived) = channel();
    let storage = compressing(move |script| {
        let (mut is_compressed, mut bytes) = (false, Vec::new());
        while let Some(call) = script.read() {
            let is_closed = match &call {
                Call::WriteOpen(request) => {
                    is_compressed = request.filters == [LZ4_BACK];
                    assert!(is_compressed || request.filters.is_empty());
                    false
                }
                Call::WriteBlock(block) => {
                    assert!(!block.is_empty() && block.len() <= BLOCK_BYTES + BLOCK_BYTES / 4, "{}", block.len());
                    bytes.extend_from_slice(block);
                    false
                }
                call => matches!(call, Call::Close(CallKind::StorageWrite)),
            };
            let results = is_closed.then(|| WriteAnswer { results: Vec::new() }.encode());
            script.answer(results);
        }
        let _ = sender.send((is_compressed, bytes));
    });
    let mut writer = storage.write(&RepoPath::new("file").unwrap(), WriteOptions::IN_PLACE).unwrap();
    content.chunks(piece).for_each(|piece| writer.write_all(piece).unwrap());
    writer.finish().unwrap();
    drop(storage);
    let (is_compressed, bytes) = arrived.recv().unwrap();
    let mut stored = Vec::new();
    let kind = if is_compressed { CompressType::Lz4 } else { CompressType::None };
    Decompressor::new(kind, Framing::Raw, bytes.as_slice()).unwrap().read_to_end(&mut stored).unwrap();
    (is_compressed, bytes.len(), stored)
}

/// Bytes that do not compress.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..size).map(|_| next()).collect()
}

#[test]
fn file_that_compresses_is_compressed_on_its_way() {
    let text: Vec<u8> = (0..3_000_000u32).flat_map(|number| (number / 9).to_be_bytes()).collect();
    let half = [vec![7; BLOCK_BYTES], noise(3 * BLOCK_BYTES)].concat();
    for (content, piece, is_worth) in [
        (&text, 100_000, true),
        (&text[..5000].to_vec(), 5000, true),
        (&text[..4000].to_vec(), 100, false),
        (&Vec::new(), 1, false),
        (&noise(3 * BLOCK_BYTES + 1), 3_000_000, false),
        (&half, 1 << 21, true),
    ] {
        let (is_compressed, bytes, stored) = sent(content, piece);
        assert_eq!(is_compressed, is_worth, "{} bytes", content.len());
        assert!(stored == *content, "{} bytes differ", content.len());
        assert!(if is_worth { bytes < content.len() } else { bytes == content.len() }, "{bytes}");
    }
}

/// A storage whose server has files with this content and is asked only to compress them.
fn compressed(content: Vec<u8>) -> RemoteStorage {
    compressing(move |script| {
        while let Some(call) = script.read() {
            let Call::ReadOpen(request) = call else { break };
            let lz4 = CompressFilter { codec: Codec::Lz4, level: 1, is_raw: true };
            assert_eq!(request.filters, [Filter::Compress(lz4)]);
            let mut bytes = Vec::new();
            let compression = Compression::new(CompressType::Lz4, Some(1)).unwrap();
            let mut compressor = Compressor::new(compression, Framing::Raw).unwrap();
            compressor.push(&content, &mut bytes).unwrap();
            compressor.finish(&mut bytes).unwrap();
            let chunk = Chunk { data: &bytes, results: Some(Vec::new()) };
            script.close(Some(ReadAnswer::Chunk(chunk).encode()));
        }
    })
}

/// Reads a file whose bytes come compressed, and of which at most `limit` bytes were asked for.
fn read(content: Vec<u8>, limit: Option<u64>) -> io::Result<Vec<u8>> {
    read_from(&compressed(content), limit)
}

fn read_from(storage: &dyn RepoStorage, limit: Option<u64>) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    let view = storage.compressing_reads().unwrap();
    let range = ReadRange { offset: 3, limit };
    let reader = view.begin_read(&RepoPath::new("file").unwrap(), range).wait().unwrap();
    reader.unwrap().read_to_end(&mut plain).map(|_| plain)
}

#[test]
fn limit_of_the_rate_does_not_turn_off_the_compression_on_the_way() {
    let content = vec![7; 300_000];
    let storage = || Arc::new(compressed(content.clone())) as Arc<dyn RepoStorage>;
    let pace = Pace::new(Arc::new(RateLimit::new(Some(RATE_MIN))));
    let paced = Paced::wrap(storage(), &pace, &CancelToken::new());
    let begun = Instant::now();
    assert!(read_from(&*paced, None).unwrap() == content);
    assert!(begun.elapsed() > Duration::from_millis(200), "{:?}", begun.elapsed());
    let on_turn = OnTurn::new(storage(), &Slots::new(1).turn());
    assert!(read_from(&on_turn, None).unwrap() == content);
}

#[test]
fn file_that_comes_compressed_is_decompressed_up_to_what_was_asked_for() {
    let content = vec![7; 3_000_000];
    for limit in [None, Some(3_000_000), Some(4_000_000)] {
        assert!(read(content.clone(), limit).unwrap() == content);
    }
    let hard = noise(300_000);
    assert!(read(hard.clone(), Some(300_000)).unwrap() == hard);
    let error = Error::from_io(ErrorCode::FileRead, "read", read(content, Some(2_999_999)).unwrap_err());
    assert!(error.to_string().ends_with("protocol on 'far': server sent more bytes than it was asked for"), "{error}");
}

/// A repository in this directory, whose host has channels.
fn with_channels(dir: &std::path::Path) -> RemoteStorage {
    let path = dir.to_owned();
    let connection = connect_with_channels(move |stream| drop(serve_repository(stream, &path))).unwrap();
    let features = Features { paths: true, hard_links: true, symlinks: true, path_sync: true, errors_last: false };
    let (lanes, root) = (Lanes::new(connection, vec![thread_settings(); 5]), dir.to_str().unwrap().to_owned());
    RemoteStorage { lanes: Arc::new(lanes), root, features, network_level: None, compresses_reads: false }
}

/// Begins to write a file, which the writer does not finish.
fn abandon(storage: &RemoteStorage, name: &str, wait: Duration) {
    let path = storage.absolute(&RepoPath::new(name).unwrap());
    let mut writer = RemoteWriter::new(storage.lanes.take().unwrap(), path, WriteOptions::IN_PLACE, None);
    writer.dropped_wait = wait;
    writer.write_all(&vec![7; 2 * BLOCK_BYTES]).unwrap();
}

#[test]
fn file_that_the_host_may_still_write_was_written_again_over_another_connection() {
    let dir = tempfile::tempdir().unwrap();
    let stuck = dir.path().join("stuck");
    // Opening it for writing takes as long as nobody reads
    rustix::fs::mknodat(rustix::fs::CWD, &stuck, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for is_first in [true, false] {
        let storage = with_channels(dir.path());
        let held = (!is_first).then(|| storage.lanes.take().unwrap());
        // One that is dropped in time changes nothing
        abandon(&storage, "file", Duration::from_secs(30));
        assert!(storage.list(&RepoPath::new("").unwrap()).is_ok());
        abandon(&storage, "stuck", Duration::from_millis(100));
        let error = storage.write(&RepoPath::new("file").unwrap(), WriteOptions::IN_PLACE).err().unwrap();
        let is_silence = error.message.starts_with("timeout after");
        assert!(is_silence || error.message.ends_with("/stuck'"), "{error}");
        assert!(storage.list(&RepoPath::new("").unwrap()).is_err());
        drop((held, storage));
        // The server goes on
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
        drop(rustix::fs::open(&stuck, flags, rustix::fs::Mode::empty()).unwrap());
    }
}

#[test]
fn channel_that_the_host_has_ended_in_order_ended_the_connection_of_the_command() {
    let begin = |storage: &RemoteStorage, lane: &LaneUse| {
        let path = storage.absolute(&RepoPath::new("file").unwrap());
        let lane = lane.clone();
        let mut writer = RemoteWriter::new(lane, path, WriteOptions::ATOMIC, None);
        writer.write_all(&vec![7; 4 * BLOCK_BYTES]).unwrap();
        writer
    };
    let config = Call::Config(ConfigRequest { arguments: Vec::new() });
    for waits in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let storage = with_channels(dir.path());
        let (_first, lane) = (storage.lanes.take().unwrap(), storage.lanes.take().unwrap());
        let writer = begin(&storage, &lane);
        // A channel has no such request, so the host ends it
        let refused = lane.connection().send(&config, None);
        if waits {
            assert!(refused.wait().is_err());
        }
        drop(writer);
        assert!(lane.connection().has_ended());
        // Nothing of the file is left, and it is written over another channel
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let again = storage.lanes.take().unwrap();
        assert!(!Arc::ptr_eq(lane.connection(), again.connection()));
        begin(&storage, &again).write_all(b"x").unwrap();
        assert!(storage.list(&RepoPath::new("").unwrap()).is_ok());
        // The host may still be at work on a channel that this side has ended
        let writer = begin(&storage, &again);
        again.connection().fail(&Error::new(ErrorCode::Service, "lost"));
        drop(writer);
        assert!(storage.list(&RepoPath::new("").unwrap()).is_err());
    }
}

#[test]
fn answer_that_can_not_be_read_named_no_host_and_counted_as_damage_of_a_file() {
    let storage = compressing(|script| {
        while let Some(call) = script.read() {
            let answer = match call {
                Call::List(_) => {
                    let mut list = PackWriter::new();
                    list.bool(true).text("no entry");
                    Some(list)
                }
                Call::Exit => return,
                _ => None,
            };
            script.answer(answer);
        }
    });
    let path = RepoPath::new("archive").unwrap();
    let read = storage.read(&path, ReadRange::default()).err();
    for error in [storage.list(&path).err(), storage.info(&path).err(), read] {
        let error = error.unwrap();
        assert_eq!(error.code, ErrorCode::Format, "{error}");
        assert!(error.message.starts_with("remote-1 ssh protocol on 'far': "), "{error}");
        assert!(!is_about_content(&error));
    }
}

#[test]
fn removal_of_a_distant_repository_that_is_a_link_removed_the_link_and_left_the_content() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("repo"));
    std::fs::create_dir_all(real.join("archive/demo")).unwrap();
    std::fs::write(real.join("archive/demo/x"), "x").unwrap();
    std::fs::write(dir.path().join("precious"), "x").unwrap();
    std::os::unix::fs::symlink(dir.path(), real.join("out")).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let path = link.clone();
    let connection = connect_with_channels(move |stream| drop(serve_repository(stream, &path))).unwrap();
    let storage = RemoteStorage::over(connection, &[thread_settings()]).unwrap().storage;
    let ((), warnings) = crate::log::collect_warnings(|| storage.remove_all(&RepoPath::new("out").unwrap()).unwrap());
    assert_eq!(warnings.texts, [format!("path '{}/out' is a link: what it leads to is not removed", link.display())]);
    // As on this host
    let error = storage.remove_all(&RepoPath::root()).unwrap_err();
    let expected = format!("unable to remove path '{}': [20] Not a directory", link.display());
    assert!(error.code == ErrorCode::PathRemove && error.to_string().contains(&expected), "{error}");
    assert_eq!(std::fs::read_dir(&real).unwrap().count(), 0);
    assert!(link.is_symlink() && dir.path().join("precious").exists());
}
