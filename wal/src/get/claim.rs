//! The temporary file of one call. Only that call can move it to the destination.
//!
//! An `archive-get` can outlive the server that called it. The next server then asks for another segment under the same
//! destination (`RECOVERYXLOG`). So every call uses a temporary name of its own. It creates the file before it looks
//! for anything, and then removes the files of all other calls. An earlier call finds its file gone and fails, instead
//! of replacing what the later call has checked.
//!
//! On a busy machine, where the program starts slowly, the call of an earlier server may be the one that begins later.
//! Then the call that somebody waits for loses its file. It begins again ([`Caller::still_waits`]), because PostgreSQL
//! would take its failure for the end of the WAL.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{ErrorKind, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};

use engine::storage::posix::FILE_MODE;
use engine::{Error, ErrorCode, Result};
use repo_format::layout::TEMP_SUFFIX;

/// Hexadecimal digits that make a temporary name unique.
const ID_DIGITS: usize = 16;

/// Returns whether `name` is a temporary name of the file `of`: either rbr's own, or pgBackRest's fixed name.
pub fn is_temporary(name: &[u8], of: &[u8]) -> bool {
    let middle = name.strip_prefix(of).and_then(|rest| rest.strip_suffix(TEMP_SUFFIX.as_bytes()));
    match middle {
        Some([]) => true,
        Some([b'.', id @ ..]) => id.len() == ID_DIGITS && id.iter().all(u8::is_ascii_hexdigit),
        _ => false,
    }
}

/// A file that will become `destination`. Dropping it earlier removes it.
#[derive(Debug)]
pub struct DestinationClaim {
    destination: PathBuf,
    path: PathBuf,
    /// The open file, or the reason why there is none. A caller that needs no file never sees the reason.
    file: Option<Result<File>>,
}

impl DestinationClaim {
    /// Creates a new file beside `destination` and removes the files of other calls there.
    pub fn new(destination: &Path) -> Self {
        let path = temporary(destination);
        // In this order, because then at least one of two calls that begin together sees the other's file
        let file = create(&path, destination).and_then(|file| remove_others(destination, &path).map(|()| file));
        DestinationClaim { destination: destination.to_owned(), path, file: Some(file) }
    }

    /// Returns the empty file.
    ///
    /// # Errors
    /// It could not be created or emptied.
    pub fn begin(&mut self) -> Result<&mut File> {
        if !matches!(self.file, Some(Ok(_))) {
            return Err(self.no_file());
        }
        let Some(Ok(file)) = &mut self.file else {
            return Err(Error::new(ErrorCode::Assert, "a temporary file is not open"));
        };
        let emptied = file.set_len(0).and_then(|()| file.rewind());
        let failed = |error| Error::from_io(ErrorCode::FileWrite, cannot_write(&self.path), error);
        emptied.map(|()| file).map_err(failed)
    }

    /// The reason why there is no file.
    fn no_file(&mut self) -> Error {
        match self.file.take() {
            Some(Err(error)) => error,
            _ => Error::new(ErrorCode::FileOpen, format!("temporary file '{}' is not open", self.path.display())),
        }
    }

    /// The temporary name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the content by another file, which is moved, or copied from another file system and then removed.
    ///
    /// # Errors
    /// [`ErrorCode::FileMove`], [`ErrorCode::FileWrite`], and those of creating the file. `from` then stays.
    pub fn take(&mut self, from: &Path) -> Result<()> {
        if !matches!(self.file, Some(Ok(_))) {
            return Err(self.no_file());
        }
        // A rename would recreate the name that a later call has removed
        self.check_is_there()?;
        match std::fs::rename(from, &self.path) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => {}
            Err(error) => return Err(cannot_move(from, &self.path, error)),
            Ok(()) => return Ok(()),
        }
        let path = self.path.clone();
        let failed = |error| {
            let text = format!("unable to copy '{}' to '{}'", from.display(), path.display());
            Error::from_io(ErrorCode::FileWrite, text, error)
        };
        let mut source = File::open(from).map_err(failed)?;
        let size = source.metadata().map_err(failed)?.len();
        let copied = std::io::copy(&mut source, self.begin()?).map_err(failed)?;
        if copied != size {
            return Err(failed(std::io::Error::other(format!("{copied} of {size} byte(s) were copied"))));
        }
        // The caller has the content; the next cleanup removes a file that stays
        let _ = std::fs::remove_file(from);
        Ok(())
    }

    fn check_is_there(&self) -> Result<()> {
        match self.path.symlink_metadata() {
            Ok(_) => Ok(()),
            Err(error) => Err(cannot_move(&self.path, &self.destination, error)),
        }
    }

    /// Syncs the content to disk.
    ///
    /// # Errors
    /// [`ErrorCode::FileSync`].
    pub fn sync(&self) -> Result<()> {
        File::open(&self.path).and_then(|file| file.sync_all()).map_err(|error| {
            Error::from_io(ErrorCode::FileSync, format!("unable to sync file '{}'", self.path.display()), error)
        })
    }

    /// Renames the file to its final name.
    ///
    /// # Errors
    /// [`ErrorCode::FileMove`], also if a later call has removed the file.
    pub fn finish(mut self) -> Result<()> {
        std::fs::rename(&self.path, &self.destination)
            .map_err(|error| cannot_move(&self.path, &self.destination, error))?;
        self.file = None;
        Ok(())
    }
}

impl Drop for DestinationClaim {
    fn drop(&mut self) {
        if matches!(self.file, Some(Ok(_))) {
            // A file that stays is removed by the next call
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn temporary(destination: &Path) -> PathBuf {
    let id = RandomState::new().build_hasher().finish();
    let mut name = destination.as_os_str().to_owned();
    name.push(OsString::from(format!(".{id:0ID_DIGITS$x}{TEMP_SUFFIX}")));
    PathBuf::from(name)
}

fn create(path: &Path, destination: &Path) -> Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            let text = format!("unable to open file '{}' for write in missing path", destination.display());
            Error::new(ErrorCode::FileMissing, text).cause(error)
        }
        _ => Error::from_io(ErrorCode::FileOpen, format!("unable to open file '{}' for write", path.display()), error),
    })
}

/// Returns whether an error says that another call has removed the claim.
pub fn is_lost(error: &Error) -> bool {
    let cause = error.source.as_ref().and_then(|source| source.downcast_ref::<std::io::Error>());
    error.code == ErrorCode::FileMove && cause.is_some_and(|cause| cause.kind() == ErrorKind::NotFound)
}

/// How often a call begins again.
const BEGIN_AGAIN_MAX: u32 = 3;

/// The process that called this one.
#[derive(Debug)]
pub struct Caller {
    process: u32,
    begun_again: u32,
}

impl Caller {
    /// Returns the current parent process.
    pub fn now() -> Self {
        Caller { process: parent_id(), begun_again: 0 }
    }

    /// Returns whether a call that lost its claim may begin again: its caller still exists and it has not begun again
    /// too often.
    pub fn still_waits(&mut self) -> bool {
        self.begun_again += 1;
        // The init process adopts processes whose caller has ended
        self.begun_again <= BEGIN_AGAIN_MAX && self.process != 1 && self.process == parent_id()
    }
}

/// Removes the temporary files of other calls for the same destination.
fn remove_others(destination: &Path, own: &Path) -> Result<()> {
    let (Some(directory), Some(name)) = (destination.parent(), destination.file_name()) else { return Ok(()) };
    let failed = |path: &Path, error| {
        Error::from_io(
            ErrorCode::FileRemove,
            format!("unable to remove other temporary files beside '{}'", path.display()),
            error,
        )
    };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        // Creating the file reports this
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(destination, error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| failed(destination, error))?;
        let other = entry.file_name();
        if !is_temporary(other.as_bytes(), name.as_bytes()) || own.file_name() == Some(&other) {
            continue;
        }
        match std::fs::remove_file(entry.path()) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&entry.path(), error)),
            _ => {}
        }
    }
    Ok(())
}

fn cannot_write(path: &Path) -> String {
    format!("unable to write '{}'", path.display())
}

fn cannot_move(from: &Path, to: &Path, error: std::io::Error) -> Error {
    let text = format!("unable to move '{}' to '{}'", from.display(), to.display());
    Error::from_io(ErrorCode::FileMove, text, error)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(dir)
            .expect("list")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("name"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn earlier_call_cannot_change_what_a_later_one_has_got() {
        let dir = tempfile::tempdir().expect("dir");
        let destination = dir.path().join("RECOVERYXLOG");
        let mut earlier = DestinationClaim::new(&destination);
        earlier.begin().expect("file").write_all(b"of the ").expect("write");
        let mut later = DestinationClaim::new(&destination);
        later.begin().expect("file").write_all(b"of the later call").expect("write");
        later.finish().expect("finish");
        // The earlier one still has its file open
        let Some(Ok(file)) = &mut earlier.file else { panic!("no file") };
        file.write_all(b"earlier call").expect("write");
        assert_eq!(earlier.finish().expect_err("outlived").code, ErrorCode::FileMove);
        assert_eq!(std::fs::read(&destination).expect("content"), b"of the later call");
        assert_eq!(names(dir.path()), ["RECOVERYXLOG"]);
    }

    #[test]
    fn earlier_call_cannot_move_a_file_of_the_spool_over_what_a_later_one_has_got() {
        let dir = tempfile::tempdir().expect("dir");
        let (destination, spooled) = (dir.path().join("RECOVERYXLOG"), dir.path().join("spooled"));
        std::fs::write(&spooled, "earlier").expect("spool");
        let mut earlier = DestinationClaim::new(&destination);
        let _later = DestinationClaim::new(&destination);
        assert_eq!(earlier.take(&spooled).expect_err("outlived").code, ErrorCode::FileMove);
        assert!(spooled.exists() && !destination.exists());
    }

    #[test]
    fn what_a_killed_call_left_goes_and_other_files_stay() {
        let dir = tempfile::tempdir().expect("dir");
        let left = format!("RECOVERYXLOG.{:016x}{TEMP_SUFFIX}", 5);
        let fixed = format!("RECOVERYXLOG{TEMP_SUFFIX}");
        let other = format!("RECOVERYXLOG.backup{TEMP_SUFFIX}");
        for name in [&left, &fixed, &other] {
            std::fs::write(dir.path().join(name), "").expect("write");
        }
        drop(DestinationClaim::new(&dir.path().join("RECOVERYXLOG")));
        assert_eq!(names(dir.path()), [other]);
    }

    #[test]
    fn missing_path_is_an_error_only_for_whoever_writes() {
        let dir = tempfile::tempdir().expect("dir");
        let mut claim = DestinationClaim::new(&dir.path().join("missing/RECOVERYXLOG"));
        assert_eq!(claim.begin().expect_err("missing").code, ErrorCode::FileMissing);
    }

    #[test]
    fn only_a_claim_that_is_gone_is_lost() {
        let dir = tempfile::tempdir().expect("dir");
        let destination = dir.path().join("RECOVERYXLOG");
        let earlier = DestinationClaim::new(&destination);
        let later = DestinationClaim::new(&destination);
        assert!(is_lost(&earlier.finish().expect_err("removed")));
        // A directory occupies the destination
        std::fs::create_dir(&destination).expect("directory");
        assert!(!is_lost(&later.finish().expect_err("not movable")));
    }

    #[test]
    fn caller_that_is_there_waits_a_few_times_and_the_first_process_never() {
        let mut caller = Caller::now();
        let waits: Vec<bool> = (0..=BEGIN_AGAIN_MAX).map(|_| caller.still_waits()).collect();
        assert_eq!(waits, [true, true, true, false]);
        let of = |process| Caller { process, begun_again: 0 };
        assert!(!of(1).still_waits() && !of(parent_id() + 1).still_waits());
    }
}
