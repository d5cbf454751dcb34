//! Checks of names and of complete manifests.

use std::fmt::Write as _;

use super::{Manifest, PG_DATA, PG_TBLSPC};
use crate::hash::Sha1;
use crate::layout::RepoPath;
use crate::{Error, ErrorCode, Result, ini};

/// How many errors a message lists.
const FAULTS_SHOWN_MAX: usize = 100;

/// Checks that a manifest name is in the data directory or in a tablespace, so that a restore cannot write elsewhere,
/// and that it can be stored.
///
/// # Errors
/// [`ErrorCode::Format`].
pub fn check_name(name: &str) -> Result<()> {
    let in_root = |root: &str| name.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    ini::check_key(name)?;
    if !(in_root(PG_DATA) || in_root(PG_TBLSPC)) || !RepoPath::is_inside(name) {
        return Err(Error::new(ErrorCode::Format, format!("'{}' is not a valid manifest name", name.escape_debug())));
    }
    Ok(())
}

impl Manifest {
    /// Checks that every file has its checksum. A restore calls it after loading. A backup calls it with `strict`,
    /// which also checks sizes, before it writes the manifest.
    ///
    /// # Errors
    /// [`ErrorCode::Format`], naming the files.
    pub fn validate(&self, strict: bool) -> Result<()> {
        let mut faults = String::new();
        let mut count = 0usize;
        let mut fault = |text: std::fmt::Arguments<'_>| {
            count += 1;
            if count <= FAULTS_SHOWN_MAX {
                // Writing into a String cannot fail
                let _ = write!(faults, "\n{text}");
            }
        };
        for file in &self.files {
            let name = &file.name;
            match file.checksum {
                None => fault(format_args!("missing checksum for file '{name}'")),
                Some(checksum) if strict && file.size == 0 && checksum != Sha1::EMPTY => {
                    fault(format_args!("invalid checksum '{checksum}' for zero size file '{name}'"));
                }
                Some(_) => {}
            }
            if strict && file.size_repo == 0 && file.size != 0 {
                fault(format_args!("repo size must be > 0 for file '{name}'"));
            }
        }
        if count == 0 {
            return Ok(());
        }
        if count > FAULTS_SHOWN_MAX {
            let _ = write!(faults, "\nand {} more", count - FAULTS_SHOWN_MAX);
        }
        Err(Error::new(ErrorCode::Format, format!("manifest validation failed:{faults}")))
    }
}
