//! What this host needs: directories that can be written, and no stop file.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statfs};

use super::{Chart, DiagnoseRequest, Severity};
use crate::session::Session;

/// File systems on other hosts (`linux/magic.h`; FUSE may be one).
const NETWORK: [(u64, &str); 6] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x6573_5546, "FUSE"),
    (0x00c3_6400, "Ceph"),
    (0x0102_1997, "9P"),
];
const TMPFS: u64 = 0x0102_1994;

/// Looks at directories and stop files.
pub(super) fn examine(request: &DiagnoseRequest, session: &Session, chart: &mut Chart) {
    let program = &request.program;
    match session.locks().check_stop(Some(session.stanza())) {
        Ok(()) => chart.ok("stop-file", session.stanza().as_str(), "commands are not stopped"),
        Err(error) => {
            let advice = format!("run '{program} start' on this host once the reason for the stop is gone.");
            chart.failed("stop-file", session.stanza().as_str(), &error).advise(advice);
        }
    }
    let paths = &request.paths;
    // PostgreSQL archives and fetches where it runs, and only there are queues and its files
    let clusters: Vec<_> = request.check.pg.iter().filter(|host| host.name().is_none()).collect();
    let spool = paths.spool.as_ref().filter(|_| !clusters.is_empty());
    for (what, path, effect, severity) in [
        ("lock-path", paths.lock.as_ref(), "no command that needs a lock can run", Severity::Error),
        ("log-path", paths.log.as_ref(), "commands run without a log file", Severity::Warning),
        ("spool-path", spool, "asynchronous archiving does not work", Severity::Error),
    ] {
        let Some(path) = path else { continue };
        let subject = path.display().to_string();
        match problem(path) {
            None => chart.ok(what, &subject, "can be written"),
            Some(text) => {
                chart.add(severity, what, &subject, format!("{text}: {effect}")).advise(format!(
                    "create it for the user that runs the commands: 'install -d -m 770 -o USER {subject}', or set {what}."
                ));
            }
        }
    }
    if let Some(spool) = spool {
        examine_spool(spool, clusters.iter().map(|host| host.path().join("pg_wal")), chart);
    }
}

/// Returns what prevents this user from creating files in a directory, which commands create if it is missing.
fn problem(path: &Path) -> Option<String> {
    let existing = path.ancestors().find(|path| path.exists())?;
    let of = if existing == path { String::new() } else { format!("it is missing and '{}' ", existing.display()) };
    if !existing.is_dir() {
        return Some(format!("{of}is not a directory"));
    }
    match access(existing, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => None,
        Err(error) => Some(format!("{of}can't be written by this user ({})", std::io::Error::from(error))),
    }
}

/// Looks where the queues are. A file that is moved to or from another file system is copied.
fn examine_spool(spool: &Path, wal_paths: impl Iterator<Item = PathBuf>, chart: &mut Chart) {
    let subject = spool.display().to_string();
    let Some(existing) = spool.ancestors().find(|path| path.exists()) else { return };
    // The types of this field differ between systems
    #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss, reason = "the field's type differs between targets")]
    let kind = statfs(existing).map(|found| found.f_type as u64 & 0xffff_ffff).unwrap_or(0);
    if let Some((_, name)) = NETWORK.iter().find(|(magic, _)| *magic == kind) {
        let text = format!("the queues are on a network file system ({name})");
        chart
            .add(Severity::Warning, "spool-disk", &subject, text)
            .advise("set spool-path to a local disk: archiving must not stop when the network does.");
        return;
    }
    if kind == TMPFS {
        chart
            .add(Severity::Advice, "spool-disk", &subject, "the queues are in memory (tmpfs)")
            .advise("they are lost at a restart, which is safe, and count against the memory of PostgreSQL.");
        return;
    }
    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev()).ok();
    for wal in wal_paths {
        let (Some(ours), Some(theirs)) = (device(existing), device(&wal)) else { continue };
        if ours == theirs {
            chart.ok("spool-disk", &subject, format!("on the same file system as '{}'", wal.display()));
            continue;
        }
        let text = format!("on another file system than '{}', so each fetched segment is copied", wal.display());
        chart.add(Severity::Advice, "spool-disk", &subject, text).advise(
            "set spool-path to a directory on the file system of pg_wal (not below it) if replay of WAL is too slow.",
        );
    }
}
