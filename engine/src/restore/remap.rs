//! Maps the data directory, tablespaces and links to their paths: `pg-path`, `tablespace-map`, `tablespace-map-all`,
//! `link-map`, `link-all`.

use std::collections::{BTreeMap, BTreeSet};

use repo_format::manifest::{Manifest, ManifestLink, PG_DATA, Target, TargetType, pg_path as pg_relative};

use super::names::{base_name, dir_name};
use crate::{Error, ErrorCode, Result, info, warn};

/// The mappings that the user asked for.
#[derive(Clone, Debug, Default)]
pub struct MapSettings {
    /// Tablespaces by name or oid, each with its new absolute path.
    pub tablespaces: BTreeMap<String, String>,
    /// A directory that gets all other tablespaces, by their names.
    pub tablespaces_all: Option<String>,
    /// Links by their path relative to the data directory, each with its new destination.
    pub links: BTreeMap<String, String>,
    /// Keep all other links.
    pub links_all: bool,
}

/// Changes targets and links of the manifest as requested (pgBackRest `src/command/restore/remap.c.inc`).
///
/// # Errors
/// [`ErrorCode::TablespaceMap`] and [`ErrorCode::LinkMap`] for mappings that do not match the backup,
/// [`ErrorCode::Format`] for a manifest that contradicts itself.
pub(crate) fn remap(manifest: &mut Manifest, pg_path: &str, settings: &MapSettings) -> Result<()> {
    let base = manifest
        .targets
        .iter_mut()
        .find(|target| target.name == PG_DATA)
        .ok_or_else(|| Error::new(ErrorCode::Format, "manifest has no target 'pg_data'"))?;
    if base.path != pg_path {
        info!("remap data directory to '{pg_path}'");
        pg_path.clone_into(&mut base.path);
    }
    map_tablespaces(manifest, settings)?;
    map_links(manifest, &settings.links)?;
    if !settings.links_all {
        drop_links(manifest, &settings.links);
    }
    Ok(())
}

fn map_tablespaces(manifest: &mut Manifest, settings: &MapSettings) -> Result<()> {
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for target in &mut manifest.targets {
        let Some(tablespace) = &target.tablespace else { continue };
        let by_name = settings.tablespaces.get_key_value(&tablespace.name);
        let by_id = settings.tablespaces.get_key_value(&tablespace.id.to_string());
        used.extend(by_name.iter().chain(&by_id).map(|(key, _)| key.as_str()));
        if let (Some((_, name_path)), Some((_, id_path))) = (by_name, by_id)
            && name_path != id_path
        {
            return Err(Error::new(
                ErrorCode::TablespaceMap,
                format!(
                    "tablespace remapped by name '{}' and id {} with different paths",
                    tablespace.name, tablespace.id
                ),
            ));
        }
        let path = match (by_name.or(by_id), &settings.tablespaces_all) {
            (Some((_, path)), _) => path.clone(),
            // The name comes from the repository and must not lead out of the directory
            (None, Some(_))
                if tablespace.name.contains(['/', '\0']) || matches!(tablespace.name.as_str(), "" | "." | "..") =>
            {
                return Err(Error::new(
                    ErrorCode::TablespaceMap,
                    format!("tablespace '{}' must be mapped by id", tablespace.name),
                ));
            }
            (None, Some(all)) => format!("{all}/{}", tablespace.name),
            (None, None) => continue,
        };
        info!("map tablespace '{}' to '{path}'", target.name);
        let link_name = format!("{PG_DATA}/{}", target.name);
        link_mut(&mut manifest.links, &link_name)?.destination.clone_from(&path);
        target.path = path;
    }
    match settings.tablespaces.keys().find(|key| !used.contains(key.as_str())) {
        Some(unused) => {
            Err(Error::new(ErrorCode::TablespaceMap, format!("unable to remap invalid tablespace '{unused}'")))
        }
        None => Ok(()),
    }
}

/// The link with this manifest name, in a sorted list.
fn link_mut<'a>(links: &'a mut [ManifestLink], name: &str) -> Result<&'a mut ManifestLink> {
    let missing = || Error::new(ErrorCode::Format, format!("manifest has no link '{name}'"));
    let index = links.binary_search_by(|link| link.name.as_str().cmp(name)).map_err(|_| missing())?;
    links.get_mut(index).ok_or_else(missing)
}

fn map_links(manifest: &mut Manifest, links: &BTreeMap<String, String>) -> Result<()> {
    // Lists are sorted, so new entries are added at the end
    let mut added: Vec<(ManifestLink, Target)> = Vec::new();
    for (link, destination) in links {
        let name = format!("{PG_DATA}/{link}");
        let known = manifest.targets.binary_search_by(|target| target.name.as_str().cmp(&name)).ok();
        let is_file = match known.map(|index| &manifest.targets[index]) {
            Some(target) if target.target_type != TargetType::Link => {
                return Err(Error::new(ErrorCode::Format, "target must be a link"));
            }
            Some(target) => target.file.is_some(),
            None => is_new_link_to_file(manifest, link, &name)?,
        };
        info!("{}link '{link}' to '{destination}'", if known.is_some() { "map " } else { "" });

        let (path, file) = if is_file {
            match dir_name(destination) {
                Some(path) => (path.to_owned(), Some(base_name(destination).to_owned())),
                None => {
                    return Err(Error::new(
                        ErrorCode::LinkMap,
                        format!("'{destination}' is not long enough to be the destination for file link '{link}'"),
                    ));
                }
            }
        } else {
            (destination.clone(), None)
        };
        match known {
            Some(index) => {
                let target = &mut manifest.targets[index];
                (target.path, target.file) = (path, file);
                link_mut(&mut manifest.links, &name)?.destination.clone_from(destination);
            }
            None => added.push(new_link(manifest, name, destination, path, file)?),
        }
    }
    for (link, target) in added {
        manifest.links.push(link);
        manifest.targets.push(target);
    }
    manifest.links.sort_by(|a, b| a.name.cmp(&b.name));
    manifest.targets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(())
}

/// Returns whether what becomes a link is a file now, and not a directory.
fn is_new_link_to_file(manifest: &Manifest, link: &str, name: &str) -> Result<bool> {
    // The name of a tablespace's target does not begin with pg_data/, so its link is looked up here
    if manifest.target(link).is_some_and(|target| target.tablespace.is_some()) {
        return Err(Error::new(ErrorCode::LinkMap, format!("unable to remap tablespace '{link}'"))
            .hint("use 'tablespace-map' option to remap tablespaces."));
    }
    match (manifest.path(name).is_some(), manifest.file(name).is_some()) {
        (true, true) => Err(Error::new(ErrorCode::Format, "link may not be both file and path")),
        (false, false) => Err(Error::new(ErrorCode::LinkMap, format!("unable to map link '{link}'"))
            .hint("Does the link reference a valid backup path or file?")),
        (_, is_file) => Ok(is_file),
    }
}

/// Creates a link for a former file or directory, with the owner of the data directory.
fn new_link(
    manifest: &Manifest,
    name: String,
    destination: &str,
    path: String,
    file: Option<String>,
) -> Result<(ManifestLink, Target)> {
    let base = manifest.path(PG_DATA).ok_or_else(|| Error::new(ErrorCode::Format, "manifest has no path 'pg_data'"))?;
    let link =
        ManifestLink { name: name.clone(), destination: destination.to_owned(), user: base.user, group: base.group };
    Ok((link, Target { name, target_type: TargetType::Link, path, file, tablespace: None }))
}

/// Converts links that were not mapped to ordinary files and directories.
fn drop_links(manifest: &mut Manifest, mapped: &BTreeMap<String, String>) {
    let mut dropped: BTreeSet<String> = BTreeSet::new();
    manifest.targets.retain(|target| {
        let link = pg_relative(&target.name);
        if target.target_type != TargetType::Link || target.tablespace.is_some() || mapped.contains_key(link) {
            return true;
        }
        if target.file.is_some() {
            warn!("file link '{link}' will be restored as a file at the same location");
        } else {
            warn!("contents of directory link '{link}' will be restored in a directory at the same location");
        }
        dropped.insert(target.name.clone());
        false
    });
    manifest.links.retain(|link| !dropped.contains(&link.name));
}

#[cfg(test)]
mod tests {
    use super::super::fixture::manifest;
    use super::super::names;
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    fn mapped(settings: &MapSettings) -> Result<Manifest> {
        let mut manifest = manifest();
        remap(&mut manifest, "/new/pg", settings)?;
        names::check_manifest(&manifest, super::super::fixture::TABLESPACE_DIR)?;
        names::check_links(&manifest, "/new/pg")?;
        Ok(manifest)
    }

    #[test]
    fn remap_without_options_drops_links_but_no_tablespaces() {
        let manifest = mapped(&MapSettings::default()).unwrap();
        let targets: Vec<_> =
            manifest.targets.iter().map(|target| (target.name.as_str(), target.path.as_str())).collect();
        assert_eq!(targets, [("pg_data", "/new/pg"), ("pg_tblspc/16384", "/old/ts1")]);
        let links: Vec<_> = manifest.links.iter().map(|link| link.name.as_str()).collect();
        assert_eq!(links, ["pg_data/pg_tblspc/16384"]);
    }

    #[test]
    fn remap_link_all_keeps_links() {
        let manifest = mapped(&MapSettings { links_all: true, ..MapSettings::default() }).unwrap();
        assert_eq!(manifest.targets.len(), 4);
        assert_eq!(manifest.links.len(), 3);
    }

    #[test]
    fn remap_tablespace_by_name_or_id_changes_target_and_link() {
        for key in ["ts1", "16384"] {
            let tablespaces = settings(&[(key, "/new/space")]);
            let manifest = mapped(&MapSettings { tablespaces, ..MapSettings::default() }).unwrap();
            assert_eq!(manifest.target("pg_tblspc/16384").unwrap().path, "/new/space");
            assert_eq!(manifest.link("pg_data/pg_tblspc/16384").unwrap().destination, "/new/space");
        }
    }

    #[test]
    fn remap_all_tablespaces_uses_their_names() {
        let all = MapSettings { tablespaces_all: Some("/all".to_owned()), ..MapSettings::default() };
        assert_eq!(mapped(&all).unwrap().target("pg_tblspc/16384").unwrap().path, "/all/ts1");
        let mut hostile = manifest();
        hostile.targets[3].tablespace.as_mut().unwrap().name = "../../etc".to_owned();
        assert_eq!(remap(&mut hostile, "/new/pg", &all).unwrap_err().code, ErrorCode::TablespaceMap);
    }

    #[test]
    fn remap_wrong_tablespaces_are_refused() {
        for pairs in [&[("nope", "/x")][..], &[("ts1", "/x"), ("16384", "/y")][..]] {
            let tablespaces = settings(pairs);
            let error = mapped(&MapSettings { tablespaces, ..MapSettings::default() }).unwrap_err();
            assert_eq!(error.code, ErrorCode::TablespaceMap);
        }
    }

    #[test]
    fn remap_link_changes_or_makes_it() {
        let links = settings(&[("pg_wal", "/new/wal"), ("base/1", "/new/db"), ("PG_VERSION", "../v/version")]);
        let manifest = mapped(&MapSettings { links, ..MapSettings::default() }).unwrap();
        assert_eq!(manifest.target("pg_data/pg_wal").unwrap().path, "/new/wal");
        assert_eq!(manifest.target("pg_data/base/1").unwrap().path, "/new/db");
        let file = manifest.target("pg_data/PG_VERSION").unwrap();
        assert_eq!((file.path.as_str(), file.file.as_deref()), ("../v", Some("version")));
        assert_eq!(manifest.link("pg_data/PG_VERSION").unwrap().destination, "../v/version");
        // Not mapped, so it is a file again
        assert!(manifest.target("pg_data/pg_hba.conf").is_none());
    }

    #[test]
    fn remap_wrong_links_are_refused() {
        for (link, destination) in [("nope", "/x"), ("pg_tblspc/16384", "/x"), ("PG_VERSION", "version")] {
            let links = settings(&[(link, destination)]);
            let error = mapped(&MapSettings { links, ..MapSettings::default() }).unwrap_err();
            assert_eq!(error.code, ErrorCode::LinkMap, "{link}");
        }
    }

    #[test]
    fn remap_link_into_data_directory_is_refused() {
        let links = settings(&[("base", "/new/pg/../pg/x")]);
        let error = mapped(&MapSettings { links, ..MapSettings::default() }).unwrap_err();
        assert_eq!(error.code, ErrorCode::LinkDestination);
    }
}
