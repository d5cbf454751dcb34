//! Tricks and operations: no driver accepts anything that its store did not say.

use std::io::Read;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::stores::{ALL, CONTENT, Kind, http};
use super::{Asked, Gateway, Reply};
use crate::storage::{EntryKind, ReadRange, RepoPath, RepoStorage, WriteOptions, get, put};
use crate::{Error, ErrorCode, Result};

/// Longer than any answer takes.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
const LOGIN: &str = "<!DOCTYPE html>\n<html><head><title>Login</title></head><body><form/></body></html>";

pub(super) type Operation = fn(&dyn RepoStorage) -> Result<()>;

pub(super) fn at(path: &str) -> RepoPath {
    RepoPath::new(path).unwrap()
}

/// Two parts and some more.
pub(super) fn large() -> Vec<u8> {
    (0..(512u32 << 10) + 5).map(|at| (at >> 8) as u8).collect()
}

pub(super) fn list(storage: &dyn RepoStorage) -> Result<()> {
    let entries = storage.list(&at("folder"))?.unwrap_or_default();
    let found: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.kind, entry.size)).collect();
    assert_eq!(found, [("file", EntryKind::File, 10), ("path", EntryKind::Path, 0)]);
    Ok(())
}

fn names_after(storage: &dyn RepoStorage) -> Result<()> {
    assert_eq!(storage.names_after(&at("folder"), "a")?, ["file"]);
    Ok(())
}

pub(super) fn info(storage: &dyn RepoStorage) -> Result<()> {
    assert_eq!(storage.info(&at("file"))?.unwrap().size, 10);
    Ok(())
}

pub(super) fn read(storage: &dyn RepoStorage) -> Result<()> {
    assert_eq!(get(storage, &at("file"), 1 << 20)?.unwrap(), CONTENT.as_bytes());
    Ok(())
}

fn read_part(storage: &dyn RepoStorage) -> Result<()> {
    let (mut part, range) = (Vec::new(), ReadRange { offset: 2, limit: Some(4) });
    storage
        .read(&at("file"), range)?
        .unwrap()
        .read_to_end(&mut part)
        .map_err(|error| Error::from_io(ErrorCode::FileRead, "unable to read", error))?;
    assert_eq!(part, &CONTENT.as_bytes()[2..6]);
    Ok(())
}

pub(super) fn write(storage: &dyn RepoStorage) -> Result<()> {
    put(storage, &at("file"), b"data", WriteOptions::ATOMIC)
}

pub(super) fn write_large(storage: &dyn RepoStorage) -> Result<()> {
    put(storage, &at("file"), &large(), WriteOptions::ATOMIC)
}

fn remove(storage: &dyn RepoStorage) -> Result<()> {
    storage.remove(&at("file"))
}

fn remove_many(storage: &dyn RepoStorage) -> Result<()> {
    storage.remove_many(&["a", "b", "c"].map(at))
}

fn remove_all(storage: &dyn RepoStorage) -> Result<()> {
    storage.remove_all(&at("folder"))
}

const OPERATIONS: [(&str, Operation); 10] = [
    ("list", list),
    ("names after", names_after),
    ("info", info),
    ("read", read),
    ("read a part", read_part),
    ("write", write),
    ("write in parts", write_large),
    ("remove", remove),
    ("remove many", remove_many),
    ("remove all", remove_all),
];

#[test]
fn sound_store_is_believed() {
    for kind in ALL {
        let gateway = Gateway::start(move |asked| kind.answer(asked));
        let storage = kind.open(&gateway.url, http(LIMIT));
        for (name, operation) in OPERATIONS {
            operation(&*storage).unwrap_or_else(|error| panic!("{kind:?}, {name}: {error}"));
        }
    }
}

/// Answers that may replace any other answer.
fn tricks(elsewhere: &str) -> Vec<(&'static str, Reply)> {
    let html = ("content-type", "text/html; charset=utf-8");
    let (etag, modified) = (("etag", "\"6655a3b1-1a2\""), ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT"));
    let to = ("location", elsewhere);
    vec![
        ("login page", Reply::new(200, &[html], LOGIN)),
        ("login page from a file", Reply::new(200, &[html, etag, modified], LOGIN)),
        ("login page without a type", Reply::new(200, &[], LOGIN)),
        ("login page, created", Reply::new(201, &[html, etag], LOGIN)),
        ("login page, accepted", Reply::new(202, &[html, etag], LOGIN)),
        ("text", Reply::new(200, &[("content-type", "text/plain")], "hello")),
        ("nothing", Reply::new(200, &[], "")),
        ("no content that is some", Reply::new(203, &[etag, modified], "0123456789")),
        ("error with a success", Reply::new(200, &[], "<Error><Code>AccessDenied</Code><Message>no</Message></Error>")),
        ("other document", Reply::new(200, &[("content-type", "application/xml")], "<List><Item/></List>")),
        ("other JSON", Reply::new(200, &[("content-type", "application/json")], r#"{"error":"login","name":"x"}"#)),
        ("empty JSON", Reply::new(200, &[("content-type", "application/json")], "{}")),
        ("moved", Reply::new(301, &[to], "")),
        ("found", Reply::new(302, &[to], LOGIN)),
        ("see other", Reply::new(303, &[to], "")),
        ("temporary redirect", Reply::new(307, &[to], "")),
        ("permanent redirect", Reply::new(308, &[to], "")),
        ("redirect to nowhere", Reply::new(301, &[], "")),
        ("not modified", Reply::new(304, &[], "")),
        ("refused", Reply::new(403, &[html], LOGIN)),
        ("missing as a page", Reply::new(404, &[html], LOGIN)),
        (
            "missing as a text",
            Reply::new(404, &[("content-type", "text/plain; charset=utf-8")], "404 page not found\n"),
        ),
        ("missing as another document", Reply::new(404, &[], "<List><Code>NoSuchKey</Code></List>")),
        (
            "missing as JSON",
            Reply::new(404, &[("content-type", "application/json")], r#"{"message":"no route matched"}"#),
        ),
        ("missing without a word", Reply::new(404, &[], "")),
    ]
}

/// GCS says almost nothing when it has removed an object.
fn may_succeed(kind: Kind, trick: &str, operation: &str) -> bool {
    kind == Kind::Gcs && operation.starts_with("remove") && ["nothing", "empty JSON"].contains(&trick)
}

#[test]
fn answer_that_is_not_the_stores_is_an_error_at_once() {
    let (elsewhere, mut wrong) = (Gateway::start(|_| Reply::new(200, &[], "elsewhere")), Vec::new());
    for kind in ALL {
        for (trick, reply) in tricks(&format!("{}/login?token=x", elsewhere.url)) {
            let gateway = Gateway::start(move |_| reply.clone());
            let storage = kind.open(&gateway.url, http(LIMIT));
            for (name, operation) in OPERATIONS {
                let is_allowed = may_succeed(kind, trick, name);
                let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| operation(&*storage)));
                let requests = gateway.take().len();
                let case = format!("{kind:?}, {trick}, {name}");
                match caught {
                    Ok(Ok(())) if !is_allowed => wrong.push(format!("{case}: believed")),
                    // The content was checked and differs, or there is none
                    Err(_) if !is_allowed => wrong.push(format!("{case}: other content believed")),
                    Ok(Err(error)) if [ErrorCode::Service, ErrorCode::Assert].contains(&error.code) => {
                        wrong.push(format!("{case}: as if it would pass: {error}"));
                    }
                    Ok(Err(error)) if error.to_string().contains("session-token") => {
                        wrong.push(format!("{case}: shows a secret"));
                    }
                    _ => {}
                }
                if requests > 4 {
                    wrong.push(format!("{case}: {requests} requests"));
                }
            }
        }
    }
    assert_eq!(elsewhere.take(), Vec::<String>::new(), "redirects that were followed");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One wrong answer among correct ones.
pub(super) fn with_one(
    kind: Kind,
    is_meant: impl Fn(&Asked) -> bool + Send + Sync + 'static,
    change: impl Fn(Reply) -> Reply + Send + Sync + 'static,
) -> Gateway {
    Gateway::start(move |asked| {
        let reply = kind.answer(asked);
        if is_meant(asked) { change(reply) } else { reply }
    })
}

#[track_caller]
pub(super) fn fails(case: &str, kind: Kind, gateway: &Gateway, operation: Operation, code: ErrorCode, text: &str) {
    let error = operation(&*kind.open(&gateway.url, http(LIMIT))).expect_err(case);
    assert_eq!(error.code, code, "{case}: {error}");
    assert!(error.to_string().contains(text), "{case}: {error}");
}

#[test]
fn upload_in_parts_that_a_gateway_cuts_in_on_is_an_error() {
    let login = || Reply::new(200, &[("content-type", "text/html"), ("etag", "\"x\"")], LOGIN);
    let error = || Reply::new(200, &[], "<Error><Code>InvalidPart</Code><Message>no such part</Message></Error>");
    type Meant = (&'static str, Kind, fn(&Asked) -> bool);
    let meant: [Meant; 8] = [
        ("begin", Kind::S3, |asked| asked.query.contains("uploads")),
        ("part", Kind::S3, |asked| asked.query.contains("partNumber=2")),
        ("end", Kind::S3, |asked| asked.method == "POST" && asked.query.contains("uploadId")),
        ("part", Kind::Azure, |asked| asked.query.contains("comp=block&")),
        ("end", Kind::Azure, |asked| asked.query.contains("comp=blocklist")),
        ("begin", Kind::Gcs, |asked| asked.method == "POST"),
        ("part", Kind::Gcs, |asked| asked.method == "PUT"),
        ("end", Kind::Gcs, |asked| asked.header("content-range").is_some_and(|range| !range.ends_with('*'))),
    ];
    for (step, kind, is_meant) in meant {
        for reply in [login(), error()] {
            let gateway = with_one(kind, is_meant, move |_| reply.clone());
            let failed = write_large(&*kind.open(&gateway.url, http(LIMIT)));
            assert!(failed.is_err(), "{kind:?}, {step}");
            assert!(gateway.take().len() < 10, "{kind:?}, {step}");
        }
    }
    let gateway = with_one(Kind::S3, meant[2].2, move |_| error());
    fails("end", Kind::S3, &gateway, write_large, ErrorCode::Format, "InvalidPart no such part");
    let echo = || Reply::new(200, &[], "<Error><Code>Odd</Code><Message>session-token</Message></Error>");
    let gateway = with_one(Kind::S3, meant[2].2, move |_| echo());
    fails("echo", Kind::S3, &gateway, write_large, ErrorCode::Format, "Odd <redacted>");
}

#[test]
fn failure_within_a_success_that_may_pass_is_asked_for_again() {
    let failed = std::sync::atomic::AtomicBool::new(false);
    let gateway = with_one(
        Kind::S3,
        |asked| asked.method == "POST" && asked.query.contains("uploadId"),
        move |sound| match failed.swap(true, std::sync::atomic::Ordering::Relaxed) {
            false => Reply::new(200, &[], "<Error><Code>InternalError</Code><Message>again</Message></Error>"),
            true => sound,
        },
    );
    write_large(&*Kind::S3.open(&gateway.url, http(LIMIT))).unwrap();
}

#[test]
fn store_that_has_something_else_than_was_sent_is_found_out() {
    let tag = |_: Reply| Reply::new(200, &[("etag", "\"00000000000000000000000000000000\"")], "");
    let gateway = with_one(Kind::S3, |asked| asked.method == "PUT", tag);
    fails("S3", Kind::S3, &gateway, write, ErrorCode::Checksum, "something else than was sent");
    fails("S3, parts", Kind::S3, &gateway, write_large, ErrorCode::Checksum, "something else than was sent");
    // The ETag of content encrypted with another key is not a checksum
    let encrypted = |reply: Reply| Reply {
        headers: vec![
            ("etag", "\"00000000000000000000000000000000\"".into()),
            ("x-amz-server-side-encryption", "aws:kms".into()),
        ],
        ..reply
    };
    let gateway = with_one(Kind::S3, |asked| asked.method == "PUT", encrypted);
    write(&*Kind::S3.open(&gateway.url, http(LIMIT))).unwrap();
    let other = |_: Reply| Reply::new(201, &[("etag", "x"), ("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")], "");
    let gateway = with_one(Kind::Azure, |asked| asked.method == "PUT", other);
    fails("Azure", Kind::Azure, &gateway, write, ErrorCode::Checksum, "something else than was sent");
    let other = |_: Reply| Reply::new(200, &[], r#"{"name":"repo/file","crc32c":"AAAAAA==","size":"4"}"#);
    let gateway = with_one(Kind::Gcs, |asked| asked.method == "POST", other);
    fails("GCS", Kind::Gcs, &gateway, write, ErrorCode::Format, "expected crc32c");
}

#[test]
fn removal_that_does_not_tell_of_every_object_is_an_error() {
    let posted = |asked: &Asked| asked.method == "POST";
    let told = |keys: &[&str]| {
        let keys: String = keys.iter().map(|key| format!("<Deleted><Key>repo/{key}</Key></Deleted>")).collect();
        Reply::new(200, &[], format!("<DeleteResult>{keys}</DeleteResult>"))
    };
    for (keys, text) in [
        (&["a", "b"] as &[&str], "tells of 2 of 3 object(s)"),
        (&[], "tells of 0 of 3 object(s)"),
        (&["a", "b", "c", "d"], "'repo/d', which was not to be removed"),
    ] {
        let reply = told(keys);
        let gateway = with_one(Kind::S3, posted, move |_| reply.clone());
        fails(text, Kind::S3, &gateway, remove_many, ErrorCode::Format, text);
    }
    let denied = "<DeleteResult><Deleted><Key>repo/a</Key></Deleted><Deleted><Key>repo/b</Key></Deleted>\
        <Error><Key>repo/c</Key><Code>AccessDenied</Code><Message>not this one</Message></Error></DeleteResult>";
    let gateway = with_one(Kind::S3, posted, move |_| Reply::new(200, &[], denied));
    fails("denied", Kind::S3, &gateway, remove_many, ErrorCode::Protocol, "not this one");
    // Of Azure's parts, one is missing, and one is refused
    for (from, to, text) in [
        ("Content-ID: 1", "Content-ID: 0", "tells of 2 of 3 object(s)"),
        ("Content-ID: 1", "Content-ID: 7", "tells of 3 of 3 object(s)"),
        ("--batch\r\nContent-ID: 2\r\n\r\nHTTP/1.1 202 Accepted\r\n\r\n", "", "tells of 2 of 3 object(s)"),
        ("Content-ID: 2\r\n\r\nHTTP/1.1 202 Accepted", "Content-ID: 2\r\n\r\nHTTP/1.1 403 Forbidden", "403"),
    ] {
        let change = move |reply: Reply| {
            let body = String::from_utf8_lossy(&reply.body).replace(from, to);
            Reply { body: body.into(), ..reply }
        };
        let gateway = with_one(Kind::Azure, posted, change);
        let error = remove_many(&*Kind::Azure.open(&gateway.url, http(LIMIT))).expect_err(text);
        assert!(error.message.contains(text), "{text}: {error}");
    }
}

#[test]
fn listing_of_another_place_or_half_of_one_is_no_listing() {
    for kind in ALL {
        let other =
            with_one(kind, move |asked| kind.is_listing(asked), move |_| kind.page("other/", &["other/file"], &[]));
        fails("other", kind, &other, list, ErrorCode::Format, "other/");
        let half = with_one(
            kind,
            move |asked| kind.is_listing(asked),
            |reply| Reply { body: reply.body[..reply.body.len() - 15].to_vec(), ..reply },
        );
        let error = list(&*kind.open(&half.url, http(LIMIT))).expect_err("half");
        assert!([ErrorCode::Format, ErrorCode::JsonFormat].contains(&error.code), "{kind:?}: {error}");
    }
}

#[test]
fn name_with_control_characters_is_that_of_the_object() {
    let name = "odd\u{1}\t\u{7f}+%";
    for kind in ALL {
        let gateway = Gateway::start(move |asked| {
            let (prefix, list) = ("repo/folder/", kind.is_listing(asked));
            match kind {
                Kind::S3 if list => kind.page(prefix, &[&format!("{prefix}odd&#x1;&#9;&#x7f;+%")], &[]),
                Kind::Azure if list => {
                    let page = kind.page(prefix, &[&format!("{prefix}odd%01%09%7F+%25")], &[]);
                    let page = String::from_utf8(page.body).unwrap();
                    Reply::new(200, &[], page.replace("<Name>", "<Name Encoded=\"true\">"))
                }
                Kind::Gcs if list => kind.page(prefix, &[&format!("{prefix}{name}")], &[]),
                Kind::Gcs if ["GET", "POST"].contains(&asked.method.as_str()) && !asked.query.contains("media") => {
                    let content = if asked.method == "GET" { CONTENT } else { "data" };
                    let item = super::stores::description(&format!("{prefix}{name}"), content.as_bytes());
                    Reply::new(200, &[], item.to_string())
                }
                _ => kind.answer(asked),
            }
        });
        let storage = kind.open(&gateway.url, http(LIMIT));
        let path = at("folder").join(name).unwrap();
        let found = storage.list(&at("folder")).unwrap().unwrap();
        assert_eq!(found.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), [name], "{kind:?}");
        assert_eq!(storage.list_files(&at("folder")).unwrap()[0].path, name, "{kind:?}");
        gateway.take();
        put(&*storage, &path, b"data", WriteOptions::ATOMIC).unwrap();
        assert_eq!(get(&*storage, &path, 100).unwrap().unwrap(), CONTENT.as_bytes(), "{kind:?}");
        assert_eq!(storage.info(&path).unwrap().unwrap().name, name, "{kind:?}");
        storage.remove(&path).unwrap();
        let asked = gateway.take();
        let own = format!("folder/{name}");
        let methods: Vec<_> =
            asked.iter().filter(|line| line.ends_with(&own)).filter_map(|line| line.split(' ').next()).collect();
        let expected: &[&str] =
            if kind == Kind::Gcs { &["GET", "GET", "DELETE"] } else { &["PUT", "GET", "HEAD", "DELETE"] };
        assert_eq!(methods, expected, "{kind:?}: {asked:#?}");
        storage.remove_many(&[at("plain"), path.clone(), at("other")]).unwrap();
        storage.remove_all(&at("folder")).unwrap();
        assert_eq!(storage.check_name(&path).is_ok(), kind != Kind::Azure);
        assert_eq!(storage.check_name(&at("new\nline")).is_ok(), kind == Kind::S3);
    }
}

#[test]
fn foreign_keys_keep_nobody_from_a_listing() {
    for kind in ALL {
        let gateway = with_one(
            kind,
            move |asked| kind.is_listing(asked),
            move |_| {
                let prefix = "repo/folder/";
                let foreign =
                    ["repo/folder/", "repo/folder//x", "repo/folder/./y", "repo/folder/../z", "repo/folder/file"];
                kind.page(prefix, &foreign, &["repo/folder//", "repo/folder/./", "repo/folder/path/"])
            },
        );
        let storage = kind.open(&gateway.url, http(LIMIT));
        list(&*storage).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert_eq!(storage.names_after(&at("folder"), "a").unwrap(), ["file"], "{kind:?}");
        storage.remove_all(&at("folder")).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
    }
}

#[test]
fn object_that_is_replaced_while_it_is_read_is_an_error() {
    for kind in ALL {
        let is_first = std::sync::atomic::AtomicBool::new(true);
        // Ignores conditions and generations
        let gateway = Gateway::start(move |asked| {
            let mut reply = kind.answer(asked);
            if is_first.swap(false, std::sync::atomic::Ordering::Relaxed) {
                reply.body.truncate(4);
                return Reply { missing: 6, ..reply };
            }
            for (name, value) in &mut reply.headers {
                match *name {
                    "etag" => *value = "\"tag-2\"".to_owned(),
                    "x-goog-generation" => *value = "8".to_owned(),
                    _ => {}
                }
            }
            reply
        });
        let read = get(&*kind.open(&gateway.url, http(LIMIT)), &at("file"), 1 << 20);
        assert!(read.is_err(), "{kind:?}: {read:?}");
        assert!(gateway.take().len() <= 3, "{kind:?}");
    }
}

#[test]
fn old_version_is_read_on_as_that_version_after_a_break() {
    for (kind, parameter) in [(Kind::S3, "versionId"), (Kind::Azure, "versionid")] {
        let asked_for = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked_for);
        let gateway = Gateway::start(move |asked| {
            let mut seen = kept.lock().unwrap();
            seen.push(asked.parameter(parameter));
            let mut reply = kind.answer(asked);
            if seen.len() == 1 {
                // A proper end, which the library behind the driver does not resume
                reply.body.truncate(4);
            }
            reply
        });
        let storage = kind.open(&gateway.url, http(LIMIT));
        let range = ReadRange { offset: 0, limit: Some(10) };
        let mut content = String::new();
        let found = storage.versions().unwrap().read_version(&at("file"), range, "v-1").unwrap();
        found.unwrap().read_to_string(&mut content).unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        assert_eq!(content, CONTENT, "{kind:?}");
        let asked_for = asked_for.lock().unwrap();
        assert_eq!(*asked_for, [Some("v-1".to_owned()), Some("v-1".to_owned())], "{kind:?}");
    }
}

#[test]
fn bucket_that_is_not_there_is_no_missing_file() {
    let none = |code: &str| Reply::new(404, &[], format!("<Error><Code>{code}</Code><Message>gone</Message></Error>"));
    for (kind, code, missing) in
        [(Kind::S3, "NoSuchBucket", "NoSuchKey"), (Kind::Azure, "ContainerNotFound", "BlobNotFound")]
    {
        let reply = none(code);
        let gateway = Gateway::start(move |_| reply.clone());
        fails(code, kind, &gateway, read, ErrorCode::Protocol, code);
        let reply = none(missing);
        let gateway = Gateway::start(move |_| reply.clone());
        assert!(get(&*kind.open(&gateway.url, http(LIMIT)), &at("file"), 10).unwrap().is_none(), "{missing}");
    }
}

#[test]
fn bucket_of_gcs_that_is_not_there_is_no_missing_file() {
    let html = [("content-type", "text/html; charset=UTF-8")];
    let gateway = Gateway::start(move |_| Reply::new(404, &html, "The specified bucket does not exist."));
    for (name, operation) in [("read", read as Operation), ("info", info), ("remove", remove)] {
        fails(name, Kind::Gcs, &gateway, operation, ErrorCode::Protocol, "The specified bucket does not exist.");
    }
    let gateway = Gateway::start(move |_| Reply::new(404, &html, "No such object: bucket/repo/file"));
    assert!(get(&*Kind::Gcs.open(&gateway.url, http(LIMIT)), &at("file"), 10).unwrap().is_none());
    // An emulator, which says the same of both
    let nothing = || Reply::new(404, &[], r#"{"error":{"code":404,"message":"Not Found"}}"#);
    let gateway = Gateway::start(move |_| nothing());
    fails(
        "read",
        Kind::Gcs,
        &gateway,
        read,
        ErrorCode::Protocol,
        "GET /storage/v1/b/bucket/o?fields=kind&maxResults=1",
    );
    let gateway = with_one(Kind::Gcs, |asked| !Kind::Gcs.is_listing(asked), move |_| nothing());
    let storage = Kind::Gcs.open(&gateway.url, http(LIMIT));
    for asked in [2, 1] {
        assert!(get(&*storage, &at("file"), 10).unwrap().is_none());
        assert_eq!(gateway.take().len(), asked, "the bucket is looked for once");
    }
}

#[test]
fn object_that_is_not_there_by_an_answer_without_words_is_asked_for_with_words() {
    // S3 numbers its answers
    let numbered = [("x-amz-request-id", "1")];
    for (head, asked) in [(Reply::new(404, &numbered, ""), 1), (Reply::new(404, &[], ""), 2)] {
        let gateway = Gateway::start(move |asked| match asked.method.as_str() {
            "HEAD" => head.clone(),
            _ => Reply::new(404, &[], "<Error><Code>NoSuchKey</Code></Error>"),
        });
        assert!(Kind::S3.open(&gateway.url, http(LIMIT)).info(&at("file")).unwrap().is_none());
        assert_eq!(gateway.take().len(), asked);
    }
    let gateway = with_one(Kind::S3, |asked| asked.method == "HEAD", |_| Reply::new(404, &[], ""));
    fails("other word", Kind::S3, &gateway, info, ErrorCode::Format, "and that there is one");
}

#[test]
fn refusal_shows_path_request_id_and_message_but_no_secret() {
    for (kind, secret) in [(Kind::S3, "session-token"), (Kind::Azure, "SharedKey"), (Kind::Gcs, "bearer-token")] {
        let gateway = Gateway::start(|asked| {
            let headers: Vec<String> = asked.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            let echo = format!("it was said {}", headers.join(" "));
            let body = format!("<Error><Code>SignatureDoesNotMatch</Code><Message>{echo}</Message></Error>");
            Reply::new(403, &[("x-amz-request-id", "4442587FB7D0A2F9"), ("x-ms-request-id", "4442587FB7D0A2F9")], body)
        });
        for (name, operation) in [("list", list as Operation), ("read", read), ("write", write)] {
            let error = operation(&*kind.open(&gateway.url, http(LIMIT))).expect_err(name).to_string();
            for text in
                ["HTTP request failed with 403 (Forbidden):", "bucket", "request-id: 4442587FB7D0A2F9", "it was said"]
            {
                assert!(error.contains(text), "{kind:?}, {name}, {text}: {error}");
            }
            assert!(!error.contains(secret) && error.contains("<redacted>"), "{kind:?}, {name}: {error}");
        }
    }
}

#[test]
fn answer_that_is_cut_or_does_not_come_is_an_error_that_may_pass() {
    for kind in ALL {
        let cut = with_one(kind, |_| true, |reply| Reply { missing: 5, ..reply });
        let slow = Gateway::start(|_| {
            std::thread::sleep(Duration::from_secs(20));
            Reply::new(200, &[], "")
        });
        for (gateway, name) in [(&cut, "cut"), (&slow, "slow")] {
            let storage = kind.open(&gateway.url, http(Duration::from_millis(300)));
            let error = list(&*storage).expect_err(name);
            assert_eq!(error.code, ErrorCode::Service, "{kind:?}, {name}: {error}");
            assert!(write(&*storage).is_err(), "{kind:?}, {name}");
        }
    }
}
