//! Writes a manifest.

use std::borrow::Borrow;
use std::io::Write;

use super::read::check_order;
use super::{
    BLOCK_CHECKSUM_SIZE_DEFAULT, BLOCK_SIZE_FACTOR, Manifest, ManifestFile, OwnerId, PageCheck, PageRange, Target,
    TargetType, check_name,
};
use crate::cipher::Keyring;
use crate::hash::Sha1;
use crate::info::Writer;
use crate::json::{ArrayWriter, ObjectWriter, check_key, write_string};
use crate::{BACKREST_VERSION, Error, ErrorCode, Result};

/// The bits of the data directory's mode that make up the default mode of files.
const FILE_MODE_MASK: u16 = 0o640;

const BACKUP: &str = "backup";
const BACKUP_DB: &str = "backup:db";
const BACKUP_OPTION: &str = "backup:option";
const BACKUP_TARGET: &str = "backup:target";
const TARGET_FILE: &str = "target:file";
const TARGET_LINK: &str = "target:link";
const TARGET_PATH: &str = "target:path";

/// The values that entries omit. All come from the data directory's own entry.
struct OmittedValues {
    user: OwnerId,
    group: OwnerId,
    file_mode: u16,
    path_mode: u16,
}

impl Manifest {
    /// Returns the manifest's text, with this program's version.
    ///
    /// # Errors
    /// The same as [`Manifest::write`].
    pub fn serialize(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.write(&mut out)?;
        Ok(out)
    }

    /// Writes the manifest's text, with this program's version. It writes line by line, so pass a buffered output.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for names that could not be read back and for lists that are not sorted;
    /// [`ErrorCode::Assert`] without an entry for the data directory; [`ErrorCode::VersionNotSupported`] for an unknown
    /// PostgreSQL version; [`ErrorCode::FileWrite`] if the output fails.
    pub fn write<W: Write>(&self, out: W) -> Result<()> {
        self.write_with_files(out, BACKREST_VERSION, &self.files)
    }

    /// Like [`Manifest::write`], with another version, and with these files instead of the manifest's own. They are
    /// taken one by one, so they may change until they are.
    ///
    /// # Errors
    /// The same as [`Manifest::write`].
    pub fn write_with_files<W: Write>(
        &self,
        out: W,
        version: &str,
        files: impl IntoIterator<Item: Borrow<ManifestFile>>,
    ) -> Result<()> {
        self.check_unique()?;
        let base = self
            .base_path()
            .ok_or_else(|| Error::new(ErrorCode::Assert, "the manifest has no entry for the data directory"))?;
        let defaults = OmittedValues {
            user: base.user,
            group: base.group,
            file_mode: base.mode & FILE_MODE_MASK,
            path_mode: base.mode,
        };
        let mut writer = Writer::with_version(out, self.format, version)?;
        self.write_backup(&mut writer)?;
        self.write_backup_db(&mut writer)?;
        self.write_options(&mut writer)?;
        let mut json = String::new();
        for target in &self.targets {
            check_name(&target.name)?;
            json.clear();
            write_target(&mut json, target);
            writer.value(BACKUP_TARGET, &target.name, &json)?;
        }
        writer.keys(self.cipher_pass.clone().map(Keyring::single).as_ref())?;
        for database in &self.databases {
            json.clear();
            let mut object = ObjectWriter::new(&mut json);
            object.scalar("db-id", database.id);
            object.scalar("db-last-system-id", database.last_system_id);
            object.end();
            writer.value("db", &database.name, &json)?;
        }
        if !self.annotation.is_empty() {
            json.clear();
            let mut object = ObjectWriter::new(&mut json);
            for (key, value) in &self.annotation {
                check_key(key)?;
                object.string(key, value);
            }
            object.end();
            writer.value("metadata", "annotation", &json)?;
        }
        self.write_files(&mut writer, files, &defaults)?;
        self.write_defaults(&mut writer, "target:file:default", &defaults, Some(defaults.file_mode))?;
        self.write_links(&mut writer, &defaults)?;
        self.write_paths(&mut writer, &defaults)?;
        writer.finish().map(drop)
    }

    fn write_links<W: Write>(&self, writer: &mut Writer<W>, defaults: &OmittedValues) -> Result<()> {
        let mut json = String::new();
        for link in &self.links {
            check_name(&link.name)?;
            json.clear();
            let mut object = ObjectWriter::new(&mut json);
            object.string("destination", &link.destination);
            self.write_owner(&mut object, "group", link.group, defaults.group);
            self.write_owner(&mut object, "user", link.user, defaults.user);
            object.end();
            writer.value(TARGET_LINK, &link.name, &json)?;
        }
        match self.links.is_empty() {
            true => Ok(()),
            false => self.write_defaults(writer, "target:link:default", defaults, None),
        }
    }

    fn write_paths<W: Write>(&self, writer: &mut Writer<W>, defaults: &OmittedValues) -> Result<()> {
        let mut json = String::new();
        for path in &self.paths {
            check_name(&path.name)?;
            json.clear();
            let mut object = ObjectWriter::new(&mut json);
            self.write_owner(&mut object, "group", path.group, defaults.group);
            write_mode(&mut object, path.mode, defaults.path_mode);
            self.write_owner(&mut object, "user", path.user, defaults.user);
            object.end();
            writer.value(TARGET_PATH, &path.name, &json)?;
        }
        self.write_defaults(writer, "target:path:default", defaults, Some(defaults.path_mode))
    }

    fn write_backup<W: Write>(&self, writer: &mut Writer<W>) -> Result<()> {
        let data = &self.data;
        let references: Vec<&str> = self.references.iter().map(AsRef::as_ref).collect();
        if let Some(segment) = data.archive_start {
            writer.string(BACKUP, "backup-archive-start", &segment.to_string())?;
        }
        if let Some(segment) = data.archive_stop {
            writer.string(BACKUP, "backup-archive-stop", &segment.to_string())?;
        }
        for (key, enabled) in [
            ("backup-block-incr", data.block_incr),
            ("backup-bundle", data.bundle),
            ("backup-bundle-raw", data.bundle_raw),
        ] {
            if enabled {
                writer.value(BACKUP, key, "true")?;
            }
        }
        writer.string(BACKUP, "backup-label", data.label.as_str())?;
        if let Some(lsn) = &data.lsn_start {
            writer.string(BACKUP, "backup-lsn-start", lsn)?;
        }
        if let Some(lsn) = &data.lsn_stop {
            writer.string(BACKUP, "backup-lsn-stop", lsn)?;
        }
        if let Some(prior) = &data.prior {
            writer.string(BACKUP, "backup-prior", prior.as_str())?;
        }
        writer.string(BACKUP, "backup-reference", &references.join(","))?;
        writer.value(BACKUP, "backup-timestamp-copy-start", &data.timestamp_copy_start.to_string())?;
        writer.value(BACKUP, "backup-timestamp-start", &data.timestamp_start.to_string())?;
        writer.value(BACKUP, "backup-timestamp-stop", &data.timestamp_stop.to_string())?;
        writer.string(BACKUP, "backup-type", data.backup_type.name())
    }

    fn write_backup_db<W: Write>(&self, writer: &mut Writer<W>) -> Result<()> {
        let data = &self.data;
        writer.value(BACKUP_DB, "db-catalog-version", &data.pg_catalog_version.to_string())?;
        writer.value(BACKUP_DB, "db-control-version", &data.pg_version.control_version()?.to_string())?;
        writer.value(BACKUP_DB, "db-id", &data.pg_id.to_string())?;
        writer.value(BACKUP_DB, "db-system-id", &data.pg_system_id.to_string())?;
        writer.string(BACKUP_DB, "db-version", &data.pg_version.to_string())
    }

    fn write_options<W: Write>(&self, writer: &mut Writer<W>) -> Result<()> {
        let options = &self.data.options;
        let mut string = String::new();
        write_string(&mut string, options.compress_type.name());
        let bool = |value: bool| Some(value.to_string());
        let values = [
            ("option-archive-check", bool(options.archive_check)),
            ("option-archive-copy", bool(options.archive_copy)),
            ("option-backup-standby", options.backup_standby.and_then(bool)),
            ("option-buffer-size", options.buffer_size.map(|value| value.to_string())),
            ("option-checksum-page", options.checksum_page.and_then(bool)),
            ("option-compress", bool(options.compress_type != crate::compress::CompressType::None)),
            ("option-compress-level", options.compress_level.map(|value| value.to_string())),
            ("option-compress-level-network", options.compress_level_network.map(|value| value.to_string())),
            ("option-compress-type", Some(string)),
            ("option-delta", options.delta.and_then(bool)),
            ("option-hardlink", bool(options.hardlink)),
            ("option-online", bool(options.online)),
            ("option-process-max", options.process_max.map(|value| value.to_string())),
        ];
        for (key, json) in values {
            if let Some(json) = json {
                writer.value(BACKUP_OPTION, key, &json)?;
            }
        }
        Ok(())
    }

    fn write_files<W: Write>(
        &self,
        writer: &mut Writer<W>,
        files: impl IntoIterator<Item: Borrow<ManifestFile>>,
        defaults: &OmittedValues,
    ) -> Result<()> {
        let mut json = String::new();
        let mut last = String::new();
        for file in files {
            let file: &ManifestFile = file.borrow();
            check_name(&file.name)?;
            check_order(Some(&*last).filter(|last| !last.is_empty()), &file.name)?;
            json.clear();
            self.write_file(&mut json, file, defaults)?;
            writer.value(TARGET_FILE, &file.name, &json)?;
            last.clear();
            last.push_str(&file.name);
        }
        Ok(())
    }

    fn write_file(&self, json: &mut String, file: &ManifestFile, defaults: &OmittedValues) -> Result<()> {
        let mut object = ObjectWriter::new(json);
        if let Some(block) = file.block {
            object.scalar("bi", block.size / BLOCK_SIZE_FACTOR);
            if block.checksum_size != BLOCK_CHECKSUM_SIZE_DEFAULT {
                object.scalar("bic", block.checksum_size);
            }
            if block.map_size != 0 {
                object.scalar("bim", block.map_size);
            }
        }
        if let Some(bundle) = file.bundle {
            object.scalar("bni", bundle.id());
            if bundle.offset != 0 {
                object.scalar("bno", bundle.offset);
            }
        }
        if let Some(checksum) = file.checksum.filter(|_| file.size != 0) {
            write_checksum(&mut object, "checksum", checksum);
        }
        if let Some(check) = &file.page_check {
            write_page_check(&mut object, check);
        }
        self.write_owner(&mut object, "group", file.group, defaults.group);
        write_mode(&mut object, file.mode, defaults.file_mode);
        if let Some(checksum) = file.checksum_repo {
            write_checksum(&mut object, "rck", checksum);
        }
        if let Some(index) = file.reference {
            let label = self.references.get(index as usize).ok_or_else(|| {
                Error::new(ErrorCode::Assert, format!("reference of file '{}' is not in the list", file.name))
            })?;
            object.plain("reference", label);
        }
        if file.size_repo != file.size {
            object.scalar("repo-size", file.size_repo);
        }
        object.scalar("size", file.size);
        if file.size_original != file.size {
            object.scalar("szo", file.size_original);
        }
        object.scalar("timestamp", file.timestamp);
        self.write_owner(&mut object, "user", file.user, defaults.user);
        object.end();
        Ok(())
    }

    fn write_owner(&self, object: &mut ObjectWriter<'_>, key: &str, owner: OwnerId, default: OwnerId) {
        if owner != default {
            match self.owners.name(owner) {
                Some(name) => object.string(key, name),
                None => object.scalar(key, false),
            }
        }
    }

    fn write_defaults<W: Write>(
        &self,
        writer: &mut Writer<W>,
        section: &str,
        defaults: &OmittedValues,
        mode: Option<u16>,
    ) -> Result<()> {
        let owner = |owner: OwnerId| {
            let mut json = String::new();
            match self.owners.name(owner) {
                Some(name) => write_string(&mut json, name),
                None => json.push_str("false"),
            }
            json
        };
        writer.value(section, "group", &owner(defaults.group))?;
        if let Some(mode) = mode {
            writer.value(section, "mode", &format!("\"{mode:04o}\""))?;
        }
        writer.value(section, "user", &owner(defaults.user))
    }
}

fn write_checksum(object: &mut ObjectWriter<'_>, key: &str, checksum: Sha1) {
    let hex = checksum.hex();
    object.plain(key, std::str::from_utf8(&hex).unwrap_or_default());
}

fn write_mode(object: &mut ObjectWriter<'_>, mode: u16, default: u16) {
    if mode != default {
        object.plain("mode", format_args!("{mode:04o}"));
    }
}

fn write_page_check(object: &mut ObjectWriter<'_>, check: &PageCheck) {
    object.scalar("checksum-page", check.valid);
    if check.errors().is_empty() {
        return;
    }
    let mut errors: ArrayWriter<'_> = object.array("checksum-page-error");
    for PageRange { first, last } in check.errors() {
        if first == last {
            errors.scalar(*first);
        } else {
            let mut range = errors.array();
            range.scalar(*first);
            range.scalar(*last);
            range.end();
        }
    }
    errors.end();
}

fn write_target(json: &mut String, target: &Target) {
    let mut object = ObjectWriter::new(json);
    if let Some(file) = &target.file {
        object.string("file", file);
    }
    object.string("path", &target.path);
    if let Some(tablespace) = &target.tablespace {
        object.plain("tablespace-id", tablespace.id);
        object.string("tablespace-name", &tablespace.name);
    }
    object.string("type", if target.target_type == TargetType::Path { "path" } else { "link" });
    object.end();
}
