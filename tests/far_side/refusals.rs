//! What a client of rbr may not do.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use protocol::Call;
use protocol::database::{Expected, QueryRequest};
use protocol::filter::{Codec, CompressFilter, Filter};
use protocol::options::OptionsRequest;
use protocol::storage::{
    FileInfoRequest, InfoLevel, LinkRequest, LinkType, ListRequest, PathRemoveRequest, ReadRequest, RemoveRequest,
    WriteRequest,
};

use super::answers::Served;
use crate::env::{Space, oracles};

/// The number of the error for what is out of reach.
const ACCESS: i32 = 105;

fn read(path: &str) -> Call<'_> {
    Call::ReadOpen(ReadRequest { path, offset: 0, limit: None, version: None, filters: Vec::new() })
}

fn write(path: &str) -> Call<'_> {
    Call::WriteOpen(WriteRequest {
        path,
        file_mode: 0o640,
        path_mode: 0o750,
        user: None,
        group: None,
        modified: 0,
        create_path: true,
        sync_file: false,
        sync_path: false,
        is_atomic: false,
        filters: Vec::new(),
    })
}

#[test]
fn client_reaches_nothing_outside_of_its_stanza() {
    if oracles(&[]).is_none() {
        return;
    }
    let space = Space::new();
    for folder in ["repo/backup/demo", "repo/backup/other", "repo/archive/demo", "elsewhere"] {
        space.folder(folder);
    }
    fs::write(space.path("elsewhere/secret"), "secret").unwrap();
    fs::write(space.path("repo/backup/other/backup.info"), "secret").unwrap();
    symlink(space.path("elsewhere"), space.path("repo/backup/demo/out")).unwrap();
    symlink(space.path("repo/backup"), space.path("repo/backup/demo/all")).unwrap();
    let options = ["--repo=1", "--log-level-file=warn", "info:remote"];
    let mut served = Served::start(&space, &space.path("bin/rbr"), "repo", &options);
    served.ask(&Call::Features, None);
    let text = |path: &str| space.text(path);
    for path in [
        "/etc/passwd".to_owned(),
        text("elsewhere/secret"),
        format!("{}/../elsewhere/secret", text("repo")),
        text("repo/backup/other/backup.info"),
        text("repo/backup/demo/all/other/backup.info"),
        text("repo/backup/demo/out/secret"),
    ] {
        for call in [
            read(&path),
            write(&path),
            Call::Info(FileInfoRequest { path: &path, level: InfoLevel::Basic, follow_link: true }),
            Call::List(ListRequest { path: &path, level: InfoLevel::Basic, target_time: 0 }),
            Call::Remove(RemoveRequest { path: &path, error_on_missing: false }),
            Call::PathRemove(PathRemoveRequest { path: &path, recurse: true }),
        ] {
            let (code, message) = served.refuses(&call);
            assert_eq!(code, ACCESS, "{message}");
            assert!(message.starts_with(&format!("access to '{path}' denied: ")), "{message}");
        }
    }
    for path in ["repo", "repo/backup"] {
        let path = text(path);
        assert_eq!(served.refuses(&Call::PathRemove(PathRemoveRequest { path: &path, recurse: true })).0, ACCESS);
    }
    let link = text("repo/backup/demo/new");
    for target in ["/etc", "../other", "../../..", "backup.info"] {
        let request = LinkRequest { target, path: &link, link_type: LinkType::Symbolic };
        assert_eq!(served.refuses(&Call::Link(request)).0, ACCESS, "{target}");
    }
    // What the server's user can't read is no link
    let closed = space.folder("repo/backup/demo/closed");
    let file = text("repo/backup/demo/closed/backup.manifest");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let (code, message) = served.refuses(&read(&file));
    assert_eq!((code, message), (41, format!("unable to open file '{file}' for read: [13] Permission denied")));
    fs::remove_dir(&closed).unwrap();
    let existing = text("repo/backup/other/backup.info");
    let request = LinkRequest { target: &existing, path: &link, link_type: LinkType::Hard };
    assert_eq!(served.refuses(&Call::Link(request)).0, ACCESS);
    assert_eq!(served.refuses(&Call::DatabaseOpen).0, ACCESS);
    for name in ["repo1-path", "repo1-s3-key-secret", "log-path"] {
        assert_eq!(served.refuses(&Call::Options(OptionsRequest { names: vec![name] })).0, ACCESS, "{name}");
    }
    let log = fs::read_to_string(space.path("log/demo-info-remote-000.log")).unwrap();
    for text in ["access to '/etc/passwd' denied", "option 'log-path' is not for clients", "PostgreSQL denied"] {
        assert!(log.contains(text), "{log}");
    }
    assert_eq!(fs::read_to_string(space.path("elsewhere/secret")).unwrap(), "secret");
    assert_eq!(fs::read_dir(space.path("elsewhere")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(space.path("repo/backup/demo")).unwrap().count(), 2);
}

#[test]
fn client_of_a_data_directory_changes_nothing_and_reads_nothing_else() {
    if oracles(&[]).is_none() {
        return;
    }
    let space = Space::new();
    space.folder("pg/base");
    space.folder("tablespace");
    fs::write(space.path("pg/base/1"), "data").unwrap();
    fs::write(space.path("tablespace/2"), "data").unwrap();
    symlink(space.path("tablespace"), space.path("pg/ts")).unwrap();
    let path = format!("--pg1-path={}", space.text("pg"));
    let mut served = Served::start(&space, &space.path("bin/rbr"), "pg", &[&path, "backup:remote"]);
    served.ask(&Call::Features, None);
    for file in ["pg/base/1", "pg/ts/2"] {
        let path = space.text(file);
        let answer = served.ask(&read(&path), None);
        assert!(answer.windows(4).any(|part| part == b"data"), "{file}: {answer:02x?}");
    }
    for path in ["/etc/passwd".to_owned(), space.text("tablespace/2"), format!("{}/../x", space.text("pg"))] {
        assert_eq!(served.refuses(&read(&path)).0, ACCESS, "{path}");
    }
    let file = space.text("pg/base/1");
    for call in
        [write(&file), Call::Remove(RemoveRequest { path: &file, error_on_missing: true }), Call::PathSync(&file)]
    {
        let (code, message) = served.refuses(&call);
        assert_eq!((code, message.ends_with("is not changed from another host")), (ACCESS, true), "{message}");
    }
    assert_eq!(fs::read_to_string(space.path("pg/base/1")).unwrap(), "data");
}

#[test]
fn statement_that_is_none_of_a_backup_is_refused() {
    use crate::env::{Scenario, ScenarioOptions};
    let Some(scenario) = Scenario::start(ScenarioOptions::default()) else { return };
    let space = &scenario.space;
    let options = [
        format!("--pg1-path={}", scenario.cluster.data_text()),
        format!("--pg1-socket-path={}", scenario.cluster.socket()),
        "--pg1-user=postgres".to_owned(),
        "check:remote".to_owned(),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut served = Served::start(space, &space.path("bin/rbr"), "pg", &options);
    served.ask(&Call::DatabaseOpen, None);
    let session = 2;
    let mut query = |sql: &str| {
        let answer = served.ask(&Call::DatabaseQuery(QueryRequest { expected: Expected::Any, sql }), Some(session));
        protocol::AnswerMessage::decode(&answer)
            .unwrap()
            .outcome
            .err()
            .map(|error| (error.code, error.message.into_owned()))
    };
    assert_eq!(query("select 1::int4"), None);
    for sql in
        ["drop table plain", "copy plain to '/tmp/x'", "select pg_read_file('x')", "select 1::int4; drop table plain"]
    {
        assert_eq!(query(sql).map(|(code, _)| code), Some(ACCESS), "{sql}");
    }
    assert_eq!(scenario.cluster.sql("select count(*) from plain").trim(), "20000");
}

#[test]
fn filters_that_need_too_much_memory_are_refused() {
    if oracles(&[]).is_none() {
        return;
    }
    let space = Space::new();
    fs::write(space.folder("repo/backup/demo").join("file"), vec![7; 3_000_000]).unwrap();
    let mut served = Served::start(&space, &space.path("bin/rbr"), "repo", &["--repo=1", "info:remote"]);
    served.ask(&Call::Features, None);
    let path = space.text("repo/backup/demo/file");
    let zst = Filter::Compress(CompressFilter { codec: Codec::Zst, level: 22, is_raw: false });
    let request = ReadRequest { path: &path, offset: 0, limit: None, version: None, filters: vec![zst; 3] };
    let (code, message) = served.refuses(&Call::ReadOpen(request));
    assert_eq!((code, message.as_str()), (94, "sessions of this connection need too much memory"));
}
