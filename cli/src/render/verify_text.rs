//! What `verify` adds to pgBackRest's report if it remembers what was read.

use std::fmt::Write as _;

use engine::Stanza;
use engine::verify::{BackupStatus, ReadAmount, ReadFigures, STATUS_OPEN, VerifySummary};
use jiff::tz::TimeZone;
use repo_format::size::format_size;

use super::control::visible_text;
use super::recovery_text;
use super::wal_time::seconds;

/// Labels that are listed.
const LABELS_MAX: usize = 100;

/// Renders what was read, and what can be recovered. `stanza` is that of a report that contains nothing else.
pub fn render(stanza: Option<&Stanza>, summary: &VerifySummary, zone: &TimeZone) -> String {
    // Writing to a String can't fail
    let mut out = String::new();
    if let Some(stanza) = stanza {
        let status = match summary.verdict() {
            Some(true) => "ok",
            Some(false) => "error",
            None => STATUS_OPEN,
        };
        let _ = writeln!(out, "stanza: {stanza}\nstatus: {status}");
    }
    if summary.half_whole > 0 {
        let _ = writeln!(out, "  damaged files of which the copy is good, or copies: {}", summary.half_whole);
    }
    if let Some(figures) = &summary.figures {
        render_figures(&mut out, figures, zone);
    }
    for archive in summary.points.iter().flatten() {
        recovery_text::render_points(&mut out, archive, zone);
    }
    let open: Vec<String> = summary
        .backups
        .iter()
        .filter(|it| it.status == BackupStatus::NotAllRead)
        .map(|it| it.label.to_string())
        .collect();
    if !open.is_empty() && summary.points.is_some() {
        let more = if open.len() > LABELS_MAX { ", ..." } else { "" };
        let shown = &open[..open.len().min(LABELS_MAX)];
        let _ = writeln!(out, "  not all read, and therefore not among these backups: {}{more}", shown.join(", "));
    }
    visible_text(&out).into_owned()
}

fn render_figures(out: &mut String, figures: &ReadFigures, zone: &TimeZone) {
    let amount = |amount: &ReadAmount| format!("{} file(s), {}", amount.files, format_size(amount.bytes));
    let _ = writeln!(out, "  read now: {}", amount(&figures.read));
    let _ = writeln!(out, "  good when last read: {}", amount(&figures.remembered));
    if figures.due.files > 0 {
        let _ = writeln!(out, "  good when last read, to be read again: {}", amount(&figures.due));
    }
    if figures.never.files > 0 {
        let _ = writeln!(out, "  not read yet: {}", amount(&figures.never));
    }
    if let Some(oldest) = figures.oldest {
        let _ = writeln!(out, "  read longest ago: {}", seconds(oldest, zone));
    }
}
