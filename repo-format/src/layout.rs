//! Every path of a repository, in one place.
//!
//! Source: pgBackRest `src/storage/helper.c`, `src/command/backup/common.c`.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::compress::CompressType;
use crate::label::BackupLabel;
use crate::pg::PgVersion;
use crate::wal_name::{WalSegment, archive_directory};
use crate::{Error, ErrorCode, Result};

/// The directory of the archives.
pub const ARCHIVE: &str = "archive";
/// The directory of the backups.
pub const BACKUP: &str = "backup";
/// The directory of the proofs of recovery. pgBackRest looks only into those of archives and backups.
pub const PROOF: &str = "proof";
/// The name of a stanza's archive information.
pub const ARCHIVE_INFO: &str = "archive.info";
/// The name of a stanza's backup information.
pub const BACKUP_INFO: &str = "backup.info";
/// The name of a backup's manifest.
pub const BACKUP_MANIFEST: &str = "backup.manifest";
/// The suffix of the copy of an info file or manifest.
pub const COPY_SUFFIX: &str = ".copy";
/// The suffix of a file that is being written.
pub const TEMP_SUFFIX: &str = ".pgbackrest.tmp";
/// The directory in a stanza's backups that contains the manifests of all backups, including expired ones.
pub const BACKUP_HISTORY: &str = "backup.history";
/// The suffix of a manifest in the history, after the label.
pub const HISTORY_MANIFEST_SUFFIX: &str = ".manifest.gz";
/// The link to the newest backup. Nothing reads it.
pub const LATEST: &str = "latest";
/// The directory of a backup's bundles.
pub const BUNDLE: &str = "bundle";
/// The extension of a file that is stored in blocks.
pub const BLOCK_INCR_EXTENSION: &str = ".pgbi";
/// The suffix of a timeline's history.
pub const TIMELINE_HISTORY_SUFFIX: &str = ".history";

/// A path inside a repository, relative to its root, e.g. `archive/main/archive.info`.
///
/// It is never absolute and never has a `..`, `.` or empty component, so a path built from file names of a hostile
/// repository cannot leave the repository. The root itself is the empty path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoPath(String);

impl RepoPath {
    /// Creates a path from a relative path.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if the path is absolute or contains an empty, `.` or `..` component or a NUL byte.
    pub fn new(path: impl Into<String>) -> Result<Self> {
        let path = path.into();
        if !path.is_empty() && !Self::is_inside(&path) {
            return Err(Error::new(ErrorCode::Format, format!("'{path}' is not a path inside the repository")));
        }
        Ok(RepoPath(path))
    }

    /// Returns whether `path` is relative, not empty, and stays below its start.
    pub(crate) fn is_inside(path: &str) -> bool {
        path.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'))
    }

    /// The repository's root.
    pub fn root() -> Self {
        RepoPath(String::new())
    }

    /// Appends components, checked like those of [`RepoPath::new`].
    ///
    /// # Errors
    /// The same as [`RepoPath::new`].
    pub fn join(&self, more: &str) -> Result<Self> {
        if self.0.is_empty() { Self::new(more) } else { Self::new(format!("{}/{more}", self.0)) }
    }

    /// Returns the parent directory; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        Some(RepoPath(self.0.rsplit_once('/').map_or_else(String::new, |(dir, _)| dir.to_owned())))
    }

    /// Returns the last component; empty for the root.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or("")
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a stanza, which is a directory name in the repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stanza(Box<str>);

impl Stanza {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Stanza {
    type Err = Error;

    /// Returns an option-invalid-value error (032) if the name cannot be a directory name: it is empty, `.` or `..`, or
    /// contains `/` or a control character.
    fn from_str(text: &str) -> Result<Self> {
        let bad = matches!(text, "" | "." | "..") || text.chars().any(|char| char == '/' || char.is_control());
        if bad {
            let message = format!("'{}' is not a valid stanza name", text.escape_debug());
            return Err(Error::new(ErrorCode::OptionInvalidValue, message));
        }
        Ok(Stanza(text.into()))
    }
}

impl fmt::Display for Stanza {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The name of one cluster's archive: PostgreSQL's version and the number in the stanza's history, e.g. `15-1`.
///
/// It orders by the number first, like the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ArchiveId {
    /// PostgreSQL's version.
    pub version: PgVersion,
    /// The number in the history, from 1.
    pub id: u32,
}

impl ArchiveId {
    /// Returns the archive id of a stanza that was created for this version and never upgraded.
    pub fn first(version: PgVersion) -> Self {
        ArchiveId { version, id: 1 }
    }
}

impl PartialOrd for ArchiveId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ArchiveId {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.id, self.version).cmp(&(other.id, other.version))
    }
}

impl FromStr for ArchiveId {
    type Err = Error;

    /// Returns a format error (029) for any other form.
    fn from_str(text: &str) -> Result<Self> {
        text.split_once('-')
            .filter(|(_, id)| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|(version, id)| Some(ArchiveId { version: version.parse().ok()?, id: id.parse().ok()? }))
            .ok_or_else(|| Error::new(ErrorCode::Format, format!("'{}' is not an archive id", text.escape_debug())))
    }
}

impl fmt::Display for ArchiveId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.version, self.id)
    }
}

/// How a backup stores a file under its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileForm {
    /// As a whole, with the extension of its compression.
    Whole(CompressType),
    /// As blocks with a block map.
    BlockIncr,
}

impl FileForm {
    /// Returns the suffix of the file's name.
    pub fn extension(self) -> &'static str {
        match self {
            FileForm::Whole(compress_type) => compress_type.extension(),
            FileForm::BlockIncr => BLOCK_INCR_EXTENSION,
        }
    }
}

/// The path of the copy of an info file or manifest.
#[must_use]
pub fn copy(path: &RepoPath) -> RepoPath {
    RepoPath(format!("{path}{COPY_SUFFIX}"))
}

/// The file of which this path is the copy, or otherwise its copy.
#[must_use]
pub fn other_of_pair(path: &RepoPath) -> RepoPath {
    path.0.strip_suffix(COPY_SUFFIX).map_or_else(|| copy(path), |file| RepoPath(file.to_owned()))
}

/// `archive/<stanza>`.
pub fn archive_stanza(stanza: &Stanza) -> RepoPath {
    RepoPath(format!("{ARCHIVE}/{stanza}"))
}

/// `archive/<stanza>/archive.info`.
pub fn archive_info(stanza: &Stanza) -> RepoPath {
    RepoPath(format!("{ARCHIVE}/{stanza}/{ARCHIVE_INFO}"))
}

/// `archive/<stanza>/<archive id>`.
pub fn archive_path(stanza: &Stanza, id: ArchiveId) -> RepoPath {
    RepoPath(format!("{ARCHIVE}/{stanza}/{id}"))
}

/// `archive/<stanza>/<archive id>/<16 hex>`: the directory of a segment.
pub fn wal_dir(stanza: &Stanza, id: ArchiveId, segment: &WalSegment) -> RepoPath {
    RepoPath(format!("{ARCHIVE}/{stanza}/{id}/{}", segment.directory()))
}

/// Returns the path of a file in the archive, by its name there. Names like those of WAL segments are in the directory
/// of 16 characters. Others, such as a timeline's history, are directly in the directory of the archive id.
///
/// # Errors
/// [`ErrorCode::Format`] if the name cannot be a file name.
pub fn archive_file(stanza: &Stanza, id: ArchiveId, name: &str) -> Result<RepoPath> {
    check_component(name)?;
    let path = match archive_directory(name) {
        Some(directory) => format!("{ARCHIVE}/{stanza}/{id}/{directory}/{name}"),
        None => format!("{ARCHIVE}/{stanza}/{id}/{name}"),
    };
    RepoPath::new(path)
}

/// `backup/<stanza>`.
pub fn backup_stanza(stanza: &Stanza) -> RepoPath {
    RepoPath(format!("{BACKUP}/{stanza}"))
}

/// `backup/<stanza>/backup.info`.
pub fn backup_info(stanza: &Stanza) -> RepoPath {
    RepoPath(format!("{BACKUP}/{stanza}/{BACKUP_INFO}"))
}

/// `backup/<stanza>/latest`.
pub fn latest(stanza: &Stanza) -> RepoPath {
    RepoPath(format!("{BACKUP}/{stanza}/{LATEST}"))
}

/// `backup/<stanza>/<label>`.
pub fn backup_path(stanza: &Stanza, label: &BackupLabel) -> RepoPath {
    RepoPath(format!("{BACKUP}/{stanza}/{label}"))
}

/// `backup/<stanza>/<label>/backup.manifest`.
pub fn manifest(stanza: &Stanza, label: &BackupLabel) -> RepoPath {
    RepoPath(format!("{BACKUP}/{stanza}/{label}/{BACKUP_MANIFEST}"))
}

/// `backup/<stanza>/<label>/backup.manifest.copy`.
pub fn manifest_copy(stanza: &Stanza, label: &BackupLabel) -> RepoPath {
    copy(&manifest(stanza, label))
}

/// `backup/<stanza>/backup.history`.
pub fn history(stanza: &Stanza) -> RepoPath {
    RepoPath(format!("{BACKUP}/{stanza}/{BACKUP_HISTORY}"))
}

/// `backup/<stanza>/backup.history/<YYYY>/<label>.manifest.gz`.
pub fn history_manifest(stanza: &Stanza, label: &BackupLabel) -> RepoPath {
    let year = label.history_year();
    RepoPath(format!("{BACKUP}/{stanza}/{BACKUP_HISTORY}/{year}/{label}{HISTORY_MANIFEST_SUFFIX}"))
}

/// `backup/<stanza>/<label>/bundle`.
pub fn bundle_path(stanza: &Stanza, label: &BackupLabel) -> RepoPath {
    RepoPath(format!("{BACKUP}/{stanza}/{label}/{BUNDLE}"))
}

/// `backup/<stanza>/<label>/bundle/<id>`.
pub fn bundle(stanza: &Stanza, label: &BackupLabel, id: u64) -> RepoPath {
    RepoPath(format!("{BACKUP}/{stanza}/{label}/{BUNDLE}/{id}"))
}

/// `backup/<stanza>/<label>/<manifest name>`: a directory of the backup, or a link.
///
/// # Errors
/// [`ErrorCode::Format`] if the name would leave the backup.
pub fn backup_member(stanza: &Stanza, label: &BackupLabel, name: &str) -> Result<RepoPath> {
    backup_path(stanza, label).join(name)
}

/// `backup/<stanza>/<label>/<manifest name><extension>`: a file that is not in a bundle.
///
/// # Errors
/// [`ErrorCode::Format`] if the name would leave the backup.
pub fn backup_file(stanza: &Stanza, label: &BackupLabel, name: &str, form: FileForm) -> Result<RepoPath> {
    // Checked before the extension is added, which would hide a name that ends with a slash
    RepoPath::new(name)?;
    backup_path(stanza, label).join(&format!("{name}{}", form.extension()))
}

/// `proof/<stanza>`.
pub fn proof_stanza(stanza: &Stanza) -> RepoPath {
    RepoPath(format!("{PROOF}/{stanza}"))
}

/// `proof/<stanza>/<label>`.
pub fn proof_backup(stanza: &Stanza, label: &BackupLabel) -> RepoPath {
    RepoPath(format!("{PROOF}/{stanza}/{label}"))
}

/// `proof/<stanza>/<label>/<name>`.
///
/// # Errors
/// [`ErrorCode::Format`] if the name cannot be a file name.
pub fn proof_file(stanza: &Stanza, label: &BackupLabel, name: &str) -> Result<RepoPath> {
    check_component(name)?;
    proof_backup(stanza, label).join(name)
}

/// `proof/<stanza>/verified`: what verify has read and when. No backup has this label.
pub fn proof_verified(stanza: &Stanza) -> RepoPath {
    RepoPath(format!("{PROOF}/{stanza}/verified"))
}

/// `proof/<stanza>/backups.json`: how the phases of backups went.
pub fn proof_backups(stanza: &Stanza) -> RepoPath {
    RepoPath(format!("{PROOF}/{stanza}/backups.json"))
}

/// Checks that `name` is a single path component.
fn check_component(name: &str) -> Result<()> {
    if name.contains('/') {
        return Err(Error::new(ErrorCode::Format, format!("'{name}' is not a file name")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_match_the_tree() -> Result<()> {
        let stanza: Stanza = "demo".parse()?;
        let id: ArchiveId = "9.6-2".parse()?;
        let label: BackupLabel = "20240131-235959F_20250201-000000I".parse()?;
        let segment: WalSegment = "0000000100000000000000FF".parse()?;
        let none = FileForm::Whole(CompressType::None);
        for (path, expected) in [
            (archive_stanza(&stanza), "archive/demo"),
            (copy(&archive_info(&stanza)), "archive/demo/archive.info.copy"),
            (archive_path(&stanza, id), "archive/demo/9.6-2"),
            (wal_dir(&stanza, id, &segment), "archive/demo/9.6-2/0000000100000000"),
            (archive_file(&stanza, id, "00000002.history")?, "archive/demo/9.6-2/00000002.history"),
            (
                archive_file(&stanza, id, "0000000100000000000000FF.00000028.backup")?,
                "archive/demo/9.6-2/0000000100000000/0000000100000000000000FF.00000028.backup",
            ),
            (backup_info(&stanza), "backup/demo/backup.info"),
            (latest(&stanza), "backup/demo/latest"),
            (manifest_copy(&stanza, &label), "backup/demo/20240131-235959F_20250201-000000I/backup.manifest.copy"),
            (
                history_manifest(&stanza, &label),
                "backup/demo/backup.history/2024/20240131-235959F_20250201-000000I.manifest.gz",
            ),
            (bundle(&stanza, &label.full_label(), 12), "backup/demo/20240131-235959F/bundle/12"),
            (
                backup_file(&stanza, &label.full_label(), "pg_data/base/1/2", FileForm::Whole(CompressType::Zst))?,
                "backup/demo/20240131-235959F/pg_data/base/1/2.zst",
            ),
            (
                backup_file(&stanza, &label.full_label(), "pg_data/base/1/2", FileForm::BlockIncr)?,
                "backup/demo/20240131-235959F/pg_data/base/1/2.pgbi",
            ),
            (
                backup_file(&stanza, &label.full_label(), "pg_data/PG_VERSION", none)?,
                "backup/demo/20240131-235959F/pg_data/PG_VERSION",
            ),
        ] {
            assert_eq!(path.as_str(), expected);
        }
        Ok(())
    }

    #[test]
    fn hostile_names_are_refused() -> Result<()> {
        let stanza: Stanza = "demo".parse()?;
        let label: BackupLabel = "20240131-235959F".parse()?;
        for name in ["../x", "pg_data/../../x", "/etc/passwd", "pg_data//x", "pg_data/", "a\0b"] {
            assert!(backup_file(&stanza, &label, name, FileForm::BlockIncr).is_err(), "{name}");
        }
        for name in ["..", "a/b", ".", ""] {
            assert!(archive_file(&stanza, "15-1".parse()?, name).is_err(), "{name}");
        }
        for name in ["", ".", "..", "a/b", "a\nb"] {
            assert!(name.parse::<Stanza>().is_err(), "{name}");
        }
        Ok(())
    }

    #[test]
    fn archive_ids_order_by_number() -> Result<()> {
        let mut ids: Vec<ArchiveId> = vec!["9.6-10".parse()?, "15-2".parse()?, "10-1".parse()?];
        ids.sort();
        let text: Vec<String> = ids.iter().map(ArchiveId::to_string).collect();
        assert_eq!(text, ["10-1", "15-2", "9.6-10"]);
        for text in ["", "15", "15-", "-1", "15-1x", "15-+1", "x-1"] {
            assert!(text.parse::<ArchiveId>().is_err(), "{text}");
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn repo_path_any_text_never_leaves_the_root(text in "[./a]{0,12}") {
            if let Ok(path) = RepoPath::new(text) {
                prop_assert!(!path.as_str().starts_with('/'));
                prop_assert!(path.as_str().split('/').all(|part| part != ".."));
            }
        }
    }
}
