//! The table of all options, assembled from the files below at compile time.

mod archive;
mod backup;
mod command_line;
mod daemon;
mod general;
mod log;
mod output;
mod own;
mod pg;
mod process;
mod repo;
mod repo_bundle;
mod repo_format;
mod repo_host;
mod repo_retention;
mod repo_s3;
mod repo_store;
mod restore;
mod server;
mod throttle;

use crate::config::decl::Command::{
    ArchiveGet, ArchivePush, Backup, Check, Daemon, Help, Init, Manifest, Metrics, RecoveryPoints, Restore, Schedule,
    Server, ServerPing, StanzaCreate, StanzaDelete, StanzaUpgrade, Start, Stop, TestRestore, Verify, Version,
};
use crate::config::decl::{COMMANDS, Command, CommandSet, OptionDecl, on};

/// The handle of every option, under its upper-case name.
pub mod opt {
    pub use super::archive::*;
    pub use super::backup::*;
    pub use super::command_line::*;
    pub use super::daemon::*;
    pub use super::general::*;
    pub use super::log::*;
    pub use super::output::*;
    pub use super::own::*;
    pub use super::pg::*;
    pub use super::process::*;
    pub use super::repo::*;
    pub use super::repo_bundle::*;
    pub use super::repo_format::*;
    pub use super::repo_host::*;
    pub use super::repo_retention::*;
    pub use super::repo_s3::*;
    pub use super::repo_store::*;
    pub use super::restore::*;
    pub use super::server::*;
    pub use super::throttle::*;
}

/// Every command but help and version.
const EVERY: CommandSet = {
    let mut all = [Command::Help; COMMANDS.len()];
    let mut index = 0;
    while index < all.len() {
        all[index] = COMMANDS[index].command;
        index += 1;
    }
    on(&all).without(&[Help, Version])
};
/// Commands that read or write data.
const WITH_IO: CommandSet = EVERY.without(&[Start, Stop]);
/// Commands that access a repository.
const STANZA_AND_REPO: CommandSet = WITH_IO.without(&[Daemon, Metrics, Schedule, Server, ServerPing]);
/// Commands that may access a repository on another host.
const WITH_REPO_HOST: CommandSet = STANZA_AND_REPO.without(&[Init]);
/// Commands that use workers.
const WITH_WORKERS: CommandSet = on(&[ArchiveGet, ArchivePush, Backup, RecoveryPoints, Restore, TestRestore, Verify]);
/// Commands that access a PostgreSQL data directory.
const WITH_PG_DATA: CommandSet = WITH_PG_HOST.with(&[ArchiveGet, ArchivePush, Restore]);
/// Commands that may access a PostgreSQL data directory on another host.
const WITH_PG_HOST: CommandSet = WITH_PG_SESSION.with(&[Manifest]);
/// Commands that connect to a PostgreSQL server.
const WITH_PG_SESSION: CommandSet = on(&[Backup, Check, StanzaCreate, StanzaDelete, StanzaUpgrade]);

/// Protocols to another host.
const PROTOCOLS: &[(&str, &str)] = &[("ssh", "a command started over SSH"), ("tls", "the server command of the host")];

const TABLES: [&[&OptionDecl]; 20] = [
    archive::TABLE,
    backup::TABLE,
    command_line::TABLE,
    daemon::TABLE,
    general::TABLE,
    log::TABLE,
    output::TABLE,
    own::TABLE,
    pg::TABLE,
    process::TABLE,
    repo::TABLE,
    repo_bundle::TABLE,
    repo_format::TABLE,
    repo_host::TABLE,
    repo_retention::TABLE,
    repo_s3::TABLE,
    repo_store::TABLE,
    restore::TABLE,
    server::TABLE,
    throttle::TABLE,
];

/// The number of options.
pub const COUNT: usize = {
    let mut count = 0;
    let mut table = 0;
    while table < TABLES.len() {
        count += TABLES[table].len();
        table += 1;
    }
    count
};

/// The position of an option in [`ALL`].
pub type OptionIndex = usize;

/// Every option, sorted by name.
pub static ALL: [&OptionDecl; COUNT] = SORTED;

const SORTED: [&OptionDecl; COUNT] = {
    let mut all = [&OptionDecl::BASE; COUNT];
    let mut count = 0;
    let mut table = 0;
    while table < TABLES.len() {
        let mut from = 0;
        while from < TABLES[table].len() {
            // Insertion into the sorted part; the tables are nearly sorted, so few entries move
            let decl = TABLES[table][from];
            let mut at = count;
            while at > 0 && is_less(decl.name, all[at - 1].name) {
                all[at] = all[at - 1];
                at -= 1;
            }
            all[at] = decl;
            count += 1;
            from += 1;
        }
        table += 1;
    }
    all
};

/// Returns whether `a < b` by bytes, which strings do not support in constants.
const fn is_less(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut index = 0;
    while index < a.len() && index < b.len() {
        if a[index] != b[index] {
            return a[index] < b[index];
        }
        index += 1;
    }
    a.len() < b.len()
}

/// The index of the option of exactly this name.
pub fn find(name: &str) -> Option<OptionIndex> {
    ALL.binary_search_by(|decl| decl.name.cmp(name)).ok()
}

/// Returns the index of the option in the sorted table, as a constant.
const fn position(name: &str) -> usize {
    let (mut low, mut high) = (0, COUNT);
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if is_less(name, SORTED[middle].name) { high = middle } else { low = middle }
    }
    assert!(!is_less(SORTED[low].name, name), "a dependency names an option that does not exist");
    low
}

/// Options in the order in which they are resolved: each after those that it depends on, otherwise by name, in as many
/// rounds as necessary. The stanza comes first, because a missing stanza is a better error than its consequences.
pub static RESOLVE_ORDER: [u16; COUNT] = {
    let mut order = [0u16; COUNT];
    let mut done = [false; COUNT];
    let stanza = position("stanza");
    order[0] = stanza as u16;
    done[stanza] = true;
    let mut count = 1;
    // Our own options come before all others, so that an option that depends on one of them is not resolved later than
    // pgBackRest resolves it
    let mut index = 0;
    while index < COUNT {
        if SORTED[index].own && dependencies_done(SORTED[index], &done) {
            done[index] = true;
            order[count] = index as u16;
            count += 1;
        }
        index += 1;
    }
    while count < COUNT {
        let before = count;
        let mut index = 0;
        while index < COUNT {
            if !done[index] && dependencies_done(SORTED[index], &done) {
                done[index] = true;
                order[count] = index as u16;
                count += 1;
            }
            index += 1;
        }
        assert!(count > before, "options depend on each other in a circle");
    }
    order
};

const fn dependencies_done(decl: &OptionDecl, done: &[bool; COUNT]) -> bool {
    if let Some(depend) = &decl.depend
        && !done[position(depend.option)]
    {
        return false;
    }
    let mut index = 0;
    while index < decl.overrides.len() {
        if let Some(depend) = &decl.overrides[index].depend
            && !done[position(depend.option)]
        {
            return false;
        }
        index += 1;
    }
    true
}

/// An old name of an option.
#[derive(Clone, Copy, Debug)]
pub struct Deprecated {
    /// The name without an index.
    pub name: &'static str,
    /// The option.
    pub option: OptionIndex,
    /// Whether the name may be written with an index.
    pub indexed: bool,
    /// Whether the name may be written without an index.
    pub unindexed: bool,
}

/// Finds a deprecated name: the one that equals the text, otherwise with `prefix` the only one that begins with it.
/// Deprecated names are rare, so this searches the declarations and not a table of its own.
pub fn find_deprecated(name: &str, prefix: bool) -> Option<Deprecated> {
    let mut found: Option<Deprecated> = None;
    let mut starting: Option<Deprecated> = None;
    let mut ambiguous = false;
    for (option, decl) in ALL.iter().enumerate() {
        for pattern in decl.deprecated {
            let (head, tail) = pattern.split_once('?').unwrap_or((pattern, ""));
            let indexed = head.len() < pattern.len();
            let spelled = Deprecated { name: "", option, indexed, unindexed: !indexed };
            let starts = |start: &str| {
                if start.len() <= head.len() {
                    head.starts_with(start)
                } else {
                    start.starts_with(head) && tail.starts_with(&start[head.len()..])
                }
            };
            if !starts(name) {
                continue;
            }
            let complete = name.len() == head.len() + tail.len();
            let slot = if complete { &mut found } else { &mut starting };
            match slot {
                // The same name with and without the index
                Some(known) if known.option == option && same_spelling(known.name, head, tail) => {
                    known.indexed |= spelled.indexed;
                    known.unindexed |= spelled.unindexed;
                }
                Some(_) => ambiguous |= !complete,
                None => *slot = Some(Deprecated { name: pattern, ..spelled }),
            }
        }
    }
    match found {
        Some(found) => Some(found),
        None if prefix && !ambiguous => starting,
        None => None,
    }
}

/// Returns whether a pattern without its `?` consists of these two parts.
fn same_spelling(pattern: &str, head: &str, tail: &str) -> bool {
    pattern.bytes().filter(|&byte| byte != b'?').eq(head.bytes().chain(tail.bytes()))
}

#[cfg(test)]
mod tests;
