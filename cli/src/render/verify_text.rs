//! What `verify` adds to pgBackRest's report if it remembers what was read.

use std::fmt::Write as _;

use engine::Stanza;
use engine::verify::{ReadAmount, ReadFigures, VerifySummary};
use jiff::tz::TimeZone;
use repo_format::size::format_size;

use super::control::visible_text;
use super::recovery_text;
use super::wal_time::seconds;

/// Renders what was read, and what can be recovered. `stanza` is that of a report that contains nothing else.
pub fn render(stanza: Option<&Stanza>, summary: &VerifySummary, zone: &TimeZone) -> String {
    // Writing to a String can't fail
    let mut out = String::new();
    if let Some(stanza) = stanza {
        let _ = writeln!(out, "stanza: {stanza}\nstatus: ok");
    }
    if let Some(figures) = &summary.figures {
        render_figures(&mut out, figures, zone);
    }
    for archive in summary.points.iter().flatten() {
        recovery_text::render_points(&mut out, archive, zone);
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
        let _ = writeln!(out, "  never read: {}", amount(&figures.never));
    }
    if let Some(oldest) = figures.oldest {
        let _ = writeln!(out, "  read longest ago: {}", seconds(oldest, zone));
    }
}
