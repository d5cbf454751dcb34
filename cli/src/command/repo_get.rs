//! `repo-get`: prints a file of a repository, decrypted.

use std::io::Write;

use engine::repo::browse;
use engine::storage::{ReadRange, missing};
use engine::{Error, ErrorCode, Result};
use repo_format::cipher::{Cipher, Decryptor, Framing};
use repo_format::read::read_some;

use crate::config::{Config, opt};
use crate::{ExitStatus, repos};

/// Bytes moved at a time.
const CHUNK: usize = 1 << 18;

/// Prints the given file. The exit status says whether it exists.
///
/// # Errors
/// The path is not in the repository, the file is missing (unless that is ignored), or it can't be read. A reader that
/// closes the output early is not an error.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let [file] = config.params() else {
        return Err(Error::new(ErrorCode::ParamRequired, "source file required"));
    };
    let repo = repos::open_default(config)?;
    let path = browse::user_path_read(&repo, file)?;
    let cipher = if repo.cipher.is_none() || config.get(opt::RAW)? {
        Cipher::None
    } else {
        browse::cipher_of(&repo, &path, repos::stanza_if_set(config)?.as_ref())?
    };
    let Some(stored) = repo.storage.read(&path, ReadRange::default())? else {
        if config.get(opt::IGNORE_MISSING)? {
            return Ok(ExitStatus::NOT_FOUND);
        }
        return Err(missing(&*repo.storage, &path));
    };
    let mut reader = Decryptor::new(&cipher, Framing::Full, stored);
    let mut out = std::io::stdout().lock();
    let mut buffer = vec![0; CHUNK];
    loop {
        let size = read_some(&mut reader, &mut buffer).map_err(|error| {
            let text = format!("unable to read '{}'", repo.storage.display(&path));
            Error::from_io(ErrorCode::FileRead, text, error)
        })?;
        if size == 0 {
            break;
        }
        // Most likely the output goes to a program that has read enough
        if out.write_all(&buffer[..size]).is_err() {
            return Ok(ExitStatus::NOT_FOUND);
        }
    }
    Ok(if out.flush().is_ok() { ExitStatus::SUCCESS } else { ExitStatus::NOT_FOUND })
}
