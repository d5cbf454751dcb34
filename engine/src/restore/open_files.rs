//! Ensures that the process may open enough files. A restore keeps every target directory open, and a cluster may have
//! thousands of tablespaces.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{Error, ErrorCode, Result};

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
    let limit = getrlimit(Resource::Nofile);
    let Some(new) = new_limit(limit, directories) else { return Ok(()) };
    let is_raised = setrlimit(Resource::Nofile, Rlimit { current: Some(new), ..limit }).is_ok();
    let usable = if is_raised { new } else { limit.current.unwrap_or(u64::MAX) };
    if usable >= directories.saturating_add(OTHERS_MIN) {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::PathOpen,
        format!("unable to keep {directories} target directories open: the limit is {usable} open files"),
    )
    .hint("raise the hard limit of open files (ulimit -Hn)."))
}

/// Returns the limit to set, if the current one is too low.
fn new_limit(limit: Rlimit, directories: u64) -> Option<u64> {
    let wanted = directories.saturating_add(OTHERS);
    let is_enough = limit.current.is_none_or(|current| current >= wanted);
    (!is_enough).then(|| limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_raised_only_where_it_is_too_low_and_no_further_than_allowed() {
        let limit = |current, maximum| Rlimit { current: Some(current), maximum };
        assert_eq!(new_limit(limit(1024, Some(4096)), 3), None);
        assert_eq!(new_limit(limit(1024, Some(4096)), 2000), Some(2512));
        assert_eq!(new_limit(limit(1024, Some(4096)), 10_000), Some(4096));
        assert_eq!(new_limit(limit(1024, None), 10_000), Some(10_512));
        assert_eq!(new_limit(Rlimit { current: None, maximum: None }, 10_000), None);
    }

    #[test]
    fn more_directories_than_the_system_allows_are_refused() {
        assert_eq!(allow(usize::MAX).unwrap_err().code, ErrorCode::PathOpen);
    }
}
