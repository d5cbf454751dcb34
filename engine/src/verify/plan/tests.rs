use repo_format::label::BackupType;
use repo_format::manifest::ManifestData;
use repo_format::pg::PgVersion;

use super::super::facts::{
    DIFF, FULL, INCR, block, bundling, empty, in_backup, in_bundle, manifest, plain, plan, stanza,
};
use super::*;
use crate::ErrorCode;

fn label(text: &str) -> BackupLabel {
    text.parse().unwrap()
}

fn steps_of(plan: &mut Plan<'_>, fact: Fact) -> Vec<CheckStep> {
    plan.add(fact);
    std::iter::from_fn(|| plan.next().unwrap()).collect()
}

/// Loads the manifests one after the other, and returns the steps about the files of the last.
fn files_of_last(manifests: Vec<Manifest>) -> Vec<String> {
    let stanza = stanza();
    let mut plan = plan(&stanza);
    let mut steps = Vec::new();
    for manifest in manifests {
        let fact = Fact::Backup(manifest.data.label.clone(), ManifestFact::Loaded(Box::new(manifest)));
        steps = steps_of(&mut plan, fact);
    }
    assert!(matches!(steps.remove(0), CheckStep::Backup(_, BackupState::Checked(_))));
    steps.iter().map(describe).collect()
}

fn describe(step: &CheckStep) -> String {
    match step {
        CheckStep::CheckFile(NamedCheck { name, check }) => match check.range.limit {
            Some(limit) => format!("check {name} {}+{limit}", check.range.offset),
            None => format!("check {name}"),
        },
        CheckStep::Follow(part) => {
            let path = part.path.strip_prefix("backup/demo/").unwrap();
            if part.end == u64::MAX { format!("follow {path}") } else { format!("follow {path} {}", part.start) }
        }
        CheckStep::Nowhere => "nowhere".into(),
        _ => panic!("no step about a file"),
    }
}

fn with_references(mut manifest: Manifest, references: &[&str]) -> Manifest {
    manifest.references = references.iter().map(|text| label(text)).collect();
    manifest
}

#[test]
fn file_is_checked_where_its_bytes_are() {
    let full = || manifest(FULL, [plain("pg_data/a"), empty("pg_data/b")]);
    let bundled = || bundling(FULL, [in_bundle(plain("pg_data/a"), 1, 20), empty("pg_data/b")]);
    let incr = |files: Vec<ManifestFile>| with_references(manifest(INCR, files), &[FULL, INCR]);
    for (subject, manifests, expected) in [
        ("own files", vec![full()], vec![format!("check {FULL}/pg_data/a"), format!("check {FULL}/pg_data/b")]),
        ("bundled files", vec![bundled()], vec![format!("check {FULL}/bundle/1 20+10"), "nowhere".into()]),
        ("file in blocks", vec![manifest(FULL, [block("pg_data/a")])], vec![format!("check {FULL}/pg_data/a.pgbi")]),
        (
            "files of an earlier backup, which are checked for that one",
            vec![full(), incr(vec![in_backup(plain("pg_data/a"), 0), in_backup(empty("pg_data/b"), 0)])],
            vec![format!("follow {FULL}/pg_data/a"), format!("follow {FULL}/pg_data/b")],
        ),
        (
            "bundled file of an earlier backup",
            vec![bundled(), incr(vec![in_backup(in_bundle(plain("pg_data/a"), 1, 20), 0)])],
            vec![format!("follow {FULL}/bundle/1 20")],
        ),
        (
            "empty file of an earlier backup with bundles, which does not store it",
            vec![bundled(), incr(vec![in_backup(empty("pg_data/b"), 0)])],
            vec!["nowhere".into()],
        ),
        (
            "files of a backup that is not checked",
            vec![incr(vec![in_backup(plain("pg_data/a"), 0), in_backup(empty("pg_data/b"), 0)])],
            vec![format!("check {FULL}/pg_data/a"), "nowhere".into()],
        ),
        (
            "file that the earlier manifest describes differently",
            vec![full(), incr(vec![in_backup(ManifestFile { size_repo: 11, size: 11, ..plain("pg_data/a") }, 0)])],
            vec![format!("check {FULL}/pg_data/a")],
        ),
    ] {
        assert_eq!(files_of_last(manifests), expected, "{subject}");
    }
}

#[test]
fn directory_name_counts_and_not_the_label_in_the_manifest() {
    let stanza = stanza();
    let loaded = ManifestFact::Loaded(Box::new(manifest(FULL, [plain("pg_data/a")])));
    let steps = steps_of(&mut plan(&stanza), Fact::Backup(label(DIFF), loaded));
    assert_eq!(describe(&steps[1]), format!("check {DIFF}/pg_data/a"));
}

#[test]
fn file_without_a_checksum_of_its_stored_bytes_is_decoded() {
    let stanza = stanza();
    let mut old = manifest(FULL, [ManifestFile { checksum_repo: None, ..plain("pg_data/a") }]);
    old.data.options.compress_type = CompressType::Gz;
    let fact = Fact::Backup(label(FULL), ManifestFact::Loaded(Box::new(old)));
    let mut steps = steps_of(&mut plan(&stanza), fact);
    let Some(CheckStep::CheckFile(NamedCheck { name, check })) = steps.pop() else { panic!("no check") };
    assert_eq!(name, format!("{FULL}/pg_data/a.gz"));
    assert_eq!((check.compress_type, check.checksum, check.size), (CompressType::Gz, Sha1::of(b"x"), Some(10)));
}

#[test]
fn manifest_name_that_leads_out_of_the_backup_is_an_error() {
    let stanza = stanza();
    let mut plan = plan(&stanza);
    let loaded = ManifestFact::Loaded(Box::new(manifest(FULL, [plain("pg_data/../../a")])));
    plan.add(Fact::Backup(label(FULL), loaded));
    assert!(plan.next().unwrap().is_some());
    assert!(plan.next().is_err());
}

#[test]
fn backup_without_usable_manifest_has_no_files() {
    let error = |code| Error::new(code, "x");
    let unusable = |file, copy| ManifestFact::Unusable(Box::new(Unusable { file: error(file), copy: error(copy) }));
    let loaded = |change: fn(&mut Manifest)| {
        let mut manifest = manifest(FULL, [plain("pg_data/a")]);
        change(&mut manifest);
        ManifestFact::Loaded(Box::new(manifest))
    };
    for (fact, expected) in [
        (ManifestFact::InProgress, "in progress"),
        (unusable(ErrorCode::FileMissing, ErrorCode::FileMissing), "missing"),
        (unusable(ErrorCode::FileMissing, ErrorCode::Checksum), "unusable"),
        (unusable(ErrorCode::Checksum, ErrorCode::FileMissing), "unusable"),
        (unusable(ErrorCode::FileRead, ErrorCode::FileMissing), "unusable"),
        (loaded(|manifest| manifest.data.pg_id = 2), "foreign"),
        (loaded(|manifest| manifest.data.pg_system_id = 2), "foreign"),
        (loaded(|manifest| manifest.data.pg_version = PgVersion::V14), "foreign"),
        (loaded(|manifest| manifest.files.clear()), "no files"),
    ] {
        let stanza = stanza();
        let steps = steps_of(&mut plan(&stanza), Fact::Backup(label(FULL), fact));
        let [CheckStep::Backup(_, state)] = steps.as_slice() else { panic!("{expected}") };
        let state = match state {
            BackupState::Checked(_) => "checked",
            BackupState::InProgress => "in progress",
            BackupState::ManifestMissing => "missing",
            BackupState::Unusable { .. } => "unusable",
            BackupState::Foreign { .. } => "foreign",
            BackupState::NoFiles => "no files",
        };
        assert_eq!(state, expected);
    }
}

#[test]
fn backup_without_a_manifest_that_is_not_the_newest_was_damaged_although_it_may_be_resumed() {
    let (missing, damaged) = (Error::new(ErrorCode::FileMissing, "x"), Error::new(ErrorCode::Checksum, "x"));
    let (full, incr) = (label(FULL), label(INCR));
    let labels = [full.clone(), incr.clone()];
    let info = |listed: &[&BackupLabel]| {
        let mut info = BackupInfo::new(PgVersion::V15, 1, 2, None).unwrap();
        for label in listed {
            let mut data = ManifestData::new((*label).clone(), label.backup_type(), 1, PgVersion::V15, 202_209_061);
            (data.pg_id, data.pg_system_id) = (1, 1);
            data.prior = (label.backup_type() != BackupType::Full).then(|| full.clone());
            info.add_manifest(&Manifest::new(data)).unwrap();
        }
        info
    };
    let (newest, older) = (Some(UnfinishedPlace::Newest), Some(UnfinishedPlace::Older));
    for (listed, asked, error, expected) in [
        (&[&full] as &[&BackupLabel], &incr, Some(&missing), newest),
        (&[&full], &incr, Some(&damaged), None),
        (&[&full], &incr, None, None),
        (&[&full, &incr], &incr, Some(&missing), None),
        (&[], &full, Some(&missing), older),
        (&[], &full, Some(&damaged), None),
        (&[&full], &full, Some(&missing), None),
        // It holds files of another
        (&[&incr], &full, Some(&missing), None),
    ] {
        let unfinished = Unfinished::among(&labels, &info(listed));
        assert_eq!(unfinished.place(asked, error), expected, "{listed:?} {asked} {error:?}");
    }
}
