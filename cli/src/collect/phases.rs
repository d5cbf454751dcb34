//! Finds out how long the phases of backups took.

use std::collections::BTreeSet;

use engine::Session;
use engine::backup::PhaseFigures;
use monitor::snapshot::{PhaseView, StanzaView};

use super::ANSWER_MAX;
use super::repo::RepoSet;

/// How long after the end of a backup its phases may still come, in seconds. They are written after expire.
const COMES_S: i64 = 3600;

/// Adds the phases of all backups. Those of a backup do not change, so the repository is asked for new ones only.
pub(super) fn add(view: &mut StanzaView, previous: Option<&StanzaView>, time: i64, repos: &mut RepoSet<'_>) {
    let wanted = wanted(view, previous, time);
    for (key, found) in repos.ask(ANSWER_MAX, |key| wanted.contains(&key), Session::backup_phases) {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                engine::warn!("repo{key}: phases of backups: {error}");
                continue;
            }
        };
        for backup in view.backups.iter_mut().filter(|backup| backup.repo_key == key) {
            let label = backup.label.parse().ok();
            if let Some(phases) = label.and_then(|label: engine::BackupLabel| found.get(&label)) {
                backup.phases = phases.iter().map(phase_view).collect();
            }
        }
    }
}

/// Takes over what is known, and returns the repositories that may know more.
fn wanted(view: &mut StanzaView, previous: Option<&StanzaView>, time: i64) -> BTreeSet<u32> {
    let mut wanted = BTreeSet::new();
    for backup in &mut view.backups {
        let same =
            |known: &&monitor::snapshot::BackupView| known.repo_key == backup.repo_key && known.label == backup.label;
        let known = previous.and_then(|stanza| stanza.backups.iter().find(same));
        if let Some(known) = known {
            backup.phases.clone_from(&known.phases);
        }
        let may_come = backup.phases.is_empty() && time.saturating_sub(backup.stop) < COMES_S;
        if known.is_none() || may_come {
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
    use monitor::snapshot::BackupView;

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
            let wanted = wanted(&mut view, Some(&stanza(previous)), 10_000);
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
}
