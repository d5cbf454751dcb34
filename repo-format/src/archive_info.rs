//! archive.info: the clusters whose WAL a stanza's archive contains.
//!
//! Source: pgBackRest `src/info/infoArchive.c`, `src/info/infoPg.c`.

use std::io::BufRead;

use crate::cipher::{Cipher, Keyring};
use crate::format::RepoFormat;
use crate::info::{self, Origin, Writer};
use crate::ini::LINE_SIZE_MAX;
use crate::json::{ObjectWriter, Reader};
use crate::layout::ArchiveId;
use crate::pg::PgVersion;
use crate::{Error, ErrorCode, Result};

/// One cluster in a stanza's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveCluster {
    /// The number in the history, from 1.
    pub id: u32,
    /// PostgreSQL's version.
    pub version: PgVersion,
    /// The cluster's system identifier.
    pub system_id: u64,
}

impl ArchiveCluster {
    /// The name of this cluster's directory in the archive.
    pub fn archive_id(&self) -> ArchiveId {
        ArchiveId { version: self.version, id: self.id }
    }
}

/// The content of archive.info.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveInfo {
    /// The format of the file, and of the files that are archived from now on.
    pub format: RepoFormat,
    /// The version that wrote the file.
    pub backrest_version: String,
    /// Every cluster that the stanza has had, oldest first.
    pub history: Vec<ArchiveCluster>,
    /// The keys of the files in the archive.
    pub keys: Option<Keyring>,
    current: ArchiveCluster,
}

impl ArchiveInfo {
    /// The information of a new stanza of format 5.
    pub fn new(version: PgVersion, system_id: u64, keys: Option<Keyring>) -> Self {
        Self::with_format(RepoFormat::V5, version, system_id, keys)
    }

    /// The information of a new stanza.
    pub fn with_format(format: RepoFormat, version: PgVersion, system_id: u64, keys: Option<Keyring>) -> Self {
        let current = ArchiveCluster { id: 1, version, system_id };
        let backrest_version = crate::BACKREST_VERSION.to_owned();
        ArchiveInfo { format, backrest_version, history: vec![current], keys, current }
    }

    /// How the files in the archive are encrypted.
    pub fn cipher(&self) -> Cipher {
        Cipher::of_archive(self.keys.as_ref(), self.format)
    }

    /// The cluster that WAL is pushed for.
    pub fn current(&self) -> &ArchiveCluster {
        &self.current
    }

    /// Adds an upgraded cluster and makes it the current one.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if the history has no more numbers.
    pub fn upgrade(&mut self, version: PgVersion, system_id: u64) -> Result<()> {
        self.current = ArchiveCluster { id: next_id(self.current.id)?, version, system_id };
        self.history.push(self.current);
        Ok(())
    }

    /// Parses the text of a file that is not encrypted.
    ///
    /// # Errors
    /// The same as [`ArchiveInfo::read`].
    pub fn parse(text: &[u8]) -> Result<Self> {
        Self::read(text, Origin::Plain)
    }

    /// Reads the file's text line by line.
    ///
    /// # Errors
    /// The same as [`info::read`]; [`ErrorCode::Format`] or [`ErrorCode::JsonFormat`] if the history is missing or
    /// damaged.
    pub fn read<R: BufRead>(input: R, origin: Origin) -> Result<Self> {
        let mut history = Vec::new();
        let mut current_id = 0;
        let header = info::read(input, origin, LINE_SIZE_MAX, |entry| {
            let mut json = Reader::new(entry.value);
            match (entry.section, entry.key) {
                ("db", "db-id") => current_id = json.u32()?,
                ("db:history", id) => {
                    let id = parse_id(id)?;
                    json.object_begin()?;
                    // This file names the system id differently from backup.info. The format keeps that mistake.
                    json.key_require("db-id")?;
                    let system_id = json.u64()?;
                    json.key_require("db-version")?;
                    let version = json.string()?.parse()?;
                    history.push(ArchiveCluster { id, version, system_id });
                }
                _ => {}
            }
            Ok(())
        })?;
        let current = find_current(&history, current_id, |pg| pg.id)?;
        let info::Header { format, backrest_version, keys } = header;
        Ok(ArchiveInfo { format, backrest_version, history, keys, current })
    }

    /// Returns the file's text, with this program's version.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if the format can't hold the keys.
    pub fn serialize(&self) -> Result<Vec<u8>> {
        let mut writer = Writer::new(Vec::new(), self.format)?;
        writer.keys(self.keys.as_ref())?;
        writer.value("db", "db-id", &self.current.id.to_string())?;
        writer.value("db", "db-system-id", &self.current.system_id.to_string())?;
        writer.string("db", "db-version", &self.current.version.to_string())?;
        for pg in &self.history {
            let mut json = String::new();
            let mut object = ObjectWriter::new(&mut json);
            object.scalar("db-id", pg.system_id);
            object.plain("db-version", pg.version);
            object.end();
            writer.value("db:history", &pg.id.to_string(), &json)?;
        }
        writer.finish()
    }
}

/// A number of the history as it stands before the `=`.
pub(crate) fn parse_id(text: &str) -> Result<u32> {
    let valid = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| valid)
        .ok_or_else(|| Error::new(ErrorCode::Format, format!("'{}' is not a history id", text.escape_debug())))
}

pub(crate) fn next_id(id: u32) -> Result<u32> {
    id.checked_add(1).ok_or_else(|| Error::new(ErrorCode::Format, "history ids are used up"))
}

/// Finds the history entry of the current cluster.
pub(crate) fn find_current<T: Copy>(history: &[T], current_id: u32, id: impl Fn(&T) -> u32) -> Result<T> {
    let format = |message: &str| Err(Error::new(ErrorCode::Format, message));
    if history.is_empty() {
        return format("history is missing");
    }
    if current_id == 0 {
        return format("current id is missing");
    }
    match history.iter().find(|pg| id(pg) == current_id) {
        Some(current) => Ok(*current),
        None => format("unable to find current id in history"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cipher::Passphrase;
    use proptest::prelude::*;

    /// A real file of 255 bytes.
    const REAL: &str = "[backrest]\nbackrest-format=5\nbackrest-version=\"2.59.1\"\n\n[db]\ndb-id=1\n\
        db-system-id=7710887564186981822\ndb-version=\"15\"\n\n[db:history]\n\
        1={\"db-id\":7710887564186981822,\"db-version\":\"15\"}\n\n[backrest]\n\
        backrest-checksum=\"0a05914de646cb4ddd807772976ec88252434529\"\n";

    #[test]
    fn parse_real_file_checksum_holds() -> Result<()> {
        assert_eq!(REAL.len(), 255);
        let info = ArchiveInfo::parse(REAL.as_bytes())?;
        assert_eq!(info.backrest_version, "2.59.1");
        assert_eq!(info.current().archive_id().to_string(), "15-1");
        assert_eq!(info.current().system_id, 7_710_887_564_186_981_822);
        assert_eq!(info.keys, None);
        Ok(())
    }

    /// A file that pgBackRest 2.60.0 created at format 6, with the main passphrase `MainPass1`.
    const REAL_6: &str = "UEdCUjAwNl+QA/r73qJVxXlqX2NohZDx3kM5et8f2nuJXRNAI9kTJpI8HgrIoBJOKzJaKImzUvMccOgbpeLn9VBkj+Kmp+PovaeyDV9ZsKnkavzSy3Lx+4kKvwPP4Z/oZgRKPFZueFInoef/zbwUsf\
        pul2tJ1rVOTfAdKd1trYeMmRZxG0m3W3YqanftpwRPmKsg2/hVw0hpLwQz99V/OkybYbCUIjh8FykEvxx2ehz2VR8lY4DYL1shRbBn7TlzBudlGywonyz4BjJF6JPpo+/aQ0UAcECa2A58zoKYdocD\
        2Xo06AogGmkqnHGEGoTlXHt8DviRBIZBEVtz9Fsz0s3jfO6P89t4cbba77bfX8bntESZ9FWg/CVOXcmmZA3vKk8227/Om997/NbBtf0Y5seEU02Pv1LstqCN3jE8HNPrNSL3yFUUD1fSjFCoHRtVog\
        vShcqWN3blMnDe0qjcyRR14zBuODrpSA3W/63lQP0rDYM4WdOfb+rXk7wcvZvZLzyEux1s4WSEagA0g3CfcTBF/TpCOZqV1VvX6THzde6XNAlDgjNws8fynIXiMXLjicKFACMc3eGRZfFFS97J3g==";

    fn real_6() -> (ArchiveInfo, String) {
        use base64::Engine;
        let stored = base64::engine::general_purpose::STANDARD.decode(REAL_6.replace([' ', '\n'], "")).unwrap();
        assert_eq!(stored.len(), 448);
        let main = Cipher::Aes256Cbc(Passphrase::new("MainPass1")).of_info_file(RepoFormat::V5);
        let text = crate::cipher::decrypt(&main, &stored).unwrap();
        (ArchiveInfo::read(text.as_slice(), Origin::Headed(RepoFormat::V6)).unwrap(), String::from_utf8(text).unwrap())
    }

    #[test]
    fn real_file_of_format_6_is_read_and_written_the_same() -> Result<()> {
        let (info, text) = real_6();
        assert_eq!(info.format, RepoFormat::V6);
        let keys = info.keys.clone().unwrap();
        assert_eq!((keys.current_id().as_str(), keys.rotated()), ("1", 1_795_923_947));
        assert_eq!(String::from_utf8_lossy(&info.serialize()?), text);
        Ok(())
    }

    #[test]
    fn current_key_with_the_id_0_stays_the_current_one_beside_others() -> Result<()> {
        let (mut info, _) = real_6();
        let entry = |key: &str| format!("{{\"digest\":\"sha1\",\"key\":\"{key}\"}}");
        let keys = format!("{{\"0\":{},\"1\":{}}}", entry("zero"), entry("one"));
        let mut keys = Keyring::read_keys(&mut Reader::new(&keys))?;
        keys.read_current(&mut Reader::new("\"0\""))?;
        info.keys = Some(keys);
        assert_eq!(ArchiveInfo::parse(&info.serialize()?)?.keys, info.keys);
        Ok(())
    }

    #[test]
    fn file_of_format_6_with_another_header_is_refused_without_its_copy() {
        let (_, text) = real_6();
        let error = ArchiveInfo::read(text.as_bytes(), Origin::Headed(RepoFormat::V5)).unwrap_err();
        assert_eq!(error.code, ErrorCode::Format);
        assert_eq!(error.message, "repository format 6 does not match header format 5");
        assert!(crate::format::is_unsupported(&error));
    }

    #[test]
    fn keys_in_the_form_of_another_format_are_refused() {
        let (_, text) = real_6();
        for (from, to, message) in [
            ("backrest-format=6", "backrest-format=5", "only one cipher key can be stored before format 6"),
            ("cipher-pass={", "cipher-pass=\"x\"\nother={", "cipher key must have a digest from format 6"),
            ("\"1\"\n", "\"2\"\n", "current cipher key is not stored"),
            ("backrest-format=6\n", "", "repository format not found"),
        ] {
            let error = ArchiveInfo::parse(text.replace(from, to).as_bytes()).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (ErrorCode::Format, message));
        }
    }

    #[test]
    fn serialize_real_file_differs_in_version_and_checksum_alone() -> Result<()> {
        let text = String::from_utf8_lossy(&ArchiveInfo::parse(REAL.as_bytes())?.serialize()?).into_owned();
        let body = |text: &str| text.split("[backrest]").nth(1).map(|body| body.replace("2.60.0", "2.59.1"));
        assert_eq!(body(&text), body(REAL));
        Ok(())
    }

    #[test]
    fn upgrade_becomes_current_and_keeps_order() -> Result<()> {
        let mut info = ArchiveInfo::new(PgVersion::V9_6, 1, Some(Keyring::single(Passphrase::new("p"))));
        for system_id in 2..=10 {
            info.upgrade(PgVersion::V15, system_id)?;
        }
        let read = ArchiveInfo::parse(&info.serialize()?)?;
        assert_eq!(read, info);
        assert_eq!(read.current().id, 10);
        assert_eq!(read.history.iter().map(|pg| pg.id).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
        Ok(())
    }

    #[test]
    fn parse_incomplete_file_is_format_error() -> Result<()> {
        for (values, message) in [
            (&[][..], "history is missing"),
            (&[("db:history", "1", "{\"db-id\":1,\"db-version\":\"15\"}")], "current id is missing"),
            (
                &[("db", "db-id", "2"), ("db:history", "1", "{\"db-id\":1,\"db-version\":\"15\"}")],
                "unable to find current id in history",
            ),
            (&[("db:history", "x", "{\"db-id\":1,\"db-version\":\"15\"}")], "'x' is not a history id"),
            (&[("db:history", "1", "{\"db-version\":\"15\"}")], "required key 'db-id' not found"),
        ] {
            let mut writer = Writer::new(Vec::new(), RepoFormat::V5)?;
            for (section, key, json) in values {
                writer.value(section, key, json)?;
            }
            let error = ArchiveInfo::parse(&writer.finish()?).map_err(|error| error.message);
            assert_eq!(error, Err(message.to_owned()));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn archive_info_any_history_round_trips(
            systems in proptest::collection::vec((any::<u64>(), 96u32..200), 1..6), pass in "[ -~]{0,64}"
        ) {
            let version = |number: u32| PgVersion::from_server_version_num(if number < 100 { 90_600 } else { number / 10 * 10_000 });
            let mut info = ArchiveInfo::new(version(systems[0].1), systems[0].0, Some(Keyring::single(Passphrase::new(pass))));
            for (system_id, number) in &systems[1..] {
                info.upgrade(version(*number), *system_id).map_err(|error| TestCaseError::fail(error.to_string()))?;
            }
            let text = info.serialize().map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(ArchiveInfo::parse(&text).ok(), Some(info));
        }

        #[test]
        fn archive_info_damaged_byte_is_an_error(position in 0usize..255, byte in any::<u8>()) {
            let mut text = REAL.as_bytes().to_vec();
            prop_assume!(text[position] != byte);
            text[position] = byte;
            // An additional or missing line feed between sections is the only change that the checksum does not detect.
            if let Ok(info) = ArchiveInfo::parse(&text) {
                prop_assert_eq!(info.history, ArchiveInfo::parse(REAL.as_bytes()).map(|info| info.history).unwrap_or_default());
            }
        }
    }
}
