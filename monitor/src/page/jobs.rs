//! The part of the page about jobs.

use super::html::{Html, Mood};
use super::words::{self, Clock};
use crate::snapshot::{JobView, Snapshot};

/// Renders the jobs.
pub(super) fn render(page: &mut Html, snapshot: &Snapshot, clock: &Clock<'_>) {
    if snapshot.jobs.is_empty() {
        return;
    }
    page.raw("<section class=\"card\"><h2>Jobs</h2>");
    page.table(&["job", "command", "schedule", "last result", "last run", "last success", "next run"]);
    for job in &snapshot.jobs {
        row(page, job, clock);
    }
    page.end_table().raw("</section>");
}

fn row(page: &mut Html, job: &JobView, clock: &Clock<'_>) {
    page.open_row().open_cell().text(&job.stanza).raw("/").text(&job.name).raw("</td>").cell(&job.command);
    let zone = job.time_zone.as_deref().map(|zone| format!(" ({zone})")).unwrap_or_default();
    page.cell(&format!("{}{zone}", job.schedule));
    let time = |text: &str| words::parse(text).map_or_else(|| text.to_owned(), |time| clock.both(time));
    page.open_cell();
    match (&job.running_since, &job.last) {
        (Some(since), _) => page.pill(Mood::Neutral, "running").raw(" since ").text(&time(since)),
        (None, Some(last)) => {
            let mood = match last.result.as_str() {
                "success" => Mood::Good,
                "failure" => Mood::Bad,
                _ => Mood::Neutral,
            };
            page.pill(mood, &last.result).raw(" ").text(last.error.as_deref().unwrap_or_default())
        }
        (None, None) => page.text("-"),
    };
    if job.late_since.is_some() {
        page.raw(" ").pill(Mood::Bad, "late");
    }
    page.raw("</td>").open_cell();
    match &job.last {
        Some(last) => {
            page.text(&time(&last.started));
            if let (Some(start), Some(end)) = (words::parse(&last.started), words::parse(&last.ended)) {
                page.raw(", ").text(&words::duration(end.saturating_sub(start).unsigned_abs()));
            }
        }
        None => {
            page.text("never");
        }
    }
    page.raw("</td>").cell(&job.success.as_ref().map_or_else(|| "never".to_owned(), |success| time(&success.ended)));
    page.cell(&job.next.first().map_or_else(|| "never".to_owned(), |next| time(next))).raw("</tr>");
}
