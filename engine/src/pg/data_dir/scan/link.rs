//! Symbolic links in a data directory: to tablespaces, and links that users created.

use std::collections::HashMap;
use std::time::Duration;

use repo_format::manifest::{PG_DATA, PG_TBLSPC, pg_path};

use super::{
    Dir, DirEntry, ScannedLink, ScannedPath, ScannedTarget, Scanner, ServerTablespace, check_line, missing_info,
};
use crate::storage::EntryKind;
use crate::{Error, ErrorCode, Result};

/// How often to look for a tablespace that is being created or dropped.
const TABLESPACE_TRIES_MAX: u32 = 20;
/// The pause before looking again.
const TABLESPACE_PAUSE: Duration = Duration::from_millis(100);

impl Scanner<'_> {
    /// Adds a symbolic link and continues with its destination.
    pub(super) fn link(&mut self, dir: &Dir<'_>, name: String, entry: &DirEntry) -> Result<()> {
        let link_path = format!("{}/{}", dir.path, entry.name);
        // Looked up before anything is recorded: a tablespace that was dropped since the listing does not exist
        let tablespace = match dir.has_tablespaces() {
            true => match self.tablespace(&link_path, &entry.name)? {
                Some(tablespace) => Some(tablespace),
                None => return Ok(()),
            },
            false => None,
        };
        let Some(destination) = self.files.link_destination(&link_path)? else { return Ok(()) };
        check_line(&destination, &link_path)?;
        let absolute = absolute_path(&destination, dir.path)?;
        if self.files.info(&absolute)?.is_some_and(|found| found.kind == EntryKind::Link) {
            return Err(Error::new(
                ErrorCode::LinkDestination,
                format!("link '{link_path}' cannot reference another link '{absolute}'"),
            ));
        }
        let (user, group) = self.owner(&entry.attributes.owner)?;
        self.scan.links.push(ScannedLink { name: name.clone(), destination: destination.clone(), user, group });

        // Where the scan continues: for a tablespace, in the directory of this cluster below the destination
        let tablespace_name = format!("{PG_TBLSPC}/{}", entry.name);
        let (target_name, next, next_name) = if tablespace.is_some() {
            self.tablespace_paths(&tablespace_name);
            let next = Dir { name: &tablespace_name, path: &link_path, is_database: dir.is_database };
            (tablespace_name.clone(), next, self.options.tablespace_id.to_owned())
        } else {
            (name, Dir { ..*dir }, entry.name.clone())
        };
        let linked_path = format!("{}/{next_name}", next.path);
        let linked = self.files.info_followed(&linked_path)?;
        let is_file = linked.as_ref().is_some_and(|found| found.kind != EntryKind::Path);
        if is_file && tablespace.is_some() {
            return Err(Error::new(ErrorCode::Format, format!("tablespace '{link_path}' links to a file")));
        }
        let (target_path, target_file) = if is_file { split_file(&destination) } else { (destination, None) };
        self.check_link(&target_name, &target_path, target_file.as_deref())?;
        self.scan.targets.push(ScannedTarget {
            name: target_name,
            path: target_path,
            file: target_file,
            tablespace,
            is_link: true,
        });
        // The checks above come first, so that a link into the data directory is reported as such even if it is
        // dangling
        let Some(attributes) = linked else { return Err(missing_info(&linked_path)) };
        self.entry(&next, &DirEntry { name: next_name, attributes })
    }

    /// Looks up the tablespace of a link in `pg_tblspc`; `None` if it no longer exists.
    ///
    /// A link exists before the transaction that creates its tablespace ends, and briefly after its directory was
    /// removed. Recovery repeats the creation and removal of tablespaces since the start of the backup, so it is enough
    /// to know which case it is.
    fn tablespace(&mut self, link_path: &str, link: &str) -> Result<Option<ServerTablespace>> {
        let id = link.parse().map_err(|_| {
            Error::new(ErrorCode::Format, format!("'{PG_TBLSPC}/{link}' is not named by a tablespace's oid"))
        })?;
        let directory = format!("{link_path}/{}", self.options.tablespace_id);
        for attempt in 1.. {
            let Some(known) = &self.tablespaces else {
                return Ok(Some(ServerTablespace { id, name: format!("ts{link}") }));
            };
            let found = known.get(&id).map(|name| ServerTablespace { id, name: name.clone() });
            let is_last = attempt == TABLESPACE_TRIES_MAX;
            // What is missing permanently is reported by the other checks
            if found.is_some() && (is_last || self.files.info_followed(&directory)?.is_some()) {
                return Ok(found);
            }
            if self.files.info(link_path)?.is_none_or(|found| found.kind != EntryKind::Link) {
                return Ok(None);
            }
            if is_last {
                break;
            }
            if attempt > 1 {
                std::thread::sleep(TABLESPACE_PAUSE);
            }
            self.tablespaces = Some(by_id(&(self.tablespaces_now)()?));
        }
        Err(Error::new(ErrorCode::Assert, format!("tablespace with oid {id} not found in tablespace map"))
            .hint("was a tablespace created or dropped during the backup?"))
    }

    /// Adds entries for the directories above a tablespace's files, with the attributes of their counterparts in the
    /// data directory. In a backup, tablespaces are next to `pg_data`.
    fn tablespace_paths(&mut self, target: &str) {
        if self.tablespace_base.is_none() {
            let find = |name: &str| self.scan.paths.iter().find(|path| path.name == name).cloned();
            // Both were scanned before the links in pg_tblspc
            let (Some(data), Some(base)) = (find(PG_DATA), find("pg_data/pg_tblspc")) else { return };
            self.scan.paths.push(ScannedPath { name: PG_TBLSPC.to_owned(), ..data });
            self.tablespace_base = Some(base);
        }
        if let Some(base) = &self.tablespace_base {
            self.scan.paths.push(ScannedPath { name: target.to_owned(), ..base.clone() });
        }
    }

    fn check_link(&mut self, target_name: &str, target_path: &str, file: Option<&str>) -> Result<()> {
        let link = pg_path(target_name);
        let absolute = if target_path.starts_with('/') {
            target_path.to_owned()
        } else {
            // Relative to the directory that contains the link
            let directory = link.rsplit_once('/').map_or("", |(directory, _)| directory);
            let separator = if directory.is_empty() { "" } else { "/" };
            absolute_path(&format!("{directory}{separator}{target_path}"), self.pg_path)?
        };
        self.links.add(link, &absolute, file)
    }
}

/// Splits the destination of a link to a file into its directory and its name.
fn split_file(destination: &str) -> (String, Option<String>) {
    let (path, file) = destination.rsplit_once('/').unwrap_or(("", destination));
    let path = if path.is_empty() && destination.starts_with('/') { "/" } else { path };
    (path.to_owned(), Some(file.to_owned()))
}

/// Returns the names of tablespaces by their oids.
pub(super) fn by_id(tablespaces: &[ServerTablespace]) -> HashMap<u32, String> {
    tablespaces.iter().map(|known| (known.id, known.name.clone())).collect()
}

/// Returns the absolute form of a link's destination, with `.` and `..` resolved by name only.
fn absolute_path(path: &str, base: &str) -> Result<String> {
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.trim_end_matches('/').split('/') {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return Err(Error::new(
                        ErrorCode::Assert,
                        format!("relative path '{path}' goes back too far in base path '{base}'"),
                    ));
                }
            }
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_path_resolves_dots_by_name() {
        assert_eq!(absolute_path("../a/./b/", "/x/y").unwrap(), "/x/a/b");
        assert_eq!(absolute_path("/a", "/x").unwrap(), "/a");
        assert_eq!(absolute_path("../..", "/x").unwrap_err().code, ErrorCode::Assert);
    }
}
