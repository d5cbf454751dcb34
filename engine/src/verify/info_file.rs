//! Checks info files and manifests with their copies, and finds the one to go on with.

use std::io::{self, BufRead, BufReader, Read};

use repo_format::cipher::{Cipher, Decryptor, Framing};
use repo_format::hash::{Sha1, Sha1Hasher};
use repo_format::info::crypto_hint;
use repo_format::layout::{self, RepoPath};

use crate::storage::{self, ReadRange};
use crate::{Error, ErrorCode, Repo, Result, detail};

/// Bytes read at once.
const BUFFER_BYTES: usize = 256 * 1024;

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

/// Reads a file with `parse`, to its end, and gives its plain text's checksum beside the result. A fault is logged as a detail,
/// because the copy may still do; `shown` names the file where the message would not.
pub(super) fn load<T>(
    repo: &Repo,
    path: &RepoPath,
    shown: &str,
    cipher: &Cipher,
    parse: impl FnOnce(&mut dyn BufRead) -> Result<T>,
) -> std::result::Result<(T, Sha1), ErrorCode> {
    let result = read(repo, path, cipher, parse);
    result.map_err(|error| {
        let name = if error.code == ErrorCode::Checksum { format!(" {shown}") } else { String::new() };
        detail!("{error}{name}");
        error.code
    })
}

fn read<T>(
    repo: &Repo,
    path: &RepoPath,
    cipher: &Cipher,
    parse: impl FnOnce(&mut dyn BufRead) -> Result<T>,
) -> Result<(T, Sha1)> {
    let stored =
        repo.storage.read(path, ReadRange::default())?.ok_or_else(|| storage::missing(&*repo.storage, path))?;
    let plain = Decryptor::new(cipher, Framing::Full, BufReader::with_capacity(BUFFER_BYTES, stored));
    let hashing = HashReader { inner: plain, hasher: Sha1Hasher::new() };
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, hashing);
    let content = parse(&mut reader)?;
    drain(&mut reader)?;
    Ok((content, reader.into_inner().hasher.finish()))
}

/// Reads to the end.
pub(super) fn drain(reader: &mut dyn BufRead) -> Result<()> {
    io::copy(reader, &mut io::sink())
        .map(drop)
        .map_err(|error| Error::from_io(ErrorCode::FileRead, "unable to read", error))
}

/// The content of an info file, from its copy if need be; `None` when neither can be used. `directory` stands for the file's
/// place in messages.
pub(super) fn usable<T>(
    repo: &Repo,
    path: &RepoPath,
    directory: &str,
    parse: impl Fn(&mut dyn BufRead) -> Result<T>,
) -> Option<T> {
    let name = path.file_name();
    let copy = layout::copy(path);
    let copy_name = copy.file_name();
    let parse = |reader: &mut dyn BufRead| parse(reader).map_err(crypto_hint);
    match load(repo, path, &format!("{directory}/{name}"), &repo.cipher, parse) {
        Ok((content, checksum)) => {
            let copied = load(repo, &copy, &format!("{directory}/{copy_name}"), &repo.cipher, drain);
            if copied.is_ok_and(|((), copied)| copied != checksum) {
                detail!("{copy_name} does not match {name}");
            }
            Some(content)
        }
        Err(_) => {
            load(repo, &copy, &format!("{directory}/{copy_name}"), &repo.cipher, parse).ok().map(|(content, _)| content)
        }
    }
}

/// Reads all text of an info file.
///
/// # Errors
/// It can't be read, or [`ErrorCode::FileRead`] when it has more than `size_max` bytes.
pub(super) fn text(reader: &mut dyn BufRead, size_max: u64) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    reader
        .take(size_max)
        .read_to_end(&mut text)
        .map_err(|error| Error::from_io(ErrorCode::FileRead, "unable to read", error))?;
    if text.len() as u64 == size_max {
        return Err(Error::new(ErrorCode::FileRead, format!("info file has {size_max} bytes or more")));
    }
    Ok(text)
}
