//! The JSON form of `restore --plan`, described in `docs/restore-plan.md`.

use engine::restore::{PlannedWal, RestorePlan};

use super::control::valid_json;
use super::info_json::{list, object};
use super::recovery_json::render_end;

/// The whole plan as one object.
pub fn render(plan: &RestorePlan) -> String {
    let out = object(|json| {
        json.plain("backup", &plan.label);
        json.raw("backup-chain", &list(&plan.chain, |label| format!("\"{label}\"")));
        json.raw(
            "bytes",
            &object(|json| {
                json.scalar("fetch", plan.bytes_fetched);
                json.scalar("keep", plan.bytes_kept);
                json.scalar("total", plan.size);
                json.scalar("write", plan.bytes_written);
            }),
        );
        json.raw(
            "file",
            &object(|json| {
                json.scalar("copy", plan.files_copied);
                json.scalar("keep", plan.files_kept);
                json.scalar("total", plan.files);
                json.scalar("zero", plan.files_zeroed);
            }),
        );
        let missing = list(&plan.missing, |piece| {
            object(|json| {
                json.string("path", &piece.path);
                match piece.size {
                    Some(size) => json.scalar("size", size),
                    None => json.raw("size", "null"),
                }
                json.scalar("size-needed", piece.size_needed);
            })
        });
        json.raw("missing", &missing);
        json.scalar("missing-total", plan.missing_total as u64);
        let refusals = list(&plan.refusals, |error| {
            object(|json| {
                json.scalar("code", error.code.number());
                json.string("message", &error.message);
            })
        });
        json.raw("refusal", &refusals);
        json.scalar("repo-key", plan.repo_key);
        json.scalar("requests", plan.requests);
        json.raw("time", &render_time(plan));
        json.raw("wal", &plan.wal.as_ref().map_or_else(|| "null".to_owned(), render_wal));
    });
    format!("{}\n", valid_json(&out))
}

fn render_time(plan: &RestorePlan) -> String {
    let (Some(rate), Some(expected)) = (&plan.rate, plan.expected) else { return "null".to_owned() };
    let milliseconds = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    object(|json| {
        json.scalar("expected-milliseconds", milliseconds(expected));
        json.scalar("sample-bytes", rate.bytes);
        json.scalar("sample-bytes-per-second", rate.bytes_per_second());
        json.scalar("sample-milliseconds", milliseconds(rate.duration));
        json.scalar("sample-process-max", rate.workers);
    })
}

fn render_wal(wal: &PlannedWal) -> String {
    object(|json| {
        json.plain("available", wal.available);
        json.raw("available-end", &render_end(&wal.available_end));
        json.scalar("bytes", wal.bytes);
        json.scalar("complete", wal.is_complete);
        json.plain("consistent", wal.consistent);
        json.plain("first", wal.first);
        json.scalar("segments", wal.segments);
        match wal.target {
            Some(target) => json.plain("target", target),
            None => json.raw("target", "null"),
        }
        json.scalar("timeline", wal.timeline.0);
    })
}
