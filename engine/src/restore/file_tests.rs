//! Tests of copying files, with a repository in memory.

use std::collections::HashSet;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use repo_format::block_map::{BlockMap, BlockRef};
use repo_format::cipher::Cipher;
use repo_format::compress::CompressType;
use repo_format::hash::block_checksum;
use repo_format::layout::{self, Stanza};
use repo_format::manifest::{BlockIncr, Bundle, Manifest, ManifestFile};

use super::file::{FileContext, Outcome};
use super::fixture;
use super::ownership::{Owner, Ownership};
use super::queue::RestoreJob;
use super::target_dir::TargetDir;
use crate::pipeline::restore::RestorePipeline;
use crate::storage::memory::MemoryStorage;
use crate::storage::{RepoStorage as _, WriteOptions, put};
use crate::users::Users;
use crate::work::turn::Turn;
use crate::{CancelToken, ErrorCode, Result};

const BLOCK: usize = 8192;

/// A backup with these files and a data directory of its own.
struct Restore {
    dir: tempfile::TempDir,
    storage: MemoryStorage,
    manifest: Manifest,
    stanza: Stanza,
    /// Trust size and time of existing files.
    by_time: bool,
}

impl Restore {
    fn new(files: Vec<ManifestFile>) -> Self {
        let mut manifest = fixture::manifest();
        manifest.files = files;
        let dir = tempfile::tempdir().unwrap();
        Restore { dir, storage: MemoryStorage::new(), manifest, stanza: "demo".parse().unwrap(), by_time: false }
    }

    fn store(&self, name: &str, bytes: &[u8]) {
        let path = layout::backup_path(&self.stanza, &self.manifest.data.label).join(name).unwrap();
        put(&self.storage, &path, bytes, WriteOptions::ATOMIC).unwrap();
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir.path().display())
    }

    fn run(&self, delta: bool) -> Result<Vec<Outcome>> {
        let current = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
        let ownership = Ownership::new(&self.manifest, &Users::new(), current, Some(current));
        let pg_path = self.dir.path().display().to_string();
        let mut places = fixture::places(self.dir.path());
        places.add_file("pg_data/pg_hba.conf", TargetDir::open(&pg_path).unwrap(), "pipe");
        let context = FileContext {
            manifest: &self.manifest,
            storage: &self.storage,
            stanza: &self.stanza,
            pg_path: &pg_path,
            places: &places,
            file_systems: None,
            ownership: &ownership,
            zero: None,
            delta,
            delta_by_time: self.by_time,
            page_cache: None,
            looks_only: false,
            cipher: Cipher::None,
        };
        let job = RestoreJob { files: (0..self.manifest.files.len() as u32).collect(), size: 0 };
        let mut pipeline = RestorePipeline::new(Cipher::None, CompressType::None, &Turn::FREE);
        let begun = context.first_read(&job)?.map(|(path, range)| self.storage.begin_read(&path, range));
        let mut results = context.restore(&mut pipeline, &job, begun, &CancelToken::new())?;
        results.sort_by_key(|result| result.index);
        Ok(results.into_iter().map(|result| result.outcome).collect())
    }
}

fn bundled(name: &str, content: &[u8], offset: u64) -> ManifestFile {
    let mut file = fixture::file(name, content);
    file.bundle = Bundle::new(1, offset);
    file
}

/// Returns a file of three blocks, each in its own super block, and its stored form.
fn block_file(content: &[u8]) -> (ManifestFile, Vec<u8>) {
    block_file_in(content, 0)
}

/// The same for a file in the bundle with this number, or on its own.
fn block_file_in(content: &[u8], bundle_id: u64) -> (ManifestFile, Vec<u8>) {
    let mut stored = content.to_vec();
    let mut blocks = Vec::new();
    for block in content.chunks(BLOCK) {
        let offset = blocks.len() as u64 * BLOCK as u64;
        let size = block.len() as u64;
        blocks.push(BlockRef {
            reference: 0,
            bundle_id,
            offset,
            size,
            super_block_size: size,
            block: 0,
            checksum: block_checksum(block),
        });
    }
    let before = stored.len() as u64;
    BlockMap(blocks).write(BLOCK as u32, 6, &mut stored).unwrap();
    let mut file = fixture::file("pg_data/PG_VERSION", content);
    file.size_repo = stored.len() as u64;
    file.block = Some(BlockIncr { size: BLOCK as u32, checksum_size: 6, map_size: file.size_repo - before });
    file.bundle = Bundle::new(bundle_id, 0);
    (file, stored)
}

#[test]
fn restore_of_bundle_writes_every_file_with_its_time() {
    let restore = Restore::new(vec![
        bundled("pg_data/a", b"one", 0),
        bundled("pg_data/b", b"three", 10),
        bundled("pg_data/c", b"", 20),
    ]);
    restore.store("bundle/1", b"one-------three");
    let outcomes = restore.run(false).unwrap();
    assert_eq!(outcomes, [Outcome::Copied { size: 3 }, Outcome::Copied { size: 5 }, Outcome::Zeroed]);
    assert_eq!(std::fs::read(restore.path("a")).unwrap(), b"one");
    assert_eq!(std::fs::read(restore.path("b")).unwrap(), b"three");
    let metadata = std::fs::metadata(restore.path("c")).unwrap();
    assert_eq!((metadata.len(), metadata.mtime()), (0, 1_700_000_000));
}

#[test]
fn restore_of_wrong_bytes_is_a_checksum_error() {
    for stored in [b"onE".as_slice(), b"one-", b"on", b""] {
        let restore = Restore::new(vec![fixture::file("pg_data/a", b"one")]);
        restore.store("pg_data/a", stored);
        assert_eq!(restore.run(false).unwrap_err().code, ErrorCode::Checksum, "{stored:?}");
    }
}

#[test]
fn restore_of_larger_stream_writes_no_more_than_the_size() {
    let restore = Restore::new(vec![fixture::file("pg_data/a", b"one")]);
    restore.store("pg_data/a", &vec![7; 1 << 20]);
    assert_eq!(restore.run(false).unwrap_err().code, ErrorCode::Checksum);
    assert!(std::fs::metadata(restore.path("a")).unwrap().len() <= 3);
}

#[test]
fn restore_of_missing_repository_file_is_an_error() {
    let restore = Restore::new(vec![fixture::file("pg_data/a", b"one")]);
    assert_eq!(restore.run(false).unwrap_err().code, ErrorCode::FileMissing);
}

#[test]
fn restore_does_not_write_through_a_link_that_is_not_the_manifests() {
    let restore = Restore::new(vec![fixture::file("pg_data/a", b"one")]);
    restore.store("pg_data/a", b"one");
    let outside = tempfile::NamedTempFile::new().unwrap();
    symlink(outside.path(), restore.path("a")).unwrap();
    assert_eq!(restore.run(false).unwrap_err().code, ErrorCode::FileOpen);
    assert_eq!(outside.as_file().metadata().unwrap().len(), 0);
}

#[test]
fn restore_never_sets_more_than_permission_bits() {
    let mut file = fixture::file("pg_data/a", b"one");
    file.mode = 0o6755;
    let restore = Restore::new(vec![file]);
    restore.store("pg_data/a", b"one");
    restore.run(false).unwrap();
    let mode = std::fs::metadata(restore.path("a")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7000, 0);
}

#[test]
fn delta_leaves_a_right_file_untouched() {
    let restore = Restore::new(vec![fixture::file("pg_data/a", b"one")]);
    restore.store("pg_data/a", b"one");
    restore.run(false).unwrap();
    let before = std::fs::metadata(restore.path("a")).unwrap();
    assert_eq!(restore.run(true).unwrap(), [Outcome::Preserved]);
    let after = std::fs::metadata(restore.path("a")).unwrap();
    assert_eq!((before.ino(), before.ctime(), before.ctime_nsec()), (after.ino(), after.ctime(), after.ctime_nsec()));
}

#[test]
fn delta_truncates_a_longer_file_and_copies_a_different_one() {
    let restore = Restore::new(vec![fixture::file("pg_data/a", b"one"), fixture::file("pg_data/b", b"two")]);
    restore.store("pg_data/b", b"two");
    std::fs::write(restore.path("a"), b"one and more").unwrap();
    std::fs::write(restore.path("b"), b"owt").unwrap();
    // The first one is not even in the repository: the existing file is used
    assert_eq!(restore.run(true).unwrap(), [Outcome::Preserved, Outcome::Copied { size: 3 }]);
    assert_eq!(std::fs::read(restore.path("a")).unwrap(), b"one");
    assert_eq!(std::fs::metadata(restore.path("a")).unwrap().mtime(), 1_700_000_000);
}

#[test]
fn delta_of_blocks_fetches_only_those_that_differ() {
    let content: Vec<u8> = (0..2 * BLOCK + 100).map(|index| (index / 100) as u8).collect();
    let (file, stored) = block_file(&content);
    let restore = Restore::new(vec![file]);
    restore.store("pg_data/PG_VERSION.pgbi", &stored);
    assert_eq!(restore.run(false).unwrap(), [Outcome::Copied { size: content.len() as u64 }]);
    assert_eq!(std::fs::read(restore.path("PG_VERSION")).unwrap(), content);

    let mut damaged = content.clone();
    damaged[BLOCK] ^= 1;
    for (on_disk, fetched) in [
        (damaged.clone(), BLOCK),
        (content[..BLOCK].to_vec(), BLOCK + 100),
        ([&damaged[..], b"more"].concat(), BLOCK),
        (b"x".to_vec(), content.len()),
    ] {
        std::fs::write(restore.path("PG_VERSION"), &on_disk).unwrap();
        assert_eq!(restore.run(true).unwrap(), [Outcome::Copied { size: fetched as u64 }]);
        assert_eq!(std::fs::read(restore.path("PG_VERSION")).unwrap(), content);
    }
}

#[test]
fn damaged_block_file_is_an_error_wherever_it_is_damaged() {
    let content: Vec<u8> = (0..2 * BLOCK + 100).map(|index| (index % 251) as u8).collect();
    let (file, stored) = block_file(&content);
    let map_start = stored.len() - file.block.map_or(0, |block| block.map_size as usize);
    let allowed = HashSet::from([ErrorCode::Checksum, ErrorCode::Format, ErrorCode::FileRead]);
    // Every byte of the map except its checksums, which only a delta reads, and some of the content
    for at in (0..map_start).step_by(4001).chain(map_start..stored.len()) {
        let mut damaged = stored.clone();
        damaged[at] ^= 0x41;
        let restore = Restore::new(vec![file.clone()]);
        restore.store("pg_data/PG_VERSION.pgbi", &damaged);
        match restore.run(false) {
            Err(error) => assert!(allowed.contains(&error.code), "byte {at}: {error}"),
            Ok(_) => assert_eq!(std::fs::read(restore.path("PG_VERSION")).unwrap(), content, "byte {at}"),
        }
    }
}

#[test]
fn sizes_that_can_not_be_are_refused_before_reading() {
    let (file, stored) = block_file(&[1; BLOCK]);
    let changes: [fn(&mut ManifestFile); 3] = [
        |file| file.block = file.block.map(|block| BlockIncr { map_size: u64::MAX, ..block }),
        |file| file.size_repo = u64::MAX,
        |file| file.bundle = Bundle::new(1, u64::MAX),
    ];
    for change in changes {
        let mut file = file.clone();
        change(&mut file);
        let restore = Restore::new(vec![file]);
        restore.store("pg_data/PG_VERSION.pgbi", &stored);
        restore.store("bundle/1", &stored);
        let code = restore.run(false).unwrap_err().code;
        assert!(matches!(code, ErrorCode::Format | ErrorCode::FileRead), "{code}");
    }
}

#[test]
fn block_file_that_lacks_a_byte_of_its_last_checksum_is_restored() {
    let content: Vec<u8> = (0..2 * BLOCK + 100).map(|index| (index % 251) as u8).collect();
    let (file, stored) = block_file(&content);
    let restore = Restore::new(vec![file.clone()]);
    restore.store("pg_data/PG_VERSION.pgbi", &stored[..stored.len() - 1]);
    assert_eq!(restore.run(false).unwrap(), [Outcome::Copied { size: content.len() as u64 }]);
    assert_eq!(std::fs::read(restore.path("PG_VERSION")).unwrap(), content);
    // Also when only the map is read at first
    let mut damaged = content.clone();
    damaged[BLOCK] ^= 1;
    std::fs::write(restore.path("PG_VERSION"), &damaged).unwrap();
    restore.run(true).unwrap();
    assert_eq!(std::fs::read(restore.path("PG_VERSION")).unwrap(), content);

    // As the last one of a bundle
    let (in_bundle, stored_in_bundle) = block_file_in(&content, 1);
    let bundled = Restore::new(vec![in_bundle]);
    bundled.store("bundle/1", &stored_in_bundle[..stored.len() - 1]);
    bundled.run(false).unwrap();
    assert_eq!(std::fs::read(bundled.path("PG_VERSION")).unwrap(), content);

    let short = Restore::new(vec![file]);
    short.store("pg_data/PG_VERSION.pgbi", &stored[..stored.len() - 7]);
    assert_eq!(short.run(false).unwrap_err().code, ErrorCode::Format);
}

#[test]
fn file_shorter_than_its_size_is_refused_although_its_checksum_fits() {
    let mut file = fixture::file("pg_data/a", b"one");
    file.size = 4;
    let restore = Restore::new(vec![file]);
    restore.store("pg_data/a", b"one");
    assert_eq!(restore.run(false).unwrap_err().code, ErrorCode::Checksum);
}

#[test]
fn pipe_at_the_end_of_a_file_link_is_an_error_and_not_waited_for() {
    let (block, stored) = block_file(&[1; BLOCK]);
    for file in
        [fixture::file("pg_data/pg_hba.conf", b"one"), ManifestFile { name: "pg_data/pg_hba.conf".into(), ..block }]
    {
        let restore = Restore::new(vec![file]);
        restore.store("pg_data/pg_hba.conf", b"one");
        restore.store("pg_data/pg_hba.conf.pgbi", &stored);
        let pipe = restore.path("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        symlink(&pipe, restore.path("pg_hba.conf")).unwrap();
        for delta in [false, true] {
            assert_eq!(restore.run(delta).unwrap_err().code, ErrorCode::FileOpen);
        }
    }
}

#[test]
fn file_with_another_name_is_replaced_and_the_other_name_keeps_its_content() {
    let content: Vec<u8> = (0..2 * BLOCK + 100).map(|index| (index / 100) as u8).collect();
    let (block, stored) = block_file(&content);
    let mut differs = content.clone();
    differs[BLOCK] ^= 1;
    let longer = [&content[..], b"more"].concat();
    for on_disk in [&differs[..], &longer, &content[..10], &content] {
        for (block, form) in [(block.block, "pg_data/PG_VERSION.pgbi"), (None, "pg_data/PG_VERSION")] {
            let size_repo = if block.is_some() { stored.len() } else { content.len() } as u64;
            for delta in [false, true] {
                let mut file = fixture::file("pg_data/PG_VERSION", &content);
                (file.block, file.size_repo) = (block, size_repo);
                let restore = Restore::new(vec![file]);
                restore.store(form, if block.is_some() { &stored } else { &content });
                std::fs::write(restore.path("other"), on_disk).unwrap();
                std::fs::hard_link(restore.path("other"), restore.path("PG_VERSION")).unwrap();
                let before = std::fs::metadata(restore.path("other")).unwrap();
                restore.run(delta).unwrap();
                assert_eq!(std::fs::read(restore.path("PG_VERSION")).unwrap(), content);
                assert_eq!(std::fs::read(restore.path("other")).unwrap(), on_disk);
                let after = std::fs::metadata(restore.path("other")).unwrap();
                assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()));
            }
        }
    }
}

#[test]
fn delta_leaves_a_right_file_with_another_name_alone() {
    let restore = Restore::new(vec![fixture::file("pg_data/a", b"one")]);
    restore.store("pg_data/a", b"one");
    restore.run(false).unwrap();
    std::fs::hard_link(restore.path("a"), restore.path("other")).unwrap();
    assert_eq!(restore.run(true).unwrap(), [Outcome::Preserved]);
    assert_eq!(std::fs::metadata(restore.path("a")).unwrap().nlink(), 2);
}

#[test]
fn delta_by_time_does_not_take_the_zeros_of_a_restore_of_other_databases_for_the_file() {
    let content = [7; 3 * BLOCK];
    let file = fixture::file("pg_data/base/1/1259", &content);
    let (time, name) = (file.timestamp, "base/1/1259");
    for sparse in [true, false] {
        let mut restore = Restore::new(vec![file.clone()]);
        restore.store("pg_data/base/1/1259", &content);
        std::fs::create_dir_all(restore.path("base/1")).unwrap();
        restore.manifest.data.timestamp_copy_start = time + 100;
        restore.by_time = true;
        if !sparse {
            std::fs::write(restore.path(name), [0; 3 * BLOCK]).unwrap();
        }
        let zeroed = std::fs::File::options().create(true).append(true).open(restore.path(name)).unwrap();
        zeroed.set_len(content.len() as u64).unwrap();
        super::file::set_time(&zeroed, time, name).unwrap();
        assert_eq!(restore.run(true).unwrap(), [Outcome::Copied { size: content.len() as u64 }]);
        assert_eq!(std::fs::read(restore.path(name)).unwrap(), content);
        // A file with content is recognized by its time
        let changed = [&[7; 3 * BLOCK - 1][..], &[8]].concat();
        std::fs::write(restore.path(name), &changed).unwrap();
        super::file::set_time(&std::fs::File::open(restore.path(name)).unwrap(), time, name).unwrap();
        assert_eq!(restore.run(true).unwrap(), [Outcome::Preserved]);
    }
}

#[test]
fn file_whose_mode_forbids_to_write_is_replaced() {
    let content: Vec<u8> = (0..2 * BLOCK + 100).map(|index| (index / 100) as u8).collect();
    let (block, stored) = block_file(&content);
    let mut differs = content.clone();
    differs[BLOCK] ^= 1;
    let longer = [&content[..], b"more"].concat();
    for on_disk in [&differs[..], &longer, &content[..10]] {
        for (mode, delta) in [(0o400, true), (0o400, false), (0, true)] {
            let mut block = block.clone();
            block.mode = mode;
            let mut whole = fixture::file("pg_data/server.key", &content);
            whole.mode = mode;
            let restore = Restore::new(vec![block, whole]);
            restore.store("pg_data/PG_VERSION.pgbi", &stored);
            restore.store("pg_data/server.key", &content);
            fixture::without_root(restore.dir.path(), || {
                for name in ["PG_VERSION", "server.key"] {
                    std::fs::write(restore.path(name), on_disk).unwrap();
                    std::fs::set_permissions(restore.path(name), Permissions::from_mode(mode.into())).unwrap();
                }
                restore.run(delta).unwrap();
            });
            for name in ["PG_VERSION", "server.key"] {
                std::fs::set_permissions(restore.path(name), Permissions::from_mode(0o600)).unwrap();
                assert_eq!(std::fs::read(restore.path(name)).unwrap(), content);
            }
        }
    }
}
