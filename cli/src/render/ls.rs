//! The two forms of a listing of repository files.

use engine::storage::{Entry, EntryKind};
use repo_format::json::ObjectWriter;

use super::control::{valid_json, visible_value};

/// One name per line.
pub fn text_line(entry: &Entry) -> String {
    format!("{}\n", visible_value(&entry.name))
}

/// The value for one name in the object that the JSON form is.
pub fn json_value(entry: &Entry, destination: Option<&str>) -> String {
    let mut out = String::new();
    let mut json = ObjectWriter::new(&mut out);
    match entry.kind {
        EntryKind::File => {
            json.string("type", "file");
            json.scalar("size", entry.size);
            json.scalar("time", entry.modified);
            if let Some(version) = &entry.version {
                json.string("version", version);
            }
        }
        EntryKind::Path => json.string("type", "path"),
        EntryKind::Special => json.string("type", "special"),
        EntryKind::Link => {
            json.string("type", "link");
            json.string_or_null("destination", destination);
        }
    }
    json.end();
    valid_json(&out).into_owned()
}
