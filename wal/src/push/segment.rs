//! Pushes one file to every repository.

use std::path::Path;
use std::thread::Scope;
use std::time::Duration;

use engine::repo::Repo;
use engine::repo::archive_find::{FoundSegment, WalSegmentFind};
use engine::storage::temporary;
use engine::work::thread::Helper;
use engine::{CancelToken, Error, ErrorCode, Result};
use repo_format::compress::Compression;
use repo_format::hash::Sha1;
use repo_format::layout::{self, RepoPath, Stanza};
use repo_format::pg::wal_page::WalHeader;
use repo_format::wal_name::{self, PARTIAL_SUFFIX};

use super::check::{PushTarget, PushTargets};
use super::wal_file::{Encoded, FileState, WalFile};
use super::{PushSettings, large, stored, write};
use crate::repos::{concurrency, repo_error};

/// Files up to this size are read once and kept in memory in their stored form. Larger files are read twice
/// ([`large`]), so that memory stays bounded: the name of a stored segment contains its checksum and must be known
/// before the first byte is written.
const IN_MEMORY_MAX: u64 = 64 << 20;

/// The maximum size of a file that is not a segment. History files have some hundred bytes.
const OTHER_MAX: u64 = IN_MEMORY_MAX;

/// Work that [`begin`] has started.
#[derive(Debug)]
pub struct Begun<'scope> {
    state: FileState,
    helper: Helper<'scope, Encoded>,
}

/// A file to push.
#[derive(Clone, Copy, Debug)]
pub struct ToPush<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// Its name in the archive.
    pub name: &'a str,
    /// How many threads may compress it.
    pub threads: usize,
}

/// Starts to read and compress a segment before its destination is known, because repositories on servers take a while
/// to answer. Returns `None` if that gains nothing.
pub fn begin<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    repos: &[Repo],
    settings: &'env PushSettings,
    to_push: ToPush<'env>,
) -> Option<Begun<'scope>> {
    if !wal_name::kind(to_push.name).is_segment() || !concurrency(repos).waits() {
        return None;
    }
    // Problems with the file are reported later
    let opened = WalFile::open(to_push.path, to_push.threads);
    let file = opened.ok().filter(|file| file.size <= IN_MEMORY_MAX)?;
    let state = file.state;
    let helper = Helper::start(scope, move || file.encode(settings.compression))?;
    Some(Begun { state, helper })
}

/// Stores one file in all repositories that lack it and returns warnings.
///
/// A segment (or partial segment) that a repository already has with the same content is left there. Any other file is
/// written without a check. A failing repository does not keep the others from getting the file. `begun` is the result
/// of [`begin`].
///
/// # Errors
/// [`ErrorCode::ArchiveMismatch`] or [`ErrorCode::VersionNotSupported`] for a segment of another cluster,
/// [`ErrorCode::ArchiveDuplicate`] if a repository has the segment with other content, read errors of the file, and
/// [`ErrorCode::Command`] with one line per repository that does not have the file now.
pub fn push_file(
    targets: &PushTargets,
    settings: &PushSettings,
    to_push: ToPush<'_>,
    begun: Option<Begun<'_>>,
) -> Result<Vec<String>> {
    push_opened(targets, settings, &WalFile::open(to_push.path, to_push.threads)?, to_push.name, begun)
}

fn push_opened(
    targets: &PushTargets,
    settings: &PushSettings,
    file: &WalFile<'_>,
    name: &str,
    begun: Option<Begun<'_>>,
) -> Result<Vec<String>> {
    // Work on another file is useless
    let begun = begun.filter(|begun| begun.state == file.state);
    let pushed = if wal_name::kind(name).is_segment() {
        if settings.header_check {
            check_header(targets, settings, file)?;
        }
        SegmentPush { targets, settings, file, name }.run(begun)?
    } else {
        push_other(targets, settings, file, name)?
    };
    // The caller acknowledges the file that has this name now
    file.check_unchanged()?;
    if targets.errors.is_empty() && pushed.errors.is_empty() {
        return Ok(pushed.warnings);
    }
    let errors = [targets.errors.as_slice(), pushed.errors.as_slice()].concat().join("\n");
    Err(Error::new(ErrorCode::Command, format!("archive-push command encountered error(s):\n{errors}")))
}

/// Pushes a timeline history or backup history file unchanged, and overwrites an existing one.
fn push_other<'a>(
    targets: &'a PushTargets,
    settings: &PushSettings,
    file: &WalFile<'_>,
    name: &str,
) -> Result<Pushed<'a>> {
    if file.size > OTHER_MAX {
        let text = format!("'{}' is neither a WAL segment nor small enough for a history file", file.path.display());
        return Err(Error::new(ErrorCode::FileInvalid, text));
    }
    let all: Vec<&PushTarget> = targets.repos.iter().collect();
    let (_, content) = file.encode(Compression::NONE)?;
    file.check_unchanged()?;
    Ok(Pushed { errors: write::store(&all, settings, name, &content), ..Pushed::default() })
}

fn check_header(targets: &PushTargets, settings: &PushSettings, file: &WalFile<'_>) -> Result<()> {
    let header = file.header()?;
    let header = WalHeader::parse(&header, settings.version_force)?;
    if (header.version, header.system_id) == (targets.version, targets.system_id) {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::ArchiveMismatch,
        format!(
            "WAL file '{}' version {}, system-id {} do not match stanza version {}, system-id {}",
            file.path.display(),
            header.version,
            header.system_id,
            targets.version,
            targets.system_id
        ),
    ))
}

/// The push of one segment or partial segment.
struct SegmentPush<'a> {
    targets: &'a PushTargets,
    settings: &'a PushSettings,
    file: &'a WalFile<'a>,
    name: &'a str,
}

/// What the repositories have before the push.
#[derive(Default)]
struct LookedUp<'a> {
    present: Vec<Present<'a>>,
    /// The repositories that are to store the segment.
    missing: Vec<&'a PushTarget>,
    errors: Vec<String>,
}

/// A segment of this name that a repository has.
struct Present<'a> {
    target: &'a PushTarget,
    found: FoundSegment,
    /// Why it does not count, so that it is stored again.
    damage: Option<Error>,
}

/// What a push did, in addition to storing the file.
#[derive(Default)]
struct Pushed<'a> {
    warnings: Vec<String>,
    /// Repositories that do not have the file now.
    errors: Vec<String>,
    /// Damaged segments with other names than the ones that were stored instead.
    replaced: Vec<(&'a PushTarget, RepoPath)>,
}

impl<'a> SegmentPush<'a> {
    /// Stores the segment as `<name>-<sha1><ext>` in all repositories that lack it.
    fn run(&self, begun: Option<Begun<'_>>) -> Result<Pushed<'a>> {
        let SegmentPush { targets, settings, file, .. } = *self;
        // The lookup decides whether compression is needed at all. The segment rarely exists, so waiting for a server's
        // answer first gains nothing
        let concurrency = concurrency(targets.repos.iter().map(|target| &target.repo));
        let ahead = || match begun {
            Some(begun) => begun.helper.join().map(Some),
            None if concurrency.waits() && file.size <= IN_MEMORY_MAX => file.encode(settings.compression).map(Some),
            None => Ok(None),
        };
        let (encoded, looked_up) = concurrency.both(ahead, || Ok(self.look_up()));
        let LookedUp { present, missing, errors } = looked_up?;
        let mut pushed = Pushed { errors, ..Pushed::default() };
        let failed_before = pushed.errors.len();
        let checksum = if missing.is_empty() {
            let checksum = file.checksum()?;
            self.compare(present, checksum, &mut pushed)?;
            checksum
        } else if file.size <= IN_MEMORY_MAX {
            let (checksum, content) = match encoded? {
                Some(encoded) => encoded,
                None => file.encode(settings.compression)?,
            };
            file.check_unchanged()?;
            let stored_name = self.compare(present, checksum, &mut pushed)?;
            pushed.errors.extend(write::store(&missing, settings, &stored_name, &content));
            checksum
        } else {
            let known = |checksum| self.compare(present, checksum, &mut pushed);
            let stored = large::store(&missing, settings, file, known)?;
            pushed.errors.extend(stored.errors);
            stored.checksum
        };
        // After an error the file is pushed again, and all this is checked then
        if pushed.errors.len() == failed_before {
            let errors = self.clean_up(&pushed.replaced, &missing, checksum)?;
            pushed.errors.extend(errors);
        }
        Ok(pushed)
    }

    /// Looks the segment up in every repository.
    fn look_up(&self) -> LookedUp<'a> {
        let mut looked_up = LookedUp::default();
        for target in &self.targets.repos {
            match find(target, &self.settings.stanza, self.name) {
                Ok(Some(found)) => {
                    let damage = stored::check(target, &found, self.file.size).err();
                    if damage.is_some() {
                        looked_up.missing.push(target);
                    }
                    looked_up.present.push(Present { target, found, damage });
                }
                Ok(None) => looked_up.missing.push(target),
                Err(error) => looked_up.errors.push(repo_error(target.repo.key, &error)),
            }
        }
        looked_up
    }

    /// Decides what the checksum tells, before anything is written: existing segments must have the same. Returns the
    /// name to store the segment under, which contains the checksum.
    fn compare(&self, present: Vec<Present<'a>>, checksum: Sha1, pushed: &mut Pushed<'a>) -> Result<String> {
        let name = self.name;
        let stored_name = format!("{name}-{checksum}{}", self.settings.compression.kind.extension());
        for Present { target, found, damage } in present {
            let repo_key = target.repo.key;
            if found.name.checksum != checksum {
                // Corruption, split brain, or worse: store it nowhere
                return Err(stored::duplicate(target, name));
            }
            if let Some(damage) = damage {
                pushed.warnings.push(format!(
                    "WAL file '{name}' already exists in the repo{repo_key} archive but is damaged or cannot be read, and is stored again: \
                     [{}] {damage}",
                    damage.code
                ));
                if !found.path.to_string().ends_with(&stored_name) {
                    pushed.replaced.push((target, found.path));
                }
                continue;
            }
            if let Err(error) = sync_entry(target, &self.settings.stanza, name) {
                pushed.errors.push(repo_error(repo_key, &error));
                continue;
            }
            if self.settings.mode_check {
                pushed.warnings.push(format!(
                    "WAL file '{name}' already exists in the repo{repo_key} archive with the same checksum\n\
                     HINT: this is valid in some recovery scenarios but may also indicate a problem."
                ));
            }
        }
        Ok(stored_name)
    }

    /// Removes the damaged files of another compression, whose intact ones are stored now, and checks that no other
    /// cluster stored the segment meanwhile in `stored_in`. Returns the repositories where that failed.
    fn clean_up(
        &self,
        replaced: &[(&PushTarget, RepoPath)],
        stored_in: &[&PushTarget],
        checksum: Sha1,
    ) -> Result<Vec<String>> {
        let mut errors = Vec::new();
        for (target, path) in replaced {
            if let Err(error) = target.repo.storage.remove(path) {
                errors.push(repo_error(target.repo.key, &error));
            }
        }
        let concurrency = concurrency(self.targets.repos.iter().map(|target| &target.repo));
        let stanza = &self.settings.stanza;
        let looks = concurrency.all(stored_in, |target| stored::has_other(target, stanza, self.name, checksum));
        for (target, has_other) in stored_in.iter().zip(looks) {
            match has_other {
                Ok(false) => {}
                Ok(true) => {
                    return Err(
                        stored::duplicate(target, self.name).hint("are multiple primaries archiving to this stanza?")
                    );
                }
                Err(error) => errors.push(repo_error(target.repo.key, &error)),
            }
        }
        Ok(errors)
    }
}

/// Looks up a segment in a repository.
fn find(target: &PushTarget, stanza: &Stanza, name: &str) -> Result<Option<FoundSegment>> {
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
fn sync_entry(target: &PushTarget, stanza: &Stanza, name: &str) -> Result<()> {
    let segment = name.strip_suffix(PARTIAL_SUFFIX).unwrap_or(name).parse()?;
    let storage = &target.repo.storage;
    storage.sync_path(&layout::wal_dir(stanza, target.archive_id, &segment))?;
    storage.sync_path(&layout::archive_path(stanza, target.archive_id))?;
    storage.sync_path(&layout::archive_stanza(stanza))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::repo::archive_find::{self, ListedNames};
    use engine::storage::faulty::{FaultyStorage, Op};
    use engine::storage::memory::MemoryStorage;
    use engine::storage::posix::PosixStorage;
    use engine::storage::{self, WriteOptions};
    use engine::work::turn::Turn;
    use repo_format::cipher::Cipher;
    use repo_format::compress::CompressType;
    use repo_format::pg::PgVersion;

    use super::*;

    const SEGMENT: &str = "000000010000000000000001";

    fn to_push(path: &Path, threads: usize) -> ToPush<'_> {
        ToPush { path, name: SEGMENT, threads }
    }

    fn targets(repo: &Repo) -> PushTargets {
        let archive_id = "15-1".parse().expect("archive id");
        PushTargets {
            version: PgVersion::V15,
            system_id: 1,
            repos: vec![PushTarget {
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
            push_file(&targets(&repo), &settings, to_push(&source, 2), None).expect("push").join("\n")
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
            let push = || push_file(&targets(&repo), &settings, to_push(&source, 2), None).expect("push").join("\n");
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
        assert!(push_file(&targets, &settings, to_push(&source, 2), None).expect("new").is_empty());
        let before = storage.calls().len();
        assert_eq!(push_file(&targets, &settings, to_push(&source, 2), None).expect("again").len(), 1);
        let synced: Vec<String> = storage.calls()[before..]
            .iter()
            .filter(|(op, _)| *op == Op::SyncPath)
            .map(|(_, path)| path.to_string())
            .collect();
        assert_eq!(synced, ["archive/demo/15-1/0000000100000000", "archive/demo/15-1", "archive/demo"]);

        let _failing = storage.clone().fail_path(Op::SyncPath, "15-1");
        assert_eq!(
            push_file(&targets, &settings, to_push(&source, 2), None).expect_err("sync").code,
            ErrorCode::Command
        );
    }

    /// Pushes content to a repository that was listed before.
    fn push_listed(
        dir: &std::path::Path,
        repo: &Repo,
        content: &[u8],
        listed: Option<ListedNames>,
    ) -> Result<Vec<String>> {
        let source = dir.join(SEGMENT);
        std::fs::write(&source, content).expect("segment");
        let mut targets = targets(repo);
        targets.repos[0].listed = listed;
        push_file(&targets, &PushSettings::of_tests(Compression::NONE), to_push(&source, 1), None)
    }

    fn list(repo: &Repo) -> ListedNames {
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
                let source = WalFile::open(&path, 1).expect("open");
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
        let before = WalFile::open(&path, 1).expect("open");
        std::fs::rename(&path, dir.path().join("recycled")).expect("rename");
        std::fs::write(&path, [8; 4096]).expect("segment");
        let memory = MemoryStorage::new();
        let repo = Repo { key: 1, storage: Arc::new(memory.clone()), cipher: Cipher::None };
        std::thread::scope(|scope| {
            let state = before.state;
            let helper = Helper::start(scope, move || before.encode(Compression::NONE)).expect("thread");
            push_file(
                &targets(&repo),
                &PushSettings::of_tests(Compression::NONE),
                to_push(&path, 1),
                Some(Begun { state, helper }),
            )
            .expect("push");
        });
        let stored = memory.paths();
        assert!(stored.len() == 1 && stored[0].to_string().ends_with(&Sha1::of(&[8; 4096]).to_string()), "{stored:?}");
    }
}
