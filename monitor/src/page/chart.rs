//! Drawings: the timeline of a repository, and the sizes of backups.

use super::html::Html;
use super::words::{self, Clock};
use crate::snapshot::{BackupView, RepoView, StanzaView, WindowView};

/// The width of a drawing in its own units.
const WIDTH: f64 = 1000.0;
/// How many backups the sizes show.
const SIZES_MAX: usize = 60;
/// The time that the timeline shows, if there are no older backups, in seconds.
const SPAN_MIN_S: i64 = 3600;

/// The range of time that is drawn.
struct Axis {
    begin: i64,
    end: i64,
}

impl Axis {
    fn of(stanza: &StanzaView, now: i64) -> Self {
        let oldest = stanza.backups.iter().map(|backup| backup.start).min().unwrap_or(now);
        Axis { begin: oldest.min(now.saturating_sub(SPAN_MIN_S)), end: now }
    }

    /// The place of a time, from 0 to [`WIDTH`].
    fn x(&self, time: i64) -> f64 {
        let span = crate::compat::signed(self.end.saturating_sub(self.begin).max(1));
        let part = crate::compat::signed(time.saturating_sub(self.begin)) / span;
        part.clamp(0.0, 1.0) * WIDTH
    }
}

/// Draws for each repository what can be recovered, and its backups.
pub(super) fn timeline(page: &mut Html, stanza: &StanzaView, clock: &Clock<'_>) {
    if stanza.backups.is_empty() {
        return;
    }
    let axis = Axis::of(stanza, clock.now);
    page.raw("<figure class=\"timeline\"><figcaption>Backups and what can be recovered</figcaption>");
    for repo in &stanza.repos {
        page.raw("<div class=\"lane\"><span>repo").text(&repo.key.to_string()).raw("</span>");
        page.raw("<svg viewBox=\"0 0 1000 40\" preserveAspectRatio=\"none\" role=\"img\"><title>Backups of repo");
        page.text(&repo.key.to_string())
            .raw("</title><rect class=\"track\" x=\"0\" y=\"30\" width=\"1000\" height=\"6\"/>");
        windows(page, stanza, repo, &axis, clock);
        for backup in stanza.backups.iter().filter(|backup| backup.repo_key == repo.key) {
            tick(page, backup, &axis, clock);
        }
        page.raw("</svg></div>");
    }
    page.raw("<div class=\"axis\"><span>").text(&clock.short(axis.begin)).raw("</span><span class=\"legend\">");
    page.raw("<i class=\"full\"></i>full <i class=\"diff\"></i>diff <i class=\"incr\"></i>incr <i class=\"window\"></i>recoverable");
    page.raw("</span><span>").text(&clock.short(axis.end)).raw("</span></div></figure>");
}

fn windows(page: &mut Html, stanza: &StanzaView, repo: &RepoView, axis: &Axis, clock: &Clock<'_>) {
    let Some(recovery) = &repo.recovery else { return };
    for window in &recovery.windows {
        let end_time = end_time(stanza, window, axis.end);
        let (start, end) = (axis.x(window.start_time), axis.x(end_time));
        page.raw("<rect class=\"window\" y=\"30\" height=\"6\" x=\"").number(start).raw("\" width=\"");
        page.number((end - start).max(2.0))
            .raw("\"><title>")
            .text(&window_text(stanza, window, clock))
            .raw("</title></rect>");
        if !window.is_newest {
            page.raw("<rect class=\"gap\" y=\"28\" height=\"10\" width=\"3\" x=\"")
                .number(end.min(WIDTH - 3.0))
                .raw("\"><title>");
            page.text(&window.end_reason).raw("</title></rect>");
        }
    }
}

/// When a window ends, as far as it is known. The newest WAL is as old as the last success of the archiver.
fn end_time(stanza: &StanzaView, window: &WindowView, now: i64) -> i64 {
    if !window.is_newest {
        return window.last_backup_time;
    }
    let archived = stanza.clusters.iter().filter_map(|cluster| cluster.archiver.as_ref()?.last_archived_time).max();
    archived.unwrap_or(now).clamp(window.last_backup_time.min(now), now)
}

/// A window in words.
pub(super) fn window_text(stanza: &StanzaView, window: &WindowView, clock: &Clock<'_>) -> String {
    let end = clock.short(end_time(stanza, window, clock.now));
    let more = if window.is_newest { "" } else { " at least" };
    format!(
        "{} to {end}{more}, timeline {}, {} to {}",
        clock.short(window.start_time),
        window.timeline,
        window.start_lsn,
        window.end_lsn
    )
}

fn tick(page: &mut Html, backup: &BackupView, axis: &Axis, clock: &Clock<'_>) {
    let (start, stop) = (axis.x(backup.start), axis.x(backup.stop));
    let width = (stop - start).max(3.0);
    page.raw(match backup.kind.as_str() {
        "full" => "<rect class=\"full\" y=\"2\" height=\"26\" x=\"",
        "diff" => "<rect class=\"diff\" y=\"10\" height=\"18\" x=\"",
        _ => "<rect class=\"incr\" y=\"18\" height=\"10\" x=\"",
    });
    page.number(start.min(WIDTH - width)).raw("\" width=\"").number(width).raw("\"><title>").text(&backup.label);
    page.raw(", ")
        .text(&clock.short(backup.stop))
        .raw(", ")
        .text(&words::bytes(backup.database_bytes))
        .raw("</title></rect>");
}

/// Draws what the newest backups added to the repositories.
pub(super) fn sizes(page: &mut Html, stanza: &StanzaView, clock: &Clock<'_>) {
    let shown = &stanza.backups[stanza.backups.len().saturating_sub(SIZES_MAX)..];
    let Some(largest) = shown.iter().map(|backup| backup.stored_bytes).max().filter(|_| shown.len() > 1) else {
        return;
    };
    let unit = 90.0 / crate::compat::number(largest.max(1));
    page.raw("<figure class=\"sizes\"><figcaption>Stored by each backup, at most ").text(&words::bytes(largest));
    page.raw("</figcaption><svg viewBox=\"0 0 1000 90\" preserveAspectRatio=\"none\" role=\"img\"><title>Sizes of backups</title>");
    let step = WIDTH / crate::compat::number(shown.len().max(12) as u64);
    for (index, backup) in shown.iter().enumerate() {
        let height = (crate::compat::number(backup.stored_bytes) * unit).max(1.5);
        page.raw(match backup.kind.as_str() {
            "full" => "<rect class=\"full\" x=\"",
            "diff" => "<rect class=\"diff\" x=\"",
            _ => "<rect class=\"incr\" x=\"",
        });
        page.number(crate::compat::number(index as u64) * step).raw("\" y=\"").number(90.0 - height).raw("\" width=\"");
        page.number((step * 0.8).max(1.0))
            .raw("\" height=\"")
            .number(height)
            .raw("\"><title>")
            .text(&backup.label)
            .raw(", ");
        page.text(&clock.short(backup.stop)).raw(", ").text(&words::bytes(backup.stored_bytes)).raw(" stored of ");
        page.text(&words::bytes(backup.database_bytes)).raw("</title></rect>");
    }
    page.raw("</svg></figure>");
}
