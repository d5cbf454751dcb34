use std::io::Write;
use std::sync::mpsc::{Receiver, channel};

use protocol::Capabilities;

use super::*;
use crate::remote::testing::{Script, connect};

/// A storage whose server fails at the block with this number. What it is asked for arrives at the receiver.
fn storage(capabilities: Option<Capabilities>, fails_at: usize) -> (RemoteStorage, Receiver<&'static str>) {
    let (sender, asked) = channel();
    let connection = connect(move |stream| {
        let mut script = Script::new(stream);
        script.read();
        script.answer(capabilities.as_ref().map(Capabilities::encode));
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
    (RemoteStorage { lanes: Lanes::new(connection.unwrap(), Vec::new()), root: "/repo".to_owned(), features }, asked)
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
        let (result, asked) = write(None, fails_at);
        assert!(result.unwrap_err().message.contains("no space"));
        // pgBackRest would give it its final name
        assert_eq!(asked, ["open", "block", "block", "block", "cancel", "remove"], "{fails_at}");
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
    let (result, asked) = write(Some(Capabilities::own()), 2);
    assert!(result.unwrap_err().message.contains("no space"));
    assert_eq!(asked, ["open", "block", "block", "block", "close", "cancel", "remove"]);
}
