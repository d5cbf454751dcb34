use std::collections::BTreeMap;

use repo_format::layout::RepoPath;
use repo_format::manifest::Manifest;

use super::super::facts::{DIFF, FULL, INCR, block, bundling, in_backup, in_bundle, manifest, plain, plan, stanza};
use super::super::info_file::Unusable;
use super::super::plan::{Fact, ManifestFact, WalDir};
use super::*;
use crate::ErrorCode;

const SUM: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

/// Plays the checks of files: which of them fail, and what the block maps in them refer to.
#[derive(Default)]
struct Checks {
    /// The fault of a file, by its name in messages; for a part of a bundle followed by a space and its offset.
    faults: BTreeMap<String, FileFault>,
    needs: BTreeMap<String, Vec<StoredPart>>,
}

impl Checks {
    fn result(&self, job: &VerifyJob) -> Result<Checked> {
        let name = shown(job);
        let needs = self.needs.get(&name).cloned().unwrap_or_default();
        Ok(Checked { fault: self.faults.get(&name).copied(), needs })
    }
}

fn shown(job: &VerifyJob) -> String {
    match job.check.range.limit {
        Some(_) => format!("{} {}", job.name, job.check.range.offset),
        None => job.name.clone(),
    }
}

/// In which order the results come in.
#[derive(Clone, Copy, Debug)]
enum Results {
    Immediate,
    Late,
    Backwards,
}

fn tally(facts: Vec<Fact>, checks: &Checks, order: Results) -> Tally {
    let stanza = stanza();
    let mut plan = plan(&stanza);
    let (mut tally, mut jobs) = (Tally::default(), Vec::new());
    for fact in facts {
        plan.add(fact);
        while let Some(step) = plan.next().unwrap() {
            let Some(job) = tally.take(step) else { continue };
            match order {
                Results::Immediate => tally.add_result(1, &job, checks.result(&job)),
                _ => jobs.push(job),
            }
        }
    }
    if matches!(order, Results::Backwards) {
        jobs.reverse();
    }
    for job in jobs {
        tally.add_result(1, &job, checks.result(&job));
    }
    tally.settle();
    tally
}

fn loaded(manifest: Manifest) -> Fact {
    Fact::Backup(manifest.data.label.clone(), ManifestFact::Loaded(Box::new(manifest)))
}

fn with_references(mut manifest: Manifest) -> Manifest {
    manifest.references = [FULL, DIFF, INCR].map(|label| label.parse().unwrap()).into();
    manifest
}

/// A chain in which every place of a backup's bytes occurs: a plain file, a file in a bundle, a file in blocks, and a file
/// in blocks in a bundle. The incremental backup refers to files of both others, and its map to super blocks of both.
fn chain() -> Vec<Fact> {
    let full = bundling(
        FULL,
        [
            block("pg_data/blocks"),
            plain("pg_data/plain"),
            in_bundle(block("pg_data/small"), 1, 0),
            in_bundle(plain("pg_data/tiny"), 1, 10),
            plain("pg_data/unused"),
        ],
    );
    let diff = bundling(
        DIFF,
        [
            block("pg_data/blocks"),
            in_backup(plain("pg_data/plain"), 0),
            in_bundle(block("pg_data/small"), 1, 0),
            in_backup(in_bundle(plain("pg_data/tiny"), 1, 10), 0),
        ],
    );
    let incr = bundling(
        INCR,
        [
            block("pg_data/blocks"),
            in_backup(plain("pg_data/plain"), 0),
            in_backup(in_bundle(block("pg_data/small"), 1, 0), 1),
            plain("pg_data/tiny"),
        ],
    );
    [full, diff, incr].map(|manifest| loaded(with_references(manifest))).into()
}

fn part(path: &str, start: u64, end: u64) -> StoredPart {
    StoredPart { path: format!("backup/demo/{path}"), start, end }
}

fn chain_checks() -> Checks {
    let needs = [
        (format!("{DIFF}/pg_data/blocks.pgbi"), vec![part(&format!("{FULL}/pg_data/blocks.pgbi"), 2, 5)]),
        (format!("{DIFF}/bundle/1 0"), vec![part(&format!("{FULL}/bundle/1"), 3, 8)]),
        (
            format!("{INCR}/pg_data/blocks.pgbi"),
            vec![
                part(&format!("{FULL}/pg_data/blocks.pgbi"), 0, 2),
                part(&format!("{DIFF}/pg_data/blocks.pgbi"), 0, 4),
            ],
        ),
    ];
    Checks { needs: needs.into(), ..Checks::default() }
}

fn invalid(tally: &Tally) -> Vec<String> {
    let invalid = tally.backups.iter().filter(|backup| backup.status != BackupStatus::Valid);
    invalid.map(|backup| backup.label.to_string()).collect()
}

#[test]
fn damaged_part_invalidates_every_backup_that_needs_it() {
    for (damaged, expected) in [
        (format!("{FULL}/pg_data/unused"), vec![FULL]),
        (format!("{FULL}/pg_data/plain"), vec![FULL, DIFF, INCR]),
        (format!("{FULL}/bundle/1 10"), vec![FULL, DIFF]),
        // Through the maps: the later backups need super blocks of these files
        (format!("{FULL}/pg_data/blocks.pgbi"), vec![FULL, DIFF, INCR]),
        (format!("{FULL}/bundle/1 0"), vec![FULL, DIFF, INCR]),
        (format!("{DIFF}/pg_data/blocks.pgbi"), vec![DIFF, INCR]),
        (format!("{DIFF}/bundle/1 0"), vec![DIFF, INCR]),
        (format!("{INCR}/pg_data/blocks.pgbi"), vec![INCR]),
        (format!("{INCR}/pg_data/tiny"), vec![INCR]),
        ("nothing".to_owned(), vec![]),
    ] {
        for order in [Results::Immediate, Results::Late, Results::Backwards] {
            let checks = Checks { faults: [(damaged.clone(), FileFault::Checksum)].into(), ..chain_checks() };
            let tally = tally(chain(), &checks, order);
            assert_eq!(invalid(&tally), expected, "{damaged} {order:?}");
            // One error each, however many backups it concerns
            assert_eq!(tally.errors, u32::from(!expected.is_empty()), "{damaged} {order:?}");
            let totals: Vec<(u32, u32)> = tally
                .backups
                .iter()
                .map(|backup| (backup.total, backup.valid + u32::try_from(backup.faults.len()).unwrap()))
                .collect();
            assert_eq!(totals, [(5, 5), (4, 4), (4, 4)], "{damaged} {order:?}: every file has one result");
        }
    }
}

#[test]
fn every_check_of_the_chain_is_in_the_table_above() {
    let stanza = stanza();
    let mut plan = plan(&stanza);
    let (mut tally, mut names) = (Tally::default(), Vec::new());
    for fact in chain() {
        plan.add(fact);
        while let Some(step) = plan.next().unwrap() {
            names.extend(tally.take(step).map(|job| shown(&job)));
        }
    }
    assert_eq!(names.len(), 9, "{names:?}");
}

#[test]
fn fault_of_a_file_counts_for_its_backup_by_kind() {
    for fault in [FileFault::Missing, FileFault::Checksum, FileFault::Size, FileFault::Other] {
        let name = format!("{FULL}/pg_data/a");
        let checks = Checks { faults: [(name.clone(), fault)].into(), ..Checks::default() };
        let tally = tally(vec![loaded(manifest(FULL, [plain("pg_data/a")]))], &checks, Results::Immediate);
        assert_eq!((tally.backups[0].status, &tally.backups[0].faults), (BackupStatus::Invalid, &vec![fault]));
        assert_eq!((tally.errors, &tally.first_faults), (1, &vec![format!("{} '{name}'", fault.text())]));
    }
}

#[test]
fn file_that_can_not_be_read_is_invalid_and_counts_as_unread() {
    let mut tally = Tally::default();
    let stanza = stanza();
    let mut plan = plan(&stanza);
    plan.add(loaded(manifest(FULL, [plain("pg_data/a"), plain("pg_data/b")])));
    assert!(plan.next().unwrap().and_then(|step| tally.take(step)).is_none(), "the backup itself");
    for (code, unread) in [(ErrorCode::FileOpen, 1), (ErrorCode::Format, 1)] {
        let job = plan.next().unwrap().and_then(|step| tally.take(step)).unwrap();
        tally.add_result(1, &job, Err(Error::new(code, "x")));
        assert_eq!(tally.unread.total, unread, "{code:?}");
    }
    assert_eq!((tally.errors, tally.backups[0].faults.as_slice()), (2, [FileFault::Other; 2].as_slice()));
}

#[test]
fn manifest_that_is_missing_meanwhile_is_no_error_and_the_other_backups_are_checked() {
    let missing = || Error::new(ErrorCode::FileMissing, "x");
    let gone = ManifestFact::Unusable(Box::new(Unusable { file: missing(), copy: missing() }));
    let mut incr = manifest(INCR, [in_backup(plain("pg_data/a"), 0)]);
    incr.references = [FULL, INCR].map(|label| label.parse().unwrap()).into();
    let facts = vec![Fact::Backup(FULL.parse().unwrap(), gone), loaded(incr)];
    let checks = Checks { faults: [(format!("{FULL}/pg_data/a"), FileFault::Missing)].into(), ..Checks::default() };
    let tally = tally(facts, &checks, Results::Immediate);
    let statuses: Vec<BackupStatus> = tally.backups.iter().map(|backup| backup.status).collect();
    assert_eq!(statuses, [BackupStatus::ManifestMissing, BackupStatus::Invalid]);
    assert_eq!((tally.errors, tally.unread.total), (1, 0), "only the file that the other backup needs");
}

#[test]
fn backup_that_can_not_be_checked_is_one_error_and_one_in_progress_is_none() {
    let unusable =
        |code| ManifestFact::Unusable(Box::new(Unusable { file: Error::new(code, "x"), copy: Error::new(code, "x") }));
    let mut foreign = manifest(FULL, [plain("pg_data/a")]);
    foreign.data.pg_id = 9;
    for (fact, status, errors, unread) in [
        (ManifestFact::InProgress, BackupStatus::InProgress, 0, 0),
        (unusable(ErrorCode::Checksum), BackupStatus::Invalid, 1, 0),
        (unusable(ErrorCode::FileOpen), BackupStatus::Invalid, 1, 1),
        (ManifestFact::Loaded(Box::new(foreign)), BackupStatus::Invalid, 1, 0),
        (ManifestFact::Loaded(Box::new(manifest(FULL, []))), BackupStatus::Invalid, 1, 0),
    ] {
        let tally = tally(vec![Fact::Backup(FULL.parse().unwrap(), fact)], &Checks::default(), Results::Immediate);
        assert_eq!((tally.backups[0].status, tally.errors, tally.unread.total), (status, errors, unread));
    }
}

fn wal_dir(number: u32, segments: &[&str]) -> Fact {
    let dir = format!("00000001{number:08X}");
    Fact::WalDir(WalDir {
        path: RepoPath::new(format!("archive/demo/15-1/{dir}")).unwrap(),
        name: format!("15-1/{dir}"),
        files: segments.iter().map(|segment| format!("{dir}{segment}")).collect(),
        segment_size: 16 << 20,
    })
}

#[test]
fn fault_of_a_segment_counts_for_its_range() {
    let gz = |number: u32| format!("{number:08X}-{SUM}.gz");
    let facts = || {
        let files = [gz(1), gz(2), gz(4), format!("00000005-{SUM}.xz"), gz(6), format!("00000006-{SUM}")];
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        vec![Fact::Archive("15-1".into()), wal_dir(0, &files)]
    };
    let name = |number: u32| format!("15-1/0000000100000000/0000000100000000{}", gz(number));
    // The duplicate and the name of an unknown compression are errors in each case
    for (damaged, fault, errors, first, second) in [
        (1, FileFault::Checksum, 3, vec![FileFault::Checksum], vec![FileFault::Other]),
        (4, FileFault::Size, 3, vec![], vec![FileFault::Other, FileFault::Size]),
        // Expire may have removed it
        (2, FileFault::Missing, 2, vec![FileFault::Missing], vec![FileFault::Other]),
    ] {
        let checks = Checks { faults: [(name(damaged), fault)].into(), ..Checks::default() };
        let tally = tally(facts(), &checks, Results::Late);
        let [archive] = tally.archives.as_slice() else { panic!("one archive") };
        assert_eq!((archive.total, archive.valid, tally.errors), (6, 2, errors), "segment {damaged}");
        assert_eq!((&archive.ranges[0].faults, &archive.ranges[1].faults), (&first, &second), "segment {damaged}");
    }
}

#[test]
fn block_maps_that_refer_to_each_other_are_settled() {
    let needs = [
        (format!("{FULL}/pg_data/a.pgbi"), vec![part(&format!("{DIFF}/pg_data/a.pgbi"), 0, 5)]),
        (format!("{DIFF}/pg_data/a.pgbi"), vec![part(&format!("{FULL}/pg_data/a.pgbi"), 0, 5)]),
    ];
    let checks = Checks { needs: needs.into(), ..Checks::default() };
    let facts = [FULL, DIFF].map(|label| loaded(manifest(label, [block("pg_data/a")])));
    let tally = tally(facts.into(), &checks, Results::Late);
    assert_eq!(tally.backups.iter().map(|backup| backup.valid).sum::<u32>(), 2);
}

/// How many files of each backup are left, and how many need blocks of which nothing is known.
fn open(tally: &Tally) -> Vec<(u32, u32)> {
    tally.backups.iter().map(|backup| (backup.left, backup.unproven)).collect()
}

#[test]
fn blocks_of_a_backup_without_a_manifest_are_not_known_to_be_good() {
    for (manifest_fault, status) in
        [(ErrorCode::FileMissing, BackupStatus::ManifestMissing), (ErrorCode::Checksum, BackupStatus::Invalid)]
    {
        for order in [Results::Immediate, Results::Late, Results::Backwards] {
            let error = || Error::new(manifest_fault, "x");
            let mut facts = chain();
            let unusable = Unusable { file: error(), copy: error() };
            facts[0] = Fact::Backup(FULL.parse().unwrap(), ManifestFact::Unusable(Box::new(unusable)));
            let mut tally = tally(facts, &chain_checks(), order);
            assert_eq!(tally.backups[0].status, status);
            // Both files in blocks of each, the second of which one backup stores and the other refers to
            assert_eq!(open(&tally), [(0, 0), (0, 2), (0, 2)], "{order:?}");
            // The report is that of pgBackRest unless points are claimed
            assert!(tally.backups[1..].iter().all(|backup| backup.status == BackupStatus::Valid));
            tally.mark_unproven();
            assert!(tally.backups[1..].iter().all(|backup| backup.status == BackupStatus::NotAllRead), "{order:?}");
        }
    }
}

/// Plays the chain with a decision about each file: `None` leaves it, `Some(false)` remembers it as good, `Some(true)` reads
/// it.
fn decided(is_read: impl Fn(&str) -> Option<bool>) -> Tally {
    let (stanza, checks) = (stanza(), chain_checks());
    let mut plan = plan(&stanza);
    let mut tally = Tally::default();
    for fact in chain() {
        plan.add(fact);
        while let Some(step) = plan.next().unwrap() {
            let Some(job) = tally.take(step) else { continue };
            match is_read(&shown(&job)) {
                None => tally.add_left(&job),
                Some(false) => tally.add_known(&job, None),
                Some(true) => tally.add_result(1, &job, checks.result(&job)),
            }
        }
    }
    tally.settle();
    tally.mark_unproven();
    tally
}

#[test]
fn backup_that_needs_a_file_that_was_not_read_is_not_valid() {
    use BackupStatus::{NotAllRead, Valid};
    let (blocks, small) = (format!("{FULL}/pg_data/blocks.pgbi"), format!("{FULL}/bundle/1 0"));
    let diff = format!("{DIFF}/bundle/1 0");
    for (left, others_read, expected) in [
        (format!("{FULL}/pg_data/unused"), true, [NotAllRead, Valid, Valid]),
        // All refer to it
        (format!("{FULL}/pg_data/plain"), true, [NotAllRead; 3]),
        // Blocks of it are needed
        (blocks, true, [NotAllRead; 3]),
        (small.clone(), true, [NotAllRead; 3]),
        (diff, true, [Valid, NotAllRead, NotAllRead]),
        (format!("{INCR}/pg_data/tiny"), true, [Valid, Valid, NotAllRead]),
        // The maps of the others were not read, so that nobody knows who needs it
        (small, false, [NotAllRead; 3]),
        ("nothing".to_owned(), false, [Valid; 3]),
        ("nothing".to_owned(), true, [Valid; 3]),
    ] {
        let tally = decided(|name| if name == left { None } else { Some(others_read) });
        let statuses: Vec<BackupStatus> = tally.backups.iter().map(|backup| backup.status).collect();
        assert_eq!(statuses, expected, "{left} {others_read}");
        assert_eq!(tally.errors, 0);
    }
}

#[test]
fn segments_that_were_not_read_are_named() {
    let stanza = stanza();
    let mut plan = plan(&stanza);
    let names: Vec<String> = [1, 2, 3, 5].map(|number: u32| format!("{number:08X}-{SUM}.gz")).into();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut tally = Tally::default();
    for fact in [Fact::Archive("15-1".into()), wal_dir(0, &names)] {
        plan.add(fact);
        while let Some(step) = plan.next().unwrap() {
            let Some(job) = tally.take(step) else { continue };
            if job.name.contains("00000001-") { tally.add_known(&job, None) } else { tally.add_left(&job) }
        }
    }
    let [archive] = tally.archives.as_slice() else { panic!("one archive") };
    let name = |number: u32| format!("0000000100000000{number:08X}").parse().unwrap();
    assert_eq!(archive.left_runs, [(name(2), name(3)), (name(5), name(5))]);
    assert_eq!((archive.total, archive.valid, archive.left), (4, 1, 3));
}

#[test]
fn second_pass_counts_what_can_not_be_read_once() {
    let refused = || ManifestFact::Unusable(Box::new(Unusable { file: failed(), copy: failed() }));
    let mut tally = Tally::default();
    for _ in 0..3 {
        tally = Tally::after(tally);
        let stanza = stanza();
        let mut plan = plan(&stanza);
        plan.add(Fact::Backup(FULL.parse().unwrap(), refused()));
        while let Some(step) = plan.next().unwrap() {
            assert!(tally.take(step).is_none());
        }
        assert_eq!((tally.errors, tally.unread.total, tally.unseen), (1, 1, Unseen::KeepAll));
    }
}

fn failed() -> Error {
    Error::new(ErrorCode::FileOpen, "x")
}
