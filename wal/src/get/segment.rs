//! Gets one file from a repository.

use std::io::{Read, Write};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Mutex, PoisonError};

use engine::storage::on_turn::OnTurn;
use engine::storage::{ReadRange, RepoStorage};
use engine::work::thread::Helper;
use engine::work::turn::Turn;
use engine::{Error, ErrorCode, Result, decode};
use repo_format::cipher::{Decryptor, Framing};
use repo_format::hash::Sha1Hasher;
use repo_format::read::read_some;

use super::claim::DestinationClaim;
use super::find::{FoundFile, StoredCopy};

/// Bytes moved at a time.
const CHUNK: usize = 256 << 10;
/// Number of buffers between two threads.
const CHUNKS_BESIDE: usize = 4;

/// The maximum size of a file that is not a segment. History files have some hundred bytes.
const OTHER_MAX: u64 = 64 << 20;

/// Writes the first readable stored file to `claim`. Returns its index in [`FoundFile::candidates`] and a warning for each
/// one before it.
///
/// The content is compared with the checksum in the stored name, so that neither half a segment nor a damaged one ever
/// gets the destination's name. Nothing is synced: after a crash PostgreSQL asks again.
///
/// # Errors
/// [`FetchFailure::Stored`] if no stored file can be read, [`FetchFailure::Destination`] if the claim cannot be written, which no
/// other stored file would change. Both contain an [`ErrorCode::FileRead`] with a line for each attempt, as in
/// pgBackRest.
pub fn fetch(
    answer: &FoundFile<'_>,
    claim: &mut DestinationClaim,
    decode: Decode<'_>,
) -> std::result::Result<(usize, Vec<String>), FetchFailure> {
    let mut warnings = Vec::new();
    let failed = |warnings: &[String]| {
        Error::new(ErrorCode::FileRead, format!("unable to get {}:\n{}", answer.request, warnings.join("\n")))
    };
    for (index, candidate) in answer.candidates.iter().enumerate() {
        let line = |error: &Error| format!("repo{}: {} [{}] {error}", candidate.repo.key, candidate.name, error.code);
        match copy(candidate, answer.segment_size, claim, decode) {
            Ok(()) => return Ok((index, warnings)),
            Err(FetchFailure::Stored(error)) => warnings.push(line(&error)),
            Err(FetchFailure::Destination(error)) => {
                warnings.push(line(&error));
                return Err(FetchFailure::Destination(failed(&warnings)));
            }
        }
    }
    Err(FetchFailure::Stored(failed(&warnings)))
}

/// Why a stored file was not copied.
#[derive(Debug)]
pub enum FetchFailure {
    /// It can't be read, or is damaged.
    Stored(Error),
    /// The destination cannot be written.
    Destination(Error),
}

impl From<FetchFailure> for Error {
    fn from(fault: FetchFailure) -> Self {
        match fault {
            FetchFailure::Stored(error) | FetchFailure::Destination(error) => error,
        }
    }
}

/// Writes a stored file's plain content into `claim`.
fn copy(
    candidate: &StoredCopy<'_>,
    segment_size: u64,
    claim: &mut DestinationClaim,
    decode: Decode<'_>,
) -> std::result::Result<(), FetchFailure> {
    let turn = match decode {
        Decode::On(turn) => turn,
        Decode::Beside => &Turn::FREE,
    };
    let compressing = candidate.compressing_reads();
    let storage = OnTurn::new(compressing.as_deref().unwrap_or(&*candidate.repo.storage), turn);
    let reader = open(candidate, &storage, segment_size, turn).map_err(FetchFailure::Stored)?;
    let path = claim.path().to_owned();
    let file = claim.begin().map_err(FetchFailure::Destination)?;
    let mut hasher = candidate.segment.map(|_| Sha1Hasher::new());
    // A few stored bytes may decode to any size, which would fill the file system before the checksum is compared
    let size_max = if candidate.segment.is_some() { segment_size } else { OTHER_MAX };
    let mut left = size_max;
    let mut destination = None;
    let take = |plain: &[u8]| {
        left = left.checked_sub(plain.len() as u64).ok_or_else(|| {
            let text = format!("'{}' holds more than {size_max} byte(s)", storage.display(&candidate.path));
            Error::new(ErrorCode::Format, text)
        })?;
        if let Some(hasher) = &mut hasher {
            hasher.update(plain);
        }
        file.write_all(plain).map_err(|error| {
            let text = format!("unable to write '{}'", path.display());
            destination = Some(Error::from_io(ErrorCode::FileWrite, text.clone(), error));
            Error::new(ErrorCode::FileWrite, text)
        })
    };
    let name = || format!("unable to read '{}'", storage.display(&candidate.path));
    let taken = match (decode, candidate.segment) {
        (Decode::Beside, Some(_)) => each_chunk_beside(reader, &name, take),
        _ => each_chunk(reader, &name, take),
    };
    if let Some(error) = destination {
        return Err(FetchFailure::Destination(error));
    }
    taken.map_err(FetchFailure::Stored)?;
    if candidate.segment.is_none() && left == size_max {
        // PostgreSQL would take an empty history for that of a timeline without ancestors
        let text = format!("'{}' is empty", storage.display(&candidate.path));
        return Err(FetchFailure::Stored(Error::new(ErrorCode::Format, text)));
    }
    if let (Some(segment), Some(hasher)) = (candidate.segment, hasher) {
        let checksum = hasher.finish();
        if checksum != segment.checksum {
            let text = format!("checksum '{checksum}' does not match the one in the file's name");
            return Err(FetchFailure::Stored(Error::new(ErrorCode::Checksum, text)));
        }
    }
    Ok(())
}

/// Opens a stored file and returns its plain content.
fn open(
    candidate: &StoredCopy<'_>,
    storage: &dyn RepoStorage,
    segment_size: u64,
    turn: &Turn,
) -> Result<Box<dyn Read + Send>> {
    let Some(stored) = storage.read(&candidate.path, ReadRange::default())? else {
        let text = format!("unable to open missing file '{}' for read", storage.display(&candidate.path));
        return Err(Error::new(ErrorCode::FileMissing, text));
    };
    let plain = Decryptor::new(&candidate.cipher, Framing::Full, stored);
    Ok(match candidate.segment {
        Some(segment) => Box::new(decode::decompressor(segment.compress_type, plain, segment_size, turn)?),
        None => Box::new(plain),
    })
}

/// Whether a stored segment is decoded in parallel with hashing and writing.
#[derive(Clone, Copy, Debug)]
pub enum Decode<'a> {
    /// One after another on a thread that has this turn to compute, because other segments keep the processors busy.
    On(&'a Turn),
    /// On a separate thread, because somebody waits for this segment.
    Beside,
}

/// Reads up to the buffer's size.
fn read_chunk(reader: &mut dyn Read, buffer: &mut [u8], failed: &dyn Fn() -> String) -> Result<usize> {
    read_some(reader, buffer).map_err(|error| Error::from_io(ErrorCode::FileRead, failed(), error))
}

/// Passes everything that is read to `take`.
fn each_chunk(
    mut reader: impl Read,
    failed: &dyn Fn() -> String,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match read_chunk(&mut reader, &mut buffer, failed)? {
            0 => return Ok(()),
            size => take(&buffer[..size])?,
        }
    }
}

/// Does the same as `each_chunk`, but reads in another thread.
fn each_chunk_beside(
    reader: impl Read + Send,
    failed: &(dyn Fn() -> String + Sync),
    take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let kept = Mutex::new(Some(reader));
    let reader = || kept.lock().unwrap_or_else(PoisonError::into_inner).take();
    std::thread::scope(|scope| {
        let (fill, filled) = mpsc::sync_channel(CHUNKS_BESIDE);
        let (empty, emptied) = mpsc::sync_channel(CHUNKS_BESIDE);
        for _ in 0..CHUNKS_BESIDE {
            // There is room for all
            let _ = empty.send(vec![0; CHUNK]);
        }
        let read = move || {
            let Some(mut reader) = reader() else { return Ok(()) };
            // Ends with the first error, and when the other side has ended with one
            while let Ok(mut buffer) = emptied.recv() {
                let read = read_chunk(&mut reader, &mut buffer, failed).map(|size| (size, buffer));
                let is_last = read.as_ref().map_or(true, |(size, _)| *size == 0);
                if fill.send(read).is_err() || is_last {
                    break;
                }
            }
            Ok(())
        };
        match Helper::start(scope, read) {
            Some(helper) => {
                let result = take_chunks(filled, empty, take);
                // The missing chunk already reports a panic
                let _ = helper.join();
                result
            }
            // If no thread is available, one thread takes longer
            None => reader().map_or(Ok(()), |reader| each_chunk(reader, failed, take)),
        }
    })
}

/// A chunk's size and buffer. One without bytes is the last.
type Chunk = Result<(usize, Vec<u8>)>;

/// Passes the chunks that another thread reads to `take`. An error drops both channels, which ends the other thread.
fn take_chunks(
    filled: Receiver<Chunk>,
    empty: SyncSender<Vec<u8>>,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let panicked = |_| Error::new(ErrorCode::Assert, "the thread that reads WAL panicked");
    loop {
        let (size, buffer) = filled.recv().map_err(panicked)??;
        if size == 0 {
            return Ok(());
        }
        take(&buffer[..size])?;
        // The last ones are not wanted back
        let _ = empty.send(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed() -> String {
        "unable to read".to_owned()
    }

    /// Returns this many bytes, and then an error.
    struct Broken(usize);

    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let size = self.0.min(buffer.len());
            self.0 -= size;
            if size == 0 { Err(std::io::ErrorKind::ConnectionReset.into()) } else { Ok(size) }
        }
    }

    #[test]
    fn both_ways_give_the_same_bytes() {
        let content: Vec<u8> = (0..10 * CHUNK as u32 + 7).map(|number| (number / 3) as u8).collect();
        let (mut in_turn, mut beside) = (Vec::new(), Vec::new());
        let append = |to: &mut Vec<u8>, chunk: &[u8]| {
            to.extend_from_slice(chunk);
            Ok(())
        };
        each_chunk(content.as_slice(), &failed, |chunk| append(&mut in_turn, chunk)).expect("in turn");
        each_chunk_beside(content.as_slice(), &failed, |chunk| append(&mut beside, chunk)).expect("beside");
        assert!(in_turn == content && beside == content);
    }

    #[test]
    fn an_error_on_either_side_ends_both() {
        let error = each_chunk_beside(Broken(20 * CHUNK), &failed, |_| Ok(())).expect_err("broken");
        assert_eq!(error.code, ErrorCode::FileRead);
        let full = || Error::new(ErrorCode::FileWrite, "disk full");
        let error = each_chunk_beside(std::io::repeat(1), &failed, |_| Err(full())).expect_err("full");
        assert_eq!(error.code, ErrorCode::FileWrite);
    }

    #[test]
    fn a_panic_of_the_reader_is_an_error() {
        struct Panics;
        impl Read for Panics {
            fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
                panic!("on purpose")
            }
        }
        let error = each_chunk_beside(Panics, &failed, |_| Ok(())).expect_err("panic");
        assert_eq!(error.code, ErrorCode::Assert);
    }
}
