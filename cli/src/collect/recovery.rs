//! Finds out what a stanza can be recovered to.

use std::collections::BTreeSet;

use engine::Result;
use engine::info::{BackupFact, StanzaFact};
use engine::recovery_points::{ArchivePoints, RepoPoints, TimelinePoints, WalGap, WindowEnd};
use monitor::snapshot::{GapView, ProofView, RecoveryView, RepoView, StanzaView, UnrecoverableView, WindowView};
use repo_format::wal_name::{Lsn, TimelineId};

use super::now;

/// How long a look at the whole archive is good for, in seconds, unless backups come or go. It lists every directory of
/// the archive.
const LOOK_INTERVAL_S: i64 = 600;
/// The same after an error, so that a slow repository is not listed all the time.
const ERROR_INTERVAL_S: i64 = 180;
/// How many windows, gaps and backups are shown. Counts are complete.
const SHOWN_MAX: usize = 500;

/// What is known of archives, by repository.
type Looked = Vec<(u32, Result<Vec<RepoPoints>>)>;

/// Adds proofs, windows and gaps to the repositories of a stanza. `look` lists the archives of these repositories.
pub(super) fn add(
    view: &mut StanzaView,
    fact: &StanzaFact,
    previous: Option<&StanzaView>,
    look: impl FnOnce(&[u32]) -> Looked,
) {
    let time = now();
    let backups = view.backups.clone();
    let mut unknown = Vec::new();
    for repo in &mut view.repos {
        let of_repo = || backups.iter().filter(|backup| backup.repo_key == repo.key);
        let proofs: Vec<&ProofView> = of_repo().filter_map(|backup| backup.proof.as_ref()).collect();
        repo.proof = proofs.iter().max_by_key(|proof| proof.time).map(|proof| (*proof).clone());
        let passed = proofs.into_iter().filter(|proof| proof.result == "passed");
        repo.proven = passed.max_by_key(|proof| proof.time).cloned();
        let labels: BTreeSet<&str> = of_repo().map(|backup| backup.label.as_str()).collect();
        let known = previous.and_then(|stanza| stanza.repo(repo.key)).and_then(|repo| repo.recovery.as_ref());
        let is_good = |known: &&RecoveryView| {
            let age = time.saturating_sub(known.time);
            let is_same = || known.backups.iter().map(String::as_str).eq(labels.iter().copied());
            (0..limit(known)).contains(&age) && (known.error.is_some() || is_same())
        };
        repo.recovery = known.filter(is_good).cloned();
        if repo.recovery.is_none() {
            unknown.push(repo.key);
        }
    }
    if unknown.is_empty() {
        return;
    }
    let looked = look(&unknown);
    for repo in &mut view.repos {
        if let Some((_, found)) = looked.iter().find(|(key, _)| *key == repo.key) {
            repo.recovery = Some(recovery(repo, fact, time, found));
        }
    }
}

/// How long a view is good for, in seconds.
fn limit(view: &RecoveryView) -> i64 {
    if view.error.is_some() { ERROR_INTERVAL_S } else { LOOK_INTERVAL_S }
}

fn recovery(repo: &RepoView, fact: &StanzaFact, time: i64, found: &Result<Vec<RepoPoints>>) -> RecoveryView {
    let failed = |error: &engine::Error| RecoveryView {
        time,
        error: Some(format!("[{}] {error}", error.code)),
        ..RecoveryView::default()
    };
    let points = match found {
        Err(error) => return failed(error),
        Ok(points) => points.iter().find(|points| points.repo_key == repo.key),
    };
    let Some(points) = points else { return RecoveryView { time, ..RecoveryView::default() } };
    let archives = match &points.archives {
        Ok(archives) => archives,
        Err(error) => return failed(error),
    };
    let mut of_repo: Vec<&BackupFact> = fact.backups.iter().filter(|backup| backup.repo_key == repo.key).collect();
    of_repo.sort_by_key(|backup| &backup.label);
    let mut view = RecoveryView {
        time,
        backups: of_repo.iter().map(|backup| backup.label.to_string()).collect(),
        ..RecoveryView::default()
    };
    let last = archives.len().saturating_sub(1);
    for (index, archive) in archives.iter().enumerate() {
        let newest = archive.timelines.iter().map(|timeline| timeline.timeline).max().filter(|_| index == last);
        for timeline in &archive.timelines {
            add_timeline(&mut view, archive, timeline, (&of_repo, newest == Some(timeline.timeline)));
        }
    }
    let newest =
        of_repo.iter().max_by_key(|backup| backup.entry.timestamp_stop).filter(|backup| backup.entry.option_online);
    view.newest_backup_is_current = newest.map(|backup| {
        let label = backup.label.to_string();
        view.windows.iter().any(|window| window.is_newest && window.backups.contains(&label))
    });
    view.windows.sort_by(|a, b| (a.start_time, &a.end_lsn).cmp(&(b.start_time, &b.end_lsn)));
    // A backup is on the way to several timelines, and one of them may be complete
    let recoverable: BTreeSet<&String> = view.windows.iter().flat_map(|window| &window.backups).collect();
    let mut lost: Vec<UnrecoverableView> = std::mem::take(&mut view.unrecoverable);
    lost.retain(|lost| !recoverable.contains(&lost.backup));
    lost.sort_by(|a, b| a.backup.cmp(&b.backup));
    lost.dedup_by(|a, b| a.backup == b.backup);
    view.unrecoverable = lost;
    // The first one tells the oldest time
    let surplus = view.windows.len().saturating_sub(SHOWN_MAX);
    if surplus > 0 {
        view.windows.drain(1..=surplus);
    }
    view.gaps.truncate(SHOWN_MAX);
    view
}

/// Adds what is known of a timeline. `facts` are the backups, and whether this is the newest timeline of all.
fn add_timeline(
    view: &mut RecoveryView,
    archive: &ArchivePoints,
    timeline: &TimelinePoints,
    facts: (&[&BackupFact], bool),
) {
    let (backups, is_newest) = facts;
    let stop_of = |label: &engine::BackupLabel| {
        let found = backups.iter().find(|backup| backup.label == *label);
        found.map_or(0, |backup| backup.entry.timestamp_stop)
    };
    for timed in &timeline.windows {
        let window = &timed.window;
        view.windows.push(WindowView {
            archive: archive.id.to_string(),
            timeline: timeline.timeline.0,
            start_lsn: window.start.to_string(),
            start_time: window.start_time,
            end_lsn: window.end.to_string(),
            last_backup_time: window.backups.iter().map(stop_of).max().unwrap_or(window.start_time),
            is_newest: is_newest && window.end_reason == WindowEnd::Newest,
            end_reason: match &window.end_reason {
                WindowEnd::Newest if !is_newest => format!("the end of timeline {}", timeline.timeline.0),
                reason => end_text(reason),
            },
            backups: window.backups.iter().map(ToString::to_string).collect(),
        });
    }
    let lost = timeline.unreachable.iter();
    view.unrecoverable.extend(lost.map(|lost| UnrecoverableView {
        backup: lost.label.to_string(),
        reason: format!("the WAL that makes it consistent is incomplete: {}", end_text(&lost.end)),
    }));
    let starts = || backups.iter().filter_map(|backup| start(backup, timeline.timeline));
    let (Some(oldest), Some(newest)) = (starts().min(), starts().max()) else { return };
    for gap in timeline.gaps.iter().filter(|gap| gap.start >= oldest) {
        add_gap(view, archive, gap, gap.start >= newest);
    }
}

fn add_gap(view: &mut RecoveryView, archive: &ArchivePoints, gap: &WalGap, after_newest_backup: bool) {
    view.missing_segments = view.missing_segments.saturating_add(gap.segments);
    if after_newest_backup {
        view.missing_segments_newest = view.missing_segments_newest.saturating_add(gap.segments);
    }
    view.gaps.push(GapView {
        archive: archive.id.to_string(),
        first: gap.first.to_string(),
        last: gap.last.to_string(),
        segments: gap.segments,
        after_newest_backup,
    });
}

/// Where a backup starts, if it is of the timeline or of one before.
fn start(backup: &BackupFact, timeline: TimelineId) -> Option<Lsn> {
    let first = backup.entry.archive_start?;
    let lsn = backup.entry.lsn_start.as_ref()?.parse().ok()?;
    (first.timeline <= timeline).then_some(lsn)
}

fn end_text(end: &WindowEnd) -> String {
    match end {
        WindowEnd::Newest => "the newest WAL".to_owned(),
        WindowEnd::Missing(segment) => format!("segment {segment} is missing"),
        WindowEnd::Duplicate(segment) => format!("segment {segment} is stored with several contents"),
        WindowEnd::Damaged(segment, why) => format!("segment {segment} is damaged: {why}"),
        WindowEnd::NotRead(segment) => format!("segment {segment} was not read"),
    }
}
