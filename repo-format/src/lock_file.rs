//! The content and names of lock and stop files.
//!
//! The lock is the file lock itself. The content tells other processes who holds it and shows progress: one JSON object
//! without a line feed, e.g. `{"execId":"23633-5d1ff3a2","pctCplt":8369,"pid":23633,"sz":1356479,"szCplt":1135285}`
//! (source: pgBackRest `src/common/lock.c`).

use std::fmt;

use crate::json::{ObjectWriter, Reader};
use crate::layout::Stanza;
use crate::{Error, ErrorCode, Result};

/// The most bytes of a lock file that are worth reading.
pub const SIZE_MAX: usize = 64 << 10;

/// What a lock protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LockType {
    /// The archive: archive-push and archive-get in asynchronous mode.
    Archive,
    /// Backups: backup, expire, annotate.
    Backup,
    /// The data directory: restore.
    Restore,
}

impl LockType {
    /// Every type, in the order in which a command that needs all of them takes them.
    pub const ALL: [LockType; 3] = [LockType::Archive, LockType::Backup, LockType::Restore];

    /// The name in file names.
    pub fn name(self) -> &'static str {
        match self {
            LockType::Archive => "archive",
            LockType::Backup => "backup",
            LockType::Restore => "restore",
        }
    }
}

impl fmt::Display for LockType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Returns the name of the lock file for a stanza, type and repository number.
pub fn lock_name(stanza: &Stanza, kind: LockType, repo_key: u32) -> String {
    format!("{stanza}-{kind}-{repo_key}.lock")
}

/// Returns whether a file name is that of a lock of this stanza, or of any stanza. Versions before 2.56 omit the
/// repository number. `main-2-backup-1.lock` belongs to the stanza `main-2`, not to `main`.
pub fn is_lock_name(name: &str, stanza: Option<&Stanza>) -> bool {
    let Some(name) = name.strip_suffix(".lock") else { return false };
    let Some(stanza) = stanza else { return true };
    let Some(rest) = name.strip_prefix(stanza.as_str()).and_then(|rest| rest.strip_prefix('-')) else { return false };
    LockType::ALL.iter().any(|kind| match rest.strip_prefix(kind.name()) {
        Some("") => true,
        Some(key) => {
            key.strip_prefix('-').is_some_and(|key| !key.is_empty() && key.bytes().all(|b| b.is_ascii_digit()))
        }
        None => false,
    })
}

/// The stop file's name for a stanza, or for all.
pub fn stop_name(stanza: Option<&Stanza>) -> String {
    format!("{}.stop", stanza.map_or("all", Stanza::as_str))
}

/// The content of a lock file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockFile {
    /// The id that a process shares with the processes that it starts: `<pid>-<8 hex digits>`.
    pub exec_id: String,
    /// Progress in hundredths of a percent; 10000 means done.
    pub percent_complete: Option<u32>,
    /// The process id of the holder.
    pub process_id: i32,
    /// The total size in bytes.
    pub size: Option<u64>,
    /// The size done in bytes.
    pub size_complete: Option<u64>,
    /// When the copy began, in seconds since 1970. pgBackRest does not have it: its reader stops at the key before.
    pub begun: Option<u64>,
}

impl LockFile {
    /// Parses the content of a lock file.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`] or [`ErrorCode::Format`] if it is not valid.
    pub fn parse(content: &[u8]) -> Result<Self> {
        let text = content.get(..content.len().min(SIZE_MAX)).unwrap_or(content);
        let text = std::str::from_utf8(text).map_err(|_| Error::new(ErrorCode::Format, "lock file is not UTF-8"))?;
        let mut json = Reader::new(text);
        json.object_begin()?;
        json.key_require("execId")?;
        let exec_id = json.string()?.into_owned();
        let percent_complete = if json.key_expect("pctCplt")? { Some(json.u32()?) } else { None };
        json.key_require("pid")?;
        let process_id = json.i32()?;
        let size = if json.key_expect("sz")? { Some(json.u64()?) } else { None };
        let size_complete = if json.key_expect("szCplt")? { Some(json.u64()?) } else { None };
        let begun = if json.key_expect("tsBegin")? { Some(json.u64()?) } else { None };
        Ok(LockFile { exec_id, percent_complete, process_id, size, size_complete, begun })
    }

    /// The content to write.
    pub fn serialize(&self) -> String {
        let mut out = String::new();
        let mut json = ObjectWriter::new(&mut out);
        json.string("execId", &self.exec_id);
        if let Some(percent) = self.percent_complete {
            json.scalar("pctCplt", percent);
        }
        json.scalar("pid", self.process_id);
        if let Some(size) = self.size {
            json.scalar("sz", size);
        }
        if let Some(size) = self.size_complete {
            json.scalar("szCplt", size);
        }
        if let Some(begun) = self.begun {
            json.scalar("tsBegin", begun);
        }
        json.end();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lock_file_real_content_round_trips() -> Result<()> {
        let text = r#"{"execId":"23633-5d1ff3a2","pctCplt":8369,"pid":23633,"sz":1356479,"szCplt":1135285}"#;
        let lock = LockFile::parse(text.as_bytes())?;
        assert_eq!(lock.percent_complete, Some(8369));
        assert_eq!(lock.size_complete, Some(1_135_285));
        assert_eq!(lock.serialize(), text);
        Ok(())
    }

    #[test]
    fn lock_file_without_progress_round_trips() -> Result<()> {
        let text = r#"{"execId":"1-00000000","pid":1}"#;
        assert_eq!(LockFile::parse(text.as_bytes())?.serialize(), text);
        Ok(())
    }

    #[test]
    fn lock_file_damaged_is_an_error() {
        for content in
            [&b""[..], b"{", b"{}", b"{\"execId\":\"a\",\"pid\":\"1\"}", b"{\"execId\":1,\"pid\":1}", b"\xff"]
        {
            assert!(LockFile::parse(content).is_err());
        }
    }

    #[test]
    fn names_follow_stanza_type_and_key() -> Result<()> {
        let stanza: Stanza = "demo".parse()?;
        assert_eq!(lock_name(&stanza, LockType::Backup, 2), "demo-backup-2.lock");
        assert_eq!(stop_name(Some(&stanza)), "demo.stop");
        assert_eq!(stop_name(None), "all.stop");
        Ok(())
    }

    #[test]
    fn lock_name_of_a_stanza_that_begins_the_same_is_not_its_own() -> Result<()> {
        let stanza: Stanza = "main".parse()?;
        for name in ["main-backup-1.lock", "main-archive-256.lock", "main-restore.lock"] {
            assert!(is_lock_name(name, Some(&stanza)), "{name}");
            assert!(is_lock_name(name, None), "{name}");
        }
        for name in
            ["main-2-backup-1.lock", "main2-backup-1.lock", "main-backup-x.lock", "main-backup-.lock", "main-1.lock"]
        {
            assert!(!is_lock_name(name, Some(&stanza)), "{name}");
        }
        assert!(!is_lock_name("main-backup-1.txt", None));
        Ok(())
    }

    #[test]
    fn lock_file_filled_up_with_blanks_or_the_rest_of_a_longer_one_is_read() -> Result<()> {
        for rest in ["    ", "12,\"szCplt\":77}  "] {
            let lock = LockFile::parse(format!(r#"{{"execId":"1-0","pid":1,"sz":5,"szCplt":2}}{rest}"#).as_bytes())?;
            assert_eq!((lock.size, lock.size_complete), (Some(5), Some(2)));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn lock_file_any_values_round_trip(
            exec_id in "[^\0]{0,20}", percent in any::<Option<u32>>(), pid in any::<i32>(),
            sizes in any::<(Option<u64>, Option<u64>)>(), begun in any::<Option<u64>>()
        ) {
            let lock = LockFile {
                exec_id, percent_complete: percent, process_id: pid, size: sizes.0, size_complete: sizes.1, begun,
            };
            prop_assert_eq!(LockFile::parse(lock.serialize().as_bytes()).ok(), Some(lock));
        }

        #[test]
        fn lock_file_any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = LockFile::parse(&bytes);
        }
    }
}
