//! Running backups across the repositories of a stanza, for both forms of `info`.

use engine::info::{RepoFact, RunningLock, StanzaFact};

/// The repositories into which a backup of known size runs.
pub fn backups_with_size(stanza: &StanzaFact) -> impl Iterator<Item = &RepoFact> {
    stanza.repos.iter().filter(|repo| repo.backup_lock.held && repo.backup_lock.size != 0)
}

/// All running backups together.
pub fn backup_total(stanza: &StanzaFact) -> RunningLock {
    let mut total =
        RunningLock { held: stanza.repos.iter().any(|repo| repo.backup_lock.held), ..RunningLock::default() };
    for repo in backups_with_size(stanza) {
        total.add(repo.backup_lock);
    }
    total
}
