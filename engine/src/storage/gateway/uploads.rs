//! Uploads whose answers are lost, or report that something else was stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use md5::{Digest, Md5};

use super::stores::{CONTENT, Kind, http};
use super::tests::{LIMIT, fails, large, write, write_large};
use super::{Asked, Gateway, Reply};
use crate::ErrorCode;

/// A store whose first answer to such a request arrives incompletely, followed by these answers.
fn loses_first(
    kind: Kind,
    is_meant: impl Fn(&Asked) -> bool + Send + Sync + 'static,
    again: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> Gateway {
    let is_lost = AtomicBool::new(false);
    Gateway::start(move |asked| {
        if !is_meant(asked) {
            return if asked.method == "HEAD" { again(asked) } else { kind.answer(asked) };
        }
        if is_lost.swap(true, Ordering::Relaxed) { again(asked) } else { Reply { missing: 5, ..kind.answer(asked) } }
    })
}

fn completes(asked: &Asked) -> bool {
    asked.method == "POST" && asked.query.contains("uploadId")
}

/// The ETag of what [`write_large`] writes.
fn tag_of_large() -> String {
    let parts: Vec<u8> = large().chunks(256 << 10).flat_map(|part| Md5::digest(part).to_vec()).collect();
    let digits: String = Md5::digest(parts).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}-3\"")
}

#[test]
fn completion_whose_answer_is_lost_is_one_if_the_object_is_there() {
    let gone = || Reply::new(404, &[], "<Error><Code>NoSuchUpload</Code><Message>gone</Message></Error>");
    let again = move |found: Option<String>| {
        move |asked: &Asked| match (&found, asked.method.as_str()) {
            (Some(tag), "HEAD") => Reply::new(200, &[("etag", tag)], ""),
            (None, "HEAD") => Reply::new(404, &[("x-amz-request-id", "1")], ""),
            _ => gone(),
        }
    };
    let gateway = loses_first(Kind::S3, completes, again(Some(tag_of_large())));
    write_large(&*Kind::S3.open(&gateway.url, http(LIMIT))).unwrap();
    assert!(!gateway.take().iter().any(|line| line.starts_with("DELETE")));
    for other in [None, Some("\"00000000000000000000000000000000-3\"".to_owned())] {
        let gateway = loses_first(Kind::S3, completes, again(other));
        fails("other", Kind::S3, &gateway, write_large, ErrorCode::FileMissing, "NoSuchUpload: gone");
    }
}

#[test]
fn list_of_blocks_whose_answer_is_lost_may_be_committed_again() {
    let is_list = |asked: &Asked| asked.query.contains("comp=blocklist");
    // The blocks are not uncommitted any more
    let gateway = loses_first(Kind::Azure, is_list, |asked| {
        let list = String::from_utf8_lossy(&asked.body).into_owned();
        match list.matches("<Latest>").count() {
            3 if !list.contains("ncommitted") => Kind::Azure.answer(asked),
            _ => Reply::new(400, &[], format!("<Error><Code>InvalidBlockList</Code><Message>{list}</Message></Error>")),
        }
    });
    write_large(&*Kind::Azure.open(&gateway.url, http(LIMIT))).unwrap();
}

/// A store that reports that it stored something else, and then has this under the name.
fn stores_other(kind: Kind, found: Reply) -> (Gateway, Arc<AtomicBool>) {
    let is_removed = Arc::new(AtomicBool::new(false));
    let removed = Arc::clone(&is_removed);
    let gateway = Gateway::start(move |asked| match (asked.method.as_str(), kind) {
        ("PUT", Kind::S3) => Reply::new(200, &[("etag", "\"00000000000000000000000000000000\"")], ""),
        ("PUT", _) => Reply::new(201, &[("etag", "x"), ("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")], ""),
        ("GET", _) => found.clone(),
        _ => {
            removed.store(true, Ordering::Relaxed);
            kind.answer(asked)
        }
    });
    (gateway, is_removed)
}

#[test]
fn upload_with_another_checksum_is_removed_unless_it_is_what_was_sent() {
    let object = |content: &str| {
        Reply::new(200, &[("etag", "\"e\""), ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")], content)
    };
    for kind in [Kind::S3, Kind::Azure] {
        for (content, is_removed) in [(CONTENT, true), ("", true), ("data", false)] {
            let (gateway, removed) = stores_other(kind, object(content));
            fails(content, kind, &gateway, write, ErrorCode::Checksum, "something else than was sent");
            assert_eq!(removed.load(Ordering::Relaxed), is_removed, "{kind:?}, {content}");
        }
        // If the content can't be checked it stays, and the operator is told
        let (gateway, removed) = stores_other(kind, Reply::new(403, &[], ""));
        fails("403", kind, &gateway, write, ErrorCode::Checksum, "'/repo/file' may be damaged and has to be removed: ");
        assert!(!removed.load(Ordering::Relaxed), "{kind:?}");
    }
}
