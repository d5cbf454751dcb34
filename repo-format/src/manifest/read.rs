//! Reads a manifest.

use std::collections::HashMap;
use std::io::BufRead;

use super::{
    BLOCK_CHECKSUM_SIZE_DEFAULT, BLOCK_SIZE_FACTOR, BlockIncr, Bundle, Database, Manifest, ManifestData, ManifestFile,
    ManifestLink, ManifestOptions, ManifestPath, OwnerId, OwnerTable, PG_DATA, PageCheck, PageRange, Tablespace,
    Target, TargetType, check_name,
};
use crate::cipher::KeyId;
use crate::compress::CompressType;
use crate::hash::{BLOCK_CHECKSUM_SIZE_MAX, Sha1};
use crate::info::{self, Origin};
use crate::ini::IniEntry;
use crate::json::Reader;
use crate::label::{BackupLabel, BackupType};
use crate::pg::PgVersion;
use crate::{Error, ErrorCode, Result};

/// The maximum length of a line in bytes. The longest real lines list invalid pages: every other page of a segment file
/// of 1 GiB needs some 700 kB, and clusters with larger segment files more.
const LINE_SIZE_MAX: usize = 16 << 20;
/// A placeholder for the section's default mode, which comes later in the file.
const MODE_DEFAULT: u16 = u16::MAX;
/// The smallest page size in bytes that PostgreSQL can be compiled with.
const PAGE_SIZE_MIN: u32 = 1024;
/// The highest mode: permission bits, set-uid, set-gid and sticky.
const MODE_MAX: u16 = 0o7777;

fn format_error(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::Format, message)
}

impl Manifest {
    /// Parses the text of a manifest that is not encrypted.
    ///
    /// # Errors
    /// The same as [`Manifest::read`].
    pub fn parse(text: &[u8]) -> Result<Self> {
        Self::read(text, Origin::Plain)
    }

    /// Reads a manifest's text line by line, so that the text does not have to be in memory.
    ///
    /// # Errors
    /// The same as [`info::read`]; [`ErrorCode::Format`] or [`ErrorCode::JsonFormat`] if something is missing, damaged,
    /// or could lead out of the data directory.
    pub fn read<R: BufRead>(input: R, origin: Origin) -> Result<Self> {
        let mut loader = Loader::default();
        let header = info::read(input, origin, LINE_SIZE_MAX, |entry| loader.value(entry))?;
        let origin = if header.keys.is_some() { Origin::Decrypted } else { origin };
        loader.finish(header).map_err(|error| origin.conceal(error, "or none where the manifest needs one"))
    }
}

/// The defaults of the section of files, links or directories.
#[derive(Default)]
struct SectionDefaults {
    user: Option<OwnerId>,
    group: Option<OwnerId>,
    mode: Option<u16>,
}

impl SectionDefaults {
    fn apply(&self, user: &mut OwnerId, group: &mut OwnerId, mode: Option<&mut u16>, name: &str) -> Result<()> {
        let missing = |what: &str| format_error(format!("missing default {what} for '{name}'"));
        if *user == OwnerId::DEFAULT {
            *user = self.user.ok_or_else(|| missing("user"))?;
        }
        if *group == OwnerId::DEFAULT {
            *group = self.group.ok_or_else(|| missing("group"))?;
        }
        if let Some(mode) = mode.filter(|mode| **mode == MODE_DEFAULT) {
            *mode = self.mode.ok_or_else(|| missing("mode"))?;
        }
        Ok(())
    }

    fn value(&mut self, owners: &mut OwnerTable, key: &str, json: &mut Reader<'_>) -> Result<()> {
        match key {
            "user" => self.user = Some(owner(owners, json)?),
            "group" => self.group = Some(owner(owners, json)?),
            "mode" => self.mode = Some(mode(json)?),
            _ => {}
        }
        Ok(())
    }
}

/// What has been read so far.
#[derive(Default)]
struct Loader {
    data: Data,
    options: ManifestOptions,
    targets: Vec<Target>,
    databases: Vec<Database>,
    annotation: std::collections::BTreeMap<String, String>,
    files: Vec<ManifestFile>,
    links: Vec<ManifestLink>,
    paths: Vec<ManifestPath>,
    owners: OwnerTable,
    references: Vec<BackupLabel>,
    reference_index: HashMap<String, u32>,
    /// Manifests before 2.42 have no list of references. It is built from the references of the files, in their order.
    reference_list_found: bool,
    file_defaults: SectionDefaults,
    link_defaults: SectionDefaults,
    path_defaults: SectionDefaults,
}

/// [`ManifestData`] with optional keys.
#[derive(Default)]
struct Data {
    label: Option<BackupLabel>,
    backup_type: Option<BackupType>,
    prior: Option<BackupLabel>,
    timestamp_start: i64,
    timestamp_copy_start: i64,
    timestamp_stop: i64,
    archive_start: Option<crate::wal_name::WalSegment>,
    archive_stop: Option<crate::wal_name::WalSegment>,
    lsn_start: Option<String>,
    lsn_stop: Option<String>,
    bundle: bool,
    bundle_raw: bool,
    block_incr: bool,
    pg_id: u32,
    pg_version: Option<PgVersion>,
    pg_system_id: u64,
    pg_catalog_version: u32,
}

impl Loader {
    fn value(&mut self, entry: &IniEntry<'_>) -> Result<()> {
        let json = &mut Reader::new(entry.value);
        match entry.section {
            "target:file" => self.file(entry.key, json),
            "target:path" => self.path(entry.key, json),
            "target:link" => self.link(entry.key, json),
            "target:file:default" => self.file_defaults.value(&mut self.owners, entry.key, json),
            "target:path:default" => self.path_defaults.value(&mut self.owners, entry.key, json),
            "target:link:default" => self.link_defaults.value(&mut self.owners, entry.key, json),
            "backup" => self.backup(entry.key, json),
            "backup:db" => self.backup_db(entry.key, json),
            "backup:option" => self.backup_option(entry.key, json),
            "backup:target" => self.target(entry.key, json),
            "db" => self.database(entry.key, json),
            "metadata" => self.metadata(entry.key, json),
            _ => Ok(()),
        }
        .map_err(|error| match error.code {
            // The bare messages name neither file nor key.
            ErrorCode::JsonFormat => error.context(format_args!("section '{}', key '{}'", entry.section, entry.key)),
            _ => error,
        })
    }

    fn file(&mut self, name: &str, json: &mut Reader<'_>) -> Result<()> {
        check_name(name)?;
        let mut file = ManifestFile::new(name, 0, 0);
        json.object_begin()?;
        if json.key_expect("bi")? {
            file.block = Some(block(name, json)?);
        }
        if json.key_expect("bni")? {
            let id = json.u64()?;
            if id == 0 {
                return Err(format_error(format!("invalid bundle id 0 for file '{name}'")));
            }
            let offset = if json.key_expect("bno")? { json.u64()? } else { 0 };
            file.bundle = Bundle::new(id, offset);
        }
        if json.key_expect("checksum")? {
            file.checksum = Some(json.string()?.parse()?);
        }
        if json.key_expect("checksum-page")? {
            let valid = json.bool()?;
            let errors = if json.key_expect("checksum-page-error")? { page_errors(name, json)? } else { Vec::new() };
            file.page_check = Some(if valid { PageCheck::VALID } else { PageCheck::invalid(errors) });
        }
        file.group = if json.key_expect("group")? { owner(&mut self.owners, json)? } else { OwnerId::DEFAULT };
        file.mode = if json.key_expect("mode")? { mode(json)? } else { MODE_DEFAULT };
        if json.key_expect("rck")? {
            file.checksum_repo = Some(json.string()?.parse()?);
        }
        if json.key_expect("reference")? {
            file.reference = Some(self.reference(name, &json.string()?)?);
        }
        let size_repo = if json.key_expect("repo-size")? { Some(json.u64()?) } else { None };
        if !json.key_expect("size")? {
            return Err(format_error(format!("missing size for file '{name}'")));
        }
        file.size = json.u64()?;
        // Pages are counted from the start of the relation, and the file may be a later part of it
        let errors = file.page_check.as_ref().map_or(&[][..], PageCheck::errors);
        if let (Some(first), Some(last)) = (errors.first(), errors.last())
            && u64::from(last.last - first.first) >= file.size.div_ceil(u64::from(PAGE_SIZE_MIN))
        {
            return Err(format_error(format!("file '{name}' has no room for its damaged pages")));
        }
        file.size_repo = size_repo.unwrap_or(file.size);
        if file.bundle.is_some_and(|bundle| bundle.offset.checked_add(file.size_repo).is_none()) {
            return Err(format_error(format!("invalid bundle offset for file '{name}'")));
        }
        // Another checksum means that the size is wrong
        if file.size == 0 && file.checksum.is_none() {
            file.checksum = Some(Sha1::EMPTY);
        }
        file.size_original = if json.key_expect("szo")? { json.u64()? } else { file.size };
        if !json.key_expect("timestamp")? {
            return Err(format_error(format!("missing timestamp for file '{name}'")));
        }
        file.timestamp = json.i64()?;
        file.user = if json.key_expect("user")? { owner(&mut self.owners, json)? } else { OwnerId::DEFAULT };
        self.files.push(file);
        Ok(())
    }

    /// The index of the label that a file refers to.
    fn reference(&mut self, name: &str, label: &str) -> Result<u32> {
        if let Some(index) = self.reference_index.get(label) {
            return Ok(*index);
        }
        if self.reference_list_found {
            return Err(format_error(format!("reference '{label}' of file '{name}' is not in the reference list")));
        }
        self.add_reference(label)
    }

    fn add_reference(&mut self, label: &str) -> Result<u32> {
        let index = u32::try_from(self.references.len()).map_err(|_| format_error("too many references"))?;
        self.references.push(label.parse()?);
        if self.reference_index.insert(label.to_owned(), index).is_some() {
            return Err(format_error(format!("reference '{label}' is listed twice")));
        }
        Ok(index)
    }

    fn path(&mut self, name: &str, json: &mut Reader<'_>) -> Result<()> {
        check_name(name)?;
        json.object_begin()?;
        let group = if json.key_expect("group")? { owner(&mut self.owners, json)? } else { OwnerId::DEFAULT };
        let mode = if json.key_expect("mode")? { mode(json)? } else { MODE_DEFAULT };
        let user = if json.key_expect("user")? { owner(&mut self.owners, json)? } else { OwnerId::DEFAULT };
        self.paths.push(ManifestPath { name: name.to_owned(), mode, user, group });
        Ok(())
    }

    fn link(&mut self, name: &str, json: &mut Reader<'_>) -> Result<()> {
        check_name(name)?;
        json.object_begin()?;
        json.key_require("destination")?;
        let destination = json.string()?.into_owned();
        let group = if json.key_expect("group")? { owner(&mut self.owners, json)? } else { OwnerId::DEFAULT };
        let user = if json.key_expect("user")? { owner(&mut self.owners, json)? } else { OwnerId::DEFAULT };
        self.links.push(ManifestLink { name: name.to_owned(), destination, user, group });
        Ok(())
    }

    fn target(&mut self, name: &str, json: &mut Reader<'_>) -> Result<()> {
        check_name(name)?;
        json.object_begin()?;
        let file = if json.key_expect("file")? { Some(json.string()?.into_owned()) } else { None };
        if file.as_deref().is_some_and(|file| matches!(file, "" | "." | "..") || file.contains(['/', '\0'])) {
            return Err(format_error(format!("file of target '{name}' is not a file name")));
        }
        json.key_require("path")?;
        let path = json.string()?.into_owned();
        let tablespace = if json.key_expect("tablespace-id")? {
            let text = json.string()?;
            let id = text
                .parse()
                .ok()
                .filter(|id| *id > 0 && text.bytes().all(|byte| byte.is_ascii_digit()))
                .ok_or_else(|| format_error(format!("'{text}' is not a tablespace id")))?;
            json.key_require("tablespace-name")?;
            Some(Tablespace { id, name: json.string()?.into_owned() })
        } else {
            None
        };
        json.key_require("type")?;
        let target_type = if json.string()? == "path" { TargetType::Path } else { TargetType::Link };
        self.targets.push(Target { name: name.to_owned(), target_type, path, file, tablespace });
        Ok(())
    }

    fn database(&mut self, name: &str, json: &mut Reader<'_>) -> Result<()> {
        json.object_begin()?;
        json.key_require("db-id")?;
        let id = json.u32()?;
        json.key_require("db-last-system-id")?;
        let last_system_id = json.u32()?;
        self.databases.push(Database { name: name.to_owned(), id, last_system_id });
        Ok(())
    }

    fn metadata(&mut self, key: &str, json: &mut Reader<'_>) -> Result<()> {
        if key == "annotation" {
            self.annotation = json.string_map()?;
        }
        Ok(())
    }

    fn backup(&mut self, key: &str, json: &mut Reader<'_>) -> Result<()> {
        let data = &mut self.data;
        match key {
            "backup-archive-start" => data.archive_start = Some(json.string()?.parse()?),
            "backup-archive-stop" => data.archive_stop = Some(json.string()?.parse()?),
            "backup-block-incr" => data.block_incr = json.bool()?,
            "backup-bundle" => data.bundle = json.bool()?,
            "backup-bundle-raw" => data.bundle_raw = json.bool()?,
            "backup-label" => data.label = Some(json.string()?.parse()?),
            "backup-lsn-start" => data.lsn_start = Some(json.string()?.into_owned()),
            "backup-lsn-stop" => data.lsn_stop = Some(json.string()?.into_owned()),
            "backup-prior" => data.prior = Some(json.string()?.parse()?),
            "backup-reference" => {
                for label in json.string()?.split(',') {
                    self.add_reference(label)?;
                }
                self.reference_list_found = true;
            }
            "backup-timestamp-copy-start" => data.timestamp_copy_start = json.timestamp()?,
            "backup-timestamp-start" => data.timestamp_start = json.timestamp()?,
            "backup-timestamp-stop" => data.timestamp_stop = json.timestamp()?,
            "backup-type" => data.backup_type = Some(json.string()?.parse()?),
            _ => {}
        }
        Ok(())
    }

    fn backup_db(&mut self, key: &str, json: &mut Reader<'_>) -> Result<()> {
        match key {
            "db-catalog-version" => self.data.pg_catalog_version = json.u32()?,
            "db-id" => self.data.pg_id = json.u32()?,
            "db-system-id" => self.data.pg_system_id = json.u64()?,
            "db-version" => self.data.pg_version = Some(json.string()?.parse()?),
            _ => {}
        }
        Ok(())
    }

    fn backup_option(&mut self, key: &str, json: &mut Reader<'_>) -> Result<()> {
        let options = &mut self.options;
        match key {
            "option-archive-check" => options.archive_check = json.bool()?,
            "option-archive-copy" => options.archive_copy = json.bool()?,
            "option-backup-standby" => options.backup_standby = Some(json.bool()?),
            "option-buffer-size" => options.buffer_size = Some(json.u32()?),
            "option-checksum-page" => options.checksum_page = Some(json.bool()?),
            // It used to mean gz. The type, which follows it in the file, is more precise in all but old manifests.
            "option-compress" => {
                options.compress_type = if json.bool()? { CompressType::Gz } else { CompressType::None };
            }
            "option-compress-level" => options.compress_level = Some(json.u32()?),
            "option-compress-level-network" => options.compress_level_network = Some(json.u32()?),
            "option-compress-type" => options.compress_type = json.string()?.parse()?,
            "option-delta" => options.delta = Some(json.bool()?),
            "option-hardlink" => options.hardlink = json.bool()?,
            "option-online" => options.online = json.bool()?,
            "option-process-max" => options.process_max = Some(json.u32()?),
            _ => {}
        }
        Ok(())
    }

    fn finish(mut self, header: info::Header) -> Result<Manifest> {
        let missing = |what: &str| format_error(format!("{what} is missing in the manifest"));
        let label = self.data.label.take().ok_or_else(|| missing("backup-label"))?;
        if !self.reference_list_found && !self.reference_index.contains_key(label.as_str()) {
            self.add_reference(label.as_str())?;
        }
        for file in &mut self.files {
            self.file_defaults.apply(&mut file.user, &mut file.group, Some(&mut file.mode), &file.name)?;
        }
        for link in &mut self.links {
            self.link_defaults.apply(&mut link.user, &mut link.group, None, &link.name)?;
        }
        for path in &mut self.paths {
            self.path_defaults.apply(&mut path.user, &mut path.group, Some(&mut path.mode), &path.name)?;
        }
        self.files.shrink_to_fit();
        let data = self.data;
        let mut manifest = Manifest {
            format: header.format,
            backrest_version: header.backrest_version,
            data: ManifestData {
                label,
                backup_type: data.backup_type.ok_or_else(|| missing("backup-type"))?,
                prior: data.prior,
                timestamp_start: data.timestamp_start,
                timestamp_copy_start: data.timestamp_copy_start,
                timestamp_stop: data.timestamp_stop,
                archive_start: data.archive_start,
                archive_stop: data.archive_stop,
                lsn_start: data.lsn_start,
                lsn_stop: data.lsn_stop,
                bundle: data.bundle,
                bundle_raw: data.bundle_raw,
                block_incr: data.block_incr,
                pg_id: data.pg_id,
                pg_version: data.pg_version.ok_or_else(|| missing("db-version"))?,
                pg_system_id: data.pg_system_id,
                pg_catalog_version: data.pg_catalog_version,
                options: self.options,
            },
            cipher_pass: header.keys.map(|keys| keys.find(KeyId::ZERO).cloned()).transpose()?,
            targets: self.targets,
            databases: self.databases,
            annotation: self.annotation,
            files: self.files,
            links: self.links,
            paths: self.paths,
            references: self.references,
            owners: self.owners,
        };
        manifest.sort();
        manifest.check_unique()?;
        if manifest.base_target().is_none() {
            return Err(missing(&format!("target '{PG_DATA}'")));
        }
        Ok(manifest)
    }
}

impl Manifest {
    /// Checks that each name occurs once in the sorted lists.
    pub(super) fn check_unique(&self) -> Result<()> {
        fn check<'a>(names: impl Iterator<Item = &'a str>) -> Result<()> {
            let mut last = None;
            for name in names {
                check_order(last, name)?;
                last = Some(name);
            }
            Ok(())
        }
        check(self.files.iter().map(|file| &*file.name))?;
        check(self.links.iter().map(|link| link.name.as_str()))?;
        check(self.paths.iter().map(|path| path.name.as_str()))?;
        check(self.targets.iter().map(|target| target.name.as_str()))?;
        check(self.databases.iter().map(|database| database.name.as_str()))
    }
}

/// Checks that a name comes after the last one.
pub(super) fn check_order(last: Option<&str>, name: &str) -> Result<()> {
    if last.is_some_and(|last| last >= name) {
        return Err(format_error(format!("'{name}' is in the manifest twice, or not in its order")));
    }
    Ok(())
}

fn block(name: &str, json: &mut Reader<'_>) -> Result<BlockIncr> {
    let invalid = |what: &str| format_error(format!("invalid block {what} for file '{name}'"));
    let size = u32::try_from(json.u64()?).ok().and_then(|size| size.checked_mul(BLOCK_SIZE_FACTOR));
    let size = size.filter(|size| *size > 0).ok_or_else(|| invalid("size"))?;
    let checksum_size = if json.key_expect("bic")? {
        let size = u8::try_from(json.u64()?).ok();
        size.filter(|size| (1..=BLOCK_CHECKSUM_SIZE_MAX).contains(&usize::from(*size)))
            .ok_or_else(|| invalid("checksum size"))?
    } else {
        BLOCK_CHECKSUM_SIZE_DEFAULT
    };
    let map_size = if json.key_expect("bim")? { json.u64()? } else { 0 };
    Ok(BlockIncr { size, checksum_size, map_size })
}

/// Reads a list of invalid pages. They ascend, so a list cannot be longer than the file.
fn page_errors(name: &str, json: &mut Reader<'_>) -> Result<Vec<PageRange>> {
    let mut errors: Vec<PageRange> = Vec::new();
    json.array_begin()?;
    while json.has_more() {
        let range = if json.next_is_array() {
            json.array_begin()?;
            let range = PageRange { first: json.u32()?, last: json.u32()? };
            json.array_end()?;
            range
        } else {
            let page = json.u32()?;
            PageRange { first: page, last: page }
        };
        if range.first > range.last || errors.last().is_some_and(|before| range.first <= before.last) {
            return Err(format_error(format!("damaged pages of file '{name}' are not in order")));
        }
        errors.push(range);
    }
    json.array_end()?;
    Ok(errors)
}

fn owner(owners: &mut OwnerTable, json: &mut Reader<'_>) -> Result<OwnerId> {
    owners.intern(json.string_or_false()?.as_deref())
}

fn mode(json: &mut Reader<'_>) -> Result<u16> {
    let text = json.string()?;
    u16::from_str_radix(&text, 8)
        .ok()
        .filter(|mode| *mode <= MODE_MAX && text.bytes().all(|byte| byte.is_ascii_digit()))
        .ok_or_else(|| format_error(format!("'{}' is not a mode", text.escape_debug())))
}
