//! A repository: whether it can be read and written, whose it is, its clock, and what protects and limits its content.

use jiff::Timestamp;
use repo_format::layout::{self, RepoPath};
use repo_format::pg::control::PgControl;

use super::{Chart, DiagnoseRequest, Severity};
use crate::repo::{Repo, info_files};
use crate::session::Session;
use crate::stanza::check_info;
use crate::storage::full::no_space;
use crate::storage::{Protection, RepoStorage, WriteOptions, get, put, temporary};
use crate::{Error, ErrorCode, Result};

/// What the small file contains.
const CONTENT: &[u8] = b"written by a check, and removed by it\n";

/// Looks at one repository. `control` is the cluster that the stanza should belong to.
pub(super) fn examine(
    request: &DiagnoseRequest,
    session: &Session,
    repo: &Repo,
    control: Option<&PgControl>,
    chart: &mut Chart,
) {
    let (subject, stanza) = (format!("repo{}", repo.key), session.stanza());
    if has_stanza(request, session, repo, &subject, chart) {
        if let Some(control) = control {
            match check_info(repo, stanza, control.version, control.system_id) {
                Ok(checked) => {
                    chart.ok("stanza", &subject, "it belongs to the cluster");
                    for text in checked.warnings {
                        let added = chart.add(Severity::Warning, "stanza", &subject, text);
                        added.advise(
                            "look at the file's owner and mode and at the disk of the repository. The next backup or expire writes the file anew.",
                        );
                    }
                }
                Err(error) => {
                    let program = &request.program;
                    let failed = chart.failed("stanza", &subject, &error);
                    if error.code == ErrorCode::FileInvalid {
                        failed.advise(format!(
                            "run '{program} --stanza={stanza} stanza-upgrade' if the cluster was upgraded by pg_upgrade."
                        ));
                    }
                }
            }
        }
        examine_writing(session, repo, &subject, chart);
        examine_backups(request, session, repo, &subject, chart);
    }
    examine_protection(repo, &subject, chart);
    if request.with_retention.contains(&repo.key) {
        chart.ok("retention", &subject, "full backups expire");
    } else {
        let key = repo.key;
        chart
            .add(Severity::Warning, "retention", &subject, "no backup ever expires: the repository grows without limit")
            .advise(format!("set repo{key}-retention-full, for example repo{key}-retention-full=2."));
    }
}

/// Returns whether the repository can be read and has the stanza.
fn has_stanza(request: &DiagnoseRequest, session: &Session, repo: &Repo, subject: &str, chart: &mut Chart) -> bool {
    let (program, stanza) = (&request.program, session.stanza());
    match repo.storage.names(&layout::backup_stanza(stanza)) {
        Ok(Some(_)) => true,
        Ok(None) => {
            chart
                .add(Severity::Error, "stanza", subject, format!("there is no stanza '{stanza}'"))
                .advise(format!("run '{program} --stanza={stanza} stanza-create'."));
            false
        }
        Err(error) => {
            let failed = chart.failed("repository", subject, &error);
            failed.advise(advice_for_access(&error, repo.key));
            false
        }
    }
}

/// Returns what usually helps if a repository can't be used.
fn advice_for_access(error: &Error, key: u32) -> String {
    match error.code {
        _ if no_space(error).is_some() => {
            format!("make room where repo{key}-path is: enlarge it, or expire backups (repo{key}-retention-full).")
        }
        ErrorCode::PathOpen
        | ErrorCode::FileOpen
        | ErrorCode::FileWrite
        | ErrorCode::PathCreate
        | ErrorCode::FileInfo => {
            format!("check the owner and the permissions of repo{key}-path for the user that runs the commands.")
        }
        _ => format!("check the options of repo{key}, its credentials, and that this host reaches it."),
    }
}

/// Writes, reads and removes a small file where backups and WAL are stored, and compares the clocks.
fn examine_writing(session: &Session, repo: &Repo, subject: &str, chart: &mut Chart) {
    let stanza = session.stanza();
    let mut written_at = None;
    for directory in [layout::archive_stanza(stanza), layout::backup_stanza(stanza)] {
        let before = Timestamp::now().as_second();
        match write_once(&*repo.storage, &directory) {
            Ok(modified) => written_at = modified.map(|modified| (before, modified, Timestamp::now().as_second())),
            Err(error) => {
                let path = repo.storage.display(&directory);
                let advice = advice_for_access(&error, repo.key);
                let failed = chart.failed("repository", subject, &error);
                failed.text = format!("'{path}' can't be written: {}", failed.text);
                failed.advise(advice);
                return;
            }
        }
    }
    chart.ok("repository", subject, "can be read and written");
    if let Some((before, modified, after)) = written_at {
        let skew = if modified < before { modified - before } else { (modified - after).max(0) };
        chart.clock(subject, skew, "claims, retention and leftovers of failed runs depend on them");
    }
}

/// Returns the time that the store gave to the file.
fn write_once(storage: &dyn RepoStorage, directory: &RepoPath) -> Result<Option<i64>> {
    // No command takes this name for one of its files, and a later run removes it if this one is killed
    let path = directory.join(&temporary::name("check"))?;
    if let Err(error) = put(storage, &path, CONTENT, WriteOptions::IN_PLACE) {
        // What a full disk left of it
        let _ = storage.remove(&path);
        return Err(error);
    }
    let read = get(storage, &path, CONTENT.len() as u64);
    let info = storage.info(&path);
    storage.remove(&path)?;
    if read?.as_deref() != Some(CONTENT) {
        let text = format!("'{}' reads otherwise than it was written", storage.display(&path));
        return Err(Error::new(ErrorCode::FileRead, text));
    }
    Ok(info?.map(|entry| entry.modified))
}

fn examine_backups(request: &DiagnoseRequest, session: &Session, repo: &Repo, subject: &str, chart: &mut Chart) {
    match info_files::load_backup_info(repo, session.stanza()) {
        Ok(info) => match info.backups.keys().next_back() {
            Some(newest) => {
                chart.ok("backups", subject, format!("{} backup(s), the newest is {newest}", info.backups.len()))
            }
            None => {
                let (program, stanza) = (&request.program, session.stanza());
                chart
                    .add(Severity::Warning, "backups", subject, "there is no backup yet")
                    .advise(format!("run '{program} --stanza={stanza} backup'."));
            }
        },
        Err(error) => {
            chart.failed("backups", subject, &error);
        }
    }
}

/// Looks at what protects the objects of a bucket.
fn examine_protection(repo: &Repo, subject: &str, chart: &mut Chart) {
    match repo.storage.protection() {
        Ok(None) => {}
        Ok(Some(Protection { versions: false, .. })) => {
            chart.add(Severity::Advice, "bucket", subject, "the bucket keeps no old versions of objects").advise(
                "enable versioning, so that backups survive deletion by mistake or by an intruder (repo-target-time reads \
                 them), with a lifecycle rule that expires noncurrent versions.",
            );
        }
        Ok(Some(Protection { lifecycle: false, .. })) => {
            let text = "the bucket keeps old versions of objects forever: expire frees no space";
            chart.add(Severity::Warning, "bucket", subject, text).advise(
                "add a lifecycle rule that expires noncurrent versions and aborts incomplete multipart uploads.",
            );
        }
        Ok(Some(Protection { versions: true, lifecycle: true })) => {
            chart.ok("bucket", subject, "the bucket keeps old versions of objects and has lifecycle rules");
        }
        Err(error) => {
            let text =
                format!("the settings of the bucket can't be read: [{:03}] {}", error.code.number(), error.message);
            chart.add(Severity::Advice, "bucket", subject, text).advise(
                "allow the key to read the versioning and lifecycle settings of the bucket, or look at them yourself.",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_repository_was_taken_for_one_without_permissions() {
        let advice = |errno: rustix::io::Errno| {
            advice_for_access(&Error::from_io(ErrorCode::FileWrite, "unable to write 'x'", errno.into()), 2)
        };
        assert!(advice(rustix::io::Errno::NOSPC).contains("make room where repo2-path is"));
        assert!(advice(rustix::io::Errno::ACCESS).contains("permissions of repo2-path"));
    }
}
