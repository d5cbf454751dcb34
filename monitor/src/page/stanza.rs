//! The part of the page about a stanza.

use super::chart;
use super::html::{Html, Mood};
use super::words::{self, Clock};
use crate::snapshot::{BackupView, ClusterView, PhaseView, ProofView, RepoView, RunningView, Snapshot, StanzaView};

/// How many backups the table shows.
const BACKUPS_MAX: usize = 50;
/// How many phases of a backup are shown, and how long they take at least.
const PHASES_MAX: usize = 3;
const PHASE_MIN_S: f64 = 0.1;
/// How many windows and gaps are shown of a repository.
const WINDOWS_MAX: usize = 20;

/// Renders a stanza.
pub(super) fn render(page: &mut Html, snapshot: &Snapshot, stanza: &StanzaView, clock: &Clock<'_>) {
    page.raw("<section class=\"card\"><h2>").text(&stanza.name).raw(" ");
    page.pill(Mood::of(stanza.status_code == 0), &stanza.status).raw("</h2>");
    facts(page, stanza, clock);
    stanza.running.iter().for_each(|running| self::running(page, running));
    chart::timeline(page, stanza, clock);
    chart::sizes(page, stanza, clock);
    repos(page, stanza, clock);
    clusters(page, stanza, clock);
    recovery(page, stanza, clock);
    backups(page, stanza, clock);
    jobs_of(page, snapshot, stanza);
    page.raw("</section>");
}

/// The most important numbers.
fn facts(page: &mut Html, stanza: &StanzaView, clock: &Clock<'_>) {
    let newest = stanza.backups.iter().max_by_key(|backup| backup.stop);
    let oldest = stanza.repos.iter().filter_map(|repo| repo.recovery.as_ref());
    let oldest = oldest.flat_map(|recovery| &recovery.windows).map(|window| window.start_time).min();
    let proven = stanza.repos.iter().filter_map(|repo| repo.proven.as_ref()).max_by_key(|proof| proof.time);
    let stored: u64 = stanza.repos.iter().map(|repo| repo.stored_bytes).fold(0, u64::saturating_add);
    let never = || "never".to_owned();
    let facts = [
        ("last backup", newest.map_or_else(never, |backup| clock.relative(backup.stop))),
        ("recoverable since", oldest.map_or_else(|| "not at all".to_owned(), |time| clock.short(time))),
        ("last proven restore", proven.map_or_else(never, |proof| clock.relative(proof.time))),
        ("stored", words::bytes(stored)),
    ];
    page.raw("<dl class=\"facts\">");
    for (name, value) in facts {
        page.raw("<div><dt>").text(name).raw("</dt><dd>").text(&value).raw("</dd></div>");
    }
    page.raw("</dl>");
}

fn running(page: &mut Html, running: &RunningView) {
    page.raw("<div class=\"running\"><b>").text(&running.kind).raw(" running</b> ");
    if let Some(total) = running.total_bytes {
        page.raw("<progress max=\"").text(&total.to_string()).raw("\" value=\"").text(&running.done_bytes.to_string());
        page.raw("\"></progress> ").text(&words::bytes(running.done_bytes)).raw(" of ").text(&words::bytes(total));
    }
    if let Some(rate) = running.bytes_per_second {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is not negative")]
        page.raw(", ").text(&words::bytes(rate as u64)).raw("/s");
    }
    if let Some(left) = running.seconds_left {
        page.raw(", ").text(&words::seconds(left)).raw(" left");
    }
    page.raw("</div>");
}

fn repos(page: &mut Html, stanza: &StanzaView, clock: &Clock<'_>) {
    page.raw("<h3>Repositories</h3>");
    page.table(&[
        "repository",
        "status",
        "latency",
        "backups",
        "stored",
        "newest WAL",
        "missing WAL",
        "last test restore",
    ]);
    for repo in &stanza.repos {
        let backups = stanza.backups.iter().filter(|backup| backup.repo_key == repo.key).count();
        page.open_row().cell(&format!("repo{}", repo.key));
        page.pill_cell(Mood::of(repo.status_code == 0), &repo.status);
        page.cell(&repo.latency_seconds.map_or_else(|| "-".to_owned(), words::seconds));
        page.cell(&backups.to_string()).cell(&saved(repo));
        let newest = repo.archives.iter().rev().find_map(|archive| archive.max.as_deref());
        page.cell(newest.unwrap_or("-"));
        match &repo.recovery {
            Some(recovery) if recovery.error.is_none() => {
                page.pill_cell(Mood::of(recovery.missing_segments == 0), &recovery.missing_segments.to_string())
            }
            _ => page.cell("?"),
        };
        proof(page, repo.proof.as_ref(), clock);
        page.raw("</tr>");
    }
    page.end_table();
}

/// What is stored, and how much smaller that is than the clusters.
fn saved(repo: &RepoView) -> String {
    let stored = words::bytes(repo.stored_bytes);
    if repo.stored_bytes == 0 {
        return stored;
    }
    let factor = crate::compat::number(repo.database_bytes) / crate::compat::number(repo.stored_bytes);
    format!("{stored} (1/{factor:.1})")
}

fn proof(page: &mut Html, proof: Option<&ProofView>, clock: &Clock<'_>) {
    let Some(proof) = proof else {
        page.cell("-");
        return;
    };
    page.open_cell().pill(Mood::of(proof.result == "passed"), &proof.result).raw(" ");
    if proof.time > 0 {
        page.text(&clock.short(proof.time));
    }
    if proof.result == "passed" {
        page.raw(", recovered in ").text(&words::seconds(proof.recovery_seconds));
        if let Some(seconds) = proof.seconds_per_tebibyte() {
            page.raw(" (").text(&words::seconds(seconds)).raw(" per TiB)");
        }
    }
    if let Some(lsn) = &proof.lsn {
        page.raw(" to ").text(lsn);
    }
    page.raw("</td>");
}

fn clusters(page: &mut Html, stanza: &StanzaView, clock: &Clock<'_>) {
    if stanza.clusters.is_empty() {
        return;
    }
    page.raw("<h3>Clusters</h3>");
    page.table(&["cluster", "role", "writes WAL at", "not archived", "waiting", "last archived"]);
    for cluster in &stanza.clusters {
        let host = cluster.host.as_deref().map(|host| format!(" on {host}")).unwrap_or_default();
        page.open_row().cell(&format!("pg{}{host}", cluster.key));
        cluster_cells(page, cluster, clock);
        page.raw("</tr>");
    }
    page.end_table();
}

fn cluster_cells(page: &mut Html, cluster: &ClusterView, clock: &Clock<'_>) {
    if let Some(error) = &cluster.error {
        page.raw("<td colspan=\"5\" data-name=\"role\">")
            .pill(Mood::Bad, "no answer")
            .raw(" ")
            .text(error)
            .raw("</td>");
        return;
    }
    page.pill_cell(Mood::Neutral, if cluster.is_standby { "standby" } else { "primary" });
    page.cell(cluster.lsn.as_deref().unwrap_or("-"));
    let lag = cluster.lag.iter().map(|lag| format!("repo{}: {}", lag.repo_key, words::bytes(lag.bytes)));
    let lag: Vec<String> = lag.collect();
    page.cell(if lag.is_empty() { "-".to_owned() } else { lag.join(", ") }.as_str());
    let Some(archiver) = &cluster.archiver else {
        page.cell("-").cell("-");
        return;
    };
    match archiver.ready {
        Some(files) => page.cell(&words::count(files, "file")),
        None => page.cell("?"),
    };
    let last = archiver.last_archived_time.map_or_else(
        || "never".to_owned(),
        // It may have happened during the collection, whose time is that of its beginning
        |time| clock.relative(time.min(clock.now)),
    );
    match &archiver.failing {
        Some(_) => page.pill_cell(Mood::Bad, &format!("failing, {last}")),
        None => page.cell(&last),
    };
}

fn recovery(page: &mut Html, stanza: &StanzaView, clock: &Clock<'_>) {
    for repo in &stanza.repos {
        let Some(recovery) = &repo.recovery else { continue };
        if recovery.windows.is_empty() && recovery.gaps.is_empty() {
            continue;
        }
        page.raw("<details><summary>What can be recovered from repo").text(&repo.key.to_string()).raw(" (");
        page.text(&words::count(recovery.windows.len() as u64, "range")).raw(", ");
        page.text(&words::count(recovery.missing_segments, "missing segment")).raw(")</summary><ul>");
        for window in recovery.windows.iter().rev().take(WINDOWS_MAX) {
            page.raw("<li>").text(&chart::window_text(stanza, window, clock)).raw(", from ");
            page.text(&words::count(window.backups.len() as u64, "backup")).raw("; it ends with ");
            page.text(&window.end_reason).raw("</li>");
        }
        for gap in recovery.gaps.iter().rev().take(WINDOWS_MAX) {
            page.raw("<li>").pill(Mood::Bad, "missing").raw(" ").text(&gap.first);
            if gap.first != gap.last {
                page.raw(" to ").text(&gap.last);
            }
            page.raw("</li>");
        }
        page.raw("</ul></details>");
    }
}

fn backups(page: &mut Html, stanza: &StanzaView, clock: &Clock<'_>) {
    if stanza.backups.is_empty() {
        return;
    }
    let count = stanza.backups.len();
    page.raw("<details><summary>").text(&words::count(count as u64, "backup"));
    if count > BACKUPS_MAX {
        page.raw(", of which the newest ").text(&BACKUPS_MAX.to_string()).raw(" are shown");
    }
    page.raw("</summary>");
    page.table(&["backup", "repository", "ended", "took", "cluster", "copied", "stored", "test restore", "annotation"]);
    for backup in stanza.backups.iter().rev().take(BACKUPS_MAX) {
        backup_row(page, backup, clock);
    }
    page.end_table().raw("</details>");
}

fn backup_row(page: &mut Html, backup: &BackupView, clock: &Clock<'_>) {
    page.open_row().open_cell().text(&backup.label);
    if backup.error == Some(true) {
        page.raw(" ").pill(Mood::Bad, "invalid pages");
    }
    page.raw("</td>").cell(&format!("repo{}", backup.repo_key)).cell(&clock.both(backup.stop));
    let took = backup.stop.saturating_sub(backup.start);
    page.open_cell().text(&words::duration(took.unsigned_abs()));
    phases(page, backup);
    page.raw("</td>").cell(&words::bytes(backup.database_bytes));
    page.cell(&words::bytes(backup.copied_bytes)).cell(&words::bytes(backup.stored_bytes));
    proof(page, backup.proof.as_ref(), clock);
    let annotation: Vec<String> = backup.annotation.iter().map(|(key, value)| format!("{key}={value}")).collect();
    page.cell(&annotation.join(", ")).raw("</tr>");
}

/// The phases that took longest, with the rate of those that moved something. All are in the API.
fn phases(page: &mut Html, backup: &BackupView) {
    let mut longest: Vec<&PhaseView> = backup.phases.iter().filter(|phase| phase.seconds >= PHASE_MIN_S).collect();
    longest.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
    for phase in longest.into_iter().take(PHASES_MAX) {
        page.raw("<br><small>").text(&phase.phase).raw(" ").text(&words::seconds(phase.seconds));
        if let Some(bytes) = phase.bytes.filter(|_| phase.phase == "copy") {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is not negative")]
            let rate = (crate::compat::number(bytes) / phase.seconds) as u64;
            page.raw(", ").text(&words::bytes(rate)).raw("/s");
        }
        page.raw("</small>");
    }
}

/// How many jobs there are, as the table of jobs is below.
fn jobs_of(page: &mut Html, snapshot: &Snapshot, stanza: &StanzaView) {
    let count = snapshot.jobs.iter().filter(|job| job.stanza == stanza.name).count();
    if count == 0 {
        page.raw("<p class=\"note\">No job is scheduled on this host.</p>");
    }
}
