//! Determines how much WAL waits to be archived, and whether it is too much.

use std::path::Path;

use engine::{Error, ErrorCode, Result};
use repo_format::size::format_size;
use repo_format::wal_name;

/// PostgreSQL's directory of archive statuses, below the WAL directory.
const ARCHIVE_STATUS: &str = "archive_status";
/// The suffix of a file that PostgreSQL wants archived.
const READY: &str = ".ready";

/// Returns the names of files that PostgreSQL wants archived, sorted.
///
/// # Errors
/// [`ErrorCode::PathMissing`] or [`ErrorCode::PathOpen`] if PostgreSQL's list can't be read.
pub fn ready_list(wal_path: &Path) -> Result<Vec<String>> {
    let path = wal_path.join(ARCHIVE_STATUS);
    let failed = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            let text = format!("unable to list file info for missing path '{}'", path.display());
            return Error::new(ErrorCode::PathMissing, text).cause(error);
        }
        Error::from_io(ErrorCode::PathOpen, format!("unable to list file info for path '{}'", path.display()), error)
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some(file) = name.to_str().and_then(|name| name.strip_suffix(READY)) {
            names.push(file.to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Returns whether the waiting files exceed `queue_max` bytes. Each segment counts with the size of the first one.
///
/// # Errors
/// [`ErrorCode::FileOpen`] if a file can't be examined.
pub fn is_exceeded(wal_path: &Path, ready: &[String], queue_max: u64) -> Result<bool> {
    let (segments, others): (Vec<&String>, Vec<&String>) =
        ready.iter().partition(|name| wal_name::kind(name).is_segment());
    let mut size = match first_size(wal_path, segments.iter().copied())? {
        Some((_, size)) => size.saturating_mul(segments.len() as u64),
        None => 0,
    };
    // History files are few, and far smaller than segments
    for name in others {
        size = size.saturating_add(first_size(wal_path, [name])?.map_or(0, |(_, size)| size));
    }
    Ok(size > queue_max)
}

/// Returns the first existing file and its size in bytes. PostgreSQL may just be removing acknowledged files.
///
/// # Errors
/// [`ErrorCode::FileOpen`].
pub fn first_size<'a>(wal_path: &Path, names: impl IntoIterator<Item = &'a String>) -> Result<Option<(&'a str, u64)>> {
    for name in names {
        match file_size(&wal_path.join(name)) {
            Ok(size) => return Ok(Some((name, size))),
            Err(error) if error.code == ErrorCode::FileMissing => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Size of a file in bytes.
///
/// # Errors
/// [`ErrorCode::FileMissing`] or [`ErrorCode::FileOpen`].
pub fn file_size(path: &Path) -> Result<u64> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = format!("unable to get info for missing path/file '{}'", path.display());
            Err(Error::new(ErrorCode::FileMissing, text).cause(error))
        }
        Err(error) => {
            let text = format!("unable to get info for path/file '{}'", path.display());
            Err(Error::from_io(ErrorCode::FileOpen, text, error))
        }
    }
}

/// Returns the warning about a file that is dropped so that PostgreSQL's disk does not fill.
pub fn drop_warning(name: &str, queue_max: u64) -> String {
    format!("dropped WAL file '{name}' because archive queue exceeded {}", format_size(queue_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_list_without_directory_is_path_missing() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(ready_list(dir.path()).expect_err("missing").code, ErrorCode::PathMissing);
    }

    #[test]
    fn queue_counts_ready_files_by_the_first_size() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::create_dir(dir.path().join(ARCHIVE_STATUS)).expect("directory");
        assert!(!is_exceeded(dir.path(), &ready_list(dir.path()).expect("list"), 0).expect("empty queue"));
        for name in ["000000010000000000000002", "000000010000000000000001"] {
            std::fs::write(dir.path().join(name), [0; 100]).expect("segment");
            std::fs::write(dir.path().join(ARCHIVE_STATUS).join(format!("{name}.ready")), "").expect("ready");
        }
        std::fs::write(dir.path().join(ARCHIVE_STATUS).join("000000010000000000000000.done"), "").expect("done");
        let ready = ready_list(dir.path()).expect("list");
        assert_eq!(ready, ["000000010000000000000001", "000000010000000000000002"]);
        assert!(!is_exceeded(dir.path(), &ready, 200).expect("size"));
        assert!(is_exceeded(dir.path(), &ready, 199).expect("size"));
        std::fs::remove_file(dir.path().join(&ready[0])).expect("recycled");
        assert!(!is_exceeded(dir.path(), &ready, 200).expect("size of the next"));
        assert!(is_exceeded(dir.path(), &ready, 199).expect("size of the next"));
        assert!(!is_exceeded(dir.path(), &ready[..1], 0).expect("none left"));
    }

    #[test]
    fn history_file_at_the_front_does_not_hide_the_size_of_the_segments_behind_it() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::write(dir.path().join("00000002.history"), [0; 10]).expect("history");
        std::fs::write(dir.path().join("000000020000000000000001"), [0; 100]).expect("segment");
        let ready: Vec<String> = ["00000002.history", "000000020000000000000001", "000000020000000000000002"]
            .iter()
            .map(|name| (*name).to_owned())
            .collect();
        assert!(is_exceeded(dir.path(), &ready, 209).expect("size"));
        assert!(!is_exceeded(dir.path(), &ready, 210).expect("size"));
    }

    #[test]
    fn drop_warning_names_file_and_limit() {
        assert_eq!(drop_warning("x", 5 << 30), "dropped WAL file 'x' because archive queue exceeded 5GB");
    }
}
