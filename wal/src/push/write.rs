//! Writes WAL files to repositories.

use engine::storage::{RepoWriter, WriteOptions};
use engine::work::together;
use engine::{Error, ErrorCode, Result};
use repo_format::cipher::{Encryptor, Framing};
use repo_format::layout;

use super::PushSettings;
use super::check::PushTarget;
use super::wal_file::CHUNK;
use crate::repos::repo_error;

/// Writes the same bytes to several repositories in parallel, and returns the failures.
pub(super) fn store(targets: &[&PushTarget], settings: &PushSettings, file: &str, content: &[u8]) -> Vec<String> {
    let one = |target: &PushTarget| -> Result<()> {
        let mut writer = create(target, settings, file)?;
        if target.cipher.is_none() {
            write(&mut *writer, content)?;
        } else {
            let mut encryptor = Encryptor::new(&target.cipher, Framing::Full);
            let mut encrypted = Vec::with_capacity(CHUNK + 64);
            for chunk in content.chunks(CHUNK) {
                encryptor.push(chunk, &mut encrypted)?;
                write(&mut *writer, &encrypted)?;
                encrypted.clear();
            }
            encryptor.finish(&mut encrypted)?;
            write(&mut *writer, &encrypted)?;
        }
        writer.finish()
    };
    // Not only servers take their time: a file system does until the segment is durable
    let stored = together::all(targets.len(), targets, |target| one(target));
    let failed = |(target, result): (&&PushTarget, Result<()>)| Some(repo_error(target.repo.key, &result.err()?));
    targets.iter().zip(stored).filter_map(failed).collect()
}

pub(super) fn create(target: &PushTarget, settings: &PushSettings, file: &str) -> Result<Box<dyn RepoWriter>> {
    let path = layout::archive_file(&settings.stanza, target.archive_id, file)?;
    target.repo.storage.write(&path, WriteOptions::ATOMIC)
}

pub(super) fn write(writer: &mut dyn RepoWriter, content: &[u8]) -> Result<()> {
    writer.write_all(content).map_err(|error| Error::from_io(ErrorCode::FileWrite, "unable to write WAL", error))
}
