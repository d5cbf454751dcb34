use super::*;

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
