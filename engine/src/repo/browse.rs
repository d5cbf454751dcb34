//! Lists the files of a repository, and determines how a file is encrypted.

use repo_format::cipher::Cipher;
use repo_format::layout::{self, RepoPath, Stanza};

use super::info_files::{archive_cipher, load_archive_info, load_backup_info, manifest_cipher};
use super::{Repo, manifest_store};
use crate::posix_regex::PosixRegex;
use crate::storage::{Entry, EntryKind};
use crate::{Error, ErrorCode, Result};

/// The order of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListOrder {
    /// By name, a directory before its content.
    Ascending,
    /// By name from the last, a directory after its content.
    Descending,
}

/// The settings of a listing.
#[derive(Clone, Debug)]
pub struct ListSettings {
    /// Include subdirectories.
    pub recurse: bool,
    /// The order.
    pub order: ListOrder,
    /// Only entries whose name, relative to the listed directory, matches.
    pub filter: Option<PosixRegex>,
}

impl ListSettings {
    /// Returns whether the filter accepts a name.
    pub fn matches(&self, name: &str) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.is_match(name))
    }
}

/// Converts a path as given by a user: relative to the repository, or absolute and inside it.
///
/// # Errors
/// [`ErrorCode::ParamInvalid`] for a path that is not in the repository.
pub fn user_path(repo: &Repo, path: &str) -> Result<RepoPath> {
    let invalid = |text: String| Err(Error::new(ErrorCode::ParamInvalid, text));
    if path.contains("//") {
        return invalid(format!("path '{path}' cannot contain //"));
    }
    let root = repo.storage.display(&RepoPath::root());
    let bare = if path == "/" { path } else { path.strip_suffix('/').unwrap_or(path) };
    let relative = match bare.strip_prefix('/') {
        None => bare,
        Some(_) if bare == root => "",
        Some(from_root) if root == "/" => from_root,
        Some(_) => match bare.strip_prefix(&root).and_then(|rest| rest.strip_prefix('/')) {
            Some(rest) => rest,
            None => return invalid(format!("absolute path '{bare}' is not in base path '{root}'")),
        },
    };
    RepoPath::new(relative).or_else(|error| invalid(error.message))
}

/// Like [`user_path`], for a path that is only read: `.` components are ignored.
///
/// # Errors
/// The same as [`user_path`].
pub fn user_path_read(repo: &Repo, path: &str) -> Result<RepoPath> {
    let parts: Vec<&str> = path.split('/').filter(|part| *part != ".").collect();
    user_path(repo, &parts.join("/"))
}

/// Passes every entry of a directory that the filter accepts to `take`, with its name relative to the directory and,
/// for a link, its destination. A missing directory has no entries.
///
/// # Errors
/// A directory can't be read, or the error of `take`.
pub fn list(
    repo: &Repo,
    path: &RepoPath,
    settings: &ListSettings,
    take: &mut dyn FnMut(&Entry, Option<&str>) -> Result<()>,
) -> Result<()> {
    list_below(repo, path, "", settings, take)
}

fn list_below(
    repo: &Repo,
    path: &RepoPath,
    prefix: &str,
    settings: &ListSettings,
    take: &mut dyn FnMut(&Entry, Option<&str>) -> Result<()>,
) -> Result<()> {
    let mut entries = repo.storage.list(path)?.unwrap_or_default();
    if settings.order == ListOrder::Descending {
        entries.reverse();
    }
    for mut entry in entries {
        let child = path.join(&entry.name)?;
        let name = format!("{prefix}{}", entry.name);
        let inside = settings.recurse && entry.kind == EntryKind::Path;
        let below = format!("{name}/");
        if inside && settings.order == ListOrder::Descending {
            list_below(repo, &child, &below, settings, take)?;
        }
        if settings.matches(&name) {
            let destination = match entry.kind {
                EntryKind::Link => repo.storage.link_destination(&child)?,
                _ => None,
            };
            entry.name = name;
            take(&entry, destination.as_deref())?;
        }
        if inside && settings.order == ListOrder::Ascending {
            list_below(repo, &child, &below, settings, take)?;
        }
    }
    Ok(())
}

/// Returns how a file of an encrypted repository is encrypted, by its path. `stanza` is the stanza of the command line,
/// to which the path must then belong.
///
/// # Errors
/// [`ErrorCode::OptionInvalidValue`] for a path of another stanza or of none, and errors of the info files and the
/// manifest that contain the passphrase.
pub fn cipher_of(repo: &Repo, path: &RepoPath, stanza: Option<&Stanza>) -> Result<Cipher> {
    let unknown =
        || Error::new(ErrorCode::OptionInvalidValue, format!("unable to determine cipher passphrase for '{path}'"));
    let parts: Vec<&str> = path.as_str().split('/').collect();
    let [top, stanza_name, rest @ ..] = parts.as_slice() else { return Err(unknown()) };
    let [first, ..] = rest else { return Err(unknown()) };
    if let Some(stanza) = stanza.filter(|stanza| stanza.as_str() != *stanza_name) {
        let text = format!("stanza name '{stanza}' given in option doesn't match the given path");
        return Err(Error::new(ErrorCode::OptionInvalidValue, text));
    }
    let stanza: Stanza = stanza_name.parse()?;
    let ends_with = |name: &str| {
        let path = path.as_str();
        path.ends_with(name) || path.strip_suffix(layout::COPY_SUFFIX).is_some_and(|path| path.ends_with(name))
    };
    match *top {
        layout::ARCHIVE if ends_with(layout::ARCHIVE_INFO) => Ok(repo.info_cipher()),
        layout::ARCHIVE => Ok(archive_cipher(repo, &stanza, &load_archive_info(repo, &stanza)?)),
        layout::BACKUP if ends_with(layout::BACKUP_INFO) => Ok(repo.info_cipher()),
        layout::BACKUP => {
            let of_manifests = manifest_cipher(&load_backup_info(repo, &stanza)?);
            if *first == layout::BACKUP_HISTORY || ends_with(layout::BACKUP_MANIFEST) {
                return Ok(of_manifests);
            }
            // If there is no such backup, the missing manifest is the error
            let manifest_path = layout::backup_stanza(&stanza).join(first)?.join(layout::BACKUP_MANIFEST)?;
            let manifest = manifest_store::load_from(repo, &manifest_path, &of_manifests)?;
            Ok(Cipher::from_passphrase(manifest.cipher_pass.as_ref()))
        }
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::posix::PosixStorage;
    use crate::storage::{WriteOptions, put};

    fn repo() -> (tempfile::TempDir, Repo) {
        let dir = tempfile::tempdir().unwrap();
        let storage = PosixStorage::new(dir.path());
        for path in ["b/x", "b/c/y", "a"] {
            put(&storage, &RepoPath::new(path).unwrap(), b"12", WriteOptions::IN_PLACE).unwrap();
        }
        storage_link(dir.path());
        (dir, Repo { key: 1, storage: Arc::new(storage), cipher: Cipher::None })
    }

    fn storage_link(root: &std::path::Path) {
        std::os::unix::fs::symlink("b/c", root.join("latest")).unwrap();
    }

    fn names(repo: &Repo, recurse: bool, order: ListOrder, filter: Option<&str>) -> Vec<String> {
        let filter = filter.map(|filter| PosixRegex::new(filter).unwrap());
        let mut names = Vec::new();
        list(repo, &RepoPath::root(), &ListSettings { recurse, order, filter }, &mut |entry, destination| {
            names.push(format!("{}{}", entry.name, destination.map_or_else(String::new, |to| format!(" -> {to}"))));
            Ok(())
        })
        .unwrap();
        names
    }

    #[test]
    fn list_orders_directories_around_their_content() {
        let (_dir, repo) = repo();
        assert_eq!(names(&repo, false, ListOrder::Ascending, None), ["a", "b", "latest -> b/c"]);
        assert_eq!(names(&repo, true, ListOrder::Ascending, None), ["a", "b", "b/c", "b/c/y", "b/x", "latest -> b/c"]);
        assert_eq!(names(&repo, true, ListOrder::Descending, None), ["latest -> b/c", "b/x", "b/c/y", "b/c", "b", "a"]);
    }

    #[test]
    fn list_with_filter_looks_into_directories_that_do_not_match() {
        let (_dir, repo) = repo();
        assert_eq!(names(&repo, true, ListOrder::Ascending, Some("y$")), ["b/c/y"]);
        assert_eq!(names(&repo, false, ListOrder::Ascending, Some("y$")), Vec::<String>::new());
    }

    #[test]
    fn user_path_table() {
        let (dir, repo) = repo();
        let root = dir.path().to_str().unwrap();
        assert_eq!(user_path(&repo, "b/c/").unwrap().as_str(), "b/c");
        assert_eq!(user_path(&repo, root).unwrap().as_str(), "");
        assert_eq!(user_path(&repo, &format!("{root}/b")).unwrap().as_str(), "b");
        for bad in ["a//b", "/elsewhere", "../x", "a/../../x", &format!("{root}x/b")] {
            assert_eq!(user_path(&repo, bad).unwrap_err().code, ErrorCode::ParamInvalid, "{bad}");
        }
    }
}
