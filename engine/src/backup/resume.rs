//! Resumes an interrupted backup.
//!
//! Source of the rules: pgBackRest `src/command/backup/resume.c.inc`. A file is kept only if the interrupted manifest
//! has a checksum for it, and size and time are unchanged. Its stored bytes are compared with the checksum before it
//! counts.

use repo_format::claim::{self, RUNNING_SUFFIX};
use repo_format::compress::CompressType;
use repo_format::label::{BackupLabel, BackupType};
use repo_format::layout::{self, RepoPath};
use repo_format::manifest::Manifest;

use super::draft::{self, BackupFile, Draft, FileState};
use super::settings::{BackupRequest, BundleSettings};
use super::unfinished::{Ended, Unfinished};
use crate::pipeline::backup::CopyMethod;
use crate::repo::{Repo, manifest_store};
use crate::storage::{EntryKind, exists};
use crate::work::retry::{is_of_peer, patiently};
use crate::{Result, detail, info, warn};

/// Looks for an interrupted backup. If it can be resumed, the new manifest gets its label and passphrase, and files
/// that still match are kept. Otherwise it is removed, unless pgBackRest may still be making it.
///
/// # Errors
/// The repository can't be read or cleaned.
pub(super) fn resume(unfinished: &mut Unfinished<'_>, settings: &BackupRequest, draft: &mut Draft) -> Result<bool> {
    let Some(interrupted) = find(unfinished, settings, &draft.manifest)? else { return Ok(false) };
    let repo = unfinished.repo;
    let label = interrupted.data.label.clone();
    warn!("resumable backup {label} of same type exists -- invalid files will be removed then the backup will resume");
    draft.set_label(label.clone());
    let manifest = &mut draft.manifest;
    manifest.cipher_pass = interrupted.cipher_pass.clone();
    let path = layout::backup_path(unfinished.stanza, &label);
    // With delta it kept files of an even earlier run, and the times of files that it may not have compared. The same
    // then applies to the manifest of this run.
    let delta = manifest.data.options.delta == Some(true) || interrupted.data.options.delta == Some(true);
    if manifest.data.options.delta != Some(delta) {
        warn!("backup {label} was interrupted while it used delta checksum, enabling delta checksum");
        manifest.data.options.delta = Some(delta);
    }
    let mut cleaner = Cleaner {
        repo,
        draft,
        interrupted: &interrupted,
        kind: settings.compression.kind,
        bundle: settings.bundle,
        delta,
        kept: Vec::new(),
    };
    cleaner.directory(&path, None)?;
    // The interrupted run may have ended because its data could not reach the disk
    repo.storage.forget_cached(&cleaner.kept);
    Ok(true)
}

/// Returns the manifest of an interrupted backup that can be resumed.
fn find(unfinished: &mut Unfinished<'_>, settings: &BackupRequest, manifest: &Manifest) -> Result<Option<Manifest>> {
    let (repo, manifest_cipher) = (unfinished.repo, unfinished.manifest_cipher);
    let storage = &*repo.storage;
    let entries = storage.list(&layout::backup_stanza(unfinished.stanza))?.unwrap_or_default();
    // Only the last one: a later backup may be complete, and then an earlier one does not matter
    let last = entries.iter().filter_map(|entry| entry.name.parse::<BackupLabel>().ok()).max();
    let Some(label) = last else { return Ok(None) };
    let manifest_path = layout::manifest(unfinished.stanza, &label);
    if exists(storage, &manifest_path)? {
        return Ok(None);
    }
    if unfinished.check_ended(&label)? == Ended::Perhaps {
        warn!(
            "unfinished backup '{label}' is neither resumed nor removed: pgBackRest may still store a file in it or complete it\n\
             HINT: expire removes it when it has not changed for a day, and keeps WAL until then."
        );
        return Ok(None);
    }
    let wanted = settings.resume && settings.kind == BackupType::Full;
    let reason = if settings.kind != BackupType::Full {
        "resume only valid for full backup".to_owned()
    } else if !exists(storage, &layout::manifest_copy(unfinished.stanza, &label))? {
        "partially deleted by prior resume or invalid".to_owned()
    } else if !settings.resume {
        "resume is disabled".to_owned()
    } else {
        match patiently(|| manifest_store::load_copy(repo, unfinished.stanza, &label, manifest_cipher)) {
            Ok(mut interrupted) => match misfit(manifest, &interrupted, &label, settings) {
                None => {
                    manifest.backrest_version.clone_into(&mut interrupted.backrest_version);
                    return Ok(Some(interrupted));
                }
                Some(reason) => reason,
            },
            // The copy may be intact
            Err(error) if is_of_peer(&error) => {
                return Err(error.hint(
                    "the interrupted backup can be resumed later. With --no-resume, a new one takes its place.",
                ));
            }
            Err(_) => format!("unable to read {}.copy", storage.display(&manifest_path)),
        }
    };
    if wanted {
        warn!("backup '{label}' cannot be resumed: {reason}");
    } else {
        info!("backup '{label}' cannot be resumed: {reason}");
    }
    storage.remove_all(&layout::backup_path(unfinished.stanza, &label))?;
    Ok(None)
}

/// Returns why the new backup can't resume the interrupted one.
fn misfit(
    manifest: &Manifest,
    interrupted: &Manifest,
    label: &BackupLabel,
    settings: &BackupRequest,
) -> Option<String> {
    let undefined = |label: &Option<BackupLabel>| label.as_ref().map_or("<undef>".to_owned(), ToString::to_string);
    let version = interrupted.backrest_version.strip_suffix(RUNNING_SUFFIX);
    if version.unwrap_or(&interrupted.backrest_version) != manifest.backrest_version {
        Some(format!(
            "new pgBackRest version '{}' does not match resumable pgBackRest version '{}'",
            manifest.backrest_version, interrupted.backrest_version
        ))
    } else if interrupted.format != manifest.format {
        Some(format!(
            "new repository format {} does not match resumable repository format {}",
            manifest.format, interrupted.format
        ))
    } else if interrupted.data.backup_type != settings.kind {
        Some(format!(
            "new backup type '{}' does not match resumable backup type '{}'",
            settings.kind, interrupted.data.backup_type
        ))
    } else if interrupted.data.prior != manifest.data.prior {
        Some(format!(
            "new prior backup label '{}' does not match resumable prior backup label '{}'",
            undefined(&manifest.data.prior),
            undefined(&interrupted.data.prior)
        ))
    } else if interrupted.data.options.compress_type != settings.compression.kind {
        Some(format!(
            "new compression '{}' does not match resumable compression '{}'",
            settings.compression.kind, interrupted.data.options.compress_type
        ))
    } else if interrupted.data.label != *label {
        Some(format!("the manifest is for backup '{}'", interrupted.data.label))
    } else if interrupted.cipher_pass.is_some() != manifest.cipher_pass.is_some() {
        Some("the encryption of the repository has changed".to_owned())
    } else {
        None
    }
}

struct Cleaner<'a> {
    repo: &'a Repo,
    draft: &'a mut Draft,
    interrupted: &'a Manifest,
    kind: CompressType,
    bundle: Option<BundleSettings>,
    delta: bool,
    /// Stored files that were kept.
    kept: Vec<RepoPath>,
}

impl Cleaner<'_> {
    /// Cleans a directory of the backup. `name` is its manifest name, `None` for the backup's own directory.
    fn directory(&mut self, path: &RepoPath, name: Option<&str>) -> Result<()> {
        let storage = self.repo.storage.clone();
        for entry in storage.list(path)?.unwrap_or_default() {
            // Allows to go on once more should this run fail early
            if name.is_none() && entry.name.strip_suffix(layout::COPY_SUFFIX) == Some(layout::BACKUP_MANIFEST) {
                continue;
            }
            let entry_name = name.map_or_else(|| entry.name.clone(), |name| format!("{name}/{}", entry.name));
            let entry_path = path.join(&entry.name)?;
            if name.is_none() && claim::claimant(&entry.name).is_some() {
                // If its process is only suspended, it sees that the directory is not its own any more
                storage.remove(&entry_path)?;
                continue;
            }
            match entry.kind {
                EntryKind::Path if self.draft.manifest.path(&entry_name).is_some() => {
                    self.directory(&entry_path, Some(&entry_name))?;
                }
                EntryKind::Path => {
                    detail!("remove path '{}' from resumed backup", storage.display(&entry_path));
                    storage.remove_all(&entry_path)?;
                }
                EntryKind::File => match self.file(&entry_name) {
                    Ok(()) => self.kept.push(entry_path),
                    Err(reason) => {
                        detail!("remove file '{}' from resumed backup ({reason})", storage.display(&entry_path));
                        storage.remove(&entry_path)?;
                    }
                },
                // Created again if needed
                EntryKind::Link => storage.remove(&entry_path)?,
                EntryKind::Special => {
                    warn!("remove special file '{}' from resumed backup", storage.display(&entry_path));
                    storage.remove(&entry_path)?;
                }
            }
        }
        Ok(())
    }

    /// Keeps a stored file, or returns the reason why not.
    fn file(&mut self, stored_name: &str) -> std::result::Result<(), &'static str> {
        let mut name = stored_name;
        let mut kind = CompressType::None;
        for candidate in CompressType::ALL {
            if candidate != CompressType::None
                && let Some(stripped) = stored_name.strip_suffix(candidate.extension())
            {
                (name, kind) = (stripped, candidate);
            }
        }
        let in_blocks = name.strip_suffix(layout::BLOCK_INCR_EXTENSION);
        name = in_blocks.unwrap_or(name);
        if kind != self.kind && in_blocks.is_none() {
            return Err("mismatched compression type");
        }
        let Some(index) = draft::position(&self.draft.files, name) else { return Err("missing in manifest") };
        let Some(known) = self.interrupted.file(name) else { return Err("missing in resumed manifest") };
        let BackupFile { entry: file, state } = &mut self.draft.files[index];
        if known.checksum.is_none() {
            return Err("no checksum in resumed manifest");
        }
        if file.size != known.size {
            return Err("mismatched size");
        }
        if !self.delta && file.timestamp != known.timestamp {
            return Err("mismatched timestamp");
        }
        if file.size == 0 {
            return Err("zero size");
        }
        // A name can be stored twice, as a whole and in blocks, if an earlier run used other settings. Only the form in
        // the manifest counts, and only if this run would write the same name.
        let known_blocks = known.block.is_some_and(|block| block.map_size > 0);
        if known.bundle.is_some() || known_blocks != in_blocks.is_some() || file.block.is_some() != known_blocks {
            return Err("mismatched storage");
        }
        // The bundle would be taken for the stored file
        if self.bundle.is_some_and(|bundle| file.size <= bundle.limit) {
            return Err("mismatched bundling");
        }
        if *state == FileState::Complete || known.reference.is_some() {
            return Err("not part of the backup");
        }
        file.size_repo = known.size_repo;
        file.checksum = known.checksum;
        file.checksum_repo = known.checksum_repo;
        file.block = known.block;
        file.page_check = known.page_check.clone();
        *state = FileState::Pending(CopyMethod::Resume { compare: self.delta });
        Ok(())
    }
}
