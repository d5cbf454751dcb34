//! Keeps records in the repository.

use std::io::{BufReader, Read};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use repo_format::cipher::{self, Decryptor, Framing};
use repo_format::layout::{self, RepoPath, Stanza};

use super::format::{self, FILE_BYTES_MAX};
use super::{FileKey, Memory};
use crate::storage::{self, ReadRange, WriteOptions};
use crate::{Error, ErrorCode, Repo, Result, detail, warn};

/// The suffix of the files.
const SUFFIX: &str = ".bin";
/// How often the records of a long run are written, so that a killed run does not lose its work.
const INTERVAL: Duration = Duration::from_secs(300);
/// How often the files are listed again, because another run replaced them while they were read.
const TRIES: u32 = 5;
/// Records of all files. They need about 80 bytes of memory each while they are written.
const RECORDS_MAX: usize = 24 << 20;
/// A clock of another host may be ahead by so many seconds.
const CLOCK_AHEAD_MAX: u32 = 300;

/// Reads and writes the records of a stanza.
pub(in crate::verify) struct Keeper<'a> {
    repo: &'a Repo,
    dir: RepoPath,
    /// The files that were there before.
    earlier: Vec<String>,
    /// The file that this run has written.
    own: Option<String>,
    written: Instant,
}

impl<'a> Keeper<'a> {
    /// Reads what earlier runs recorded. Damage means that nothing is known: a part might tell that a file is good that
    /// another part tells to be bad.
    ///
    /// # Errors
    /// A signal arrived.
    pub fn load(repo: &'a Repo, stanza: &Stanza, now: u32) -> Result<(Self, Memory)> {
        let dir = layout::proof_verified(stanza);
        let mut keeper = Keeper { repo, dir, earlier: Vec::new(), own: None, written: Instant::now() };
        let memory = match keeper.read(now.saturating_add(CLOCK_AHEAD_MAX)) {
            Ok(memory) => memory,
            Err(error) if error.code == ErrorCode::Term => return Err(error),
            Err(error) => {
                warn!("{}: nothing counts as read earlier, because the records can't be used: {error}", repo.name());
                Memory::default()
            }
        };
        Ok((keeper, memory))
    }

    /// Returns whether there are records.
    ///
    /// # Errors
    /// They can't be listed.
    pub fn exists(repo: &Repo, stanza: &Stanza) -> Result<bool> {
        Ok(!names(repo, &layout::proof_verified(stanza))?.is_empty())
    }

    fn read(&mut self, now: u32) -> Result<Memory> {
        for _ in 0..TRIES {
            self.earlier = names(self.repo, &self.dir)?;
            if let Some(memory) = self.read_files(now)? {
                return Ok(memory);
            }
        }
        Err(Error::new(ErrorCode::FileMissing, "other runs replace them again and again"))
    }

    /// Reads all files. `None` if one of them is gone.
    fn read_files(&self, now: u32) -> Result<Option<Memory>> {
        let mut memory = Memory::default();
        for name in &self.earlier {
            let path = self.dir.join(name)?;
            let Some(bytes) = self.read_file(&path)? else { return Ok(None) };
            let shown = || format!("file '{}'", self.repo.storage.display(&path));
            format::decode(&bytes, now, &mut memory).map_err(|error| error.context(shown()))?;
            if memory.records.len() > RECORDS_MAX {
                return Err(Error::new(ErrorCode::Format, format!("there are more than {RECORDS_MAX}")));
            }
        }
        Ok(Some(memory))
    }

    fn read_file(&self, path: &RepoPath) -> Result<Option<Vec<u8>>> {
        let storage = &self.repo.storage;
        let Some(stored) = storage.read(path, ReadRange::default())? else { return Ok(None) };
        let plain = Decryptor::new(&self.repo.cipher, Framing::Full, BufReader::new(stored));
        let mut bytes = Vec::new();
        plain.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| {
            Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", storage.display(path)), error)
        })?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            let text = format!("file '{}' is larger than {FILE_BYTES_MAX} bytes", storage.display(path));
            return Err(Error::new(ErrorCode::Format, text));
        }
        Ok(Some(bytes))
    }

    /// Writes the records of this run if that was long ago. A failure is tried again at the end.
    pub fn checkpoint(&mut self, memory: &Memory) {
        if self.written.elapsed() < INTERVAL {
            return;
        }
        self.save_new(memory);
    }

    /// Writes the records of this run, and keeps all others: for a run that has not seen the whole repository.
    pub fn save_new(&mut self, memory: &Memory) {
        self.written = Instant::now();
        if let Err(error) = self.replace_own(memory.new_records()) {
            detail!("{}: records are not written: {error}", self.repo.name());
        }
    }

    /// Writes the records of all files that the repository has, instead of the earlier ones.
    ///
    /// # Errors
    /// The repository can't be written.
    pub fn save_all(&mut self, memory: &Memory) -> Result<()> {
        self.replace_own(memory.seen_records())?;
        let paths: Result<Vec<RepoPath>> = self.earlier.iter().map(|name| self.dir.join(name)).collect();
        self.repo.storage.remove_many(&paths?)
    }

    fn replace_own(&mut self, records: impl Iterator<Item = (FileKey, u32, bool)>) -> Result<()> {
        let bytes = cipher::encrypt(&self.repo.cipher, &format::encode(records))?;
        let name = file_name()?;
        let storage = &*self.repo.storage;
        storage::put(storage, &self.dir.join(&name)?, &bytes, WriteOptions::ATOMIC)?;
        if let Some(before) = self.own.replace(name) {
            storage.remove(&self.dir.join(&before)?)?;
        }
        Ok(())
    }
}

/// The files of records, in order.
fn names(repo: &Repo, dir: &RepoPath) -> Result<Vec<String>> {
    let mut names = repo.storage.names(dir)?.unwrap_or_default();
    names.retain(|name| name.ends_with(SUFFIX));
    Ok(names)
}

/// Returns a name that is used once.
fn file_name() -> Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)
        .map_err(|error| Error::new(ErrorCode::Kernel, format!("unable to get random bytes: {error}")))?;
    let time = Timestamp::now().strftime("%Y%m%d-%H%M%SZ");
    Ok(format!("{time}-{:016x}{SUFFIX}", u64::from_be_bytes(random)))
}
