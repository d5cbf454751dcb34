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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    use repo_format::archive_info::ArchiveInfo;
    use repo_format::cipher::{Cipher, Keyring};
    use repo_format::layout::Stanza;
    use repo_format::pg::PgVersion;

    use super::super::{ExpireRequest, Task};
    use super::*;
    use crate::Repo;
    use crate::session::Session;
    use crate::storage::memory::MemoryStorage;

    const DAY: u64 = 24 * 60 * 60;

    /// Rotates a key that was made this many seconds ago. Returns the current id after that, and that in the copy.
    fn rotated(format: RepoFormat, age: u64, request: ExpireRequest) -> [String; 2] {
        let stanza: Stanza = "demo".parse().unwrap();
        let cipher = Cipher::Aes256Cbc(Passphrase::new("secret"));
        let repo = Repo { key: 1, storage: Arc::new(MemoryStorage::new()), cipher };
        let made = Timestamp::now().as_second() - i64::try_from(age).unwrap();
        let keys = match format {
            RepoFormat::V5 => Keyring::single(Passphrase::new("old")),
            RepoFormat::V6 => Keyring::rotatable(Passphrase::generate(format).unwrap(), made),
        };
        let archive = ArchiveInfo::with_format(format, PgVersion::V15, 7, Some(keys));
        info_files::save_archive_info(&repo, &stanza, &archive).unwrap();
        let mut info = BackupInfo::new(PgVersion::V15, 7, 1, Some(Passphrase::new("manifests"))).unwrap();
        info.format = format;
        let session = Session::new(stanza.clone(), [repo.clone()]).unwrap();
        let set_found = AtomicBool::new(false);
        let task = Task {
            claim: None,
            repo: &repo,
            now: 0,
            request: &request,
            session: &session,
            is_last: true,
            set_found: &set_found,
        };
        task.rotate_key(&info).unwrap();
        // A second run has nothing to do
        task.rotate_key(&info).unwrap();
        let file = info_files::load_archive_info(&repo, &stanza).unwrap();
        let copy = info_files::load_archive_info_copy(&repo, &stanza).unwrap().unwrap();
        assert_eq!(file.format, format);
        [file, copy].map(|info| info.keys.unwrap().current_id().to_string())
    }

    #[test]
    fn key_is_replaced_only_after_its_period() {
        let request = || ExpireRequest::default().rotate_key(1, Duration::from_secs(15 * DAY));
        assert_eq!(rotated(RepoFormat::V6, 15 * DAY - 5, request()), ["1", "1"]);
        assert_eq!(rotated(RepoFormat::V6, 15 * DAY + 5, request()), ["2", "2"]);
        assert_eq!(rotated(RepoFormat::V6, 9999 * DAY, request()), ["2", "2"]);
        assert_eq!(rotated(RepoFormat::V6, 9999 * DAY, request().dry_run()), ["1", "1"]);
        assert_eq!(rotated(RepoFormat::V6, 9999 * DAY, ExpireRequest::default()), ["1", "1"]);
        assert_eq!(rotated(RepoFormat::V5, 9999 * DAY, request()), ["0", "0"]);
    }
}
