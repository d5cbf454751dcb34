//! Finds the programs of the PostgreSQL version of a backup.

use std::path::{Path, PathBuf};
use std::process::Command;

use repo_format::pg::PgVersion;

use crate::{Error, ErrorCode, Result};

/// The programs of one PostgreSQL installation.
#[derive(Clone, Debug)]
pub struct PgPrograms {
    dir: PathBuf,
    /// The server's version, as it calls itself, such as `15.4`.
    pub version: String,
}

/// Programs without which nothing can be tested.
const NEEDED: [&str; 2] = ["postgres", "pg_controldata"];

impl PgPrograms {
    /// Finds the programs of a version: in the given directory only, or else where `pg_config` says and in the usual
    /// places.
    ///
    /// # Errors
    /// [`ErrorCode::FileMissing`], with what was looked for and where.
    pub fn find(version: PgVersion, given: Option<&Path>) -> Result<Self> {
        let places = match given {
            Some(dir) => vec![dir.to_owned()],
            None => usual_places(version),
        };
        let mut found = Vec::new();
        for dir in &places {
            let Some(reported) = reported_version(&dir.join("postgres")) else {
                found.push(format!("'{}' has no program 'postgres'", dir.display()));
                continue;
            };
            if !is_version(&reported, version) {
                found.push(format!("'{}' has PostgreSQL {reported}", dir.display()));
                continue;
            }
            let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !is_program(&dir.join(name))).collect();
            if missing.is_empty() {
                return Ok(PgPrograms { dir: dir.clone(), version: reported });
            }
            found.push(format!("'{}' lacks '{}'", dir.display(), missing.join("' and '")));
        }
        let text = format!("unable to find the programs of PostgreSQL {version}: {}", found.join(", "));
        Err(Error::new(ErrorCode::FileMissing, text)
            .hint("install the server of this version on this host, or set --pg-bin-path to its programs."))
    }

    /// Returns the path of a program, if the installation has it.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        Some(self.dir.join(name)).filter(|path| is_program(path))
    }

    /// Returns the path of a program that [`PgPrograms::find`] has found.
    pub fn needed(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Returns whether a preloaded library is installed.
    pub fn has_library(&self, name: &str) -> bool {
        let name = name.strip_prefix("$libdir/").unwrap_or(name);
        let file = if name.ends_with(".so") { name.to_owned() } else { format!("{name}.so") };
        if name.starts_with('/') {
            return Path::new(&file).exists();
        }
        self.library_dirs().iter().any(|dir| dir.join(&file).exists())
    }

    fn library_dirs(&self) -> Vec<PathBuf> {
        let told = self.program("pg_config").and_then(|program| output_of(&program, "--pkglibdir"));
        let beside = ["../lib", "../lib/postgresql"].map(|dir| self.dir.join(dir));
        told.map(PathBuf::from).into_iter().chain(beside).collect()
    }
}

fn usual_places(version: PgVersion) -> Vec<PathBuf> {
    let told = output_of(Path::new("pg_config"), "--bindir").map(PathBuf::from);
    let usual = [
        format!("/usr/lib/postgresql/{version}/bin"),
        format!("/usr/pgsql-{version}/bin"),
        format!("/usr/lib/postgresql{version}/bin"),
        format!("/usr/local/pgsql-{version}/bin"),
        format!("/opt/homebrew/opt/postgresql@{version}/bin"),
        "/usr/local/pgsql/bin".to_owned(),
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let with_server = std::env::split_paths(&path).filter(|dir| is_program(&dir.join("postgres")));
    let mut places: Vec<PathBuf> = Vec::new();
    for place in told.into_iter().chain(usual.map(PathBuf::from)).chain(with_server) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

fn is_program(path: &Path) -> bool {
    path.is_file()
}

/// Returns the version that a server calls itself, such as `15.4`.
fn reported_version(postgres: &Path) -> Option<String> {
    version_in(&output_of(postgres, "--version")?)
}

fn version_in(text: &str) -> Option<String> {
    let rest = text.split("PostgreSQL) ").nth(1)?;
    rest.split_whitespace().next().map(ToOwned::to_owned)
}

fn is_version(reported: &str, version: PgVersion) -> bool {
    // A development version is called 19devel, 19beta1 and so on
    let digits = reported.find(|char: char| !char.is_ascii_digit()).unwrap_or(reported.len());
    reported.get(..digits) == Some(version.to_string().as_str())
}

fn output_of(program: &Path, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_of_a_server_is_read_from_its_own_words() {
        assert_eq!(version_in("postgres (PostgreSQL) 15.4 (Debian 15.4-1)").as_deref(), Some("15.4"));
        assert_eq!(version_in("something else"), None);
        let v15: PgVersion = "15".parse().unwrap();
        assert!(is_version("15.4", v15) && is_version("15devel", v15));
        assert!(!is_version("16.1", v15) && !is_version("150.1", v15) && !is_version("1.5", v15));
    }

    #[test]
    fn missing_programs_are_named_with_the_places() {
        let dir = tempfile::tempdir().unwrap();
        let error = PgPrograms::find("15".parse().unwrap(), Some(dir.path())).unwrap_err();
        assert_eq!(error.code, ErrorCode::FileMissing);
        assert!(error.message.contains(&dir.path().display().to_string()), "{error}");
    }
}
