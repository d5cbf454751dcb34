//! Writes archive.info anew at the end of a backup, only to make it as recent as the backup, so that a store's lifecycle
//! rule does not remove it earlier (pgBackRest `src/command/backup/complete.c.inc`).
//!
//! The backup is complete without that. So it does not fail because archive.info can't be read at that moment.

use repo_format::archive_info::ArchiveInfo;
use repo_format::layout::{self, Stanza};

use crate::repo::{Repo, info_files};
use crate::work::retry::{is_about_content, patiently};
use crate::{Error, Result, warn};

/// What was found of archive.info.
pub(super) enum Found {
    Intact(ArchiveInfo),
    /// Damaged, and its copy may lack cipher keys that it has.
    Damaged,
    /// It can't be read at the moment.
    Unread(Error),
}

/// Loads archive.info.
///
/// # Errors
/// It is missing or damaged, and so is its copy.
pub(super) fn load(repo: &Repo, stanza: &Stanza) -> Result<Found> {
    match patiently(|| info_files::load_archive_info_to_refresh(repo, stanza)) {
        Ok(Some(info)) => Ok(Found::Intact(info)),
        Ok(None) => Ok(Found::Damaged),
        Err(error) if is_about_content(&error) => Err(error),
        Err(error) => Ok(Found::Unread(error)),
    }
}

impl Found {
    /// Saves archive.info again. Warns if it has to stay as it is.
    ///
    /// # Errors
    /// It can't be written, or the stored files contradict it.
    pub(super) fn save(&self, repo: &Repo, stanza: &Stanza) -> Result<()> {
        let name = || repo.storage.display(&layout::archive_info(stanza));
        let stays = |error: &Error| warn!("'{}' is not written anew after the backup: {error}", name());
        match self {
            Found::Intact(info) => match patiently(|| info_files::prepare_archive_info(repo, stanza, info)) {
                Ok(prepared) => return prepared.save(repo),
                Err(error) if is_about_content(&error) => return Err(error),
                Err(error) => stays(&error),
            },
            Found::Damaged => warn!(
                "'{}' is damaged, and may have cipher keys that its copy lacks\nHINT: {}",
                name(),
                info_files::DAMAGED_HINT
            ),
            Found::Unread(error) => stays(error),
        }
        Ok(())
    }
}
