//! The system that a page of the guide is run on.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::programs::{self, Places};
use super::servers::Servers;
use crate::env::{Space, oracles};

/// The PostgreSQL version of the guide.
const VERSION: u32 = 17;
/// The folders of the guide, which are below the temporary folder.
const FOLDERS: [&str; 9] = [
    "/etc/pgbackrest",
    "/etc/ssl/s3",
    "/etc/rbr",
    "/var/lib/pgbackrest",
    "/var/lib/rbr",
    "/var/log/pgbackrest",
    "/var/spool/pgbackrest",
    "/var/lib/postgresql",
    "/srv",
];
/// The folders that the second host has of its own.
const FOLDERS_OF_HOST: [&str; 3] = ["/etc/pgbackrest", "/etc/rbr", "/var/log/pgbackrest"];
/// The data directory of the guide's cluster.
const DATA: &str = "/var/lib/postgresql/17/main";

/// A folder with a cluster and the programs that the guide calls.
pub struct System {
    space: Space,
    servers: Servers,
}

impl System {
    /// Prepares what a page needs: `cluster` for a running server that archives nothing, `nothing-written` for a host
    /// without the directories of the package, `pgbackrest` for the real program, and the servers of [`Servers`].
    /// Returns `None` if an oracle is missing.
    pub fn start(needs: &[String]) -> Option<Self> {
        let oracles = oracles(&[VERSION])?;
        let space = Space::new();
        let of_host = FOLDERS_OF_HOST.map(|folder| format!("/backup{folder}"));
        for folder in FOLDERS.iter().copied().chain(["/run", "/log", DATA]).chain(of_host.iter().map(String::as_str)) {
            // Each level belongs to the test user
            let levels = folder.match_indices('/').skip(1).map(|(end, _)| &folder[1..end]);
            levels.chain([&folder[1..]]).for_each(|level| drop(space.folder(level)));
        }
        let servers = Servers::start(needs)?;
        servers.write_programs(&space);
        let system = Self { space, servers };
        let client = oracles.client("psql");
        programs::write(&Places {
            space: &system.space,
            server: &oracles.postgres[&VERSION],
            client: client.parent().expect("folder of psql"),
            data: &system.inside(DATA),
        });
        if needs.iter().any(|need| need == "pgbackrest") {
            std::os::unix::fs::symlink(&oracles.pgbackrest, system.space.path("bin/pgbackrest")).expect("link");
        }
        if needs.iter().any(|need| need == "cluster") {
            system.shell(
                &format!(
                    "initdb -D {DATA} -k -N -A trust -U postgres -E UTF8 --locale=C >/dev/null
                     cat >> {DATA}/postgresql.conf <<END\nlisten_addresses = ''\nunix_socket_directories = '{}'\n\
                     fsync = off\njit = off\nshared_buffers = 32MB\nEND\nsystemctl start postgresql",
                    system.space.text("run")
                ),
                "start of the cluster",
            );
        }
        Some(system)
    }

    /// Replaces the guide's paths and hosts by those of this system. `on` is the folder of the host.
    fn inside_on(&self, on: &str, text: &str) -> String {
        // The server's programs are in PATH
        let text = text.replace("/usr/lib/postgresql/17/bin/", "").replace("/usr/bin/rbr", &self.space.text("bin/rbr"));
        // A server of the guide is reached through its socket
        let text = text.replace("'host=db.example.com", &format!("'host={}", self.space.text("run")));
        let mut text = self.servers.inside(text).replace("/var/run/postgresql", &self.space.text("run"));
        for folder in FOLDERS {
            let host = if FOLDERS_OF_HOST.contains(&folder) { on } else { "" };
            text = text.replace(folder, &self.space.text(&format!("{host}{}", &folder[1..])));
        }
        text
    }

    fn inside(&self, text: &str) -> String {
        self.inside_on("", text)
    }

    /// The opposite of [`System::inside`] for paths. Options that only this system needs are left out.
    fn outside(&self, text: &str) -> String {
        let text = text
            .replace(&format!("--config={} ", self.inside("/etc/pgbackrest/pgbackrest.conf")), "")
            .replace(&format!("{}:", self.space.text("lock")), "/tmp/pgbackrest:")
            .replace(&self.space.text("bin/rbr"), "/usr/bin/rbr");
        let is_of_system = |line: &&str| {
            let line = line.trim();
            ["pg1-socket-path=", "log-path=", "lock-path="].iter().any(|option| line.starts_with(option))
        };
        let text: String = text.split_inclusive('\n').filter(|line| !is_of_system(line)).collect();
        text.replace(&self.space.text("run"), "/var/run/postgresql")
            .replace(&format!("{}/", self.space.text("").trim_end_matches('/')), "/")
    }

    /// Returns the host that the first line of commands names (`# on NAME`), and the folder with its files.
    fn host(commands: &str) -> (&str, String) {
        match commands.lines().next().and_then(|line| line.strip_prefix("# on ")) {
            Some("db") | None => ("db", String::new()),
            Some(name) => (name, format!("{name}/")),
        }
    }

    /// Runs commands in a shell and returns what they print. They must succeed.
    pub fn shell(&self, commands: &str, place: &str) -> String {
        let (host, folder) = Self::host(commands);
        let environment = self.space.text(&format!("environment/{host}"));
        let script = format!("set -euo pipefail\n. {environment}\n{}", self.inside_on(&folder, commands));
        let run = self.space.run("bash", &["-c", &format!("{{ {script}\n}} 2>&1")]);
        assert!(run.code == 0, "{place}:\n{commands}\n{}", run.describe());
        self.outside(&run.stdout)
    }

    /// Writes the file that the first line names. A line that names `postgresql.conf` adds to that file.
    pub fn write(&self, text: &str, place: &str) {
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        let name = first.strip_prefix("# ").unwrap_or_else(|| panic!("{place}: the first line names no file"));
        let (path, adds) = match name {
            "postgresql.conf" => (format!("{DATA}/postgresql.conf"), true),
            _ => (name.to_owned(), false),
        };
        // A file of another host is HOST:PATH
        let (folder, path) = match path.split_once(':') {
            Some((host, path)) => (format!("{host}/"), path.to_owned()),
            None => (String::new(), path),
        };
        let path = self.inside_on(&folder, &path);
        let before = if adds { fs::read_to_string(&path).expect("postgresql.conf") } else { String::new() };
        let name = path.strip_prefix(&self.space.text("")).expect("a path of the guide").trim_start_matches('/');
        let path = self.space.write(name, format!("{before}{}", self.inside_on(&folder, rest)));
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("chmod");
    }
}

impl Drop for System {
    fn drop(&mut self) {
        // Processes that the page has started: services, and clusters in other directories
        let stop = format!(
            "for pid in {run}/*.pid; do [ ! -e $pid ] || kill $(cat $pid) || true; done
             for file in $(find {root}/var {root}/srv -maxdepth 5 -name postmaster.pid); do
                 pg_ctl stop -D ${{file%/postmaster.pid}} -m immediate -s || true
             done",
            run = self.space.text("run"),
            root = self.space.text("").trim_end_matches('/'),
        );
        let script = format!(". {}\n{stop}", self.space.text("environment/db"));
        self.space.run("bash", &["-c", &script]);
    }
}
