//! backup.info: the clusters of a stanza, and its backups.
//!
//! Source: pgBackRest `src/info/infoBackup.c`, `src/info/infoPg.c`.

mod entry;

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;

pub use entry::BackupEntry;

use crate::archive_info::{find_current, next_id, parse_id};
use crate::cipher::{KeyId, Keyring, Passphrase};
use crate::format::RepoFormat;
use crate::info::{self, Origin, Writer};
use crate::ini::LINE_SIZE_MAX;
use crate::json::{ObjectWriter, Reader, check_key};
use crate::label::BackupLabel;
use crate::layout::ArchiveId;
use crate::manifest::Manifest;
use crate::pg::PgVersion;
use crate::{Error, ErrorCode, Result};

/// One cluster in a stanza's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PgHistory {
    /// The number in the history, from 1.
    pub id: u32,
    /// PostgreSQL's version.
    pub version: PgVersion,
    /// The cluster's system identifier.
    pub system_id: u64,
    /// The catalog version of its control file.
    pub catalog_version: u32,
    /// The version of its control file.
    pub control_version: u32,
}

impl PgHistory {
    /// The name of this cluster's directory in the archive.
    pub fn archive_id(&self) -> ArchiveId {
        ArchiveId { version: self.version, id: self.id }
    }
}

/// The content of backup.info.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupInfo {
    /// The format of the file, and of the backups that are made from now on.
    pub format: RepoFormat,
    /// The version that wrote the file.
    pub backrest_version: String,
    /// Every cluster that the stanza has had, oldest first.
    pub history: Vec<PgHistory>,
    /// The stanza's backups.
    pub backups: BTreeMap<BackupLabel, BackupEntry>,
    /// The passphrase of the backups' manifests.
    pub cipher_pass: Option<Passphrase>,
    /// All keys of the file, if it has others than that passphrase. Nothing uses them, but they are kept.
    other_keys: Option<Keyring>,
    current: PgHistory,
}

impl BackupInfo {
    /// Creates the information of a new stanza of format 5.
    ///
    /// # Errors
    /// [`ErrorCode::VersionNotSupported`] if the version's control file is unknown.
    pub fn new(
        version: PgVersion,
        system_id: u64,
        catalog_version: u32,
        cipher_pass: Option<Passphrase>,
    ) -> Result<Self> {
        let control_version = version.control_version()?;
        let current = PgHistory { id: 1, version, system_id, catalog_version, control_version };
        Ok(BackupInfo {
            format: RepoFormat::V5,
            backrest_version: crate::BACKREST_VERSION.to_owned(),
            history: vec![current],
            backups: BTreeMap::new(),
            cipher_pass,
            other_keys: None,
            current,
        })
    }

    /// The cluster that backups are made of.
    pub fn current(&self) -> &PgHistory {
        &self.current
    }

    /// Adds an upgraded cluster and makes it the current one.
    ///
    /// # Errors
    /// [`ErrorCode::VersionNotSupported`] if the version's control file is unknown; [`ErrorCode::Format`] if the
    /// history has no more numbers.
    pub fn upgrade(&mut self, version: PgVersion, system_id: u64, catalog_version: u32) -> Result<()> {
        let (id, control_version) = (next_id(self.current.id)?, version.control_version()?);
        self.current = PgHistory { id, version, system_id, catalog_version, control_version };
        self.history.push(self.current);
        Ok(())
    }

    /// Parses the text of a file that is not encrypted.
    ///
    /// # Errors
    /// The same as [`BackupInfo::read`].
    pub fn parse(text: &[u8]) -> Result<Self> {
        Self::read(text, Origin::Plain)
    }

    /// Reads the file's text line by line.
    ///
    /// # Errors
    /// The same as [`info::read`]; [`ErrorCode::Format`] or [`ErrorCode::JsonFormat`] if the history or a backup is
    /// missing or damaged.
    pub fn read<R: BufRead>(input: R, origin: Origin) -> Result<Self> {
        let mut history = Vec::new();
        let mut backups = BTreeMap::new();
        let mut current_id = 0;
        let header = info::read(input, origin, LINE_SIZE_MAX, |entry| {
            let mut json = Reader::new(entry.value);
            match (entry.section, entry.key) {
                ("db", "db-id") => current_id = json.u32()?,
                ("db:history", id) => {
                    let id = parse_id(id)?;
                    json.object_begin()?;
                    json.key_require("db-catalog-version")?;
                    let catalog_version = json.u32()?;
                    json.key_require("db-control-version")?;
                    let control_version = json.u32()?;
                    json.key_require("db-system-id")?;
                    let system_id = json.u64()?;
                    json.key_require("db-version")?;
                    let version = json.string()?.parse()?;
                    history.push(PgHistory { id, version, system_id, catalog_version, control_version });
                }
                ("backup:current", label) => {
                    let backup = BackupEntry::read(&mut json)
                        .map_err(|error| error.context(format_args!("backup '{label}'")))?;
                    if backups.insert(label.parse()?, backup).is_some() {
                        return Err(Error::new(ErrorCode::Format, format!("backup '{label}' is listed twice")));
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        let current = find_current(&history, current_id, |pg| pg.id)?;
        let info::Header { format, backrest_version, keys } = header;
        let cipher_pass = keys.as_ref().map(|keys| keys.find(KeyId::ZERO).cloned()).transpose()?;
        let other_keys = keys.filter(Keyring::has_others);
        Ok(BackupInfo { format, backrest_version, history, backups, cipher_pass, other_keys, current })
    }

    /// Returns the file's text, with this program's version.
    ///
    /// # Errors
    /// [`ErrorCode::OptionInvalidValue`] if an annotation has a key that could not be read back; [`ErrorCode::Format`] if
    /// the format can't hold the keys.
    pub fn serialize(&self) -> Result<Vec<u8>> {
        let mut writer = Writer::new(Vec::new(), self.format)?;
        let mut json = String::new();
        for (label, backup) in &self.backups {
            json.clear();
            backup.write(&mut json)?;
            writer.value("backup:current", label.as_str(), &json)?;
        }
        let only_key = self.cipher_pass.clone().map(Keyring::single);
        writer.keys(self.other_keys.as_ref().or(only_key.as_ref()))?;
        writer.value("db", "db-catalog-version", &self.current.catalog_version.to_string())?;
        writer.value("db", "db-control-version", &self.current.control_version.to_string())?;
        writer.value("db", "db-id", &self.current.id.to_string())?;
        writer.value("db", "db-system-id", &self.current.system_id.to_string())?;
        writer.string("db", "db-version", &self.current.version.to_string())?;
        for pg in &self.history {
            json.clear();
            let mut object = ObjectWriter::new(&mut json);
            object.scalar("db-catalog-version", pg.catalog_version);
            object.scalar("db-control-version", pg.control_version);
            object.scalar("db-system-id", pg.system_id);
            object.plain("db-version", pg.version);
            object.end();
            writer.value("db:history", &pg.id.to_string(), &json)?;
        }
        writer.finish()
    }

    /// Adds a finished backup.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if the sum of its file sizes exceeds 64 bits.
    pub fn add_manifest(&mut self, manifest: &Manifest) -> Result<()> {
        self.backups.insert(manifest.data.label.clone(), BackupEntry::from_manifest(manifest)?);
        Ok(())
    }

    /// Returns the backup with this label and all backups that depend on it, directly or indirectly. The label comes
    /// first, the others follow in ascending order.
    pub fn dependents(&self, label: &BackupLabel) -> Vec<BackupLabel> {
        let mut result = vec![label.clone()];
        let mut known = BTreeSet::from([label]);
        // Labels ascend along a chain, and all labels of a set have the same first part
        let set = label.full_part();
        for (other, backup) in self.backups.range(label..).take_while(|(other, _)| other.full_part() == set) {
            if backup.prior.as_ref().is_some_and(|prior| known.contains(prior)) && known.insert(other) {
                result.push(other.clone());
            }
        }
        result
    }

    /// Returns whether any backup of this full backup's set is listed.
    pub fn has_set(&self, full: &BackupLabel) -> bool {
        // The full backup's label is the lowest of its set
        let first = self.backups.range(full.full_label()..).next();
        first.is_some_and(|(label, _)| label.full_part() == full.full_part())
    }

    /// Changes a backup's annotations. An empty value removes its key; any other value sets it.
    ///
    /// # Errors
    /// [`ErrorCode::BackupSetInvalid`] if the backup is not listed, [`ErrorCode::OptionInvalidValue`] if a key could
    /// not be read back. Nothing changes on errors.
    pub fn annotate(&mut self, label: &BackupLabel, changes: &BTreeMap<String, String>) -> Result<()> {
        for key in changes.keys() {
            check_key(key)?;
        }
        let backup = self
            .backups
            .get_mut(label)
            .ok_or_else(|| Error::new(ErrorCode::BackupSetInvalid, format!("backup set {label} is not valid")))?;
        for (key, value) in changes {
            if value.is_empty() {
                backup.annotation.remove(key);
            } else {
                backup.annotation.insert(key.clone(), value.clone());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
