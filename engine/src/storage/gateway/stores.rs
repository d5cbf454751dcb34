//! Answers of correct stores. Each has one object, and accepts every write and removal.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};

use super::{Asked, Reply};
use crate::storage::azure::{self, AzureCredentials, AzureSettings};
use crate::storage::gcs::{self, GcsCredentials, GcsSettings};
use crate::storage::http::HttpSettings;
use crate::storage::object::UriStyle;
use crate::storage::s3::{self, S3Credentials, S3Settings};
use crate::storage::{ReadAhead, RepoStorage};

/// The content of the one object.
pub(super) const CONTENT: &str = "0123456789";
const ETAG: (&str, &str) = ("etag", "\"tag-1\"");
const MODIFIED: (&str, &str) = ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    S3,
    Azure,
    Gcs,
}

pub(super) const ALL: [Kind; 3] = [Kind::S3, Kind::Azure, Kind::Gcs];

/// The connection settings in tests.
pub(super) fn http(io_timeout: Duration) -> HttpSettings {
    HttpSettings { host: None, verify_tls: true, ca_file: None, ca_path: None, io_timeout }
}

impl Kind {
    /// A repository in a store at this address.
    pub(super) fn open(self, url: &str, http: HttpSettings) -> Arc<dyn RepoStorage> {
        let (repo_path, endpoint) = ("/repo".to_owned(), url.to_owned());
        match self {
            Kind::S3 => Arc::new(
                s3::open(&S3Settings {
                    repo_path,
                    endpoint,
                    bucket: "bucket".into(),
                    port: None,
                    region: "us-east-1".into(),
                    service: "s3".into(),
                    credentials: S3Credentials::Shared {
                        key: "key-of-s3".into(),
                        secret: "secret".into(),
                        token: Some("session-token".into()),
                    },
                    uri_style: UriStyle::Path,
                    kms_key_id: None,
                    sse_customer_key: None,
                    requester_pays: false,
                    tags: Vec::new(),
                    part_size_bytes: 256 << 10,
                    target_time: None,
                    http,
                    read_ahead: ReadAhead::NEAR,
                })
                .unwrap(),
            ),
            Kind::Azure => Arc::new(
                azure::open(&AzureSettings {
                    repo_path,
                    endpoint,
                    account: "account".into(),
                    container: "bucket".into(),
                    port: None,
                    uri_style: UriStyle::Path,
                    credentials: AzureCredentials::Shared("c2VjcmV0".into()),
                    tags: Vec::new(),
                    part_size_bytes: 256 << 10,
                    target_time: None,
                    http,
                    read_ahead: ReadAhead::NEAR,
                })
                .unwrap(),
            ),
            Kind::Gcs => Arc::new(
                gcs::open(&GcsSettings {
                    repo_path,
                    endpoint,
                    bucket: "bucket".into(),
                    credentials: GcsCredentials::Token("Bearer bearer-token".into()),
                    user_project: None,
                    tags: Vec::new(),
                    part_size_bytes: 256 << 10,
                    target_time: None,
                    http,
                    read_ahead: ReadAhead::NEAR,
                })
                .unwrap(),
            ),
        }
    }

    /// Returns the store's regular answer.
    pub(super) fn answer(self, asked: &Asked) -> Reply {
        match self {
            Kind::S3 => s3_answer(asked),
            Kind::Azure => azure_answer(asked),
            Kind::Gcs => gcs_answer(asked),
        }
    }

    /// A page of a listing with these keys and common prefixes.
    pub(super) fn page(self, prefix: &str, keys: &[&str], prefixes: &[&str]) -> Reply {
        let mut page = String::new();
        // Writing to a String can't fail
        let _ = match self {
            Kind::S3 => write!(page, "<ListBucketResult><Prefix>{prefix}</Prefix><IsTruncated>false</IsTruncated>"),
            Kind::Azure => write!(page, "\u{feff}<EnumerationResults><Prefix>{prefix}</Prefix><Blobs>"),
            Kind::Gcs => {
                let items: Vec<_> = keys.iter().map(|key| description(key, CONTENT.as_bytes())).collect();
                let page = serde_json::json!({"kind": "storage#objects", "items": items, "prefixes": prefixes});
                return Reply::new(200, &[("content-type", "application/json")], page.to_string());
            }
        };
        for key in keys {
            let _ = match self {
                Kind::S3 => write!(
                    page,
                    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>10</Size></Contents>"
                ),
                _ => write!(
                    page,
                    "<Blob><Name>{key}</Name><Properties><Last-Modified>{}</Last-Modified><Content-Length>10</Content-Length>\
                     </Properties></Blob>",
                    MODIFIED.1
                ),
            };
        }
        for prefix in prefixes {
            let _ = match self {
                Kind::S3 => write!(page, "<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>"),
                _ => write!(page, "<BlobPrefix><Name>{prefix}</Name></BlobPrefix>"),
            };
        }
        page += if self == Kind::S3 { "</ListBucketResult>" } else { "</Blobs><NextMarker/></EnumerationResults>" };
        Reply::new(200, &[("content-type", "application/xml")], page)
    }

    /// Returns whether the request asks for a listing.
    pub(super) fn is_listing(self, asked: &Asked) -> bool {
        asked.method == "GET"
            && match self {
                Kind::S3 => asked.parameter("list-type").is_some(),
                Kind::Azure => asked.parameter("comp").is_some(),
                Kind::Gcs => asked.path.ends_with("/o"),
            }
    }
}

/// Returns the content of the one object, or the requested part of it.
fn content(asked: &Asked, headers: &[(&'static str, &str)]) -> Reply {
    let range = asked.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = range else { return Reply::new(200, headers, CONTENT) };
    let first: usize = first.parse().unwrap();
    let last = last.parse().unwrap_or(CONTENT.len() - 1).min(CONTENT.len() - 1);
    let mut reply = Reply::new(206, headers, &CONTENT[first..=last]);
    reply.headers.push(("content-range", format!("bytes {first}-{last}/{}", CONTENT.len())));
    reply
}

fn s3_answer(asked: &Asked) -> Reply {
    let body = String::from_utf8_lossy(&asked.body).into_owned();
    match (asked.method.as_str(), asked.query.as_str()) {
        ("GET", query) if query.contains("list-type") => {
            let prefix = asked.parameter("prefix").unwrap_or_default();
            Kind::S3.page(&prefix, &[&format!("{prefix}file")], &[&format!("{prefix}path/")])
        }
        ("GET" | "HEAD", _) => content(asked, &[ETAG, MODIFIED]),
        ("PUT", _) => {
            let md5 = BASE64_STANDARD.decode(asked.header("content-md5").unwrap()).unwrap();
            let tag: String = md5.iter().map(|byte| format!("{byte:02x}")).collect();
            Reply::new(200, &[("etag", &format!("\"{tag}\""))], "")
        }
        ("POST", query) if query.contains("uploads") => Reply::new(
            200,
            &[],
            "<InitiateMultipartUploadResult><UploadId>upload-id</UploadId></InitiateMultipartUploadResult>",
        ),
        ("POST", query) if query.contains("uploadId") => {
            Reply::new(200, &[], "<CompleteMultipartUploadResult><ETag>tag-2</ETag></CompleteMultipartUploadResult>")
        }
        ("POST", _) => {
            let keys = body.split("<Key>").skip(1).filter_map(|text| text.split("</Key>").next());
            let deleted: String = keys.map(|key| format!("<Deleted><Key>{key}</Key></Deleted>")).collect();
            Reply::new(200, &[], format!("<DeleteResult>{deleted}</DeleteResult>"))
        }
        _ => Reply::new(204, &[], ""),
    }
}

fn azure_answer(asked: &Asked) -> Reply {
    match asked.method.as_str() {
        "GET" if asked.query.contains("comp=list") => {
            let prefix = asked.parameter("prefix").unwrap_or_default();
            Kind::Azure.page(&prefix, &[&format!("{prefix}file")], &[&format!("{prefix}path/")])
        }
        "GET" | "HEAD" => content(asked, &[ETAG, MODIFIED]),
        "PUT" => Reply::new(201, &[ETAG, ("content-md5", asked.header("content-md5").unwrap())], ""),
        "POST" => {
            let count = String::from_utf8_lossy(&asked.body).matches("Content-ID").count();
            let part = |id| format!("--batch\r\nContent-ID: {id}\r\n\r\nHTTP/1.1 202 Accepted\r\n\r\n");
            let parts: String = (0..count).map(part).collect();
            Reply::new(202, &[("content-type", "multipart/mixed; boundary=batch")], format!("{parts}--batch--"))
        }
        _ => Reply::new(202, &[], ""),
    }
}

/// Returns GCS's description of an object.
pub(super) fn description(name: &str, content: &[u8]) -> serde_json::Value {
    serde_json::json!({
        "name": name,
        "size": content.len().to_string(),
        "updated": "2026-01-01T00:00:00Z",
        "crc32c": BASE64_STANDARD.encode(crc32c::crc32c(content).to_be_bytes()),
    })
}

fn gcs_answer(asked: &Asked) -> Reply {
    let json = |value: serde_json::Value| Reply::new(200, &[("content-type", "application/json")], value.to_string());
    match asked.method.as_str() {
        "GET" if asked.path.ends_with("/o") => {
            let prefix = asked.parameter("prefix").unwrap_or_default();
            Kind::Gcs.page(&prefix, &[&format!("{prefix}file")], &[&format!("{prefix}path/")])
        }
        "GET" if asked.query.contains("alt=media") => content(asked, &[("x-goog-generation", "7")]),
        "GET" => json(description("repo/file", CONTENT.as_bytes())),
        "DELETE" => Reply::new(204, &[], ""),
        "POST" if asked.path.starts_with("/batch") => {
            let count = String::from_utf8_lossy(&asked.body).matches("content-id").count();
            let part = |id| format!("--batch\r\nContent-ID: response-{id}\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n");
            let parts: String = (0..count).map(part).collect();
            Reply::new(200, &[("content-type", "multipart/mixed; boundary=batch")], format!("{parts}--batch--"))
        }
        "POST" if asked.query.contains("uploadType=resumable") => {
            Reply::new(200, &[("x-guploader-uploadid", "upload-id")], "")
        }
        "POST" => {
            let body = &asked.body;
            let find = |from: usize| body[from..].windows(4).position(|found| found == b"\r\n\r\n").unwrap() + from + 4;
            let end = body.windows(4).rposition(|found| found == b"\r\n--").unwrap();
            json(description("repo/file", &body[find(find(0))..end]))
        }
        // The chunks of a resumable upload
        _ => {
            let range = asked.header("content-range").unwrap().trim_start_matches("bytes ").to_owned();
            let (sent, total) = range.split_once('/').unwrap();
            if total == "*" {
                let last = sent.split_once('-').unwrap().1;
                return Reply::new(308, &[("range", &format!("bytes=0-{last}"))], "");
            }
            json(description("repo/file", &super::tests::large()))
        }
    }
}
