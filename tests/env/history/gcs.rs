//! The answers of Google Cloud Storage's JSON API.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Answer, Entry, Page, Request, Shared};

const BUCKET: &str = "bucket";

pub fn options(port: u16) -> Vec<String> {
    vec![
        "repo1-type=gcs".to_owned(),
        format!("repo1-gcs-bucket={BUCKET}"),
        format!("repo1-gcs-endpoint=127.0.0.1:{port}"),
        "repo1-gcs-key-type=token".to_owned(),
        "repo1-gcs-key=Bearer secret-token".to_owned(),
    ]
}

pub fn answer(store: &Shared, request: &Request) -> Answer {
    let objects = format!("/storage/v1/b/{BUCKET}/o");
    let Some(name) = request.path.strip_prefix(&objects).filter(|_| request.method == "GET") else {
        return error(405, "method not allowed");
    };
    let name = name.trim_start_matches('/');
    if name.is_empty() {
        let with_versions = request.parameter("versions") == Some("true");
        return Answer::new(200, list(&store.page(request, with_versions, "pageToken")).to_string());
    }
    let generation = request.parameter("generation");
    let Some(found) = store.find(name, generation) else { return error(404, "no such object") };
    if request.parameter("alt") == Some("media") {
        let mut answer = Answer::content(request, &found);
        answer.headers.push(("x-goog-generation", found.number.to_string()));
        return answer;
    }
    Answer::new(200, object(name, found.content.len(), found.time).to_string())
}

fn error(status: u16, message: &str) -> Answer {
    Answer::new(status, json!({ "error": { "message": message } }).to_string())
}

fn object(name: &str, size: usize, time: i64) -> Value {
    let updated = Timestamp::from_second(time).expect("time");
    json!({ "name": name, "size": size.to_string(), "updated": format!("{updated:.3}") })
}

fn list(page: &Page) -> Value {
    let (mut items, mut prefixes) = (Vec::new(), Vec::new());
    for entry in &page.entries {
        match entry {
            Entry::Folder(name) => prefixes.push(name.as_str()),
            Entry::Object { name, size, time, number, .. } => {
                let mut item = object(name, *size, *time);
                item["generation"] = number.to_string().into();
                items.push(item);
            }
        }
    }
    let mut answer = json!({ "kind": "storage#objects", "items": items, "prefixes": prefixes });
    if let Some(next) = &page.next {
        answer["nextPageToken"] = next.as_str().into();
    }
    answer
}
