//! Results of stored parts, for all files that need them.
//!
//! Later backups refer to files of earlier ones, and their block maps to parts of them. Each part is read once, and
//! everything that needs it gets the same result.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher;

use super::file::{FileFault, StoredPart};

/// What is known about a file from the parts that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Valid,
    Fault(FileFault),
    /// The result of some part is not in.
    Waiting,
    /// Nothing is known about a part, and it is not read.
    Left,
}

/// Parts of one stored file by their offsets: the end of each, with what is known about it.
type Parts<T> = BTreeMap<String, BTreeMap<u64, (u64, T)>>;

/// The parts that were handed out to be checked.
#[derive(Debug, Default)]
pub(super) struct PartResults {
    waiting: Parts<()>,
    faults: Parts<FileFault>,
    hasher: RandomState,
    /// Hashes of the parts that are not read, which may be a million.
    left: HashSet<u64>,
}

impl PartResults {
    /// Records that a part is handed out.
    pub fn begin(&mut self, part: &StoredPart) {
        insert(&mut self.waiting, part, ());
    }

    /// Records the result of a part.
    pub fn settle(&mut self, part: &StoredPart, fault: Option<FileFault>) {
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

    /// Records that a part is not read.
    pub fn leave(&mut self, part: &StoredPart) {
        self.settle(part, None);
        self.left.insert(self.hasher.hash_one(part));
    }

    /// Whether some part is bad.
    pub fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    /// Returns what is known about a file that needs these parts. A part that was never handed out has no faults.
    pub fn standing(&self, needs: &[StoredPart]) -> Standing {
        if let Some(fault) = needs.iter().find_map(|part| overlapping(&self.faults, part)) {
            Standing::Fault(*fault)
        } else if needs.iter().any(|part| overlapping(&self.waiting, part).is_some()) {
            Standing::Waiting
        } else if !self.left.is_empty() && needs.iter().any(|part| self.left.contains(&self.hasher.hash_one(part))) {
            Standing::Left
        } else {
            Standing::Valid
        }
    }
}

fn insert<T>(parts: &mut Parts<T>, part: &StoredPart, value: T) {
    parts.entry(part.path.clone()).or_default().insert(part.start, (part.end, value));
}

/// Returns the nearest part that overlaps this one. Stored parts do not overlap each other.
fn overlapping<'a, T>(parts: &'a Parts<T>, part: &StoredPart) -> Option<&'a T> {
    let (_, (end, value)) = parts.get(&part.path)?.range(..part.end).next_back()?;
    (*end > part.start).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(path: &str, start: u64, end: u64) -> StoredPart {
        StoredPart { path: path.to_owned(), start, end }
    }

    #[test]
    fn part_of_a_damaged_bundle_is_found_by_all_that_need_it() {
        let mut parts = PartResults::default();
        let (first, second) = (part("F/bundle/1", 0, 10), part("F/bundle/1", 10, 30));
        parts.begin(&first);
        parts.begin(&second);
        let block = [part("F/bundle/1", 12, 20)];
        assert_eq!(parts.standing(&block), Standing::Waiting);
        parts.settle(&first, None);
        parts.settle(&second, Some(FileFault::Checksum));
        assert_eq!(parts.standing(&block), Standing::Fault(FileFault::Checksum));
        for valid in [part("F/bundle/1", 0, 10), part("F/bundle/1", 30, 40), part("F/bundle/2", 12, 20)] {
            assert_eq!(parts.standing(&[valid]), Standing::Valid);
        }
        assert_eq!(parts.standing(&[]), Standing::Valid);
    }
}
