//! Selective restore: which databases keep their data (`--db-include`, `--db-exclude`). The files of the others are
//! zeroed.

use std::collections::BTreeSet;

use crate::{Error, ErrorCode, Result, detail, info};

/// Oids below this belong to the system (PostgreSQL's `FirstNormalObjectId`).
const OBJECT_ID_NORMAL_MIN: u32 = 16384;

/// A database as the manifest names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DatabaseName<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its oid.
    pub id: u32,
}

/// The databases whose files are zeroed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ZeroFilter {
    /// Their oids as text.
    databases: BTreeSet<String>,
    /// The directory of this version and catalog in a tablespace, e.g. `PG_15_202209061`.
    tablespace_dir: String,
}

impl ZeroFilter {
    /// Returns whether this file (manifest name) is created sparse with only zeros. `PG_VERSION` stays, so that the
    /// database can still be dropped.
    pub fn is_zeroed(&self, manifest_name: &str) -> bool {
        let Some((id, rest)) = database_of(manifest_name, &self.tablespace_dir) else { return false };
        self.databases.contains(id) && rest != "PG_VERSION" && !rest.ends_with("/PG_VERSION")
    }
}

/// Returns the oid of a file's database, and the file's path inside the database's directory.
fn database_of<'a>(manifest_name: &'a str, tablespace_dir: &str) -> Option<(&'a str, &'a str)> {
    let below = match manifest_name.strip_prefix("pg_data/base/") {
        Some(below) => below,
        None => {
            let (tablespace, below) = manifest_name.strip_prefix("pg_tblspc/")?.split_once('/')?;
            if !is_digits(tablespace) {
                return None;
            }
            below.strip_prefix(tablespace_dir)?.strip_prefix('/')?
        }
    };
    let (id, rest) = below.split_once('/')?;
    is_digits(id).then_some((id, rest))
}

/// Returns whether a restore of other databases leaves this file as zeros.
pub(super) fn is_in_database(manifest_name: &str) -> bool {
    manifest_name.starts_with("pg_data/base/") || manifest_name.starts_with("pg_tblspc/")
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Decides which databases are zeroed; `None` if there is none.
///
/// With `include`, all except those and the system databases are zeroed; with only `exclude`, just those. Both accept a
/// database's name or oid (pgBackRest `restoreSelectiveExpression` in `src/command/restore/select.c.inc`).
///
/// # Errors
/// [`ErrorCode::DbMissing`] for a database that is not in the backup, [`ErrorCode::DbInvalid`] for one that can't be
/// included, [`ErrorCode::Format`] if the backup has no databases.
pub(crate) fn zero_filter<'a>(
    include: &[String],
    exclude: &[String],
    databases: &[DatabaseName<'_>],
    file_names: impl Iterator<Item = &'a str>,
    tablespace_dir: &str,
) -> Result<Option<ZeroFilter>> {
    if include.is_empty() && exclude.is_empty() {
        return Ok(None);
    }

    let present = PresentDatabases::find(databases, file_names, tablespace_dir)?;
    let excluded = exclude.iter().map(|wanted| present.id_of(wanted, "exclude")).collect::<Result<BTreeSet<_>>>()?;
    let zeroed = match include.is_empty() {
        true => excluded,
        false => present.all_but(&present.included(include, &excluded)?, &excluded),
    };
    if zeroed.is_empty() {
        info!("nothing to filter - all user databases have been selected");
        return Ok(None);
    }
    detail!("databases excluded (zeroed) from selective restore ({})", join(&zeroed));
    Ok(Some(ZeroFilter { databases: zeroed, tablespace_dir: tablespace_dir.to_owned() }))
}

fn join(ids: &BTreeSet<String>) -> String {
    ids.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// The databases of a backup.
struct PresentDatabases<'a> {
    named: &'a [DatabaseName<'a>],
    /// The oids of system databases.
    system: BTreeSet<String>,
    /// The oids of all.
    all: BTreeSet<String>,
}

impl<'a> PresentDatabases<'a> {
    /// Finds the databases that the manifest names or that have files.
    fn find<'n>(
        named: &'a [DatabaseName<'a>],
        file_names: impl Iterator<Item = &'n str>,
        tablespace_dir: &str,
    ) -> Result<Self> {
        // System databases count even if users have recreated them with a normal oid
        let is_system = |database: &&DatabaseName<'_>| {
            database.id < OBJECT_ID_NORMAL_MIN || matches!(database.name, "postgres" | "template0" | "template1")
        };
        let mut system: BTreeSet<String> =
            named.iter().filter(is_system).map(|database| database.id.to_string()).collect();
        let mut all = system.clone();
        for name in file_names {
            let Some((id, "PG_VERSION")) = database_of(name, tablespace_dir) else { continue };
            let number: u32 = id
                .parse()
                .map_err(|_| Error::new(ErrorCode::Format, format!("invalid database id in manifest file '{name}'")))?;
            if number < OBJECT_ID_NORMAL_MIN {
                system.insert(id.to_owned());
            }
            all.insert(id.to_owned());
        }
        if all.is_empty() {
            return Err(Error::new(ErrorCode::Format, "no databases found for selective restore")
                .hint("is this a valid cluster?"));
        }
        detail!("databases found for selective restore ({})", join(&all));
        Ok(PresentDatabases { named, system, all })
    }

    /// Returns the oid of a database that the user named by its name or oid.
    fn id_of(&self, wanted: &str, purpose: &str) -> Result<String> {
        if self.all.contains(wanted) {
            return Ok(wanted.to_owned());
        }
        self.named
            .iter()
            .find(|database| database.name == wanted)
            .map(|database| database.id.to_string())
            .filter(|id| self.all.contains(id))
            .ok_or_else(|| Error::new(ErrorCode::DbMissing, format!("database to {purpose} '{wanted}' does not exist")))
    }

    /// Returns the oids of the databases to include.
    fn included(&self, include: &[String], excluded: &BTreeSet<String>) -> Result<BTreeSet<String>> {
        let mut included = BTreeSet::new();
        for wanted in include {
            let id = self.id_of(wanted, "include")?;
            if self.system.contains(&id) {
                return Err(Error::new(
                    ErrorCode::DbInvalid,
                    "system databases (template0, postgres, etc.) are included by default",
                ));
            }
            if excluded.contains(&id) {
                return Err(Error::new(
                    ErrorCode::DbInvalid,
                    format!("database to include '{wanted}' is in the exclude list"),
                ));
            }
            included.insert(id);
        }
        Ok(included)
    }

    /// Returns the oids of all others than the included ones. System databases are among them only if they are excluded.
    fn all_but(&self, included: &BTreeSet<String>, excluded: &BTreeSet<String>) -> BTreeSet<String> {
        let is_zeroed =
            |id: &&String| !included.contains(*id) && (!self.system.contains(*id) || excluded.contains(*id));
        self.all.iter().filter(is_zeroed).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIR: &str = "PG_15_202209061";
    const FILES: [&str; 8] = [
        "pg_data/PG_VERSION",
        "pg_data/base/1/PG_VERSION",
        "pg_data/base/5/PG_VERSION",
        "pg_data/base/16400/PG_VERSION",
        "pg_data/base/16400/1259",
        "pg_tblspc/16390/PG_15_202209061/16401/PG_VERSION",
        "pg_tblspc/16390/PG_15_202209061/16402/PG_VERSION",
        "pg_tblspc/16390/PG_14_1/16999/PG_VERSION",
    ];
    const DATABASES: [DatabaseName<'static>; 4] = [
        DatabaseName { name: "db1", id: 16400 },
        DatabaseName { name: "db2", id: 16401 },
        DatabaseName { name: "postgres", id: 16402 },
        DatabaseName { name: "template1", id: 1 },
    ];

    fn zeroed(include: &[&str], exclude: &[&str]) -> Result<Vec<String>> {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let filter = zero_filter(&owned(include), &owned(exclude), &DATABASES, FILES.into_iter(), DIR)?;
        Ok(filter.map(|filter| filter.databases.into_iter().collect()).unwrap_or_default())
    }

    #[test]
    fn zero_filter_without_options_is_none() {
        assert_eq!(zeroed(&[], &[]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn zero_filter_include_zeroes_other_user_databases() {
        assert_eq!(zeroed(&["db1"], &[]).unwrap(), ["16401"]);
        assert_eq!(zeroed(&["16401"], &[]).unwrap(), ["16400"]);
        assert_eq!(zeroed(&["db1", "db2"], &[]).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn zero_filter_include_with_exclude_zeroes_excluded_system_database() {
        assert_eq!(zeroed(&["db1"], &["5"]).unwrap(), ["16401", "5"]);
    }

    #[test]
    fn zero_filter_exclude_zeroes_only_those() {
        assert_eq!(zeroed(&[], &["db2"]).unwrap(), ["16401"]);
    }

    #[test]
    fn zero_filter_wrong_names_are_refused() {
        assert_eq!(zeroed(&["nope"], &[]).unwrap_err().code, ErrorCode::DbMissing);
        assert_eq!(zeroed(&[], &["16999"]).unwrap_err().code, ErrorCode::DbMissing);
        // A system database by id, and one that a user made anew
        assert_eq!(zeroed(&["5"], &[]).unwrap_err().code, ErrorCode::DbInvalid);
        assert_eq!(zeroed(&["postgres"], &[]).unwrap_err().code, ErrorCode::DbInvalid);
        assert_eq!(zeroed(&["db1"], &["16400"]).unwrap_err().code, ErrorCode::DbInvalid);
    }

    #[test]
    fn zero_filter_empty_cluster_is_refused() {
        let error = zero_filter(&["x".to_owned()], &[], &[], ["pg_data/x"].into_iter(), DIR).unwrap_err();
        assert_eq!(error.code, ErrorCode::Format);
    }

    #[test]
    fn is_zeroed_spares_version_file_and_other_databases() {
        let filter = zero_filter(&[], &["db1".to_owned()], &DATABASES, FILES.into_iter(), DIR).unwrap().unwrap();
        assert!(filter.is_zeroed("pg_data/base/16400/1259"));
        assert!(filter.is_zeroed("pg_tblspc/16390/PG_15_202209061/16400/2600"));
        assert!(!filter.is_zeroed("pg_data/base/16400/PG_VERSION"));
        assert!(!filter.is_zeroed("pg_data/base/164001/1259"));
        assert!(!filter.is_zeroed("pg_data/base/16401/1259"));
        assert!(!filter.is_zeroed("pg_data/global/1259"));
        assert!(!filter.is_zeroed("pg_tblspc/16390/PG_14_1/16400/2600"));
    }
}
