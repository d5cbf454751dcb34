//! `expire` compared with the real pgBackRest, on copies of generated repositories.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::{BackupEntry, BackupInfo};
use repo_format::hash::Sha1;
use repo_format::label::{BackupLabel, BackupType};
use repo_format::pg::PgVersion;

use crate::env::{Space, Tree, oracles};

const DAY: i64 = 86_400;
/// Age in days, type, and the backup that it is based on. The first six are of an older cluster.
const BACKUPS: [(i64, char, usize); 16] = [
    (45, 'F', 0),
    (44, 'D', 0),
    (43, 'I', 1),
    (42, 'I', 2),
    (41, 'D', 0),
    (40, 'F', 0),
    (30, 'F', 0),
    (29, 'I', 6),
    (28, 'D', 6),
    (27, 'I', 8),
    (20, 'F', 0),
    (19, 'D', 10),
    (10, 'F', 0),
    (9, 'D', 12),
    (3, 'F', 0),
    (2, 'I', 14),
];

/// Formats a time in UTC as `YYYYMMDD-HHMMSS`.
fn time_text(space: &Space, epoch: i64) -> String {
    space.run("date", &["-u", "-d", &format!("@{epoch}"), "+%Y%m%d-%H%M%S"]).success().stdout.trim().to_owned()
}

fn segment(timeline: u32, number: u32) -> String {
    format!("{timeline:08X}{:08X}{:08X}", number / 256, number % 256)
}

fn put(root: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("parent")).expect("folder");
    fs::write(path, content).expect("file");
}

/// A repository of two clusters and three timelines, with gaps in its WAL and leftovers of every kind.
fn repository(space: &Space, root: &Path, now: i64) -> Vec<(BackupLabel, BackupEntry)> {
    let mut info = BackupInfo::new(PgVersion::V15, 1, 202_209_061, None).expect("info");
    info.upgrade(PgVersion::V16, 2, 202_307_071).expect("upgrade");
    let mut archive = ArchiveInfo::new(PgVersion::V15, 1, None);
    archive.upgrade(PgVersion::V16, 2).expect("upgrade");
    let mut made: Vec<(BackupLabel, BackupEntry)> = Vec::new();
    for (index, (days, kind, prior)) in BACKUPS.into_iter().enumerate() {
        let stop = now - days * DAY;
        let text = time_text(space, stop);
        let prior = (kind != 'F').then(|| made[prior].0.clone());
        let label = match &prior {
            None => format!("{text}F"),
            Some(prior) => format!("{}_{text}{kind}", prior.full_part()),
        };
        let label: BackupLabel = label.parse().expect("label");
        let timeline = 1 + u32::from(index > 8) + u32::from(index > 12);
        let number = 20 * u32::try_from(index).expect("small") + 7;
        let offline = index == 11;
        let wal = |number| (!offline).then(|| segment(timeline, number).parse().expect("segment"));
        let entry = BackupEntry {
            backrest_format: 5,
            backrest_version: "2.60.0".to_owned(),
            annotation: Default::default(),
            archive_start: wal(number),
            archive_stop: wal(number + 2),
            error: Some(false),
            repo_size: 10,
            repo_size_delta: 10,
            repo_size_map: None,
            repo_size_map_delta: None,
            size: 20,
            size_delta: 20,
            lsn_start: None,
            lsn_stop: None,
            reference: prior.iter().cloned().collect(),
            prior,
            timestamp_start: stop - 600,
            timestamp_stop: stop,
            backup_type: match kind {
                'F' => BackupType::Full,
                'D' => BackupType::Diff,
                _ => BackupType::Incr,
            },
            pg_id: if index < 6 { 1 } else { 2 },
            option_archive_check: true,
            option_archive_copy: false,
            option_backup_standby: false,
            option_checksum_page: true,
            option_compress: true,
            option_hardlink: false,
            option_online: !offline,
        };
        for file in ["backup.manifest", "backup.manifest.copy", "pg_data/PG_VERSION"] {
            put(root, &format!("backup/demo/{label}/{file}"), "x");
        }
        put(root, &format!("backup/demo/backup.history/{}/{label}.manifest.gz", label.history_year()), "x");
        info.backups.insert(label.clone(), entry.clone());
        made.push((label, entry));
    }
    for suffix in ["", ".copy"] {
        put(root, &format!("backup/demo/backup.info{suffix}"), info.serialize().expect("info"));
        put(root, &format!("archive/demo/archive.info{suffix}"), archive.serialize().expect("info"));
    }
    let newest = made.iter().map(|(label, _)| label).max().expect("backups");
    std::os::unix::fs::symlink(newest.as_str(), root.join("backup/demo/latest")).expect("link");
    // Leftovers: a backup that never completed, a running backup, manifests of expired backups
    put(root, "backup/demo/20200101-000000F/backup.manifest.copy", "x");
    put(root, &format!("backup/demo/{}F/backup.manifest.copy", time_text(space, now)), "x");
    for label in ["20190101-000000F", "20240101-000000F", "20240101-000000F_20240102-000000D"] {
        put(root, &format!("backup/demo/backup.history/{}/{label}.manifest.gz", &label[..4]), "x");
    }
    for (id, timelines) in [("15-1", 1..=1), ("16-2", 1..=3), ("14-9", 1..=1)] {
        for timeline in timelines {
            put(root, &format!("archive/demo/{id}/{timeline:08X}.history"), "x");
            for number in (1..340).step_by(6).map(|number| number + timeline) {
                let name = segment(timeline, number);
                let folder = format!("archive/demo/{id}/{}", &name[..16]);
                put(root, &format!("{folder}/{name}-{}.gz", Sha1::of(name.as_bytes())), "x");
                if number % 4 == 0 {
                    put(root, &format!("{folder}/{name}.00000028.backup"), "x");
                    put(root, &format!("{folder}/{name}.partial-{}.gz", Sha1::EMPTY), "x");
                }
            }
        }
    }
    put(root, "archive/demo/16-2/junk", "x");
    space.run("chown", &["-R", "--reference", &space.text("log"), &root.to_string_lossy()]);
    made
}

/// Removes from log lines what differs between two equal runs.
fn normal(log: &str) -> String {
    let patterns = [
        (r"(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} ", ""),
        (r"command begin [0-9.]+:", "command begin"),
        (r"--exec-id=\S+", ""),
        (r"\(\d+ms\)", ""),
    ];
    patterns.iter().fold(log.to_owned(), |text, (pattern, new)| {
        regex_lite::Regex::new(pattern).expect("pattern").replace_all(&text, *new).into_owned()
    })
}

#[test]
fn expire_leaves_and_logs_what_pgbackrest_does() {
    let Some(oracles) = oracles(&[]) else { return };
    let space = Space::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock").as_secs().cast_signed();
    let made = repository(&space, &space.path("source"), now);
    let label = |index: usize| made[index].0.as_str();
    let start = |index: usize| made[index].1.archive_start.expect("online").to_string();
    let option = |name: &str, value: &dyn std::fmt::Display| format!("--repo1-retention-{name}={value}");
    let mut cases: Vec<Vec<String>> = vec![vec![]];
    for full in [1, 2, 3, 5, 9] {
        cases.push(vec![option("full", &full)]);
    }
    for days in [1, 5, 15, 25, 100] {
        cases.push(vec![option("full-type", &"time"), option("full", &days)]);
    }
    cases.push(vec![option("full-type", &"time"), option("full", &15), option("archive", &1)]);
    for diff in [1, 2, 4, 8] {
        cases.push(vec![option("full", &9), option("diff", &diff)]);
    }
    for kind in ["full", "diff", "incr"] {
        for archive in [1, 2, 5] {
            cases.push(vec![option("full", &4), option("archive-type", &kind), option("archive", &archive)]);
        }
        cases.push(vec![option("full", &4), option("archive-type", &kind), option("diff", &2)]);
    }
    for index in [0, 1, 2, 5, 6, 9, 14, 15] {
        cases.push(vec![option("full", &9), format!("--set={}", label(index))]);
    }
    cases.push(vec!["--set=20000101-000000F".to_owned()]);
    cases.push(vec!["--oldest".to_owned()]);
    cases.push(vec!["--oldest".to_owned(), option("full-type", &"time"), option("full", &3)]);
    cases.push(vec!["--oldest".to_owned(), format!("--set={}", label(0))]);
    for index in [0, 7, 10, 14] {
        cases.push(vec![option("full", &2), format!("--archive-expire-before={}", start(index))]);
    }
    for days in [0, 15, 40, 5000] {
        cases.push(vec![option("full", &3), option("history", &days)]);
    }
    cases.push(vec![option("full", &2), option("history", &15), "--dry-run".to_owned()]);
    assert!(cases.len() >= 40);
    for case in &cases {
        let results = [space.path("bin/rbr"), oracles.pgbackrest.clone()].map(|program| {
            // Both work in the same folder, because their messages contain its path
            space.copy("source", "work");
            // rbr removes an unfinished backup only if it has not changed for a day
            let long_ago = SystemTime::now() - Duration::from_secs(3 * 86_400);
            for path in ["backup.manifest.copy", ""] {
                let path = space.path("work/backup/demo/20200101-000000F").join(path);
                fs::File::open(path).expect("leftover").set_modified(long_ago).expect("time");
            }
            let mut arguments = vec![
                "--no-config".to_owned(),
                "--stanza=demo".to_owned(),
                format!("--repo1-path={}", space.text("work")),
                format!("--lock-path={}", space.text("lock")),
                format!("--log-path={}", space.text("log")),
                "--log-level-file=off".to_owned(),
                "--log-level-console=detail".to_owned(),
            ];
            arguments.extend(case.iter().cloned());
            arguments.push("expire".to_owned());
            let run = space.run(program, &arguments);
            let tree = Tree::read(&space.path("work"));
            fs::remove_dir_all(space.path("work")).expect("remove");
            let content = |path: &str| match tree.0.get(path) {
                // Times of rewritten files differ
                Some(crate::env::Entry::File { mode, size, sha1, .. }) => format!("{mode:o} {size} {sha1}"),
                other => format!("{other:?}"),
            };
            let files: Vec<String> = tree.0.keys().map(|path| format!("{path} {}", content(path))).collect();
            (run.code, normal(&run.stdout), files)
        });
        let [ours, theirs] = &results;
        assert_eq!((ours.0, &ours.1), (theirs.0, &theirs.1), "{case:?}");
        assert_eq!(ours.2, theirs.2, "{case:?}");
    }
}
