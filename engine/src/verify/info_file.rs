//! Checks info files and manifests with their copies, and selects the one to continue with.
//!
//! A file with an intact copy keeps a stanza working until the copy is damaged too. So damage to one of the two is
//! reported, and can be repaired ([`super::repair`]).

use std::io::{self, BufRead, BufReader, Read};

use repo_format::cipher::{Cipher, Decryptor, Framing, StreamHeader};
use repo_format::hash::{Sha1, Sha1Hasher};
use repo_format::info::Origin;
use repo_format::layout::{self, RepoPath};

use crate::repo::info_files::{StoredText, parse_stored};
use crate::repo::unreadable;
use crate::storage::{self, ReadRange};
use crate::work::retry::{RetryPolicy, is_about_content, is_lasting_locally, is_missing, is_of_peer};
use crate::{CancelToken, Error, ErrorCode, Repo, Result, detail};

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Parses a file's text. The origin determines what errors may show of it.
pub(super) type Parse<'a, T> = &'a dyn Fn(&mut dyn BufRead, Origin) -> Result<T>;

/// How files are read again after a temporary failure.
#[derive(Clone, Copy)]
pub(super) struct Retry<'a> {
    pub policy: &'a RetryPolicy,
    pub cancel: &'a CancelToken,
    /// The repository. Nothing is repeated after its connection has ended.
    pub repo: &'a Repo,
}

impl Retry<'_> {
    /// Repeats the work while it fails with an error that may be temporary, but not if the content is wrong.
    pub fn run<T>(&self, work: impl Fn() -> Result<T>) -> Result<T> {
        self.run_to(is_lasting_locally, work)
    }

    /// Repeats the work while it fails because of a connection to another host. The connection of the command may still seem to be
    /// open, because the end of the host is not found on all of them at the same time.
    pub fn after_peer_fault<T>(&self, work: impl Fn() -> Result<T>) -> Result<T> {
        self.run_to(|error| !is_of_peer(error), work)
    }

    fn run_to<T>(&self, is_answer: impl Fn(&Error) -> bool, work: impl Fn() -> Result<T>) -> Result<T> {
        let pause = |interval| self.repo.storage.connected().and_then(|()| self.cancel.sleep(interval));
        self.policy.run_to_answer(pause, is_answer, work)
    }
}

/// Hashes what is read through it.
struct HashReader<R> {
    inner: R,
    hasher: Sha1Hasher,
}

impl<R: Read> Read for HashReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

impl<R: Read> StoredText for BufReader<HashReader<Decryptor<R>>> {
    fn header(&self) -> Option<&StreamHeader> {
        self.get_ref().inner.header()
    }
}

/// A file that is kept twice.
pub(super) struct FilePair<'a> {
    pub repo: &'a Repo,
    /// The file. Its copy is next to it.
    pub path: RepoPath,
    /// How messages describe the file if they do not name it.
    pub shown: String,
    pub cipher: Cipher,
    pub retry: Retry<'a>,
}

/// The damaged one of a file and its copy, while the other is intact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Repair {
    /// The whole one.
    pub from: RepoPath,
    /// The other one.
    pub to: RepoPath,
    /// Why it is damaged, in a word or two.
    pub why: &'static str,
}

impl Repair {
    pub const MISSING: &str = "missing";
    pub const DAMAGED: &str = "damaged";
    pub const DIFFERENT: &str = "damaged or out of date";
    pub const UNREADABLE: &str = "not readable";
}

/// The content of a file that is stored twice.
pub(super) struct LoadedPair<T> {
    /// The content.
    pub content: T,
    /// Whether the content is from the copy.
    pub from_copy: bool,
    /// How to repair the damaged one of the two, if one is.
    pub repair: Option<Repair>,
}

/// Neither the file nor its copy can be used.
#[derive(Debug)]
pub(super) struct Unusable {
    pub file: Error,
    pub copy: Error,
}

impl<T> LoadedPair<T> {
    /// Returns only what was found about the two files.
    pub fn without_content(self) -> LoadedPair<()> {
        LoadedPair { content: (), from_copy: self.from_copy, repair: self.repair }
    }
}

impl Unusable {
    /// Returns whether both are missing.
    pub fn is_missing(&self) -> bool {
        [&self.file, &self.copy].into_iter().all(is_missing)
    }
}

impl FilePair<'_> {
    /// Reads the file and compares the copy with it, or uses the copy instead.
    pub fn load<T>(&self, parse: Parse<'_, T>) -> std::result::Result<LoadedPair<T>, Box<Unusable>> {
        self.with_copy(self.load_file(parse), parse)
    }

    /// Reads only the file, to its end. Returns the content and the checksum of the plain text. A failure is logged as
    /// a detail, because the copy may suffice.
    pub fn load_file<T>(&self, parse: Parse<'_, T>) -> Result<(T, Sha1)> {
        self.load_one(&self.path, &self.shown, parse)
    }

    /// Continues after [`FilePair::load_file`]: compares the copy with the file, or uses it instead.
    pub fn with_copy<T>(
        &self,
        file: Result<(T, Sha1)>,
        parse: Parse<'_, T>,
    ) -> std::result::Result<LoadedPair<T>, Box<Unusable>> {
        let copy = layout::copy(&self.path);
        let shown = format!("{}{}", self.shown, layout::COPY_SUFFIX);
        let repair = |from: &RepoPath, to: &RepoPath, why| Some(Repair { from: from.clone(), to: to.clone(), why });
        match file {
            Ok((content, checksum)) => {
                let repair = match self.load_one(&copy, &shown, &|reader, _| drain(reader)) {
                    Ok(((), copied)) if copied == checksum => None,
                    Ok(_) => {
                        detail!("{} does not match {}", copy.file_name(), self.path.file_name());
                        repair(&self.path, &copy, Repair::DIFFERENT)
                    }
                    Err(error) => self.why(&error).and_then(|why| repair(&self.path, &copy, why)),
                };
                Ok(LoadedPair { content, from_copy: false, repair })
            }
            Err(error) if repo_format::format::is_unsupported(&error) => {
                let text = format!("not read, because {} has another format", self.path.file_name());
                Err(Box::new(Unusable { file: error, copy: Error::new(ErrorCode::Format, text) }))
            }
            Err(error) => match self.load_one(&copy, &shown, parse) {
                Ok((content, _)) => {
                    let repair = self.why(&error).and_then(|why| repair(&copy, &self.path, why));
                    Ok(LoadedPair { content, from_copy: true, repair })
                }
                Err(copy) => Err(Box::new(Unusable { file: error, copy })),
            },
        }
    }

    /// Why one of the two is damaged; `None` for what can't be read now, because it may be intact.
    fn why(&self, error: &Error) -> Option<&'static str> {
        if is_missing(error) {
            Some(Repair::MISSING)
        } else if is_about_content(error) {
            Some(Repair::DAMAGED)
        } else {
            unreadable::lasts(self.repo, error).then_some(Repair::UNREADABLE)
        }
    }

    fn load_one<T>(&self, path: &RepoPath, shown: &str, parse: Parse<'_, T>) -> Result<(T, Sha1)> {
        self.retry.run(|| read(self.repo, path, &self.cipher, parse)).inspect_err(|error| {
            let name = if error.code == ErrorCode::Checksum { format!(" {shown}") } else { String::new() };
            detail!("{error}{name}");
        })
    }
}

fn read<T>(repo: &Repo, path: &RepoPath, cipher: &Cipher, parse: Parse<'_, T>) -> Result<(T, Sha1)> {
    let stored =
        repo.storage.read(path, ReadRange::default())?.ok_or_else(|| storage::missing(&*repo.storage, path))?;
    let plain = Decryptor::new(cipher, Framing::Full, BufReader::with_capacity(BUFFER_BYTES, stored));
    let hashing = HashReader { inner: plain, hasher: Sha1Hasher::new() };
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, hashing);
    let content = parse_stored(repo, cipher, &mut reader, parse)?;
    drain(&mut reader)?;
    Ok((content, reader.into_inner().hasher.finish()))
}

/// Reads to the end.
fn drain(reader: &mut dyn BufRead) -> Result<()> {
    io::copy(reader, &mut io::sink())
        .map(drop)
        .map_err(|error| Error::from_io(ErrorCode::FileRead, "unable to read", error))
}
