//! The status page: one HTML file without scripts and without anything from elsewhere.

mod chart;
mod html;
mod jobs;
mod problems;
mod stanza;
mod words;

use jiff::tz::TimeZone;

use crate::snapshot::Snapshot;
use html::Html;
pub use problems::{Problem, problems};
use words::Clock;

/// The style sheet, which is part of the page.
pub const STYLE: &str = include_str!("page/style.css");

/// Renders the page. Times are in this zone.
pub fn render(snapshot: &Snapshot, zone: &TimeZone) -> String {
    let clock = Clock { now: snapshot.time, zone };
    let mut page = Html::default();
    page.raw("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    page.raw("<meta http-equiv=\"refresh\" content=\"60\"><meta name=\"color-scheme\" content=\"light dark\">");
    page.raw("<title>")
        .text("rbr - ")
        .text(&snapshot.host)
        .raw("</title><style>")
        .raw(STYLE)
        .raw("</style></head><body>");
    head(&mut page, snapshot, &clock);
    page.raw("<main>");
    summary(&mut page, snapshot);
    for stanza in &snapshot.stanzas {
        stanza::render(&mut page, snapshot, stanza, &clock);
    }
    jobs::render(&mut page, snapshot, &clock);
    page.raw("</main><footer>rbr ").text(&snapshot.version).raw(", collected in ");
    page.text(&words::seconds(snapshot.duration_seconds));
    page.raw(" - <a href=\"/metrics\">metrics</a> - <a href=\"/api/v1/status\">JSON</a></footer></body></html>\n");
    page.finish()
}

fn head(page: &mut Html, snapshot: &Snapshot, clock: &Clock<'_>) {
    page.raw("<header><h1>Backups <span class=\"host\">").text(&snapshot.host).raw("</span></h1><p>as of <time>");
    page.text(&clock.absolute(snapshot.time)).raw("</time> - ");
    page.raw(if snapshot.daemon { "daemon running" } else { "no daemon" }).raw("</p></header>");
}

fn summary(page: &mut Html, snapshot: &Snapshot) {
    let found = problems(snapshot);
    if found.is_empty() {
        page.raw("<p class=\"banner good\">Everything is fine.</p>");
        return;
    }
    page.raw("<section class=\"banner bad\"><h2>").text(&words::count(found.len() as u64, "problem")).raw("</h2><ul>");
    for problem in found {
        page.raw("<li>");
        if !problem.subject.is_empty() {
            page.raw("<b>").text(&problem.subject).raw("</b> ");
        }
        page.text(&problem.text).raw("</li>");
    }
    page.raw("</ul></section>");
}

#[cfg(test)]
mod tests;
