//! The configuration files as the daemon read them, for the processes that it starts.
//!
//! A process of the daemon gets what the daemon has accepted, also while the files are being changed, or are not valid
//! any more. Errors still name the files of the user.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::OnceLock;

use engine::{Error, ErrorCode, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::process::geteuid;
use serde_json::{Value, json};

use super::file::ConfigFiles;

/// The largest size in bytes of a copy. The files have at most one mebibyte, of which JSON may escape each byte.
const SIZE_MAX: u64 = 16 << 20;

/// Keeps the copy of this process locked as long as the process lives.
static OWN: OnceLock<File> = OnceLock::new();

/// What was read of the configuration files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConfigCopy {
    /// The content of each file that was asked for; `None` if it did not exist.
    files: BTreeMap<String, Option<String>>,
    /// The names in each directory that was asked for; `None` if it did not exist.
    paths: BTreeMap<String, Option<Vec<String>>>,
}

impl ConfigCopy {
    /// Reads a copy, and keeps the daemon from removing it until this process ends. `None` if it does not exist.
    ///
    /// # Errors
    /// [`ErrorCode::FileRead`], [`ErrorCode::Format`]
    pub(crate) fn read(path: &Path) -> Result<Option<Self>> {
        let failed = |error| {
            let text = format!("unable to read the copy of the configuration '{}'", path.display());
            Error::from_io(ErrorCode::FileRead, text, error)
        };
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(failed)?,
        };
        if file.metadata().map_err(failed)?.uid() != geteuid().as_raw() {
            let text = "it belongs to another user";
            return Err(failed(io::Error::new(io::ErrorKind::PermissionDenied, text)));
        }
        flock(&file, FlockOperation::LockShared).map_err(|errno| failed(errno.into()))?;
        let mut text = String::new();
        (&file).take(SIZE_MAX).read_to_string(&mut text).map_err(failed)?;
        let copy = Self::parse(&text).ok_or_else(|| {
            Error::new(ErrorCode::Format, format!("'{}' is no copy of a configuration", path.display()))
        })?;
        // Another one is locked if tests read several
        let _ = OWN.set(file);
        Ok(Some(copy))
    }

    fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let names = |value: &Value| value.as_array()?.iter().map(text).collect::<Option<Vec<String>>>();
        Some(ConfigCopy { files: member(&value, "files", text)?, paths: member(&value, "paths", names)? })
    }

    /// Returns the text that [`ConfigCopy::read`] reads.
    pub(crate) fn to_json(&self) -> String {
        json!({ "files": self.files, "paths": self.paths }).to_string()
    }
}

/// Reads a member of the JSON: values by path, of which null is `None`.
fn member<T>(value: &Value, name: &str, read: impl Fn(&Value) -> Option<T>) -> Option<BTreeMap<String, Option<T>>> {
    let entries = value.get(name)?.as_object()?.iter();
    let entry = |(path, value): (&String, &Value)| match value {
        Value::Null => Some((path.clone(), None)),
        value => Some((path.clone(), Some(read(value)?))),
    };
    entries.map(entry).collect()
}

impl ConfigFiles for ConfigCopy {
    fn read(&self, path: &str) -> Result<Option<String>> {
        self.files.get(path).cloned().ok_or_else(|| not_in_copy(path))
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>> {
        self.paths.get(path).cloned().ok_or_else(|| not_in_copy(path))
    }
}

/// A process asks for the files that the daemon asked for, since both have the same options and environment.
fn not_in_copy(path: &str) -> Error {
    Error::new(ErrorCode::Assert, format!("'{path}' is not in the daemon's copy of the configuration"))
}

/// Files that remember what was read of them.
pub(crate) struct CopyingFiles<'a> {
    files: &'a dyn ConfigFiles,
    copy: RefCell<ConfigCopy>,
}

impl<'a> CopyingFiles<'a> {
    /// Reads these files.
    pub(crate) fn new(files: &'a dyn ConfigFiles) -> Self {
        CopyingFiles { files, copy: RefCell::default() }
    }

    /// Returns what was read.
    pub(crate) fn into_copy(self) -> ConfigCopy {
        self.copy.into_inner()
    }
}

impl ConfigFiles for CopyingFiles<'_> {
    fn read(&self, path: &str) -> Result<Option<String>> {
        let text = self.files.read(path)?;
        self.copy.borrow_mut().files.insert(path.to_owned(), text.clone());
        Ok(text)
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>> {
        let names = self.files.list(path)?;
        self.copy.borrow_mut().paths.insert(path.to_owned(), names.clone());
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CommandLine, Config, Environment, SystemFiles};

    fn resolve(args: &[&str], files: &dyn ConfigFiles) -> Result<Config> {
        let line = CommandLine::parse(std::iter::once("rbr").chain(args.iter().copied()))?;
        Config::resolve(line, Environment(Vec::new()), files, &mut |_| ())
    }

    #[test]
    fn copy_gives_the_configuration_that_was_read_whatever_becomes_of_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("pgbackrest.conf");
        let part = dir.path().join("conf.d/demo.conf");
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        std::fs::write(&main, "[global]\nrepo1-path=/one\n").unwrap();
        std::fs::write(&part, "[demo]\npg1-path=/pg\n").unwrap();
        let path = format!("--config-path={}", dir.path().display());
        let args = [path.as_str(), "--stanza=demo", "expire"];
        let copying = CopyingFiles::new(&SystemFiles);
        let read = resolve(&args, &copying).unwrap();
        let text = copying.into_copy().to_json();
        std::fs::write(&main, "no configuration").unwrap();
        std::fs::remove_file(&part).unwrap();
        assert!(resolve(&args, &SystemFiles).is_err());
        let stored = dir.path().join("copy.json");
        std::fs::write(&stored, text).unwrap();
        let copy = ConfigCopy::read(&stored).unwrap().unwrap();
        let again = resolve(&args, &copy).unwrap();
        assert_eq!(again.begin_text(), read.begin_text());
        assert!(again.begin_text().contains("--repo1-path=/one"), "{}", again.begin_text());
        // The user's file is what an error names
        let broken = text_of(&[(main.to_str().unwrap(), Some("no configuration"))], &copy);
        let error = resolve(&args, &ConfigCopy::parse(&broken).unwrap()).unwrap_err().to_string();
        assert!(error.contains(main.to_str().unwrap()), "{error}");
        let error = resolve(&["--config=/other", "info"], &copy).unwrap_err().to_string();
        assert!(error.contains("'/other' is not in the daemon's copy"), "{error}");
    }

    fn text_of(files: &[(&str, Option<&str>)], copy: &ConfigCopy) -> String {
        let mut copy = copy.clone();
        for (path, text) in files {
            copy.files.insert((*path).to_owned(), text.map(str::to_owned));
        }
        copy.to_json()
    }

    #[test]
    fn copy_that_is_missing_or_none_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy.json");
        assert_eq!(ConfigCopy::read(&path).unwrap(), None);
        for text in ["", "{}", "{\"files\":{\"a\":1},\"paths\":{}}", "{\"files\":{},\"paths\":{\"a\":[1]}}"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(ConfigCopy::read(&path).unwrap_err().code, ErrorCode::Format, "{text}");
        }
    }
}
