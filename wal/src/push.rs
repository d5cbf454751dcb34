//! `archive-push`: stores the WAL file that PostgreSQL hands over.

pub mod async_worker;
pub(crate) mod check;
pub mod foreground;
mod large;
pub(crate) mod queue;
mod segment;
mod stored;
mod wal_file;
mod write;

use std::path::PathBuf;

use engine::Result;
use repo_format::compress::Compression;
use repo_format::layout::Stanza;
use repo_format::pg::PgVersion;
use repo_format::wal_name::PARTIAL_SUFFIX;

use self::segment::ToPush;
use crate::path::file_name;
use crate::repos::Repos;

/// How WAL files are pushed.
#[derive(Clone, Debug)]
pub struct PushSettings {
    /// The stanza.
    pub stanza: Stanza,
    /// The data directory, if it is known. Its `pg_control` is then compared with the repositories.
    pub pg_path: Option<PathBuf>,
    /// Assumes this version of the cluster, regardless of its files.
    pub version_force: Option<PgVersion>,
    /// Compare each segment's header with the cluster of the stanza.
    pub header_check: bool,
    /// Warn if a segment exists already with the same content.
    pub mode_check: bool,
    /// How segments are compressed.
    pub compression: Compression,
    /// Number of files to push in parallel, or of threads that compress one large file if there are fewer files.
    pub process_max: usize,
    /// Drop WAL if more than this many bytes wait to be archived.
    pub queue_max: Option<u64>,
}

#[cfg(test)]
impl PushSettings {
    /// The settings of tests.
    pub(crate) fn of_tests(compression: Compression) -> Self {
        PushSettings {
            stanza: "demo".parse().expect("stanza"),
            pg_path: None,
            version_force: None,
            header_check: false,
            mode_check: true,
            compression,
            process_max: 2,
            queue_max: None,
        }
    }
}

/// Pushes one file. Returns when it is durable in all repositories, or dropped because too much WAL waits.
///
/// # Errors
/// After an error the file must not count as archived, although some repositories may have it. The codes are those of
/// [`check::check`] and [`segment::push_file`].
pub fn push(repos: &Repos, settings: &PushSettings, wal_file: &std::path::Path) -> Result<()> {
    let name = file_name(wal_file)?;
    if let Some(queue_max) = settings.queue_max {
        let wal_path = wal_file.parent().unwrap_or(wal_file);
        if queue::is_exceeded(wal_path, &queue::ready_list(wal_path)?, queue_max)? {
            engine::warn!("{}", queue::drop_warning(name, queue_max));
            return Ok(());
        }
    }
    let warnings = std::thread::scope(|scope| {
        let to_push = ToPush { path: wal_file, name, threads: settings.process_max };
        let begun = segment::begin(scope, &repos.open, settings, to_push);
        let segment = name.strip_suffix(PARTIAL_SUFFIX).unwrap_or(name).parse().ok();
        let targets = check::check(repos, settings, segment.as_ref())?;
        segment::push_file(&targets, settings, to_push, begun)
    })?;
    for warning in warnings {
        engine::warn!("{warning}");
    }
    engine::info!("pushed WAL file '{name}' to the archive");
    Ok(())
}
