//! What could not be read, which says nothing about whether it is valid.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::file::FileCheck;
use super::info_file::Unusable;
use crate::repo::info_files;
use crate::work::retry::{is_about_content, retold};
use crate::{Error, ErrorCode, Result, warn};

/// Errors that are logged as warnings. The others are logged with the other results.
const WARNINGS_MAX: u32 = 10;

/// The errors of what could not be read.
#[derive(Debug, Default)]
pub struct Unread {
    /// How many faults of the report are such errors.
    pub total: u32,
    /// Those of them that each pass meets again.
    repeated: u32,
    /// The first error.
    pub first: Option<Error>,
    /// The message of the last warning, which is not repeated for the other files of a bundle.
    warned: String,
    warnings: u32,
}

impl Unread {
    /// Counts the error about `name` if it does not tell that the content is invalid, and warns about it. Returns whether
    /// it is such an error.
    pub(super) fn add(&mut self, name: &str, error: &Error) -> bool {
        let is_option = info_files::cipher_option_hint(error).is_some();
        if is_about_content(error) && !is_option {
            return false;
        }
        self.count(name, error);
        true
    }

    /// Counts an error, whatever it is, and warns about it.
    pub(super) fn count(&mut self, name: &str, error: &Error) {
        self.total += 1;
        let text = error.to_string();
        if self.warned != text && self.warnings < WARNINGS_MAX {
            warn!("unable to check '{name}': [{}] {text}", error.code.number());
            self.warnings += 1;
            self.warned.clone_from(&text);
        }
        self.first.get_or_insert_with(|| retold(error));
    }

    /// The same as [`Unread::add`] for a file that is kept twice. Each pass reads it again.
    pub(super) fn add_pair(&mut self, name: &str, unusable: &Unusable) -> bool {
        let is_unread = self.add(name, &unusable.file) || self.add(name, &unusable.copy);
        self.repeated += u32::from(is_unread);
        is_unread
    }

    /// Begins another pass, which meets some of the errors again.
    pub(super) fn begin_pass(self) -> Self {
        Unread { total: self.total - self.repeated, repeated: 0, ..self }
    }
}

/// The bundles that can't be opened, so that they are not tried again for each of the files in them.
#[derive(Default)]
pub(super) struct UnopenedBundles(Mutex<BTreeMap<String, Error>>);

impl UnopenedBundles {
    /// Checks a file unless its bundle could not be opened for an earlier one.
    pub fn check<T>(&self, check: &FileCheck, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if check.range.limit.is_none() {
            return work();
        }
        let path = check.path.as_str();
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = known().get(path) {
            return Err(retold(error));
        }
        work().inspect_err(|error| {
            if error.code == ErrorCode::FileOpen {
                known().insert(path.to_owned(), retold(error));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use repo_format::cipher::Cipher;
    use repo_format::compress::CompressType;
    use repo_format::hash::Sha1;
    use repo_format::layout::RepoPath;

    use super::*;
    use crate::storage::ReadRange;

    fn error(code: ErrorCode) -> Error {
        Error::new(code, "x")
    }

    #[test]
    fn unopened_bundle_is_tried_once_for_all_its_files() {
        let check = |path: &str, limit| FileCheck {
            path: RepoPath::new(path).unwrap(),
            range: ReadRange { offset: 0, limit },
            cipher: Cipher::None,
            compress_type: CompressType::None,
            checksum: Sha1([0; 20]),
            size: None,
            stored_size: None,
            block: None,
        };
        let bundles = UnopenedBundles::default();
        let tries = |path, limit, code| {
            let tried = std::cell::Cell::new(false);
            let result = bundles.check(&check(path, limit), || {
                tried.set(true);
                Err::<(), _>(error(code))
            });
            (tried.get(), result.unwrap_err().code)
        };
        assert_eq!(tries("bundle/1", Some(1), ErrorCode::FileOpen), (true, ErrorCode::FileOpen));
        assert_eq!(tries("bundle/1", Some(1), ErrorCode::Format), (false, ErrorCode::FileOpen));
        // Damage concerns one file of a bundle
        for _ in 0..2 {
            assert_eq!(tries("bundle/2", Some(1), ErrorCode::Format), (true, ErrorCode::Format));
            assert_eq!(tries("file", None, ErrorCode::FileOpen), (true, ErrorCode::FileOpen));
        }
    }

    #[test]
    fn manifest_that_each_pass_can_not_read_counts_once() {
        let unusable = Unusable { file: error(ErrorCode::FileOpen), copy: error(ErrorCode::FileOpen) };
        let mut unread = Unread::default();
        unread.add("a file, which is read once", &error(ErrorCode::FileRead));
        for _ in 0..3 {
            unread = unread.begin_pass();
            unread.add_pair("backup.manifest", &unusable);
        }
        assert_eq!((unread.total, unread.first.unwrap().code), (2, ErrorCode::FileRead));
    }

    #[test]
    fn unread_counts_what_says_nothing_about_the_content() {
        let mut unread = Unread::default();
        assert!(!unread.add("a", &error(ErrorCode::Checksum)));
        assert!(!unread.add("a", &error(ErrorCode::FileMissing)));
        assert!(unread.add("a", &error(ErrorCode::FileOpen)));
        let wrong_passphrase = error(ErrorCode::Crypto)
            .hint("is the passphrase (repo1-cipher-pass) the one the repository was created with?");
        assert!(unread.add("b", &wrong_passphrase));
        assert_eq!((unread.total, unread.first.unwrap().code), (2, ErrorCode::FileOpen));
    }
}
