//! From which boot of the machine the files of a queue are.
//!
//! Nothing in the spool is synced: a segment fetched ahead lives there for seconds, and a sync would have every one written to a
//! disk that PostgreSQL needs for its recovery. After a crash of the machine, though, a file may have its name and size but not
//! its content, or a state may be there without its segment. So the queue holds an empty file that is named after the boot in
//! which the queue was begun. Without it nothing there is believed, also not what another program has left.

use engine::Result;

use crate::spool::Spool;

/// Where Linux tells the id of the boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// What the names of marks begin with.
const MARK_PREFIX: &str = "boot.";

/// The mark of the machine's current boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot(Option<String>);

impl Boot {
    /// Asks the system. Where it does not tell, nothing can be marked: there, files have to be synced.
    pub fn current() -> Self {
        Self::from_id(std::fs::read_to_string(BOOT_ID).ok().as_deref())
    }

    fn from_id(id: Option<&str>) -> Self {
        let is_id = |id: &&str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        Boot(id.map(str::trim).filter(is_id).map(|id| format!("{MARK_PREFIX}{id}")))
    }

    /// Whether files must be synced before they get their names.
    pub fn is_unknown(&self) -> bool {
        self.0.is_none()
    }

    /// Whether a name is that of the mark.
    pub fn is_mark(&self, name: &str) -> bool {
        self.0.as_deref() == Some(name)
    }

    /// Whether all that is in the queue can be believed.
    ///
    /// # Errors
    /// [`engine::ErrorCode::FileOpen`] when that can't be told.
    pub fn is_of(&self, spool: &Spool) -> Result<bool> {
        match &self.0 {
            Some(mark) => spool.exists(mark),
            None => Ok(true),
        }
    }

    /// Empties the queue and marks it.
    ///
    /// # Errors
    /// Those of listing, removing and writing.
    pub fn begin(&self, spool: &Spool) -> Result<()> {
        for name in spool.list()? {
            spool.remove(&name)?;
        }
        match &self.0 {
            Some(mark) => spool.write(mark, &[]),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use repo_format::spool::SpoolQueue;

    use super::*;

    #[test]
    fn queue_of_another_boot_is_not_believed_until_it_is_begun_anew() {
        let dir = tempfile::tempdir().expect("dir");
        let spool = Spool::new(dir.path(), &"demo".parse().expect("stanza"), SpoolQueue::In);
        spool.create().expect("create");
        let (before, now) = (Boot::from_id(Some("1-a\n")), Boot::from_id(Some("2-b\n")));
        assert!(!before.is_of(&spool).expect("no mark"));
        before.begin(&spool).expect("begin");
        spool.write_ok("000000010000000000000001", &[]).expect("state");
        assert!(before.is_of(&spool).expect("marked"));
        assert!(!now.is_of(&spool).expect("other mark"));
        now.begin(&spool).expect("begin");
        assert_eq!(spool.list().expect("list"), ["boot.2-b"]);
        assert!(now.is_of(&spool).expect("marked") && !before.is_of(&spool).expect("gone"));
        assert!(now.is_mark("boot.2-b") && !now.is_mark("boot.1-a"));
    }

    #[test]
    fn boot_is_known_here_and_unknown_without_an_id() {
        assert!(!Boot::current().is_unknown());
        assert_eq!(Boot::current(), Boot::current());
        for id in [None, Some(""), Some("\n"), Some("../x")] {
            assert!(Boot::from_id(id).is_unknown(), "{id:?}");
        }
    }
}
