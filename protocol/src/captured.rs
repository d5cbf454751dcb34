//! Streams that pgBackRest 2.60.0 wrote and read (`tests/fixtures/protocol/README.md`).

mod streams;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::call::CallKind;
use crate::filter::FilterResult;
use crate::storage::{
    Chunk, FileInfoRequest, FileKind, Info, InfoAnswer, InfoLevel, ListAnswer, ReadAnswer, ReadRequest, WriteRequest,
};
use crate::{AnswerMessage, Call};

/// The streams of a connection.
struct Captured {
    requests: Vec<u8>,
    answers: Vec<u8>,
}

impl Captured {
    fn read(name: &str) -> Self {
        let path = folder().join(name);
        let read = |extension: &str| std::fs::read(path.with_extension(extension)).unwrap();
        Captured { requests: read("c2s"), answers: read("s2c") }
    }

    fn exchanges(&self) -> Vec<streams::Exchange<'_>> {
        streams::check(&self.requests, &self.answers)
    }
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/protocol"))
}

#[test]
fn captured_streams_decode_and_encode_to_the_same_bytes() {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for entry in folder().read_dir().unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(name) = name.strip_suffix(".c2s") {
            println!("{name}");
            let captured = Captured::read(name);
            for (kind, count) in streams::count(&captured.exchanges()) {
                *counts.entry(kind).or_default() += count;
            }
        }
    }
    for command in CallKind::ALL {
        assert!(counts.keys().any(|kind| kind.starts_with(&format!("{command:?}:"))), "{command:?} in {counts:#?}");
    }
    assert!(counts.contains_key("Error"), "{counts:#?}");
}

/// The data of the answer to the first call that `wanted` takes.
fn data<'a>(exchanges: &[streams::Exchange<'a>], wanted: impl Fn(&Call<'a>) -> bool) -> (Option<&'a [u8]>, bool) {
    let (_, answer) = exchanges.iter().find(|(call, _)| wanted(call)).expect("such a call");
    let answer: &AnswerMessage<'a> = answer.as_ref().unwrap();
    (*answer.outcome.as_ref().unwrap(), answer.is_closed)
}

fn read_chunk<'a>(exchanges: &[streams::Exchange<'a>], file: &str) -> Chunk<'a> {
    let (data, is_closed) = data(
        exchanges,
        |call| matches!(call, Call::ReadOpen(ReadRequest { path, .. }) if path.rsplit('/').next() == Some(file)),
    );
    match ReadAnswer::decode(data, is_closed).unwrap() {
        ReadAnswer::Chunk(chunk) => chunk,
        ReadAnswer::Missing => panic!("{file} is missing"),
    }
}

#[test]
fn captured_answers_have_the_content_of_the_files() {
    let captured = Captured::read("by-hand");
    let exchanges = captured.exchanges();
    assert_eq!(read_chunk(&exchanges, "f").data, b"ell");
    let empty = read_chunk(&exchanges, "e");
    assert_eq!(empty.data, b"");
    let md5 = *b"\xd4\x1d\x8c\xd9\x8f\x00\xb2\x04\xe9\x80\x09\x98\xec\xf8\x42\x7e";
    let results = empty.results.unwrap();
    assert_eq!(results[..2], [FilterResult::Hash(&md5), FilterResult::Size(0)]);
    let pages = read_chunk(&exchanges, "pages").results.unwrap();
    let Some(FilterResult::PageCheck(found)) = pages.get(1) else { panic!("{pages:?}") };
    assert_eq!((found.errors.as_slice(), found.is_valid, found.is_aligned), ([2, 5].as_slice(), false, true));
    let (missing, is_closed) =
        data(&exchanges, |call| matches!(call, Call::ReadOpen(ReadRequest { path, .. }) if path.ends_with("/none")));
    assert_eq!(ReadAnswer::decode(missing, is_closed).unwrap(), ReadAnswer::Missing);
}

#[test]
fn captured_lists_have_kinds_owners_and_links() {
    let captured = Captured::read("by-hand");
    let exchanges = captured.exchanges();
    let (list, _) = data(&exchanges, |call| matches!(call, Call::List(request) if request.level == InfoLevel::Detail));
    let entries: BTreeMap<&str, Info<'_>> = ListAnswer::decode(list, InfoLevel::Detail)
        .unwrap()
        .entries
        .unwrap()
        .map(|entry| entry.map(|entry| (entry.name, entry.info)).unwrap())
        .collect();
    let kinds: Vec<_> = entries.iter().map(|(name, info)| (*name, info.kind)).collect();
    let expected = [
        ("d", FileKind::Path),
        ("e", FileKind::File(0)),
        ("f", FileKind::File(5)),
        ("fifo", FileKind::Special),
        ("mib", FileKind::File(1 << 20)),
        ("pages", FileKind::File(65536)),
        ("sym", FileKind::Link),
    ];
    assert_eq!(kinds, expected);
    let times: Vec<i64> = entries.values().map(|info| info.modified).collect();
    assert!(times.iter().all(|time| time.abs_diff(times[0]) < 10), "{times:?}");
    for (name, info) in &entries {
        let detail = info.detail.unwrap();
        assert_eq!((detail.user.name, detail.group.name), (Some("postgres"), Some("postgres")), "{name}");
        assert_eq!(detail.link_target, (*name == "sym").then_some("f"));
    }
    assert_eq!(entries["f"].detail.unwrap().mode, 0o644);
    assert_eq!(entries["sym"].detail.unwrap().mode, 0o777);
    let (info, _) = data(
        &exchanges,
        |call| matches!(call, Call::Info(FileInfoRequest { path, follow_link: true, .. }) if path.ends_with("/sym")),
    );
    assert_eq!(InfoAnswer::decode(info, InfoLevel::Detail).unwrap().info.unwrap().kind, FileKind::File(5));
}

#[test]
fn captured_chunks_join_to_the_file() {
    let captured = Captured::read("chunks");
    let mut content = Vec::new();
    let mut last = None;
    for (call, answer) in captured.exchanges() {
        let Some(AnswerMessage { outcome: Ok(data), is_closed, .. }) = answer else { continue };
        let chunk = match call {
            Call::ReadOpen(_) => match ReadAnswer::decode(data, is_closed).unwrap() {
                ReadAnswer::Chunk(chunk) => chunk,
                ReadAnswer::Missing => panic!("missing"),
            },
            Call::ReadNext => Chunk::decode(data, is_closed).unwrap(),
            _ => continue,
        };
        content.extend_from_slice(chunk.data);
        last = chunk.results;
    }
    assert_eq!(content.len(), 32768);
    assert!(last.is_some());
}

#[test]
fn captured_errors_have_their_numbers() {
    let numbers = |name: &str| -> Vec<u8> {
        let captured = Captured::read(name);
        let exchanges = captured.exchanges();
        let errors = exchanges.iter().filter_map(|(_, answer)| answer.as_ref()?.outcome.as_ref().err());
        errors.map(|error| error.to_error("h").code.number()).collect()
    };
    assert_eq!(numbers("by-hand"), [47, 61, 73, 60, 39, 55, 25]);
    assert_eq!(numbers("stop"), [62]);
    assert_eq!(numbers("tls-denied"), [105]);
}

#[test]
fn captured_write_has_its_attributes() {
    let captured = Captured::read("by-hand");
    let exchanges = captured.exchanges();
    let Some((Call::WriteOpen(request), _)) = exchanges.iter().find(|(call, _)| matches!(call, Call::WriteOpen(_)))
    else {
        panic!("no write");
    };
    let WriteRequest { file_mode, path_mode, user, group, modified, is_atomic, .. } = request;
    assert_eq!((*file_mode, *path_mode, *user, *group), (0o640, 0o750, Some("postgres"), Some("postgres")));
    assert_eq!((*modified, *is_atomic), (1_700_000_000, true));
    let write =
        exchanges.iter().find_map(|(call, _)| if let Call::WriteBlock(block) = call { Some(*block) } else { None });
    assert_eq!(write, Some(b"data".as_slice()));
}
