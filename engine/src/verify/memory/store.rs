//! Keeps records in the repository. Those of bad files have files of their own, so that damage of the others, which are
//! large, does not lose them.

use std::io::{BufReader, Read};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use repo_format::cipher::{self, Decryptor, Framing};
use repo_format::layout::{self, RepoPath, Stanza};

use super::format::{self, FILE_BYTES_MAX};
use super::{CLOCK_AHEAD_MAX, FileKey, Memory, Record};
use crate::storage::{self, EntryKind, ReadRange, WriteOptions};
use crate::system_text;
use crate::work::retry::{is_about_content, is_stop};
use crate::{Error, ErrorCode, Repo, Result, detail, warn};

/// The suffix of files with records of good files.
const GOOD_SUFFIX: &str = ".bin";
/// The suffix of files with records of bad files.
const BAD_SUFFIX: &str = ".bad";
/// How often the records of a long run are written, so that a killed run does not lose its work.
const INTERVAL: Duration = Duration::from_secs(300);
/// How often the files are listed again, because another run replaced them while they were read.
const TRIES: u32 = 5;
/// Files that are read. More than that are the work of no program.
const FILES_MAX: usize = 4096;

/// Reads and writes the records of a stanza.
pub(in crate::verify) struct Keeper<'a> {
    repo: &'a Repo,
    dir: RepoPath,
    /// The files that were there before, and that a complete run replaces.
    earlier: Vec<String>,
    /// The files that this run has written.
    own: Vec<String>,
    written: Instant,
    /// Why records can't be used.
    pub faults: Vec<Error>,
}

/// What becomes of the records of files that a run has not seen in the repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::verify) enum Unseen {
    /// The files are gone.
    #[default]
    Forget,
    /// Something in the repository can't be used.
    KeepBad,
    /// Something in the repository could not be read.
    KeepAll,
}

impl<'a> Keeper<'a> {
    /// Reads what earlier runs recorded, as far as it can be used. Warns about the rest.
    ///
    /// # Errors
    /// A signal arrived.
    pub fn load(repo: &'a Repo, stanza: &Stanza, now: u32) -> Result<(Self, Memory)> {
        let dir = layout::proof_verified(stanza);
        let (earlier, own, faults) = (Vec::new(), Vec::new(), Vec::new());
        let mut keeper = Keeper { repo, dir, earlier, own, written: Instant::now(), faults };
        let memory = match keeper.read(now.saturating_add(CLOCK_AHEAD_MAX)) {
            Ok(memory) => memory,
            Err(error) if is_stop(&error) => return Err(error),
            Err(error) => {
                keeper.faults = vec![error];
                Memory::default()
            }
        };
        for error in &keeper.faults {
            warn!("{}: files count as not read earlier, because their records can't be used: {error}", repo.name());
        }
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
            (self.earlier, self.faults) = (Vec::new(), Vec::new());
            let mut names = names(self.repo, &self.dir)?;
            let omitted = names.split_off(names.len().min(FILES_MAX));
            let Some(mut memory) = self.read_files(names, now)? else { continue };
            if !omitted.is_empty() {
                memory.is_complete &= !omitted.iter().any(|name| name.ends_with(BAD_SUFFIX));
                self.faults.push(Error::new(ErrorCode::Format, format!("there are more than {FILES_MAX} files")));
            }
            return Ok(memory);
        }
        Err(Error::new(ErrorCode::FileMissing, "other runs replace them again and again"))
    }

    /// Reads all files. `None` if one of them is gone.
    fn read_files(&mut self, names: Vec<String>, now: u32) -> Result<Option<Memory>> {
        let (mut memory, mut has_lost_bad) = (Memory::default(), false);
        for name in names {
            let is_bad = name.ends_with(BAD_SUFFIX);
            let path = self.dir.join(&name)?;
            let result = match self.read_file(&path) {
                Ok(None) => return Ok(None),
                Ok(Some(bytes)) => format::decode(&bytes, now, &mut memory).inspect_err(|_| {
                    if is_bad {
                        format::salvage_bad(&bytes, now, &mut memory);
                        has_lost_bad = true;
                    }
                }),
                Err(error) if is_stop(&error) => return Err(error),
                Err(error) => Err(error),
            };
            let Err(error) = result else {
                self.earlier.push(name);
                continue;
            };
            if is_about_content(&error) {
                has_lost_bad |= is_bad;
                self.earlier.push(name);
            } else {
                // It may be readable later
                memory.is_complete &= !is_bad;
            }
            self.faults.push(error.context(format!("file '{}'", self.repo.storage.display(&path))));
        }
        if has_lost_bad {
            memory.forget_good();
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
        if let Err(error) = self.replace_own(memory, |record| record.is_new) {
            detail!("{}: records are not written: {error}", self.repo.name());
        }
    }

    /// Writes the records of all files that the repository has, and of others if they are to be kept, instead of the
    /// earlier ones.
    ///
    /// # Errors
    /// The repository can't be written.
    pub fn save_all(&mut self, memory: &Memory, unseen: Unseen) -> Result<()> {
        let is_kept = |record: &Record| match unseen {
            Unseen::Forget => record.is_seen,
            Unseen::KeepBad => record.is_seen || record.is_bad,
            Unseen::KeepAll => true,
        };
        self.replace_own(memory, is_kept)?;
        self.remove(&self.earlier)
    }

    /// Writes records: first those of bad files, which count more.
    fn replace_own(&mut self, memory: &Memory, is_wanted: impl Fn(&Record) -> bool) -> Result<()> {
        let before = std::mem::take(&mut self.own);
        let name = file_name()?;
        let written = (|| {
            for (suffix, is_bad) in [(BAD_SUFFIX, true), (GOOD_SUFFIX, false)] {
                let mut records = memory.records_of(|record| record.is_bad == is_bad && is_wanted(record)).peekable();
                if !is_bad || records.peek().is_some() {
                    self.own.push(format!("{name}{suffix}"));
                    self.put(&format!("{name}{suffix}"), records)?;
                }
            }
            self.remove(&before)
        })();
        if written.is_err() {
            self.own.extend(before);
        }
        written
    }

    fn put(&self, name: &str, records: impl Iterator<Item = (FileKey, Record)>) -> Result<()> {
        let bytes = cipher::encrypt(&self.repo.cipher, &format::encode(records))?;
        storage::put(&*self.repo.storage, &self.dir.join(name)?, &bytes, WriteOptions::ATOMIC)
    }

    fn remove(&self, names: &[String]) -> Result<()> {
        let paths: Result<Vec<RepoPath>> = names.iter().map(|name| self.dir.join(name)).collect();
        self.repo.storage.remove_many(&paths?)
    }
}

/// The files of records: first those of bad files.
fn names(repo: &Repo, dir: &RepoPath) -> Result<Vec<String>> {
    let entries = repo.storage.list(dir)?.unwrap_or_default();
    let files = entries.into_iter().filter(|entry| entry.kind == EntryKind::File).map(|entry| entry.name);
    let (mut bad, rest): (Vec<String>, Vec<String>) = files.partition(|name| name.ends_with(BAD_SUFFIX));
    bad.extend(rest.into_iter().filter(|name| name.ends_with(GOOD_SUFFIX)));
    Ok(bad)
}

/// Returns a name that is used once, without a suffix.
fn file_name() -> Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|error| {
        Error::new(ErrorCode::Kernel, format!("unable to get random bytes: {}", system_text(&error)))
    })?;
    let time = Timestamp::now().strftime("%Y%m%d-%H%M%SZ");
    Ok(format!("{time}-{:016x}", u64::from_be_bytes(random)))
}
