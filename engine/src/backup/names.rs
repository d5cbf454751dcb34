//! Checks that a repository can store the files under their names.

use repo_format::layout::{self, FileForm, Stanza};

use super::draft::Draft;
use super::settings::BundleSettings;
use crate::Result;
use crate::storage::RepoStorage;

/// Refuses a file that the repository can't store under its name. Otherwise only the copy would fail, after hours.
///
/// # Errors
/// [`crate::ErrorCode::Format`] with the name of the file.
pub(super) fn check(
    storage: &dyn RepoStorage,
    stanza: &Stanza,
    bundle: Option<BundleSettings>,
    draft: &Draft,
) -> Result<()> {
    // A store with directories accepts the names of a data directory
    if storage.features().paths {
        return Ok(());
    }
    let in_bundle = |size| bundle.is_some_and(|bundle| size <= bundle.limit);
    for file in draft.pending().map(|file| &file.entry).filter(|file| !in_bundle(file.size)) {
        // The form with the longest name
        let path = layout::backup_file(stanza, &draft.manifest.data.label, &file.name, FileForm::BlockIncr)?;
        storage.check_name(&path).map_err(|error| {
            error.hint(format!("the file is '{}' of the cluster.", file.name.escape_debug())).hint(
                "remove or exclude it, or set repo-bundle=y, which stores small files without names of their own.",
            )
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use repo_format::label::BackupType;
    use repo_format::manifest::{Manifest, ManifestData, ManifestFile};
    use repo_format::pg::PgVersion;

    use super::*;
    use crate::ErrorCode;
    use crate::backup::draft::all_pending;
    use crate::storage::object::ObjectStorage;
    use crate::storage::posix::PosixStorage;

    fn checked(storage: &dyn RepoStorage, name: &str, size: u64, bundle: Option<BundleSettings>) -> Result<()> {
        let data = ManifestData::new("20260101-000000F".parse().unwrap(), BackupType::Full, 1_000, PgVersion::V15, 1);
        let mut manifest = Manifest::new(data);
        manifest.files = vec![ManifestFile::new(&format!("pg_data/{name}"), size, 0)];
        check(storage, &"demo".parse().unwrap(), bundle, &all_pending(manifest))
    }

    #[test]
    fn name_that_no_object_can_have_is_refused_before_anything_is_copied() {
        let objects = ObjectStorage::new(Arc::new(InMemory::new()), "/repo", 1 << 20, &[]).unwrap();
        checked(&objects, "bell\u{7}", 10, None).unwrap();
        let objects = objects.without(|char| char.is_control());
        checked(&objects, "base/1/1234", 10, None).unwrap();
        let error = checked(&objects, "bell\u{7}", 10, None).unwrap_err();
        assert_eq!(error.code, ErrorCode::Format);
        let text = error.to_string();
        assert!(text.contains("HINT: the file is 'pg_data/bell\\u{7}' of the cluster."), "{text}");
        assert!(!text.contains('\u{7}'), "{text}");
        assert_eq!(checked(&objects, &"x".repeat(1000), 10, None).unwrap_err().code, ErrorCode::Format);
        // Names in bundles are not object names
        let bundle = Some(BundleSettings { size: 100, limit: 10 });
        checked(&objects, "bell\u{7}", 10, bundle).unwrap();
        assert!(checked(&objects, "bell\u{7}", 11, bundle).is_err());
        let files = PosixStorage::new(std::path::PathBuf::from("/nowhere"));
        checked(&files, "bell\u{7}", 10, None).unwrap();
    }
}
