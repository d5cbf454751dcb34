//! Keeps the scratch server from changing anything outside of its directory.
//!
//! WAL contains paths: when PostgreSQL replays CREATE TABLESPACE, it links the location of the original cluster and
//! writes there. On the original host, that would be the files of the running cluster. So the kernel confines the server
//! and all its children (Landlock): they may read everything, but write, create, truncate and remove only below the
//! scratch directory. Landlock needs no rights and can't be given up.

use std::path::Path;
use std::process::{Child, Command};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError,
};

use crate::{Error, ErrorCode, Result};

/// The version of Landlock that also confines truncation, which PostgreSQL does by path. Linux has it since 6.2.
const VERSION: ABI = ABI::V3;
/// A file that programs write to without changing anything.
const NULL: &str = "/dev/null";

/// Starts a program that can change files below `root` only.
///
/// # Errors
/// [`ErrorCode::FeatureNotSupported`] if the kernel can't confine it, [`ErrorCode::Execute`] if it can't be started.
pub fn spawn(command: &mut Command, root: &Path) -> Result<Child> {
    // The thread that starts a program passes its confinement on, and then ends
    let spawned = std::thread::scope(|scope| {
        let body = || -> Result<Child> {
            restrict_thread(root)?;
            command.spawn().map_err(|error| {
                let program = command.get_program().to_string_lossy().into_owned();
                Error::from_io(ErrorCode::Execute, format!("unable to start '{program}'"), error)
            })
        };
        let thread = std::thread::Builder::new().name("confined".to_owned()).spawn_scoped(scope, body);
        thread.map(|thread| thread.join())
    });
    match spawned {
        Ok(Ok(child)) => child,
        Ok(Err(_)) => Err(Error::new(ErrorCode::Assert, "the thread that starts PostgreSQL panicked")),
        Err(error) => Err(Error::from_io(ErrorCode::Kernel, "unable to start a thread", error)),
    }
}

/// Checks that the kernel can confine a program, so that nothing is restored in vain.
///
/// # Errors
/// [`ErrorCode::FeatureNotSupported`].
pub fn check() -> Result<()> {
    let created = || confinement()?.create();
    created().map(drop).map_err(|error| not_supported(&error))
}

/// Writing anywhere needs a rule. Less than this is no confinement.
fn confinement() -> std::result::Result<Ruleset, RulesetError> {
    Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessFs::from_all(VERSION))
}

fn not_supported(error: &RulesetError) -> Error {
    let text = format!("unable to confine PostgreSQL to the scratch directory: {error}");
    Error::new(ErrorCode::FeatureNotSupported, text)
        .hint("test-restore needs Landlock, which Linux has since 6.2, unless it is switched off.")
        .hint("without it, WAL that creates a tablespace would write to the files of the original cluster.")
}

fn restrict_thread(root: &Path) -> Result<()> {
    let opened = |path: &Path| {
        PathFd::new(path)
            .map_err(|error| Error::new(ErrorCode::FileOpen, format!("unable to open '{}': {error}", path.display())))
    };
    let (everything, root, null) = (opened(Path::new("/"))?, opened(root)?, opened(Path::new(NULL))?);
    let restricted = || -> std::result::Result<(), RulesetError> {
        confinement()?
            .create()?
            .add_rule(PathBeneath::new(everything, AccessFs::from_read(VERSION)))?
            .add_rule(PathBeneath::new(root, AccessFs::from_all(VERSION)))?
            .add_rule(PathBeneath::new(null, AccessFs::WriteFile))?
            .restrict_self()?;
        Ok(())
    };
    restricted().map_err(|error| not_supported(&error))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Runs a shell script that is confined to the first directory. Returns its exit status.
    fn run(root: &Path, script: &str, outside: &Path) -> i32 {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(outside).current_dir(root);
        spawn(&mut command, root).unwrap().wait().unwrap().code().unwrap()
    }

    #[test]
    fn program_changes_nothing_outside_of_its_directory() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = outside.path().join("file");
        fs::write(&file, "content").unwrap();
        for script in [
            "echo x > \"$1/file\"",
            "echo x >> \"$1/file\"",
            "truncate -s 0 \"$1/file\"",
            "rm \"$1/file\"",
            "mkdir \"$1/new\"",
            "mv \"$1/file\" here",
            "ln -s \"$1\" link && echo x > link/file",
            "ln \"$1/file\" hard",
            "ln -s x \"$1/link\"",
        ] {
            assert_ne!(run(root.path(), script, outside.path()), 0, "{script}");
            assert_eq!(fs::read_to_string(&file).unwrap(), "content", "{script}");
            assert_eq!(outside.path().read_dir().unwrap().count(), 1, "{script}");
        }
        let script = "cat \"$1/file\" > here 2> /dev/null && mkdir below && mv here below/there && rm -r below";
        assert_eq!(run(root.path(), script, outside.path()), 0);
        // This process is not confined
        fs::write(outside.path().join("other"), "").unwrap();
    }
}
