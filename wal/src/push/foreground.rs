//! The call of PostgreSQL when a worker pushes in the background: it looks for the segment's state in the spool, starts the
//! worker when there is none, and waits.
//!
//! Where the worker has already pushed the segment, the whole way is one look into the spool.

use std::path::Path;
use std::time::{Duration, Instant};

use engine::{CancelToken, Error, ErrorCode, Result};

use crate::background::Background;
use crate::path::file_name;

/// A worker that has gone without a word about the file, most likely killed, is replaced after this time. Long enough for a new
/// worker to take its lock.
const LAUNCH_AGAIN: Duration = Duration::from_secs(2);

/// Waits until the worker has pushed a file; `launch` starts a worker that pushes from the directory given.
///
/// # Errors
/// The error that the worker met with this file (or with all), [`ErrorCode::ArchiveTimeout`] when it does not come to it in
/// time, and those of the spool, the lock and `launch`.
pub fn push(
    background: &Background,
    wal_file: &Path,
    launch: impl Fn(&Path) -> Result<()>,
    cancel: &CancelToken,
) -> Result<()> {
    let name = file_name(wal_file)?;
    let spool = &background.spool;
    let mut poll = background.poll();
    let mut launched: Option<Instant> = None;
    let mut first = true;
    // Errors of the first look are those of an earlier worker, which the new one may have got rid of
    while !spool.status(name, !first, true)? {
        let may_launch = launched.is_none_or(|launched| launched.elapsed() > LAUNCH_AGAIN);
        if may_launch && let Some(lock) = background.try_lock()? {
            // Made here so that PostgreSQL's log tells why it can't be made
            spool.create()?;
            spool.clear_errors(name)?;
            drop(lock);
            launch(wal_file.parent().unwrap_or(wal_file))?;
            launched = Some(Instant::now());
        }
        first = false;
        if !poll.more(cancel)? {
            let text = format!(
                "unable to push WAL file '{name}' to the archive asynchronously after {} second(s)",
                background.timeout_text()
            );
            return Err(Error::new(ErrorCode::ArchiveTimeout, text).hint(background.log_hint()));
        }
    }
    engine::info!("pushed WAL file '{name}' to the archive asynchronously");
    Ok(())
}
