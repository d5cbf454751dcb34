//! The names of files until they are complete, and what becomes of those that never are.
//!
//! Every writer has a name of its own: two processes that write the same file, on one host or on several, then never write
//! into each other's, and who renames gives the final name to the bytes that it wrote itself. The names end as pgBackRest's
//! do, and no listing of either program takes one for a file that it looks for.
//!
//! A process that is killed leaves its file behind. The name tells who wrote it, so that a later run can tell a file that
//! nobody writes any more from one that is being written ([`sweep`]).

use std::borrow::Cow;
use std::process;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use repo_format::hash::Sha1;
use repo_format::layout::{RepoPath, TEMP_SUFFIX};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::RepoStorage;
use crate::debug;

/// A file of a process that can't be asked for is taken for abandoned after this long without a change.
const ABANDONED_AFTER_S: i64 = 24 * 60 * 60;
/// Hex digits of a [`domain`].
const DOMAIN_SIZE: usize = 12;

/// A new name for a file, or path of a file, until it is complete.
pub(crate) fn name(of: &str) -> String {
    let of = match of.strip_suffix(".history") {
        // pgBackRest searches for timelines by a part of the name, and would fail to read this one
        Some(timeline) => format!("{timeline}-history").into(),
        None => Cow::from(of),
    };
    format!("{of}.{}-{:x}-{:08x}{TEMP_SUFFIX}", domain(), process::id(), random() as u32)
}

/// Removes those of these names in a directory that are of writers which ended without finishing: processes that are gone, or
/// files that nobody changed for a day before `written` was. That is a file that this process wrote or found there, so that the
/// server's clock alone counts; without it the first rule stands alone. What can't be removed stays for the next run.
pub fn sweep<'a>(
    storage: &dyn RepoStorage,
    directory: &RepoPath,
    names: impl IntoIterator<Item = &'a str>,
    written: Option<&RepoPath>,
) {
    let mut now = None;
    for name in names {
        let Some(writer) = Writer::of(name) else { continue };
        let Ok(path) = directory.join(name) else { continue };
        let is_abandoned = match writer.is_gone() {
            Some(is_gone) => is_gone,
            None => {
                let modified = |path: &RepoPath| storage.info(path).ok().flatten().map(|entry| entry.modified);
                let now = *now.get_or_insert_with(|| written.and_then(modified));
                now.zip(modified(&path)).is_some_and(|(now, modified)| now - modified > ABANDONED_AFTER_S)
            }
        };
        if is_abandoned {
            match storage.remove(&path) {
                Ok(()) => debug!("removed unfinished file '{}'", storage.display(&path)),
                Err(error) => debug!("{error}"),
            }
        }
    }
}

/// Whose temporary file one is.
struct Writer<'a> {
    domain: &'a str,
    process: Option<Pid>,
}

impl<'a> Writer<'a> {
    /// By the file's name; `None` if it is not temporary. That of pgBackRest does not tell.
    fn of(name: &'a str) -> Option<Self> {
        let name = name.strip_suffix(TEMP_SUFFIX)?;
        let mut parts = name.rsplit_once('.').map_or("", |(_, writer)| writer).split('-');
        let (domain, process) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let process = i32::from_str_radix(process, 16).ok().and_then(Pid::from_raw);
        Some(Writer { domain, process })
    }

    /// Whether its process has ended, if that can be told.
    fn is_gone(&self) -> Option<bool> {
        if self.domain.len() != DOMAIN_SIZE || self.domain != domain() {
            return None;
        }
        match test_kill_process(self.process?) {
            Err(Errno::SRCH) => Some(true),
            // Also where another's process may not be asked for, or has taken the number since
            _ => None,
        }
    }
}

/// What tells within which a number stands for one process: this boot of this machine, and its namespace of processes.
fn domain() -> &'static str {
    static DOMAIN: OnceLock<String> = OnceLock::new();
    DOMAIN.get_or_init(|| {
        let boot = std::fs::read("/proc/sys/kernel/random/boot_id");
        let namespace = std::fs::read_link("/proc/self/ns/pid");
        let mut hex = match (boot, namespace) {
            (Ok(mut id), Ok(namespace)) => {
                id.extend(namespace.as_os_str().as_encoded_bytes());
                Sha1::of(&id).to_string()
            }
            // If it is unknown, a random one, so that nobody takes the process for one that can be checked
            _ => format!("{:016x}", random()),
        };
        hex.truncate(DOMAIN_SIZE);
        hex
    })
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        // A system without random numbers. Files are created exclusively, so a duplicate name is detected
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::time::Duration;

    use super::*;
    use crate::storage::posix::PosixStorage;

    /// A name whose writer is a process that has ended.
    fn of_ended_process(of: &str) -> String {
        let mut child = process::Command::new("true").spawn().unwrap();
        let name = format!("{of}.{}-{:x}-00000000{TEMP_SUFFIX}", domain(), child.id());
        child.wait().unwrap();
        name
    }

    #[test]
    fn names_of_two_writers_differ_and_are_within_the_limit_of_file_systems() {
        let of = "000000010000000000000001.partial-da39a3ee5e6b4b0d3255bfef95601890afd80709.lz4";
        let (first, second) = (name(of), name(of));
        assert_ne!(first, second);
        assert!(first.starts_with(of) && first.ends_with(TEMP_SUFFIX) && first.len() < 160, "{first}");
        assert!(Writer::of(&first).unwrap().process.is_some());
    }

    #[test]
    fn name_of_a_timelines_history_is_none_that_pgbackrest_looks_for() {
        let name = name("archive/demo/17-1/00000002.history");
        assert!(name.starts_with("archive/demo/17-1/00000002-history.") && name.ends_with(TEMP_SUFFIX), "{name}");
        assert!(Writer::of(&name).unwrap().process.is_some());
    }

    #[test]
    fn sweep_removes_files_of_ended_processes_and_of_others_after_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, age_hours: u64| {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age_hours * 3600)).unwrap();
            name.to_owned()
        };
        let ended = make(&of_ended_process("backup.info"), 0);
        // On another host, or pgBackRest's
        let other = make(&format!("backup.info.0123456789ab-1-00000000{TEMP_SUFFIX}"), 23);
        let other_old = make(&format!("backup.info.0123456789ab-2-00000000{TEMP_SUFFIX}"), 25);
        let plain = make(&format!("archive.info{TEMP_SUFFIX}"), 0);
        let plain_old = make(&format!("backup.info{TEMP_SUFFIX}"), 25);
        // A writer that was stopped for a day is still one
        let own = make(&name("backup.info"), 23);
        make("backup.info", 0);
        make("unfinished", 99);
        let names = [ended, other.clone(), other_old, plain.clone(), plain_old, own.clone(), "unfinished".to_owned()];
        let storage = PosixStorage::new(dir.path());
        let written = RepoPath::new("backup.info").unwrap();
        sweep(&storage, &RepoPath::root(), names.iter().map(String::as_str), Some(&written));
        let mut left: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        let mut expected = vec![other, plain, own, "backup.info".to_owned(), "unfinished".to_owned()];
        left.sort();
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn sweep_without_a_clock_leaves_what_it_can_not_judge() {
        let dir = tempfile::tempdir().unwrap();
        let name = format!("backup.info{TEMP_SUFFIX}");
        fs::write(dir.path().join(&name), "").unwrap();
        let storage = PosixStorage::new(dir.path());
        sweep(&storage, &RepoPath::root(), [name.as_str()], None);
        assert!(dir.path().join(name).exists());
    }
}
