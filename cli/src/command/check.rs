//! `check`: checks that a stanza can archive and be backed up, or reports the configuration.

use std::path::PathBuf;

use engine::check::CheckRequest;
use engine::diagnose::{DiagnoseRequest, HostPaths, Severity};
use engine::{Error, ErrorCode, Result};

use crate::config::{Command, Config, opt};
use crate::render::{check_report, diagnosis, summary_json};
use crate::{ExitStatus, pg, print, repos, summary};

/// Checks the stanza, or every stanza of the configuration file if none is given. With `--report` it checks nothing and
/// prints what the environment and the configuration files contain. With `--diagnose` it looks at more, and goes on after
/// an error.
///
/// # Errors
/// The first problem.
pub fn run(config: &Config) -> Result<ExitStatus> {
    if config.get(opt::REPORT)? {
        print(&check_report::render(&config.report()?))?;
        return Ok(ExitStatus::SUCCESS);
    }
    let wanted = config.get(opt::DIAGNOSE)?;
    if config.find(opt::STANZA).is_some() {
        return if wanted == "n" {
            check_one(config)
        } else {
            diagnose(std::slice::from_ref(config), wanted == "json")
        };
    }
    let stanzas = config.stanzas();
    if stanzas.is_empty() {
        engine::warn!("no stanzas found to check\nHINT: are there non-empty stanza sections in the configuration?");
    }
    if wanted != "n" {
        let configs = stanzas.iter().map(|stanza| config.with_stanza(stanza)).collect::<Result<Vec<_>>>()?;
        return diagnose(&configs, wanted == "json");
    }
    for stanza in stanzas {
        engine::info!("check stanza '{stanza}'");
        check_one(&config.with_stanza(&stanza)?)?;
    }
    Ok(ExitStatus::SUCCESS)
}

fn check_one(config: &Config) -> Result<ExitStatus> {
    let session = repos::session(config, config.repo_keys())?;
    let done = session.check(&request(config)?)?;
    summary::push("check", || summary_json::check(&session.stanza().to_string(), &done));
    Ok(ExitStatus::SUCCESS)
}

fn request(config: &Config) -> Result<CheckRequest> {
    Ok(CheckRequest {
        pg: pg::all(config)?,
        archive: pg::archive_check(config),
        archive_timeout: config.get(opt::ARCHIVE_TIMEOUT)?,
        backup_standby: config.get(opt::BACKUP_STANDBY)? != "n",
        reaches_repository: config.repo_keys().iter().any(|key| config.find_at(opt::REPO_HOST, *key).is_none()),
    })
}

/// Looks at these stanzas and prints what was found.
fn diagnose(stanzas: &[Config], as_json: bool) -> Result<ExitStatus> {
    let mut found = Vec::new();
    for config in stanzas {
        let request = diagnose_request(config)?;
        let mut session = repos::session(config, config.repo_keys())?;
        if let Some(lock_path) = &request.paths.lock {
            session = session.with_lock_path(lock_path);
        }
        found.push((session.stanza().to_string(), session.diagnose(&request)?));
    }
    match (summary::has_begun(), as_json) {
        (true, _) => summary::add("diagnose", || diagnosis::value(&found)),
        (false, true) => print(&diagnosis::json(&found))?,
        (false, false) => print(&diagnosis::text(&found))?,
    }
    let all = found.iter().flat_map(|(_, summary)| &summary.found);
    match all.filter(|diagnosis| diagnosis.severity == Severity::Error).count() {
        0 => Ok(ExitStatus::SUCCESS),
        errors => Err(Error::new(ErrorCode::Command, format!("check found {errors} error(s)"))),
    }
}

fn diagnose_request(config: &Config) -> Result<DiagnoseRequest> {
    let path = |path: Option<&str>| path.map(PathBuf::from);
    let keys = config.repo_keys().iter().copied();
    // Other commands know the options; if theirs are incomplete, so are those of this command
    let (expire, push) = (config.of_command(Command::Expire)?, config.of_command(Command::ArchivePush)?);
    Ok(DiagnoseRequest {
        with_retention: keys.filter(|&key| expire.find_at(opt::REPO_RETENTION_FULL, key).is_some()).collect(),
        paths: HostPaths {
            lock: path(expire.find(opt::LOCK_PATH)),
            log: path(expire.find(opt::LOG_PATH)).filter(|_| expire.find(opt::LOG_LEVEL_FILE) != Some("off")),
            spool: path(push.find(opt::SPOOL_PATH)).filter(|_| push.find(opt::ARCHIVE_ASYNC) == Some(true)),
        },
        program: config.program().rsplit('/').next().unwrap_or_default().to_owned(),
        ..DiagnoseRequest::new(request(config)?)
    })
}
