//! The WAL file that PostgreSQL hands over: opened once, read in chunks, and checked for changes at the end.

use std::fs::{File, Metadata};
use std::io::Read;
use std::num::NonZero;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use engine::{Error, ErrorCode, Result};
use repo_format::cipher::Framing;
use repo_format::compress::{Compression, Compressor};
use repo_format::hash::{Sha1, Sha1Hasher};

/// A smaller file is not worth the start of threads.
const PARALLEL_MIN: u64 = 4 << 20;

/// Bytes read from the source at a time.
pub(super) const CHUNK: usize = 1 << 20;

/// Bytes that tell a segment's version and system identifier.
const HEADER: usize = 512;

/// A file that was read once: its checksum, and its stored bytes before encryption.
pub(super) type Encoded = (Sha1, Vec<u8>);

/// The WAL file that PostgreSQL hands over.
pub(super) struct WalFile<'a> {
    file: File,
    pub(super) path: &'a Path,
    pub(super) size: u64,
    pub(super) state: FileState,
    threads: usize,
}

/// What changes when a file is written to, renamed, or replaced: device, inode, size, and the times of the last write
/// and of the last status change.
pub(super) type FileState = (u64, u64, u64, (i64, i64), (i64, i64));

fn state(of: &Metadata) -> FileState {
    (of.dev(), of.ino(), of.len(), (of.mtime(), of.mtime_nsec()), (of.ctime(), of.ctime_nsec()))
}

impl<'a> WalFile<'a> {
    pub(super) fn open(path: &'a Path, threads: usize) -> Result<Self> {
        let open = || -> std::io::Result<(File, Metadata)> {
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            Ok((file, metadata))
        };
        match open() {
            Ok((file, metadata)) => Ok(WalFile { file, path, size: metadata.len(), state: state(&metadata), threads }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = format!("unable to open missing file '{}' for read", path.display());
                Err(Error::new(ErrorCode::FileMissing, text).cause(error))
            }
            Err(error) => {
                let text = format!("unable to open file '{}' for read", path.display());
                Err(Error::from_io(ErrorCode::FileOpen, text, error))
            }
        }
    }

    /// Creates a compressor for the file, with as many threads as it is worth.
    pub(super) fn compressor(&self, compression: Compression) -> Result<Compressor> {
        if self.size < PARALLEL_MIN {
            return Compressor::new(compression, Framing::Full);
        }
        // More threads than cores would only use memory
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        match Compressor::parallel(compression, self.threads.min(cores)) {
            // If no threads are available, one takes longer, which is better than no archive
            Err(error) if error.code == ErrorCode::Kernel => {
                engine::debug!("{}: going on with one thread", error.message);
                Compressor::new(compression, Framing::Full)
            }
            compressor => compressor,
        }
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", self.path.display()), error)
    }

    /// Checks that the path still leads to the opened file, and that nobody has changed the file since.
    ///
    /// A push can outlive the server that called it. The next server pushes the file again and then recycles it, so the
    /// earlier push may read half of one segment and half of another. The cluster may even be a different one by now.
    ///
    /// # Errors
    /// [`ErrorCode::FileRead`]. PostgreSQL then calls again, and gets the answer for the current file.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        let now = std::fs::metadata(self.path).map_err(|error| self.failed(error))?;
        if state(&now) == self.state {
            return Ok(());
        }
        let text = format!("WAL file '{}' changed while it was archived", self.path.display());
        Err(Error::new(ErrorCode::FileRead, text))
    }

    /// Returns the first bytes, which tell the version and system identifier of a segment.
    ///
    /// # Errors
    /// The file is shorter, or can't be read.
    pub(super) fn header(&self) -> Result<[u8; HEADER]> {
        let mut header = Vec::with_capacity(HEADER);
        // `&File` reads at the file's own position, which nothing else here uses
        (&self.file).take(HEADER as u64).read_to_end(&mut header).map_err(|error| self.failed(error))?;
        header.try_into().map_err(|_| {
            let text = format!("unable to read {HEADER} byte(s) from '{}'", self.path.display());
            Error::new(ErrorCode::FileRead, text)
        })
    }

    /// Reads the file in chunks of [`CHUNK`] bytes, the last of which may be shorter.
    pub(super) fn each_chunk(&self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        use std::os::unix::fs::FileExt;
        let mut buffer = vec![0; CHUNK];
        let (mut offset, mut filled) = (0, 0);
        loop {
            match self.file.read_at(&mut buffer[filled..], offset) {
                Ok(0) => break,
                Ok(size) => {
                    offset += size as u64;
                    filled += size;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
            if filled == CHUNK {
                take(&buffer)?;
                filled = 0;
            }
        }
        if filled == 0 { Ok(()) } else { take(&buffer[..filled]) }
    }

    /// Reads the file once, and returns its checksum and its compressed content.
    pub(super) fn encode(&self, compression: Compression) -> Result<Encoded> {
        let mut hasher = Sha1Hasher::new();
        let mut compressor = self.compressor(compression)?;
        let mut content = Vec::new();
        self.each_chunk(|chunk| {
            hasher.update(chunk);
            compressor.push(chunk, &mut content)
        })?;
        compressor.finish(&mut content)?;
        Ok((hasher.finish(), content))
    }

    /// Reads the file once, and returns its checksum.
    pub(super) fn checksum(&self) -> Result<Sha1> {
        let mut hasher = Sha1Hasher::new();
        self.each_chunk(|chunk| {
            hasher.update(chunk);
            Ok(())
        })?;
        Ok(hasher.finish())
    }
}
