//! The answers of Azure Blob Storage.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use super::{Answer, Entry, Page, Request, Shared};

/// Account and container of the objects.
const PLACE: (&str, &str) = ("account", "container");

pub fn options(port: u16) -> Vec<String> {
    vec![
        "repo1-type=azure".to_owned(),
        format!("repo1-azure-account={}", PLACE.0),
        format!("repo1-azure-container={}", PLACE.1),
        "repo1-azure-key=c2VjcmV0".to_owned(),
        "repo1-azure-endpoint=127.0.0.1".to_owned(),
        "repo1-azure-uri-style=path".to_owned(),
        format!("repo1-storage-port={port}"),
    ]
}

pub fn answer(store: &Shared, request: &Request) -> Answer {
    let container = format!("/{}/{}", PLACE.0, PLACE.1);
    let Some(name) = request.path.strip_prefix(&container).filter(|_| ["GET", "HEAD"].contains(&&*request.method))
    else {
        return error(405, "UnsupportedHttpVerb");
    };
    if request.parameter("comp") == Some("list") {
        let with_versions = request.parameter("include") == Some("versions");
        return Answer::new(200, list(&store.page(request, with_versions, "marker"), with_versions));
    }
    let name = name.trim_start_matches('/');
    let Some(found) = store.find(name, request.parameter("versionid").map(number)) else {
        return error(404, "BlobNotFound");
    };
    let mut answer = Answer::content(request, &found);
    answer.headers.extend([("last-modified", date(found.time)), ("etag", format!("\"{}\"", found.time))]);
    answer
}

fn error(status: u16, code: &str) -> Answer {
    Answer::new(status, format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code></Error>"))
}

fn date(time: i64) -> String {
    let time = Timestamp::from_second(time).expect("time");
    DateTimePrinter::new().timestamp_to_rfc9110_string(&time).expect("date")
}

/// The identifier of a version, which looks like a time.
fn version(number: usize) -> String {
    format!("2001-01-01T00:00:00.{number:07}Z")
}

fn number(version: &str) -> &str {
    version.trim_start_matches("2001-01-01T00:00:00.").trim_end_matches('Z').trim_start_matches('0')
}

fn list(page: &Page, with_versions: bool) -> String {
    let mut text = String::from("\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs>");
    for entry in &page.entries {
        let _ = match entry {
            Entry::Folder(name) => write!(text, "<BlobPrefix><Name>{name}</Name></BlobPrefix>"),
            Entry::Object { name, size, time, number, is_current } => {
                let versions = match (with_versions, is_current) {
                    (false, _) => String::new(),
                    (true, false) => format!("<VersionId>{}</VersionId>", version(*number)),
                    (true, true) => {
                        format!("<VersionId>{}</VersionId><IsCurrentVersion>true</IsCurrentVersion>", version(*number))
                    }
                };
                write!(
                    text,
                    "<Blob><Name>{name}</Name>{versions}<Properties><Last-Modified>{}</Last-Modified>\
                     <Content-Length>{size}</Content-Length><BlobType>BlockBlob</BlobType></Properties></Blob>",
                    date(*time)
                )
            }
        };
    }
    let next = page
        .next
        .as_ref()
        .map_or_else(|| "<NextMarker />".to_owned(), |token| format!("<NextMarker>{token}</NextMarker>"));
    text + "</Blobs>" + &next + "</EnumerationResults>"
}
