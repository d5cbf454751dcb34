//! The text form of `restore --plan`.

use std::fmt::Write as _;

use engine::restore::{PlannedWal, RestorePlan};
use repo_format::size::format_size;

use super::control::visible_text;
use super::recovery_text::why;

/// Missing pieces that are shown.
const SHOWN_MAX: usize = 20;

// Writing into a String can't fail, so the results of `write!` below are dropped

/// The whole plan.
pub fn render(plan: &RestorePlan) -> String {
    let mut out = format!("restore of {} from repo{}; nothing is changed now\n", plan.label, plan.repo_key);
    let chain: Vec<String> = plan.chain.iter().map(ToString::to_string).collect();
    let _ = writeln!(out, "    backups read: {}", chain.join(", "));
    let _ = writeln!(out, "    files: {}, {}", plan.files, format_size(plan.size));
    let _ = writeln!(out, "        kept as they are: {}, {}", plan.files_kept, format_size(plan.bytes_kept));
    let _ = writeln!(out, "        created empty or zeroed: {}", plan.files_zeroed);
    let _ = writeln!(out, "        copied, or a part of them: {}", plan.files_copied);
    let (fetched, written) = (format_size(plan.bytes_fetched), format_size(plan.bytes_written));
    let _ = writeln!(out, "    to read from the repository: {fetched} in {} requests", plan.requests);
    let _ = writeln!(out, "    to write: {written}");
    if let (Some(rate), Some(expected)) = (&plan.rate, plan.expected) {
        let _ = writeln!(
            out,
            "    expected time to read and decode: {:.1}s at {}/s, measured by reading {} with {} process(es)\n        \
             not included: writing, syncing and recovery",
            expected.as_secs_f64(),
            format_size(rate.bytes_per_second()),
            format_size(rate.bytes),
            rate.workers
        );
    }
    render_wal(&mut out, plan.wal.as_ref());
    if plan.missing_total > 0 {
        let _ = writeln!(out, "    missing in the repository: {} file(s)", plan.missing_total);
        for piece in plan.missing.iter().take(SHOWN_MAX) {
            let _ = match piece.size {
                Some(size) => writeln!(out, "        {}: {size} bytes of {}", piece.path, piece.size_needed),
                None => writeln!(out, "        {}", piece.path),
            };
        }
    }
    for error in &plan.refusals {
        let _ = writeln!(out, "    the restore would be refused: [{}] {}", error.code, error.message);
    }
    visible_text(&out).into_owned()
}

fn render_wal(out: &mut String, wal: Option<&PlannedWal>) {
    let Some(wal) = wal else {
        out.push_str("    WAL: none, the backup is of a stopped cluster\n");
        return;
    };
    let target = match wal.target {
        Some(target) => format!("to {target}"),
        None => "to the target or the end of the WAL".to_owned(),
    };
    let _ = writeln!(
        out,
        "    WAL: from {} {target} on timeline {}, up to {} segments, {}",
        wal.first,
        wal.timeline.0,
        wal.segments,
        format_size(wal.bytes)
    );
    let _ = writeln!(out, "        the archive has it up to {}: {}", wal.available, why(&wal.available_end));
    if wal.is_consistent && !wal.is_complete {
        let _ = writeln!(out, "        this may not be enough: recovery ends there");
    } else if !wal.is_complete {
        let _ = writeln!(out, "        this is not enough: the backup is consistent with segment {}", wal.consistent);
    }
}
