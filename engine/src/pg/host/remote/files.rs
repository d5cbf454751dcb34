//! The files of another host as a scan sees them.
//!
//! Source: pgBackRest `src/storage/remote/storage.c` (`storageRemoteInfo`, `storageRemoteList`).
//!
//! Lists of directories are asked for before they are needed, so that a scan does not wait for each. The number that is
//! on its way is limited, because an answer stays in memory until it is taken. The first lists are those of directories
//! that every data directory has.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use protocol::Call;
use protocol::storage::{
    FileInfoRequest, FileKind, Info, InfoAnswer, InfoDetail, InfoLevel, ListAnswer, ListRequest, OwnerInfo,
};

use crate::pg::data_dir::files::{Attributes, DirEntry, OwnerNames, PgFiles};
use crate::remote::{Connection, PendingAnswer, RemoteReader};
use crate::storage::EntryKind;
use crate::{Error, ErrorCode, Result};

/// The longest path that Linux accepts. A host must not have the scan descend without end.
const PATH_BYTES_MAX: usize = 4096;
/// Lists that are asked for before they are needed.
const LISTS_AHEAD_MAX: usize = 32;
/// Directories of every data directory that are listed, without those that may be links to many files.
const LISTED_FIRST: [&str; 10] = [
    "base",
    "global",
    "pg_logical",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_multixact",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_twophase",
    "pg_xact",
];

/// The files of another host.
pub(super) struct RemoteFiles {
    connection: Arc<Connection>,
    /// The owner of the entry before. Adjacent entries mostly have the same.
    owner_last: Arc<OwnerNames>,
    /// Directories whose list is on its way.
    asked: HashMap<String, PendingAnswer>,
    /// Directories to ask for, in the order in which they are needed.
    ahead: VecDeque<String>,
    /// The path whose attributes are on their way, and its answer.
    root: Option<(String, PendingAnswer)>,
}

impl RemoteFiles {
    /// Asks for what a scan of a data directory needs first.
    ///
    /// # Errors
    /// The error that ended the connection.
    pub(super) fn of_data_dir(connection: Arc<Connection>, pg_path: &str) -> Self {
        let owner_last = Arc::new(OwnerNames::default());
        let (asked, ahead) = (HashMap::new(), VecDeque::new());
        let mut files = RemoteFiles { connection, owner_last, asked, ahead, root: None };
        files.root = Some((pg_path.to_owned(), files.ask_info(pg_path, true)));
        files.ahead.push_back(pg_path.to_owned());
        files.ahead.extend(LISTED_FIRST.iter().map(|name| format!("{pg_path}/{name}")));
        files.ask_ahead();
        files
    }

    fn ask_info(&self, path: &str, follow_link: bool) -> PendingAnswer {
        self.connection.send(&Call::Info(FileInfoRequest { path, level: InfoLevel::Detail, follow_link }), None)
    }

    fn ask(&self, path: &str) -> PendingAnswer {
        self.connection.send(&Call::List(ListRequest { path, level: InfoLevel::Detail, target_time: 0 }), None)
    }

    fn ask_ahead(&mut self) {
        while self.asked.len() < LISTS_AHEAD_MAX
            && let Some(path) = self.ahead.pop_front()
        {
            if !self.asked.contains_key(&path) {
                let asked = self.ask(&path);
                self.asked.insert(path, asked);
            }
        }
    }

    fn attributes(&mut self, info: &Info<'_>) -> Result<Attributes> {
        let detail = detail(info)?;
        let (kind, size) = match info.kind {
            FileKind::File(size) => (EntryKind::File, size),
            FileKind::Path => (EntryKind::Path, 0),
            FileKind::Link => (EntryKind::Link, 0),
            FileKind::Special => (EntryKind::Special, 0),
        };
        let owner = self.owner(detail.user, detail.group);
        Ok(Attributes { kind, size, modified: info.modified, mode: (detail.mode & 0o777) as u16, owner })
    }

    fn owner(&mut self, user: OwnerInfo<'_>, group: OwnerInfo<'_>) -> Arc<OwnerNames> {
        let last = &self.owner_last;
        if last.user.as_deref() != user.name || last.group.as_deref() != group.name {
            let names = OwnerNames { user: user.name.map(str::to_owned), group: group.name.map(str::to_owned) };
            self.owner_last = Arc::new(names);
        }
        Arc::clone(&self.owner_last)
    }

    fn info_at(&mut self, path: &str, follow_link: bool) -> Result<Option<Attributes>> {
        let asked = match self.root.take_if(|(root, _)| follow_link && root == path) {
            Some((_, asked)) => asked,
            None => self.ask_info(path, follow_link),
        };
        let answer = asked.wait()?;
        let info = answer.read(|data| InfoAnswer::decode(data, InfoLevel::Detail))?.info;
        info.map(|info| answer.read(|_| self.attributes(&info))).transpose()
    }
}

fn detail<'a>(info: &Info<'a>) -> Result<InfoDetail<'a>> {
    info.detail.ok_or_else(|| Error::new(ErrorCode::Protocol, "details of a file are missing"))
}

impl PgFiles for RemoteFiles {
    fn list(&mut self, path: &str) -> Result<Option<Vec<DirEntry>>> {
        let asked = match self.asked.remove(path) {
            Some(asked) => asked,
            None => {
                // It must not be asked for again
                if let Some(index) = self.ahead.iter().position(|ahead| ahead == path) {
                    self.ahead.remove(index);
                }
                self.ask(path)
            }
        };
        self.ask_ahead();
        let answer = asked.wait()?;
        let Some(found) = answer.read(|data| ListAnswer::decode(data, InfoLevel::Detail))?.entries else {
            return Ok(None);
        };
        let mut entries = Vec::new();
        for entry in found {
            let entry =
                answer.read(|_| entry).map_err(|error| error.context(format!("unable to list path '{path}'")))?;
            let is_name = !matches!(entry.name, "" | "." | "..") && !entry.name.contains('/');
            if !is_name || path.len() + entry.name.len() >= PATH_BYTES_MAX {
                let text = format!("'{}' in the list of '{path}' is not a file name", entry.name);
                return answer.read(|_| Err(Error::new(ErrorCode::Protocol, text)));
            }
            let attributes = answer.read(|_| self.attributes(&entry.info))?;
            entries.push(DirEntry { name: entry.name.to_owned(), attributes });
        }
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(Some(entries))
    }

    fn lists_next(&mut self, paths: Vec<String>) -> Result<()> {
        for path in paths.into_iter().rev() {
            self.ahead.push_front(path);
        }
        self.ask_ahead();
        Ok(())
    }

    fn info(&mut self, path: &str) -> Result<Option<Attributes>> {
        self.info_at(path, false)
    }

    fn info_followed(&mut self, path: &str) -> Result<Option<Attributes>> {
        self.info_at(path, true)
    }

    fn link_destination(&mut self, link: &str) -> Result<Option<String>> {
        let answer = self.ask_info(link, false).wait()?;
        let Some(info) = answer.read(|data| InfoAnswer::decode(data, InfoLevel::Detail))?.info else { return Ok(None) };
        match answer.read(|_| detail(&info))?.link_target {
            Some(target) => Ok(Some(target.to_owned())),
            None => {
                let text = format!("unable to get destination for link '{link}'");
                Err(Error::new(ErrorCode::FileRead, text))
            }
        }
    }
}

/// Opens a file; `None` if it is missing.
pub(super) fn read_plain(connection: &Arc<Connection>, path: &str) -> Result<Option<RemoteReader>> {
    RemoteReader::open(connection, path, 0, None)
}
