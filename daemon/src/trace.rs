//! The trace of a job's process: whether it is running, and how it ended.
//!
//! The process locks the file as long as it lives, so a killed one is told from a running one, and writes its exit status
//! into it at the end. So the result is known even if no daemon was there to see it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use engine::{Error, ErrorCode, Result};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::world::Trace;

/// The largest size in bytes of a trace. Error messages are shorter.
const SIZE_MAX: u64 = 1 << 20;
const FILE_MODE: u32 = 0o640;
/// How long the lock is tried. Whoever looks at a trace has it for a moment.
const LOCK_MAX: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The trace of this process.
static OWN: Mutex<Option<File>> = Mutex::new(None);

/// Begins the trace of this process.
///
/// # Errors
/// [`ErrorCode::LockAcquire`] if another process of the job is running, [`ErrorCode::FileOpen`],
/// [`ErrorCode::FileWrite`].
pub fn begin(path: &Path) -> Result<()> {
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path);
    let file = open
        .map_err(|error| Error::from_io(ErrorCode::FileOpen, format!("unable to open '{}'", path.display()), error))?;
    if !lock(&file) {
        let text = format!("unable to lock '{}': the job is already running", path.display());
        return Err(Error::new(ErrorCode::LockAcquire, text));
    }
    write(&file, &json!({ "pid": std::process::id() })).map_err(|error| {
        Error::from_io(ErrorCode::FileWrite, format!("unable to write '{}'", path.display()), error)
    })?;
    *OWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    Ok(())
}

/// Locks the trace of a process that begins. Returns `false` if another process of the job is running.
fn lock(file: &File) -> bool {
    let end = Instant::now() + LOCK_MAX;
    while flock(file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(LOCK_PAUSE);
    }
    true
}

/// Writes how this process ends, if it has a trace. A failure does not change the result.
pub fn end(exit_status: u8, error: Option<&str>) {
    let own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = own.as_ref() {
        let content = json!({ "pid": std::process::id(), "exit_status": exit_status, "error": error });
        if let Err(error) = write(file, &content) {
            engine::warn!("unable to write the result of the job: {error}");
        }
    }
}

fn write(file: &File, content: &Value) -> io::Result<()> {
    let text = content.to_string();
    file.write_all_at(text.as_bytes(), 0)?;
    file.set_len(text.len() as u64)
}

/// Reads a trace. A missing one is that of a process that did not begin.
///
/// # Errors
/// [`ErrorCode::FileRead`]
pub(crate) fn read(path: &Path) -> Result<Trace> {
    let failed = |error| Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", path.display()), error);
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Trace::default()),
        file => file.map_err(failed)?,
    };
    let is_running = match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => false,
        Err(Errno::WOULDBLOCK) => true,
        Err(errno) => return Err(failed(errno.into())),
    };
    let mut bytes = Vec::new();
    (&mut file).take(SIZE_MAX).read_to_end(&mut bytes).map_err(failed)?;
    // A process that was killed may have left anything
    let value: Value = serde_json::from_str(&String::from_utf8_lossy(&bytes)).unwrap_or_default();
    let number = |name: &str| value.get(name).and_then(Value::as_i64);
    Ok(Trace {
        is_running,
        pid: number("pid").and_then(|pid| i32::try_from(pid).ok()),
        exit_status: number("exit_status").and_then(|status| u8::try_from(status).ok()),
        error: value.get("error").and_then(Value::as_str).map(str::to_owned),
    })
}

/// Waits until the process of a trace has ended, and returns the trace.
///
/// # Errors
/// The same as [`read`].
pub(crate) fn wait(path: &Path) -> Result<Trace> {
    let file = File::open(path)
        .map_err(|error| Error::from_io(ErrorCode::FileOpen, format!("unable to open '{}'", path.display()), error))?;
    flock(&file, FlockOperation::LockShared).map_err(|errno| {
        Error::from_io(ErrorCode::Kernel, format!("unable to lock '{}'", path.display()), errno.into())
    })?;
    drop(file);
    read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_that_began_while_somebody_looked_at_its_trace_was_taken_for_a_second_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.job");
        let file = File::create(&path).unwrap();
        // As `read` has it
        let looking = File::open(&path).unwrap();
        flock(&looking, FlockOperation::NonBlockingLockShared).unwrap();
        let looker = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(looking);
        });
        assert!(lock(&file));
        looker.join().unwrap();
    }

    #[test]
    fn trace_tells_a_running_process_from_one_that_ended_and_one_that_was_killed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.job");
        assert_eq!(read(&path).unwrap(), Trace::default());
        begin(&path).unwrap();
        let pid = i32::try_from(std::process::id()).ok();
        assert_eq!(read(&path).unwrap(), Trace { is_running: true, pid, ..Trace::default() });
        assert_eq!(begin(&path).unwrap_err().code, ErrorCode::LockAcquire);
        end(82, Some("it \"failed\""));
        // The end of the process unlocks the file
        OWN.lock().unwrap().take();
        let ended = Trace { pid, exit_status: Some(82), error: Some("it \"failed\"".to_owned()), is_running: false };
        assert_eq!(read(&path).unwrap(), ended);
        assert_eq!(wait(&path).unwrap(), ended);
        for damage in [&b"{\"pid\":"[..], b"\xff\xfe"] {
            std::fs::write(&path, damage).unwrap();
            assert_eq!(read(&path).unwrap(), Trace::default());
        }
        std::fs::write(&path, b"{\"exit_status\":25,\"error\":\"file '\xe4'\"}").unwrap();
        assert_eq!(read(&path).unwrap().exit_status, Some(25));
    }
}
