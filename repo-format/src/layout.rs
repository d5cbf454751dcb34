//! Every path of a repository, in one place.

use std::fmt;

use crate::{Error, ErrorCode, Result};

/// A path inside a repository, relative to its root, e.g. `archive/main/archive.info`.
///
/// Never absolute, never with `..`, an empty or a `.` component: a path built from file names of a hostile repository can't
/// leave it. The root itself is the empty path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoPath(String);

impl RepoPath {
    /// Checks and takes a relative path.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for a path that is absolute or has an empty, `.` or `..` component or a NUL byte.
    pub fn new(path: impl Into<String>) -> Result<Self> {
        let path = path.into();
        let bad = |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('\0');
        if !path.is_empty() && path.split('/').any(bad) {
            return Err(Error::new(ErrorCode::Format, format!("'{path}' is not a path inside the repository")));
        }
        Ok(RepoPath(path))
    }

    /// The repository's root.
    pub fn root() -> Self {
        RepoPath(String::new())
    }

    /// This path with more components, checked like [`RepoPath::new`].
    ///
    /// # Errors
    /// As [`RepoPath::new`].
    pub fn join(&self, more: &str) -> Result<Self> {
        if self.0.is_empty() { Self::new(more) } else { Self::new(format!("{}/{more}", self.0)) }
    }

    /// The directory that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.0.is_empty() {
            return None;
        }
        Some(RepoPath(self.0.rsplit_once('/').map_or_else(String::new, |(dir, _)| dir.to_owned())))
    }

    /// The last component; empty for the root.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or("")
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
