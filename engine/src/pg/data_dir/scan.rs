//! Lists the parts of a data directory that belong into a backup.

mod link;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use repo_format::manifest::{OwnerId, OwnerTable, PG_DATA, PG_TBLSPC};
use repo_format::pg::PgVersion;

use super::files::{Attributes, DirEntry, OwnerNames, PgFiles};
use super::links::LinkCheck;
use super::names::{self, DatabasePaths};
use crate::storage::EntryKind;
use crate::{Error, ErrorCode, Result, info, warn};

/// A tablespace as the server names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTablespace {
    /// Its oid.
    pub id: u32,
    /// Its name.
    pub name: String,
}

/// The settings of a scan.
#[derive(Clone, Debug)]
pub struct ScanOptions<'a> {
    /// Version of the cluster.
    pub version: PgVersion,
    /// `PG_<version>_<catalog>`, the directory of this cluster in a tablespace.
    pub tablespace_id: &'a str,
    /// Name of the WAL directory, `pg_wal` or `pg_xlog`.
    pub wal_path: &'a str,
    /// Whether the server is running and WAL comes from the archive, so that files in the WAL directory are omitted.
    pub online: bool,
    /// The user's exclusions, relative to the data directory. With a trailing slash only the content is omitted.
    pub exclude: &'a [String],
    /// The server's tablespaces; `None` offline.
    pub tablespaces: Option<&'a [ServerTablespace]>,
}

/// A file to back up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedFile {
    /// Manifest name.
    pub name: Box<str>,
    /// Size in bytes.
    pub size: u64,
    /// Modification time in seconds since the epoch.
    pub modified: i64,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub user: OwnerId,
    /// Group.
    pub group: OwnerId,
    /// Whether the file may have pages with checksums.
    pub pages: bool,
}

/// A directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedPath {
    /// Manifest name.
    pub name: String,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub user: OwnerId,
    /// Group.
    pub group: OwnerId,
}

/// A symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedLink {
    /// Manifest name.
    pub name: String,
    /// The destination as stored in the link.
    pub destination: String,
    /// Owner.
    pub user: OwnerId,
    /// Group.
    pub group: OwnerId,
}

/// The data directory, or where a link leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedTarget {
    /// Manifest name.
    pub name: String,
    /// The destination as stored in the link, without the file name for links to files.
    pub path: String,
    /// The file name, for links to files.
    pub file: Option<String>,
    /// Set for tablespaces.
    pub tablespace: Option<ServerTablespace>,
    /// False only for the data directory.
    pub is_link: bool,
}

/// What belongs into the backup. All lists are sorted by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scan {
    /// The names of owners.
    pub owners: OwnerTable,
    /// The data directory and the destinations of links.
    pub targets: Vec<ScannedTarget>,
    /// Directories.
    pub paths: Vec<ScannedPath>,
    /// Symbolic links.
    pub links: Vec<ScannedLink>,
    /// Files.
    pub files: Vec<ScannedFile>,
}

/// Lists a data directory in `files`. `tablespaces_now` asks the server for its tablespaces again if the scan finds one that the
/// server did not name, because tablespaces come and go while the directory is listed.
///
/// # Errors
/// [`ErrorCode::LinkExpected`], [`ErrorCode::LinkDestination`] for links that a restore could not create,
/// [`ErrorCode::Assert`] for a tablespace that the server does not name (pgBackRest's number), [`ErrorCode::Format`]
/// for names that a manifest can't contain and for too many owners, [`ErrorCode::FileOpen`], [`ErrorCode::PathOpen`] and
/// [`ErrorCode::PathMissing`] if something can't be read.
pub fn scan(
    files: &mut dyn PgFiles,
    pg_path: &Path,
    options: &ScanOptions<'_>,
    tablespaces_now: &mut dyn FnMut() -> Result<Vec<ServerTablespace>>,
) -> Result<Scan> {
    let Some(pg_path) = pg_path.to_str() else {
        return Err(Error::new(ErrorCode::Format, format!("path '{}' is not valid UTF-8", pg_path.display())));
    };
    let exclude = options.exclude.iter().map(|exclude| format!("{PG_DATA}/{exclude}"));
    let (exclude_content, exclude_single): (BTreeSet<_>, _) = exclude.partition(|name| name.ends_with('/'));
    let Some(root) = files.info_followed(pg_path)? else { return Err(missing_info(pg_path)) };
    let mut scanner = Scanner {
        files,
        options,
        wal_name: format!("{PG_DATA}/{}", options.wal_path),
        database_paths: DatabasePaths::new(options.tablespace_id),
        exclude_single,
        exclude_content,
        pg_path,
        links: LinkCheck::new(pg_path),
        scan: Scan::default(),
        owner_last: None,
        tablespaces: options.tablespaces.map(link::by_id),
        tablespaces_now,
        tablespace_base: None,
    };
    scanner.add_path(PG_DATA.to_owned(), &root)?;
    scanner.scan.targets.push(ScannedTarget {
        name: PG_DATA.to_owned(),
        path: pg_path.to_owned(),
        file: None,
        tablespace: None,
        is_link: false,
    });
    let Some(entries) = scanner.list(pg_path)? else {
        return Err(Error::new(
            ErrorCode::PathMissing,
            format!("unable to list file info for missing path '{pg_path}'"),
        ));
    };
    for entry in entries {
        scanner.entry(&Dir { name: PG_DATA, path: pg_path, is_database: false }, &entry)?;
    }

    let mut scan = scanner.scan;
    scan.targets.sort_by(|a, b| a.name.cmp(&b.name));
    scan.paths.sort_by(|a, b| a.name.cmp(&b.name));
    scan.links.sort_by(|a, b| a.name.cmp(&b.name));
    scan.files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    remove_unlogged(&mut scan.files, &scanner.database_paths);
    Ok(scan)
}

/// A directory that is listed.
struct Dir<'a> {
    /// The manifest name.
    name: &'a str,
    path: &'a str,
    /// Whether its files belong to a database.
    is_database: bool,
}

impl Dir<'_> {
    /// Whether it contains only the links to tablespaces.
    fn has_tablespaces(&self) -> bool {
        self.name.strip_prefix(PG_DATA) == Some("/pg_tblspc")
    }
}

struct Scanner<'a> {
    files: &'a mut dyn PgFiles,
    options: &'a ScanOptions<'a>,
    wal_name: String,
    database_paths: DatabasePaths,
    /// Manifest names of what is omitted.
    exclude_single: BTreeSet<String>,
    /// Manifest names, with a slash, of directories whose content is omitted.
    exclude_content: BTreeSet<String>,
    pg_path: &'a str,
    links: LinkCheck,
    scan: Scan,
    /// The owner of the entry before, and its ids in the table.
    owner_last: Option<(Arc<OwnerNames>, (OwnerId, OwnerId))>,
    /// The names of the server's tablespaces by oid, as last returned; `None` offline.
    tablespaces: Option<HashMap<u32, String>>,
    tablespaces_now: &'a mut dyn FnMut() -> Result<Vec<ServerTablespace>>,
    /// The entry of `pg_tblspc`, from the first tablespace on.
    tablespace_base: Option<ScannedPath>,
}

impl Scanner<'_> {
    /// Returns the entries of a directory by name; `None` if it is missing.
    fn list(&mut self, path: &str) -> Result<Option<Vec<DirEntry>>> {
        let entries = self.files.list(path)?;
        entries.iter().flatten().try_for_each(|entry| check_line(&entry.name, path))?;
        Ok(entries)
    }

    /// Returns the ids of an owner's names.
    fn owner(&mut self, owner: &Arc<OwnerNames>) -> Result<(OwnerId, OwnerId)> {
        match &self.owner_last {
            Some((last, ids)) if Arc::ptr_eq(last, owner) || last == owner => Ok(*ids),
            _ => {
                let table = &mut self.scan.owners;
                let ids = (table.intern(owner.user.as_deref())?, table.intern(owner.group.as_deref())?);
                self.owner_last = Some((Arc::clone(owner), ids));
                Ok(ids)
            }
        }
    }

    fn add_path(&mut self, name: String, attributes: &Attributes) -> Result<()> {
        let (user, group) = self.owner(&attributes.owner)?;
        self.scan.paths.push(ScannedPath { name, mode: attributes.mode, user, group });
        Ok(())
    }

    /// Adds an entry of a directory.
    fn entry(&mut self, dir: &Dir<'_>, entry: &DirEntry) -> Result<()> {
        // PostgreSQL removes these files and recreates the directories when it starts
        if entry.name.starts_with("pgsql_tmp") {
            return Ok(());
        }
        let (name, path) = (format!("{}/{}", dir.name, entry.name), dir.path);
        if self.exclude_single.contains(&name) {
            info!("exclude '{path}/{}' from backup using '{}' exclusion", entry.name, &name[PG_DATA.len() + 1..]);
            return Ok(());
        }
        let kind = entry.attributes.kind;
        if dir.has_tablespaces() && matches!(kind, EntryKind::Path | EntryKind::File) {
            return Err(Error::new(
                ErrorCode::LinkExpected,
                format!("'{name}' is not a symlink - {PG_TBLSPC} should contain only symlinks"),
            ));
        }
        match kind {
            EntryKind::Path => self.path(dir, name, entry),
            EntryKind::File => self.file(dir, name, entry),
            EntryKind::Link => self.link(dir, name, entry),
            EntryKind::Special => {
                warn!("exclude special file '{path}/{}' from backup", entry.name);
                Ok(())
            }
        }
    }

    fn path(&mut self, dir: &Dir<'_>, name: String, entry: &DirEntry) -> Result<()> {
        self.add_path(name.clone(), &entry.attributes)?;
        let path = format!("{}/{}", dir.path, entry.name);
        if self.exclude_content.contains(&format!("{name}/")) {
            info!("exclude contents of '{path}' from backup using '{}/' exclusion", &name[PG_DATA.len() + 1..]);
            return Ok(());
        }
        // Contents that PostgreSQL does not use after recovery. Extensions use pg_stat_tmp in all versions.
        let unused = matches!(
            entry.name.as_str(),
            "pg_dynshmem" | "pg_notify" | "pg_replslot" | "pg_serial" | "pg_snapshots" | "pg_stat_tmp" | "pg_subtrans"
        );
        if unused && dir.name == PG_DATA {
            return Ok(());
        }
        if self.options.online && dir.name == self.wal_name && entry.name == "archive_status" {
            return Ok(());
        }
        let dir = Dir { is_database: self.database_paths.is_database(&name), name: &name, path: &path };
        // A directory that PostgreSQL removed in the meantime counts as empty
        for entry in self.list(&path)?.unwrap_or_default() {
            self.entry(&dir, &entry)?;
        }
        Ok(())
    }

    fn file(&mut self, dir: &Dir<'_>, name: String, entry: &DirEntry) -> Result<()> {
        let left_out = (dir.is_database
            && (names::is_relation_cache(&entry.name) || names::is_temporary_relation(&entry.name)))
            || (dir.name == PG_DATA && self.is_root_file_left_out(&entry.name))
            // The control file of an unfinished restore: the next restore would write two files to its name
            || name == names::RESTORED_CONTROL
            // WAL comes from the archive, or is copied from there at the end
            || (self.options.online && dir.name == self.wal_name);
        if left_out {
            return Ok(());
        }
        let attributes = &entry.attributes;
        let (user, group) = self.owner(&attributes.owner)?;
        self.scan.files.push(ScannedFile {
            size: attributes.size,
            modified: attributes.modified,
            mode: attributes.mode,
            user,
            group,
            pages: dir.is_database && names::has_pages(&name),
            name: name.into_boxed_str(),
        });
        Ok(())
    }

    /// Returns whether a file in the data directory itself would disturb or mislead a restored server.
    fn is_root_file_left_out(&self, file: &str) -> bool {
        match file {
            "recovery.signal" | "standby.signal" => self.options.version >= PgVersion::V12,
            "recovery.conf" | "recovery.done" => self.options.version < PgVersion::V12,
            "backup_manifest" | "backup_manifest.tmp" => self.options.version >= PgVersion::V13,
            // Files of an unfinished restore
            "backup.manifest" | "backup.manifest.pgbackrest.tmp" => true,
            "postgresql.auto.conf.tmp" | "backup_label" | "backup_label.old" | "postmaster.opts" | "postmaster.pid" => {
                true
            }
            _ => false,
        }
    }
}

/// Checks that a name can be one line in the manifest. pgBackRest writes any name and can't read the result back.
fn check_line(name: &str, place: &str) -> Result<()> {
    if name.contains(['\n', '\r']) {
        return Err(Error::new(
            ErrorCode::Format,
            format!("name '{}' in '{place}' contains a line break", name.escape_default()),
        )
        .hint("rename the file, or exclude its directory."));
    }
    Ok(())
}

fn missing_info(path: &str) -> Error {
    Error::new(ErrorCode::FileOpen, format!("unable to get info for missing path/file '{path}'"))
}

/// Removes the files of unlogged relations: those with an `_init` fork, which stays and from which PostgreSQL recreates
/// them. `files` is sorted by name.
fn remove_unlogged(files: &mut Vec<ScannedFile>, paths: &DatabasePaths) {
    let unlogged: BTreeSet<String> = files
        .iter()
        .filter_map(|file| file.name.strip_suffix("_init"))
        .filter(|relation| paths.relation(relation).is_some())
        .map(str::to_owned)
        .collect();
    if unlogged.is_empty() {
        return;
    }
    files.retain(|file| match paths.relation(&file.name) {
        Some((path, number)) => !unlogged.contains(&file.name[..path.len() + 1 + number.len()]),
        None => true,
    });
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::pg::data_dir::files::LocalFiles;

    const ID: &str = "PG_15_202209061";

    /// A scan of a cluster whose tablespaces do not change.
    fn scan(pg_path: &Path, options: &ScanOptions<'_>) -> Result<Scan> {
        super::scan(&mut LocalFiles::default(), pg_path, options, &mut || {
            Ok(options.tablespaces.unwrap_or_default().to_vec())
        })
    }

    fn options<'a>(exclude: &'a [String], tablespaces: Option<&'a [ServerTablespace]>) -> ScanOptions<'a> {
        ScanOptions {
            version: PgVersion::V15,
            tablespace_id: ID,
            wal_path: "pg_wal",
            online: true,
            exclude,
            tablespaces,
        }
    }

    fn make(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
    }

    fn names(scan: &Scan) -> Vec<&str> {
        scan.files.iter().map(|file| &*file.name).collect()
    }

    #[test]
    fn scan_of_a_cluster_leaves_out_what_restores_without() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("pg");
        make(
            &root,
            &[
                "PG_VERSION",
                "backup_label",
                "postmaster.pid",
                "recovery.signal",
                "recovery.conf",
                "base/1/1",
                "base/1/1_fsm",
                "base/1/2",
                "base/1/2_init",
                "base/1/2.1",
                "base/1/t3_4",
                "base/1/pg_internal.init",
                "base/pgsql_tmp/x",
                "base/pgsql_tmp1",
                "global/pg_control",
                "global/1260",
                "pg_wal/000000010000000000000001",
                "pg_wal/archive_status/x.ready",
                "pg_wal/summaries/y",
                "pg_notify/0000",
                "sub/pg_notify/0000",
            ],
        );
        let scan = scan(&root, &options(&[], None)).unwrap();
        assert_eq!(
            names(&scan),
            [
                "pg_data/PG_VERSION",
                "pg_data/base/1/1",
                "pg_data/base/1/1_fsm",
                "pg_data/base/1/2_init",
                "pg_data/global/1260",
                "pg_data/global/pg_control",
                "pg_data/pg_wal/summaries/y",
                "pg_data/recovery.conf",
                "pg_data/sub/pg_notify/0000",
            ]
        );
        let pages: Vec<&str> = scan.files.iter().filter(|file| file.pages).map(|file| &*file.name).collect();
        assert_eq!(pages, ["pg_data/base/1/1", "pg_data/base/1/1_fsm", "pg_data/base/1/2_init", "pg_data/global/1260"]);
        let paths: Vec<&str> = scan.paths.iter().map(|path| path.name.as_str()).collect();
        assert!(paths.contains(&"pg_data/pg_wal/archive_status") && paths.contains(&"pg_data/pg_notify"));
        assert!(!paths.iter().any(|path| path.contains("pgsql_tmp")));
    }

    #[test]
    fn scan_with_exclusions_leaves_out_files_and_contents() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), &["a/b", "a/c", "d/e", "f"]);
        let exclude = ["a/b".to_owned(), "d/".to_owned(), "missing".to_owned()];
        let scan = scan(dir.path(), &options(&exclude, None)).unwrap();
        assert_eq!(names(&scan), ["pg_data/a/c", "pg_data/f"]);
        assert_eq!(scan.paths.len(), 3);
    }

    #[test]
    fn scan_of_a_tablespace_enters_only_the_directory_of_the_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("pg");
        make(&root, &["PG_VERSION"]);
        make(&dir.path().join("ts"), &[&format!("{ID}/5/16400"), "PG_14_202107181/5/1"]);
        fs::create_dir(root.join("pg_tblspc")).unwrap();
        symlink(dir.path().join("ts"), root.join("pg_tblspc/16385")).unwrap();

        let known = [ServerTablespace { id: 16385, name: "fast".into() }];
        let scan1 = scan(&root, &options(&[], Some(&known))).unwrap();
        assert_eq!(names(&scan1), ["pg_data/PG_VERSION", &format!("pg_tblspc/16385/{ID}/5/16400")]);
        assert!(scan1.files[1].pages);
        assert_eq!(scan1.targets[1].name, "pg_tblspc/16385");
        assert_eq!(scan1.targets[1].tablespace.as_ref().unwrap().name, "fast");
        assert_eq!(scan1.links[0].name, "pg_data/pg_tblspc/16385");
        let paths: Vec<&str> = scan1.paths.iter().map(|path| path.name.as_str()).collect();
        assert_eq!(
            paths,
            [
                "pg_data",
                "pg_data/pg_tblspc",
                "pg_tblspc",
                "pg_tblspc/16385",
                &format!("pg_tblspc/16385/{ID}"),
                &format!("pg_tblspc/16385/{ID}/5"),
            ]
        );

        assert_eq!(scan(&root, &options(&[], Some(&[]))).unwrap_err().code, ErrorCode::Assert);
        let offline = scan(&root, &options(&[], None)).unwrap();
        assert_eq!(offline.targets[1].tablespace.as_ref().unwrap().name, "ts16385");

        fs::write(root.join("pg_tblspc/16386"), b"x").unwrap();
        assert_eq!(scan(&root, &options(&[], None)).unwrap_err().code, ErrorCode::LinkExpected);
    }

    /// A cluster with one tablespace on disk.
    fn with_tablespace(dir: &Path) -> std::path::PathBuf {
        let root = dir.join("pg");
        make(&root, &["PG_VERSION"]);
        make(&dir.join("ts"), &[&format!("{ID}/5/16400")]);
        fs::create_dir(root.join("pg_tblspc")).unwrap();
        symlink(dir.join("ts"), root.join("pg_tblspc/16385")).unwrap();
        root
    }

    #[test]
    fn tablespace_made_after_the_server_was_asked_is_asked_for_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = with_tablespace(dir.path());
        // Visible on disk before its transaction ends
        let mut asked = 0;
        let mut now = || {
            asked += 1;
            Ok(if asked < 3 { Vec::new() } else { vec![ServerTablespace { id: 16385, name: "new".into() }] })
        };
        let found = super::scan(&mut LocalFiles::default(), &root, &options(&[], Some(&[])), &mut now).unwrap();
        assert_eq!(found.targets[1].tablespace.as_ref().unwrap().name, "new");
        assert_eq!(names(&found), ["pg_data/PG_VERSION", &format!("pg_tblspc/16385/{ID}/5/16400")]);
        assert_eq!(asked, 3);
    }

    #[test]
    fn tablespace_dropped_while_it_is_looked_at_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = with_tablespace(dir.path());
        let mut drop = || {
            fs::remove_dir_all(dir.path().join("ts")).unwrap();
            fs::remove_file(root.join("pg_tblspc/16385")).unwrap();
            Ok(Vec::new())
        };
        let found = super::scan(&mut LocalFiles::default(), &root, &options(&[], Some(&[])), &mut drop).unwrap();
        assert_eq!((found.targets.len(), found.links.len()), (1, 0));
        assert_eq!(names(&found), ["pg_data/PG_VERSION"]);
    }

    #[test]
    fn tablespace_whose_directory_goes_before_its_link_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = with_tablespace(dir.path());
        let known = [ServerTablespace { id: 16385, name: "old".into() }];
        fs::remove_dir_all(dir.path().join("ts").join(ID)).unwrap();
        let mut drop = || {
            fs::remove_file(root.join("pg_tblspc/16385")).unwrap();
            Ok(Vec::new())
        };
        let found = super::scan(&mut LocalFiles::default(), &root, &options(&[], Some(&known)), &mut drop).unwrap();
        assert_eq!((found.targets.len(), found.links.len()), (1, 0));
        // If it stays, it is not a tablespace that PostgreSQL could open
        let root = with_tablespace(&dir.path().join("2"));
        fs::remove_dir_all(dir.path().join("2/ts").join(ID)).unwrap();
        assert_eq!(scan(&root, &options(&[], Some(&known))).unwrap_err().code, ErrorCode::FileOpen);
    }

    #[test]
    fn scan_follows_links_to_files_and_directories() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("pg");
        make(&root, &["PG_VERSION"]);
        make(dir.path(), &["etc/a.conf", "wal/x/y"]);
        symlink("../etc/a.conf", root.join("a.conf")).unwrap();
        symlink(dir.path().join("wal"), root.join("wal2")).unwrap();
        let found = scan(&root, &options(&[], None)).unwrap();
        assert_eq!(names(&found), ["pg_data/PG_VERSION", "pg_data/a.conf", "pg_data/wal2/x/y"]);
        assert_eq!(found.targets[1].path, "../etc");
        assert_eq!(found.targets[1].file.as_deref(), Some("a.conf"));
        assert_eq!(found.targets[2].file, None);

        symlink("wal2", root.join("wal3")).unwrap();
        assert_eq!(scan(&root, &options(&[], None)).unwrap_err().code, ErrorCode::LinkDestination);
        fs::remove_file(root.join("wal3")).unwrap();
        symlink("nowhere", root.join("wal3")).unwrap();
        let error = scan(&root, &options(&[], None)).unwrap_err();
        assert!(error.message.ends_with("is in PGDATA"), "{error}");
        fs::remove_file(root.join("wal3")).unwrap();
        symlink("../nowhere", root.join("wal3")).unwrap();
        assert_eq!(scan(&root, &options(&[], None)).unwrap_err().code, ErrorCode::FileOpen);
    }

    #[test]
    fn scan_with_a_line_break_in_a_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), &["a\nb"]);
        assert_eq!(scan(dir.path(), &options(&[], None)).unwrap_err().code, ErrorCode::Format);
    }

    #[test]
    fn scan_leaves_out_what_an_unfinished_restore_left() {
        let dir = tempfile::tempdir().unwrap();
        make(
            dir.path(),
            &[
                "PG_VERSION",
                "backup.manifest",
                "backup.manifest.pgbackrest.tmp",
                "global/pg_control.pgbackrest.tmp",
                "global/backup.manifest",
            ],
        );
        let found = scan(dir.path(), &options(&[], None)).unwrap();
        let names: Vec<_> = found.files.iter().map(|file| &*file.name).collect();
        assert_eq!(names, ["pg_data/PG_VERSION", "pg_data/global/backup.manifest"]);
    }

    #[test]
    fn scan_of_a_missing_directory_fails() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(scan(&dir.path().join("missing"), &options(&[], None)).unwrap_err().code, ErrorCode::FileOpen);
    }
}
