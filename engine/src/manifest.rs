//! What the command `manifest` shows: the manifest of a backup, and what a restore of one of its files would read.

use std::io::BufReader;

use repo_format::block_map::BlockMap;
use repo_format::cipher::{Cipher, Decryptor, Framing};
use repo_format::layout::{self, FileForm, RepoPath, Stanza};
use repo_format::manifest::{BlockIncr, Manifest, ManifestFile, pg_path};

use crate::pg::PgHost;
use crate::pipeline::block_delta::{self, BlockFile, BlockRead};
use crate::pipeline::restore::BlockGeometry;
use crate::repo::{info_files, manifest_store};
use crate::storage::{self, ReadRange};
use crate::work::retry::is_missing;
use crate::{CancelToken, Error, ErrorCode, Repo, Result};

/// A manifest with the repository that it was loaded from.
pub struct StoredManifest<'a> {
    repo: &'a Repo,
    stanza: &'a Stanza,
    /// The manifest.
    pub manifest: Manifest,
}

/// What a restore would do with a file that is stored in blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockRestore {
    /// The file on disk is the file of the backup.
    UpToDate,
    /// The restore reads blocks from these backups, oldest first.
    Reads(Vec<BackupReads>),
}

/// What a restore of a file reads from one backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupReads {
    /// The backup, as an index into the manifest's references.
    pub reference: u64,
    /// The file in the repository, relative to the stanza's backups.
    pub path: String,
    /// Number of ranged reads.
    pub reads: u64,
    /// Stored bytes of all reads.
    pub read_size: u64,
    /// Number of super blocks.
    pub super_blocks: u64,
    /// Decoded bytes of all super blocks.
    pub super_block_size: u64,
    /// Number of blocks.
    pub blocks: u64,
}

impl<'a> StoredManifest<'a> {
    /// Loads the manifest of a backup. `set` is the name of its directory, or `latest`, the link to the newest one. Where
    /// there is no link, as in object stores, `latest` means the newest backup in `backup.info`.
    ///
    /// # Errors
    /// `backup.info` or the manifest can't be read.
    pub fn load(repo: &'a Repo, stanza: &'a Stanza, set: &str) -> Result<Self> {
        let info = info_files::load_backup_info(repo, stanza)?;
        let cipher = info_files::manifest_cipher(&info);
        let path = layout::backup_stanza(stanza).join(&format!("{set}/{}", layout::BACKUP_MANIFEST))?;
        let loaded = manifest_store::load_from(repo, &path, &cipher);
        let newest = info.backups.keys().next_back().filter(|_| set == layout::LATEST);
        let manifest = match (loaded, newest) {
            (Err(error), Some(newest)) if is_missing(&error) => manifest_store::load(repo, stanza, newest, &cipher)?,
            (loaded, _) => loaded?,
        };
        Ok(StoredManifest { repo, stanza, manifest })
    }

    /// Returns what a restore of a file with blocks would read: all of it, or with a cluster only the blocks that
    /// differ from the file in its data directory.
    ///
    /// # Errors
    /// The block map or the file can't be read, or the map is damaged.
    pub fn block_restore(
        &self,
        file: &ManifestFile,
        block: BlockIncr,
        cluster: Option<&dyn PgHost>,
        cancel: &CancelToken,
    ) -> Result<BlockRestore> {
        let geometry =
            BlockGeometry { block_size: block.size.max(1) as usize, checksum_size: usize::from(block.checksum_size) };
        let path = RepoPath::new(pg_path(&file.name))?;
        let existing = cluster.map(|host| host.hash_blocks(&path, geometry, cancel)).transpose()?;
        if existing.as_ref().is_some_and(|existing| Some(existing.sha1) == file.checksum) {
            return Ok(BlockRestore::UpToDate);
        }
        let known = BlockFile {
            size: file.size,
            block_size: u64::from(block.size),
            checksum_size: usize::from(block.checksum_size),
            reference_total: self.manifest.references.len(),
        };
        let existing = existing.map(|existing| existing.blocks).unwrap_or_default();
        let plan = block_delta::plan(&self.read_map(file, block, &known)?, &known, &existing, 0)?;
        // The plan begins with the newest backup
        let by_backup = plan.reads.chunk_by(|one, next| one.reference == next.reference).rev();
        Ok(BlockRestore::Reads(by_backup.map(|reads| self.backup_reads(file, reads)).collect::<Result<_>>()?))
    }

    /// Counts what is read from one backup.
    fn backup_reads(&self, file: &ManifestFile, reads: &[BlockRead]) -> Result<BackupReads> {
        let mut counted = BackupReads { reads: reads.len() as u64, ..BackupReads::default() };
        for read in reads {
            let unknown = || Error::new(ErrorCode::Format, "block map refers to an unknown backup");
            let label = self.manifest.references.get(read.reference).ok_or_else(unknown)?;
            counted.reference = read.reference as u64;
            counted.path = match read.bundle_id {
                0 => format!("{label}/{}{}", file.name, FileForm::BlockIncr.extension()),
                bundle_id => format!("{label}/{}/{bundle_id}", layout::BUNDLE),
            };
            counted.read_size = counted.read_size.saturating_add(read.size);
            counted.super_blocks += read.super_blocks.len() as u64;
            for super_block in &read.super_blocks {
                counted.super_block_size = counted.super_block_size.saturating_add(super_block.decoded_size);
                counted.blocks += super_block.blocks.len() as u64;
            }
        }
        Ok(counted)
    }

    /// Reads the block map at the end of a stored file.
    fn read_map(&self, file: &ManifestFile, block: BlockIncr, known: &BlockFile) -> Result<BlockMap> {
        let damaged = |what: &str| {
            Error::new(ErrorCode::Format, format!("manifest sizes of file '{}' are out of range: {what}", file.name))
        };
        if block.map_size > known.map_size_max() {
            return Err(damaged("the block map is too large"));
        }
        let start = file.bundle.map_or(0, |bundle| bundle.offset);
        let end = start.checked_add(file.size_repo).ok_or_else(|| damaged("the stored size is too large"))?;
        let offset = end.checked_sub(block.map_size).ok_or_else(|| damaged("the block map is too large"))?;
        let label = self.manifest.holder(file);
        let path = match file.bundle {
            Some(bundle) => layout::bundle(self.stanza, label, bundle.id()),
            None => layout::backup_file(self.stanza, label, &file.name, FileForm::BlockIncr)?,
        };
        let storage = &*self.repo.storage;
        let range = ReadRange { offset, limit: Some(block.map_size) };
        let stored = storage.read(&path, range)?.ok_or_else(|| storage::missing(storage, &path))?;
        let cipher = Cipher::from_passphrase(self.manifest.cipher_pass.as_ref());
        let map = BufReader::new(Decryptor::new(&cipher, Framing::Raw, stored));
        BlockMap::read_from(map, block.size, block.checksum_size, known.block_total())
            .map_err(|error| error.context(format_args!("unable to read block map from '{}'", storage.display(&path))))
    }
}
