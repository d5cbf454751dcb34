use super::wal::WalRange;
use super::*;

const DAY: i64 = SECONDS_PER_DAY;

fn label(text: &str) -> BackupLabel {
    text.parse().expect("label")
}

/// Converts `F1`, `D1.2` (the second backup of set 1), `I1.3<D1.2` (with its prior backup) to facts of cluster 1. Every
/// number is a day.
fn fact(short: &str) -> BackupCandidate {
    let (name, prior) = short.split_once('<').map_or((short, None), |(name, prior)| (name, Some(prior)));
    let (set, sub) = name[1..].split_once('.').map_or((&name[1..], "0"), |(set, sub)| (set, sub));
    let (set, sub): (i64, i64) = (set.parse().expect("set"), sub.parse().expect("sub"));
    let day = set * 10 + sub;
    let full = format!("202601{:02}-000000F", set);
    let text = match &name[..1] {
        "F" => full.clone(),
        kind => format!("{full}_202602{day:02}-000000{kind}"),
    };
    BackupCandidate {
        label: label(&text),
        prior: match (prior, &name[..1]) {
            (_, "F") => None,
            (None, _) => Some(label(&full)),
            (Some(prior), _) => Some(fact(prior).label),
        },
        db_id: 1,
        timestamp_stop: day * DAY,
        archive_start: Some(format!("00000001000000000000{:04X}", day)),
        archive_stop: Some(format!("00000001000000000000{:04X}", day + 1)),
    }
}

fn facts(list: &str) -> Vec<BackupCandidate> {
    list.split(' ').filter(|short| !short.is_empty()).map(fact).collect()
}

fn keep() -> Retention {
    Retention {
        full_type: FullRetention::Count,
        full: None,
        diff: None,
        archive_type: BackupType::Full,
        archive: None,
        history: None,
    }
}

fn kept(plan: &BackupPlan) -> Vec<BackupLabel> {
    plan.kept.iter().map(|backup| backup.label.clone()).collect()
}

fn labels(list: &str) -> Vec<BackupLabel> {
    facts(list).into_iter().map(|backup| backup.label).collect()
}

const TWO_SETS: &str = "F1 D1.1 I1.2<D1.1 I1.3<I1.2 D1.4 F2 I2.1 D2.2 I2.3<D2.2";

#[test]
fn retention_by_count_table() {
    // (all, full, diff, kept)
    let table = [
        (TWO_SETS, None, None, TWO_SETS),
        (TWO_SETS, Some(0), Some(0), TWO_SETS),
        (TWO_SETS, Some(2), None, TWO_SETS),
        (TWO_SETS, Some(1), None, "F2 I2.1 D2.2 I2.3<D2.2"),
        (TWO_SETS, Some(9), None, TWO_SETS),
        (TWO_SETS, None, Some(1), "F1 F2 I2.1 D2.2 I2.3<D2.2"),
        (TWO_SETS, None, Some(2), "F1 F2 I2.1 D2.2 I2.3<D2.2"),
        (TWO_SETS, None, Some(3), "F1 D1.4 F2 I2.1 D2.2 I2.3<D2.2"),
        (TWO_SETS, None, Some(4), TWO_SETS),
        (TWO_SETS, Some(1), Some(1), "F2 I2.1 D2.2 I2.3<D2.2"),
        ("F1 D1.1 D1.2 F2", None, Some(2), "F1 D1.2 F2"),
        ("", Some(1), Some(1), ""),
    ];
    for (all, full, diff, expected) in table {
        let plan = by_retention(facts(all), &Retention { full, diff, ..keep() }, 1000 * DAY);
        assert_eq!(kept(&plan), labels(expected), "{all} full={full:?} diff={diff:?}");
    }
}

#[test]
fn diff_retention_with_dependents_expires_them_as_one_set() {
    let plan = by_retention(facts(TWO_SETS), &Retention { diff: Some(3), ..keep() }, 0);
    assert_eq!(plan.expired, [ExpiredSet { reason: Reason::Diff, labels: labels("D1.1 I1.2<D1.1 I1.3<I1.2") }]);
}

#[test]
fn retention_by_time_table() {
    // Stop times are days 10 (F1) .. 31; (now in days, period, kept, archive)
    let all = "F1 D1.1 F2 D2.1 F3 D3.1";
    let table = [
        (32, 30, all, None),
        (32, 22, all, None),
        (32, 21, all, Some(3)),
        (32, 12, all, Some(3)),
        (32, 11, "F2 D2.1 F3 D3.1", Some(2)),
        (32, 2, "F2 D2.1 F3 D3.1", Some(2)),
        (32, 1, "F3 D3.1", Some(1)),
        (9, 30, all, None),
    ];
    for (now, days, expected, archive) in table {
        let retention = Retention { full_type: FullRetention::Time, full: Some(days), ..keep() };
        let plan = by_retention(facts(all), &retention, now * DAY);
        assert_eq!((kept(&plan), plan.archive), (labels(expected), archive), "now {now}, days {days}");
    }
}

#[test]
fn retention_by_time_with_archive_set_leaves_it() {
    let retention = Retention { full_type: FullRetention::Time, full: Some(1), archive: Some(7), ..keep() };
    assert_eq!(by_retention(facts("F1 F2"), &retention, 99 * DAY).archive, Some(7));
}

#[test]
fn oldest_with_several_fulls_keeps_one_fewer() {
    let lowered = oldest(&facts(TWO_SETS), &Retention { full: Some(5), ..keep() }).expect("two fulls");
    assert_eq!((lowered.full, lowered.archive, lowered.archive_type), (Some(1), Some(1), BackupType::Full));
    assert_eq!(oldest(&facts("F1 D1.1"), &keep()), None);
    assert_eq!(oldest(&[], &keep()), None);
}

#[test]
fn ad_hoc_table() {
    // (label, kept, newest expired)
    let table = [
        ("F1", "F2 I2.1 D2.2 I2.3<D2.2", false),
        ("F2", "F1 D1.1 I1.2<D1.1 I1.3<I1.2 D1.4", true),
        ("I1.2<D1.1", "F1 D1.1 D1.4 F2 I2.1 D2.2 I2.3<D2.2", false),
        ("D2.2", "F1 D1.1 I1.2<D1.1 I1.3<I1.2 D1.4 F2 I2.1", true),
        ("F9", TWO_SETS, false),
    ];
    for (name, expected, newest) in table {
        let plan = ad_hoc(facts(TWO_SETS), &fact(name).label, &keep()).expect("allowed");
        assert_eq!((kept(&plan), plan.newest_expired.is_some()), (labels(expected), newest), "{name}");
    }
}

#[test]
fn ad_hoc_of_last_full_is_refused() {
    let error = ad_hoc(facts("F1 D1.1"), &fact("F1").label, &keep()).expect_err("only full");
    assert_eq!(error.code, ErrorCode::BackupSetInvalid);
    let mut other_cluster = facts("F1 F2");
    other_cluster[1].db_id = 2;
    assert!(ad_hoc(other_cluster, &fact("F2").label, &keep()).is_err());
}

#[test]
fn full_backup_with_prior_never_depends() {
    let mut list = facts("F1 F2");
    list[1].prior = Some(list[0].label.clone());
    let plan = ad_hoc(list, &fact("F1").label, &keep()).expect("allowed");
    assert_eq!(kept(&plan), labels("F2"));
}

#[test]
fn directories_of_kept_and_newest_stay() {
    let disk = labels("F1 D1.1 F2 F3");
    assert_eq!(directories(&disk, &facts("F2"), &[], false), labels("F3 D1.1 F1"));
    assert_eq!(directories(&disk, &facts("F2"), &[], true), [fact("D1.1").label, fact("F1").label]);
    assert_eq!(directories(&disk, &facts("F2"), &labels("D1.1"), false), labels("F3 F1"));
}

fn rules<'a>(kept: &'a [BackupCandidate], archive_type: BackupType, archive: u32) -> ArchiveRules<'a> {
    ArchiveRules { kept, archive_type, archive, expire_before: None }
}

fn wal(plan: &ArchivePlan) -> &WalPlan {
    match plan {
        ArchivePlan::Expire(wal) => wal,
        other => panic!("{other:?}"),
    }
}

/// Returns which segments (as day numbers) of 8..=40 are kept.
fn segments(plan: &WalPlan) -> Vec<u32> {
    (8..=40).filter(|day| plan.keeps_file(&format!("00000001000000000000{day:04X}-aabb.gz"))).collect()
}

#[test]
fn archive_by_type_table() {
    // Backups start at days 10, 11, 13, 20, 22 and need two segments each; (type, amount, first segment that is always
    // kept)
    let list = facts("F1 D1.1 I1.3 F2 D2.2");
    let table = [
        (BackupType::Full, 2, 10, vec![]),
        (BackupType::Full, 1, 20, vec![10, 11, 12, 13, 14]),
        (BackupType::Diff, 1, 22, vec![10, 11, 12, 13, 14, 20, 21]),
        (BackupType::Diff, 3, 11, vec![10]),
        (BackupType::Incr, 3, 13, vec![10, 11, 12]),
    ];
    for (kind, amount, from, extra) in table {
        let rules = rules(&list, kind, amount);
        assert!(rules.satisfied());
        let plan = rules.archive(1, 1);
        let mut expected: Vec<u32> = extra;
        expected.extend(from..=40);
        expected.sort_unstable();
        expected.dedup();
        assert_eq!(segments(wal(&plan)), expected, "{kind:?} {amount}");
    }
}

#[test]
fn archive_with_too_few_backups_is_not_satisfied() {
    let list = facts("F1 D1.1");
    assert!(rules(&list, BackupType::Full, 1).satisfied());
    assert!(!rules(&list, BackupType::Full, 2).satisfied());
    assert!(!rules(&[], BackupType::Full, 1).satisfied());
    assert!(
        ArchiveRules { expire_before: Some("000000010000000000000001"), ..rules(&[], BackupType::Full, 1) }.satisfied()
    );
}

#[test]
fn archive_of_other_cluster_without_backup_goes() {
    let list = facts("F1");
    assert_eq!(rules(&list, BackupType::Full, 1).archive(7, 1), ArchivePlan::RemoveAll);
    assert_eq!(rules(&list, BackupType::Full, 1).archive(7, 7), ArchivePlan::Keep);
}

#[test]
fn archive_of_older_cluster_outside_retention_keeps_its_newest_backup() {
    let mut list = facts("F1 F2 F3");
    list[2].db_id = 2;
    let plan = rules(&list, BackupType::Full, 1).archive(1, 2);
    let mut expected = vec![10, 11];
    expected.extend(20..=40);
    assert_eq!(segments(wal(&plan)), expected);
}

#[test]
fn archive_of_offline_backup_stays() {
    let mut list = facts("F1 F2");
    list[1].archive_start = None;
    assert_eq!(rules(&list, BackupType::Full, 1).archive(1, 1), ArchivePlan::Keep);
}

#[test]
fn archive_expire_before_limits_removal() {
    let list = facts("F1 F2");
    let limited = |day: u32| {
        let before = format!("00000001000000000000{day:04X}");
        let rules = ArchiveRules { expire_before: Some(&before), ..rules(&list, BackupType::Full, 1) };
        segments(wal(&rules.archive(1, 1)))
    };
    let mut expected = vec![10, 11];
    expected.extend(15..=40);
    assert_eq!(limited(15), expected);
    // A limit past the retained backup changes nothing
    let mut unlimited = vec![10, 11];
    unlimited.extend(20..=40);
    assert_eq!(limited(30), unlimited);
    let none = ArchiveRules { expire_before: Some("00000001000000000000000A"), ..rules(&[], BackupType::Full, 1) };
    assert_eq!(segments(wal(&none.archive(1, 1))), (10..=40).collect::<Vec<_>>());
}

#[test]
fn wal_directories_and_history_files_are_judged_by_prefix() {
    let range =
        |start: &str, stop: Option<&str>| (None, WalRange { start: start.into(), stop: stop.map(ToOwned::to_owned) });
    let mut plan = WalPlan::new(vec![
        range("000000020000000300000001", None),
        range("000000020000000100000003", Some("000000020000000100000004")),
    ]);
    plan.scan_max = Some("000000020000000300000001".into());
    plan.history_before = Some("00000002".into());
    let table = [
        ("0000000100000009", DirVerdict::Remove),
        ("0000000200000000", DirVerdict::Remove),
        ("0000000200000001", DirVerdict::Scan),
        ("0000000200000002", DirVerdict::Remove),
        ("0000000200000003", DirVerdict::Scan),
        ("0000000200000004", DirVerdict::Keep),
        ("0000000300000000", DirVerdict::Keep),
    ];
    for (name, verdict) in table {
        assert_eq!(plan.directory(name), verdict, "{name}");
    }
    assert!(!plan.keeps_file("000000020000000100000002.00000028.backup"));
    assert!(plan.keeps_file("000000020000000100000003.partial-aa"));
    assert!(plan.removes_history("00000001.history"));
    assert!(!plan.removes_history("00000002.history"));
}

#[test]
fn history_year_and_manifest_table() {
    let minimum = label("20260201-000000F");
    assert_eq!(history_year("2025", &minimum), DirVerdict::Remove);
    assert_eq!(history_year("2026", &minimum), DirVerdict::Scan);
    assert_eq!(history_year("2027", &minimum), DirVerdict::Keep);
    let old = label("20260105-000000F");
    assert!(removes_history_manifest(&old, &minimum, &[]));
    assert!(!removes_history_manifest(&label("20260301-000000F"), &minimum, &[]));
    let current = BackupCandidate { label: old.clone(), ..fact("F1") };
    assert!(!removes_history_manifest(&old, &minimum, &[current]));
}

#[test]
fn wal_is_kept_where_any_of_many_ranges_has_it() {
    let name = |number: usize| format!("0000000100000000{number:08X}");
    // Nested, overlapping, adjacent, in any order, one of them the wrong way round
    let ranges =
        [(40, Some(45)), (10, Some(30)), (12, Some(14)), (28, Some(33)), (34, Some(34)), (39, Some(37)), (60, None)];
    let plan =
        WalPlan::new(ranges.map(|(start, stop)| (None, WalRange { start: name(start), stop: stop.map(name) })).into());
    for number in 0..70 {
        let expected = ranges.iter().any(|(start, stop)| *start <= number && stop.is_none_or(|stop| number <= stop));
        assert_eq!(plan.keeps_file(&format!("{}-aabb.gz", name(number))), expected, "{number}");
    }
    assert!(!WalPlan::default().keeps_file(&name(1)));
}
