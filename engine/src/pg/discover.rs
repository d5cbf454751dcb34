//! Finds the PostgreSQL clusters of this host.
//!
//! A running server is found by its first process, whose working directory is the data directory, and by the lock file
//! of its socket. Clusters that are not running are found at `PGDATA` and at the usual places of distributions.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::users::Users;

/// The directories that contain sockets of servers on the usual distributions.
const SOCKET_DIRS: [&str; 3] = ["var/run/postgresql", "run/postgresql", "tmp"];
/// Where distributions put data directories. A `*` stands for any name.
const USUAL_PLACES: [&str; 7] = [
    // Debian
    "var/lib/postgresql/*/*",
    // Container images
    "var/lib/postgresql/data",
    "var/lib/postgresql/*/docker",
    // RHEL
    "var/lib/pgsql/*/data",
    "var/lib/pgsql/data",
    // Arch, SUSE
    "var/lib/postgres/data",
    "usr/local/pgsql/data",
];
/// The largest file that is read here. A `postmaster.pid` has a few lines.
const FILE_SIZE_MAX: u64 = 4096;

/// A cluster on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCluster {
    /// The data directory, without links in its path.
    pub data: PathBuf,
    /// The major version as `PG_VERSION` has it, such as `17` or `9.6`.
    pub version: String,
    /// The owner of the data directory.
    pub owner: Owner,
    /// How to reach the server, if one is running.
    pub running: Option<RunningServer>,
}

/// The user and group that a cluster belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The number of the user.
    pub uid: u32,
    /// The number of the group.
    pub gid: u32,
    /// The name of the user, or its number if it has no name.
    pub name: String,
}

/// A server as its `postmaster.pid` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningServer {
    /// The number of its first process.
    pub pid: u32,
    /// The port, which is also part of the socket's name.
    pub port: u16,
    /// The first directory with a socket; `None` if it has none.
    pub socket_dir: Option<PathBuf>,
}

/// A size that was measured within a time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasuredSize {
    /// The bytes of the files that were seen.
    pub bytes: u64,
    /// Whether all files were seen.
    pub complete: bool,
}

/// Where to look.
#[derive(Clone, Debug)]
pub struct DiscoverRequest {
    /// The directory that is taken for `/`.
    pub root: PathBuf,
    /// The value of `PGDATA`.
    pub pgdata: Option<PathBuf>,
}

impl DiscoverRequest {
    /// Looks at this host, with the environment of this process.
    pub fn of_host() -> Self {
        DiscoverRequest { root: PathBuf::from("/"), pgdata: std::env::var_os("PGDATA").map(PathBuf::from) }
    }

    /// Returns the clusters that can be seen, running ones first, then by data directory. A directory that this user
    /// can't read is not found.
    pub fn find(&self) -> Vec<FoundCluster> {
        let mut data: BTreeSet<PathBuf> = BTreeSet::new();
        let places = self.of_processes().into_iter().chain(self.of_sockets()).chain(self.pgdata.clone());
        let places = places.chain(USUAL_PLACES.iter().flat_map(|place| matching(&self.root, place)));
        data.extend(places.filter_map(|place| place.canonicalize().ok()));
        let users = Users::new();
        let mut found: Vec<FoundCluster> = data.iter().filter_map(|data| self.cluster_at(data, &users)).collect();
        found.sort_by_key(|cluster| cluster.running.is_none());
        found
    }

    /// Returns the cluster in a directory; `None` if there is none that this user can read.
    pub fn at(&self, data: &Path) -> Option<FoundCluster> {
        self.cluster_at(&data.canonicalize().ok()?, &Users::new())
    }

    /// Returns whether a data directory is where distributions put them, which only root and PostgreSQL's user can do.
    pub fn is_usual(&self, data: &Path) -> bool {
        let mut places = USUAL_PLACES.iter().flat_map(|place| matching(&self.root, place));
        places.any(|place| place.canonicalize().is_ok_and(|place| place == data))
    }

    fn cluster_at(&self, data: &Path, users: &Users) -> Option<FoundCluster> {
        let version = read_small(&data.join("PG_VERSION"))?.trim().to_owned();
        let is_version = version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && !version.is_empty();
        is_version.then_some(())?;
        data.join(super::control_file::FILE_NAME).is_file().then_some(())?;
        let meta = fs::metadata(data).ok()?;
        let name = users.user_name(meta.uid()).unwrap_or_else(|| meta.uid().to_string());
        let running = server_of(data).filter(|server| self.is_postmaster(server.pid, data));
        Some(FoundCluster {
            data: data.to_owned(),
            version,
            owner: Owner { uid: meta.uid(), gid: meta.gid(), name },
            running,
        })
    }

    /// The working directories of processes that are a server's first process.
    fn of_processes(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.join("proc")).into_iter().flatten().flatten();
        let directory = |entry: fs::DirEntry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let data = fs::read_link(entry.path().join("cwd")).ok()?;
            (server_of(&data)?.pid == pid).then_some(data)
        };
        entries.filter_map(directory).collect()
    }

    /// The data directories in lock files of sockets.
    fn of_sockets(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for dir in SOCKET_DIRS {
            for entry in fs::read_dir(self.root.join(dir)).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let is_lock =
                    name.to_str().is_some_and(|name| name.starts_with(".s.PGSQL.") && name.ends_with(".lock"));
                if is_lock && let Some(text) = read_small(&entry.path()) {
                    found.extend(text.lines().nth(1).map(PathBuf::from));
                }
            }
        }
        found
    }

    /// Returns whether this process runs in the data directory. Another user's working directory can't be seen; then
    /// it suffices that the process exists.
    fn is_postmaster(&self, pid: u32, data: &Path) -> bool {
        let process = self.root.join(format!("proc/{pid}"));
        match fs::read_link(process.join("cwd")) {
            Ok(cwd) => cwd == data,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(_) => process.is_dir(),
        }
    }
}

/// Reads `postmaster.pid`.
fn server_of(data: &Path) -> Option<RunningServer> {
    let text = read_small(&data.join("postmaster.pid"))?;
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok()?;
    let port = lines.nth(2)?.trim().parse().ok()?;
    let socket_dir = lines.next().map(str::trim).filter(|dir| dir.starts_with('/')).map(PathBuf::from);
    Some(RunningServer { pid, port, socket_dir })
}

/// Returns the text of a small file.
fn read_small(path: &Path) -> Option<String> {
    use std::io::Read;
    // A pipe or a device would block or never end
    fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(FILE_SIZE_MAX).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Returns the directories that a pattern of [`USUAL_PLACES`] matches.
fn matching(root: &Path, pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    for name in pattern.split('/') {
        found = match name {
            "*" => {
                let entries = found.iter().flat_map(|dir| fs::read_dir(dir).into_iter().flatten().flatten());
                entries.map(|entry| entry.path()).collect()
            }
            _ => found.iter().map(|dir| dir.join(name)).filter(|path| path.is_dir()).collect(),
        };
    }
    found
}

/// Adds the sizes of all files of a data directory and its tablespaces, for at most this time.
pub fn measure(data: &Path, limit: Duration) -> MeasuredSize {
    let end = Instant::now() + limit;
    let mut bytes = 0u64;
    let mut dirs = vec![(data.to_owned(), data.join("pg_tblspc"))];
    while let Some((dir, tablespaces)) = dirs.pop() {
        let follows = dir == tablespaces;
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if Instant::now() >= end {
                return MeasuredSize { bytes, complete: false };
            }
            let meta = if follows { fs::metadata(entry.path()) } else { entry.metadata() };
            match meta {
                Ok(meta) if meta.is_dir() => dirs.push((entry.path(), tablespaces.clone())),
                Ok(meta) if meta.is_file() => bytes = bytes.saturating_add(meta.len()),
                // A link elsewhere, or a file that is gone
                Ok(_) | Err(_) => {}
            }
        }
    }
    MeasuredSize { bytes, complete: true }
}

#[cfg(test)]
mod tests;
