//! The path of the WAL file that PostgreSQL passes.

use std::path::{Path, PathBuf};

use engine::{Error, ErrorCode, Result};

/// Returns the absolute path of a WAL path that PostgreSQL passes (`%p`): unchanged if it is absolute, otherwise below
/// the data directory, which must then be the working directory.
///
/// `command` and `option` (the name of the option for `pg_path`) are used in messages.
///
/// # Errors
/// [`ErrorCode::OptionRequired`] without `pg_path`, [`ErrorCode::PathMissing`] if it can't be entered, and
/// [`ErrorCode::OptionInvalidValue`] if PostgreSQL runs in another directory.
pub fn wal_path(path: &str, pg_path: Option<&Path>, command: &str, option: &str) -> Result<PathBuf> {
    if path.starts_with('/') {
        return Ok(PathBuf::from(path));
    }
    let Some(pg_path) = pg_path else {
        return Err(Error::new(
            ErrorCode::OptionRequired,
            format!("option '{option}' must be specified when relative wal paths are used"),
        )
        .hint(format!("is %f passed to {command} instead of %p?"))
        .hint("PostgreSQL may pass relative paths even with %p depending on the environment."));
    };
    let current =
        std::env::current_dir().map_err(|error| Error::from_io(ErrorCode::Format, "unable to get cwd", error))?;
    if current != pg_path {
        // The option may name the directory through a link
        let real = pg_path.canonicalize().map_err(|error| {
            Error::from_io(ErrorCode::PathMissing, format!("unable to chdir() to '{}'", pg_path.display()), error)
        })?;
        if current != real {
            return Err(Error::new(
                ErrorCode::OptionInvalidValue,
                format!(
                    "PostgreSQL working directory '{}' is not the same as option {option} '{}'",
                    current.display(),
                    pg_path.display()
                ),
            )
            .hint(format!("is the PostgreSQL data_directory configured the same as the {option} option?")));
        }
    }
    Ok(pg_path.join(path))
}

/// Returns the last component of a path. PostgreSQL's WAL names are plain ASCII.
///
/// # Errors
/// [`ErrorCode::ParamInvalid`] for a path without a file name, or one that is not UTF-8.
pub fn file_name(path: &Path) -> Result<&str> {
    path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        Error::new(ErrorCode::ParamInvalid, format!("'{}' does not end in the name of a WAL file", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_path_is_taken_as_it_is() {
        assert_eq!(wal_path("/a/b", None, "archive-push", "pg1-path").expect("path"), Path::new("/a/b"));
    }

    #[test]
    fn relative_path_without_pg_path_is_refused_with_hints() {
        let error = wal_path("pg_wal/x", None, "archive-push", "pg1-path").expect_err("no pg-path");
        assert_eq!(error.code, ErrorCode::OptionRequired);
        assert!(error.to_string().contains("\nHINT: is %f passed to archive-push instead of %p?\n"));
    }

    #[test]
    fn relative_path_in_other_directory_is_refused() {
        let dir = tempfile::tempdir().expect("dir");
        let error = wal_path("pg_wal/x", Some(dir.path()), "archive-push", "pg1-path").expect_err("other directory");
        assert_eq!(error.code, ErrorCode::OptionInvalidValue);
        let missing = dir.path().join("no");
        let error = wal_path("pg_wal/x", Some(&missing), "archive-push", "pg1-path").expect_err("missing");
        assert_eq!(error.code, ErrorCode::PathMissing);
    }

    #[test]
    fn relative_path_in_pg_path_is_joined() {
        let current = std::env::current_dir().expect("cwd");
        let path = wal_path("pg_wal/x", Some(&current), "archive-get", "pg1-path").expect("path");
        assert_eq!(path, current.join("pg_wal/x"));
    }
}
