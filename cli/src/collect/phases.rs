//! Finds out how long the phases of backups took.

use std::collections::BTreeSet;

use engine::Session;
use engine::backup::PhaseFigures;
use monitor::snapshot::{PhaseView, StanzaView};

use super::ANSWER_MAX;
use super::repo::RepoSet;

/// How long after the end of a backup its phases may still come, in seconds. They are written after expire.
const COMES_S: i64 = 3600;
/// The same for an expire that takes long. Meanwhile the repository is asked less often.
const COMES_LATE_S: i64 = 24 * 3600;
/// How often it is asked then, and again after a failure, in seconds.
const AGAIN_S: i64 = 900;

/// When a collection is made, and when the one before was, in seconds since 1970.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) now: i64,
    pub(super) before: i64,
}

impl Times {
    /// Returns whether it is time to ask again.
    fn is_again(self) -> bool {
        self.now.div_euclid(AGAIN_S) != self.before.div_euclid(AGAIN_S)
    }

    fn may_come(self, stop: i64) -> bool {
        let age = self.now.saturating_sub(stop);
        age < COMES_S || (age < COMES_LATE_S && self.is_again())
    }
}

/// Adds the phases of all backups. Those of a backup do not change, so the repository is asked for new ones only.
pub(super) fn add(view: &mut StanzaView, previous: Option<&StanzaView>, times: Times, repos: &mut RepoSet<'_>) {
    let wanted = wanted(view, previous, times);
    // Until they are read
    view.repos.iter_mut().filter(|repo| wanted.contains(&repo.key)).for_each(|repo| repo.phases_unread = true);
    for (key, found) in repos.ask(ANSWER_MAX, |key| wanted.contains(&key), Session::backup_phases) {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                engine::warn!("repo{key}: phases of backups: {error}");
                continue;
            }
        };
        view.repos.iter_mut().filter(|repo| repo.key == key).for_each(|repo| repo.phases_unread = false);
        for backup in view.backups.iter_mut().filter(|backup| backup.repo_key == key) {
            let label = backup.label.parse().ok();
            if let Some(phases) = label.and_then(|label: engine::BackupLabel| found.get(&label)) {
                backup.phases = phases.iter().map(phase_view).collect();
            }
        }
    }
}

/// Takes over what is known, and returns the repositories that may know more.
fn wanted(view: &mut StanzaView, previous: Option<&StanzaView>, times: Times) -> BTreeSet<u32> {
    let mut wanted = BTreeSet::new();
    for repo in &mut view.repos {
        repo.phases_unread = previous.and_then(|stanza| stanza.repo(repo.key)).is_some_and(|known| known.phases_unread);
        if repo.phases_unread && times.is_again() {
            wanted.insert(repo.key);
        }
    }
    for backup in &mut view.backups {
        let same =
            |known: &&monitor::snapshot::BackupView| known.repo_key == backup.repo_key && known.label == backup.label;
        let known = previous.and_then(|stanza| stanza.backups.iter().find(same));
        if let Some(known) = known {
            backup.phases.clone_from(&known.phases);
        }
        if known.is_none() || (backup.phases.is_empty() && times.may_come(backup.stop)) {
            wanted.insert(backup.repo_key);
        }
    }
    wanted
}

fn phase_view(figures: &PhaseFigures) -> PhaseView {
    PhaseView {
        phase: figures.phase.name().to_owned(),
        #[expect(clippy::cast_precision_loss, reason = "no phase takes that long")]
        seconds: figures.milliseconds as f64 / 1000.0,
        bytes: figures.bytes,
    }
}

#[cfg(test)]
mod tests {
    use monitor::snapshot::{BackupView, RepoView};

    use super::*;

    fn backup(repo_key: u32, label: &str, stop: i64, has_phases: bool) -> BackupView {
        let phases = if has_phases { vec![PhaseView::default()] } else { Vec::new() };
        BackupView { repo_key, label: label.to_owned(), stop, phases, ..BackupView::default() }
    }

    fn stanza(backups: Vec<BackupView>) -> StanzaView {
        StanzaView { backups, ..StanzaView::default() }
    }

    #[test]
    fn repository_is_asked_for_phases_of_new_backups_only() {
        let ask = |backups: Vec<BackupView>, previous: Vec<BackupView>| {
            let mut view = stanza(backups);
            let times = Times { now: 10_000, before: 9_990 };
            let wanted = wanted(&mut view, Some(&stanza(previous)), times);
            (Vec::from_iter(wanted), view.backups.iter().map(|backup| backup.phases.len()).collect::<Vec<_>>())
        };
        let (old, other) = (backup(1, "a", 9_000, false), backup(2, "b", 9_000, false));
        // Nothing is known yet
        assert_eq!(ask(vec![old.clone(), other.clone()], vec![]), (vec![1, 2], vec![0, 0]));
        // Known ones are taken over
        let known = backup(1, "a", 9_000, true);
        assert_eq!(ask(vec![old.clone()], vec![known.clone()]), (vec![], vec![1]));
        assert_eq!(ask(vec![old.clone(), other.clone()], vec![known.clone()]), (vec![2], vec![1, 0]));
        // They may come for an hour, and never for a backup of pgBackRest
        assert_eq!(ask(vec![old.clone()], vec![old]).0, [1]);
        let older = backup(1, "a", 1_000, false);
        assert_eq!(ask(vec![older.clone()], vec![older]).0, Vec::<u32>::new());
    }

    #[test]
    fn phases_that_could_not_be_read_or_come_late_are_asked_for_again() {
        let ask = |unread: bool, stop: i64, times: Times| {
            let repos = |phases_unread| vec![RepoView { key: 1, phases_unread, ..RepoView::default() }];
            let mut view = StanzaView { repos: repos(false), ..stanza(vec![backup(1, "a", stop, false)]) };
            let previous = StanzaView { repos: repos(unread), ..view.clone() };
            let wanted = wanted(&mut view, Some(&previous), times);
            assert_eq!(view.repos[0].phases_unread, unread);
            !wanted.is_empty()
        };
        let (soon, later) = (Times { now: 1_000_000, before: 999_990 }, Times { now: 1_000_000, before: 999_000 });
        // The question failed when the daemon started, and the backup is old
        assert!(ask(true, 1, later) && !ask(true, 1, soon) && !ask(false, 1, later));
        // Expire takes hours
        assert!(ask(false, 990_000, later) && !ask(false, 990_000, soon));
    }
}
