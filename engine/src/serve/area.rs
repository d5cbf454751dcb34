//! What a client may reach.
//!
//! Paths in requests are absolute. A path counts only if it is the base or below it and has no `..`. In a repository, the
//! directories of other stanzas are out of reach, and links lead only where the client may go anyway. A link that an
//! administrator made may connect the repository, its `archive` and `backup`, or the stanza's directories with another
//! place. Clients create no symbolic links: one in the place of such a directory would decide what they reach. The data
//! directory is read only, and its links are followed as a backup follows them, because a client can't create one there.
//! A client may also ask what a link leads to, after it was told about the link.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use repo_format::layout::{self, RepoPath};

use crate::{Error, ErrorCode, Result, Stanza};

/// The directories of a repository that have one directory for each stanza.
const STANZA_PARENTS: [&str; 3] = [layout::ARCHIVE, layout::BACKUP, layout::PROOF];

/// Returns the error for a path out of reach, and logs it. As an error, because a process that serves prints nothing
/// less, and because warnings are passed on to the client, who gets the error anyway.
pub(super) fn refuse(path: &str, why: &str) -> Error {
    let text = format!("access to '{path}' denied: {why}");
    crate::error!(ErrorCode::Access, "{text}");
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
    /// Whether links may lead elsewhere.
    has_links: bool,
    /// Directories whose real places count.
    roots: Vec<Root>,
}

/// A directory of the repository, and where it really is.
#[derive(Debug)]
struct Root {
    /// Its path within the repository.
    path: String,
    place: PathBuf,
}

impl RepositoryArea {
    /// `has_links` tells whether the repository is in a file system of this host.
    pub(super) fn new(path: &str, stanza: Option<Stanza>, has_links: bool) -> Self {
        let base = path.trim_end_matches('/').to_owned();
        let mut roots = Vec::new();
        if has_links {
            // A place that can't be told is below no path
            let place = |relative: &str| real(&Path::new(path).join(relative)).unwrap_or_default();
            let root = |relative: &str| Root { path: relative.to_owned(), place: place(relative) };
            roots.push(root(""));
            roots.extend(STANZA_PARENTS.map(root));
            // Every path would be below an empty one
            roots.retain(|root| !root.place.as_os_str().is_empty());
            let own = stanza.iter().flat_map(|stanza| STANZA_PARENTS.map(|parent| root(&format!("{parent}/{stanza}"))));
            // A link from the stanza's directory to another part of the repository, or to what contains it, gives nothing
            let own: Vec<Root> = own
                .filter(|own| !own.place.as_os_str().is_empty())
                .filter(|own| !roots.iter().any(|r| own.place.starts_with(&r.place) || r.place.starts_with(&own.place)))
                .collect();
            roots.extend(own);
        }
        RepositoryArea { base, stanza, has_links, roots }
    }

    /// Returns the path within the repository.
    ///
    /// # Errors
    /// [`ErrorCode::Access`] if the client may not reach it.
    pub(super) fn relative(&self, path: &str) -> Result<RepoPath> {
        let relative = below(&self.base, path).ok_or_else(|| refuse(path, "it is not in the repository"))?;
        self.check_stanza(path, relative.as_str())?;
        Ok(relative)
    }

    /// Checks that a path within the repository is not of another stanza.
    fn check_stanza(&self, path: &str, relative: &str) -> Result<()> {
        if let Some(stanza) = &self.stanza
            && let [parent, name, ..] = relative.split('/').collect::<Vec<_>>()[..]
            && STANZA_PARENTS.contains(&parent)
            && name != stanza.as_str()
        {
            return Err(refuse(path, &format!("it is not of stanza '{stanza}'")));
        }
        Ok(())
    }

    /// Like [`RepositoryArea::relative`], and checks where links lead. If `follow`, the path itself may be a link.
    ///
    /// # Errors
    /// The same.
    pub(super) fn reach(&self, path: &str, follow: bool) -> Result<RepoPath> {
        let relative = self.relative(path)?;
        self.led(path, &relative, follow)?;
        Ok(relative)
    }

    /// Returns the path within the repository to which links lead from this one.
    fn led(&self, path: &str, relative: &RepoPath, follow: bool) -> Result<String> {
        if !self.has_links {
            return Ok(relative.as_str().to_owned());
        }
        let shown = Path::new(path);
        let place = match (shown.parent(), shown.file_name()) {
            (Some(parent), Some(name)) if !follow && !relative.as_str().is_empty() => {
                real(parent).map(|parent| parent.join(name))
            }
            _ => real(shown),
        };
        let place = place.map_err(|e| Error::from_io(ErrorCode::FileOpen, format!("unable to resolve '{path}'"), e))?;
        // The deepest directory says what the place is: `backup` may be anywhere, also in the repository
        let above = self.roots.iter().filter(|root| place.starts_with(&root.place));
        let root = above.max_by_key(|root| root.place.components().count());
        let root = root.ok_or_else(|| refuse(path, "a link leads out of the repository"))?;
        let rest = place.strip_prefix(&root.place).unwrap_or(&place);
        let led = Path::new(&root.path).join(rest).to_string_lossy().trim_end_matches('/').to_owned();
        self.check_stanza(path, &led)?;
        Ok(led)
    }

    /// Like [`RepositoryArea::reach`], for a change. What contains other stanzas can't be changed by a client that is
    /// limited to one, nor what belongs to no stanza.
    ///
    /// # Errors
    /// The same.
    pub(super) fn change(&self, path: &str, follow: bool) -> Result<RepoPath> {
        let relative = self.relative(path)?;
        let led = self.led(path, &relative, follow)?;
        if self.stanza.is_some() {
            for changed in [relative.as_str(), &led] {
                if changed.is_empty() || STANZA_PARENTS.contains(&changed) {
                    return Err(refuse(path, "it contains other stanzas"));
                }
                Self::check_owned(path, changed)?;
            }
        }
        Ok(relative)
    }

    /// Like [`RepositoryArea::reach`], for a directory that is created. Those that contain stanzas may be, too.
    ///
    /// # Errors
    /// The same.
    pub(super) fn create(&self, path: &str) -> Result<RepoPath> {
        let relative = self.relative(path)?;
        let led = self.led(path, &relative, true)?;
        if self.stanza.is_some() {
            for created in [relative.as_str(), &led] {
                if !created.is_empty() {
                    Self::check_owned(path, created)?;
                }
            }
        }
        Ok(relative)
    }

    /// Checks that a path within the repository is in a directory that contains stanzas.
    fn check_owned(path: &str, relative: &str) -> Result<()> {
        let top = relative.split('/').next().unwrap_or_default();
        if STANZA_PARENTS.contains(&top) { Ok(()) } else { Err(refuse(path, "it is not of a stanza")) }
    }
}

/// How many links to missing files are followed.
const DANGLING_MAX: u8 = 8;

/// Where a path leads. Parts that do not exist are taken as they are, and parts that this user can't look up: whatever is
/// done with the path fails for that reason.
fn real(path: &Path) -> io::Result<PathBuf> {
    real_within(path, DANGLING_MAX)
}

fn real_within(path: &Path, dangling_max: u8) -> io::Result<PathBuf> {
    let in_circles = || io::Error::from(rustix::io::Errno::LOOP);
    let mut missing = Vec::new();
    for ancestor in path.ancestors() {
        match ancestor.canonicalize() {
            Ok(mut place) => {
                place.extend(missing.iter().rev());
                return Ok(place);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::PermissionDenied
                ) =>
            {
                if let Ok(target) = ancestor.read_link() {
                    // What is written through a link to a missing file is created there
                    let target = ancestor.parent().unwrap_or(ancestor).join(target);
                    let mut place = real_within(&target, dangling_max.checked_sub(1).ok_or_else(in_circles)?)?;
                    place.extend(missing.iter().rev());
                    return Ok(place);
                }
                // Nobody knows what is above a part that does not exist
                missing.push(ancestor.file_name().ok_or(error)?);
            }
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::NotFound.into())
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

/// The most links of a data directory that are remembered.
const LINKS_MAX: usize = 100_000;

/// A data directory, which clients read.
#[derive(Debug)]
pub(super) struct DataArea {
    base: String,
    /// What links lead to that the client was told about.
    linked: Mutex<BTreeSet<PathBuf>>,
}

impl DataArea {
    pub(super) fn new(path: &Path) -> Self {
        let base = path.to_string_lossy().trim_end_matches('/').to_owned();
        DataArea { base, linked: Mutex::default() }
    }

    /// Remembers that the client was told about a link in the directory.
    pub(super) fn told(&self, directory: &Path, target: &str) {
        let mut linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        if linked.len() < LINKS_MAX {
            linked.insert(plain(&directory.join(target)));
        }
    }

    /// Returns the path if it is in the data directory, or if a link leads to it.
    ///
    /// # Errors
    /// [`ErrorCode::Access`]
    pub(super) fn reach_link(&self, path: &str) -> Result<PathBuf> {
        let found = PathBuf::from(path);
        if self.linked.lock().unwrap_or_else(PoisonError::into_inner).contains(&plain(&found)) {
            return Ok(found);
        }
        self.reach(path)
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
