//! Access for the fuzz targets to private parts that read untrusted bytes.
//!
//! Each function accepts any input. It panics if a promise is broken.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use jiff::tz::TimeZone;
use object_store::path::Path;

pub use crate::pipeline::block_delta;
pub use crate::remote::fuzzing::{cluster_answers, repository_answers, server_frames};
pub use crate::serve::fuzzing::{Answers, NoOptions, served_frames, served_jobs, served_requests};

use crate::pg::passfile;
use crate::restore::target_time;
use crate::storage::http::foreign::MESSAGE_SIZE_MAX_BYTES;
use crate::storage::http::xml::Element;
use crate::storage::http::{refusal, token};
use crate::storage::sftp::host_key::{KnownHosts, Verdict};
use crate::storage::sftp::protocol::{self, Response};
use crate::storage::{azure, gcs, s3};
use crate::verify::memory;

/// A packet of an SFTP server, without its length.
pub fn sftp_packet(data: &[u8]) {
    let packet = Bytes::copy_from_slice(data);
    if let Ok((_, extensions)) = protocol::version(packet.clone()) {
        assert!(extensions.len() * 8 <= data.len());
    }
    match protocol::response(packet) {
        Ok((_, Response::Names(names))) => assert!(names.len() * 12 <= data.len()),
        Ok((_, Response::Data(bytes) | Response::Handle(bytes))) => assert!(bytes.len() < data.len()),
        _ => {}
    }
}

/// A file of known hosts. The key to look up is in no corpus.
pub fn known_hosts(text: &str) {
    let mut hosts = KnownHosts::default();
    hosts.add(text);
    for (host, port) in [("db.example", 22), ("db.example", 2222), ("", 0)] {
        assert!(hosts.key_types(host, port).len() <= text.lines().count());
        assert_ne!(hosts.check(host, port, b"a key that nobody has"), Verdict::Match);
    }
}

/// What verify has read and when.
pub fn verify_records(data: &[u8]) {
    memory::verify_records(data);
}

/// A password file.
pub fn passfile(text: &str) {
    let target = passfile::PasswordTarget { host: "db.example", port: 5432, database: "postgres", user: "backup" };
    if let Some(password) = passfile::find(text, target) {
        assert!(password.len() <= text.len());
    }
}

/// The time of a restore's target.
pub fn target_time(text: &str) {
    if let Ok(time) = target_time::parse(text, &TimeZone::UTC) {
        // A year of four digits from 1970 on, and an offset of some hours
        assert!((-200_000..=253_402_500_000).contains(&time));
    }
}

/// An XML answer: a page of a listing, or credentials.
pub fn xml_answer(data: &[u8]) {
    let Ok(root) = Element::parse(data) else { return };
    let of_s3 = s3::list::read_versions(&root, "prefix/");
    if let Ok((_, Some(token))) = &of_s3 {
        assert!(token.starts_with("key-marker="));
    }
    let of_azure = azure::list::read_versions(&root, "prefix/");
    let pages = [s3::list::read_page(&root, "prefix/"), azure::list::read_page(&root, "prefix/")];
    for page in pages.into_iter().flatten() {
        assert!(page.result.objects.iter().all(|object| object.location.as_ref().starts_with("prefix/")));
    }
    let versions: usize = [of_s3, of_azure].iter().flatten().map(|(found, _)| found.versions.len()).sum();
    assert!(versions <= data.len());
    let _ = s3::credentials::of_web_identity(&root);
}

/// A JSON answer: an error, a token, credentials, or an object of a listing.
pub fn json_answer(data: &[u8]) {
    assert!(refusal::message(data, None).len() <= MESSAGE_SIZE_MAX_BYTES);
    let Ok(answer) = serde_json::from_slice::<serde_json::Value>(data) else { return };
    let _ = token::validity(&answer, SystemTime::now(), Duration::from_secs(60));
    let _ = s3::credentials::of_json(&answer);
    let _ = gcs::list::version(Path::default(), &answer);
    let _ = gcs::list::object(Path::default(), &answer);
    if let Ok(page) = gcs::list::Page::of(answer)
        && let Ok((objects, _)) = page.entries("prefix/")
    {
        assert!(objects.iter().all(|(location, _)| location.as_ref().starts_with("prefix/")));
    }
}
