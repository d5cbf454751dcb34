//! Getting one file out of a repository.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use engine::storage::ReadRange;
use engine::storage::posix::FILE_MODE;
use engine::{Error, ErrorCode, Result};
use repo_format::cipher::{Decryptor, Framing};
use repo_format::compress::Decompressor;
use repo_format::hash::Sha1Hasher;
use repo_format::layout::TEMP_SUFFIX;

use super::find::{Answer, Candidate};

/// Bytes moved at a time.
const CHUNK: usize = 1 << 20;

/// The temporary name beside a destination.
pub fn temporary(destination: &Path) -> PathBuf {
    let mut name = destination.as_os_str().to_owned();
    name.push(TEMP_SUFFIX);
    PathBuf::from(name)
}

/// Copies the first stored file that can be read to `destination` and gives its place in [`Answer::candidates`] and a warning
/// for every one before it.
///
/// The bytes go to a temporary name first and are compared with the checksum in the stored name, so that neither half a
/// segment nor a damaged one is ever found under `destination`. Nothing is synced: after a crash PostgreSQL asks again.
///
/// # Errors
/// [`ErrorCode::FileRead`] when none can be copied.
pub fn fetch(answer: &Answer<'_>, destination: &Path) -> Result<(usize, Vec<String>)> {
    let (index, warnings) = fetch_temporary(answer, destination)?;
    rename(&temporary(destination), destination)?;
    Ok((index, warnings))
}

/// As [`fetch`], but leaves the file under its temporary name.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_temporary(answer: &Answer<'_>, destination: &Path) -> Result<(usize, Vec<String>)> {
    let temporary = temporary(destination);
    let mut warnings = Vec::new();
    for (index, candidate) in answer.candidates.iter().enumerate() {
        match copy(candidate, destination) {
            Ok(()) => return Ok((index, warnings)),
            Err(error) => {
                // The next candidate overwrites it; after the last one nothing useful is left in it
                let _ = std::fs::remove_file(&temporary);
                warnings.push(format!("repo{}: {} [{}] {error}", candidate.repo.key, candidate.name, error.code));
            }
        }
    }
    Err(Error::new(ErrorCode::FileRead, format!("unable to get {}:\n{}", answer.request, warnings.join("\n"))))
}

/// Has the system write a file to its disk.
///
/// # Errors
/// [`ErrorCode::FileSync`].
pub fn sync(path: &Path) -> Result<()> {
    std::fs::File::open(path).and_then(|file| file.sync_all()).map_err(|error| {
        Error::from_io(ErrorCode::FileSync, format!("unable to sync file '{}'", path.display()), error)
    })
}

/// Moves a file into place.
///
/// # Errors
/// [`ErrorCode::FileMove`].
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|error| {
        Error::from_io(ErrorCode::FileMove, format!("unable to move '{}' to '{}'", from.display(), to.display()), error)
    })
}

/// Writes a stored file's plain content beside `destination`.
fn copy(candidate: &Candidate<'_>, destination: &Path) -> Result<()> {
    let storage = &candidate.repo.storage;
    let Some(stored) = storage.read(&candidate.path, ReadRange::default())? else {
        let text = format!("unable to open missing file '{}' for read", storage.display(&candidate.path));
        return Err(Error::new(ErrorCode::FileMissing, text));
    };
    let plain = Decryptor::new(&candidate.cipher, Framing::Full, stored);
    let mut reader: Box<dyn Read> = match candidate.segment {
        Some(segment) => Box::new(Decompressor::new(segment.compress_type, Framing::Full, plain)?),
        None => Box::new(plain),
    };
    let temporary = temporary(destination);
    let open = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&temporary);
    let mut file = open.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            let text = format!("unable to open file '{}' for write in missing path", destination.display());
            Error::new(ErrorCode::FileMissing, text).cause(error)
        }
        _ => {
            let text = format!("unable to open file '{}' for write", temporary.display());
            Error::from_io(ErrorCode::FileOpen, text, error)
        }
    })?;
    let mut hasher = candidate.segment.map(|_| Sha1Hasher::new());
    let mut buffer = vec![0; CHUNK];
    loop {
        let size = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(size) => size,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => {
                let text = format!("unable to read '{}'", storage.display(&candidate.path));
                return Err(Error::from_io(ErrorCode::FileRead, text, error));
            }
        };
        if let Some(hasher) = &mut hasher {
            hasher.update(&buffer[..size]);
        }
        file.write_all(&buffer[..size]).map_err(|error| {
            Error::from_io(ErrorCode::FileWrite, format!("unable to write '{}'", temporary.display()), error)
        })?;
    }
    if let (Some(segment), Some(hasher)) = (candidate.segment, hasher) {
        let checksum = hasher.finish();
        if checksum != segment.checksum {
            let text = format!("checksum '{checksum}' does not match the one in the file's name");
            return Err(Error::new(ErrorCode::Checksum, text));
        }
    }
    Ok(())
}
