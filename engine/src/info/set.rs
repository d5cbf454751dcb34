//! The facts that the manifest of a backup adds to `info --set`.

use repo_format::manifest::{Manifest, PG_DATA, TargetType};

/// A database that can be restored on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseRef {
    /// Its name.
    pub name: String,
    /// Its oid.
    pub oid: u32,
}

/// A symbolic link of the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkRef {
    /// The path relative to the data directory.
    pub name: String,
    /// The destination.
    pub destination: String,
}

/// A tablespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablespaceRef {
    /// Its name.
    pub name: String,
    /// Its oid.
    pub oid: u32,
    /// The path.
    pub destination: String,
}

/// The facts of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestFacts {
    /// Databases without the templates.
    pub databases: Vec<DatabaseRef>,
    /// Links other than tablespaces.
    pub links: Vec<LinkRef>,
    /// Tablespaces.
    pub tablespaces: Vec<TablespaceRef>,
    /// Files with page checksum errors, relative to the data directory.
    pub errors: Vec<String>,
}

impl ManifestFacts {
    /// Extracts the facts from a manifest.
    pub fn new(manifest: &Manifest) -> Self {
        let mut facts = ManifestFacts::default();
        for database in &manifest.databases {
            if !matches!(database.name.as_str(), "template0" | "template1") {
                facts.databases.push(DatabaseRef { name: database.name.clone(), oid: database.id });
            }
        }
        for target in manifest.targets.iter().filter(|target| target.target_type == TargetType::Link) {
            let destination = target.path.clone();
            match (&target.tablespace, &target.file) {
                (Some(tablespace), _) => {
                    let (name, oid) = (tablespace.name.clone(), tablespace.id);
                    facts.tablespaces.push(TablespaceRef { name, oid, destination });
                }
                (None, Some(file)) => {
                    facts.links.push(LinkRef { name: file.clone(), destination: format!("{destination}/{file}") });
                }
                (None, None) => facts.links.push(LinkRef { name: in_data(&target.name).to_owned(), destination }),
            }
        }
        for file in &manifest.files {
            if file.page_check.as_ref().is_some_and(|check| !check.valid) {
                facts.errors.push(in_data(&file.name).to_owned());
            }
        }
        facts
    }
}

/// Returns a manifest name relative to the data directory. Other names stay unchanged.
fn in_data(name: &str) -> &str {
    name.strip_prefix(PG_DATA).and_then(|name| name.strip_prefix('/')).unwrap_or(name)
}
