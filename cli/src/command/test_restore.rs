//! `test-restore`: proves that a backup can be recovered.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use engine::annotate::AnnotateRequest;
use engine::proof::{ProofReport, ProofSigner, Verdict, store};
use engine::restore::{RecoverySettings, RecoveryType};
use engine::test_restore::{self, BackupPick, CheckSettings, TestRestoreContext, TestRestoreRequest, WalCommandPaths};
use engine::{Error, ErrorCode, Result};

use crate::command::restore;
use crate::config::handle::Opt;
use crate::config::{Command, Config, opt};
use crate::exit::{self, ExitStatus};
use crate::progress::LiveProgress;
use crate::render::proof_text;
use crate::wal_command::test_restore_command;
use crate::{print, repos, throttle};

/// How long to wait for a backup or expire that holds the lock.
const ANNOTATE_MAX: Duration = Duration::from_secs(60);
const ANNOTATE_PAUSE: Duration = Duration::from_millis(500);

/// Tests a backup and prints the report.
///
/// # Errors
/// [`ErrorCode::Command`] if the backup is not proven; the errors of [`engine::test_restore::run`] if it could not be
/// tested.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let request = request(config)?;
    let context = TestRestoreContext {
        stanza: &repos::stanza(config)?,
        repos: &repos::open_each(config)?,
        progress: LiveProgress::of("test-restore"),
        rate_limit: throttle::limit(config),
        cancel: exit::cancel_token(),
    };
    let signer = config.find(opt::ATTEST_KEY_FILE).map(|path| ProofSigner::read(Path::new(path))).transpose()?;
    let report = test_restore::run(&request, &context)?;
    let kept = if config.get(opt::ATTEST)? { keep(config, &report, signer.as_ref()) } else { Ok(()) };
    print(&match config.get(opt::OUTPUT)? {
        "json" => report.to_json()? + "\n",
        _ => proof_text::render(&report, engine::time_zone::local()),
    })?;
    match (judge(&report), kept) {
        (Ok(status), kept) => kept.map(|()| status),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(not_kept)) => {
            engine::warn!("[{:03}] {not_kept}", not_kept.code.number());
            Err(error)
        }
    }
}

/// Stores the proof in the repository of the backup, and annotates the backup. The proof does not depend on the
/// annotation, so a backup that holds the lock is only a warning.
fn keep(config: &Config, report: &ProofReport, signer: Option<&ProofSigner>) -> Result<()> {
    let repo = repos::open(config, report.repo)?;
    let path = store::save(&repo, report, signer).map_err(|error| error.context("unable to keep the proof"))?;
    engine::info!("repo{}: proof is kept as '{}'", report.repo, repo.storage.display(&path));
    let request = AnnotateRequest::new(report.backup.label.parse()?).set("rbr-proof", annotation(report)).repeated();
    let end = Instant::now() + ANNOTATE_MAX;
    // On another host this command takes the lock that keeps the backups of pgBackRest out
    let annotates = config.with_command(Command::Annotate);
    loop {
        match repos::session(&annotates, &[report.repo])?.annotate(&request) {
            Err(error) if error.code == ErrorCode::LockAcquire && Instant::now() < end => {
                exit::cancel_token().sleep(ANNOTATE_PAUSE)?;
            }
            Err(error) if engine::is_stop(&error) => return Err(error),
            Err(error) => {
                engine::warn!("backup {} is not annotated with its proof: {error}", report.backup.label);
                return Ok(());
            }
            Ok(_) => return Ok(()),
        }
    }
}

/// Returns the text that `info` shows of the annotations.
fn annotation(report: &ProofReport) -> String {
    let time =
        jiff::Timestamp::from_second(report.stop).map_or_else(|_| report.stop.to_string(), |time| time.to_string());
    match (report.result, &report.recovery.reached) {
        (Verdict::Passed, Some(end)) => {
            format!("{time} {}, recovered to {} in {} s", report.verdict(), end.lsn, report.rto_ms.div_ceil(1000))
        }
        _ => format!("{time} failed"),
    }
}

fn judge(report: &ProofReport) -> Result<ExitStatus> {
    match report.result {
        Verdict::Passed => Ok(ExitStatus::SUCCESS),
        Verdict::Failed => {
            let reason = report.reason.as_deref().unwrap_or_default();
            let text = format!("backup {} was not proven: {reason}", report.backup.label);
            Err(Error::new(ErrorCode::Command, text))
        }
    }
}

fn request(config: &Config) -> Result<TestRestoreRequest> {
    // Everything that the command needs from the configuration, since it outlives the borrow
    let for_wal = config.clone();
    let list = |option: Opt<Vec<String>>| config.find(option).unwrap_or_default().to_vec();
    Ok(TestRestoreRequest {
        scratch_path: PathBuf::from(config.get(opt::SCRATCH_PATH)?),
        pick: match config.get(opt::SET)? {
            "latest" => BackupPick::Newest,
            "random" => BackupPick::Random,
            label => BackupPick::Label(label.to_owned()),
        },
        recovery: RecoverySettings {
            kind: recovery_type(config)?,
            target_exclusive: config.find(opt::TARGET_EXCLUSIVE).unwrap_or(false),
            target_timeline: config.find(opt::TARGET_TIMELINE).map(ToOwned::to_owned),
            ..RecoverySettings::default()
        },
        wal_command: Box::new(move |paths: &WalCommandPaths| test_restore_command(&for_wal, paths)),
        pg_bin_path: config.find(opt::PG_BIN_PATH).map(PathBuf::from),
        superuser: config.find(opt::SUPERUSER).map(ToOwned::to_owned),
        checks: CheckSettings {
            amcheck: config.get(opt::AMCHECK)?,
            checksums: config.get(opt::CHECKSUMS)?,
            count_tables: list(opt::COUNT_TABLE),
            dump_databases: list(opt::DUMP_DATABASE),
            sql_file: config.find(opt::SQL_FILE).map(PathBuf::from),
        },
        recovery_timeout: config.get(opt::RECOVERY_TIMEOUT)?,
        keep_out: restore::keep_out(config)?,
        process_max: u32::try_from(config.get(opt::PROCESS_MAX)?).unwrap_or(1),
        job_retry: u32::try_from(config.get(opt::JOB_RETRY)?).unwrap_or(0),
        job_retry_interval: config.get(opt::JOB_RETRY_INTERVAL)?,
    })
}

fn recovery_type(config: &Config) -> Result<RecoveryType> {
    let target = || {
        let target = config.find(opt::TARGET).map(ToOwned::to_owned);
        target.ok_or_else(|| Error::new(ErrorCode::OptionRequired, "test-restore command requires option: target"))
    };
    Ok(match config.get(opt::TYPE)? {
        "immediate" => RecoveryType::Immediate,
        "lsn" => RecoveryType::Lsn(target()?),
        "name" => RecoveryType::Name(target()?),
        "time" => RecoveryType::Time(target()?),
        "xid" => RecoveryType::Xid(target()?),
        _ => RecoveryType::Default,
    })
}
