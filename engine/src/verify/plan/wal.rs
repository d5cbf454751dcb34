//! The steps about a directory of WAL segments, and which names are segments.

use repo_format::cipher::Cipher;
use repo_format::compress::CompressType;
use repo_format::hash::Sha1;
use repo_format::layout::RepoPath;
use repo_format::wal_name::{SEGMENT_DIR_LEN, SEGMENT_NAME_LEN};

use super::{CheckStep, NamedCheck};
use crate::Result;
use crate::storage::ReadRange;
use crate::verify::file::FileCheck;

/// A directory of WAL segments.
pub(in crate::verify) struct WalDir {
    pub path: RepoPath,
    /// How messages name it: below the archives of the stanza.
    pub name: String,
    /// The names of the segments, in order.
    pub files: Vec<String>,
    /// In bytes; 0 if it is not known.
    pub segment_size: u32,
}

/// The segments of one directory.
pub(in crate::verify) struct Segments {
    /// How messages name the directory.
    pub dir: String,
    /// In bytes; 0 if it is not known.
    pub segment_size: u32,
    /// The number of files.
    pub total: usize,
    /// Segments that are stored once, in order. They are checked.
    pub single: Vec<String>,
    /// Segments that are stored several times. None of the files can be trusted.
    pub duplicate: Vec<String>,
}

/// The name of a file that can't be checked.
pub(in crate::verify) struct BadName {
    /// The path below the stanza's archive.
    pub name: String,
    pub segment: String,
}

/// Returns the steps about a directory: a count of the segments, then the check of each that is stored once.
pub(in crate::verify) fn steps(dir: &WalDir, cipher: &Cipher) -> Vec<CheckStep> {
    let (mut single, mut duplicate, mut checks) = (Vec::new(), Vec::new(), Vec::new());
    for group in dir.files.chunk_by(|a, b| segment_part(a) == segment_part(b)) {
        match group {
            [file] => {
                single.push(segment_part(file).to_owned());
                checks.push(check_step(dir, file, cipher));
            }
            [first, ..] => duplicate.push(segment_part(first).to_owned()),
            [] => {}
        }
    }
    let (segment_size, total) = (dir.segment_size, dir.files.len());
    let segments = Segments { dir: dir.name.clone(), segment_size, total, single, duplicate };
    std::iter::once(CheckStep::Segments(segments)).chain(checks).collect()
}

fn check_step(dir: &WalDir, file: &str, cipher: &Cipher) -> CheckStep {
    let name = format!("{}/{file}", dir.name);
    match segment_check(dir, file, cipher) {
        Ok(check) => CheckStep::CheckSegment(NamedCheck { name, check }),
        // A name that no current program writes, such as one with another compression
        Err(error) => CheckStep::BadSegment { file: BadName { name, segment: segment_part(file).to_owned() }, error },
    }
}

fn segment_check(dir: &WalDir, file: &str, cipher: &Cipher) -> Result<FileCheck> {
    let checksum = file.get(SEGMENT_NAME_LEN + 1..SEGMENT_NAME_LEN + 41).unwrap_or_default();
    Ok(FileCheck {
        path: dir.path.join(file)?,
        range: ReadRange::default(),
        cipher: cipher.clone(),
        compress_type: CompressType::from_file_name(file)?,
        // A name whose checksum is none fails like a wrong one
        checksum: Sha1::from_hex(checksum.as_bytes()).unwrap_or(Sha1([0; 20])),
        size: (dir.segment_size != 0).then_some(u64::from(dir.segment_size)),
        stored_size: None,
        block: None,
    })
}

/// The segment that a file of the archive is named after.
pub(in crate::verify) fn segment_part(file: &str) -> &str {
    file.get(..SEGMENT_NAME_LEN).unwrap_or(file)
}

/// Returns whether this is the name of a directory of segments.
pub(in crate::verify) fn is_wal_dir(name: &str) -> bool {
    name.len() == SEGMENT_DIR_LEN && name.bytes().all(is_loose_hex)
}

/// Checks pgBackRest's character range, which includes more than hex digits.
fn is_loose_hex(byte: u8) -> bool {
    (b'0'..=b'F').contains(&byte)
}

/// Returns whether this is the name of a stored segment.
pub(in crate::verify) fn is_wal_file(name: &str) -> bool {
    let bytes = name.as_bytes();
    let Some((segment, rest)) = bytes.split_at_checked(SEGMENT_NAME_LEN) else { return false };
    let Some((checksum, extension)) = rest.strip_prefix(b"-").and_then(|rest| rest.split_at_checked(40)) else {
        return false;
    };
    segment.iter().copied().all(is_loose_hex)
        && checksum.iter().all(|byte| (b'0'..=b'f').contains(byte))
        && matches!(extension, b"" | b".gz" | b".lz4" | b".zst" | b".xz" | b".bz2")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUM: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

    fn steps_of(files: &[&str]) -> Vec<CheckStep> {
        let dir = WalDir {
            path: RepoPath::new("archive/demo/15-1/0000000100000000").unwrap(),
            name: "15-1/0000000100000000".into(),
            files: files.iter().map(|file| format!("0000000100000000{file}")).collect(),
            segment_size: 16 << 20,
        };
        steps(&dir, &Cipher::None)
    }

    #[test]
    fn segment_that_is_stored_twice_is_counted_and_not_checked() {
        let steps = steps_of(&[
            &format!("00000001-{SUM}"),
            &format!("00000001-{SUM}.zst"),
            &format!("00000002-{SUM}.gz"),
            &format!("00000002-{SUM}.zst"),
            &format!("00000003-{SUM}.gz"),
        ]);
        let [CheckStep::Segments(segments), CheckStep::CheckSegment(file)] = steps.as_slice() else {
            panic!("other steps")
        };
        assert_eq!(segments.total, 5);
        assert_eq!(segments.duplicate, ["000000010000000000000001", "000000010000000000000002"]);
        assert_eq!(segments.single, ["000000010000000000000003"]);
        assert_eq!(file.name, format!("15-1/0000000100000000/000000010000000000000003-{SUM}.gz"));
        assert_eq!((file.check.compress_type, file.check.size), (CompressType::Gz, Some(16 << 20)));
        assert_eq!(file.check.checksum.to_string(), SUM);
    }

    #[test]
    fn segment_of_an_unknown_compression_is_a_step_of_its_own() {
        let steps = steps_of(&[&format!("00000001-{SUM}.xz"), &format!("00000002-{SUM}")]);
        let [CheckStep::Segments(segments), CheckStep::BadSegment { file, .. }, CheckStep::CheckSegment(_)] =
            steps.as_slice()
        else {
            panic!("other steps")
        };
        assert_eq!((segments.single.len(), file.segment.as_str()), (2, "000000010000000000000001"));
    }

    #[test]
    fn segment_whose_checksum_is_none_can_not_match() {
        let steps = steps_of(&[&format!("00000001-{}", ":".repeat(40))]);
        assert!(matches!(&steps[1], CheckStep::CheckSegment(file) if file.check.checksum == Sha1([0; 20])));
    }

    #[test]
    fn is_wal_file_takes_whole_segments_only() {
        assert!(is_wal_file(&format!("000000010000000000000001-{SUM}")));
        assert!(is_wal_file(&format!("000000010000000000000001-{SUM}.xz")));
        for name in [
            "000000010000000000000001",
            "000000010000000000000001.00000028.backup",
            &format!("000000010000000000000001.partial-{SUM}"),
            &format!("000000010000000000000001-{SUM}.tmp"),
            &format!("00000001000000000000000g-{SUM}"),
            "é",
        ] {
            assert!(!is_wal_file(name), "{name}");
        }
        assert!(is_wal_dir("0000000100000000") && !is_wal_dir("000000010000000"));
    }
}
