//! The records of real servers, compared with what their `pg_waldump` says, and damaged WAL.

use std::fmt::Write as _;
use std::path::PathBuf;

use proptest::prelude::*;

use super::page::LongHeader;
use super::*;
use crate::wal_name::{Lsn, WalSegment};

const VERSIONS_SEEN: [(&str, PgVersion); 4] =
    [("13", PgVersion::V13), ("15", PgVersion::V15), ("17", PgVersion::V17), ("18", PgVersion::V18)];
const SEGMENT_BYTES: u32 = 1 << 20;

fn fixtures(version: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/pg/wal")).join(version)
}

/// The segments of a version, in order.
fn segments(version: &str) -> Vec<(WalSegment, Vec<u8>)> {
    let mut segments: Vec<_> = std::fs::read_dir(fixtures(version))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "zst"))
        .map(|path| {
            let plain = zstd::decode_all(std::fs::File::open(&path).unwrap()).unwrap();
            (path.file_stem().unwrap().to_str().unwrap().parse().unwrap(), plain)
        })
        .collect();
    segments.sort();
    segments
}

fn stream(version: PgVersion, segments: &[(WalSegment, Vec<u8>)], end: Lsn) -> RecordStream {
    let (segment, plain) = &segments[0];
    RecordStream::new(StreamStart::parse(&plain[..8192], *segment, version).unwrap(), end)
}

/// Reads segments of one timeline, and returns the events as text.
fn read(stream: &mut RecordStream, segments: &[(WalSegment, Vec<u8>)], version: PgVersion) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (segment, plain) in segments {
        let begin = segment.start_lsn(SEGMENT_BYTES).0;
        for (number, page) in (0u64..).zip(plain.chunks(8192)) {
            if stream.next_page() != Lsn(begin + number * 8192) {
                continue;
            }
            stream.page(page, &mut |record| {
                if let Some(event) = WalEvent::decode(record, version)? {
                    lines.push(shown(record, &event));
                }
                Ok(())
            })?;
        }
    }
    Ok(lines)
}

fn list<T: std::fmt::Debug>(items: impl Iterator<Item = T>) -> String {
    items.map(|item| format!(" {item:?}")).collect()
}

fn file(file: RelFile) -> String {
    format!("{}/{}", file.database, file.number)
}

/// An event in the form of [`expected`].
fn shown(record: &Record<'_>, event: &WalEvent<'_>) -> String {
    let mut text = format!("{:?} ", record.lsn);
    let xact = |text: &mut String, xact: &Xact<'_>| {
        write!(text, "{} {}", xact.xid, xact.time.unix_micros()).unwrap();
        write!(text, " files{}", list(xact.removed_files().map(file))).unwrap();
        write!(text, " sub{}", list(xact.subtransactions())).unwrap();
        write!(text, " dropped{}", list(xact.dropped_relations().into_iter().flatten())).unwrap();
        write!(text, " changed{}", list(xact.changed_relations())).unwrap();
        write!(text, " origin{}", list(xact.origin.into_iter().map(|(lsn, time)| (lsn, time.unix_micros())))).unwrap();
    };
    match event {
        WalEvent::Commit(commit) => {
            text += "commit ";
            xact(&mut text, commit);
        }
        WalEvent::Abort(abort) => {
            text += "abort ";
            xact(&mut text, abort);
        }
        WalEvent::RestorePoint { name, .. } => write!(text, "point {}", String::from_utf8_lossy(name)).unwrap(),
        WalEvent::EndOfRecovery { time, timeline, previous } => {
            write!(text, "recovered {} {} {}", timeline.0, previous.0, time.unix_micros()).unwrap();
        }
        WalEvent::Checkpoint { redo, timeline, previous, .. } => {
            write!(text, "checkpoint {redo:?} {} {}", timeline.0, previous.0).unwrap();
        }
        WalEvent::Switch => text += "switch",
        WalEvent::FileCreated { xid, file: created } => write!(text, "create {xid} {:?}", file(*created)).unwrap(),
        WalEvent::FileShortened { file: shortened, blocks } => {
            write!(text, "shorten {:?} {blocks}", file(*shortened)).unwrap();
        }
        WalEvent::Truncate { xid, tables, .. } => write!(text, "truncate {xid}{}", list(tables.iter())).unwrap(),
        WalEvent::DatabaseDropped { .. } => text += "database",
    }
    text
}

/// Microseconds since the epoch of `2026-11-29 19:12:31.562984 UTC`.
fn micros(text: &str) -> i64 {
    let numbers: Vec<i64> = text.split(['-', ' ', ':', '.']).take(7).map(|number| number.parse().unwrap()).collect();
    let [year, month, day, hour, minute, second, micros] = numbers[..] else { panic!("{text}") };
    // Days since the epoch, with years that begin in March
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + micros
}

/// The words after `key` in a description whose parts are separated by semicolons.
fn words<'t>(desc: &'t str, key: &str) -> impl Iterator<Item = &'t str> {
    let part = desc.split("; ").find_map(|part| part.strip_prefix(key)).unwrap_or("");
    part.split(' ').filter(|word| !word.is_empty())
}

fn expected_xact(xid: &str, desc: &str) -> String {
    let number = |word: &str| word.parse::<u32>().unwrap();
    let files = words(desc, "rels:").map(|path| path.strip_prefix("base/").unwrap().to_owned());
    let dropped = words(desc, "dropped stats:").filter_map(|item| item.strip_prefix("2/"));
    let dropped = dropped.map(|item| number(item.split('/').nth(1).unwrap()));
    let invalidations: Vec<_> = words(desc, "inval msgs:").collect();
    let changed = invalidations.chunks(2).filter(|pair| pair[0] == "relcache").map(|pair| number(pair[1]));
    let origin = desc.split("origin: node 1, lsn ").nth(1).map(|origin| {
        let (lsn, time) = origin.split_once(", at ").unwrap();
        (lsn.parse::<Lsn>().unwrap(), micros(time.trim_end_matches(" UTC")))
    });
    let time = micros(desc.split(" UTC").next().unwrap());
    format!(
        "{xid} {time} files{} sub{} dropped{} changed{} origin{}",
        list(files),
        list(words(desc, "subxacts:").map(number)),
        list(dropped),
        list(changed),
        list(origin.into_iter())
    )
}

/// A line of `pg_waldump` in the form of [`shown`].
fn expected(line: &str) -> String {
    let part = |before: &str, after: &str| line.split(before).nth(1).unwrap().split(after).next().unwrap();
    let lsn: Lsn = part("lsn: ", ",").parse().unwrap();
    let xid = part("tx: ", ",");
    let (kind, desc) = part("desc: ", "\n").split_once(' ').unwrap();
    let path = || desc.split([' ', ';']).next().unwrap().strip_prefix("base/").unwrap();
    let what = match (kind, line.starts_with("rmgr: Heap")) {
        ("COMMIT", _) => format!("commit {}", expected_xact(xid, desc)),
        ("ABORT", _) => format!("abort {}", expected_xact(xid, desc)),
        ("COMMIT_PREPARED" | "ABORT_PREPARED", _) => {
            let (xid, desc) = desc.split_once(": ").unwrap();
            let kind = if kind == "COMMIT_PREPARED" { "commit" } else { "abort" };
            format!("{kind} {}", expected_xact(xid, desc))
        }
        ("RESTORE_POINT", _) => format!("point {}", desc.trim()),
        ("SWITCH", _) => "switch".to_owned(),
        ("DROP", _) => "database".to_owned(),
        ("END_OF_RECOVERY", _) => {
            format!("recovered {} {} {}", part("tli ", ";"), part("prev tli ", ";"), micros(part("time ", " UTC")))
        }
        ("CHECKPOINT_SHUTDOWN" | "CHECKPOINT_ONLINE", _) => {
            let redo: Lsn = part("redo ", ";").parse().unwrap();
            format!("checkpoint {redo:?} {} {}", part("tli ", ";"), part("prev tli ", ";"))
        }
        ("CREATE", _) => format!("create {xid} {:?}", path()),
        ("TRUNCATE", false) => format!("shorten {:?} {}", path(), part("to ", " blocks")),
        ("TRUNCATE", true) => {
            let oids = desc.rsplit("relids").next().unwrap();
            let oids = oids.split(|char: char| !char.is_ascii_digit()).filter(|oid| !oid.is_empty());
            format!("truncate {xid}{}", list(oids.map(|oid| oid.parse::<u32>().unwrap())))
        }
        other => panic!("{other:?}"),
    };
    format!("{lsn:?} {what}")
}

#[test]
fn events_of_real_wal_are_those_of_pg_waldump() {
    for (name, version) in VERSIONS_SEEN {
        let segments = segments(name);
        let (old, new): (Vec<_>, Vec<_>) = segments.into_iter().partition(|(segment, _)| segment.timeline.0 == 1);
        let (mut lines, mut records) = (Vec::new(), 0);
        for segments in [old, new] {
            let mut stream = stream(version, &segments, Lsn(u64::MAX));
            lines.extend(read(&mut stream, &segments, version).unwrap());
            assert!(stream.pending().is_none());
            records += stream.records();
        }
        let dump = std::fs::read_to_string(fixtures(name).join("waldump")).unwrap();
        let wanted: Vec<_> = dump.lines().map(expected).collect();
        for (line, wanted) in lines.iter().zip(&wanted) {
            assert_eq!(line, wanted, "PostgreSQL {name}");
        }
        assert_eq!(lines.len(), wanted.len(), "PostgreSQL {name}");
        let count = std::fs::read_to_string(fixtures(name).join("records")).unwrap();
        assert_eq!(records.to_string(), count.trim(), "PostgreSQL {name}");
    }
}

#[test]
fn checkpoint_of_real_wal_has_the_time_of_the_transactions_around_it() {
    for (name, version) in VERSIONS_SEEN {
        let segments = segments(name);
        let mut stream = stream(version, &segments[..1], Lsn(u64::MAX));
        let (mut commit, mut compared) = (None, 0);
        for page in segments[0].1.chunks(8192) {
            if stream.next_page().0.is_multiple_of(u64::from(SEGMENT_BYTES)) && commit.is_some() {
                break;
            }
            let read = stream.page(page, &mut |record| {
                match WalEvent::decode(record, version)? {
                    Some(WalEvent::Commit(xact)) => commit = Some(xact.time.unix_micros() / 1_000_000),
                    Some(WalEvent::Checkpoint { seconds, .. }) => {
                        if let Some(commit) = commit {
                            assert!((seconds - commit).abs() <= 2, "PostgreSQL {name}: {seconds} {commit}");
                            compared += 1;
                        }
                    }
                    _ => {}
                }
                Ok(())
            });
            read.unwrap();
        }
        assert!(compared > 0, "PostgreSQL {name}");
    }
}

#[test]
fn prepared_transaction_has_its_name_where_the_server_wrote_it() {
    let segments = segments("18");
    let mut stream = stream(PgVersion::V18, &segments[..1], Lsn(u64::MAX));
    let mut names = Vec::new();
    for page in segments[0].1.chunks(8192) {
        let read = stream.page(page, &mut |record| {
            if let Some(WalEvent::Commit(xact) | WalEvent::Abort(xact)) = WalEvent::decode(record, PgVersion::V18)? {
                names.extend(xact.gid.map(<[u8]>::to_vec));
            }
            Ok(())
        });
        read.unwrap();
    }
    assert_eq!(names, [b"a prepared one".to_vec(), b"a failed one".to_vec()]);
}

#[test]
fn streams_that_share_segments_read_each_record_once() {
    for (name, version) in VERSIONS_SEEN {
        let segments = segments(name);
        let old: Vec<_> = segments.into_iter().filter(|(segment, _)| segment.timeline.0 == 1).collect();
        let whole = read(&mut stream(version, &old, Lsn(u64::MAX)), &old, version).unwrap();
        let mut parts = Vec::new();
        for index in 0..old.len() {
            let end = old[index].0.next(SEGMENT_BYTES).start_lsn(SEGMENT_BYTES);
            let mut stream = stream(version, &old[index..], end);
            parts.extend(read(&mut stream, &old[index..], version).unwrap());
            assert!(stream.is_done(), "PostgreSQL {name}");
        }
        assert_eq!(parts, whole, "PostgreSQL {name}");
    }
}

#[test]
fn damaged_record_is_an_error_at_its_position() {
    let mut segments = segments("17");
    segments.truncate(1);
    let begin = segments[0].0.start_lsn(SEGMENT_BYTES);
    // In the body of the first record, a restore point that begins after the page's header
    segments[0].1[40 + 30] ^= 1;
    let error = read(&mut stream(PgVersion::V17, &segments, Lsn(u64::MAX)), &segments, PgVersion::V17).unwrap_err();
    assert_eq!(error.code, ErrorCode::Format);
    assert_eq!(error.message, format!("WAL at {}: the record does not match its CRC", Lsn(begin.0 + 40)));
}

#[test]
fn page_of_other_wal_is_an_error() {
    let segments = segments("17");
    let (mut first, second) = (segments[0].clone(), &segments[1]);
    let wrong = |plain: &[u8], part: &str| {
        let segments = [(first.0, plain.to_vec())];
        let result = read(&mut stream(PgVersion::V17, &segments, Lsn(u64::MAX)), &segments, PgVersion::V17);
        let error = result.unwrap_err();
        assert!(error.message.contains(part), "{error}");
    };
    // A page that an earlier use of the file left there
    let mut stale = first.1.clone();
    stale[8192..16384].copy_from_slice(&second.1[8192..16384]);
    wrong(&stale, "WAL page says that it is at 0/");
    let mut zero = first.1.clone();
    zero[8192..16384].fill(0);
    wrong(&zero, "WAL page has magic 0000, which is not that of PostgreSQL 17");
    let mut later = first.1.clone();
    later[8192 + 4] = 9;
    wrong(&later, "WAL page is of timeline 00000009, which is after 00000001");
    first.1.truncate(8192 + 100);
    let short = first.1.clone();
    wrong(&short, "WAL page has 100 bytes but should have 8192");
}

#[test]
fn record_that_a_crash_left_incomplete_is_passed_over() {
    let segments = segments("18");
    let mut stream = stream(PgVersion::V18, &segments, Lsn(u64::MAX));
    // The logical message that goes on in the next segment
    let mut message = None;
    let mut pages = segments[0].1.chunks(8192);
    while message.is_none() || stream.pending() != message {
        stream.page(pages.next().unwrap(), &mut |_| Ok(())).unwrap();
        message = stream.pending().filter(|lsn| lsn.0 < stream.next_page().0 - 8192);
    }
    // After a crash the server writes a page that says so, and goes on with another record
    let mut page = vec![0; 8192];
    page[..2].copy_from_slice(&0xD118u16.to_le_bytes());
    page[2..4].copy_from_slice(&0x0008u16.to_le_bytes());
    page[4..8].copy_from_slice(&1u32.to_le_bytes());
    page[8..16].copy_from_slice(&stream.next_page().0.to_le_bytes());
    let error = stream.page(&page, &mut |_| Ok(())).unwrap_err();
    let lsn = Lsn(stream.next_page().0 - 8192 + 24);
    assert_eq!(error.message, format!("WAL at {lsn}: no record begins here"));
    assert_eq!(stream.pending(), None);
}

#[test]
fn versions_whose_records_are_unknown_are_refused() {
    for version in [PgVersion::V12, PgVersion::V19] {
        assert_eq!(check_version(version).unwrap_err().code, ErrorCode::VersionNotSupported);
    }
    check_version(PgVersion::V14).unwrap();
}

#[test]
fn huge_record_takes_no_memory_before_its_bytes_arrive() {
    let long = LongHeader { system_id: 1, segment_bytes: SEGMENT_BYTES, page_bytes: 8192 };
    let segment = "000000010000000000000001".parse().unwrap();
    let start = StreamStart { version: PgVersion::V18, segment, long };
    let mut page = vec![0; 8192];
    page[..2].copy_from_slice(&0xD118u16.to_le_bytes());
    page[2..4].copy_from_slice(&0x0002u16.to_le_bytes());
    page[4..8].copy_from_slice(&1u32.to_le_bytes());
    page[8..16].copy_from_slice(&u64::from(SEGMENT_BYTES).to_le_bytes());
    page[24..32].copy_from_slice(&1u64.to_le_bytes());
    page[32..36].copy_from_slice(&SEGMENT_BYTES.to_le_bytes());
    page[36..40].copy_from_slice(&8192u32.to_le_bytes());
    for (size, is_possible) in [(1u32 << 30, true), (u32::MAX, false), (10, false)] {
        let mut stream = RecordStream::new(start, Lsn(u64::MAX));
        page[40..44].copy_from_slice(&size.to_le_bytes());
        page[57] = 1;
        assert_eq!(stream.page(&page, &mut |_| Ok(())).is_ok(), is_possible, "{size}");
    }
}

proptest! {
    #[test]
    fn changed_wal_never_panics(
        version in 0..VERSIONS_SEEN.len(),
        changes in prop::collection::vec((0usize..1 << 16, any::<u8>()), 1..20),
    ) {
        let (name, version) = VERSIONS_SEEN[version];
        let mut segments = segments(name);
        segments.truncate(1);
        segments[0].1.truncate(1 << 16);
        for (at, byte) in changes {
            segments[0].1[at] = byte;
        }
        let (segment, plain) = &segments[0];
        if let Ok(start) = StreamStart::parse(&plain[..8192], *segment, version) {
            let _ = read(&mut RecordStream::new(start, Lsn(u64::MAX)), &segments, version);
        }
    }

    #[test]
    fn changed_body_never_panics(
        body in prop::collection::vec(any::<u8>(), 0..200), manager in 0u8..12, info: u8, version in 0..VERSIONS_SEEN.len(),
    ) {
        let mut bytes = [0; record::RECORD_HEADER_BYTES];
        bytes[..4].copy_from_slice(&(body.len() as u32 + 24).to_le_bytes());
        (bytes[16], bytes[17]) = (info, manager);
        let header = record::RecordHeader::parse(&bytes).unwrap();
        let record = Record { lsn: Lsn(1), end: Lsn(2), header: &header, body: record::Body::Whole(&body) };
        if let Ok(Some(event)) = WalEvent::decode(&record, VERSIONS_SEEN[version].1) {
            shown(&record, &event);
        }
    }
}
