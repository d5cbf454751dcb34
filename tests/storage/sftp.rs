//! The effect of cut SFTP connections on files that are being read and written.

use std::io::{Read, Write};
use std::time::Duration;

use engine::storage::{ReadRange, RepoPath, WriteOptions, get, put};

use super::conformance::large_content;
use super::{open, servers};
use crate::env::{Passage, Sshd};

fn path(text: &str) -> RepoPath {
    RepoPath::new(text).unwrap()
}

#[test]
fn sftp_connection_that_is_cut_is_opened_again() {
    let Some(server) = Sshd::start_usual() else { return };
    let passage = Passage::start(server.port());
    let storage = open(servers::sftp(&server, "repo", passage.port()));
    let content = large_content();
    put(&*storage, &path("file"), &content, WriteOptions::ATOMIC).unwrap();

    // Reading continues where it stopped
    passage.cut_after(&[2_000_000, 3_000_000, 5_000_000]);
    assert!(get(&*storage, &path("file"), 1 << 30).unwrap().unwrap() == content);
    assert_eq!(passage.cuts(), 3);
    let mut reader = storage.read(&path("file"), ReadRange::default()).unwrap().unwrap();
    let mut read = vec![0; 100_000];
    reader.read_exact(&mut read).unwrap();
    passage.cut();
    reader.read_to_end(&mut read).unwrap();
    assert!(read == content);

    // Writing does not continue, because nobody knows what the server has, and the file does not appear
    let mut writer = storage.write(&path("half"), WriteOptions::ATOMIC).unwrap();
    writer.write_all(&content).unwrap();
    passage.cut();
    let error = writer.finish().unwrap_err();
    assert!(error.message.contains("connection lost"), "{}", error.message);
    assert!(storage.info(&path("half")).unwrap().is_none());
    put(&*storage, &path("half"), b"whole", WriteOptions::ATOMIC).unwrap();
    assert_eq!(get(&*storage, &path("half"), 10).unwrap().unwrap(), b"whole");

    // Everything else is done again
    for round in 0..3 {
        passage.cut();
        match round {
            0 => assert_eq!(storage.names(&path("")).unwrap().unwrap(), ["file", "half"]),
            1 => storage.remove(&path("half")).unwrap(),
            _ => storage.create_path(&path("deep/er")).unwrap(),
        }
    }
    assert_eq!(storage.names(&path("")).unwrap().unwrap(), ["deep", "file"]);
    passage.set_closed(true);
    passage.cut();
    let error = storage.info(&path("file")).unwrap_err();
    assert!(error.message.contains(&format!("127.0.0.1:{}", passage.port())), "{}", error.message);
}

#[test]
fn writes_of_a_server_that_was_given_up_do_not_reach_the_next_attempt() {
    let Some(server) = Sshd::start_usual() else { return };
    let mut settings = servers::sftp(&server, "repo", server.port());
    settings.io_timeout = Duration::from_secs(2);
    let storage = open(settings);
    let (first, second) = (vec![b'1'; 8 << 20], vec![b'2'; 3 << 20]);
    for options in [WriteOptions::ATOMIC, WriteOptions { atomic: false, ..WriteOptions::ATOMIC }] {
        let path = path("file");
        let mut writer = storage.write(&path, options).unwrap();
        writer.write_all(&first[..40_000]).unwrap();
        let frozen = server.freeze();
        assert!(frozen.count() > 0);
        let error = writer
            .write_all(&first)
            .map_err(|error| error.to_string())
            .and_then(|()| writer.finish().map_err(|error| error.message));
        let error = error.unwrap_err();
        assert!(error.contains("for 2 seconds") || error.contains("within 2 seconds"), "{error}");
        put(&*storage, &path, &second, options).unwrap();
        drop(frozen);
        std::thread::sleep(Duration::from_secs(1));
        assert!(get(&*storage, &path, 1 << 30).unwrap().unwrap() == second, "{options:?}");
    }
}

#[test]
fn sftp_connection_is_cut_anywhere_in_a_small_write() {
    let Some(server) = Sshd::start_usual() else { return };
    let passage = Passage::start(server.port());
    let storage = open(servers::sftp(&server, "repo", passage.port()));
    let mut failed = 0;
    for round in 0..60u64 {
        let at = path(&format!("file-{round}"));
        put(&*storage, &at, b"old", WriteOptions::ATOMIC).unwrap();
        passage.cut_after(&[round * 25]);
        let written = put(&*storage, &at, b"new content", WriteOptions::ATOMIC);
        passage.cut_after(&[]);
        let found = get(&*storage, &at, 100).unwrap().unwrap();
        match &written {
            Ok(()) => assert_eq!(found, b"new content", "round {round}"),
            Err(_) => assert!(found == b"old" || found == b"new content", "round {round}: {found:?}"),
        }
        failed += u64::from(written.is_err());
    }
    assert!(failed > 0 && passage.cuts() > failed, "{failed} of {} cuts", passage.cuts());
}

#[test]
fn removal_of_a_link_in_the_place_of_a_directory_leaves_what_it_leads_to() {
    let Some(server) = Sshd::start_usual() else { return };
    let storage = open(servers::sftp(&server, "repo", server.port()));
    put(&*storage, &path("backup/demo/20260101-000000F/file"), b"x", WriteOptions::ATOMIC).unwrap();
    put(&*storage, &path("archive/demo/file"), b"x", WriteOptions::ATOMIC).unwrap();
    let elsewhere = server.space.folder("elsewhere");
    std::fs::write(elsewhere.join("precious"), "x").unwrap();
    // In place of the directory, and below one
    for name in ["repo/backup/link", "repo/archive/demo/link"] {
        std::os::unix::fs::symlink(&elsewhere, server.space.path(name)).unwrap();
    }
    for name in ["backup/link", "archive/demo", "backup/demo"] {
        storage.remove_all(&path(name)).unwrap();
        assert!(storage.info(&path(name)).unwrap().is_none(), "{name}");
    }
    assert!(elsewhere.join("precious").exists());
    // The repository itself may be behind a link
    std::os::unix::fs::symlink(server.space.path("repo"), server.space.path("linked")).unwrap();
    let linked = open(servers::sftp(&server, "linked", server.port()));
    put(&*linked, &path("a/b"), b"x", WriteOptions::ATOMIC).unwrap();
    linked.remove_all(&path("a")).unwrap();
    assert!(!server.space.path("repo/a").exists());
}

#[test]
fn server_that_can_not_rename_over_files_keeps_the_old_one_when_it_fails() {
    let Some(server) = Sshd::start("internal-sftp -P posix-rename", &[("ed25519", "")]) else { return };
    let storage = open(servers::sftp(&server, "repo", server.port()));
    for content in [b"first".as_slice(), b"second", b"third"] {
        put(&*storage, &path("info"), content, WriteOptions::ATOMIC).unwrap();
        assert_eq!(get(&*storage, &path("info"), 100).unwrap().unwrap(), content);
        assert_eq!(storage.names(&path("")).unwrap().unwrap(), ["info"]);
    }
    // The server's answer is the same "failure" as for an existing file
    put(&*storage, &path("dir/file"), b"x", WriteOptions::ATOMIC).unwrap();
    put(&*storage, &path("dir"), b"y", WriteOptions::ATOMIC).unwrap_err();
    assert_eq!(get(&*storage, &path("dir/file"), 10).unwrap().unwrap(), b"x");
    assert_eq!(storage.names(&path("")).unwrap().unwrap(), ["dir", "info"]);
}
