use super::*;
use crate::label::BackupType;

/// A real file of 372 bytes.
const REAL: &str = "[backrest]\nbackrest-format=5\nbackrest-version=\"2.59.1\"\n\n[db]\ndb-catalog-version=202209061\n\
    db-control-version=1300\ndb-id=1\ndb-system-id=7710887564186981822\ndb-version=\"15\"\n\n[db:history]\n\
    1={\"db-catalog-version\":202209061,\"db-control-version\":1300,\"db-system-id\":7710887564186981822,\
    \"db-version\":\"15\"}\n\n[backrest]\nbackrest-checksum=\"4c6c839a4baf4d966faf1f846f9916480a67b7a9\"\n";

/// An entry of an early version, without `backup-error`.
const OLD_ENTRY: &str = "{\"backrest-format\":5,\"backrest-version\":\"2.10\",\"backup-archive-start\":null,\
    \"backup-archive-stop\":null,\"backup-info-repo-size\":3,\"backup-info-repo-size-delta\":3,\"backup-info-size\":26,\
    \"backup-info-size-delta\":26,\"backup-timestamp-start\":1,\"backup-timestamp-stop\":2,\"backup-type\":\"full\",\
    \"db-id\":1,\"option-archive-check\":false,\"option-archive-copy\":false,\"option-backup-standby\":false,\
    \"option-checksum-page\":false,\"option-compress\":true,\"option-hardlink\":false,\"option-online\":false}";

fn online() -> Result<BackupInfo> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/info/online/backup.info");
    BackupInfo::parse(&std::fs::read(path).map_err(|error| Error::from_io(ErrorCode::FileOpen, path, error))?)
}

#[test]
fn parse_real_file_checksum_holds() -> Result<()> {
    assert_eq!(REAL.len(), 372);
    let info = BackupInfo::parse(REAL.as_bytes())?;
    assert_eq!(info.current().control_version, 1300);
    assert_eq!(info.backups.len(), 0);
    assert!(!info.serialize()?.is_empty());
    Ok(())
}

#[test]
fn keys_beside_a_current_key_with_the_id_0_are_kept() -> Result<()> {
    let mut info = BackupInfo::new(PgVersion::V15, 1, 202_209_061, Some(Passphrase::new("zero")))?;
    info.format = RepoFormat::V6;
    let text = String::from_utf8(info.serialize()?).map_err(|_| Error::new(ErrorCode::Format, "not UTF-8"))?;
    assert!(!text.contains("cipher-pass-current"), "{text}");
    let mut keys = Keyring::single(Passphrase::new("zero"));
    keys.keep(&Keyring::rotatable(Passphrase::new("one"), 0))?;
    assert_eq!(keys.current_id().as_str(), "0");
    info.other_keys = Some(keys);
    let read = BackupInfo::parse(&info.serialize()?)?;
    assert_eq!(read, info);
    assert_eq!(read.serialize()?, info.serialize()?);
    Ok(())
}

#[test]
fn new_and_upgrade_round_trip() -> Result<()> {
    let mut info = BackupInfo::new(PgVersion::V9_6, 1, 201_608_131, Some(Passphrase::new("p")))?;
    info.upgrade(PgVersion::V17, u64::MAX, 202_406_281)?;
    let read = BackupInfo::parse(&info.serialize()?)?;
    assert_eq!(read, info);
    assert_eq!(read.current().archive_id().to_string(), "17-2");
    assert_eq!(read.current().control_version, 1700);
    Ok(())
}

#[test]
fn entry_old_one_keeps_its_missing_flag() -> Result<()> {
    let mut json = Reader::new(OLD_ENTRY);
    let entry = BackupEntry::read(&mut json)?;
    assert_eq!(entry.error, None);
    assert_eq!(entry.backup_type, BackupType::Full);
    let mut written = String::new();
    entry.write(&mut written)?;
    assert_eq!(written, OLD_ENTRY);
    Ok(())
}

#[test]
fn entry_incomplete_is_json_format_error() {
    for (from, to, key) in [
        ("\"backup-info-size\":26,", "", "backup-info-size"),
        ("\"option-online\":false", "\"option-onlinf\":false", "option-online"),
        (
            "\"backup-info-size\"",
            "\"backup-info-repo-size-map\":1,\"backup-info-size\"",
            "backup-info-repo-size-map-delta",
        ),
    ] {
        let text = OLD_ENTRY.replace(from, to);
        let error = BackupEntry::read(&mut Reader::new(&text)).map_err(|error| (error.code, error.message));
        assert_eq!(error, Err((ErrorCode::JsonFormat, format!("required key '{key}' not found"))));
    }
}

#[test]
fn dependents_follow_prior_backups() -> Result<()> {
    let info = online()?;
    let labels: Vec<BackupLabel> = info.backups.keys().cloned().collect();
    assert_eq!(info.dependents(&labels[0]), labels);
    assert_eq!(info.dependents(&labels[2]), [labels[2].clone()]);
    assert!(info.has_set(&labels[0]));
    assert!(!info.has_set(&"20200101-000000F".parse()?));
    Ok(())
}

#[test]
fn annotate_sets_and_removes() -> Result<()> {
    let mut info = online()?;
    let label = info.backups.keys().next().cloned().ok_or_else(|| Error::new(ErrorCode::Assert, "no backups"))?;
    let changes = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let before = info.backups[&label].annotation.clone();
    assert!(before.contains_key("new"));
    info.annotate(&label, &changes(&[("new", ""), ("x", "y")]))?;
    assert_eq!(info.backups[&label].annotation.get("x").map(String::as_str), Some("y"));
    assert!(!info.backups[&label].annotation.contains_key("new"));
    let error = info.annotate(&label, &changes(&[("a", "b"), ("a\"b", "c")])).map_err(|error| error.code);
    assert_eq!(error, Err(ErrorCode::OptionInvalidValue));
    assert!(!info.backups[&label].annotation.contains_key("a"));
    let error = info.annotate(&"20200101-000000F".parse()?, &changes(&[])).map_err(|error| error.code);
    assert_eq!(error, Err(ErrorCode::BackupSetInvalid));
    assert_eq!(BackupInfo::parse(&info.serialize()?)?, info);
    Ok(())
}

#[test]
fn dependents_of_many_backups_are_found_in_their_set_alone() -> Result<()> {
    let mut info = BackupInfo::parse(REAL.as_bytes())?;
    let entry = BackupEntry::read(&mut Reader::new(OLD_ENTRY))?;
    let label = |text: String| text.parse::<BackupLabel>();
    for set in 0..3 {
        let full = label(format!("2026010{}-000000F", set + 1))?;
        info.backups.insert(full.clone(), BackupEntry { prior: None, ..entry.clone() });
        let mut prior = full.clone();
        for number in 0..50 {
            let incr = label(format!("{full}_20260201-0000{number:02}I"))?;
            info.backups.insert(incr.clone(), BackupEntry { prior: Some(prior), ..entry.clone() });
            prior = incr;
        }
    }
    let full = label("20260102-000000F".to_owned())?;
    let dependents = info.dependents(&full);
    assert_eq!(dependents.len(), 51);
    assert!(dependents.iter().all(|label| label.full_part() == full.full_part()));
    assert_eq!(info.dependents(&label(format!("{full}_20260201-000048I"))?).len(), 2);
    Ok(())
}
