//! Checks that a segment in a repository is intact, and the only one of its name.
//!
//! An interrupted writer may have left half a file under the right name: an earlier release, another program, or a
//! network file system that lost acknowledged data. A push that trusted the name would lose the segment.

use std::io::Read;

use engine::repo::archive_find::FoundSegment;
use engine::storage::ReadRange;
use engine::{Error, ErrorCode, Result, decode};
use repo_format::cipher::{Decryptor, Framing};
use repo_format::compress::CompressType;
use repo_format::hash::{Sha1, Sha1Hasher};
use repo_format::layout::{self, Stanza};
use repo_format::read::read_some;
use repo_format::wal_name::{ArchivedSegment, PARTIAL_SUFFIX};

use super::check::PushTarget;

/// Bytes read at a time.
const CHUNK: usize = 256 << 10;

/// Reads a stored segment of `size` bytes and compares its content with the checksum in its name.
///
/// An object store shows an object only when it is complete, so there only the size is checked. Another program may
/// have left an empty object.
///
/// # Errors
/// [`ErrorCode::Checksum`] for other content, [`ErrorCode::Format`] for another size, and errors of reading.
pub(super) fn check(target: &PushTarget, found: &FoundSegment, size: u64) -> Result<()> {
    let storage = &target.repo.storage;
    if !storage.features().paths {
        return check_size(target, found, size);
    }
    let Some(stored) = storage.read(&found.path, ReadRange::default())? else {
        let text = format!("unable to open missing file '{}' for read", storage.display(&found.path));
        return Err(Error::new(ErrorCode::FileMissing, text));
    };
    let plain = Decryptor::new(&target.cipher, Framing::Full, stored);
    // One byte more than expected shows that there are too many
    let mut plain = decode::decompressor(found.name.compress_type, plain, size + 1, &target.turn)?.take(size + 1);
    let (mut hasher, mut read) = (Sha1Hasher::new(), 0);
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = read_some(&mut plain, &mut buffer).map_err(|error| {
            let text = format!("unable to read '{}'", storage.display(&found.path));
            Error::from_io(ErrorCode::FileRead, text, error)
        })?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        read += count as u64;
    }
    if read != size {
        let text = format!("'{}' does not hold {size} byte(s)", storage.display(&found.path));
        return Err(Error::new(ErrorCode::Format, text));
    }
    let checksum = hasher.finish();
    if checksum != found.name.checksum {
        let text = format!("checksum '{checksum}' does not match the name of '{}'", storage.display(&found.path));
        return Err(Error::new(ErrorCode::Checksum, text));
    }
    Ok(())
}

/// Compares the size of a stored segment with the size of the WAL file, as far as compression and encryption allow it.
fn check_size(target: &PushTarget, found: &FoundSegment, size: u64) -> Result<()> {
    let storage = &target.repo.storage;
    let Some(entry) = storage.info(&found.path)? else {
        let text = format!("unable to get info for missing path/file '{}'", storage.display(&found.path));
        return Err(Error::new(ErrorCode::FileMissing, text));
    };
    let is_plain = found.name.compress_type == CompressType::None && target.cipher.is_none();
    let is_whole = if is_plain { entry.size == size } else { entry.size > 0 };
    if is_whole {
        return Ok(());
    }
    let text = format!("'{}' has {} byte(s)", storage.display(&found.path), entry.size);
    Err(Error::new(ErrorCode::Format, text))
}

/// Returns whether the archive has a segment with other content than the one that was just stored. Two clusters that
/// push the same segment at the same time both find nothing before they store it, and store it under different names.
/// The later one sees the other's file here. An object store is not asked, because every push would need one more
/// request, and archive-get refuses both files.
///
/// # Errors
/// The directory can't be listed.
pub(super) fn has_other(target: &PushTarget, stanza: &Stanza, name: &str, checksum: Sha1) -> Result<bool> {
    if !target.repo.storage.features().paths {
        return Ok(false);
    }
    let segment = name.strip_suffix(PARTIAL_SUFFIX).unwrap_or(name);
    let directory = layout::wal_dir(stanza, target.archive_id, &segment.parse()?);
    let names = target.repo.storage.names_after(&directory, segment)?;
    let same_name = names.iter().filter(|stored| stored.strip_prefix(name).is_some_and(|rest| rest.starts_with('-')));
    Ok(same_name.filter_map(|stored| stored.parse::<ArchivedSegment>().ok()).any(|stored| stored.checksum != checksum))
}

/// Returns the error for a segment that an archive has with other content.
pub(super) fn duplicate(target: &PushTarget, name: &str) -> Error {
    let key = target.repo.key;
    let text = format!("WAL file '{name}' already exists in the repo{key} archive with a different checksum");
    Error::new(ErrorCode::ArchiveDuplicate, text)
}
