//! Claims: files in a repository that show every host that a command is running.
//!
//! Only processes of one host see its lock files. A claim is a small file in the stanza's backup directory, with a
//! second one in the directory of the backup in progress. pgBackRest ignores claims: its listings look for labels and
//! info files. Like the content of lock files, the content is one JSON object without a line feed.

use crate::json::{ObjectWriter, Reader};
use crate::label::BackupLabel;
use crate::layout::{self, RepoPath, Stanza, TEMP_SUFFIX};
use crate::{Error, ErrorCode, Result};

/// The prefix of claim names. The id of the process follows.
pub const CLAIM_PREFIX: &str = "backup.claim.";

/// The suffix of the version in `backup.manifest.copy` while the backup runs. pgBackRest resumes only backups of its
/// own version, so this keeps it from writing into a directory that another process writes to.
pub const RUNNING_SUFFIX: &str = "+running";

/// The most bytes of a claim that are worth reading.
pub const SIZE_MAX: u64 = 64 << 10;

/// Returns the path of a process's claim on a stanza.
///
/// # Errors
/// [`ErrorCode::Format`] if the id cannot be part of a name.
pub fn stanza_claim(stanza: &Stanza, exec_id: &str) -> Result<RepoPath> {
    layout::backup_stanza(stanza).join(&format!("{CLAIM_PREFIX}{exec_id}"))
}

/// Returns the path of a process's claim on the directory of a backup.
///
/// # Errors
/// [`ErrorCode::Format`] if the id cannot be part of a name.
pub fn backup_claim(stanza: &Stanza, label: &BackupLabel, exec_id: &str) -> Result<RepoPath> {
    layout::backup_path(stanza, label).join(&format!("{CLAIM_PREFIX}{exec_id}"))
}

/// Returns the id of the process whose claim has this name; `None` for any other name.
pub fn claimant(name: &str) -> Option<&str> {
    name.strip_prefix(CLAIM_PREFIX).filter(|id| !id.is_empty() && !id.ends_with(TEMP_SUFFIX))
}

/// The process that holds a claim. A field is empty or 0 if the process could not determine it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Id of the host's boot.
    pub boot: String,
    /// Host name.
    pub host: String,
    /// Process id.
    pub process_id: i32,
    /// The namespace that the process id is of.
    pub process_namespace: String,
    /// When the process started, in ticks since the boot. It distinguishes the process from a later one with the same
    /// id.
    pub process_start: u64,
}

/// The content of a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimFile {
    /// How often the claim was renewed. Other processes watch it for changes.
    pub beat: u64,
    /// The command that runs.
    pub command: String,
    /// The process that holds the claim.
    pub holder: Holder,
    /// When the command started, by the clock of its host. Only shown to people.
    pub since: String,
}

impl ClaimFile {
    /// Parses a claim's content.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`] or [`ErrorCode::Format`] if it is not a claim.
    pub fn parse(content: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(content).map_err(|_| Error::new(ErrorCode::Format, "claim is not UTF-8"))?;
        let mut json = Reader::new(text);
        let mut claim = ClaimFile::default();
        json.object_begin()?;
        json.key_require("beat")?;
        claim.beat = json.u64()?;
        json.key_require("boot")?;
        claim.holder.boot = json.string()?.into_owned();
        json.key_require("command")?;
        claim.command = json.string()?.into_owned();
        json.key_require("host")?;
        claim.holder.host = json.string()?.into_owned();
        json.key_require("pid")?;
        claim.holder.process_id = json.i32()?;
        json.key_require("pidNamespace")?;
        claim.holder.process_namespace = json.string()?.into_owned();
        json.key_require("pidStart")?;
        claim.holder.process_start = json.u64()?;
        json.key_require("since")?;
        claim.since = json.string()?.into_owned();
        Ok(claim)
    }

    /// The content to write.
    pub fn serialize(&self) -> String {
        let mut out = String::new();
        let mut json = ObjectWriter::new(&mut out);
        json.scalar("beat", self.beat);
        json.string("boot", &self.holder.boot);
        json.string("command", &self.command);
        json.string("host", &self.holder.host);
        json.scalar("pid", self.holder.process_id);
        json.string("pidNamespace", &self.holder.process_namespace);
        json.scalar("pidStart", self.holder.process_start);
        json.string("since", &self.since);
        json.end();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn claims_are_known_by_their_names() -> Result<()> {
        let stanza: Stanza = "demo".parse()?;
        let label: BackupLabel = "20260101-000000F".parse()?;
        assert_eq!(stanza_claim(&stanza, "7-0a")?.as_str(), "backup/demo/backup.claim.7-0a");
        assert_eq!(backup_claim(&stanza, &label, "7-0a")?.as_str(), "backup/demo/20260101-000000F/backup.claim.7-0a");
        assert_eq!(claimant("backup.claim.7-0a"), Some("7-0a"));
        for other in
            ["backup.claim.", "backup.claim", "backup.claim.7.pgbackrest.tmp", "backup.info", "20260101-000000F"]
        {
            assert_eq!(claimant(other), None, "{other}");
        }
        Ok(())
    }

    #[test]
    fn claim_damaged_is_an_error() {
        for content in [&b""[..], b"{", b"{}", b"{\"beat\":1}", b"{\"beat\":\"1\"}", b"\xff"] {
            assert!(ClaimFile::parse(content).is_err());
        }
    }

    proptest! {
        #[test]
        fn claim_any_values_round_trip(
            beat in any::<u64>(), texts in prop::array::uniform4("[^\0]{0,20}"), pid in any::<i32>(), start in any::<u64>()
        ) {
            let [boot, command, host, since] = texts;
            let holder = Holder { process_namespace: host.clone(), boot, host, process_id: pid, process_start: start };
            let claim = ClaimFile { beat, command, holder, since };
            prop_assert_eq!(ClaimFile::parse(claim.serialize().as_bytes()).ok(), Some(claim));
        }

        #[test]
        fn claim_any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = ClaimFile::parse(&bytes);
        }
    }
}
