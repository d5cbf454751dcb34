//! The system that a page of the guide is run on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::env::{Space, Weed, oracles, weed};

/// The PostgreSQL version of the guide.
const VERSION: u32 = 17;
/// The folders of the guide, which are below the temporary folder.
const FOLDERS: [&str; 6] =
    ["/etc/pgbackrest", "/etc/ssl/s3", "/var/lib/pgbackrest", "/var/log/pgbackrest", "/var/lib/postgresql", "/srv"];
/// The data directory of the guide's cluster.
const DATA: &str = "/var/lib/postgresql/17/main";

/// A folder with a cluster and the programs that the guide calls.
pub struct System {
    space: Space,
    s3: Option<Weed>,
}

impl System {
    /// Prepares what a page needs: `cluster` for a running server that archives nothing, `s3` for a bucket,
    /// `pgbackrest` for the real program. Returns `None` if an oracle is missing.
    pub fn start(needs: &[String]) -> Option<Self> {
        let oracles = oracles(&[VERSION])?;
        let space = Space::new();
        for folder in FOLDERS.iter().chain(&["/run", "/log", DATA]) {
            // Each level belongs to the test user
            let levels = folder.match_indices('/').skip(1).map(|(end, _)| &folder[1..end]);
            levels.chain([&folder[1..]]).for_each(|level| drop(space.folder(level)));
        }
        let s3 = match needs.iter().any(|need| need == "s3") {
            true => Some(Weed::start()?),
            false => None,
        };
        let system = Self { space, s3 };
        let server = &oracles.postgres[&VERSION];
        let client = oracles.client("psql");
        system.write_programs(server, client.parent().expect("folder of psql"));
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

    /// Programs that stand for those of a system: `systemctl` runs the cluster, `sudo` changes nothing.
    fn write_programs(&self, server: &Path, client: &Path) {
        let (space, server) = (&self.space, server.display());
        let log = space.text("log/postgresql.log");
        let socket = space.text("run");
        space.write_program("bin/sudo", "#!/bin/sh\nexec \"$@\"\n");
        space.write_program(
            "bin/systemctl",
            &format!(
                "#!/bin/sh -e
                case \"$2\" in postgresql | postgresql@17-main) ;; *) echo \"no service $2\" >&2; exit 1 ;; esac
                case \"$1\" in start | stop | restart | reload) ;; *) exit 1 ;; esac
                wait=-w; [ \"$1\" = reload ] && wait=
                {server}/pg_ctl \"$1\" -D {} -l {log} $wait -s -t 60 ||
                    {{ tail -n 30 {log} >&2; exit 1; }}\n",
                self.inside(DATA)
            ),
        );
        // The programs of the server come first, for initdb
        space.write(
            "bin/environment",
            format!(
                "export PATH={}:{server}:{}:$PATH PGHOST={socket} PGUSER=postgres PGDATABASE=postgres\n\
                 export PGBACKREST_CONFIG={} PGBACKREST_LOG_PATH={} PGBACKREST_LOCK_PATH={} PGBACKREST_PG1_SOCKET_PATH={socket}\n",
                space.text("bin"),
                client.display(),
                self.inside("/etc/pgbackrest/pgbackrest.conf"),
                self.inside("/var/log/pgbackrest"),
                space.text("lock"),
            ),
        );
    }

    /// Replaces the guide's paths and hosts by those of this system.
    fn inside(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for folder in FOLDERS {
            text = text.replace(folder, &self.space.text(&folder[1..]));
        }
        if let Some(s3) = &self.s3 {
            let (key, secret) = weed::KEY;
            text = text
                .replace("s3.eu-central-1.amazonaws.com", "127.0.0.1")
                .replace("repo1-s3-region=eu-central-1", &format!(
                    "repo1-s3-region=us-east-1\nrepo1-s3-uri-style=path\nrepo1-storage-port={}\nrepo1-storage-ca-file={}",
                    s3.port(),
                    s3.file("tls/ca.crt").display()
                ))
                .replace("example-backups", weed::BUCKET)
                .replace("AKIAIOSFODNN7EXAMPLE", key)
                .replace("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", secret);
        }
        text
    }

    /// The opposite of [`System::inside`] for paths.
    fn outside(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.space.text("").trim_end_matches('/')), "/")
    }

    /// Runs commands in a shell and returns what they print. They must succeed.
    pub fn shell(&self, commands: &str, place: &str) -> String {
        let script = format!("set -euo pipefail\n. {}\n{}", self.space.text("bin/environment"), self.inside(commands));
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
        let path = self.inside(&path);
        let before = if adds { fs::read_to_string(&path).expect("postgresql.conf") } else { String::new() };
        let name = path.strip_prefix(&self.space.text("")).expect("a path of the guide").trim_start_matches('/');
        let path = self.space.write(name, format!("{before}{}", self.inside(rest)));
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("chmod");
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let stop = format!("[ ! -e {DATA}/postmaster.pid ] || pg_ctl stop -D {DATA} -m immediate -s");
        let script = format!(". {}\n{}", self.space.text("bin/environment"), self.inside(&stop));
        self.space.run("bash", &["-c", &script]);
    }
}
