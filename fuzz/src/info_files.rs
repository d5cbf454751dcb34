//! Targets for the repository's text files, names and labels. What is accepted must be the same after it is written and
//! read again.

use repo_format::archive_info::ArchiveInfo;
use repo_format::backup_info::BackupInfo;
use repo_format::claim::ClaimFile;
use repo_format::info::Origin;
use repo_format::ini::LINE_SIZE_MAX;
use repo_format::json::{self, Reader};
use repo_format::label::BackupLabel;
use repo_format::layout::{ArchiveId, RepoPath, Stanza};
use repo_format::lock_file::LockFile;
use repo_format::manifest::Manifest;
use repo_format::spool::{self, Status};
use repo_format::wal_name::{self, ArchivedSegment, Lsn, WalSegment};
use repo_format::{ErrorCode, Result, info, ini};

/// Adds the checksum that `data` lacks, so that mutated files are read to the end.
fn with_checksum(data: &[u8]) -> Option<Vec<u8>> {
    let error = info::read(data, Origin::Plain, LINE_SIZE_MAX, |_| Ok(())).err()?;
    if error.code != ErrorCode::Checksum {
        return None;
    }
    let checksum = error.message.split('\'').nth(1)?;
    let mut sealed = data.to_vec();
    sealed.extend_from_slice(format!("\n\n[backrest]\nbackrest-checksum=\"{checksum}\"\n").as_bytes());
    Some(sealed)
}

/// Strict INI with header and checksum, and the lenient INI of configuration files.
pub fn ini_info(data: &[u8]) {
    let mut values = 0usize;
    let read = info::read(data, Origin::Plain, LINE_SIZE_MAX, |_| {
        values += 1;
        Ok(())
    });
    if read.is_err()
        && let Some(sealed) = with_checksum(data)
    {
        // All that can be missing now is the format number
        let error = info::read(sealed.as_slice(), Origin::Plain, LINE_SIZE_MAX, |_| Ok(())).err();
        assert!(error.is_none_or(|error| error.code == ErrorCode::Format));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        for entry in ini::read_config(text).unwrap_or_default() {
            assert!(!entry.section.is_empty() && !entry.key.is_empty());
        }
    }
}

/// archive.info.
pub fn archive_info(data: &[u8]) {
    for text in [Some(data.to_vec()), with_checksum(data)].into_iter().flatten() {
        let Ok(info) = ArchiveInfo::parse(&text) else { continue };
        let Ok(written) = info.serialize() else { continue };
        let again = ArchiveInfo::parse(&written).expect("what was written reads back");
        assert_eq!(again.history, info.history);
        assert_eq!(again.current(), info.current());
        assert_eq!((again.format, again.keys), (info.format, info.keys));
    }
}

/// backup.info.
pub fn backup_info(data: &[u8]) {
    for text in [Some(data.to_vec()), with_checksum(data)].into_iter().flatten() {
        let Ok(info) = BackupInfo::parse(&text) else { continue };
        for label in info.backups.keys() {
            assert!(info.dependents(label).contains(label));
        }
        let Ok(written) = info.serialize() else { continue };
        let again = BackupInfo::parse(&written).expect("what was written reads back");
        assert_eq!(again.backups, info.backups);
        assert_eq!(again.history, info.history);
        assert_eq!((again.format, again.cipher_pass), (info.format, info.cipher_pass));
    }
}

/// backup.manifest.
pub fn manifest(data: &[u8]) {
    for text in [Some(data.to_vec()), with_checksum(data)].into_iter().flatten() {
        let Ok(manifest) = Manifest::parse(&text) else { continue };
        let _ = manifest.validate(true);
        for file in &manifest.files {
            assert!(RepoPath::new(&*file.name).is_ok());
            assert!(manifest.file(&file.name).is_some());
            let _ = manifest.holder(file);
        }
        let _ = repo_format::backup_info::BackupEntry::from_manifest(&manifest);
        let Ok(written) = manifest.serialize() else { continue };
        let again = Manifest::parse(&written).expect("what was written reads back");
        assert_eq!(again.serialize().expect("what was read can be written"), written);
    }
}

/// Claims.
pub fn claim(data: &[u8]) {
    if let Ok(claim) = ClaimFile::parse(data) {
        assert_eq!(ClaimFile::parse(claim.serialize().as_bytes()).expect("what was written reads back"), claim);
    }
}

/// Lock files.
pub fn lock_file(data: &[u8]) {
    if let Ok(lock) = LockFile::parse(data) {
        assert_eq!(LockFile::parse(lock.serialize().as_bytes()).expect("what was written reads back"), lock);
    }
}

/// Status files of the spool.
pub fn spool(data: &[u8]) {
    if let Ok(Some(status)) = Status::parse("file", data) {
        let _ = status.to_error();
        let written = spool::ok_content(std::slice::from_ref(&status.message));
        if !status.message.is_empty() {
            let again = Status::parse("file", &written).expect("what was written reads back");
            assert_eq!(again.map(|again| again.message), Some(status.message));
        }
    }
}

/// Names of WAL files, archives and positions.
pub fn wal_name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let kind = wal_name::kind(text);
    if kind.is_segment() {
        assert!(wal_name::archive_directory(text).is_some());
    }
    if let Ok(segment) = text.parse::<WalSegment>() {
        assert_eq!(segment.to_string(), text);
        assert_eq!(segment.next(16 << 20).directory().len(), wal_name::SEGMENT_DIR_LEN);
    }
    if let Ok(segment) = text.parse::<ArchivedSegment>() {
        assert_eq!(segment.to_string(), text);
    }
    if let Ok(lsn) = text.parse::<Lsn>() {
        assert_eq!(lsn.to_string().parse::<Lsn>().ok(), Some(lsn));
    }
    if let Ok(id) = text.parse::<ArchiveId>() {
        assert_eq!(id.to_string().parse::<ArchiveId>().ok(), Some(id));
    }
}

/// Labels and stanza names.
pub fn label(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(label) = text.parse::<BackupLabel>() {
        assert_eq!(label.as_str(), text);
        assert!(BackupLabel::is_label(label.full_part()));
    }
    if let Ok(stanza) = text.parse::<Stanza>() {
        assert!(RepoPath::new(stanza.as_str()).is_ok());
    }
}

/// JSON alone. What can be skipped as a whole can be read piece by piece.
pub fn json(data: &[u8]) {
    fn walk(reader: &mut Reader<'_>, text: &str) {
        // Read each kind of value as every type
        const READS: [fn(&mut Reader<'_>) -> Result<()>; 8] = [
            |reader| reader.bool().map(drop),
            |reader| reader.u64().map(drop),
            |reader| reader.i32().map(drop),
            |reader| reader.timestamp().map(drop),
            |reader| reader.string_or_null().map(drop),
            |reader| reader.string_or_false().map(drop),
            |reader| reader.string_map().map(drop),
            |reader| reader.key_require("k").and_then(|()| reader.skip()),
        ];
        for read in READS {
            let _ = read(&mut Reader::new(text));
        }
        if reader.array_begin().is_ok() {
            while reader.has_more() {
                if reader.skip().is_err() {
                    return;
                }
            }
            let _ = reader.array_end();
        } else if reader.object_begin().is_ok() {
            while reader.has_more() {
                if reader.key().is_err() || reader.skip().is_err() {
                    return;
                }
            }
            let _ = reader.object_end();
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let valid = json::validate(text).is_ok();
    walk(&mut Reader::new(text), text);
    let mut reader = Reader::new(text);
    assert_eq!(valid, reader.skip().is_ok() && reader.finish().is_ok());
    if valid && let Ok(read) = Reader::new(text).string() {
        let mut written = String::new();
        json::write_string(&mut written, &read);
        assert_eq!(Reader::new(&written).string().ok().as_deref(), Some(&*read));
    }
}

/// Lists of invalid pages. An accepted list is in order and within the size of its file.
pub fn page_errors(data: &[u8]) {
    let Ok(list) = std::str::from_utf8(data) else { return };
    let Some(text) = with_checksum(PAGE_ERRORS.replace("LIST", list).as_bytes()) else { return };
    let Ok(manifest) = Manifest::parse(&text) else { return };
    for file in &manifest.files {
        let Some(check) = &file.page_check else { continue };
        let mut next = 0;
        for range in check.errors() {
            assert!(u64::from(range.first) >= next && range.first <= range.last);
            next = u64::from(range.last) + 1;
        }
        let first = check.errors().first().map_or(0, |range| u64::from(range.first));
        assert!(next.saturating_sub(first) <= file.size.div_ceil(1024), "more pages than the file has");
    }
}

/// A manifest with one file and its list of damaged pages.
const PAGE_ERRORS: &str = "[backrest]\nbackrest-format=5\nbackrest-version=\"2.60.0\"\n\n[backup]\n\
    backup-label=\"20260101-000000F\"\nbackup-timestamp-copy-start=1\nbackup-timestamp-start=1\nbackup-timestamp-stop=1\n\
    backup-type=\"full\"\n\n[backup:db]\ndb-catalog-version=202209061\ndb-control-version=1300\ndb-id=1\ndb-system-id=1\n\
    db-version=\"15\"\n\n[backup:option]\noption-archive-check=true\noption-archive-copy=false\noption-compress=false\n\
    option-compress-type=\"none\"\noption-hardlink=false\noption-online=true\n\n[backup:target]\n\
    pg_data={\"path\":\"/pg\",\"type\":\"path\"}\n\n[target:file]\n\
    pg_data/f={\"checksum\":\"da39a3ee5e6b4b0d3255bfef95601890afd80709\",\"checksum-page\":false,\"checksum-page-error\":LIST,\
    \"size\":1073741824,\"timestamp\":1}\n\n[target:file:default]\ngroup=false\nmode=\"0600\"\nuser=false\n\n[target:path]\n\
    pg_data={}\n\n[target:path:default]\ngroup=false\nmode=\"0700\"\nuser=false\n";
