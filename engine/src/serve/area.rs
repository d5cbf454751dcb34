//! What a client may reach.
//!
//! Paths in requests are absolute. A path counts only if it is the base or below it and has no `..`. In a repository, the
//! directories of other stanzas are out of reach, and links lead only where the client may go anyway: a link that was
//! there before the connection may connect the repository, its `archive` and `backup`, or the stanza's directories with
//! another place; a client creates links only within its stanza. The data directory is read only, and its links are
//! followed as a backup follows them, because a client can't create one there.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use repo_format::layout::RepoPath;

use crate::{Error, ErrorCode, Result, Stanza};

/// The directories of a repository that have one directory for each stanza.
const STANZA_PARENTS: [&str; 2] = ["archive", "backup"];

/// Returns the error for a path out of reach, and logs it.
pub(super) fn refuse(path: &str, why: &str) -> Error {
    let text = format!("access to '{path}' denied: {why}");
    crate::warn!("{text}");
    Error::new(ErrorCode::Access, text)
}

/// Returns the path relative to the base; `None` if it is not below it.
fn below(base: &str, path: &str) -> Option<RepoPath> {
    let rest = path.strip_prefix(base)?;
    if rest.is_empty() {
        return Some(RepoPath::root());
    }
    RepoPath::new(rest.strip_prefix('/')?).ok()
}

/// The part of a repository that a client may reach.
#[derive(Debug)]
pub(super) struct RepositoryArea {
    /// The repository's path without a slash at its end.
    base: String,
    stanza: Option<Stanza>,
    /// Where the base and the directories above stanzas really are; empty if the storage has no links.
    roots: Vec<PathBuf>,
}

impl RepositoryArea {
    /// `has_links` tells whether the repository is in a file system of this host.
    pub(super) fn new(path: &str, stanza: Option<Stanza>, has_links: bool) -> Self {
        let base = path.trim_end_matches('/').to_owned();
        let mut area = RepositoryArea { base, stanza, roots: Vec::new() };
        if has_links {
            let root = Path::new(path);
            area.roots.push(real(root));
            for parent in STANZA_PARENTS {
                area.roots.push(real(&root.join(parent)));
                area.roots.extend(area.stanza.as_ref().map(|stanza| real(&root.join(parent).join(stanza.as_str()))));
            }
        }
        area
    }

    /// Returns the path within the repository.
    ///
    /// # Errors
    /// [`ErrorCode::Access`] if the client may not reach it.
    pub(super) fn relative(&self, path: &str) -> Result<RepoPath> {
        let relative = below(&self.base, path).ok_or_else(|| refuse(path, "it is not in the repository"))?;
        if let Some(stanza) = &self.stanza
            && let [parent, name, ..] = relative.as_str().split('/').collect::<Vec<_>>()[..]
            && STANZA_PARENTS.contains(&parent)
            && name != stanza.as_str()
        {
            return Err(refuse(path, &format!("it is not of stanza '{stanza}'")));
        }
        Ok(relative)
    }

    /// Like [`RepositoryArea::relative`], and checks where links lead. If `follow`, the path itself may be a link.
    ///
    /// # Errors
    /// The same.
    pub(super) fn reach(&self, path: &str, follow: bool) -> Result<RepoPath> {
        let relative = self.relative(path)?;
        if !self.roots.is_empty() {
            let place = match Path::new(path).parent() {
                Some(parent) if !follow && !relative.as_str().is_empty() => real(parent),
                _ => real(Path::new(path)),
            };
            if !self.roots.iter().any(|root| place.starts_with(root)) {
                return Err(refuse(path, "a link leads out of the repository"));
            }
        }
        Ok(relative)
    }

    /// Like [`RepositoryArea::reach`], for a change. What contains other stanzas can't be changed by a client that is
    /// limited to one.
    ///
    /// # Errors
    /// The same.
    pub(super) fn change(&self, path: &str, follow: bool) -> Result<RepoPath> {
        let relative = self.reach(path, follow)?;
        if self.stanza.is_some() && (relative.as_str().is_empty() || STANZA_PARENTS.contains(&relative.as_str())) {
            return Err(refuse(path, "it contains other stanzas"));
        }
        Ok(relative)
    }

    /// Checks that a link at this path may have the text as its target.
    ///
    /// # Errors
    /// [`ErrorCode::Access`] if it would lead out of what the client may reach.
    pub(super) fn link_target(&self, link: &RepoPath, target: &str) -> Result<()> {
        let outside = || refuse(target, "a link must lead to a place in the repository");
        if target.starts_with('/') {
            return self.relative(target).map(drop);
        }
        let mut parts: Vec<&str> = link.as_str().split('/').collect();
        parts.pop();
        // Below the stanza's directory, so that its name can't be used to reach another one
        let depth_min = if self.stanza.is_some() { 2 } else { 0 };
        for part in target.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop().ok_or_else(outside)?;
                }
                part => parts.push(part),
            }
            if parts.len() < depth_min {
                return Err(outside());
            }
        }
        self.relative(&[&[self.base.as_str()], parts.as_slice()].concat().join("/")).map(drop)
    }
}

/// Where a path leads. Parts that do not exist are taken as they are.
fn real(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    for ancestor in path.ancestors() {
        match ancestor.canonicalize() {
            Ok(mut place) => {
                place.extend(missing.iter().rev());
                return place;
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                missing.extend(ancestor.file_name());
            }
            // Below no root, so nothing there is reached
            Err(_) => return PathBuf::new(),
        }
    }
    PathBuf::new()
}

/// A data directory, which clients read.
#[derive(Debug)]
pub(super) struct DataArea {
    base: String,
}

impl DataArea {
    pub(super) fn new(path: &Path) -> Self {
        DataArea { base: path.to_string_lossy().trim_end_matches('/').to_owned() }
    }

    /// The base.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Returns the path if it is in the data directory.
    ///
    /// # Errors
    /// [`ErrorCode::Access`]
    pub(super) fn reach(&self, path: &str) -> Result<PathBuf> {
        below(&self.base, path)
            .map(|_| PathBuf::from(path))
            .ok_or_else(|| refuse(path, "it is not in the data directory of PostgreSQL"))
    }

    /// The error for a change.
    pub(super) fn read_only(path: &str) -> Error {
        refuse(path, "the data directory of PostgreSQL is not changed from another host")
    }
}

#[cfg(test)]
mod tests;
