//! `expire`: removes what exceeds the retention settings. A backup also ends with it.

use std::collections::BTreeMap;

use engine::expire::plan::{FullRetention, Retention};
use engine::expire::{ExpireRequest, KeyRotation};
use engine::{Error, ErrorCode, Repo, Result};
use repo_format::label::BackupLabel;
use repo_format::wal_name::WalSegment;

use crate::config::{Config, Source, opt};
use crate::render::summary_json;
use crate::{ExitStatus, repos, summary};

/// Expires in the repositories of the configuration.
///
/// # Errors
/// Invalid or contradictory options, a stopped stanza, and failures in any repository; another process holds the lock.
pub fn run(config: &Config) -> Result<ExitStatus> {
    run_with(config, None)
}

/// Does the same where a repository is open and claimed by a turn. A backup runs it with its own configuration converted to
/// that of expire, and shares the lock.
///
/// # Errors
/// The same as [`run`].
pub fn run_with(config: &Config, claimed: Option<&Repo>) -> Result<ExitStatus> {
    let session = repos::session_with(config, &config.repo_keys_selected(), claimed)?;
    let turn = session.begin_backup()?;
    let request = request(config)?;
    let done = turn.expire(&request)?;
    summary::add("expire", || summary_json::expire(&done, request.dry_run));
    Ok(ExitStatus::SUCCESS)
}

fn request(config: &Config) -> Result<ExpireRequest> {
    let oldest = config.find(opt::OLDEST).unwrap_or(false);
    // Checked before the label, because the combination is invalid for any label
    if config.find(opt::SET).is_some() && oldest {
        return Err(Error::new(ErrorCode::OptionInvalid, "--oldest and --set cannot be used together"));
    }
    let retention = |key| Ok((key, retention(config, key)?));
    Ok(ExpireRequest {
        retention: config.repo_keys_selected().into_iter().map(retention).collect::<Result<_>>()?,
        set: config.find(opt::SET).map(label).transpose()?,
        oldest,
        archive_expire_before: config.find(opt::ARCHIVE_EXPIRE_BEFORE).map(segment).transpose()?,
        // Within a backup this is the option of the backup
        checksum_page_error: config.find(opt::CHECKSUM_PAGE_ERROR).unwrap_or(true),
        keep_proven: config.find(opt::KEEP_PROVEN).unwrap_or(false),
        cipher_rotate: cipher_rotate(config),
        dry_run: config.find(opt::DRY_RUN).unwrap_or(false),
    })
}

/// When the keys of encrypted repositories are replaced. Others do not have the option.
fn cipher_rotate(config: &Config) -> BTreeMap<u32, KeyRotation> {
    let rotation = |key| {
        let period = config.find_at(opt::REPO_CIPHER_ROTATE, key)?;
        let is_expected = config.source_at(opt::REPO_CIPHER_ROTATE, key) != Source::Default;
        Some((key, KeyRotation { period, is_expected }))
    };
    config.repo_keys_selected().into_iter().filter_map(rotation).collect()
}

fn label(text: &str) -> Result<BackupLabel> {
    text.parse()
        .map_err(|_| Error::new(ErrorCode::OptionInvalidValue, format!("'{text}' is not a valid backup label format")))
}

fn segment(text: &str) -> Result<WalSegment> {
    text.parse().map_err(|_| {
        let text = format!("'{text}' is not a valid WAL segment name for option '--archive-expire-before'");
        Error::new(ErrorCode::OptionInvalidValue, text)
    })
}

fn retention(config: &Config, key: u32) -> Result<Retention> {
    // The options' ranges fit
    let number = |option| config.find_at(option, key).and_then(|value: i64| u32::try_from(value).ok());
    Ok(Retention {
        full_type: match config.get_at(opt::REPO_RETENTION_FULL_TYPE, key)? {
            "time" => FullRetention::Time,
            _ => FullRetention::Count,
        },
        full: number(opt::REPO_RETENTION_FULL),
        diff: number(opt::REPO_RETENTION_DIFF),
        archive_type: config.get_at(opt::REPO_RETENTION_ARCHIVE_TYPE, key)?.parse()?,
        archive: number(opt::REPO_RETENTION_ARCHIVE),
        history: number(opt::REPO_RETENTION_HISTORY),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::resolved;

    fn asked(options: &str) -> ExpireRequest {
        let mut config = resolved(&format!("expire --stanza=demo {options}"));
        config.adjust().unwrap();
        request(&config).unwrap()
    }

    fn same(options: &str, retention: Retention) {
        let wanted = ExpireRequest::default().keep(1, retention);
        assert_eq!(format!("{:#?}", asked(options)), format!("{wanted:#?}"));
    }

    #[test]
    fn request_without_options_is_the_request_of_the_engine() {
        same("", Retention::default());
        same("--repo1-retention-full=2", Retention::full_backups(2));
        same("--repo1-retention-full-type=time --repo1-retention-full=9", Retention::days(9));
    }
}
