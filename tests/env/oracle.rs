//! The programs that rbr is compared with: the real pgBackRest and several versions of PostgreSQL.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The paths of the oracles, as installed by `scripts/oracles`.
#[derive(Debug)]
pub struct Oracles {
    /// The real pgBackRest.
    pub pgbackrest: PathBuf,
    /// Folders with a server's programs, by major version.
    pub postgres: BTreeMap<u32, PathBuf>,
}

impl Oracles {
    /// Searches the cache of `scripts/oracles` and the system's own servers.
    fn find() -> Result<Self, String> {
        let cache = cache();
        let pgbackrest = cache.join("pgbackrest/usr/bin/pgbackrest");
        if !pgbackrest.exists() {
            return Err(format!("no pgBackRest at {}", pgbackrest.display()));
        }
        let mut postgres = BTreeMap::new();
        for folder in [Path::new("/usr/lib/postgresql"), &cache.join("pg")] {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let programs = entry.path().join("bin");
                if let Some(major) = entry.file_name().to_str().and_then(|name| name.parse().ok())
                    && programs.join("postgres").exists()
                {
                    postgres.insert(major, programs);
                }
            }
        }
        if postgres.is_empty() {
            return Err(format!("no PostgreSQL server in {}", cache.join("pg").display()));
        }
        let version = Command::new(&pgbackrest).arg("version").output().map_err(|error| error.to_string())?;
        let versions: Vec<_> = postgres.keys().map(u32::to_string).collect();
        say(&format!(
            "oracles: {}, PostgreSQL {}",
            String::from_utf8_lossy(&version.stdout).trim(),
            versions.join(" ")
        ));
        Ok(Self { pgbackrest, postgres })
    }

    /// Returns the newest folder that contains a client program, because new clients work with old servers.
    pub fn client(&self, program: &str) -> PathBuf {
        self.postgres
            .values()
            .rev()
            .map(|folder| folder.join(program))
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("no {program} beside any PostgreSQL server"))
    }
}

/// Returns the oracles, or `None` if a test has to be skipped. With `RBR_REQUIRE_ORACLES` set, missing oracles are a
/// failure.
pub fn oracles(versions: &[u32]) -> Option<&'static Oracles> {
    static FOUND: OnceLock<Result<Oracles, String>> = OnceLock::new();
    let missing = match FOUND.get_or_init(Oracles::find) {
        Ok(oracles) => match versions.iter().find(|version| !oracles.postgres.contains_key(version)) {
            None => return Some(oracles),
            Some(version) => format!("no PostgreSQL {version}"),
        },
        Err(error) => error.clone(),
    };
    skip(&missing);
    None
}

/// Returns a program of the cache that is not in [`Oracles`], or `None` if a test has to be skipped.
pub fn optional_oracle(path: &str) -> Option<PathBuf> {
    let program = cache().join(path);
    if program.exists() {
        return Some(program);
    }
    skip(&format!("no {}", program.display()));
    None
}

/// Reports that a test is skipped, or fails it with `RBR_REQUIRE_ORACLES`.
pub fn skip(missing: &str) {
    let required = std::env::var("RBR_REQUIRE_ORACLES").is_ok_and(|value| !value.is_empty() && value != "0");
    assert!(!required, "{missing}: run scripts/oracles");
    report_skipped(&format!("{missing}; run scripts/oracles"));
}

/// Reports that a test is skipped, because this machine does not allow it.
pub fn report_skipped(reason: &str) {
    let line = format!("SKIPPED {}: {reason}", std::thread::current().name().unwrap_or("test"));
    say(&line);
    // scripts/test counts them in its last lines
    if let Some(list) = std::env::var_os("RBR_SKIPPED") {
        let mut list = File::options().create(true).append(true).open(list).expect("list of skipped tests");
        list.write_all(format!("{line}\n").as_bytes()).expect("list of skipped tests");
    }
}

/// Returns the directory of `scripts/oracles`.
fn cache() -> PathBuf {
    match std::env::var_os("RBR_ORACLES") {
        Some(path) => PathBuf::from(path),
        None if rustix::process::geteuid().is_root() => PathBuf::from("/var/cache/rbr-oracles"),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/rbr-oracles"),
    }
}

/// Prints a line although the test runner hides the output of passing tests.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
