//! What a restore would do, without doing it: the set, what is read and written, the WAL, and what is missing.
//!
//! Everything is decided by the code of the restore itself. The only difference is that nothing is changed.

mod sample;
mod wal;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use repo_format::label::BackupLabel;
use repo_format::layout::{self, RepoPath, Stanza};
use repo_format::manifest::Manifest;

pub use self::sample::SampleRate;
pub use self::wal::PlannedWal;

use super::backup_set::BackupSet;
use super::clean::{self, CleanSettings, metadata};
use super::file::FileContext;
use super::file::look::Looked;
use super::places::Places;
use super::real_path::resolve;
use super::request::RestoreRequest;
use super::target_dir::TargetDir;
use super::{Decided, check_not_running, clean_settings, compressing_reads, copy, queue, take_out_files};
use crate::pipeline::restore::RestorePipeline;
use crate::session::Session;
use crate::work::crew::{Crew, Event};
use crate::{Error, Repo, Result};

/// Missing pieces that are listed. Their number is always known.
const MISSING_LISTED_MAX: usize = 1000;

/// What a restore would do.
#[derive(Debug)]
pub struct RestorePlan {
    /// The repository that contains the backup.
    pub repo_key: u32,
    /// The backup.
    pub label: BackupLabel,
    /// All backups that files are read from, oldest first, with the backup itself.
    pub chain: Vec<BackupLabel>,
    /// Reasons for which the restore would be refused now.
    pub refusals: Vec<Error>,
    /// Number of files, and their bytes.
    pub files: u64,
    /// Bytes of all files.
    pub size: u64,
    /// Files that exist and match.
    pub files_kept: u64,
    /// Bytes of these files.
    pub bytes_kept: u64,
    /// Files that are created without reading: empty ones, and those of databases that are left out.
    pub files_zeroed: u64,
    /// Files of which at least a part is copied.
    pub files_copied: u64,
    /// Stored bytes that are read.
    pub bytes_fetched: u64,
    /// Bytes that are written to files.
    pub bytes_written: u64,
    /// Reads from the repository for these files, without listings and info files.
    pub requests: u64,
    /// The WAL; `None` for an offline backup.
    pub wal: Option<PlannedWal>,
    /// Pieces that are missing in the repository, at most a thousand.
    pub missing: Vec<MissingPiece>,
    /// How many there are.
    pub missing_total: usize,
    /// How fast a sample of the files was read and decoded; `None` if nothing is read.
    pub rate: Option<SampleRate>,
    /// How long reading and decoding take at this rate. Writing, syncing and recovery are not included.
    pub expected: Option<Duration>,
}

/// A repository file that is missing or too short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingPiece {
    /// Its path in the repository.
    pub path: String,
    /// How many bytes it has; `None` if it is missing.
    pub size: Option<u64>,
    /// How many bytes it should have at least.
    pub size_needed: u64,
}

/// Plans a restore from the first of `repos` that has a suitable backup.
///
/// # Errors
/// See [`Session::plan_restore`].
pub(crate) fn plan(request: &RestoreRequest, session: &Session, repos: &[Repo]) -> Result<RestorePlan> {
    let (pg_path, stanza) = (request.pg_path.as_str(), session.stanza());
    let mut refusals = Vec::new();
    refusals.extend(check_not_running(pg_path).err());
    let decided = Decided::new(request, stanza, repos)?;
    let present = decided.check_target(request, &mut |error| {
        refusals.push(error);
        Ok(())
    })?;
    let delta_by_time = decided.delta_by_time(present);
    let Decided { set, existing, tablespace_dir, ownership, zero, cipher, .. } = decided;
    let BackupSet { repo, mut manifest, recovery, timeline, .. } = set;
    let version = manifest.data.pg_version;
    let clean = clean_settings(pg_path, existing, &recovery, (version, &tablespace_dir));
    take_out_files(&mut manifest, &clean);
    let places = open_places(&manifest, &clean)?;
    let compressing = compressing_reads(repo, &manifest, &cipher);
    let context = FileContext {
        manifest: &manifest,
        storage: compressing.as_deref().unwrap_or(&*repo.storage),
        stanza,
        pg_path,
        places: &places,
        file_systems: None,
        ownership: &ownership,
        zero: zero.as_ref(),
        delta: existing.is_compared(),
        delta_by_time,
        page_cache: None,
        cipher,
        looks_only: true,
    };
    let looked = look(&context, request, session)?;
    let (missing, missing_total) = missing(repo, stanza, &manifest, &looked.needed)?;
    let rate = sample::measure(&context, request, session.cancel_token())?;
    let expected = rate.as_ref().map(|rate| rate.time_for(looked.bytes_fetched));
    let wal = match timeline {
        Some(timeline) => Some(wal::plan(repo, stanza, &manifest, &recovery, timeline)?),
        None => None,
    };
    Ok(RestorePlan {
        repo_key: repo.key,
        label: manifest.data.label.clone(),
        chain: chain(&manifest),
        refusals,
        files: manifest.files.len() as u64,
        size: manifest.files.iter().map(|file| file.size).fold(0, u64::saturating_add),
        files_kept: looked.files_kept,
        bytes_kept: looked.bytes_kept,
        files_zeroed: looked.files_zeroed,
        files_copied: looked.files_copied,
        bytes_fetched: looked.bytes_fetched,
        bytes_written: looked.bytes_written,
        requests: looked.requests,
        wal,
        missing,
        missing_total,
        rate,
        expected,
    })
}

/// The backups that a manifest refers to, and the backup itself.
fn chain(manifest: &Manifest) -> Vec<BackupLabel> {
    let mut chain: Vec<BackupLabel> = manifest.references.clone();
    chain.push(manifest.data.label.clone());
    chain.sort();
    chain.dedup();
    chain
}

/// Opens the target directories that exist.
fn open_places(manifest: &Manifest, clean: &CleanSettings<'_>) -> Result<Places> {
    let mut places = Places::default();
    for directory in clean::directories(manifest, clean) {
        match &directory.target.file {
            Some(file) => {
                // As in a restore, the file itself may be a link
                let real = resolve(&format!("{}/{file}", directory.path))?;
                let parts = real.parent().and_then(|parent| Some((parent.to_str()?, real.file_name()?.to_str()?)));
                if let Some((parent, file)) = parts
                    && metadata(parent)?.is_some()
                {
                    places.add_file(&directory.target.name, TargetDir::open(parent)?, file);
                }
            }
            None if metadata(&directory.path)?.is_some() => {
                places.add_directory(&directory.name, TargetDir::open(&directory.path)?);
            }
            None => {}
        }
    }
    Ok(places)
}

/// Looks at all files.
fn look(context: &FileContext<'_>, request: &RestoreRequest, session: &Session) -> Result<Looked> {
    let queues = queue::queues(context.manifest)?;
    let crew = copy::crew(context, request);
    let mut jobs = copy::interleave(queues.queues);
    let mut all = Looked::default();
    let progress = session.progress();
    progress.start(context.manifest.files.len() as u64, queues.size);
    let result = Crew { settings: &crew, cancel: session.cancel_token() }.run(
        |_| Ok(jobs.next()),
        |_, turn| {
            let compress_type = context.manifest.data.options.compress_type;
            Ok(RestorePipeline::new(context.cipher.clone(), compress_type, turn))
        },
        |pipeline, job, cancel| context.look(pipeline, job, cancel),
        |event| {
            if let Event::Done { job, result, .. } = event {
                all.add(result?);
                progress.advance(job.files.len() as u64, job.size);
            }
            Ok(())
        },
    );
    progress.finish();
    result.map(|()| all)
}

/// Returns the repository files that are missing or too short, and their number. Lists each backup of the chain once.
fn missing(
    repo: &Repo,
    stanza: &Stanza,
    manifest: &Manifest,
    needed: &HashMap<RepoPath, u64>,
) -> Result<(Vec<MissingPiece>, usize)> {
    let mut unseen: HashSet<&RepoPath> = needed.keys().collect();
    let mut pieces = Vec::new();
    let mut total = 0;
    let mut add = |path: &RepoPath, size: Option<u64>, size_needed: u64| {
        total += 1;
        if pieces.len() < MISSING_LISTED_MAX {
            pieces.push(MissingPiece { path: path.as_str().to_owned(), size, size_needed });
        }
    };
    for label in chain(manifest) {
        let directory = layout::backup_path(stanza, &label);
        for file in repo.storage.list_files(&directory)? {
            let Ok(path) = directory.join(&file.path) else { continue };
            let Some((path, &size_needed)) = needed.get_key_value(&path) else { continue };
            unseen.remove(path);
            if file.size < size_needed {
                add(path, Some(file.size), size_needed);
            }
        }
    }
    let mut unseen: Vec<&RepoPath> = unseen.into_iter().collect();
    unseen.sort();
    unseen.into_iter().for_each(|path| add(path, None, needed.get(path).copied().unwrap_or(0)));
    Ok((pieces, total))
}
