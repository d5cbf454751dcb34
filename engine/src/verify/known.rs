//! Tracks which stored parts have been handed out to be checked, and the results.
//!
//! Later backups refer to files of earlier ones, and their block maps to parts of them. Each part is read once, and
//! everything that needs it gets the same result. A part that the holder's manifest describes differently is another
//! part and is read.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher;

use repo_format::hash::Sha1;

use super::file::{Fault, Part};

/// The result for a file from the parts that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Valid,
    Fault(Fault),
    /// The result of some part is not in.
    Waiting,
}

/// Parts of one stored file by their offsets: the end of each, with what is known about it.
type Parts<T> = BTreeMap<String, BTreeMap<u64, (u64, T)>>;

/// The parts that were given out.
#[derive(Debug, Default)]
pub(super) struct Known {
    hasher: RandomState,
    /// Hashes of parts and their expected values. A million files must not use much memory.
    given_out: HashSet<u64>,
    waiting: Parts<()>,
    faults: Parts<Fault>,
}

impl Known {
    /// Records that a part is handed out. Returns false if the same part was handed out before.
    pub fn add(&mut self, part: &Part, checksum: Sha1, size: Option<u64>) -> bool {
        let is_new = self.given_out.insert(self.hasher.hash_one((part, checksum.0, size)));
        if is_new {
            insert(&mut self.waiting, part, ());
        }
        is_new
    }

    /// Records the result of a part.
    pub fn settle(&mut self, part: &Part, fault: Option<Fault>) {
        if let Some(parts) = self.waiting.get_mut(&part.path) {
            parts.remove(&part.start);
            if parts.is_empty() {
                self.waiting.remove(&part.path);
            }
        }
        if let Some(fault) = fault {
            insert(&mut self.faults, part, fault);
        }
    }

    /// Returns the result of these parts. A part that was never handed out has no faults.
    pub fn outcome(&self, needs: &[Part]) -> Outcome {
        if let Some(fault) = needs.iter().find_map(|part| overlapping(&self.faults, part)) {
            Outcome::Fault(*fault)
        } else if needs.iter().any(|part| overlapping(&self.waiting, part).is_some()) {
            Outcome::Waiting
        } else {
            Outcome::Valid
        }
    }
}

fn insert<T>(parts: &mut Parts<T>, part: &Part, value: T) {
    parts.entry(part.path.clone()).or_default().insert(part.start, (part.end, value));
}

/// Returns the nearest part that overlaps this one. Stored parts do not overlap each other.
fn overlapping<'a, T>(parts: &'a Parts<T>, part: &Part) -> Option<&'a T> {
    let (_, (end, value)) = parts.get(&part.path)?.range(..part.end).next_back()?;
    (*end > part.start).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(path: &str, start: u64, end: u64) -> Part {
        Part { path: path.to_owned(), start, end }
    }

    fn give_out(known: &mut Known, part: &Part, size: u64) -> bool {
        known.add(part, Sha1([0; 20]), Some(size))
    }

    #[test]
    fn part_of_a_damaged_bundle_is_found_by_whoever_needs_it() {
        let mut known = Known::default();
        let (first, second) = (part("F/bundle/1", 0, 10), part("F/bundle/1", 10, 30));
        assert!(give_out(&mut known, &first, 10) && give_out(&mut known, &second, 20));
        assert!(!give_out(&mut known, &first, 10), "read once");
        let block = [part("F/bundle/1", 12, 20)];
        assert_eq!(known.outcome(&block), Outcome::Waiting);
        known.settle(&first, None);
        known.settle(&second, Some(Fault::Checksum));
        assert_eq!(known.outcome(&block), Outcome::Fault(Fault::Checksum));
        assert_eq!(known.outcome(&[part("F/bundle/1", 0, 10)]), Outcome::Valid);
        assert_eq!(known.outcome(&[part("F/bundle/1", 30, 40)]), Outcome::Valid);
        assert_eq!(known.outcome(&[part("F/bundle/2", 12, 20)]), Outcome::Valid);
        assert_eq!(known.outcome(&[]), Outcome::Valid);
    }

    #[test]
    fn part_that_should_have_another_checksum_is_read_again() {
        let mut known = Known::default();
        let whole = part("F/x", 0, u64::MAX);
        assert!(give_out(&mut known, &whole, 1));
        assert!(give_out(&mut known, &whole, 2));
    }
}
