//! Pushes one file to every repository.

use std::fs::{File, Metadata};
use std::io::Read;
use std::num::NonZero;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread::Scope;
use std::time::Duration;

use engine::repo::Repo;
use engine::repo::archive_find::{FoundSegment, WalSegmentFind};
use engine::storage::{RepoWriter, WriteOptions, temporary};
use engine::work::thread::Helper;
use engine::work::together;
use engine::{CancelToken, Error, ErrorCode, Result};
use repo_format::cipher::{Encryptor, Framing};
use repo_format::compress::{Compression, Compressor};
use repo_format::hash::{Sha1, Sha1Hasher};
use repo_format::layout::{self, Stanza};
use repo_format::pg::wal_page::WalHeader;
use repo_format::wal_name::{self, PARTIAL_SUFFIX};

use super::PushSettings;
use super::check::{Target, Targets};
use super::{large, stored};
use crate::repos::{concurrency, repo_error};

/// Files up to this size are read once and kept in memory in their stored form. Larger files are read twice
/// ([`large`]), so that memory stays bounded: the name of a stored segment contains its checksum and must be known
/// before the first byte is written.
const IN_MEMORY_MAX: u64 = 64 << 20;

/// The maximum size of a file that is not a segment. History files have some hundred bytes.
const OTHER_MAX: u64 = IN_MEMORY_MAX;

/// A smaller file is not worth the start of threads.
const PARALLEL_MIN: u64 = 4 << 20;

/// Bytes read from the source at a time.
pub(super) const CHUNK: usize = 1 << 20;

/// Bytes that tell a segment's version and system identifier.
const HEADER: usize = 512;

/// A file that was read once: its checksum, and its stored bytes before encryption.
pub type Encoded = (Sha1, Vec<u8>);

/// Work that [`begin`] has started.
#[derive(Debug)]
pub struct Begun<'scope> {
    state: State,
    helper: Helper<'scope, Encoded>,
}

/// Starts to read and compress a segment before its destination is known, because repositories on servers take a while
/// to answer. Returns `None` if that gains nothing.
pub fn begin<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    repos: &[Repo],
    settings: &'env PushSettings,
    path: &'env Path,
    name: &str,
) -> Option<Begun<'scope>> {
    if !wal_name::kind(name).is_segment() || !concurrency(repos).waits() {
        return None;
    }
    // Problems with the file are reported later
    let source = Source::open(path, settings.process_max).ok().filter(|source| source.size <= IN_MEMORY_MAX)?;
    let state = source.state;
    let helper = Helper::start(scope, move || encode(&source, settings.compression))?;
    Some(Begun { state, helper })
}

/// Stores one file in all repositories that lack it and returns warnings.
///
/// A segment (or partial segment) that a repository already has with the same content is left there. Any other file is
/// written without a check. A failing repository does not keep the others from getting the file. `threads` compress a
/// large segment. `begun` is the result of [`begin`].
///
/// # Errors
/// [`ErrorCode::ArchiveMismatch`] or [`ErrorCode::VersionNotSupported`] for a segment of another cluster,
/// [`ErrorCode::ArchiveDuplicate`] if a repository has the segment with other content, read errors of the source, and
/// [`ErrorCode::Command`] with one line per repository that does not have the file now.
pub fn push_file(
    targets: &Targets,
    settings: &PushSettings,
    source: &Path,
    name: &str,
    threads: usize,
    begun: Option<Begun<'_>>,
) -> Result<Vec<String>> {
    push_opened(targets, settings, &Source::open(source, threads)?, name, begun)
}

fn push_opened(
    targets: &Targets,
    settings: &PushSettings,
    file: &Source<'_>,
    name: &str,
    begun: Option<Begun<'_>>,
) -> Result<Vec<String>> {
    // Work on another file is useless
    let begun = begun.filter(|begun| begun.state == file.state);
    let mut warnings = Vec::new();
    let mut errors = targets.errors.clone();
    if wal_name::kind(name).is_segment() {
        if settings.header_check {
            check_header(targets, settings, file)?;
        }
        push_segment(targets, settings, file, name, begun, &mut warnings, &mut errors)?;
    } else {
        push_other(targets, settings, file, name, &mut errors)?;
    }
    // The caller acknowledges the file that has this name now
    file.check_unchanged()?;
    if errors.is_empty() {
        return Ok(warnings);
    }
    Err(Error::new(ErrorCode::Command, format!("archive-push command encountered error(s):\n{}", errors.join("\n"))))
}

/// Pushes a timeline history or backup history file unchanged, and overwrites an existing one.
fn push_other(
    targets: &Targets,
    settings: &PushSettings,
    source: &Source<'_>,
    name: &str,
    errors: &mut Vec<String>,
) -> Result<()> {
    if source.size > OTHER_MAX {
        let text = format!("'{}' is neither a WAL segment nor small enough for a history file", source.path.display());
        return Err(Error::new(ErrorCode::FileInvalid, text));
    }
    let all: Vec<&Target> = targets.repos.iter().collect();
    let content = encode(source, Compression::NONE)?.1;
    source.check_unchanged()?;
    errors.extend(store(&all, settings, name, &content));
    Ok(())
}

/// The WAL file that PostgreSQL hands over.
pub(super) struct Source<'a> {
    file: File,
    pub(super) path: &'a Path,
    size: u64,
    state: State,
    threads: usize,
}

/// What changes when a file is written to, renamed, or replaced: device, inode, size, and the times of the last write
/// and of the last status change.
type State = (u64, u64, u64, (i64, i64), (i64, i64));

fn state(of: &Metadata) -> State {
    (of.dev(), of.ino(), of.len(), (of.mtime(), of.mtime_nsec()), (of.ctime(), of.ctime_nsec()))
}

impl<'a> Source<'a> {
    pub(super) fn open(path: &'a Path, threads: usize) -> Result<Self> {
        let open = || -> std::io::Result<(File, Metadata)> {
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            Ok((file, metadata))
        };
        match open() {
            Ok((file, metadata)) => Ok(Source { file, path, size: metadata.len(), state: state(&metadata), threads }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = format!("unable to open missing file '{}' for read", path.display());
                Err(Error::new(ErrorCode::FileMissing, text).cause(error))
            }
            Err(error) => {
                let text = format!("unable to open file '{}' for read", path.display());
                Err(Error::from_io(ErrorCode::FileOpen, text, error))
            }
        }
    }

    /// Creates a compressor for the file, with as many threads as it is worth.
    pub(super) fn compressor(&self, compression: Compression) -> Result<Compressor> {
        if self.size < PARALLEL_MIN {
            return Compressor::new(compression, Framing::Full);
        }
        // More threads than cores would only use memory
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        match Compressor::parallel(compression, self.threads.min(cores)) {
            // If no threads are available, one takes longer, which is better than no archive
            Err(error) if error.code == ErrorCode::Kernel => {
                engine::debug!("{}: going on with one thread", error.message);
                Compressor::new(compression, Framing::Full)
            }
            compressor => compressor,
        }
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", self.path.display()), error)
    }

    /// Checks that the path still leads to the opened file, and that nobody has changed the file since.
    ///
    /// A push can outlive the server that called it. The next server pushes the file again and then recycles it, so the
    /// earlier push may read half of one segment and half of another. The cluster may even be a different one by now.
    ///
    /// # Errors
    /// [`ErrorCode::FileRead`]. PostgreSQL then calls again, and gets the answer for the current file.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        let now = std::fs::metadata(self.path).map_err(|error| self.failed(error))?;
        if state(&now) == self.state {
            return Ok(());
        }
        let text = format!("WAL file '{}' changed while it was archived", self.path.display());
        Err(Error::new(ErrorCode::FileRead, text))
    }

    /// Reads the file in chunks of [`CHUNK`] bytes, the last of which may be shorter.
    pub(super) fn each_chunk(&self, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        use std::os::unix::fs::FileExt;
        let mut buffer = vec![0; CHUNK];
        let (mut offset, mut filled) = (0, 0);
        loop {
            match self.file.read_at(&mut buffer[filled..], offset) {
                Ok(0) => break,
                Ok(size) => {
                    offset += size as u64;
                    filled += size;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
            if filled == CHUNK {
                take(&buffer)?;
                filled = 0;
            }
        }
        if filled == 0 { Ok(()) } else { take(&buffer[..filled]) }
    }
}

fn check_header(targets: &Targets, settings: &PushSettings, source: &Source<'_>) -> Result<()> {
    let mut header = Vec::with_capacity(HEADER);
    // `&File` reads at the file's own position, which nothing else here uses
    (&source.file).take(HEADER as u64).read_to_end(&mut header).map_err(|error| source.failed(error))?;
    if header.len() < HEADER {
        let text = format!("unable to read {HEADER} byte(s) from '{}'", source.path.display());
        return Err(Error::new(ErrorCode::FileRead, text));
    }
    let header = WalHeader::parse(&header, settings.version_force)?;
    if (header.version, header.system_id) == (targets.version, targets.system_id) {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::ArchiveMismatch,
        format!(
            "WAL file '{}' version {}, system-id {} do not match stanza version {}, system-id {}",
            source.path.display(),
            header.version,
            header.system_id,
            targets.version,
            targets.system_id
        ),
    ))
}

/// Pushes a segment or partial segment: `<name>-<sha1><ext>`.
fn push_segment(
    targets: &Targets,
    settings: &PushSettings,
    source: &Source<'_>,
    name: &str,
    begun: Option<Begun<'_>>,
    warnings: &mut Vec<String>,
    errors: &mut Vec<String>,
) -> Result<()> {
    // The lookup decides whether compression is needed at all. The segment rarely exists, so waiting for a server's
    // answer first gains nothing
    let concurrency = concurrency(targets.repos.iter().map(|target| &target.repo));
    let (mut present, mut missing) = (Vec::new(), Vec::new());
    let look = || {
        for target in &targets.repos {
            match find(target, &settings.stanza, name) {
                Ok(Some(found)) => {
                    let damage = stored::check(target, &found, source.size).err();
                    if damage.is_some() {
                        missing.push(target);
                    }
                    present.push((target, found, damage));
                }
                Ok(None) => missing.push(target),
                Err(error) => errors.push(repo_error(target.repo.key, &error)),
            }
        }
        Ok(())
    };
    let ahead = || match begun {
        Some(begun) => begun.helper.join().map(Some),
        None if concurrency.waits() && source.size <= IN_MEMORY_MAX => encode(source, settings.compression).map(Some),
        None => Ok(None),
    };
    let (encoded, _) = concurrency.both(ahead, look);
    // What the checksum decides, before anything is written: existing segments must have the same, and it is part of
    // the new name
    let (mut replaced, mut pushed) = (Vec::new(), None);
    let known = |checksum: Sha1, errors: &mut Vec<String>| -> Result<String> {
        pushed = Some(checksum);
        let stored_name = format!("{name}-{checksum}{}", settings.compression.kind.extension());
        for (target, found, damage) in present {
            let repo_key = target.repo.key;
            if found.name.checksum != checksum {
                // Corruption, split brain, or worse: store it nowhere
                return Err(stored::duplicate(target, name));
            }
            if let Some(damage) = damage {
                warnings.push(format!(
                    "WAL file '{name}' already exists in the repo{repo_key} archive but is damaged or cannot be read, and is stored again: \
                     [{}] {damage}",
                    damage.code
                ));
                if !found.path.to_string().ends_with(&stored_name) {
                    replaced.push((target, found.path));
                }
                continue;
            }
            if let Err(error) = sync_entry(target, &settings.stanza, name) {
                errors.push(repo_error(repo_key, &error));
                continue;
            }
            if settings.mode_check {
                warnings.push(format!(
                    "WAL file '{name}' already exists in the repo{repo_key} archive with the same checksum\n\
                     HINT: this is valid in some recovery scenarios but may also indicate a problem."
                ));
            }
        }
        Ok(stored_name)
    };
    let failed_before = errors.len();
    if missing.is_empty() {
        known(checksum(source)?, errors)?;
    } else if source.size <= IN_MEMORY_MAX {
        let (checksum, content) = match encoded? {
            Some(encoded) => encoded,
            None => encode(source, settings.compression)?,
        };
        source.check_unchanged()?;
        let stored_name = known(checksum, errors)?;
        errors.extend(store(&missing, settings, &stored_name, &content));
    } else {
        large::store(&missing, settings, source, known, errors)?;
    }
    // After an error the file is pushed again, and all this is checked then
    let Some(checksum) = pushed.filter(|_| errors.len() == failed_before) else { return Ok(()) };
    // Remove the damaged file of another compression once the intact one is stored
    for (target, path) in replaced {
        if let Err(error) = target.repo.storage.remove(&path) {
            errors.push(repo_error(target.repo.key, &error));
        }
    }
    let looks = concurrency.all(&missing, |target| stored::has_other(target, &settings.stanza, name, checksum));
    for (target, has_other) in missing.iter().zip(looks) {
        match has_other {
            Ok(false) => {}
            Ok(true) => {
                return Err(stored::duplicate(target, name).hint("are multiple primaries archiving to this stanza?"));
            }
            Err(error) => errors.push(repo_error(target.repo.key, &error)),
        }
    }
    Ok(())
}

/// Looks up a segment in a repository.
fn find(target: &Target, stanza: &Stanza, name: &str) -> Result<Option<FoundSegment>> {
    let (segment, partial) = match name.strip_suffix(PARTIAL_SUFFIX) {
        Some(segment) => (segment, true),
        None => (name, false),
    };
    // A single lookup never waits, so there is nothing to cancel
    let cancel = CancelToken::new();
    let mut find = WalSegmentFind::new(&*target.repo.storage, stanza, target.archive_id, Duration::ZERO, &cancel)
        .with_listed(target.listed.clone());
    let segment = segment.parse()?;
    let found = find.find(&segment, partial)?;
    let unfinished = find.into_temporary();
    if !unfinished.is_empty() {
        // Of a push that was killed, or of a running one
        let directory = layout::wal_dir(stanza, target.archive_id, &segment);
        let names = unfinished.iter().map(String::as_str);
        temporary::sweep(&*target.repo.storage, &directory, names, found.as_ref().map(|found| &found.path));
    }
    Ok(found)
}

/// Makes the name of a stored segment durable. Its writer synced the content before the rename, but may have ended
/// before the name was durable. PostgreSQL then asks again and must not be told of success too early.
fn sync_entry(target: &Target, stanza: &Stanza, name: &str) -> Result<()> {
    let segment = name.strip_suffix(PARTIAL_SUFFIX).unwrap_or(name).parse()?;
    let storage = &target.repo.storage;
    storage.sync_path(&layout::wal_dir(stanza, target.archive_id, &segment))?;
    storage.sync_path(&layout::archive_path(stanza, target.archive_id))?;
    storage.sync_path(&layout::archive_stanza(stanza))
}

fn encode(source: &Source<'_>, compression: Compression) -> Result<Encoded> {
    let mut hasher = Sha1Hasher::new();
    let mut compressor = source.compressor(compression)?;
    let mut content = Vec::new();
    source.each_chunk(|chunk| {
        hasher.update(chunk);
        compressor.push(chunk, &mut content)
    })?;
    compressor.finish(&mut content)?;
    Ok((hasher.finish(), content))
}

fn checksum(source: &Source<'_>) -> Result<Sha1> {
    let mut hasher = Sha1Hasher::new();
    source.each_chunk(|chunk| {
        hasher.update(chunk);
        Ok(())
    })?;
    Ok(hasher.finish())
}

/// Writes the same bytes to several repositories in parallel, and returns the failures.
fn store(targets: &[&Target], settings: &PushSettings, file: &str, content: &[u8]) -> Vec<String> {
    let one = |target: &Target| -> Result<()> {
        let mut writer = create(target, settings, file)?;
        if target.cipher.is_none() {
            write(&mut *writer, content)?;
        } else {
            let mut encryptor = Encryptor::new(&target.cipher, Framing::Full);
            let mut encrypted = Vec::with_capacity(CHUNK + 64);
            for chunk in content.chunks(CHUNK) {
                encryptor.push(chunk, &mut encrypted)?;
                write(&mut *writer, &encrypted)?;
                encrypted.clear();
            }
            encryptor.finish(&mut encrypted)?;
            write(&mut *writer, &encrypted)?;
        }
        writer.finish()
    };
    // Not only servers take their time: a file system does until the segment is durable
    let stored = together::all(targets.len(), targets, |target| one(target));
    let failed = |(target, result): (&&Target, Result<()>)| Some(repo_error(target.repo.key, &result.err()?));
    targets.iter().zip(stored).filter_map(failed).collect()
}

pub(super) fn create(target: &Target, settings: &PushSettings, file: &str) -> Result<Box<dyn RepoWriter>> {
    let path = layout::archive_file(&settings.stanza, target.archive_id, file)?;
    target.repo.storage.write(&path, WriteOptions::ATOMIC)
}

pub(super) fn write(writer: &mut dyn RepoWriter, content: &[u8]) -> Result<()> {
    writer.write_all(content).map_err(|error| Error::from_io(ErrorCode::FileWrite, "unable to write WAL", error))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::repo::archive_find::{self, Listed};
    use engine::storage;
    use engine::storage::faulty::{FaultyStorage, Op};
    use engine::storage::memory::MemoryStorage;
    use engine::storage::posix::PosixStorage;
    use engine::work::turn::Turn;
    use repo_format::cipher::Cipher;
    use repo_format::compress::CompressType;
    use repo_format::pg::PgVersion;

    use super::*;

    const SEGMENT: &str = "000000010000000000000001";

    fn targets(repo: &Repo) -> Targets {
        let archive_id = "15-1".parse().expect("archive id");
        Targets {
            version: PgVersion::V15,
            system_id: 1,
            repos: vec![Target {
                repo: repo.clone(),
                turn: Turn::FREE,
                archive_id,
                cipher: Cipher::None,
                listed: None,
            }],
            errors: Vec::new(),
        }
    }

    #[test]
    fn half_a_segment_under_the_right_name_is_not_taken_for_the_segment() {
        let dir = tempfile::tempdir().expect("dir");
        let source = dir.path().join(SEGMENT);
        std::fs::write(&source, [7; 4096]).expect("segment");
        let posix = PosixStorage::new(dir.path().join("repo"));
        let repo = Repo { key: 1, storage: Arc::new(posix), cipher: Cipher::None };
        let archive = dir.path().join("repo/archive/demo/15-1/0000000100000000");
        let push = |kind| {
            let settings = PushSettings::of_tests(Compression::new(kind, None).expect("compression"));
            push_file(&targets(&repo), &settings, &source, SEGMENT, 2, None).expect("push").join("\n")
        };
        assert_eq!(push(CompressType::None), "");
        let stored = archive.join(format!("{SEGMENT}-{}", Sha1::of(&[7; 4096])));
        for damaged in [vec![], vec![7; 100], vec![8; 4096], vec![7; 5000]] {
            std::fs::write(&stored, damaged).expect("damage");
            assert!(push(CompressType::None).contains("is damaged or cannot be read, and is stored again"));
            assert_eq!(std::fs::read(&stored).expect("stored"), [7; 4096]);
        }
        assert!(push(CompressType::None).contains("with the same checksum"));
        std::fs::write(&stored, "half").expect("damage");
        assert!(push(CompressType::Lz4).contains("is damaged or cannot be read, and is stored again"));
        let names: Vec<_> =
            std::fs::read_dir(&archive).expect("list").map(|entry| entry.expect("entry").path()).collect();
        assert_eq!(names, [stored.with_file_name(format!("{SEGMENT}-{}.lz4", Sha1::of(&[7; 4096])))]);
    }

    #[test]
    fn empty_object_under_the_right_name_is_not_taken_for_the_segment() {
        let dir = tempfile::tempdir().expect("dir");
        let source = dir.path().join(SEGMENT);
        std::fs::write(&source, [7; 4096]).expect("segment");
        for kind in [CompressType::None, CompressType::Lz4] {
            let repo = Repo { key: 1, storage: Arc::new(MemoryStorage::new()), cipher: Cipher::None };
            let settings = PushSettings::of_tests(Compression::new(kind, None).expect("compression"));
            let push = || push_file(&targets(&repo), &settings, &source, SEGMENT, 2, None).expect("push").join("\n");
            assert_eq!(push(), "");
            let name = format!("{SEGMENT}-{}{}", Sha1::of(&[7; 4096]), kind.extension());
            let path = layout::archive_file(&settings.stanza, "15-1".parse().expect("id"), &name).expect("path");
            let size = || repo.storage.info(&path).expect("info").expect("stored").size;
            let before = size();
            storage::put(&*repo.storage, &path, b"", WriteOptions::ATOMIC).expect("put");
            assert!(push().contains("is damaged or cannot be read, and is stored again"), "{kind}");
            assert_eq!(size(), before, "{kind}");
            assert!(push().contains("with the same checksum"), "{kind}");
        }
    }

    #[test]
    fn push_of_a_segment_that_is_there_syncs_its_name_or_fails() {
        let dir = tempfile::tempdir().expect("dir");
        let source = dir.path().join(SEGMENT);
        std::fs::write(&source, [7; 4096]).expect("segment");
        let settings = PushSettings::of_tests(Compression::NONE);
        let storage = FaultyStorage::new(Arc::new(MemoryStorage::new()));
        let repo = Repo { key: 1, storage: Arc::new(storage.clone()), cipher: Cipher::None };
        let targets = targets(&repo);
        assert!(push_file(&targets, &settings, &source, SEGMENT, 2, None).expect("new").is_empty());
        let before = storage.calls().len();
        assert_eq!(push_file(&targets, &settings, &source, SEGMENT, 2, None).expect("again").len(), 1);
        let synced: Vec<String> = storage.calls()[before..]
            .iter()
            .filter(|(op, _)| *op == Op::SyncPath)
            .map(|(_, path)| path.to_string())
            .collect();
        assert_eq!(synced, ["archive/demo/15-1/0000000100000000", "archive/demo/15-1", "archive/demo"]);

        let _failing = storage.clone().fail_path(Op::SyncPath, "15-1");
        assert_eq!(
            push_file(&targets, &settings, &source, SEGMENT, 2, None).expect_err("sync").code,
            ErrorCode::Command
        );
    }

    /// Pushes content to a repository that was listed before.
    fn push_listed(dir: &std::path::Path, repo: &Repo, content: &[u8], listed: Option<Listed>) -> Result<Vec<String>> {
        let source = dir.join(SEGMENT);
        std::fs::write(&source, content).expect("segment");
        let mut targets = targets(repo);
        targets.repos[0].listed = listed;
        push_file(&targets, &PushSettings::of_tests(Compression::NONE), &source, SEGMENT, 1, None)
    }

    fn list(repo: &Repo) -> Listed {
        let (stanza, segment) = ("demo".parse().expect("stanza"), SEGMENT.parse().expect("segment"));
        archive_find::list_ahead(&*repo.storage, &stanza, PgVersion::V15, &segment).expect("listing")
    }

    fn posix(dir: &std::path::Path) -> Repo {
        Repo { key: 1, storage: Arc::new(PosixStorage::new(dir.join("repo"))), cipher: Cipher::None }
    }

    #[test]
    fn two_pushers_that_both_found_nothing_are_not_both_told_of_success() {
        let dir = tempfile::tempdir().expect("dir");
        let repo = posix(dir.path());
        // Both look before either stores
        let (first, second) = (list(&repo), list(&repo));
        assert!(push_listed(dir.path(), &repo, &[1; 4096], Some(first)).expect("first").is_empty());
        let error = push_listed(dir.path(), &repo, &[2; 4096], Some(second)).expect_err("second");
        assert_eq!(error.code, ErrorCode::ArchiveDuplicate);
        assert!(error.message.contains("already exists in the repo1 archive with a different checksum"), "{error}");
        // Nor does either succeed the next time
        for content in [1, 2] {
            let error = push_listed(dir.path(), &repo, &[content; 4096], None).expect_err("both are there");
            assert!(error.message.contains("[ArchiveDuplicateError] duplicates found"), "{error}");
        }
    }

    #[test]
    fn pusher_of_the_same_content_at_the_same_time_is_no_duplicate() {
        let dir = tempfile::tempdir().expect("dir");
        let repo = posix(dir.path());
        let (first, second) = (list(&repo), list(&repo));
        push_listed(dir.path(), &repo, &[1; 4096], Some(first)).expect("first");
        push_listed(dir.path(), &repo, &[1; 4096], Some(second)).expect("second");
    }

    #[test]
    fn archive_that_cannot_be_listed_after_a_push_is_not_acknowledged() {
        let dir = tempfile::tempdir().expect("dir");
        let storage = FaultyStorage::new(posix(dir.path()).storage);
        let repo = Repo { key: 1, storage: Arc::new(storage.clone()), cipher: Cipher::None };
        let listed = list(&repo);
        let _failing = storage.clone().fail_path(Op::List, "15-1");
        let error = push_listed(dir.path(), &repo, &[1; 4096], Some(listed)).expect_err("not listed");
        assert_eq!(error.code, ErrorCode::Command);
    }

    #[test]
    fn file_recycled_or_replaced_while_it_is_pushed_is_neither_stored_nor_acknowledged() {
        let dir = tempfile::tempdir().expect("dir");
        let recycle = |path: &Path| std::fs::rename(path, dir.path().join("recycled")).expect("rename");
        let write = |path: &Path| std::fs::write(path, [8; 4096]).expect("write");
        let replace = |path: &Path| {
            recycle(path);
            write(path);
        };
        let changes: [&dyn Fn(&Path); 4] = [&|_| (), &recycle, &write, &replace];
        for (number, change) in changes.into_iter().enumerate() {
            for name in [SEGMENT, "00000002.history"] {
                let path = dir.path().join(name);
                std::fs::write(&path, [7; 4096]).expect("file");
                let source = Source::open(&path, 1).expect("open");
                change(&path);
                let memory = MemoryStorage::new();
                let repo = Repo { key: 1, storage: Arc::new(memory.clone()), cipher: Cipher::None };
                let pushed =
                    push_opened(&targets(&repo), &PushSettings::of_tests(Compression::NONE), &source, name, None);
                assert_eq!(memory.paths().len(), usize::from(number == 0), "{name} after change {number}");
                let code = pushed.err().map(|error| error.code);
                assert_eq!(code, (number > 0).then_some(ErrorCode::FileRead), "{name} after change {number}");
            }
        }
    }

    #[test]
    fn what_was_begun_with_another_file_is_not_stored() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join(SEGMENT);
        std::fs::write(&path, [7; 4096]).expect("segment");
        let before = Source::open(&path, 1).expect("open");
        std::fs::rename(&path, dir.path().join("recycled")).expect("rename");
        std::fs::write(&path, [8; 4096]).expect("segment");
        let memory = MemoryStorage::new();
        let repo = Repo { key: 1, storage: Arc::new(memory.clone()), cipher: Cipher::None };
        std::thread::scope(|scope| {
            let state = before.state;
            let helper = Helper::start(scope, move || encode(&before, Compression::NONE)).expect("thread");
            push_file(
                &targets(&repo),
                &PushSettings::of_tests(Compression::NONE),
                &path,
                SEGMENT,
                1,
                Some(Begun { state, helper }),
            )
            .expect("push");
        });
        let stored = memory.paths();
        assert!(stored.len() == 1 && stored[0].to_string().ends_with(&Sha1::of(&[8; 4096]).to_string()), "{stored:?}");
    }
}
