//! Builds the manifest of a new backup from the scan of the data directory.

use repo_format::hash::Sha1;
use repo_format::manifest::{
    BlockIncr, Manifest, ManifestFile, ManifestLink, ManifestPath, PageCheck, Tablespace, Target, TargetType, pg_path,
};

use super::block_size::BlockSizes;
use super::draft::{BackupFile, Draft, FileState};
use crate::pg::data_dir::{Scan, ScannedFile};
use crate::pipeline::backup::CopyMethod;
use crate::{Error, ErrorCode, Result, warn};

/// Fills the manifest of a backup whose data specify how files are stored.
///
/// # Errors
/// [`ErrorCode::Format`] for a block size that the manifest cannot store.
pub(super) fn fill(
    mut manifest: Manifest,
    scan: Scan,
    blocks: Option<&BlockSizes>,
    checksum_page: bool,
) -> Result<Draft> {
    manifest.owners = scan.owners;
    for target in scan.targets {
        manifest.targets.push(Target {
            name: target.name,
            target_type: if target.is_link { TargetType::Link } else { TargetType::Path },
            path: target.path,
            file: target.file,
            tablespace: target.tablespace.map(|known| Tablespace { id: known.id, name: known.name }),
        });
    }
    for path in scan.paths {
        manifest.paths.push(ManifestPath { name: path.name, mode: path.mode, user: path.user, group: path.group });
    }
    for link in scan.links {
        manifest.links.push(ManifestLink {
            name: link.name,
            destination: link.destination,
            user: link.user,
            group: link.group,
        });
    }
    let start = manifest.data.timestamp_start;
    let mut files = Vec::with_capacity(scan.files.len());
    for file in scan.files {
        // In a backup with bundles, an empty file is only a line in the manifest
        let stored = file.size != 0 || !manifest.data.bundle;
        let state = if stored { FileState::Pending(CopyMethod::Copy) } else { FileState::Complete };
        let block = blocks.map(|blocks| block(blocks, &file, start)).transpose()?.flatten();
        let entry = ManifestFile {
            size: file.size,
            size_original: file.size,
            size_repo: 0,
            timestamp: file.modified,
            checksum: (!stored).then_some(Sha1::EMPTY),
            checksum_repo: None,
            mode: file.mode,
            user: file.user,
            group: file.group,
            reference: None,
            bundle: None,
            block,
            page_check: (checksum_page && file.pages).then_some(PageCheck::VALID),
            name: file.name,
        };
        files.push(BackupFile { entry, state });
    }
    Ok(Draft { manifest, files })
}

/// Returns the blocks of a file; `None` if it is stored as a whole. `start` is when the backup began.
fn block(blocks: &BlockSizes, file: &ScannedFile, start: i64) -> Result<Option<BlockIncr>> {
    let Some((size, checksum_size)) = blocks.of(file.size, start - file.modified) else { return Ok(None) };
    let size = u32::try_from(size)
        .map_err(|_| Error::new(ErrorCode::Format, format!("block size {size} for '{}' is too large", file.name)))?;
    Ok(Some(BlockIncr { size, checksum_size, map_size: 0 }))
}

/// Records when copying starts, and enables comparison by checksum if a file has a later time: such a file could change
/// without getting a newer time.
pub(super) fn validate_times(draft: &mut Draft, delta: bool, copy_start: i64) {
    let Draft { manifest, files } = draft;
    manifest.data.options.delta = Some(delta);
    manifest.data.timestamp_copy_start = copy_start + i64::from(manifest.data.options.online);
    if delta {
        return;
    }
    if let Some(file) = files.iter().map(|file| &file.entry).find(|file| file.timestamp > copy_start) {
        warn!(
            "file '{}' has timestamp ({}) in the future (relative to copy start {copy_start}), enabling delta checksum",
            pg_path(&file.name),
            file.timestamp
        );
        manifest.data.options.delta = Some(true);
    }
}
