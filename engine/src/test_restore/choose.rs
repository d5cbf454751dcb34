//! Chooses the backup to test, as a pure function of what `backup.info` lists.

use repo_format::label::BackupLabel;

use crate::Result;
use crate::restore::set_select::{self, Candidate, Choice, Criterion};

/// Which backup to test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupPick {
    /// The newest, or for a target time or LSN the newest that stopped before it.
    Newest,
    /// The backup with this label.
    Label(String),
    /// An older one of the current cluster, by chance.
    Random,
}

/// Chooses among the backups of one repository, which are in the order of their labels. `criterion` is that of the
/// recovery target. `chance` is a random number.
///
/// # Errors
/// The same as [`set_select::choose`].
pub(crate) fn choose(
    pick: &BackupPick,
    criterion: &Criterion,
    backups: &[Candidate],
    history_id: u32,
    chance: u64,
) -> Result<Option<BackupLabel>> {
    let found = match pick {
        BackupPick::Newest => set_select::choose(criterion, backups, history_id)?,
        BackupPick::Label(label) => set_select::choose(&Criterion::Label(label.clone()), backups, history_id)?,
        BackupPick::Random => return Ok(random(criterion, backups, history_id, chance)),
    };
    Ok(match found {
        Choice::Found(label) => Some(label),
        Choice::Next | Choice::NoLsn => None,
    })
}

fn random(criterion: &Criterion, backups: &[Candidate], history_id: u32, chance: u64) -> Option<BackupLabel> {
    let is_before_target = |backup: &&Candidate| match criterion {
        Criterion::StoppedBefore(time) => backup.stop_time < *time,
        Criterion::StoppedAt(lsn) => backup.stop_lsn.is_some_and(|stop| stop <= *lsn),
        Criterion::Newest | Criterion::Label(_) => true,
    };
    let of_cluster = backups.iter().filter(|backup| backup.history_id == history_id);
    let mut suitable: Vec<&Candidate> = of_cluster.filter(is_before_target).collect();
    // The newest is what a test without options takes
    if suitable.len() > 1 {
        suitable.pop();
    }
    let count = u64::try_from(suitable.len()).ok().filter(|&count| count > 0)?;
    let index = usize::try_from(chance % count).unwrap_or(0);
    suitable.get(index).map(|backup| backup.label.clone())
}

#[cfg(test)]
mod tests {
    use repo_format::wal_name::Lsn;

    use super::*;

    fn backups() -> Vec<Candidate> {
        ["20260101-000000F", "20260102-000000F", "20260103-000000F", "20260104-000000F"]
            .into_iter()
            .zip(1u8..)
            .map(|(label, number)| Candidate {
                label: label.parse().unwrap(),
                stop_time: i64::from(number) * 100,
                stop_lsn: Some(Lsn(u64::from(number) * 10)),
                history_id: if number == 1 { 1 } else { 2 },
            })
            .collect()
    }

    fn picked(pick: &BackupPick, criterion: &Criterion, chance: u64) -> Option<String> {
        choose(pick, criterion, &backups(), 2, chance).unwrap().map(|label| label.to_string())
    }

    #[test]
    fn random_backup_is_an_older_one_of_the_current_cluster() {
        let all: Vec<_> =
            (0..4).map(|chance| picked(&BackupPick::Random, &Criterion::Newest, chance).unwrap()).collect();
        assert_eq!(all, ["20260102-000000F", "20260103-000000F", "20260102-000000F", "20260103-000000F"]);
    }

    #[test]
    fn random_backup_is_not_after_the_target() {
        for chance in 0..3 {
            let by_time = picked(&BackupPick::Random, &Criterion::StoppedBefore(301), chance);
            assert_eq!(by_time.as_deref(), Some("20260102-000000F"));
        }
        assert_eq!(picked(&BackupPick::Random, &Criterion::StoppedAt(Lsn(15)), 0), None);
    }

    #[test]
    fn only_backup_is_the_random_one() {
        let found = choose(&BackupPick::Random, &Criterion::Newest, &backups()[3..], 2, 7).unwrap();
        assert_eq!(found.unwrap().to_string(), "20260104-000000F");
        assert_eq!(choose(&BackupPick::Random, &Criterion::Newest, &[], 2, 7).unwrap(), None);
    }

    #[test]
    fn label_counts_whatever_the_target_is() {
        let pick = BackupPick::Label("20260101-000000F".to_owned());
        assert_eq!(picked(&pick, &Criterion::Newest, 0).as_deref(), Some("20260101-000000F"));
        assert_eq!(picked(&BackupPick::Newest, &Criterion::Newest, 0).as_deref(), Some("20260104-000000F"));
    }
}
