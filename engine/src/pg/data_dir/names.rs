//! The meaning of names in a data directory.

use repo_format::manifest::{PG_DATA, PG_TBLSPC};

use super::PG_CONTROL;

/// The manifest name of `pg_control` during an unfinished restore.
pub(super) const RESTORED_CONTROL: &str = "pg_data/global/pg_control.pgbackrest.tmp";

/// Recognizes directories that contain relations, and the files in them.
#[derive(Clone, Debug)]
pub struct DatabasePaths {
    /// `PG_<version>_<catalog>`, the directory of this cluster inside a tablespace.
    tablespace_id: String,
}

impl DatabasePaths {
    /// Creates the names for a cluster whose tablespaces use this directory name.
    pub fn new(tablespace_id: impl Into<String>) -> Self {
        DatabasePaths { tablespace_id: tablespace_id.into() }
    }

    /// Returns whether the directory with this manifest name directly contains relations: `pg_data/global`,
    /// `pg_data/base/<oid>` or `pg_tblspc/<oid>/PG_<version>_<catalog>/<oid>`.
    pub fn is_database(&self, path: &str) -> bool {
        let mut parts = path.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some("pg_data"), Some("global"), None, ..) => true,
            (Some("pg_data"), Some("base"), Some(oid), None, _) => is_digits(oid),
            (Some("pg_tblspc"), Some(tablespace), Some(id), Some(oid), None) => {
                is_digits(tablespace) && id == self.tablespace_id && is_digits(oid)
            }
            _ => false,
        }
    }

    /// Splits the manifest name of a relation's file (any fork except `_init`) into its directory and its file number;
    /// `None` for other files.
    pub fn relation<'a>(&self, name: &'a str) -> Option<(&'a str, &'a str)> {
        let (path, file) = name.rsplit_once('/')?;
        let number = relation_number(file)?;
        self.is_database(path).then_some((path, number))
    }
}

/// Returns whether a file of a database directory belongs to a temporary relation:
/// `t<backend>_<number>[_fsm|_vm][.<segment>]`.
pub(super) fn is_temporary_relation(file: &str) -> bool {
    file.strip_prefix('t')
        .and_then(|rest| rest.split_once('_'))
        .is_some_and(|(backend, relation)| is_digits(backend) && relation_number(relation).is_some())
}

/// Returns whether a file of a database directory is the relation cache or a leftover of writing it. PostgreSQL
/// rebuilds both.
pub(super) fn is_relation_cache(file: &str) -> bool {
    file.strip_prefix("pg_internal.init").is_some_and(|rest| {
        rest.is_empty() || rest.split('.').skip(1).any(|part| part.starts_with(|c: char| c.is_ascii_digit()))
    })
}

/// Returns whether a file of a database directory has pages with checksums.
pub(super) fn has_pages(name: &str) -> bool {
    !name.ends_with("/pg_filenode.map") && !name.ends_with("/PG_VERSION") && name != PG_CONTROL
}

/// Returns the number of a relation's segment, in units of 1 GiB, from the numeric suffix of the file name; 0 without
/// one.
pub fn segment_number(name: &str) -> u32 {
    name.rsplit_once('.')
        .filter(|(_, suffix)| is_digits(suffix))
        .and_then(|(_, suffix)| suffix.parse().ok())
        .unwrap_or(0)
}

/// Returns whether a backup from a standby copies this file from the standby. All others come from the primary. WAL
/// replay updates exactly these files, so growth after the scan does not have to be copied.
pub fn from_standby(name: &str, xact_path: &str) -> bool {
    if name == PG_CONTROL {
        return false;
    }
    match name.split_once('/') {
        Some((PG_TBLSPC, _)) => true,
        Some((PG_DATA, rest)) => rest
            .split_once('/')
            .is_some_and(|(path, _)| matches!(path, "base" | "global" | "pg_multixact") || path == xact_path),
        _ => false,
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The leading number of `<number>[_fsm|_vm][.<segment>]`.
fn relation_number(file: &str) -> Option<&str> {
    let base = match file.split_once('.') {
        Some((base, segment)) if is_digits(segment) => base,
        Some(_) => return None,
        None => file,
    };
    let number = base.strip_suffix("_fsm").or_else(|| base.strip_suffix("_vm")).unwrap_or(base);
    is_digits(number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_database_accepts_only_paths_that_hold_relations() {
        let paths = DatabasePaths::new("PG_15_202209061");
        for path in ["pg_data/global", "pg_data/base/1", "pg_tblspc/16385/PG_15_202209061/5"] {
            assert!(paths.is_database(path), "{path}");
        }
        for path in [
            "pg_data",
            "pg_data/base",
            "pg_data/base/1/2",
            "pg_data/base/1a",
            "pg_data/globalx",
            "pg_data/global/x",
            "pg_tblspc/16385/PG_15_202209061",
            "pg_tblspc/16385/PG_14_202107181/5",
            "pg_data/pg_tblspc/16385/PG_15_202209061/5",
        ] {
            assert!(!paths.is_database(path), "{path}");
        }
    }

    #[test]
    fn relation_names_are_split_and_init_forks_are_not() {
        let paths = DatabasePaths::new("PG_15_1");
        assert_eq!(paths.relation("pg_data/base/1/1247_fsm"), Some(("pg_data/base/1", "1247")));
        assert_eq!(paths.relation("pg_data/base/1/1247_vm.1"), Some(("pg_data/base/1", "1247")));
        assert_eq!(paths.relation("pg_data/base/1/1247.12"), Some(("pg_data/base/1", "1247")));
        for name in ["pg_data/base/1/1247_init", "pg_data/base/1/PG_VERSION", "pg_data/base/1/1247.", "pg_data/x/1247"]
        {
            assert_eq!(paths.relation(name), None, "{name}");
        }
    }

    #[test]
    fn temporary_relations_are_recognized() {
        for file in ["t1_1", "t12_34_fsm", "t12_34_vm.5", "t12_34.5"] {
            assert!(is_temporary_relation(file), "{file}");
        }
        for file in ["t1", "t_1", "t1_", "tx_1", "t1_1_init", "t1_1.x", "1_1"] {
            assert!(!is_temporary_relation(file), "{file}");
        }
    }

    #[test]
    fn relation_cache_and_its_leftovers_are_recognized() {
        assert!(is_relation_cache("pg_internal.init"));
        assert!(is_relation_cache("pg_internal.init.123"));
        assert!(!is_relation_cache("pg_internal.init.x"));
        assert!(!is_relation_cache("pg_internal.initx"));
    }

    #[test]
    fn segment_number_is_the_numeric_suffix() {
        assert_eq!(segment_number("base/1/2"), 0);
        assert_eq!(segment_number("base/1/2.13"), 13);
        assert_eq!(segment_number("base/1/x.y"), 0);
    }

    #[test]
    fn from_standby_takes_relations_but_not_pg_control() {
        for name in ["pg_data/base/1/2", "pg_data/global/1", "pg_data/pg_xact/0000", "pg_tblspc/1/PG_15_1/2/3"] {
            assert!(from_standby(name, "pg_xact"), "{name}");
        }
        for name in ["pg_data/global/pg_control", "pg_data/PG_VERSION", "pg_data/pg_wal/x", "pg_data/pg_clog/0000"] {
            assert!(!from_standby(name, "pg_xact"), "{name}");
        }
    }
}
