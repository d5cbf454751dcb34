//! The limit of files that this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit so that this many files can be open, or as far as the system allows. Returns the limit.
pub fn raise(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    let Some(new) = new_limit(limit, wanted) else { return current };
    let is_raised = setrlimit(Resource::Nofile, Rlimit { current: Some(new), ..limit }).is_ok();
    if is_raised { new } else { current }
}

/// Returns the limit to set, if the current one is too low.
fn new_limit(limit: Rlimit, wanted: u64) -> Option<u64> {
    let is_enough = limit.current.is_none_or(|current| current >= wanted);
    (!is_enough).then(|| limit.maximum.map_or(wanted, |maximum| maximum.min(wanted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_is_raised_only_where_it_is_too_low_and_no_further_than_allowed() {
        let limit = |current, maximum| Rlimit { current: Some(current), maximum };
        assert_eq!(new_limit(limit(1024, Some(4096)), 515), None);
        assert_eq!(new_limit(limit(1024, Some(4096)), 2512), Some(2512));
        assert_eq!(new_limit(limit(1024, Some(4096)), 10_000), Some(4096));
        assert_eq!(new_limit(limit(1024, None), 10_512), Some(10_512));
        assert_eq!(new_limit(Rlimit { current: None, maximum: None }, 10_000), None);
    }
}
