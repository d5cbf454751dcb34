//! Pushes a segment that is too large to be held in memory, on several cores.
//!
//! The name of a stored segment contains its checksum, and storage drivers need a file's name before its content. So
//! the segment is read twice, at the same time: one thread calculates the checksum while others compress ahead, as far
//! as a bounded queue allows. As soon as the name is known, the compressed pieces are encrypted and written. If the
//! system starts no more threads, the segment is read twice in sequence.

use std::sync::mpsc::{self, SyncSender};

use engine::storage::RepoWriter;
use engine::work::thread::Helper;
use engine::{Error, ErrorCode, Result};
use repo_format::cipher::{Encryptor, Framing};
use repo_format::compress::Compression;
use repo_format::hash::{Sha1, Sha1Hasher, block_checksum};

use super::PushSettings;
use super::check::PushTarget;
use super::wal_file::{CHUNK, WalFile};
use super::write;
use crate::repos::repo_error;

/// Compressed pieces, of at most [`CHUNK`] bytes each, that wait for the name or for the storage.
const QUEUE_PIECES: usize = 32;

/// The fingerprint of a chunk, to compare both reads.
type Fingerprint = [u8; 16];

/// What became of a segment.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) checksum: Sha1,
    /// Problems of repositories, which do not have the segment now.
    pub(super) errors: Vec<String>,
}

/// Stores a segment in several repositories that lack it. `known` gets the checksum before anything is written and
/// returns the name under which to store the segment.
///
/// # Errors
/// Errors of reading, compressing and `known`, after which no repository has the segment.
pub(super) fn store(
    targets: &[&PushTarget],
    settings: &PushSettings,
    source: &WalFile<'_>,
    known: impl FnOnce(Sha1) -> Result<String>,
) -> Result<Stored> {
    store_with(true, targets, settings, source, known)
}

/// Implements [`store`]. Tests pretend that no thread can be started.
fn store_with(
    may_spawn: bool,
    targets: &[&PushTarget],
    settings: &PushSettings,
    source: &WalFile<'_>,
    known: impl FnOnce(Sha1) -> Result<String>,
) -> Result<Stored> {
    std::thread::scope(|scope| {
        // Without another thread, this thread calculates the checksum
        let hashing = may_spawn.then(|| Helper::start(scope, || hash(source))).flatten();
        let (sender, pieces) = mpsc::sync_channel(QUEUE_PIECES);
        let ahead = move || compress(source, settings.compression, |piece| send(piece, &sender));
        let compressing = may_spawn.then(|| Helper::start(scope, ahead)).flatten();
        // An error here drops the queue's end, which ends the compression, and the writers, which abandons the files
        let (checksum, before) = hashing.map_or_else(|| hash(source), Helper::join)?;
        let mut writers = Writers::create(targets, settings, &known(checksum)?);
        let after = match compressing {
            Some(compressing) => {
                pieces.iter().for_each(|piece| writers.take(&piece));
                compressing.join()?
            }
            None => compress(source, settings.compression, |piece| {
                writers.take(piece);
                Ok(())
            })?,
        };
        writers.end();
        if after != before {
            // The name would lie about the content
            let text = format!("WAL file '{}' changed while it was archived", source.path.display());
            return Err(Error::new(ErrorCode::FileRead, text));
        }
        source.check_unchanged()?;
        Ok(Stored { checksum, errors: writers.finish() })
    })
}

fn hash(source: &WalFile<'_>) -> Result<(Sha1, Vec<Fingerprint>)> {
    let mut hasher = Sha1Hasher::new();
    let mut fingerprints = Vec::new();
    source.each_chunk(|chunk| {
        hasher.update(chunk);
        fingerprints.push(block_checksum(chunk));
        Ok(())
    })?;
    Ok((hasher.finish(), fingerprints))
}

/// Passes the compressed data to `take`, piece by piece. A compressor with many threads returns a lot at once. Pieces
/// of bounded size ensure that the length of the queue limits the memory.
fn compress(
    source: &WalFile<'_>,
    compression: Compression,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<Vec<Fingerprint>> {
    let mut fingerprints = Vec::new();
    let mut compressor = source.compressor(compression)?;
    let mut compressed = Vec::new();
    source.each_chunk(|chunk| {
        fingerprints.push(block_checksum(chunk));
        compressor.push(chunk, &mut compressed)?;
        if compressed.len() >= CHUNK {
            compressed.chunks(CHUNK).try_for_each(&mut take)?;
            compressed.clear();
        }
        Ok(())
    })?;
    compressor.finish(&mut compressed)?;
    compressed.chunks(CHUNK).try_for_each(take)?;
    Ok(fingerprints)
}

fn send(piece: &[u8], pieces: &SyncSender<Vec<u8>>) -> Result<()> {
    pieces.send(piece.to_vec()).map_err(|_| Error::new(ErrorCode::FileWrite, "no thread accepts the compressed WAL"))
}

/// The repositories' ends of the segment.
struct Writers<'a> {
    ends: Vec<RepoEnd<'a>>,
    /// A buffer that is reused for each piece.
    encrypted: Vec<u8>,
    /// Problems of repositories.
    errors: Vec<String>,
}

struct RepoEnd<'a> {
    target: &'a PushTarget,
    encryptor: Encryptor,
    /// `None` after an error, which makes the storage abandon the file.
    writer: Option<Box<dyn RepoWriter>>,
}

impl<'a> Writers<'a> {
    fn create(targets: &[&'a PushTarget], settings: &PushSettings, file: &str) -> Self {
        let mut all = Writers { ends: Vec::new(), encrypted: Vec::new(), errors: Vec::new() };
        for &target in targets {
            match write::create(target, settings, file) {
                Ok(writer) => {
                    let encryptor = Encryptor::new(&target.cipher, Framing::Full);
                    all.ends.push(RepoEnd { target, encryptor, writer: Some(writer) });
                }
                Err(error) => all.errors.push(repo_error(target.repo.key, &error)),
            }
        }
        all
    }

    /// Writes a piece to each repository that has not failed.
    fn take(&mut self, piece: &[u8]) {
        self.encrypt_and_write(|encryptor, encrypted| encryptor.push(piece, encrypted));
    }

    /// Writes the end of the encrypted stream to each repository that has not failed.
    fn end(&mut self) {
        self.encrypt_and_write(Encryptor::finish);
    }

    /// Writes to each repository what `encrypt` returns for it. A repository that fails gets nothing more.
    fn encrypt_and_write(&mut self, encrypt: impl Fn(&mut Encryptor, &mut Vec<u8>) -> Result<()>) {
        for end in &mut self.ends {
            let Some(writer) = &mut end.writer else { continue };
            self.encrypted.clear();
            let written = encrypt(&mut end.encryptor, &mut self.encrypted)
                .and_then(|()| write::write(&mut **writer, &self.encrypted));
            if let Err(error) = written {
                self.errors.push(repo_error(end.target.repo.key, &error));
                end.writer = None;
            }
        }
    }

    /// Makes the segment appear, durable, in every repository that accepted all of it. Returns the problems of the
    /// others.
    fn finish(mut self) -> Vec<String> {
        for end in self.ends {
            if let Some(writer) = end.writer
                && let Err(error) = writer.finish()
            {
                self.errors.push(repo_error(end.target.repo.key, &error));
            }
        }
        self.errors
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::path::Path;
    use std::sync::Arc;

    use engine::repo::Repo;
    use engine::storage::faulty::FaultyStorage;
    use engine::storage::memory::MemoryStorage;
    use engine::storage::{self, RepoStorage};
    use engine::work::turn::Turn;
    use repo_format::cipher::{Cipher, Decryptor, Passphrase};
    use repo_format::compress::{CompressType, Decompressor};
    use repo_format::layout::RepoPath;

    use super::*;

    const SEGMENT: &str = "000000010000000000000001";
    /// More than the queue can hold, and not a multiple of a chunk.
    const SIZE: usize = (QUEUE_PIECES + 8) * CHUNK + 12345;

    /// Bytes that hardly compress.
    fn content() -> Vec<u8> {
        let mut state = 1_u64;
        let mut content = Vec::with_capacity(SIZE);
        while content.len() < SIZE {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            content.extend_from_slice(&(state >> 24).to_le_bytes()[..5]);
        }
        content.truncate(SIZE);
        content
    }

    fn repo(key: u32, storage: impl RepoStorage + 'static) -> Repo {
        Repo { key, storage: Arc::new(storage), cipher: Cipher::None }
    }

    fn target(repo: &Repo, cipher: Cipher) -> PushTarget {
        PushTarget {
            repo: repo.clone(),
            turn: Turn::FREE,
            archive_id: "15-1".parse().expect("archive id"),
            cipher,
            listed: None,
        }
    }

    fn stored(repo: &Repo, file: &str) -> Option<Vec<u8>> {
        let path = RepoPath::new(format!("archive/demo/15-1/{}/{file}", &SEGMENT[..16])).expect("path");
        storage::get(&*repo.storage, &path, 2 * SIZE as u64).expect("read")
    }

    fn write_source(dir: &Path, content: &[u8]) -> std::path::PathBuf {
        let path = dir.join(SEGMENT);
        std::fs::write(&path, content).expect("segment");
        path
    }

    #[test]
    fn large_segment_is_stored_whole_in_every_repository_that_works() {
        let content = content();
        let dir = tempfile::tempdir().expect("dir");
        let path = write_source(dir.path(), &content);
        for kind in [CompressType::None, CompressType::Lz4, CompressType::Gz] {
            let plain = repo(1, MemoryStorage::new());
            let full = repo(2, FaultyStorage::new(Arc::new(MemoryStorage::new())).full_after(3 << 20));
            let secret = repo(3, MemoryStorage::new());
            let cipher = Cipher::Aes256Cbc(Passphrase::new("secret".to_owned()));
            let targets = [target(&plain, Cipher::None), target(&full, Cipher::None), target(&secret, cipher.clone())];
            let targets: Vec<_> = targets.iter().collect();
            let compression = Compression::new(kind, None).expect("compression");
            let file = format!("{SEGMENT}-{}{}", Sha1::of(&content), kind.extension());
            let known = |checksum: Sha1| Ok(format!("{SEGMENT}-{checksum}{}", kind.extension()));
            let source = WalFile::open(&path, 2).expect("open");
            let errors = store(&targets, &PushSettings::of_tests(compression), &source, known).expect("store").errors;

            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].starts_with("repo2: "), "{errors:?}");
            assert!(stored(&full, &file).is_none());
            for (repo, cipher) in [(&plain, &Cipher::None), (&secret, &cipher)] {
                let stored = stored(repo, &file).expect("stored");
                let reader = Decryptor::new(cipher, Framing::Full, stored.as_slice());
                let mut found = Vec::new();
                let mut reader = Decompressor::new(kind, Framing::Full, reader).expect("decompressor");
                reader.read_to_end(&mut found).expect("decompress");
                assert!(found == content, "{kind:?} in repo{}", repo.key);
            }
        }
    }

    #[test]
    fn compressed_pieces_are_small_however_many_threads_make_them() {
        let content = content();
        let dir = tempfile::tempdir().expect("dir");
        let path = write_source(dir.path(), &content);
        for kind in CompressType::ALL {
            let source = WalFile::open(&path, 8).expect("open");
            let (sender, pieces) = mpsc::sync_channel(2 * SIZE / CHUNK);
            compress(&source, Compression::new(kind, None).expect("compression"), |piece| send(piece, &sender))
                .expect("compress");
            drop(sender);
            assert!(pieces.iter().all(|piece: Vec<u8>| piece.len() <= CHUNK), "{kind}");
        }
    }

    #[test]
    fn large_segment_refused_by_its_checksum_is_written_nowhere() {
        let dir = tempfile::tempdir().expect("dir");
        let path = write_source(dir.path(), &content());
        let memory = MemoryStorage::new();
        let repo = repo(1, memory.clone());
        let target = target(&repo, Cipher::None);
        let source = WalFile::open(&path, 2).expect("open");
        let refuse = |_| Err(Error::new(ErrorCode::ArchiveDuplicate, "other content"));
        let refused = store(&[&target], &PushSettings::of_tests(Compression::NONE), &source, refuse);
        assert_eq!(refused.expect_err("refused").code, ErrorCode::ArchiveDuplicate);
        assert!(memory.paths().is_empty());
    }

    #[test]
    fn large_segment_that_changes_meanwhile_is_an_error_and_is_not_stored() {
        let content = content();
        let dir = tempfile::tempdir().expect("dir");
        let path = write_source(dir.path(), &content);
        let memory = MemoryStorage::new();
        let repo = repo(1, memory.clone());
        let target = target(&repo, Cipher::None);
        let source = WalFile::open(&path, 2).expect("open");
        let change = |checksum: Sha1| {
            // The compression has stopped before the last chunk, because its queue is full
            let mut changed = content.clone();
            changed[SIZE - 1] ^= 1;
            std::fs::write(&path, changed).expect("change");
            Ok(format!("{SEGMENT}-{checksum}"))
        };
        let error = store(&[&target], &PushSettings::of_tests(Compression::NONE), &source, change);
        assert!(error.expect_err("changed").message.contains("changed while it was archived"));
        assert!(memory.paths().is_empty());
    }

    #[test]
    fn large_segment_that_is_recycled_meanwhile_is_an_error_and_is_not_stored() {
        let dir = tempfile::tempdir().expect("dir");
        let path = write_source(dir.path(), b"segment");
        let memory = MemoryStorage::new();
        let repo = repo(1, memory.clone());
        let target = target(&repo, Cipher::None);
        let source = WalFile::open(&path, 2).expect("open");
        let recycle = |checksum: Sha1| {
            std::fs::rename(&path, dir.path().join("recycled")).expect("rename");
            Ok(format!("{SEGMENT}-{checksum}"))
        };
        let error = store(&[&target], &PushSettings::of_tests(Compression::NONE), &source, recycle);
        assert_eq!(error.expect_err("recycled").code, ErrorCode::FileRead);
        assert!(memory.paths().is_empty());
    }

    #[test]
    fn large_segment_is_stored_where_no_thread_can_be_started() {
        let dir = tempfile::tempdir().expect("dir");
        let content = &content()[..3 * CHUNK + 5];
        let path = write_source(dir.path(), content);
        let repo = repo(1, MemoryStorage::new());
        let target = target(&repo, Cipher::None);
        let source = WalFile::open(&path, 1).expect("open");
        let known = |checksum: Sha1| Ok(format!("{SEGMENT}-{checksum}"));
        let errors = store_with(false, &[&target], &PushSettings::of_tests(Compression::NONE), &source, known)
            .expect("store")
            .errors;
        assert!(errors.is_empty(), "{errors:?}");
        assert!(stored(&repo, &format!("{SEGMENT}-{}", Sha1::of(content))).expect("stored") == content);
    }
}
