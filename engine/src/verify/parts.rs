//! Results of stored parts, for all files that need them.
//!
//! Later backups refer to files of earlier ones, and their block maps to parts of them. Each part is read once, and
//! everything that needs it gets the same result.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap, HashSet};
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

/// Ranges by the hash of their path: the end of each by its start.
type Ranges = HashMap<u64, BTreeMap<u64, u64>>;

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
    /// Those of them that contain blocks.
    left_blocks: Ranges,
    /// The parts with blocks that were handed out.
    blocks: Ranges,
    /// Hashes of parts that are good, but not all that their block maps refer to.
    open_maps: HashMap<u64, OpenMap>,
}

/// What is not known about the blocks that the map of a good file refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenMap {
    /// The map was not read, so that they may be anywhere.
    NotRead,
    /// Nobody checks some of them.
    Unchecked,
}

impl PartResults {
    /// Records that a part is handed out.
    pub fn begin(&mut self, part: &StoredPart, has_blocks: bool) {
        insert(&mut self.waiting, part, ());
        if has_blocks {
            let hash = self.hasher.hash_one(&part.path);
            self.blocks.entry(hash).or_default().insert(part.start, part.end);
        }
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

    /// Records that nothing is known about a part.
    pub fn leave(&mut self, part: &StoredPart) {
        self.settle(part, None);
        self.left.insert(self.hasher.hash_one(part));
        let hash = self.hasher.hash_one(&part.path);
        if self.blocks.contains_key(&hash) {
            self.left_blocks.entry(hash).or_default().insert(part.start, part.end);
        }
    }

    /// Records that a part is good, but not all that its block map refers to.
    pub fn set_open_map(&mut self, part: &StoredPart, open: OpenMap) {
        self.open_maps.insert(self.hasher.hash_one(part), open);
    }

    /// Returns what is not known about the blocks that the map of a part refers to.
    pub fn open_map(&self, part: &StoredPart) -> Option<OpenMap> {
        if self.open_maps.is_empty() { None } else { self.open_maps.get(&self.hasher.hash_one(part)).copied() }
    }

    /// Returns the stored files in which something is bad, by path.
    pub fn faulty_paths(&self) -> impl Iterator<Item = &str> {
        self.faults.keys().map(String::as_str)
    }

    /// Returns what is known about a file that needs these parts.
    pub fn standing(&self, needs: &[StoredPart]) -> Standing {
        if let Some(fault) = needs.iter().find_map(|part| overlapping(&self.faults, part)) {
            Standing::Fault(*fault)
        } else if needs.iter().any(|part| overlapping(&self.waiting, part).is_some()) {
            Standing::Waiting
        } else if !self.left.is_empty() && needs.iter().any(|part| self.is_left(part)) {
            Standing::Left
        } else {
            Standing::Valid
        }
    }

    fn is_left(&self, part: &StoredPart) -> bool {
        self.left.contains(&self.hasher.hash_one(part)) || self.is_in(&self.left_blocks, part)
    }

    /// Returns whether the blocks that a map refers to are all in parts that were handed out. If the manifest of the backup
    /// that holds them can't be used, nobody checks them.
    pub fn knows_blocks(&self, needs: &[StoredPart]) -> bool {
        needs.iter().all(|part| self.is_in(&self.blocks, part))
    }

    fn is_in(&self, ranges: &Ranges, part: &StoredPart) -> bool {
        let Some(ranges) = ranges.get(&self.hasher.hash_one(&part.path)) else { return false };
        ranges.range(..=part.start).next_back().is_some_and(|(_, end)| *end >= part.end)
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
        parts.begin(&first, false);
        parts.begin(&second, true);
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

    #[test]
    fn block_in_a_part_that_nobody_checks_is_not_known() {
        let mut parts = PartResults::default();
        let (plain, blocks) = (part("F/bundle/1", 0, 10), part("F/bundle/1", 10, 30));
        parts.begin(&plain, false);
        parts.begin(&blocks, true);
        parts.begin(&part("F/a.pgbi", 0, u64::MAX), true);
        for (need, expected) in [
            (part("F/bundle/1", 10, 30), true),
            (part("F/bundle/1", 12, 20), true),
            (part("F/bundle/1", 12, 31), false),
            (part("F/bundle/1", 2, 5), false),
            (part("F/bundle/2", 12, 20), false),
            (part("F/a.pgbi", 500, 600), true),
        ] {
            assert_eq!(parts.knows_blocks(std::slice::from_ref(&need)), expected, "{need:?}");
        }
        assert!(parts.knows_blocks(&[]));
    }

    #[test]
    fn block_in_a_part_that_is_left_is_left() {
        let mut parts = PartResults::default();
        let (first, second) = (part("F/bundle/1", 0, 10), part("F/bundle/1", 10, 30));
        for part in [&first, &second] {
            parts.begin(part, true);
        }
        parts.settle(&first, None);
        parts.leave(&second);
        assert_eq!(parts.standing(&[part("F/bundle/1", 12, 20)]), Standing::Left);
        assert_eq!(parts.standing(&[part("F/bundle/1", 2, 8)]), Standing::Valid);
    }
}
