//! Locates the WAL files that PostgreSQL asks for.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use engine::repo::{Repo, info_files};
use engine::storage::RepoStorage;
use engine::{Error, ErrorCode, Result};
use repo_format::cipher::Cipher;
use repo_format::compress::CompressType;
use repo_format::layout::{self, ArchiveId, RepoPath, Stanza};
use repo_format::pg::PgVersion;
use repo_format::pg::control::PgControl;
use repo_format::wal_name::{self, ArchivedSegment, WalSegment};

use crate::repos::{Repos, concurrency, in_order, repo_error};

const NO_REPOSITORY: &str = "unable to find a valid repository";

/// The cluster whose WAL is requested.
#[derive(Clone, Debug)]
pub struct WalCluster {
    /// The stanza.
    pub stanza: Stanza,
    /// The data directory.
    pub pg_path: PathBuf,
    /// Assumes this version of the cluster, regardless of its files.
    pub version_force: Option<PgVersion>,
}

/// A stored file that answers a request.
#[derive(Clone)]
pub struct StoredCopy<'a> {
    /// The repository.
    pub repo: &'a Repo,
    /// The archive.
    pub archive_id: ArchiveId,
    /// The path in the repository.
    pub path: RepoPath,
    /// The path below the stanza's archive, for messages.
    pub name: String,
    /// How the file is encrypted.
    pub cipher: Cipher,
    /// Checksum and compression, for a segment.
    pub segment: Option<ArchivedSegment>,
}

impl StoredCopy<'_> {
    /// Returns the repository's storage for a segment that is neither compressed nor encrypted.
    pub(super) fn compressing_reads(&self) -> Option<Box<dyn RepoStorage + '_>> {
        let is_compressed = self.segment.is_none_or(|segment| segment.compress_type != CompressType::None);
        if is_compressed || !self.cipher.is_none() { None } else { self.repo.storage.compressing_reads() }
    }
}

/// A request that can be answered.
#[derive(Clone)]
pub struct FoundFile<'a> {
    /// The name that PostgreSQL asks for.
    pub request: String,
    /// Stored files with the same content, in the order in which they are tried.
    pub candidates: Vec<StoredCopy<'a>>,
    /// The size of a segment of the cluster in bytes, which no stored segment may exceed.
    pub segment_size: u64,
    /// Problems on the way, one `repoN: [ErrorType] message` each.
    pub warnings: Vec<String>,
}

/// Why no further file can be fetched.
#[derive(Debug)]
pub struct SearchFailure {
    /// The request that failed; `None` if the failure concerns all.
    pub request: Option<String>,
    /// The error.
    pub error: Error,
    /// What led to it.
    pub warnings: Vec<String>,
}

/// What was found.
#[derive(Default)]
pub struct Findings<'a> {
    /// The cluster's system identifier.
    pub system_id: u64,
    /// Answers to the first requests, in their order, up to the first missing file or failure.
    pub answers: Vec<FoundFile<'a>>,
    /// The failure that ended the search.
    pub failure: Option<SearchFailure>,
    /// Problems of repositories that were skipped.
    pub warnings: Vec<String>,
}

/// A repository with the archives that may contain the cluster's WAL.
struct SearchedRepo<'a> {
    repo: &'a Repo,
    cipher: Cipher,
    archive_ids: Vec<ArchiveId>,
    /// Warnings that were logged, without duplicates.
    warned: BTreeSet<String>,
}

/// Looks for files, in this order, and stops at the first missing one. Each problem of a repository is logged once.
///
/// # Errors
/// Errors of reading `pg_control`, and [`ErrorCode::Format`] for a `pg_control` that a restore wrote and that lost its
/// backup_label. Failures of repositories are part of the answer.
pub fn find<'a>(repos: &'a Repos, cluster: &WalCluster, requests: &[String]) -> Result<Findings<'a>> {
    let control = engine::pg::control_file::read(&cluster.pg_path, cluster.version_force)?;
    if control.is_checkpoint_invalid() && !exists(&cluster.pg_path.join("backup_label"))? {
        return Err(Error::new(ErrorCode::Format, "pg_control from backup is not valid without backup_label")
            .hint("was the backup_label file removed?"));
    }
    let mut findings = Findings { system_id: control.system_id, ..Findings::default() };
    let mut search = FileSearch { stanza: &cluster.stanza, sources: Vec::new(), lists: ListCache::default() };
    let first = requests.first().and_then(|request| request.parse().ok());
    let mut trouble = repos.trouble();
    let repos = repos.open.as_slice();
    let looks = concurrency(repos).each(repos, |repo| Ok(look(repo, &cluster.stanza, &control, first.as_ref())))?;
    for (repo, (source, listed)) in repos.iter().zip(looks) {
        search.lists.extend(listed);
        match source {
            Ok(source) => search.sources.push(source),
            Err(error) => trouble.push((repo.key, repo_error(repo.key, &error))),
        }
    }
    findings.warnings = in_order(trouble);
    for warning in &findings.warnings {
        engine::warn!("{warning}");
    }
    if search.sources.is_empty() {
        let error = Error::new(ErrorCode::RepoInvalid, NO_REPOSITORY);
        findings.failure = Some(SearchFailure { request: None, error, warnings: findings.warnings.clone() });
        return Ok(findings);
    }
    for request in requests {
        let (found, problems) = search.find_one(request);
        let mut warnings = findings.warnings.clone();
        warnings.extend(problems.into_iter().filter(|problem| !findings.warnings.contains(problem)));
        match found {
            Ok(Some(candidates)) => {
                findings.answers.push(FoundFile {
                    request: request.clone(),
                    candidates,
                    segment_size: u64::from(control.wal_segment_size),
                    warnings,
                });
            }
            Ok(None) => break,
            Err(error) => {
                findings.failure = Some(SearchFailure { request: Some(request.clone()), error, warnings });
                break;
            }
        }
    }
    Ok(findings)
}

type Look<'a> = (Result<SearchedRepo<'a>>, Option<((u32, ArchiveId, String), NamesFrom)>);

/// Determines which archives of a repository may contain the cluster's WAL. On a server it also lists the first archive
/// from the first segment on, at the same time. That is the right archive unless the stanza was upgraded.
fn look<'a>(repo: &'a Repo, stanza: &Stanza, control: &PgControl, first: Option<&WalSegment>) -> Look<'a> {
    let source = || source(repo, stanza, control.version, control.system_id);
    let Some(segment) = first else { return (source(), None) };
    let id = ArchiveId::first(control.version);
    let list = || NamesFrom::read(repo, &layout::wal_dir(stanza, id, segment), &segment.to_string());
    let (source, listed) = repo.with_ahead(source, list);
    // A problem appears again when it is listed later
    (source, listed.and_then(Result::ok).map(|listed| ((repo.key, id, segment.directory()), listed)))
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|error| {
        Error::from_io(ErrorCode::FileOpen, format!("unable to get info for path/file '{}'", path.display()), error)
    })
}

fn source<'a>(repo: &'a Repo, stanza: &Stanza, version: PgVersion, system_id: u64) -> Result<SearchedRepo<'a>> {
    let info = info_files::load_archive_info(repo, stanza)?;
    let newest = info.history.last();
    let mut archive_ids = Vec::new();
    for pg in info.history.iter().filter(|pg| pg.version == version && pg.system_id == system_id) {
        let id = pg.archive_id();
        // A past archive is relevant only if it has files. It is listed, because object stores have no directories
        if Some(pg) == newest || repo.storage.names(&layout::archive_path(stanza, id))?.is_some() {
            archive_ids.push(id);
        }
    }
    archive_ids.sort_unstable_by(|a, b| b.cmp(a));
    if archive_ids.is_empty() {
        return Err(Error::new(
            ErrorCode::ArchiveMismatch,
            format!("unable to retrieve the archive id for database version '{version}' and system-id '{system_id}'"),
        ));
    }
    let cipher = info_files::archive_cipher(repo, stanza, &info);
    Ok(SearchedRepo { repo, cipher, archive_ids, warned: BTreeSet::new() })
}

/// Names in WAL directories, read once per search from the first requested segment on: by repository, archive and
/// directory.
type ListCache = BTreeMap<(u32, ArchiveId, String), NamesFrom>;

/// The names in a directory after a segment's.
struct NamesFrom {
    after: String,
    names: Vec<String>,
}

impl NamesFrom {
    fn read(repo: &Repo, path: &RepoPath, segment: &str) -> Result<Self> {
        Ok(NamesFrom { after: segment.to_owned(), names: repo.storage.names_after(path, segment)? })
    }
}

/// A search for several files.
struct FileSearch<'a, 's> {
    stanza: &'s Stanza,
    sources: Vec<SearchedRepo<'a>>,
    lists: ListCache,
}

impl<'a> FileSearch<'a, '_> {
    /// Returns the stored files that answer a request, and the problems of repositories. The answer is `None` if no
    /// repository has the file.
    fn find_one(&mut self, request: &str) -> (Result<Option<Vec<StoredCopy<'a>>>>, Vec<String>) {
        let mut candidates = Vec::new();
        let mut problems: Vec<String> = Vec::new();
        let mut failed = 0;
        for source in &mut self.sources {
            let (found, result) = source.find(self.stanza, request, &mut self.lists);
            candidates.extend(found);
            let Err(error) = result else { continue };
            failed += 1;
            let problem = repo_error(source.repo.key, &error);
            if source.warned.insert(problem.clone()) {
                engine::warn!("{problem}");
            }
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        let checksums = candidates.iter().filter_map(|c| c.segment.map(|segment| segment.checksum));
        let found = if failed == self.sources.len() {
            Err(Error::new(ErrorCode::RepoInvalid, NO_REPOSITORY))
        } else if checksums.collect::<BTreeSet<_>>().len() > 1 {
            Err(duplicates(request, candidates))
        } else {
            Ok(Some(candidates).filter(|candidates| !candidates.is_empty()))
        };
        (found, problems)
    }
}

impl<'a> SearchedRepo<'a> {
    /// Returns the stored files that answer a request, up to the first failure.
    fn find(&self, stanza: &Stanza, request: &str, lists: &mut ListCache) -> (Vec<StoredCopy<'a>>, Result<()>) {
        let (repo, cipher) = (self.repo, &self.cipher);
        let mut found = Vec::new();
        let result = self.archive_ids.iter().try_for_each(|&archive_id| {
            if !wal_name::kind(request).is_segment() {
                let path = layout::archive_file(stanza, archive_id, request)?;
                if repo.storage.info(&path)?.is_some() {
                    let name = format!("{archive_id}/{request}");
                    found.push(StoredCopy { repo, archive_id, path, name, cipher: cipher.clone(), segment: None });
                }
                return Ok(());
            }
            let directory = request[..wal_name::SEGMENT_DIR_LEN].to_owned();
            let path = layout::archive_path(stanza, archive_id).join(&directory)?;
            let listed = match lists.entry((repo.key, archive_id, directory.clone())) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(NamesFrom::read(repo, &path, request)?),
            };
            if request < listed.after.as_str() {
                *listed = NamesFrom::read(repo, &path, request)?;
            }
            let is_of_request = |name: &&String| name.strip_prefix(request).is_some_and(|rest| rest.starts_with('-'));
            for stored in listed.names.iter().filter(is_of_request) {
                let segment: ArchivedSegment = match stored.parse() {
                    Ok(segment) => segment,
                    // Not the name of a segment, whatever its origin
                    Err(Error { code: ErrorCode::Format, .. }) => continue,
                    Err(error) => return Err(error),
                };
                let name = format!("{archive_id}/{directory}/{stored}");
                let (path, cipher) = (path.join(stored)?, cipher.clone());
                found.push(StoredCopy { repo, archive_id, path, name, cipher, segment: Some(segment) });
            }
            Ok(())
        });
        (found, result)
    }
}

/// Returns the error for a segment that is stored with different contents.
fn duplicates(request: &str, mut candidates: Vec<StoredCopy<'_>>) -> Error {
    candidates.sort_by(|a, b| a.name.cmp(&b.name));
    let mut message = format!("duplicates found for WAL segment {request}:");
    let mut last = None;
    for candidate in &candidates {
        if last == Some(candidate.repo.key) {
            message.push_str(&format!(", {}", candidate.name));
        } else {
            message.push_str(&format!("\nrepo{}: {}", candidate.repo.key, candidate.name));
        }
        last = Some(candidate.repo.key);
    }
    Error::new(ErrorCode::ArchiveDuplicate, message).hint("are multiple primaries archiving to this stanza?")
}
