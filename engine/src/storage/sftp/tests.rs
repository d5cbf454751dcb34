use super::*;
use crate::storage::{conformance, get, put};

/// The server named by the environment as `RBR_TEST_SFTP_HOST` and so on; `None`, said aloud, where there is none.
fn settings(repo: &str) -> Option<SftpSettings> {
    let env = |name: &str| std::env::var(format!("RBR_TEST_SFTP_{name}"));
    let Ok(host) = env("HOST") else {
        eprintln!("SKIPPED: RBR_TEST_SFTP_HOST is not set");
        return None;
    };
    Some(SftpSettings {
        repo_path: format!("{}/{repo}-{}", env("PATH").unwrap(), std::process::id()),
        host,
        port: env("PORT").unwrap().parse().unwrap(),
        user: env("USER").unwrap(),
        private_key_file: env("KEY").unwrap(),
        private_key_passphrase: None,
        public_key_file: None,
        host_key_hash: HashType::Sha256,
        host_key_check: HostKeyCheck::Fingerprint(env("FINGERPRINT").unwrap()),
        known_host_files: Vec::new(),
        home: None,
        io_timeout: Duration::from_secs(20),
    })
}

fn path(text: &str) -> RepoPath {
    RepoPath::new(text).unwrap()
}

#[test]
fn parent_of_paths() {
    assert_eq!(parent("/a/b"), Some("/a"));
    assert_eq!(parent("/a"), Some("/"));
    assert_eq!(parent("/"), None);
    assert_eq!(parent("a/b"), Some("a"));
    assert_eq!(parent("a"), None);
}

#[test]
fn entry_kind_is_that_of_the_mode() {
    let kind = |mode| entry(String::new(), Attributes { mode, size: Some(7), ..Attributes::default() });
    assert_eq!((kind(Some(0o100_640)).kind, kind(Some(0o100_640)).size), (EntryKind::File, 7));
    assert_eq!((kind(Some(0o040_750)).kind, kind(Some(0o040_750)).size), (EntryKind::Path, 0));
    assert_eq!(kind(Some(0o120_777)).kind, EntryKind::Link);
    assert_eq!(kind(Some(0o140_777)).kind, EntryKind::Special);
}

#[test]
fn error_names_host_path_and_what_the_server_said() {
    let settings = SftpSettings {
        repo_path: "/repo".into(),
        host: "backup".into(),
        port: 22,
        user: "u".into(),
        private_key_file: "/none".into(),
        private_key_passphrase: Some("topsecret".into()),
        public_key_file: None,
        host_key_hash: HashType::Sha256,
        host_key_check: HostKeyCheck::None,
        known_host_files: Vec::new(),
        home: None,
        io_timeout: Duration::from_secs(1),
    };
    assert!(!format!("{settings:?}").contains("topsecret"));
    let storage = SftpStorage::new(settings).unwrap();
    let refused = Failure::Status { code: 3, message: "Permission denied".into() };
    let error = storage.0.error(ErrorCode::FileOpen, "unable to open file '/repo/x' for read", &refused);
    let expected = "unable to open file '/repo/x' for read: sftp error [3] permission denied on host 'backup:22'";
    assert_eq!(error.message, expected);
    // The key is looked for before anything is sent
    let error = storage.info(&path("x")).unwrap_err();
    assert_eq!(error.code, ErrorCode::FileMissing);
    assert!(error.message.contains("'/none'"), "{}", error.message);
}

#[test]
fn sftp_server_conforms() {
    let Some(settings) = settings("conformance") else { return };
    let storage = SftpStorage::new(settings).unwrap();
    conformance::run(&storage);
    let big: Vec<u8> = (0..23_000_001u32).map(|i| (i >> 7) as u8).collect();
    put(&storage, &path("big/file"), &big, WriteOptions::ATOMIC).unwrap();
    assert!(get(&storage, &path("big/file"), 1 << 30).unwrap().unwrap() == big);
    for number in 0..400 {
        put(&storage, &path(&format!("many/{number:03}")), b"x", WriteOptions::IN_PLACE).unwrap();
    }
    assert_eq!(storage.names(&path("many")).unwrap().unwrap().len(), 400);
    storage.remove_all(&RepoPath::root()).unwrap();
    assert!(storage.info(&RepoPath::root()).unwrap().is_none());
}

#[test]
fn sftp_connection_that_is_lost_is_opened_again() {
    let Some(settings) = settings("lost") else { return };
    let storage = SftpStorage::new(settings).unwrap();
    let content: Vec<u8> = (0..9_000_000u32).map(|i| (i >> 5) as u8).collect();
    put(&storage, &path("file"), &content, WriteOptions::ATOMIC).unwrap();
    let lose = || {
        // Taken out, so that nothing but what is in flight holds it
        let client = storage.0.runtime.block_on(async { storage.0.client.lock().await.take() });
        client.unwrap().break_connection();
    };
    let mut reader = storage.read(&path("file"), ReadRange::default()).unwrap().unwrap();
    let mut read = vec![0; 100_000];
    reader.read_exact(&mut read).unwrap();
    lose();
    reader.read_to_end(&mut read).unwrap();
    assert!(read == content, "reading goes on where it stopped");
    let mut writer = storage.write(&path("half"), WriteOptions::ATOMIC).unwrap();
    std::io::Write::write_all(&mut writer, &content).unwrap();
    lose();
    let error = writer.finish().unwrap_err();
    assert!(error.message.contains("connection lost"), "{}", error.message);
    assert!(storage.info(&path("half")).unwrap().is_none());
    storage.remove_all(&RepoPath::root()).unwrap();
}

#[test]
fn sftp_server_with_another_key_is_refused() {
    let Some(mut settings) = settings("other") else { return };
    settings.host_key_check = HostKeyCheck::Fingerprint("00".repeat(32));
    let error = SftpStorage::new(settings.clone()).unwrap().info(&path("x")).unwrap_err();
    assert_eq!(error.code, ErrorCode::Service);
    assert!(error.message.ends_with("do not match"), "{}", error.message);

    let dir = tempfile::tempdir().unwrap();
    settings.home = Some(dir.path().to_owned());
    settings.known_host_files = vec!["~/.ssh/known_hosts".into()];
    settings.host_key_check = HostKeyCheck::Strict;
    let error = SftpStorage::new(settings.clone()).unwrap().info(&path("x")).unwrap_err();
    assert!(error.message.contains("not found in known hosts files"), "{}", error.message);

    settings.host_key_check = HostKeyCheck::AcceptNew;
    SftpStorage::new(settings.clone()).unwrap().info(&path("x")).unwrap();
    settings.host_key_check = HostKeyCheck::Strict;
    SftpStorage::new(settings.clone()).unwrap().info(&path("x")).unwrap();

    let file = dir.path().join(".ssh/known_hosts");
    let line = std::fs::read_to_string(&file).unwrap();
    let name = line.split(' ').next().unwrap();
    std::fs::write(
        &file,
        format!("{name} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF\n"),
    )
    .unwrap();
    for check in [HostKeyCheck::Strict, HostKeyCheck::AcceptNew] {
        settings.host_key_check = check;
        let error = SftpStorage::new(settings.clone()).unwrap().info(&path("x")).unwrap_err();
        assert!(error.message.contains("mismatch in known hosts files"), "{}", error.message);
    }
}
