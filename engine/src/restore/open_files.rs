//! Ensures that the process may open enough files. A restore keeps every target directory open, and a cluster may have
//! thousands of tablespaces.

use crate::{Error, ErrorCode, Result, file_limit};

/// Open files besides the target directories: files that are read and written, connections and logs.
const OTHERS: u64 = 512;
/// The minimum number of those.
const OTHERS_MIN: u64 = 64;

/// Raises the limit so that this many directories can be open.
///
/// # Errors
/// [`ErrorCode::PathOpen`] if the limit can't be raised that far.
pub(super) fn allow(directories: usize) -> Result<()> {
    let directories = directories as u64;
    let usable = file_limit::raise(directories.saturating_add(OTHERS));
    if usable >= directories.saturating_add(OTHERS_MIN) {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::PathOpen,
        format!("unable to keep {directories} target directories open: the limit is {usable} open files"),
    )
    .hint("raise the hard limit of open files (ulimit -Hn)."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_directories_than_the_system_allows_are_refused() {
        assert_eq!(allow(usize::MAX).unwrap_err().code, ErrorCode::PathOpen);
    }
}
