//! Repositories that someone has modified on purpose, with valid checksums, so that only the values reveal it.

mod bombs;
mod limited;
mod mutate;
mod repositories;
mod secrets;
mod sizes;

pub use self::limited::run_limited;
use crate::env::Run;

/// Checks that the command ended by itself: no panic, no abort because of memory, no endless loop.
#[track_caller]
pub fn ended_by_itself(run: &Run, what: &str) {
    let killed = run.code == 101 || run.code >= 124 && run.code <= 127 || run.code > 128;
    assert!(!killed, "{what}\n{}", run.describe());
    assert!(!run.stderr.contains("panicked") && !run.stdout.contains("panicked"), "{what}\n{}", run.describe());
}

/// Returns the text of an info file with its correct checksum line: SHA-1 over the sections as JSON.
pub fn sealed(text: &str) -> String {
    use sha1::{Digest, Sha1};
    const CHECKSUM: &str = "backrest-checksum=";
    let mut json = String::from("{");
    let (mut section, mut open) = ("", "");
    for line in text.lines().filter(|line| !line.starts_with(CHECKSUM)) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = split(line) {
            if section != open {
                json.push_str(if open.is_empty() { "" } else { "}," });
                json.push_str(&format!("\"{section}\":{{"));
                open = section;
            } else {
                json.push(',');
            }
            json.push_str(&format!("{}:{value}", serde_json::to_string(key).expect("JSON")));
        }
    }
    json.push_str("}}");
    let sum: String = Sha1::digest(json.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    let old = text.lines().find(|line| line.starts_with(CHECKSUM)).expect("checksum line");
    text.replace(old, &format!("{CHECKSUM}\"{sum}\""))
}

/// Splits a line at the first `=` that leaves valid JSON.
fn split(line: &str) -> Option<(&str, &str)> {
    line.match_indices('=')
        .map(|(at, _)| (&line[..at], &line[at + 1..]))
        .find(|(_, value)| serde_json::from_str::<serde_json::Value>(value).is_ok())
}
