//! Where the data directory, tablespaces and links go: `pg-path`, `tablespace-map`, `tablespace-map-all`, `link-map`, `link-all`.

use std::collections::{BTreeMap, BTreeSet};

use repo_format::manifest::{Manifest, ManifestLink, PG_DATA, Target, TargetType, pg_path as pg_relative};

use super::names::{base_name, dir_name};
use crate::{Error, ErrorCode, Result, info, warn};

/// The mappings that the user asked for.
#[derive(Clone, Debug, Default)]
pub struct MapSettings {
    /// Tablespaces by name or oid, each with its new absolute path.
    pub tablespaces: BTreeMap<String, String>,
    /// A directory that gets every other tablespace, under its name.
    pub tablespaces_all: Option<String>,
    /// Links by their path relative to the data directory, each with its new destination.
    pub links: BTreeMap<String, String>,
    /// Keep all other links.
    pub links_all: bool,
}

/// Changes targets and links of the manifest as asked (pgBackRest `src/command/restore/remap.c.inc`).
///
/// # Errors
/// [`ErrorCode::TablespaceMap`] and [`ErrorCode::LinkMap`] for mappings that do not fit the backup, [`ErrorCode::Format`] for a
/// manifest that contradicts itself.
pub fn remap(manifest: &mut Manifest, pg_path: &str, settings: &MapSettings) -> Result<()> {
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
        let link = manifest
            .links
            .iter_mut()
            .find(|link| link.name == link_name)
            .ok_or_else(|| Error::new(ErrorCode::Format, format!("manifest has no link '{link_name}'")))?;
        link.destination = path.clone();
        target.path = path;
    }
    match settings.tablespaces.keys().find(|key| !used.contains(key.as_str())) {
        Some(unused) => {
            Err(Error::new(ErrorCode::TablespaceMap, format!("unable to remap invalid tablespace '{unused}'")))
        }
        None => Ok(()),
    }
}

fn map_links(manifest: &mut Manifest, links: &BTreeMap<String, String>) -> Result<()> {
    for (link, destination) in links {
        let name = format!("{PG_DATA}/{link}");
        let known = manifest.targets.iter().position(|target| target.name == name);
        let is_file = match known {
            Some(index) => {
                let target = &manifest.targets[index];
                if target.target_type != TargetType::Link {
                    return Err(Error::new(ErrorCode::Format, "target must be a link"));
                }
                target.file.is_some()
            }
            None => {
                let path_exists = manifest.path(&name).is_some();
                let file_exists = manifest.file(&name).is_some();
                // The name of a tablespace's target has no pg_data/ in front, so its link is looked up here
                let is_tablespace =
                    manifest.targets.iter().any(|target| target.tablespace.is_some() && target.name == *link);
                if is_tablespace {
                    return Err(Error::new(ErrorCode::LinkMap, format!("unable to remap tablespace '{link}'"))
                        .hint("use 'tablespace-map' option to remap tablespaces."));
                }
                match (path_exists, file_exists) {
                    (true, true) => return Err(Error::new(ErrorCode::Format, "link may not be both file and path")),
                    (false, false) => {
                        return Err(Error::new(ErrorCode::LinkMap, format!("unable to map link '{link}'"))
                            .hint("Does the link reference a valid backup path or file?"));
                    }
                    (_, is_file) => is_file,
                }
            }
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
                let known_link = manifest
                    .links
                    .iter_mut()
                    .find(|link| link.name == name)
                    .ok_or_else(|| Error::new(ErrorCode::Format, format!("manifest has no link '{name}'")))?;
                known_link.destination.clone_from(destination);
            }
            None => add_link(manifest, name, destination, path, file)?,
        }
    }
    Ok(())
}

/// Makes a link of what was a file or directory; its owner is the data directory's.
fn add_link(
    manifest: &mut Manifest,
    name: String,
    destination: &str,
    path: String,
    file: Option<String>,
) -> Result<()> {
    let base = manifest.path(PG_DATA).ok_or_else(|| Error::new(ErrorCode::Format, "manifest has no path 'pg_data'"))?;
    let link =
        ManifestLink { name: name.clone(), destination: destination.to_owned(), user: base.user, group: base.group };
    let at = manifest.links.partition_point(|known| known.name < name);
    manifest.links.insert(at, link);
    let at = manifest.targets.partition_point(|known| known.name < name);
    manifest.targets.insert(at, Target { name, target_type: TargetType::Link, path, file, tablespace: None });
    Ok(())
}

/// Turns links that were not mapped back into ordinary files and directories.
fn drop_links(manifest: &mut Manifest, mapped: &BTreeMap<String, String>) {
    let mut dropped: Vec<String> = Vec::new();
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
        dropped.push(target.name.clone());
        false
    });
    manifest.links.retain(|link| !dropped.contains(&link.name));
}
