//! A queue of the spool, through which the processes that PostgreSQL calls and their asynchronous worker communicate.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use engine::storage::posix::{PosixWriter, create_path};
use engine::storage::{RepoWriter, WriteOptions};
use engine::{Error, ErrorCode, Result};
use repo_format::layout::Stanza;
use repo_format::spool::{self, SpoolQueue, Status};

/// Files are written under a temporary name and renamed, because other processes look at them, but they are not synced.
/// For the `out` queue, a crash of the machine loses only the knowledge that work was done, and the next run finds the
/// work done. For the `in` queue see [`crate::origin`].
const NOT_SYNCED: WriteOptions = WriteOptions { atomic: true, sync_file: false, sync_path: false };

/// How far the clock of the spool's file system may be ahead of this machine's.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(2);

/// One queue.
#[derive(Clone, Debug)]
pub struct Spool {
    path: PathBuf,
}

impl Spool {
    /// The queue of a stanza below the spool path.
    pub fn new(spool_path: &Path, stanza: &Stanza, queue: SpoolQueue) -> Self {
        Spool { path: spool_path.join(spool::queue_dir(stanza, queue)) }
    }

    /// The queue's directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file of the queue.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Creates the directory.
    ///
    /// # Errors
    /// [`ErrorCode::PathCreate`].
    pub fn create(&self) -> Result<()> {
        create_path(&self.path)
    }

    /// The names in the directory, sorted.
    ///
    /// # Errors
    /// [`ErrorCode::PathMissing`] or [`ErrorCode::PathOpen`].
    pub fn list(&self) -> Result<Vec<String>> {
        let failed = |error: std::io::Error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                let text = format!("unable to list file info for missing path '{}'", self.path.display());
                return Error::new(ErrorCode::PathMissing, text).cause(error);
            }
            Error::from_io(
                ErrorCode::PathOpen,
                format!("unable to list file info for path '{}'", self.path.display()),
                error,
            )
        };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            // Names that are not UTF-8 are foreign
            if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes a file. A missing file is fine, because the other side may have removed it.
    ///
    /// # Errors
    /// [`ErrorCode::FileRemove`].
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.file(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::from_io(ErrorCode::FileRemove, format!("unable to remove '{}'", path.display()), error))
            }
            _ => Ok(()),
        }
    }

    /// Returns whether a file exists.
    ///
    /// # Errors
    /// [`ErrorCode::FileOpen`] if it can't be checked.
    pub fn exists(&self, name: &str) -> Result<bool> {
        let path = self.file(name);
        path.try_exists().map_err(|error| {
            Error::from_io(ErrorCode::FileOpen, format!("unable to get info for path/file '{}'", path.display()), error)
        })
    }

    /// Returns whether the queue reports a file as done.
    ///
    /// With `warn`, warnings of a completed file are logged. With `fail`, an error file for it (or for all) is an
    /// error.
    ///
    /// # Errors
    /// The worker's error, [`ErrorCode::Format`] for an invalid status file, and read errors.
    pub fn status(&self, wal_file: &str, fail: bool, warn: bool) -> Result<bool> {
        let name = spool::ok_name(wal_file);
        if let Some(content) = self.read(&name)? {
            let status = Status::parse(&name, &content)?;
            if let Some(Status { code, message }) = status.filter(|_| warn) {
                if code == 0 {
                    engine::warn!("{message}");
                } else {
                    // An operator renamed an error file
                    engine::warn!(
                        "WAL segment '{wal_file}' was not pushed due to error [{code}] and was manually skipped: {message}"
                    );
                }
            }
            return Ok(true);
        }
        if fail {
            for name in [spool::error_name(Some(wal_file)), spool::error_name(None)] {
                if let Some(content) = self.read(&name)? {
                    return Err(match Status::parse(&name, &content)? {
                        Some(status) => status.to_error(),
                        None => Error::new(ErrorCode::Assert, format!("status file '{name}' has no content")),
                    });
                }
            }
        }
        Ok(false)
    }

    /// Returns whether the status "done" of a WAL file must be ignored.
    ///
    /// A status that is older than the file belongs to another file of that name: from a cluster that used the spool
    /// before, or from before a restore. The file's change time counts, because no copy of a cluster preserves it. If a
    /// status has a time in the future, the clock was set back since it was written, so its time says nothing. A status
    /// that can't be parsed was damaged in a crash.
    ///
    /// # Errors
    /// [`ErrorCode::FileOpen`] if either file can't be examined.
    pub(crate) fn is_stale(&self, wal_file: &str, path: &Path) -> Result<bool> {
        let examine = |path: &Path| -> Result<Option<std::fs::Metadata>> {
            match std::fs::metadata(path) {
                Ok(metadata) => Ok(Some(metadata)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => {
                    let text = format!("unable to get info for path/file '{}'", path.display());
                    Err(Error::from_io(ErrorCode::FileOpen, text, error))
                }
            }
        };
        let name = spool::ok_name(wal_file);
        let Some(state) = examine(&self.file(&name))? else { return Ok(false) };
        if state.len() > 0 && self.read(&name)?.is_some_and(|content| Status::parse(&name, &content).is_err()) {
            return Ok(true);
        }
        let Some(file) = examine(path)? else { return Ok(false) };
        let is_older = (state.mtime(), state.mtime_nsec()) < (file.ctime(), file.ctime_nsec());
        let limit = SystemTime::now() + CLOCK_DIFFERENCE_MAX;
        Ok(is_older || state.modified().is_ok_and(|modified| modified > limit))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.file(name);
        let mut content = Vec::new();
        let read =
            std::fs::File::open(&path).and_then(|file| file.take(spool::SIZE_MAX as u64).read_to_end(&mut content));
        match read {
            Ok(_) => Ok(Some(content)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let text = format!("unable to open file '{}' for read", path.display());
                Err(Error::from_io(ErrorCode::FileOpen, text, error))
            }
        }
    }

    /// Reports a file as done, with warnings for the process that asks for it.
    ///
    /// # Errors
    /// Errors of writing.
    pub(crate) fn write_ok(&self, wal_file: &str, warnings: &[String]) -> Result<()> {
        self.write(&spool::ok_name(wal_file), &spool::ok_content(warnings))
    }

    /// Reports a failure of a file (or of all, for `None`). A worker that was told to end has not failed: whoever waits
    /// for the file notices that the worker is gone and must not fail because of it.
    ///
    /// # Errors
    /// Errors of writing.
    pub(crate) fn write_error(&self, wal_file: Option<&str>, error: &Error) -> Result<()> {
        if engine::is_stop(error) {
            return Ok(());
        }
        self.write(&spool::error_name(wal_file), &spool::error_content(error.code, &error.to_string()))
    }

    /// Reports a failure of all files, if possible.
    pub fn tell_all(&self, error: &Error) {
        // If even this fails, nothing can tell PostgreSQL; its call then ends with a timeout
        if let Err(error) = self.write_error(None, error) {
            engine::error!(error.code, "{error}");
        }
    }

    /// Writes a file.
    ///
    /// # Errors
    /// Errors of writing.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.file(name);
        let mut writer = Box::new(PosixWriter::open(path.clone(), NOT_SYNCED)?);
        std::io::Write::write_all(&mut *writer, content).map_err(|error| {
            Error::from_io(ErrorCode::FileWrite, format!("unable to write '{}'", path.display()), error)
        })?;
        writer.finish()
    }

    /// Returns whether there is an error file for a file, or for all.
    ///
    /// # Errors
    /// [`ErrorCode::FileOpen`] if it can't be checked.
    pub(crate) fn has_error(&self, wal_file: &str) -> Result<bool> {
        Ok(self.exists(&spool::error_name(Some(wal_file)))? || self.exists(&spool::error_name(None))?)
    }

    /// Removes the error files that concern a file, so that only new errors are seen.
    ///
    /// # Errors
    /// [`ErrorCode::FileRemove`].
    pub(crate) fn clear_errors(&self, wal_file: &str) -> Result<()> {
        self.remove(&spool::error_name(Some(wal_file)))?;
        self.remove(&spool::error_name(None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAL: &str = "000000010000000000000001";

    fn spool() -> (tempfile::TempDir, Spool) {
        let dir = tempfile::tempdir().expect("dir");
        let spool = Spool::new(dir.path(), &"demo".parse().expect("stanza"), SpoolQueue::Out);
        spool.create().expect("create");
        (dir, spool)
    }

    #[test]
    fn status_without_files_is_not_done() {
        let (_dir, spool) = spool();
        assert!(!spool.status(WAL, true, true).expect("status"));
    }

    #[test]
    fn status_with_ok_is_done_whatever_the_errors() {
        let (_dir, spool) = spool();
        spool.write_error(None, &Error::new(ErrorCode::RepoInvalid, "bad")).expect("error");
        spool.write_ok(WAL, &[]).expect("ok");
        assert!(spool.status(WAL, true, true).expect("status"));
        spool.write_ok(WAL, &["a warning".to_owned()]).expect("ok");
        assert_eq!(std::fs::read(spool.file(&format!("{WAL}.ok"))).expect("read"), b"0\na warning");
    }

    #[test]
    fn status_with_error_fails_only_when_asked() {
        let (_dir, spool) = spool();
        spool.write_error(None, &Error::new(ErrorCode::RepoInvalid, "for all")).expect("error");
        assert!(!spool.status(WAL, false, true).expect("not asked"));
        assert_eq!(spool.status(WAL, true, true).expect_err("asked").code, ErrorCode::RepoInvalid);
        let own = Error::new(ErrorCode::ArchiveDuplicate, "own").hint("look");
        spool.write_error(Some(WAL), &own).expect("error");
        let error = spool.status(WAL, true, true).expect_err("asked");
        assert_eq!((error.code, error.to_string()), (ErrorCode::ArchiveDuplicate, "own\nHINT: look".to_owned()));
        spool.clear_errors(WAL).expect("clear");
        assert!(!spool.status(WAL, true, true).expect("cleared"));
    }

    #[test]
    fn end_of_a_worker_is_not_written_as_a_failure() {
        let (_dir, spool) = spool();
        let term = Error::new(ErrorCode::Term, "terminated by signal");
        spool.write_error(None, &term).expect("all");
        spool.write_error(Some(WAL), &term).expect("one");
        assert!(spool.list().expect("list").is_empty());
        assert!(!spool.status(WAL, true, true).expect("status"));
    }

    #[test]
    fn status_of_empty_error_file_is_an_error() {
        let (_dir, spool) = spool();
        std::fs::write(spool.file("global.error"), "").expect("write");
        assert_eq!(spool.status(WAL, true, true).expect_err("empty").code, ErrorCode::Assert);
    }

    #[test]
    fn state_from_before_the_wal_file_is_stale() {
        let (dir, spool) = spool();
        let path = dir.path().join(WAL);
        assert!(!spool.is_stale(WAL, &path).expect("neither"));
        std::fs::write(&path, "wal").expect("segment");
        spool.write_ok(WAL, &[]).expect("ok");
        assert!(!spool.is_stale(WAL, &path).expect("later"));
        // A copy that preserves the time of its content, as of a cluster that was moved here
        let state = std::fs::File::options().write(true).open(spool.file(&format!("{WAL}.ok"))).expect("open");
        state.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(60)).expect("time");
        let file = std::fs::File::options().write(true).open(&path).expect("open");
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(3600)).expect("time");
        assert!(spool.is_stale(WAL, &path).expect("earlier"));
    }

    #[test]
    fn state_from_before_the_clock_was_set_back_is_stale() {
        let (dir, spool) = spool();
        let path = dir.path().join(WAL);
        std::fs::write(&path, "wal").expect("segment");
        spool.write_ok(WAL, &[]).expect("ok");
        let state = std::fs::File::options().write(true).open(spool.file(&format!("{WAL}.ok"))).expect("open");
        for (seconds, is_stale) in [(0, false), (1, false), (60, true), (86_400, true)] {
            state.set_modified(SystemTime::now() + Duration::from_secs(seconds)).expect("time");
            assert_eq!(spool.is_stale(WAL, &path).expect("look"), is_stale, "{seconds}");
        }
    }

    #[test]
    fn state_that_is_damaged_is_stale() {
        let (dir, spool) = spool();
        let path = dir.path().join(WAL);
        std::fs::write(&path, "wal").expect("segment");
        for (content, is_stale) in
            [("", false), ("0\na warning", false), ("25\nskipped", false), ("\0\0", true), ("0", true)]
        {
            std::fs::write(spool.file(&format!("{WAL}.ok")), content).expect("state");
            assert_eq!(spool.is_stale(WAL, &path).expect("look"), is_stale, "{content:?}");
        }
    }

    #[test]
    fn list_without_directory_is_path_missing() {
        let (dir, spool) = spool();
        std::fs::remove_dir_all(dir.path().join("archive")).expect("remove");
        assert_eq!(spool.list().expect_err("missing").code, ErrorCode::PathMissing);
        spool.remove("x").expect("missing file");
    }
}
