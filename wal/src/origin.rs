//! Which boot of the machine and which cluster the files of a queue belong to.
//!
//! Nothing in the `in` queue is synced. A prefetched segment stays there for seconds, and a sync would write each one
//! to a disk that PostgreSQL needs for its recovery. After a crash of the machine, however, a file may have its name
//! and size but not its content, or a status file may exist without its segment. Also, every new cluster begins with
//! the same segment names, so a segment may belong to a cluster that used the spool before.
//!
//! For these reasons the queue holds an empty mark file, whose name contains the boot and the cluster that the queue
//! was started for. Without its mark, nothing in the queue is trusted, including what another program has left there.

use engine::Result;

use crate::spool::Spool;

/// The file in which Linux provides the boot id.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The prefix of the marks' names.
const MARK_PREFIX: &str = "boot.";
/// Replaces the boot id if the system does not provide one.
const UNKNOWN: &str = "unknown";

/// The mark of a cluster since the current boot of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolOrigin {
    mark: String,
    is_boot_known: bool,
}

impl SpoolOrigin {
    /// Creates the mark of the cluster with this system identifier.
    pub fn of(system_id: u64) -> Self {
        Self::from_ids(std::fs::read_to_string(BOOT_ID).ok().as_deref(), system_id)
    }

    fn from_ids(boot: Option<&str>, system_id: u64) -> Self {
        let is_id = |id: &&str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        let boot = boot.map(str::trim).filter(is_id);
        let mark = format!("{MARK_PREFIX}{}.{system_id}", boot.unwrap_or(UNKNOWN));
        SpoolOrigin { mark, is_boot_known: boot.is_some() }
    }

    /// Returns whether files must be synced before they get their names, because the boot is unknown and a mark may be
    /// from before a crash.
    pub fn needs_sync(&self) -> bool {
        !self.is_boot_known
    }

    /// Returns whether `name` is the name of this mark.
    pub fn is_mark(&self, name: &str) -> bool {
        self.mark == name
    }

    /// Returns whether the files in the queue can be trusted.
    ///
    /// # Errors
    /// [`engine::ErrorCode::FileOpen`] if the mark can't be examined.
    pub fn is_of(&self, spool: &Spool) -> Result<bool> {
        spool.exists(&self.mark)
    }

    /// Empties the queue and creates the mark.
    ///
    /// # Errors
    /// Errors of listing, removing and writing.
    pub fn begin(&self, spool: &Spool) -> Result<()> {
        for name in spool.list()? {
            spool.remove(&name)?;
        }
        spool.write(&self.mark, &[])
    }
}

#[cfg(test)]
mod tests {
    use repo_format::spool::SpoolQueue;

    use super::*;

    #[test]
    fn queue_of_another_boot_or_cluster_is_not_believed_until_it_is_begun_anew() {
        let dir = tempfile::tempdir().expect("dir");
        let spool = Spool::new(dir.path(), &"demo".parse().expect("stanza"), SpoolQueue::In);
        spool.create().expect("create");
        let first = SpoolOrigin::from_ids(Some("1-a\n"), 7);
        assert!(!first.is_of(&spool).expect("no mark"));
        first.begin(&spool).expect("begin");
        spool.write_ok("000000010000000000000001", &[]).expect("state");
        assert!(first.is_of(&spool).expect("marked"));
        for other in [SpoolOrigin::from_ids(Some("2-b\n"), 7), SpoolOrigin::from_ids(Some("1-a"), 8)] {
            assert!(!other.is_of(&spool).expect("other mark"));
        }
        let now = SpoolOrigin::from_ids(Some("2-b\n"), 8);
        now.begin(&spool).expect("begin");
        assert_eq!(spool.list().expect("list"), ["boot.2-b.8"]);
        assert!(now.is_of(&spool).expect("marked") && !first.is_of(&spool).expect("gone"));
        assert!(now.is_mark("boot.2-b.8") && !now.is_mark("boot.1-a.7"));
    }

    #[test]
    fn boot_is_known_here_and_files_are_synced_where_it_is_not() {
        assert!(!SpoolOrigin::of(1).needs_sync());
        assert_eq!(SpoolOrigin::of(1), SpoolOrigin::of(1));
        for id in [None, Some(""), Some("\n"), Some("../x")] {
            let origin = SpoolOrigin::from_ids(id, 1);
            assert!(origin.needs_sync() && origin.is_mark("boot.unknown.1"), "{id:?}");
        }
    }
}
