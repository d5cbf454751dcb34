//! The holder of a claim, and whether its process is dead.

use std::fs;

use repo_format::claim::Holder;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// The file in which Linux shows the id of the boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// The link in which it shows the namespace of process ids.
const PROCESS_NAMESPACE: &str = "/proc/self/ns/pid";

/// What is known about the process that holds a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is running.
    Runs,
    /// It is dead.
    Gone,
    /// It is, or was, on a host whose processes can't be checked from here.
    Unknown,
}

/// The calling process.
pub fn this_process() -> Holder {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default();
    let namespace = fs::read_link(PROCESS_NAMESPACE).map(|path| path.to_string_lossy().into_owned());
    let process_id = rustix::process::getpid().as_raw_nonzero().get();
    Holder {
        boot: read(BOOT_ID),
        host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        process_id,
        process_namespace: namespace.unwrap_or_default(),
        process_start: Stat::of(process_id).map_or(0, |stat| stat.start),
    }
}

/// Returns the fate of the process that holds a claim, as seen by `me`.
///
/// Only processes of the same boot of the same host, and of the same namespace of process ids, can be judged. An equal
/// host name proves nothing: containers may share it, or take it to another host.
pub(crate) fn fate(holder: &Holder, me: &Holder) -> Fate {
    let place = |of: &Holder| (of.boot.clone(), of.host.clone(), of.process_namespace.clone());
    if holder.boot.is_empty() || holder.process_namespace.is_empty() || place(holder) != place(me) {
        return Fate::Unknown;
    }
    if holder == me {
        // This process has one claim at a time: an earlier one could not be removed
        return Fate::Gone;
    }
    let Some(pid) = Pid::from_raw(holder.process_id) else { return Fate::Unknown };
    if test_kill_process(pid) == Err(Errno::SRCH) {
        return Fate::Gone;
    }
    match Stat::of(holder.process_id) {
        Some(stat) if stat.ended || (holder.process_start != 0 && stat.start != holder.process_start) => Fate::Gone,
        // It exists, although its details may be hidden
        _ => Fate::Runs,
    }
}

/// Linux's information about a process.
struct Stat {
    ended: bool,
    start: u64,
}

impl Stat {
    fn of(process_id: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{process_id}/stat")).ok()?)
    }

    /// Parses `pid (name) state ... starttime ...`. The name may contain anything, so fields count from its last
    /// parenthesis.
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // Zombies do nothing any more
        let ended = matches!(*fields.first()?, "Z" | "X");
        Some(Stat { ended, start: fields.get(19)?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_behind_any_name() {
        let rest = "1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        for (name, state, ended) in [("rbr", "S", false), ("a) R (b", "R", false), ("x", "Z", true)] {
            let stat = Stat::parse(&format!("12 ({name}) {state} {rest}")).unwrap();
            assert_eq!((stat.start, stat.ended), (4711, ended), "{name}");
        }
        assert!(Stat::parse("12 (rbr) S 1").is_none() && Stat::parse("").is_none());
    }

    #[test]
    fn fate_of_a_process_of_this_host_is_known_and_of_any_other_is_not() {
        let me = this_process();
        assert!(me.process_start > 0 && !me.boot.is_empty() && !me.process_namespace.is_empty());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process_id = i32::try_from(child.id()).unwrap();
        let runs = Holder { process_id, process_start: Stat::of(process_id).unwrap().start, ..me.clone() };
        assert_eq!(fate(&runs, &me), Fate::Runs);
        // Another process has got the id since
        assert_eq!(fate(&Holder { process_start: runs.process_start + 1, ..runs.clone() }, &me), Fate::Gone);
        for elsewhere in [
            Holder { boot: "other".into(), ..runs.clone() },
            Holder { boot: String::new(), ..runs.clone() },
            Holder { host: "other".into(), ..runs.clone() },
            Holder { process_namespace: "pid:[1]".into(), ..runs.clone() },
            Holder { process_namespace: String::new(), ..runs.clone() },
        ] {
            assert_eq!(fate(&elsewhere, &me), Fate::Unknown, "{elsewhere:?}");
        }
        child.kill().unwrap();
        // Killed, but not waited for yet
        while Stat::of(process_id).is_some_and(|stat| !stat.ended) {
            std::thread::yield_now();
        }
        assert_eq!(fate(&runs, &me), Fate::Gone);
        child.wait().unwrap();
        assert_eq!(fate(&runs, &me), Fate::Gone);
        assert_eq!(fate(&me, &me), Fate::Gone);
    }
}
