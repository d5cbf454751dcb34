//! Names in a manifest, and the checks that keep everything that a restore writes inside its targets.
//!
//! A manifest may be damaged or hostile. It may only determine the paths of its own tablespaces and links, because that
//! is what a backup records. Every other name must stay inside one of these paths.

use std::path::{Component, Path, PathBuf};

use repo_format::manifest::{Manifest, PG_DATA, PG_TBLSPC, Target, TargetType, check_name, pg_path as pg_relative};

use super::real_path;
use crate::pg::data_dir::PG_CONTROL;
use crate::pg::data_dir::links::LinkCheck;
use crate::{Error, ErrorCode, Result, warn};

/// The name of the control file until everything else is durable.
pub(super) const PG_CONTROL_TEMP: &str = "pg_data/global/pg_control.pgbackrest.tmp";

/// Manifest names of files that a restore itself writes.
const OWN_NAMES: [&str; 3] =
    ["pg_data/global/pg_control.pgbackrest.tmp", "pg_data/backup.manifest", "pg_data/backup.manifest.pgbackrest.tmp"];

/// The absolute path that a manifest name is reached by.
pub(super) fn pg_absolute(pg_path: &str, name: &str) -> String {
    match pg_relative(name) {
        "" => pg_path.to_owned(),
        relative => format!("{pg_path}/{relative}"),
    }
}

/// Returns the name under which a file is written.
pub(super) fn restored_name(name: &str) -> &str {
    if name == PG_CONTROL { PG_CONTROL_TEMP } else { name }
}

/// Returns the absolute path that a file is written to, for messages.
pub(super) fn restored_path(pg_path: &str, name: &str) -> String {
    pg_absolute(pg_path, restored_name(name))
}

/// Returns the part before the last slash, `/` for a file in the root; `None` without a slash.
pub(super) fn dir_name(path: &str) -> Option<&str> {
    match path.rsplit_once('/')? {
        ("", _) => Some("/"),
        (dir, _) => Some(dir),
    }
}

/// The part after the last slash.
pub(super) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Returns the absolute directory of a target. Like the kernel, it resolves a relative destination from the directory
/// that contains the link, following the data directory and links above it.
pub(super) fn target_path(manifest: &Manifest, pg_path: &str, target: &Target) -> String {
    if target.path.starts_with('/') {
        return target.path.clone();
    }
    let mut path = link_dir(manifest, pg_path, &target.name);
    let mut parts = Path::new(&target.path).components().peekable();
    while let Some(part) = parts.next_if(|part| matches!(part, Component::ParentDir | Component::CurDir)) {
        if part == Component::ParentDir {
            path.pop();
        }
    }
    path.extend(parts);
    let path = path.to_string_lossy();
    match real_path::resolve(&path) {
        // The components before `..` may be links
        Ok(real) if path.contains("/..") => real.to_string_lossy().into_owned(),
        _ => normalize(&path),
    }
}

/// Returns the directory that contains a link.
fn link_dir(manifest: &Manifest, pg_path: &str, link: &str) -> PathBuf {
    let link = if link.starts_with(PG_TBLSPC) { format!("{PG_DATA}/{link}") } else { link.to_owned() };
    let parent = dir_name(&link).unwrap_or(PG_DATA);
    let mut above = parent;
    let top = loop {
        let target =
            manifest.target(above).filter(|target| target.target_type == TargetType::Link && target.file.is_none());
        match (target, above.rsplit_once('/')) {
            // This name is shorter than the link's, so the recursion ends
            (Some(target), _) => break target_path(manifest, pg_path, target),
            (None, Some((next, _))) => above = next,
            (None, None) => break pg_path.to_owned(),
        }
    };
    let top = real_path::resolve(&top).unwrap_or_else(|_| PathBuf::from(normalize(&top)));
    match parent.get(above.len() + 1..) {
        Some(below) => top.join(below),
        None => top,
    }
}

/// Removes `.`, `..` and empty components from an absolute path, by its text only.
pub(super) fn normalize(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(ErrorCode::Format, what)
}

/// Checks that the manifest, after mapping, describes a tree whose every part is inside one of its targets: names are
/// clean, parents are directories of the manifest, and links are exactly those that belong to a target.
///
/// # Errors
/// [`ErrorCode::Format`].
pub(super) fn check_manifest(manifest: &Manifest, tablespace_dir: &str) -> Result<()> {
    let tree = Tree { manifest, tablespace_dir };
    if !tree.is_path(PG_DATA) {
        return Err(invalid("manifest has no path 'pg_data'"));
    }
    check_unique(manifest)?;
    tree.check_paths()?;
    tree.check_files()?;
    manifest.targets.iter().try_for_each(|target| check_target(manifest, target))?;
    tree.check_links()
}

/// The tree that a manifest describes.
struct Tree<'a> {
    manifest: &'a Manifest,
    /// The directory of this version and catalog in a tablespace.
    tablespace_dir: &'a str,
}

impl Tree<'_> {
    fn is_path(&self, name: &str) -> bool {
        self.manifest.path(name).is_some()
    }

    fn parent_is_path(&self, name: &str) -> bool {
        name.rsplit_once('/').is_none_or(|(parent, _)| self.is_path(parent) || parent == PG_TBLSPC)
    }

    /// Whether a name below a tablespace is in the only directory there that is ours.
    fn tablespace_part_is_right(&self, name: &str) -> bool {
        let Some(below) = name.strip_prefix("pg_tblspc/") else { return true };
        let (id, inside) = below.split_once('/').map_or((below, None), |(id, inside)| (id, Some(inside)));
        let is_ours = |inside: &str| {
            inside.strip_prefix(self.tablespace_dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.manifest.target(&format!("{PG_TBLSPC}/{id}")).is_some_and(|target| target.tablespace.is_some())
            && inside.is_none_or(is_ours)
    }

    fn check_paths(&self) -> Result<()> {
        for path in &self.manifest.paths {
            check_name(&path.name)?;
            if !self.parent_is_path(&path.name) {
                return Err(invalid(format!("manifest path '{}' has no parent path", path.name)));
            }
            if !self.tablespace_part_is_right(&path.name) {
                return Err(invalid("backup target not found"));
            }
            if self.manifest.file(&path.name).is_some() {
                return Err(invalid(format!("manifest has '{}' as file and as path", path.name)));
            }
        }
        Ok(())
    }

    fn check_files(&self) -> Result<()> {
        // Files are sorted, so most share the directory of the previous one
        let mut parent_checked = "";
        for file in &self.manifest.files {
            let name: &str = &file.name;
            check_name(name)?;
            let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
            if parent != parent_checked {
                if !self.is_path(parent) || parent == PG_TBLSPC {
                    return Err(invalid(format!("manifest file '{name}' has no parent path")));
                }
                parent_checked = parent;
            }
            if !self.tablespace_part_is_right(name) || matches!(name.split('/').count(), 0..=1) {
                return Err(invalid("backup target not found"));
            }
            if let Some(below) = name.strip_prefix("pg_tblspc/")
                && below.split('/').count() < 3
            {
                return Err(invalid("backup target not found"));
            }
        }
        Ok(())
    }

    fn check_links(&self) -> Result<()> {
        for link in &self.manifest.links {
            let name = link.name.as_str();
            check_name(name)?;
            let target_name = match name.strip_prefix("pg_data/") {
                Some(below) if below.starts_with("pg_tblspc/") => below,
                _ => name,
            };
            if self.manifest.target(target_name).is_none_or(|target| target.target_type != TargetType::Link) {
                return Err(invalid(format!("manifest link '{name}' has no target")));
            }
            if !name.starts_with("pg_data/") || !self.parent_is_path(name) {
                return Err(invalid(format!("manifest link '{name}' has no parent path")));
            }
        }
        Ok(())
    }
}

/// Checks that no two entries restore to the same path. Names lead through links: a tablespace's files are in the
/// manifest under `pg_tblspc/`, and the same path below `pg_data/` would refer to them too.
fn check_unique(manifest: &Manifest) -> Result<()> {
    let twice = |name: &str| Err(invalid(format!("manifest has '{name}' twice")));
    let paths = manifest.paths.iter().map(|path| path.name.as_str());
    let files = manifest.files.iter().map(|file| &*file.name);
    let links = manifest.links.iter().map(|link| link.name.as_str());
    let targets = manifest.targets.iter().map(|target| target.name.as_str());
    if let Some(name) = repeated(paths.clone())
        .or_else(|| repeated(files.clone()))
        .or_else(|| repeated(links))
        .or_else(|| repeated(targets))
    {
        return twice(name);
    }
    for name in paths.chain(files) {
        if name.starts_with("pg_data/pg_tblspc/") {
            return Err(invalid(format!("'{name}' in the manifest is where a tablespace is restored to")));
        }
        if OWN_NAMES.contains(&name) {
            return Err(invalid(format!("'{name}' in the manifest is where the restore keeps a file of its own")));
        }
    }
    Ok(())
}

/// A name that a sorted list has more than once.
fn repeated<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut before = names.next()?;
    names.find(|name| std::mem::replace(&mut before, name) == *name)
}

/// Removes files from a manifest that an unfinished restore left in the data directory, which was then backed up. This
/// restore writes other files under these names, including `pg_control`.
pub(super) fn remove_own_files(manifest: &mut Manifest) {
    manifest.files.retain(|file| {
        let is_own = OWN_NAMES.contains(&&*file.name);
        if is_own {
            warn!(
                "skip '{}': an unfinished restore left it in the cluster that was backed up",
                pg_relative(&file.name)
            );
        }
        !is_own
    });
}

/// Checks that no link leads into the data directory, and no two links to the same path.
///
/// # Errors
/// [`ErrorCode::LinkDestination`].
pub(super) fn check_links(manifest: &Manifest, pg_path: &str) -> Result<()> {
    let mut check = LinkCheck::new(&normalize(pg_path));
    for target in manifest.targets.iter().filter(|target| target.target_type == TargetType::Link) {
        let destination = normalize(&target_path(manifest, pg_path, target));
        check.add(pg_relative(&target.name), &destination, target.file.as_deref())?;
    }
    Ok(())
}

/// Checks that a target that is a link has that link, with the same destination, and is a directory or file of the
/// manifest.
fn check_target(manifest: &Manifest, target: &Target) -> Result<()> {
    check_name(&target.name)?;
    let wrong = |what: &str| Err(invalid(format!("manifest target '{}' {what}", target.name)));
    if target.path.is_empty() || target.path.contains('\0') {
        return wrong("has an invalid path");
    }
    if target.target_type == TargetType::Path {
        return if target.name == PG_DATA { Ok(()) } else { wrong("must be a link") };
    }
    let link_name = match &target.tablespace {
        Some(tablespace) => {
            if target.name != format!("{PG_TBLSPC}/{}", tablespace.id) || target.file.is_some() {
                return wrong("is not a tablespace");
            }
            format!("{PG_DATA}/{}", target.name)
        }
        None => {
            if target.name.starts_with(PG_TBLSPC) || target.name.starts_with("pg_data/pg_tblspc/") {
                return wrong("is not a tablespace");
            }
            target.name.clone()
        }
    };
    let Some(link) = manifest.link(&link_name) else {
        return wrong("has no link");
    };
    let destination_is_right = match &target.file {
        None => link.destination == target.path,
        Some(file) => {
            dir_name(&link.destination) == Some(target.path.as_str())
                && base_name(&link.destination) == file
                && !matches!(file.as_str(), "" | "." | "..")
        }
    };
    if !destination_is_right {
        return wrong("and its link have different destinations");
    }
    match &target.file {
        Some(_) if manifest.file(&target.name).is_none() => wrong("has no file"),
        None if manifest.path(&target.name).is_none() => wrong("has no path"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{TABLESPACE_DIR, file, link, manifest, path, target};
    use super::*;

    #[test]
    fn pg_absolute_of_data_directory_is_its_path() {
        assert_eq!(pg_absolute("/pg", "pg_data"), "/pg");
        assert_eq!(pg_absolute("/pg", "pg_data/global"), "/pg/global");
        assert_eq!(pg_absolute("/pg", "pg_tblspc/1/PG_15_1"), "/pg/pg_tblspc/1/PG_15_1");
    }

    #[test]
    fn dir_name_of_root_file_is_root() {
        assert_eq!(dir_name("/a"), Some("/"));
        assert_eq!(dir_name("/a/b"), Some("/a"));
        assert_eq!(dir_name("a"), None);
        assert_eq!(base_name("../x/y"), "y");
    }

    #[test]
    fn normalize_resolves_by_text() {
        assert_eq!(normalize("/a/b/../c//./d"), "/a/c/d");
        assert_eq!(normalize("/../.."), "/");
    }

    #[test]
    fn check_manifest_of_a_real_shape_passes() {
        check_manifest(&manifest(), TABLESPACE_DIR).unwrap();
        check_links(&manifest(), "/old/pg").unwrap();
    }

    /// A change that makes a manifest write elsewhere.
    type Change = fn(&mut Manifest);

    #[test]
    fn check_manifest_that_leaves_its_targets_is_refused() {
        let changes: [(&str, Change); 26] = [
            ("file outside", |manifest| manifest.files.push(file("/etc/passwd", b""))),
            ("file above", |manifest| manifest.files.push(file("pg_data/../x", b""))),
            ("file in no path", |manifest| manifest.files.push(file("pg_data/none/x", b""))),
            ("file in a file", |manifest| manifest.files.push(file("pg_data/PG_VERSION/x", b""))),
            ("file is a path", |manifest| manifest.files.push(file("pg_data/base", b""))),
            ("file is the data directory", |manifest| manifest.files.push(file("pg_data", b""))),
            ("file beside the version's directory", |manifest| {
                manifest.files.push(file("pg_tblspc/16384/x", b""));
            }),
            ("file in another version's directory", |manifest| {
                manifest.paths.push(path("pg_tblspc/16384/PG_15_2022090612"));
                manifest.files.push(file("pg_tblspc/16384/PG_15_2022090612/x", b""));
            }),
            ("file in an unknown tablespace", |manifest| {
                manifest.paths.push(path("pg_tblspc/1"));
                manifest.paths.push(path("pg_tblspc/1/PG_15_202209061"));
                manifest.files.push(file("pg_tblspc/1/PG_15_202209061/x", b""));
            }),
            ("path without parent", |manifest| manifest.paths.push(path("pg_data/a/b"))),
            ("path above", |manifest| manifest.paths.push(path("pg_data/.."))),
            ("link without target", |manifest| manifest.links.push(link("pg_data/base/1", "/etc"))),
            ("link in no path", |manifest| {
                manifest.links.push(link("pg_data/none/x", "/etc"));
                manifest.targets.push(target("pg_data/none/x", "/etc", None));
            }),
            ("link with another destination", |manifest| {
                manifest.links.iter_mut().for_each(|link| "/etc".clone_into(&mut link.destination));
            }),
            ("target without link", |manifest| manifest.targets.push(target("pg_data/base", "/etc", None))),
            ("target of nothing", |manifest| {
                manifest.links.push(link("pg_data/none", "/etc"));
                manifest.targets.push(target("pg_data/none", "/etc", None));
            }),
            ("tablespace with another number", |manifest| {
                manifest.targets[3].tablespace.as_mut().unwrap().id = 1;
            }),
            ("tablespaces as a link", |manifest| {
                manifest.links.push(link("pg_data/pg_tblspc", "/etc"));
                manifest.targets.push(target("pg_tblspc", "/etc", None));
            }),
            ("file twice", |manifest| manifest.files.push(file("pg_data/PG_VERSION", b"16\n"))),
            ("path twice", |manifest| manifest.paths.push(path("pg_data/base"))),
            ("link twice", |manifest| manifest.links.push(link("pg_data/pg_wal", "/old/wal"))),
            ("target twice", |manifest| manifest.targets.push(target("pg_data/pg_wal", "/old/wal", None))),
            ("file of a tablespace by the path that leads to it", |manifest| {
                manifest.paths.push(path("pg_data/pg_tblspc/16384"));
                manifest.paths.push(path("pg_data/pg_tblspc/16384/PG_15_202209061"));
                manifest.files.push(file("pg_data/pg_tblspc/16384/PG_15_202209061/x", b""));
            }),
            ("path of a tablespace", |manifest| manifest.paths.push(path("pg_data/pg_tblspc/16384"))),
            ("file where pg_control is restored to", |manifest| {
                manifest.files.push(file("pg_data/global/pg_control.pgbackrest.tmp", b"old"));
            }),
            ("no data directory", |manifest| manifest.paths.retain(|path| path.name != "pg_data")),
        ];
        for (what, change) in changes {
            let mut manifest = manifest();
            change(&mut manifest);
            manifest.sort();
            let error = check_manifest(&manifest, TABLESPACE_DIR).expect_err(what);
            assert_eq!(error.code, ErrorCode::Format, "{what}");
        }
    }
    #[test]
    fn file_that_an_unfinished_restore_left_is_taken_out_and_the_rest_passes() {
        let mut manifest = manifest();
        let count = manifest.files.len();
        manifest.files.extend(OWN_NAMES.map(|name| file(name, b"old")));
        manifest.sort();
        remove_own_files(&mut manifest);
        assert_eq!(manifest.files.len(), count);
        check_manifest(&manifest, TABLESPACE_DIR).unwrap();
    }

    #[test]
    fn ten_thousand_tablespaces_and_links_are_mapped_and_checked_at_once() {
        use std::collections::BTreeMap;

        use repo_format::manifest::Tablespace;

        use super::super::remap::{MapSettings, remap};

        let mut manifest = manifest();
        let mut links = BTreeMap::new();
        for id in 20_000u32..30_000 {
            let place = format!("/old/ts{id}");
            manifest.links.push(link(&format!("pg_data/pg_tblspc/{id}"), &place));
            let tablespace = Some(Tablespace { id, name: format!("ts{id}") });
            manifest.targets.push(Target { tablespace, ..target(&format!("pg_tblspc/{id}"), &place, None) });
            for part in ["", "/PG_15_202209061", "/PG_15_202209061/1"] {
                manifest.paths.push(path(&format!("pg_tblspc/{id}{part}")));
            }
            manifest.files.push(file(&format!("pg_tblspc/{id}/PG_15_202209061/1/1"), b"x"));
            manifest.paths.push(path(&format!("pg_data/d{id}")));
            manifest.files.push(file(&format!("pg_data/f{id}"), b"x"));
            links.insert(format!("d{id}"), format!("/links/{id}"));
            links.insert(format!("f{id}"), format!("/files/{id}"));
        }
        manifest.sort();
        let settings = MapSettings { links, tablespaces_all: Some("/all".to_owned()), ..MapSettings::default() };
        remap(&mut manifest, "/new/pg", &settings).unwrap();
        check_manifest(&manifest, TABLESPACE_DIR).unwrap();
        check_links(&manifest, "/new/pg").unwrap();
        assert_eq!(manifest.links.len(), 30_001);
        assert_eq!(super::super::queue::queues(&manifest).unwrap().queues.len(), 10_002);
    }
}
