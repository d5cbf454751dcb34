use proptest::prelude::*;

use super::*;
use crate::backup_info::{BackupEntry, BackupInfo};
use crate::cipher::{self, Cipher};
use crate::hash::Sha1;
use crate::info::Writer;
use crate::{Error, ErrorCode, Result};

/// Files of real repositories: a small data directory with links, a tablespace, unusual names and owners (plain and
/// encrypted), and an online backup with a damaged table.
macro_rules! fixture {
    ($path:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/info/", $path)).as_slice()
    };
}

/// Passphrase, backup.info, and the manifests of a fixture.
type Fixture = (Option<&'static str>, &'static [u8], [&'static [u8]; 3]);

fn fixtures() -> [Fixture; 3] {
    [
        (
            None,
            fixture!("plain/backup.info"),
            [fixture!("plain/full.manifest"), fixture!("plain/diff.manifest"), fixture!("plain/incr.manifest")],
        ),
        (
            Some("secret"),
            fixture!("encrypted/backup.info"),
            [
                fixture!("encrypted/full.manifest"),
                fixture!("encrypted/diff.manifest"),
                fixture!("encrypted/incr.manifest"),
            ],
        ),
        (
            None,
            fixture!("online/backup.info"),
            [fixture!("online/full.manifest"), fixture!("online/diff.manifest"), fixture!("online/incr.manifest")],
        ),
    ]
}

#[test]
fn manifest_with_a_bundle_place_beyond_64_bits_is_refused() -> Result<()> {
    let json = format!("{{\"bni\":1,\"bno\":{},\"repo-size\":9,\"size\":9,\"timestamp\":{}}}", u64::MAX - 8, i64::MIN);
    let mut writer = Writer::new(Vec::new(), crate::format::RepoFormat::V5)?;
    writer.value("target:file", "pg_data/x", &json)?;
    let error = Manifest::parse(&writer.finish()?).map(drop).map_err(|error| error.message);
    assert_eq!(error, Err("invalid bundle offset for file 'pg_data/x'".to_owned()));
    Ok(())
}

#[test]
fn manifest_real_files_come_out_byte_for_byte() -> Result<()> {
    for (pass, info, manifests) in fixtures() {
        let main = Cipher::from_passphrase(pass.map(Passphrase::new).as_ref());
        let text = cipher::decrypt(&main, info)?;
        let info = BackupInfo::parse(&text)?;
        assert_eq!(String::from_utf8_lossy(&info.serialize()?), String::from_utf8_lossy(&text));
        let cipher = Cipher::from_passphrase(info.cipher_pass.as_ref());
        for manifest in manifests {
            let text = cipher::decrypt(&cipher, manifest)?;
            let manifest = Manifest::parse(&text)?;
            manifest.validate(true)?;
            assert_eq!(String::from_utf8_lossy(&manifest.serialize()?), String::from_utf8_lossy(&text));
            // The entry in backup.info follows from the manifest, except for annotations that were changed later
            let mut entry = BackupEntry::from_manifest(&manifest)?;
            let real = info.backups.get(&manifest.data.label);
            entry.annotation = real.map(|real| real.annotation.clone()).unwrap_or_default();
            assert_eq!(Some(&entry), real);
        }
    }
    Ok(())
}

#[test]
fn manifest_real_file_has_the_values() -> Result<()> {
    let manifest = Manifest::parse(fixture!("plain/diff.manifest"))?;
    let file = manifest.file("pg_data/base/noowner");
    let file = file.ok_or_else(|| Error::new(ErrorCode::Assert, "file is missing"))?;
    assert_eq!((file.user, file.group, file.mode, file.size), (OwnerId::UNKNOWN, OwnerId::UNKNOWN, 0o644, 5));
    assert_eq!(manifest.holder(file), &manifest.data.label.full_label());
    assert!(manifest.file("pg_data/base/odd dir/x={\"a\":1}").is_some());
    assert!(manifest.file("pg_data/base/odd dir").is_none());
    assert_eq!(manifest.base_target().map(|target| target.target_type), Some(TargetType::Path));
    assert_eq!(manifest.base_path().map(|path| path.mode), Some(0o700));
    let tablespace = manifest.target("pg_tblspc/16390").and_then(|target| target.tablespace.clone());
    assert_eq!(tablespace, Some(Tablespace { id: 16390, name: "ts16390".to_owned() }));
    let link = manifest.target("pg_data/pg_hba.conf").and_then(|target| target.file.clone());
    assert_eq!(link.as_deref(), Some("pg_hba.conf"));
    assert!(manifest.link("pg_data/extra").is_some_and(|link| link.destination == "../lnk/extra"));

    let manifest = Manifest::parse(fixture!("online/full.manifest"))?;
    let damaged = manifest.files.iter().find_map(|file| file.page_check.as_ref().filter(|check| !check.valid));
    let expected = [PageRange { first: 2, last: 2 }, PageRange { first: 5, last: 7 }];
    assert_eq!(damaged.map(PageCheck::errors), Some(&expected[..]));
    assert!(manifest.databases.iter().any(|database| database.name == "d=b \"x\\y[]ü"));
    assert_eq!(manifest.annotation.get("key").map(String::as_str), Some("va\"l\\ue ü"));
    assert!(manifest.data.archive_start.is_some() && manifest.data.lsn_stop.is_some());
    Ok(())
}

/// A manifest's text with these values and a right checksum.
fn text_of(values: &[(&str, &str, &str)]) -> Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new(), crate::format::RepoFormat::V5)?;
    for (section, key, json) in values {
        writer.value(section, key, json)?;
    }
    writer.finish()
}

/// The content of the smallest manifest.
const BASE: [(&str, &str, &str); 4] = [
    ("backup", "backup-label", "\"20240101-000000F_20240102-000000D\""),
    ("backup", "backup-type", "\"diff\""),
    ("backup:db", "db-version", "\"15\""),
    ("backup:target", "pg_data", "{\"path\":\"/pg\",\"type\":\"path\"}"),
];
const FILE_DEFAULTS: [(&str, &str, &str); 3] = [
    ("target:file:default", "group", "false"),
    ("target:file:default", "mode", "\"0600\""),
    ("target:file:default", "user", "\"u\""),
];

fn parse_with(values: &[(&str, &str, &str)]) -> Result<Manifest> {
    Manifest::parse(&text_of(&[&BASE[..], values, &FILE_DEFAULTS[..]].concat())?)
}

#[test]
fn manifest_damaged_pages_that_the_file_cannot_have_are_refused() -> Result<()> {
    let with = |pages: &str| {
        let file =
            format!("{{\"checksum-page\":false,\"checksum-page-error\":{pages},\"size\":16384,\"timestamp\":1}}");
        parse_with(&[("target:file", "pg_data/base/1/1.7", &file)]).map(drop).map_err(|error| error.code)
    };
    for good in ["[0,1]", "[[0,1]]", "[131072,131073]", "[]", "[4294967295]"] {
        assert_eq!(with(good), Ok(()), "{good}");
    }
    for bad in ["[0,16]", "[[0,4294967295]]", "[1,0]", "[1,1]", "[[1,0]]", "[[0,2],2]"] {
        assert_eq!(with(bad), Err(ErrorCode::Format), "{bad}");
    }
    Ok(())
}

#[test]
fn manifest_without_reference_list_builds_it_from_files() -> Result<()> {
    let manifest = parse_with(&[
        ("target:file", "pg_data/a", "{\"reference\":\"20230101-000000F\",\"size\":1,\"timestamp\":-1}"),
        ("target:file", "pg_data/b", "{\"reference\":\"20240101-000000F\",\"size\":1,\"timestamp\":2}"),
        ("target:file", "pg_data/c", "{\"reference\":\"20230101-000000F\",\"size\":0,\"timestamp\":2}"),
    ])?;
    let labels: Vec<&str> = manifest.references.iter().map(BackupLabel::as_str).collect();
    assert_eq!(labels, ["20230101-000000F", "20240101-000000F", "20240101-000000F_20240102-000000D"]);
    assert_eq!(manifest.files.iter().map(|file| file.reference).collect::<Vec<_>>(), [Some(0), Some(1), Some(0)]);
    // A file in a partial manifest has no checksum yet; that of an empty file is known
    let checksums: Vec<_> = manifest.files.iter().map(|file| file.checksum).collect();
    assert_eq!(checksums, [None, None, Some(Sha1::EMPTY)]);
    let error = manifest.validate(false).map_err(|error| error.message);
    let expected =
        "manifest validation failed:\nmissing checksum for file 'pg_data/a'\nmissing checksum for file 'pg_data/b'";
    assert_eq!(error, Err(expected.to_owned()));
    Ok(())
}

#[test]
fn manifest_files_out_of_order_are_sorted() -> Result<()> {
    let value = "{\"size\":0,\"timestamp\":2}";
    let manifest = parse_with(&[("target:file", "pg_data/b", value), ("target:file", "pg_data/a", value)])?;
    assert!(manifest.file("pg_data/a").is_some() && manifest.file("pg_data/b").is_some());
    Ok(())
}

#[test]
fn manifest_hostile_or_damaged_values_are_errors() {
    let ok = "{\"size\":1,\"timestamp\":2}";
    for (section, key, json) in [
        ("target:file", "pg_data/../x", ok),
        ("target:file", "/etc/passwd", ok),
        ("target:file", "pg_data//x", ok),
        ("target:file", "pg_datax/y", ok),
        ("target:path", "..", "{}"),
        ("target:link", "pg_data/./x", "{\"destination\":\"/\"}"),
        ("target:link", "pg_data/x", "{}"),
        ("target:file", "pg_data/x", "{\"timestamp\":2}"),
        ("target:file", "pg_data/x", "{\"size\":1}"),
        ("target:file", "pg_data/x", "{\"size\":-1,\"timestamp\":2}"),
        ("target:file", "pg_data/x", "{\"bi\":0,\"size\":1,\"timestamp\":2}"),
        ("target:file", "pg_data/x", "{\"bi\":524288,\"size\":1,\"timestamp\":2}"),
        ("target:file", "pg_data/x", "{\"bi\":1,\"bic\":17,\"size\":1,\"timestamp\":2}"),
        ("target:file", "pg_data/x", "{\"bni\":0,\"size\":1,\"timestamp\":2}"),
        ("target:file", "pg_data/x", "{\"checksum\":\"00\",\"size\":1,\"timestamp\":2}"),
        ("target:file", "pg_data/x", "{\"mode\":\"9999\",\"size\":1,\"timestamp\":2}"),
        ("target:file", "pg_data/x", "{\"mode\":\"+777\",\"size\":1,\"timestamp\":2}"),
        ("target:file", "pg_data/x", "{\"size\":1,\"timestamp\":2,\"user\":true}"),
        ("target:file", "pg_data/x", "{\"reference\":\"../x\",\"size\":1,\"timestamp\":2}"),
        ("target:file", "pg_data/x", "1"),
        ("backup", "backup-reference", "\"20240101-000000F,20240101-000000F\""),
        ("backup", "backup-reference", "\"\""),
        ("backup", "backup-timestamp-start", "-1"),
        ("backup:option", "option-compress-type", "\"rar\""),
        ("backup:target", "pg_data/x", "{\"file\":\"../x\",\"path\":\"/\",\"type\":\"link\"}"),
        (
            "backup:target",
            "pg_tblspc/1",
            "{\"path\":\"/\",\"tablespace-id\":\"0\",\"tablespace-name\":\"x\",\"type\":\"link\"}",
        ),
        ("backup:target", "pg_data", "{\"path\":\"/other\",\"type\":\"path\"}"),
        ("metadata", "annotation", "{\"a\":1}"),
    ] {
        assert!(parse_with(&[(section, key, json)]).is_err(), "{section} {key} {json}");
    }
    assert!(parse_with(&[("target:file", "pg_data/x", ok), ("target:file", "pg_data/x", ok)]).is_err());
    assert!(parse_with(&[]).is_ok());
}

#[test]
fn manifest_reference_not_in_list_is_format_error() {
    let error = parse_with(&[
        ("backup", "backup-reference", "\"20240101-000000F_20240102-000000D\""),
        ("target:file", "pg_data/x", "{\"reference\":\"20240101-000000F\",\"size\":1,\"timestamp\":2}"),
    ])
    .map(drop)
    .map_err(|error| (error.code, error.message));
    let message = "reference '20240101-000000F' of file 'pg_data/x' is not in the reference list";
    assert_eq!(error, Err((ErrorCode::Format, message.to_owned())));
}

#[test]
fn manifest_missing_defaults_or_target_is_format_error() -> Result<()> {
    let file = ("target:file", "pg_data/x", "{\"size\":1,\"timestamp\":2}");
    for values in [[&BASE[..], &[file]].concat(), BASE[..3].to_vec(), BASE[1..].to_vec()] {
        let error = Manifest::parse(&text_of(&values)?).map(drop).map_err(|error| error.code);
        assert_eq!(error, Err(ErrorCode::Format));
    }
    Ok(())
}

fn small() -> Result<Manifest> {
    let label = "20240101-000000F".parse()?;
    let mut manifest = Manifest::new(ManifestData::new(label, BackupType::Full, 1_700_000_000, PgVersion::V15, 1));
    let user = manifest.owners.intern(Some("postgres"))?;
    manifest.paths.push(ManifestPath { name: PG_DATA.to_owned(), mode: 0o750, user, group: user });
    manifest.targets.push(Target {
        name: PG_DATA.to_owned(),
        target_type: TargetType::Path,
        path: "/pg".to_owned(),
        file: None,
        tablespace: None,
    });
    Ok(manifest)
}

#[test]
fn write_unreadable_names_are_refused() -> Result<()> {
    let write = |change: &dyn Fn(&mut Manifest)| -> Result<ErrorCode> {
        let mut manifest = small()?;
        change(&mut manifest);
        Ok(manifest.serialize().map_or_else(|error| error.code, |_| ErrorCode::Unknown))
    };
    let file = |name: &'static str| move |manifest: &mut Manifest| manifest.files.push(ManifestFile::new(name, 0, 0));
    assert_eq!(write(&file("pg_data/ok"))?, ErrorCode::Unknown);
    assert_eq!(write(&file("pg_data/a\nb"))?, ErrorCode::Format);
    assert_eq!(write(&file("pg_data/../b"))?, ErrorCode::Format);
    assert_eq!(write(&file("other"))?, ErrorCode::Format);
    let annotation = |key: &'static str| {
        move |manifest: &mut Manifest| drop(manifest.annotation.insert(key.to_owned(), "v".to_owned()))
    };
    assert_eq!(write(&annotation("ok key"))?, ErrorCode::Unknown);
    for key in ["a\"b", "a\\b", "a\nb", "", "1234567890123456789012345678901234567890123456789012345678901234567"] {
        assert_eq!(write(&annotation(key))?, ErrorCode::OptionInvalidValue, "{key}");
    }
    assert_eq!(write(&|manifest| manifest.paths.clear())?, ErrorCode::Assert);
    assert_eq!(
        write(&|manifest| manifest.files =
            vec![ManifestFile::new("pg_data/b", 0, 0), ManifestFile::new("pg_data/a", 0, 0)])?,
        ErrorCode::Format
    );
    Ok(())
}

#[test]
fn write_file_not_copied_has_size_and_time_alone() -> Result<()> {
    let mut manifest = small()?;
    let (user, group) = (manifest.paths[0].user, manifest.paths[0].group);
    manifest.files.push(ManifestFile { user, group, mode: 0o640, ..ManifestFile::new("pg_data/a", 3, 5) });
    let text = String::from_utf8_lossy(&manifest.serialize()?).into_owned();
    assert!(text.contains("\npg_data/a={\"size\":3,\"timestamp\":5}\n"), "{text}");
    Ok(())
}

#[test]
fn validate_strict_checks_sizes() -> Result<()> {
    let mut manifest = small()?;
    manifest.files.push(ManifestFile { checksum: Some(Sha1::of(b"x")), ..ManifestFile::new("pg_data/a", 0, 0) });
    manifest.files.push(ManifestFile {
        checksum: Some(Sha1::of(b"x")),
        size_repo: 0,
        ..ManifestFile::new("pg_data/b", 1, 0)
    });
    assert!(manifest.validate(false).is_ok());
    let error = manifest.validate(true).map_err(|error| error.message);
    let expected = "manifest validation failed:\ninvalid checksum '11f6ad8ec52a2984abaafd7c3b516503785c2072' for zero size \
        file 'pg_data/a'\nrepo size must be > 0 for file 'pg_data/b'";
    assert_eq!(error, Err(expected.to_owned()));
    Ok(())
}

#[test]
fn file_of_size_zero_with_the_checksum_of_content_keeps_it() -> Result<()> {
    let content = Sha1::of(b"x");
    let value = format!("{{\"checksum\":\"{content}\",\"size\":0,\"timestamp\":2}}");
    let manifest = parse_with(&[("target:file", "pg_data/a", &value)])?;
    assert_eq!(manifest.file("pg_data/a").and_then(|file| file.checksum), Some(content));
    Ok(())
}

#[test]
fn pg_path_strips_the_data_directory() {
    assert_eq!(pg_path("pg_data"), "");
    assert_eq!(pg_path("pg_data/base/1"), "base/1");
    assert_eq!(pg_path("pg_tblspc/1/PG_15_1"), "pg_tblspc/1/PG_15_1");
}

prop_compose! {
    fn any_file()(
        name in "[^\n\0/]{1,12}",
        sizes in (0u64..4, any::<u64>(), any::<u64>(), any::<bool>()),
        timestamp in any::<i64>(),
        checksums in any::<(Option<[u8; 20]>, Option<[u8; 20]>)>(),
        mode in 0u16..0o10000,
        owners in (0u8..3, 0u8..3),
        reference in proptest::option::of(0u32..2),
        bundle in proptest::option::of((1u64.., 0..u64::MAX - 4)),
        block in proptest::option::of((1u32..524_288, 1u8..=16, any::<u64>())),
        pages in proptest::option::of(proptest::collection::btree_set(0u32..40, 0..6)),
    ) -> (ManifestFile, (u8, u8)) {
        let size = if sizes.3 { sizes.0 } else { sizes.1 };
        let checksum = if size == 0 { Some(Sha1::EMPTY) } else { checksums.0.map(Sha1) };
        let pages = pages.map(|pages| pages.into_iter().filter(|page| u64::from(*page) * 1024 < size).collect::<Vec<_>>());
        (ManifestFile {
            size,
            size_original: if sizes.3 { size } else { sizes.2 },
            size_repo: sizes.0,
            checksum,
            checksum_repo: checksums.1.map(Sha1),
            mode,
            reference,
            bundle: bundle.and_then(|(id, offset)| Bundle::new(id, offset)),
            block: block.map(|(size, checksum_size, map_size)| BlockIncr { size: size * BLOCK_SIZE_FACTOR, checksum_size, map_size }),
            page_check: pages.map(|pages| if pages.is_empty() { PageCheck::VALID } else { PageCheck::from_pages(pages) }),
            ..ManifestFile::new(&format!("pg_data/{name}"), size, timestamp)
        }, owners)
    }
}

proptest! {
    #[test]
    fn manifest_any_files_round_trip(
        files in proptest::collection::vec(any_file(), 0..8),
        annotation in proptest::collection::btree_map("[ !#-\\[\\]-~]{1,20}", "[^\0]{0,20}", 0..3),
        database in "[^\n\0]{1,10}",
        path in "[^\0]{1,20}",
    ) {
        let result: Result<()> = (|| {
            let mut manifest = small()?;
            manifest.references.insert(0, "20230101-000000F".parse()?);
            let owners = [OwnerId::UNKNOWN, manifest.owners.intern(Some("a\"b"))?, manifest.owners.intern(Some("postgres"))?];
            for (mut file, (user, group)) in files {
                file.user = owners[usize::from(user)];
                file.group = owners[usize::from(group)];
                if check_name(&file.name).is_ok() {
                    manifest.files.push(file);
                }
            }
            manifest.sort();
            manifest.files.dedup_by(|a, b| a.name == b.name);
            manifest.annotation = annotation;
            manifest.databases.push(Database { name: database, id: 1, last_system_id: u32::MAX });
            manifest.targets[0].path = path;
            let text = manifest.serialize()?;
            let read = Manifest::parse(&text)?;
            assert_eq!(String::from_utf8_lossy(&read.serialize()?), String::from_utf8_lossy(&text));
            assert_eq!(&read.annotation, &manifest.annotation);
            assert_eq!(&read.databases, &manifest.databases);
            for (read_file, file) in read.files.iter().zip(&manifest.files) {
                assert_eq!(read.owners.name(read_file.user), manifest.owners.name(file.user));
                assert_eq!(read.owners.name(read_file.group), manifest.owners.name(file.group));
                assert_eq!(&ManifestFile { user: file.user, group: file.group, ..read_file.clone() }, file);
            }
            assert_eq!(read.files.len(), manifest.files.len());
            Ok(())
        })();
        result.map_err(|error| TestCaseError::fail(error.to_string()))?;
    }

    #[test]
    fn manifest_damaged_byte_never_panics(position in 0usize..4000, byte in any::<u8>()) {
        let mut text = fixture!("plain/full.manifest").to_vec();
        let position = position % text.len();
        text[position] = byte;
        let _ = Manifest::parse(&text);
    }
}
