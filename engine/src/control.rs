//! Stop files, which prevent commands of this host from starting (pgBackRest `src/command/control`).

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use repo_format::layout::Stanza;
use repo_format::lock_file::{is_lock_name, stop_name};
use rustix::process::{Pid, Signal, kill_process};

use crate::lock::{LockStatus, read_holder, remove_unlocked};
use crate::storage::posix::{FILE_MODE, sync_path};
use crate::{Error, ErrorCode, Result};

/// Mode of the lock directory if `stop` creates it. Commands of another user in the group need access too.
const PATH_MODE: u32 = 0o770;

fn stop_file(lock_path: &Path, stanza: Option<&Stanza>) -> PathBuf {
    lock_path.join(stop_name(stanza))
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|e| {
        Error::from_io(ErrorCode::FileOpen, format!("unable to get info for path/file '{}'", path.display()), e)
    })
}

/// Returns whether there is a stop file for exactly this stanza (or for all).
///
/// # Errors
/// [`ErrorCode::FileOpen`] if the file can't be checked.
pub(crate) fn is_stopped(lock_path: &Path, stanza: Option<&Stanza>) -> Result<bool> {
    exists(&stop_file(lock_path, stanza))
}

/// Allows commands to run again.
///
/// # Errors
/// [`ErrorCode::FileRemove`].
pub fn start(lock_path: &Path, stanza: Option<&Stanza>) -> Result<()> {
    if !is_stopped(lock_path, stanza)? {
        let of = stanza.map_or_else(String::new, |stanza| format!(" for stanza {stanza}"));
        crate::warn!("stop file does not exist{of}");
        return Ok(());
    }
    remove_stop_file(lock_path, stanza)
}

/// Removes the stop file if there is one.
///
/// # Errors
/// [`ErrorCode::FileRemove`].
pub(crate) fn remove_stop_file(lock_path: &Path, stanza: Option<&Stanza>) -> Result<()> {
    let path = stop_file(lock_path, stanza);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(Error::from_io(ErrorCode::FileRemove, format!("unable to remove file '{}'", path.display()), e))
        }
        _ => Ok(()),
    }
}

/// Prevents commands from starting. With `force`, it also terminates running commands.
///
/// # Errors
/// The stop file can't be created.
pub fn stop(lock_path: &Path, stanza: Option<&Stanza>, force: bool) -> Result<()> {
    if is_stopped(lock_path, stanza)? {
        let of = stanza.map_or_else(|| "all stanzas".to_owned(), |stanza| format!("stanza {stanza}"));
        crate::warn!("stop file already exists for {of}");
        return Ok(());
    }
    make_stop_file(lock_path, stanza)?;
    if force { terminate(lock_path, stanza) } else { Ok(()) }
}

fn make_stop_file(lock_path: &Path, stanza: Option<&Stanza>) -> Result<()> {
    DirBuilder::new().recursive(true).mode(PATH_MODE).create(lock_path).map_err(|e| {
        Error::from_io(ErrorCode::PathCreate, format!("unable to create path '{}'", lock_path.display()), e)
    })?;
    let path = stop_file(lock_path, stanza);
    let name = path.display();
    // Not truncated: another process may have created it in the meantime
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(&path)
        .map_err(|e| Error::from_io(ErrorCode::FileOpen, format!("unable to open file '{name}' for write"), e))?;
    file.sync_all()
        .map_err(|e| Error::from_io(ErrorCode::FileSync, format!("unable to sync file '{name}' after write"), e))?;
    sync_path(lock_path)
}

/// Sends SIGTERM once to every process that holds a lock (of the stanza, or any).
fn terminate(lock_path: &Path, stanza: Option<&Stanza>) -> Result<()> {
    let list_error = |e| {
        Error::from_io(ErrorCode::PathOpen, format!("unable to list file info for path '{}'", lock_path.display()), e)
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(lock_path).map_err(list_error)? {
        // A name that is not UTF-8 is none of ours
        names.extend(entry.map_err(list_error)?.file_name().into_string().ok());
    }
    names.sort();
    let mut signalled = BTreeSet::new();
    for name in names.iter().filter(|name| is_lock_name(name, stanza)) {
        let path = lock_path.join(name);
        let LockStatus::Valid(content) = read_holder(&path) else {
            // Only if no process holds the lock. A process that has just taken it would otherwise hold an invisible
            // lock
            remove_unlocked(&path);
            crate::warn!("unable to read lock file {}/{name}", lock_path.display());
            continue;
        };
        // Removed, so that the process is not signalled again; it holds the lock until it ends
        let _ = fs::remove_file(&path);
        if !signalled.insert(content.process_id) {
            continue;
        }
        // Zero and negative numbers would mean process groups
        let pid = Some(content.process_id).filter(|id| *id > 0).and_then(Pid::from_raw);
        match pid.map(|pid| kill_process(pid, Signal::TERM)) {
            Some(Ok(())) => crate::info!("sent term signal to process {}", content.process_id),
            _ => crate::warn!("unable to send term signal to process {}", content.process_id),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::host_locks::LocalLocks;

    fn check_stop(lock_path: &Path, stanza: Option<&Stanza>) -> Result<()> {
        LocalLocks::at(lock_path).check_stop(stanza)
    }

    #[test]
    fn stop_then_check_then_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let stanza = "main".parse::<Stanza>().unwrap();
        check_stop(&path, Some(&stanza)).unwrap();
        stop(&path, Some(&stanza), false).unwrap();
        stop(&path, Some(&stanza), false).unwrap();
        assert_eq!(fs::metadata(path.join("main.stop")).unwrap().len(), 0);
        assert_eq!(fs::metadata(path.join("main.stop")).unwrap().permissions().mode() & 0o777, 0o640);
        let error = check_stop(&path, Some(&stanza)).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::Stop, "stop file exists for stanza main"));
        check_stop(&path, Some(&"other".parse::<Stanza>().unwrap())).unwrap();
        start(&path, Some(&stanza)).unwrap();
        start(&path, Some(&stanza)).unwrap();
        check_stop(&path, Some(&stanza)).unwrap();
    }

    #[test]
    fn stop_for_all_stops_every_stanza() {
        let dir = tempfile::tempdir().unwrap();
        stop(dir.path(), None, true).unwrap();
        let error = check_stop(dir.path(), Some(&"main".parse::<Stanza>().unwrap())).unwrap_err();
        assert_eq!(error.message, "stop file exists for all stanzas");
    }

    #[test]
    fn stop_force_removes_stale_locks_of_the_stanza_only() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["main-backup-1.lock", "main2-backup-1.lock", "main-2-backup-1.lock", "main-note.txt"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        stop(dir.path(), Some(&"main".parse::<Stanza>().unwrap()), true).unwrap();
        assert!(!dir.path().join("main-backup-1.lock").exists());
        assert!(dir.path().join("main2-backup-1.lock").exists());
        assert!(dir.path().join("main-2-backup-1.lock").exists());
        assert!(dir.path().join("main-note.txt").exists());
    }

    #[test]
    fn stop_force_ends_the_holder_of_a_lock_once() {
        use std::os::unix::process::ExitStatusExt;

        let dir = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let content = format!(r#"{{"execId":"1-00000000","pid":{}}}"#, child.id());
        let held: Vec<fs::File> = ["main-archive-1.lock", "main-backup-1.lock"]
            .iter()
            .map(|name| {
                let path = dir.path().join(name);
                fs::write(&path, &content).unwrap();
                let file = fs::File::open(path).unwrap();
                rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
                file
            })
            .collect();
        stop(dir.path(), Some(&"main".parse::<Stanza>().unwrap()), true).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(15));
        assert!(!dir.path().join("main-backup-1.lock").exists());
        drop(held);
    }

    #[test]
    fn stop_force_does_not_end_a_process_whose_lock_file_is_only_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("main-backup-1.lock");
        let mut bystander = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        // A file that a dead process has left, whose process id now belongs to another process. It is being read under
        // an exclusive lock, as pgBackRest reads it
        fs::write(&path, format!(r#"{{"execId":"1-00000000","pid":{}}}"#, bystander.id())).unwrap();
        let reading = fs::File::open(&path).unwrap();
        rustix::fs::flock(&reading, rustix::fs::FlockOperation::LockExclusive).unwrap();
        let reader = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(3));
            drop(reading);
        });
        stop(dir.path(), Some(&"main".parse::<Stanza>().unwrap()), true).unwrap();
        reader.join().unwrap();
        let ended = bystander.try_wait().unwrap();
        let _ = bystander.kill();
        let _ = bystander.wait();
        assert!(ended.is_none(), "{ended:?}");
    }
}
