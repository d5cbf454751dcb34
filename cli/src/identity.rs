//! The name under which the program runs.

use std::path::{Path, PathBuf};

use engine::{Error, ErrorCode, Result};

/// The name by which the program was started determines how it identifies itself. Tools that parse pgBackRest's output
/// call it by a link named `pgbackrest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramName {
    /// Its own name.
    Rbr,
    /// The name of the program that it stands in for.
    PgBackRest,
}

impl ProgramName {
    /// Determines the identity from the path by which the program was started.
    pub fn of(program: &str) -> Self {
        match Path::new(program).file_name() {
            Some(name) if name == "pgbackrest" => ProgramName::PgBackRest,
            _ => ProgramName::Rbr,
        }
    }

    /// The name of the program file, for usage lines.
    pub fn program(self) -> &'static str {
        match self {
            ProgramName::Rbr => "rbr",
            ProgramName::PgBackRest => "pgbackrest",
        }
    }

    /// The version alone, as log lines show it.
    pub fn version(self) -> &'static str {
        match self {
            ProgramName::Rbr => env!("CARGO_PKG_VERSION"),
            ProgramName::PgBackRest => repo_format::BACKREST_VERSION,
        }
    }

    /// Returns name and version as shown in help.
    pub fn title(self) -> String {
        match self {
            ProgramName::Rbr => format!("rbr {}", self.version()),
            ProgramName::PgBackRest => format!("pgBackRest {}", self.version()),
        }
    }

    /// Returns what `version` prints.
    pub fn version_line(self) -> String {
        match self {
            ProgramName::Rbr => {
                format!("{} (compatible with pgBackRest {})", self.title(), repo_format::BACKREST_VERSION)
            }
            ProgramName::PgBackRest => self.title(),
        }
    }

    /// Returns the compatible version as a number, e.g. 2060000, which scripts compare.
    pub fn version_number(self) -> String {
        let mut parts = repo_format::BACKREST_VERSION.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        format!("{}{:03}{:03}", next(), next(), next())
    }
}

/// Returns the path of this program as it was called by this name or path: behind a link that an upgrade moves there may be a
/// version.
///
/// # Errors
/// [`ErrorCode::Kernel`] if the system does not tell the path.
pub(crate) fn own_path(called: &str) -> Result<PathBuf> {
    let failed = |error| Error::from_io(ErrorCode::Kernel, "unable to find the path of this program", error);
    let called = Path::new(called);
    if called.is_absolute() {
        return Ok(called.to_owned());
    }
    let real = std::env::current_exe().map_err(failed)?;
    let candidates: Vec<PathBuf> = match called.components().count() {
        // The shell found it in a directory of PATH
        1 => std::env::var_os("PATH").iter().flat_map(std::env::split_paths).map(|dir| dir.join(called)).collect(),
        _ => vec![called.to_owned()],
    };
    let mut absolute = candidates.iter().filter_map(|path| std::path::absolute(path).ok());
    let found = absolute.find(|path| path.canonicalize().is_ok_and(|path| path == real));
    Ok(found.unwrap_or(real))
}
