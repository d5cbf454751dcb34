//! Replaces archive keys that are too old.

use jiff::Timestamp;
use repo_format::backup_info::BackupInfo;
use repo_format::cipher::Passphrase;
use repo_format::format::RepoFormat;

use super::Task;
use crate::Result;
use crate::repo::info_files;

impl Task<'_> {
    /// Adds a key to archive.info if the current one is too old. Files that exist keep their keys, so that none is ever
    /// removed (pgBackRest 2.60.0, `src/command/expire/expire.c`).
    ///
    /// # Errors
    /// archive.info can't be loaded or saved; the current key has no number that another could follow.
    pub(super) fn rotate_key(&self, info: &BackupInfo) -> Result<()> {
        let (repo, stanza, key) = (self.repo, self.session.stanza(), self.repo.key);
        let Some(rotation) = self.request.cipher_rotate.get(&key).filter(|_| !repo.cipher.is_none()) else {
            return Ok(());
        };
        if info.format < RepoFormat::V6 {
            if rotation.is_expected {
                crate::warn!("option 'repo{key}-cipher-rotate' requires repository format 6 or higher");
            }
            return Ok(());
        }
        let mut archive = info_files::load_archive_info(repo, stanza)?;
        let (now, period) = (Timestamp::now().as_second(), rotation.period.as_secs());
        let Some(keys) = &mut archive.keys else { return Ok(()) };
        let age = u64::try_from(now.saturating_sub(keys.rotated())).unwrap_or_default();
        if age <= period {
            return Ok(());
        }
        keys.rotate(Passphrase::generate(archive.format)?, now)?;
        crate::info!("repo{key}: rotate archive key to id {}", keys.current_id());
        self.change(|| info_files::save_archive_info(repo, stanza, &archive))
    }
}
