//! The manifest of a backup while it is made.

use repo_format::label::BackupLabel;
use repo_format::manifest::{Manifest, ManifestFile};

use crate::pipeline::backup::CopyMethod;

/// A file of the backup: its entry in the manifest, and what is left to do for it. There may be millions, so the struct
/// is small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BackupFile {
    /// Until the file is copied, the entry describes what the prior or interrupted backup has of it.
    pub(super) entry: ManifestFile,
    pub(super) state: FileState,
}

/// What is left to do for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileState {
    /// Nothing: its entry is complete.
    Complete,
    /// To copy it.
    Pending(CopyMethod),
    /// To leave it out, because it was dropped before it was copied.
    Removed,
}

impl BackupFile {
    /// Returns how the file is to be copied; `None` if nothing is left to do.
    pub(super) fn pending(&self) -> Option<CopyMethod> {
        match self.state {
            FileState::Pending(method) => Some(method),
            FileState::Complete | FileState::Removed => None,
        }
    }
}

/// A manifest whose files have a state.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// Everything except the files.
    pub(super) manifest: Manifest,
    /// The files, sorted by name.
    pub(super) files: Vec<BackupFile>,
}

impl Draft {
    /// Sets the label, also as the last of the references.
    pub(super) fn set_label(&mut self, label: BackupLabel) {
        self.manifest.references.pop();
        self.manifest.references.push(label.clone());
        self.manifest.data.label = label;
    }

    /// Returns the files that are to be copied.
    pub(super) fn pending(&self) -> impl Iterator<Item = &BackupFile> {
        self.files.iter().filter(|file| file.pending().is_some())
    }

    /// Returns the manifest of the files that exist.
    pub(super) fn into_manifest(self) -> Manifest {
        let files = self.files.into_iter().filter(|file| file.state != FileState::Removed).map(|file| file.entry);
        Manifest { files: files.collect(), ..self.manifest }
    }
}

/// Returns the position of the file with this manifest name.
pub(super) fn position(files: &[BackupFile], name: &str) -> Option<usize> {
    files.binary_search_by(|file| (*file.entry.name).cmp(name)).ok()
}

/// Creates a draft in which every file of the manifest is to be copied.
#[cfg(test)]
pub(super) fn all_pending(mut manifest: Manifest) -> Draft {
    let files = std::mem::take(&mut manifest.files).into_iter();
    let state = FileState::Pending(CopyMethod::Copy);
    Draft { files: files.map(|entry| BackupFile { entry, state }).collect(), manifest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_of_a_file_stays_small() {
        assert_eq!(size_of::<FileState>(), 1);
        assert!(size_of::<BackupFile>() <= 168, "{}", size_of::<BackupFile>());
    }
}
