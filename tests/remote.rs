//! The protocol between hosts, with the real pgBackRest on one side or on both.

use std::fs;
use std::io::{BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;

use protocol::Call;
use protocol::database::{Column, Expected, QueryRequest, columns};
use protocol::filter::{Digest, Filter, FilterResult};
use protocol::greeting::Service;
use protocol::options::OptionValue;
use protocol::storage::{
    FeaturesAnswer, FileInfoRequest, FileKind, InfoLevel, LinkRequest, LinkType, ListRequest, PathRemoveRequest,
    ReadRequest, StorageFeatures, WriteRequest,
};

use crate::env::{Cluster, Space, oracles};

mod client;
mod link;

use client::Client;

#[path = "../protocol/src/captured/streams.rs"]
mod streams;

/// A connection to a process of pgBackRest in the role `remote`.
struct Remote {
    child: Child,
    client: Option<Client<BufReader<ChildStdout>, ChildStdin>>,
}

impl Remote {
    /// Starts a server for the repository of `space`, or returns `None` if the test is skipped.
    fn start(space: &Space) -> Option<Self> {
        let config = space.write("remote.conf", format!("[global]\nrepo1-path={}\n", space.text("repo")));
        let arguments = ["--remote-type=repo", "--repo=1", "info:remote"].map(str::to_owned);
        Self::start_with(space, &[vec![format!("--config={}", config.display())], arguments.into()].concat())
    }

    fn start_with(space: &Space, arguments: &[String]) -> Option<Self> {
        let mut command = space.command(&oracles(&[])?.pgbackrest);
        command.args(["--exec-id=1-00000000", "--log-level-console=off", "--log-level-file=off"]);
        command.args(["--log-level-stderr=error", "--process=0", "--stanza=demo"]).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start pgBackRest");
        let input = BufReader::new(child.stdout.take().expect("standard output"));
        let output = child.stdin.take().expect("standard input");
        let mut client = Client::connect(input, output, Service::Remote, "remote-0").expect("a greeting");
        client.noop().expect("ready");
        Some(Remote { child, client: Some(client) })
    }

    fn client(&mut self) -> &mut Client<BufReader<ChildStdout>, ChildStdin> {
        self.client.as_mut().expect("open")
    }

    fn exit(mut self) {
        let (mut input, output) = self.client.take().expect("open").exit().expect("exit");
        drop(output);
        let mut rest = Vec::new();
        input.read_to_end(&mut rest).expect("end");
        assert!(rest.is_empty(), "{rest:?}");
        assert_eq!(self.child.wait().expect("exit status").code(), Some(0));
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &str, limit: Option<u64>) -> ReadRequest<'_> {
    let filters = vec![Filter::Hash(Digest::Sha1), Filter::Size];
    ReadRequest { path, offset: 0, limit, version: None, filters }
}

#[test]
fn request_for_files_is_answered_by_pgbackrest() {
    let space = Space::new();
    fs::write(space.folder("repo").join("file"), vec![7; 2_500_000]).unwrap();
    symlink("file", space.path("repo/link")).unwrap();
    let Some(mut remote) = Remote::start(&space) else { return };
    let client = remote.client();
    let FeaturesAnswer { path, features } = client.features().unwrap();
    assert_eq!(path, space.text("repo"));
    assert!(features.has(StorageFeatures::PATH | StorageFeatures::PATH_SYNC | StorageFeatures::INFO_DETAIL));

    let repo = space.text("repo");
    let list = client.list(ListRequest { path: &repo, level: InfoLevel::Detail, target_time: 0 }).unwrap();
    let entries = list.entries.expect("the directory");
    let mut names: Vec<_> = entries.map(|entry| entry.map(|entry| (entry.name, entry.info.kind)).unwrap()).collect();
    names.sort_by_key(|(name, _)| *name);
    assert_eq!(names, [("file", FileKind::File(2_500_000)), ("link", FileKind::Link)]);

    let (file, missing) = (space.text("repo/file"), space.text("repo/missing"));
    let info = client.info(FileInfoRequest { path: &file, level: InfoLevel::Basic, follow_link: false }).unwrap();
    assert_eq!(info.info.map(|info| (info.kind, info.detail)), Some((FileKind::File(2_500_000), None)));
    assert!(client.open_read(read(&missing, None), 1).unwrap().is_none());
    for ahead in [0, 1, 6] {
        let mut reading = client.open_read(read(&file, None), ahead).unwrap().expect("the file");
        let mut size = 0;
        while let Some(chunk) = client.next_chunk(&mut reading).unwrap() {
            assert!(chunk.iter().all(|byte| *byte == 7));
            size += chunk.len();
        }
        assert_eq!((size, &reading.results().unwrap()[1]), (2_500_000, &FilterResult::Size(2_500_000)));
    }
    let reading = client.open_read(read(&file, None), 1).unwrap().expect("the file");
    client.cancel_read(reading).unwrap();

    let error = client.run(&Call::PathSync(&missing)).unwrap_err();
    assert_eq!(error.code.number(), 73);
    assert_eq!(error.to_string(), format!("raised from remote-0: unable to sync missing path '{missing}'"));
    remote.exit();
}

#[test]
fn many_requests_at_once_are_answered_by_pgbackrest() {
    let space = Space::new();
    fs::write(space.folder("repo").join("file"), vec![7; 2_500_000]).unwrap();
    let Some(mut remote) = Remote::start(&space) else { return };
    let client = remote.client();
    client.features().unwrap();
    let (file, copy, missing) = (space.text("repo/file"), space.text("repo/copy"), space.text("repo/missing"));
    let mut first = client.open_read(read(&file, None), 4).unwrap().expect("the file");
    let mut second = client.open_read(read(&file, Some(2_400_000)), 2).unwrap().expect("the file");
    let mut writing = client.open_write(write(&copy)).unwrap();
    let tickets: Vec<_> = (0..200).map(|_| client.send(&Call::PathSync(&missing)).unwrap()).collect();
    for (reading, expected) in [(&mut first, 2_500_000), (&mut second, 2_400_000)] {
        let mut size = 0;
        while let Some(chunk) = client.next_chunk(reading).unwrap() {
            size += chunk.len();
            let block = chunk.to_vec();
            client.write_block(&mut writing, &block).unwrap();
        }
        assert_eq!(size, expected);
    }
    for ticket in tickets {
        assert_eq!(client.receive(ticket).unwrap_err().code.number(), 73);
    }
    assert_eq!(client.finish_write(writing).unwrap().results[0], FilterResult::Size(4_900_000));
    assert_eq!(fs::read(&copy).unwrap(), vec![7; 4_900_000]);
    remote.exit();
}

#[test]
fn request_for_a_limit_of_zero_gives_no_data() {
    let space = Space::new();
    fs::write(space.folder("repo").join("file"), "content").unwrap();
    let Some(mut remote) = Remote::start(&space) else { return };
    let client = remote.client();
    client.features().unwrap();
    let file = space.text("repo/file");
    for (limit, expected) in [(Some(0), None), (Some(3), Some("con")), (None, Some("content"))] {
        let mut reading = client.open_read(read(&file, limit), 0).unwrap().expect("the file");
        assert_eq!(client.next_chunk(&mut reading).unwrap(), expected.map(str::as_bytes), "{limit:?}");
    }
    remote.exit();
}

fn write(path: &str) -> WriteRequest<'_> {
    WriteRequest {
        path,
        file_mode: 0o640,
        path_mode: 0o750,
        user: None,
        group: None,
        modified: 1_700_000_000,
        create_path: true,
        sync_file: true,
        sync_path: true,
        is_atomic: true,
        filters: vec![Filter::Size],
    }
}

#[test]
fn requests_that_write_are_carried_out_by_pgbackrest() {
    let space = Space::new();
    space.folder("repo");
    let Some(mut remote) = Remote::start(&space) else { return };
    let client = remote.client();
    client.features().unwrap();
    let (file, link) = (space.text("repo/new/file"), space.text("repo/link"));
    let mut writing = client.open_write(write(&file)).unwrap();
    let block = vec![9; 100_000];
    for _ in 0..2 {
        client.write_block(&mut writing, &block).unwrap();
    }
    assert!(!Path::new(&file).exists());
    assert_eq!(client.finish_write(writing).unwrap().results[0], FilterResult::Size(200_000));
    assert_eq!(fs::read(&file).unwrap(), vec![9; 200_000]);
    let request = LinkRequest { target: "new/file", path: &link, link_type: LinkType::Symbolic };
    client.run(&Call::Link(request)).unwrap();
    assert_eq!(fs::read_link(&link).unwrap().to_str(), Some("new/file"));
    let writing = client.open_write(write(&space.text("repo/dropped"))).unwrap();
    client.cancel_write(writing).unwrap();
    let values = client.options(&["repo1-cipher-type", "repo1-cipher-pass"]).unwrap();
    assert_eq!(values[0].choice().map(|choice| choice.text()).as_deref(), Some("none"));
    assert_eq!(values[1], OptionValue::Null);
    let new = space.text("repo/new");
    assert!(client.remove_path(PathRemoveRequest { path: &new, recurse: true }).unwrap());
    assert!(!client.remove_path(PathRemoveRequest { path: &new, recurse: true }).unwrap());
    remote.exit();
    assert!(!space.path("repo/dropped").exists());
}

#[test]
fn queries_are_answered_by_pgbackrest() {
    let Some(oracles) = oracles(&[15]) else { return };
    let space = Arc::new(Space::new());
    let mut cluster = Cluster::create(&space, oracles, 15, "pg", &[]);
    cluster.start();
    let config = space.write("remote.conf", "[global]\n");
    let arguments = [
        format!("--config={}", config.display()),
        format!("--pg1-path={}", cluster.data_text()),
        format!("--pg1-socket-path={}", cluster.socket()),
        "--pg1-user=postgres".to_owned(),
        "--remote-type=pg".to_owned(),
        "check:remote".to_owned(),
    ];
    let Some(mut remote) = Remote::start_with(&space, &arguments) else { return };
    let client = remote.client();
    let database = client.open_database().unwrap();
    let sql = "select false, null::text, -7, 1::int8 << 40, 0::oid, '', 'text'::name, null::bool";
    let row = client.query(&database, QueryRequest { expected: Expected::Row, sql }).unwrap().rows().next();
    let expected = [
        Column::Bool(false),
        Column::Null,
        Column::I32(-7),
        Column::I64(1 << 40),
        Column::U32(0),
        Column::Text(""),
        Column::Text("text"),
        Column::Null,
    ];
    assert_eq!(columns(&row.unwrap().unwrap(), expected.len()).unwrap(), expected);
    let error = client.query(&database, QueryRequest { expected: Expected::None, sql: "nonsense" }).unwrap_err();
    assert_eq!(error.code.number(), 57);
    let sql = "select * from pg_catalog.generate_series(1, 3)";
    let answer = client.query(&database, QueryRequest { expected: Expected::Any, sql }).unwrap();
    let rows: Vec<_> = answer.rows().map(|row| columns(&row.unwrap(), 1).unwrap()[0]).collect();
    assert_eq!(rows, [Column::I32(1), Column::I32(2), Column::I32(3)]);
    client.close_database(database).unwrap();
    remote.exit();
}

#[test]
fn connections_of_pgbackrest_decode_and_encode_to_the_same_bytes() {
    let Some(oracles) = oracles(&[15]) else { return };
    let space = Arc::new(Space::new());
    let cluster = Cluster::create(&space, oracles, 15, "pg", &[]);
    let program = oracles.pgbackrest.display().to_string();
    // In place of ssh: the last argument is the command line, and both directions are kept
    let captured = space.folder("captured").display().to_string();
    let ssh = format!(
        "#!/bin/bash\nname=$(mktemp {captured}/XXXXXX)\nexec sh -c \"exec ${{@: -1}}\" \
         < <(exec tee $name.c2s) > >(exec tee $name.s2c)\n"
    );
    let ssh = space.write("ssh", ssh);
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
    let text = |name: &str| space.text(name);
    let far = format!("[global]\nrepo1-path={}\nlock-path={}\n", text("repo"), text("lock"));
    let far = space.write("far.conf", far + "repo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=secret\n");
    let near = format!(
        "[global]\nrepo1-host=far\nrepo1-host-cmd={program}\nrepo1-host-config={}\ncmd-ssh={}\nlock-path={}\n\
         log-level-file=off\nrepo1-bundle=y\nrepo1-block=y\nrepo1-retention-full=1\n[demo]\npg1-path={}\n",
        far.display(),
        ssh.display(),
        space.folder("near-lock").display(),
        cluster.data_text()
    );
    let config = format!("--config={}", space.write("near.conf", near).display());
    let run = |arguments: &[&str]| {
        let arguments: Vec<&str> = [&config, "--stanza=demo"].into_iter().chain(arguments.iter().copied()).collect();
        space.run(&program, &arguments).success();
    };
    run(&["--no-online", "stanza-create"]);
    let mut content = vec![1; 1_000_000];
    space.write("pg/extra", &content);
    run(&["--no-online", "backup"]);
    // So that the next backup sends the block map of this one
    content[500_000] = 2;
    content.push(3);
    space.write("pg/extra", &content);
    run(&["--no-online", "--type=incr", "backup"]);
    run(&["verify"]);
    run(&["info"]);
    run(&["restore", "--delta"]);

    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for entry in fs::read_dir(space.path("captured")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "c2s") {
            let requests = fs::read(&path).unwrap();
            let answers = fs::read(path.with_extension("s2c")).unwrap();
            for (kind, count) in streams::count(&streams::check(&requests, &answers)) {
                *counts.entry(kind).or_default() += count;
            }
        }
    }
    for kind in ["StorageRead:Open", "StorageReadMany:Open", "StorageWrite:Close", "StorageList:Process"] {
        assert!(counts.contains_key(kind), "{kind} in {counts:#?}");
    }
}
