use futures_util::{StreamExt, stream};

use super::*;
use crate::storage::PATH_SIZE_MAX_BYTES;

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
    let kind = |mode| entry(String::new(), SftpAttributes { mode, size: Some(7), ..SftpAttributes::default() });
    assert_eq!((kind(Some(0o100_640)).kind, kind(Some(0o100_640)).size), (EntryKind::File, 7));
    assert_eq!((kind(Some(0o040_750)).kind, kind(Some(0o040_750)).size), (EntryKind::Path, 0));
    assert_eq!(kind(Some(0o120_777)).kind, EntryKind::Link);
    assert_eq!(kind(Some(0o140_777)).kind, EntryKind::Special);
}

fn settings() -> SftpSettings {
    SftpSettings {
        repo_path: "/repo".into(),
        host: "backup".into(),
        port: 22,
        user: "u".into(),
        private_key_file: "/none".into(),
        private_key_passphrase: None,
        public_key_file: None,
        host_key_hash: HashType::Sha256,
        host_key_check: HostKeyCheck::None,
        known_host_files: Vec::new(),
        home: None,
        io_timeout: Duration::from_secs(1),
    }
}

#[test]
fn error_names_host_path_and_what_the_server_said() {
    let settings = SftpSettings { private_key_passphrase: Some("topsecret".into()), ..settings() };
    assert!(!format!("{settings:?}").contains("topsecret"));
    let storage = SftpStorage::new(settings).unwrap();
    let refused = SftpFailure::Status { code: 3, message: "Permission denied".into() };
    let error = storage.0.error(ErrorCode::FileOpen, "unable to open file '/repo/x' for read", &refused);
    let expected = "unable to open file '/repo/x' for read: sftp error [3] permission denied on host 'backup:22'";
    assert_eq!(error.message, expected);
    // The key is looked for before anything is sent
    let error = storage.info(&path("x")).unwrap_err();
    assert_eq!(error.code, ErrorCode::FileMissing);
    assert!(error.message.contains("'/none'"), "{}", error.message);
}

#[test]
fn requests_that_wait_to_be_sent_fail_when_the_connection_ends() {
    let done = network::handle().unwrap().block_on(async {
        let (mut server, incoming) = tokio::io::duplex(64);
        // A server that takes the greeting and nothing more
        let (outgoing, _unread) = tokio::io::duplex(16);
        tokio::io::AsyncWriteExt::write_all(&mut server, &[0, 0, 0, 5, 2, 0, 0, 0, 3]).await.unwrap();
        let stream = tokio::io::join(incoming, outgoing);
        let client = Client::start(stream, Duration::from_secs(60), Box::new(Cuts::default())).await.ok().unwrap();
        let requests = stream::iter(0..1000).map(|_| client.remove("x")).buffer_unordered(1000).collect::<Vec<_>>();
        let end = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(server);
        };
        tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(requests, end).0 }).await
    });
    let done = done.expect("an answer long before the time-out of a request");
    assert!(
        done.iter().all(|done| matches!(done, Err(SftpFailure::Lost(why)) if why == "connection lost")),
        "{done:?}"
    );
}

/// Counts how often a connection was cut.
#[derive(Clone, Default)]
struct Cuts(Arc<AtomicU64>);

impl client::Transport for Cuts {
    fn cut(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_request_without_answer_ends_the_connection() {
    network::handle().unwrap().block_on(async {
        let (mut server, stream) = tokio::io::duplex(1 << 20);
        tokio::io::AsyncWriteExt::write_all(&mut server, &[0, 0, 0, 5, 2, 0, 0, 0, 3]).await.unwrap();
        let cuts = Cuts::default();
        let client = Client::start(stream, Duration::from_millis(50), Box::new(cuts.clone())).await.ok().unwrap();
        let other = client.send(protocol::Request::new(protocol::kind::STAT).bytes(b"y")).await.ok().unwrap();
        let failure = client.remove("x").await.unwrap_err();
        assert!(matches!(&failure, SftpFailure::Lost(why) if why.starts_with("no answer")), "{failure:?}");
        assert!(client.is_lost());
        assert_eq!(cuts.0.load(Ordering::Relaxed), 1);
        assert!(other.response().await.is_err());
        // Nothing more is sent, and the server's side ends
        assert!(client.remove("x").await.is_err());
        let rest = async {
            let mut rest = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut server, &mut rest).await
        };
        tokio::time::timeout(Duration::from_secs(20), rest).await.expect("the end of the stream").unwrap();
        assert_eq!(cuts.0.load(Ordering::Relaxed), 1);
    });
}

/// A server where every directory contains another directory. Returns the length of the longest requested path.
async fn endless(stream: tokio::io::DuplexStream) -> usize {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (mut receiver, mut sender) = tokio::io::split(stream);
    sender.write_all(&[0, 0, 0, 5, 2, 0, 0, 0, 3]).await.unwrap();
    let (mut longest, mut is_read) = (0, std::collections::HashSet::new());
    let text = |text: &[u8]| [&(text.len() as u32).to_be_bytes()[..], text].concat();
    let attributes = [4u32.to_be_bytes(), 0o040_750u32.to_be_bytes()].concat();
    let status = |code: u32| (protocol::kind::STATUS, [&code.to_be_bytes()[..], &text(b""), &text(b"")].concat());
    while let Ok(size) = receiver.read_u32().await {
        let mut packet = vec![0; size as usize];
        if receiver.read_exact(&mut packet).await.is_err() {
            break;
        }
        if packet[0] == protocol::kind::INIT {
            continue;
        }
        let (kind, id, argument) = (packet[0], &packet[1..5], &packet[9..]);
        longest = longest.max(argument.len());
        let (kind, body) = match kind {
            protocol::kind::OPENDIR => (protocol::kind::HANDLE, text(argument)),
            protocol::kind::READDIR if is_read.insert(argument.to_owned()) => {
                // The first name is long, so that the limit is reached soon
                let name = if is_read.len() == 1 { "a".repeat(24 << 10) } else { "a".to_owned() };
                let name = [&1u32.to_be_bytes()[..], &text(name.as_bytes()), &text(b""), &attributes].concat();
                (protocol::kind::NAME, name)
            }
            protocol::kind::READDIR => status(1),
            protocol::kind::LSTAT => (protocol::kind::ATTRS, attributes.clone()),
            _ => status(0),
        };
        let answer = [&[kind][..], id, &body].concat();
        // The client has ended while its last request, which needs no answer, is answered
        if sender.write_all(&text(&answer)).await.is_err() {
            break;
        }
    }
    longest
}

#[test]
fn directories_without_end_are_an_error() {
    let (result, longest) = network::handle().unwrap().block_on(async {
        let (server, stream) = tokio::io::duplex(1 << 20);
        let server = tokio::spawn(endless(server));
        let client = Client::start(stream, Duration::from_secs(60), Box::new(Cuts::default())).await.ok().unwrap();
        let result = remove_tree(&client, "/repo", false).await;
        drop(client);
        (result, server.await.unwrap())
    });
    assert!(matches!(result, Err(SftpFailure::Protocol)), "{result:?}");
    assert!(longest > PATH_SIZE_MAX_BYTES - 10, "{longest}");
}

#[test]
fn threads_that_wait_for_a_connection_share_its_failure() {
    let directory = tempfile::tempdir().unwrap();
    let key = russh::keys::ssh_key::private::Ed25519Keypair::from_seed(&[7; 32]);
    let key = russh::keys::PrivateKey::from(key).to_openssh(russh::keys::ssh_key::LineEnding::LF).unwrap();
    let file = directory.path().join("key");
    std::fs::write(&file, key.as_bytes()).unwrap();
    // The system accepts connections, and nobody answers
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let storage = SftpStorage::new(SftpSettings {
        host: "127.0.0.1".into(),
        port: silent.local_addr().unwrap().port(),
        private_key_file: file.to_str().unwrap().to_owned(),
        io_timeout: Duration::from_millis(500),
        ..settings()
    })
    .unwrap();
    const THREADS: usize = 8;
    let begin = std::sync::Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                begin.wait();
                let error = storage.info(&path("x")).unwrap_err();
                assert!(error.message.contains("timeout during SSH handshake"), "{}", error.message);
            });
        }
    });
    silent.set_nonblocking(true).unwrap();
    let connections = std::iter::from_fn(|| silent.accept().ok()).count();
    // A thread that comes late makes an attempt of its own
    assert!((1..THREADS / 2).contains(&connections), "{connections}");
}
