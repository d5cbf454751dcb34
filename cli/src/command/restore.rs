//! `restore`: restores a cluster from a backup.

use std::path::PathBuf;

use engine::restore::{KeepOut, MapSettings, RecoverySettings, RecoveryType, RestoreRequest, TargetAction};
use engine::{Error, ErrorCode, Result, Session};

use crate::config::{Config, Source, opt};
use crate::exit::ExitStatus;
use crate::progress::LiveProgress;
use crate::render::{plan_json, plan_text, summary_json};
use crate::wal_command::restore_command;
use crate::{archive, print, repos, summary};

/// Restores a backup into the data directory of `pg1-path`.
///
/// # Errors
/// The same as [`engine::Session::restore`].
pub fn run(config: &Config) -> Result<ExitStatus> {
    archive::check_local(config)?;
    let request = request(config)?;
    let session = repos::session(config, &config.repo_keys_selected())?;
    if config.get(opt::PLAN)? {
        return plan(config, &session.with_progress(LiveProgress::of("compare")), &request);
    }
    let done = session.with_progress(LiveProgress::of("restore")).restore(&request)?;
    summary::add("restore", || summary_json::restore(&done));
    Ok(ExitStatus::SUCCESS)
}

/// Prints what the restore would do.
fn plan(config: &Config, session: &Session, request: &RestoreRequest) -> Result<ExitStatus> {
    let mut plan = session.plan_restore(request)?;
    let text = match config.find(opt::OUTPUT) {
        Some("json") => plan_json::render(&plan),
        _ => plan_text::render(&plan),
    };
    print(&text)?;
    if !plan.refusals.is_empty() {
        return Err(plan.refusals.swap_remove(0));
    }
    let missing = |what: String| Err(Error::new(ErrorCode::FileMissing, format!("the restore would fail: {what}")));
    if plan.missing_total > 0 {
        return missing(format!("{} file(s) of the repository are missing or too short", plan.missing_total));
    }
    match plan.wal {
        Some(wal) if wal.is_consistent && !wal.is_complete => {
            let text = format!("the recovery would end early: the archive has the WAL only up to {}", wal.available);
            Err(Error::new(ErrorCode::FileMissing, text))
        }
        Some(wal) if !wal.is_complete => missing(format!("the archive has the WAL only up to {}", wal.available)),
        _ => Ok(ExitStatus::SUCCESS),
    }
}

fn request(config: &Config) -> Result<RestoreRequest> {
    let pg_key = config.pg_keys().first().copied().unwrap_or(1);
    let target = || {
        let target = config.find(opt::TARGET).map(ToOwned::to_owned);
        target.ok_or_else(|| Error::new(ErrorCode::OptionRequired, "restore command requires option: target"))
    };
    let kind = match config.get(opt::TYPE)? {
        "immediate" => RecoveryType::Immediate,
        "lsn" => RecoveryType::Lsn(target()?),
        "name" => RecoveryType::Name(target()?),
        "none" => RecoveryType::None,
        "preserve" => RecoveryType::Preserve,
        "standby" => RecoveryType::Standby,
        "time" => RecoveryType::Time(target()?),
        "xid" => RecoveryType::Xid(target()?),
        _ => RecoveryType::Default,
    };
    let recovery = RecoverySettings {
        kind,
        target_exclusive: config.find(opt::TARGET_EXCLUSIVE).unwrap_or(false),
        target_action: match config.find(opt::TARGET_ACTION) {
            Some("promote") => TargetAction::Promote,
            Some("shutdown") => TargetAction::Shutdown,
            _ => TargetAction::Pause,
        },
        target_timeline: config.find(opt::TARGET_TIMELINE).map(ToOwned::to_owned),
        options: config.find(opt::RECOVERY_OPTION).unwrap_or_default(),
        archive_mode_off: config.find(opt::ARCHIVE_MODE) == Some("off"),
        restore_command: Some(restore_command(config)),
    };
    let set = match config.source(opt::SET) {
        Source::Default => None,
        _ => config.find(opt::SET).map(ToOwned::to_owned),
    };
    Ok(RestoreRequest {
        pg_path: config.get_at(opt::PG_PATH, pg_key)?.to_owned(),
        spool_path: config.find(opt::SPOOL_PATH).map(PathBuf::from),
        set,
        delta: config.get(opt::DELTA)?,
        force: config.get(opt::FORCE)?,
        map: MapSettings {
            tablespaces: config.find(opt::TABLESPACE_MAP).unwrap_or_default(),
            tablespaces_all: config.find(opt::TABLESPACE_MAP_ALL).map(ToOwned::to_owned),
            links: config.find(opt::LINK_MAP).unwrap_or_default(),
            links_all: config.get(opt::LINK_ALL)?,
        },
        keep_out: keep_out(config)?,
        db_include: config.find(opt::DB_INCLUDE).unwrap_or_default().to_vec(),
        db_exclude: config.find(opt::DB_EXCLUDE).unwrap_or_default().to_vec(),
        recovery,
        recovery_is_default: config.source(opt::TYPE) == Source::Default,
        checksum_page_error: config.get(opt::CHECKSUM_PAGE_ERROR)?,
        pg_version_force: config.find(opt::PG_VERSION_FORCE).map(str::parse).transpose()?,
        process_max: u32::try_from(config.get(opt::PROCESS_MAX)?).unwrap_or(1),
        job_retry: config.find(opt::JOB_RETRY).and_then(|retries| u32::try_from(retries).ok()).unwrap_or(0),
        job_retry_interval: config.find(opt::JOB_RETRY_INTERVAL).unwrap_or_default(),
    })
}

/// The paths that this program uses. If a link were mapped to one of them, or to a parent of one, a restore with
/// `--delta` would clean it.
pub(super) fn keep_out(config: &Config) -> Result<Vec<KeepOut>> {
    let mut places = Vec::new();
    for &key in config.repo_keys() {
        if matches!(config.get_at(opt::REPO_TYPE, key)?, "posix" | "cifs") {
            let path = PathBuf::from(config.get_at(opt::REPO_PATH, key)?);
            places.push(KeepOut { what: "repository", path, is_repository: true });
        }
    }
    for (what, path) in [("spool path", opt::SPOOL_PATH), ("lock path", opt::LOCK_PATH), ("log path", opt::LOG_PATH)] {
        if let Some(path) = config.find(path) {
            places.push(KeepOut { what, path: PathBuf::from(path), is_repository: false });
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::resolved;

    #[test]
    fn request_without_options_is_the_request_of_the_engine_except_for_this_programs_paths() {
        let mut config = resolved("restore --stanza=demo --pg1-path=/pg");
        config.adjust().unwrap();
        let asked = request(&config).unwrap();
        let engines = RestoreRequest::new("/pg").restore_command(restore_command(&config));
        let wanted = RestoreRequest {
            spool_path: Some(PathBuf::from("/var/spool/pgbackrest")),
            keep_out: keep_out(&config).unwrap(),
            ..engines
        };
        assert_eq!(format!("{asked:#?}"), format!("{wanted:#?}"));
    }
}
