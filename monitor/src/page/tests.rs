use std::collections::BTreeMap;

use super::*;
use crate::metrics::tests::complete;
use crate::snapshot::{GapView, RunView};

const HOSTILE: &str =
    "<script>alert(1)</script>\"' onload='x' <img src=x onerror=y> &lt; \u{202e}\u{7}\n</title></style>";

fn page(snapshot: &Snapshot) -> String {
    render(snapshot, &TimeZone::UTC)
}

/// A snapshot in which every text is hostile.
fn hostile() -> Snapshot {
    let mut snapshot = complete();
    let text = || HOSTILE.to_owned();
    snapshot.host = text();
    snapshot.version = text();
    snapshot.errors = vec![text()];
    let stanza = &mut snapshot.stanzas[0];
    stanza.name = text();
    stanza.status = text();
    stanza.backups[0].label = text();
    stanza.backups[0].kind = text();
    stanza.backups[0].phases[0].phase = text();
    stanza.backups[0].annotation = BTreeMap::from([(text(), text())]);
    let backup = stanza.backups[0].clone();
    stanza.backups.push(backup);
    stanza.running[0].kind = text();
    stanza.clusters[0].host = Some(text());
    stanza.clusters[0].lsn = Some(text());
    let cluster = stanza.clusters[0].clone();
    stanza.clusters.push(cluster);
    stanza.clusters[1].error = Some(text());
    let repo = &mut stanza.repos[0];
    repo.status = text();
    repo.status_code = 99;
    let recovery = repo.recovery.as_mut().unwrap();
    recovery.windows[0].end_reason = text();
    recovery.windows[0].start_lsn = text();
    recovery.gaps = vec![GapView { first: text(), last: "b".to_owned(), ..GapView::default() }];
    let proof = repo.proof.as_mut().unwrap();
    (proof.result, proof.reason, proof.backup, proof.lsn) = (text(), Some(text()), text(), Some(text()));
    let job = &mut snapshot.jobs[0];
    (job.name, job.command, job.schedule, job.time_zone) = (text(), text(), text(), Some(text()));
    job.last =
        Some(RunView { result: "failure".to_owned(), error: Some(text()), started: text(), ..RunView::default() });
    job.next = vec![text()];
    snapshot
}

#[test]
fn text_from_elsewhere_is_never_markup() {
    let hostile = page(&hostile());
    // What a clean page contains is the program's own
    for markup in ["<script", "<img", "onload='", "\u{202e}", "\u{7}"] {
        assert!(!hostile.contains(markup), "{markup}: {hostile}");
    }
    assert_eq!(hostile.matches("</title></style>").count(), 0);
    assert!(hostile.matches("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39; onload").count() > 20, "{hostile}");
    let tags = |text: &str| -> std::collections::BTreeSet<String> {
        let names = text.split('<').skip(1).filter_map(|rest| rest.split([' ', '>', '\n']).next().map(str::to_owned));
        names.collect()
    };
    let mut clean = complete();
    let backup = clean.stanzas[0].backups[0].clone();
    clean.stanzas[0].backups.push(backup);
    clean.errors.push("an error".to_owned());
    clean.stanzas[0].clusters[0].error = Some("no answer".to_owned());
    let (hostile, clean) = (tags(&hostile), tags(&page(&clean)));
    assert!(hostile.is_subset(&clean), "{:?}", hostile.difference(&clean));
}

#[test]
fn page_needs_no_script_and_nothing_from_elsewhere() {
    let page = page(&complete());
    for word in ["<script", "http://", "https://", "src=", "@import", "url(", " style=", " on"] {
        let found = page.find(word).map(|at| &page[at..page.len().min(at + 60)]);
        let is_text = word == " on" && found.is_some_and(|found| !found.contains('='));
        assert!(found.is_none() || is_text, "{word}: {found:?}");
    }
    assert!(page.len() < 20_000, "{} bytes", page.len());
}

#[test]
fn page_tells_problems_and_the_end_of_what_can_be_recovered() {
    let page = page(&complete());
    for text in [
        "demo repo2</b> 1 WAL segment after the newest backup missing",
        "the last test restore (20261129-030000F) failed: no reason is known",
        "PostgreSQL can&#39;t archive 000000010000000000000007",
        "the push queue tells 1 error",
        "job demo/nightly</b> failed: ",
        "40 B of 100 B, 2 B/s, 30 s left",
        "<dt>last backup</dt><dd>15 min ago</dd>",
        "<dt>last proven restore</dt><dd>8 min ago</dd>",
        "2027-01-15 08:01 (in 1 min)",
    ] {
        assert!(page.contains(text), "{text}\n{page}");
    }
}

/// The problems of a complete snapshot without any, after a change.
fn told(change: impl FnOnce(&mut Snapshot)) -> Vec<String> {
    let mut snapshot = complete();
    snapshot.daemon = true;
    snapshot.jobs.clear();
    let stanza = &mut snapshot.stanzas[0];
    stanza.spool.clear();
    stanza.clusters.clear();
    stanza.repos[0].proof = None;
    let recovery = stanza.repos[0].recovery.as_mut().unwrap();
    (recovery.missing_segments, recovery.missing_segments_newest) = (0, 0);
    change(&mut snapshot);
    problems(&snapshot).into_iter().map(|problem| problem.text).collect()
}

#[test]
fn known_faults_are_problems_and_a_good_snapshot_has_none() {
    assert_eq!(told(|_| ()), [] as [String; 0]);
    let jobs = complete().jobs;
    let found = told(|snapshot| (snapshot.daemon, snapshot.jobs) = (false, jobs));
    assert!(found.contains(&"the daemon is not running, so no job runs".to_owned()), "{found:?}");
    let found = told(|snapshot| snapshot.stanzas[0].backups[0].error = Some(true));
    assert_eq!(found, ["the newest backup (20261129-030000F) contains invalid pages"]);
    let recovery = |snapshot: &mut Snapshot| snapshot.stanzas[0].repos[0].recovery.clone().unwrap();
    let found = told(|snapshot| {
        let changed = crate::snapshot::RecoveryView { newest_backup_is_current: Some(false), ..recovery(snapshot) };
        snapshot.stanzas[0].repos[0].recovery = Some(changed);
    });
    assert_eq!(found, ["the newest backup can't be recovered to the newest WAL"]);
    let found = told(|snapshot| {
        snapshot.stanzas[0].repos[0].recovery =
            Some(crate::snapshot::RecoveryView { missing_segments: 2, ..recovery(snapshot) });
    });
    assert_eq!(found, ["2 WAL segments between older backups missing"]);
    assert_eq!(told(|snapshot| snapshot.errors.push("jobs: no".to_owned())), ["jobs: no"]);
}

#[test]
fn recoverable_time_ends_where_the_archiver_stopped() {
    let mut snapshot = complete();
    let archiver = snapshot.stanzas[0].clusters[0].archiver.as_mut().unwrap();
    archiver.last_archived_time = Some(snapshot.time - 600);
    // The window begins 9000 seconds before now
    let text = page(&snapshot);
    assert!(text.contains("2027-01-15 05:30 to 2027-01-15 07:50, timeline 0"), "{text}");
    snapshot.stanzas[0].clusters.clear();
    assert!(page(&snapshot).contains("2027-01-15 05:30 to 2027-01-15 08:00, timeline 0"));
}

#[test]
fn empty_snapshot_is_a_page() {
    let page = page(&Snapshot::default());
    assert!(
        page.contains("no stanza is known") && !page.contains("Everything is fine.") && page.ends_with("</html>\n"),
        "{page}"
    );
}

#[test]
fn numbers_at_the_limits_do_not_break_the_page() {
    let mut snapshot = complete();
    let stanza = &mut snapshot.stanzas[0];
    for (start, stop) in [(i64::MIN, i64::MAX), (i64::MAX, i64::MIN), (0, 0)] {
        let mut backup = stanza.backups[0].clone();
        (backup.start, backup.stop, backup.stored_bytes, backup.database_bytes) = (start, stop, u64::MAX, u64::MAX);
        stanza.backups.push(backup);
    }
    stanza.repos[0].stored_bytes = u64::MAX;
    let page = page(&snapshot);
    assert!(!page.contains("NaN") && !page.contains("inf\""), "{page}");
}

#[test]
fn long_history_stays_a_small_page() {
    let mut snapshot = complete();
    let stanza = &mut snapshot.stanzas[0];
    let backup = stanza.backups[0].clone();
    stanza.backups = (0..2000).map(|_| backup.clone()).collect();
    let window = stanza.repos[0].recovery.as_ref().unwrap().windows[0].clone();
    stanza.repos[0].recovery.as_mut().unwrap().windows = vec![window; 500];
    let size = page(&snapshot).len();
    assert!(size < 600_000, "{size}");
}
