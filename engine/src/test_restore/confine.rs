//! Keeps the scratch server from changing anything outside of its directory.
//!
//! WAL contains paths: when PostgreSQL replays CREATE TABLESPACE, it links the location of the original cluster and
//! writes there. On the original host, that would be the files of the running cluster. So the kernel confines the server
//! and all its children (Landlock): they may read everything, but write, create, truncate and remove only below the
//! scratch directory. Landlock needs no rights and can't be given up.
//!
//! Before Linux 6.2, Landlock does not know truncation by path, with which PostgreSQL empties the files of a table that is
//! dropped. There, the server may also create no symbolic link. The restored cluster has none that leads out of the scratch
//! directory, and all names in WAL but the location of a tablespace are numbers. So no path of PostgreSQL leads out.

use std::path::Path;
use std::process::{Child, Command};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError,
};

use crate::system_text;
use crate::{Error, ErrorCode, Result};

/// Names the version of Landlock to use, for tests on a kernel that has a later one. Either confinement is enough.
const VERSION_VARIABLE: &str = "RBR_TEST_LANDLOCK";
/// A file that programs write to without changing anything.
const NULL: &str = "/dev/null";

/// What the kernel can keep a program from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Confinement {
    /// All changes. Linux 6.2.
    Complete,
    /// All changes but truncation by path, which needs a path. So symbolic links can't be made anywhere. Linux 5.13.
    WithoutLinks,
}

impl Confinement {
    fn version(self) -> ABI {
        match self {
            Confinement::Complete => ABI::V3,
            Confinement::WithoutLinks => ABI::V1,
        }
    }

    /// What the program may do below its directory.
    fn access(self) -> BitFlags<AccessFs> {
        match self {
            Confinement::Complete => AccessFs::from_all(self.version()),
            Confinement::WithoutLinks => AccessFs::from_all(self.version()) & !AccessFs::MakeSym,
        }
    }

    /// Everything is handled, so that anything needs a rule. Less than this is no confinement.
    fn ruleset(self) -> std::result::Result<Ruleset, RulesetError> {
        let handled = AccessFs::from_all(self.version());
        Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(handled)
    }

    /// Returns the best that the kernel has.
    ///
    /// # Errors
    /// [`ErrorCode::FeatureNotSupported`] if it has none.
    fn of_kernel() -> Result<Self> {
        let has = |confinement: Confinement| confinement.ruleset().and_then(Ruleset::create).map(drop);
        let is_old = std::env::var_os(VERSION_VARIABLE).is_some_and(|version| version == "1");
        if !is_old && has(Confinement::Complete).is_ok() {
            return Ok(Confinement::Complete);
        }
        has(Confinement::WithoutLinks).map(|()| Confinement::WithoutLinks).map_err(|error| not_supported(&error))
    }
}

/// Starts a program that can change files below `root` only.
///
/// # Errors
/// [`ErrorCode::FeatureNotSupported`] if the kernel can't confine it, [`ErrorCode::Execute`] if it can't be started.
pub fn spawn(command: &mut Command, root: &Path) -> Result<Child> {
    spawn_with(Confinement::of_kernel()?, command, root)
}

fn spawn_with(confinement: Confinement, command: &mut Command, root: &Path) -> Result<Child> {
    // The thread that starts a program passes its confinement on, and then ends
    let spawned = std::thread::scope(|scope| {
        let body = || -> Result<Child> {
            restrict_thread(confinement, root)?;
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
    Confinement::of_kernel().map(drop)
}

fn not_supported(error: &RulesetError) -> Error {
    let text = format!("unable to confine PostgreSQL to the scratch directory: {}", system_text(error));
    Error::new(ErrorCode::FeatureNotSupported, text)
        .hint("test-restore needs Landlock, which Linux has since 5.13, unless it is switched off.")
        .hint("without it, WAL that creates a tablespace would write to the files of the original cluster.")
}

fn restrict_thread(confinement: Confinement, root: &Path) -> Result<()> {
    let opened = |path: &Path| {
        PathFd::new(path)
            .map_err(|error| system_text(&error))
            .map_err(|error| Error::new(ErrorCode::FileOpen, format!("unable to open '{}': {error}", path.display())))
    };
    let (everything, root, null) = (opened(Path::new("/"))?, opened(root)?, opened(Path::new(NULL))?);
    let restricted = || -> std::result::Result<(), RulesetError> {
        confinement
            .ruleset()?
            .create()?
            .add_rule(PathBeneath::new(everything, AccessFs::from_read(confinement.version())))?
            .add_rule(PathBeneath::new(root, confinement.access()))?
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
    fn run(confinement: Confinement, root: &Path, script: &str, outside: &Path) -> i32 {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(outside).current_dir(root);
        spawn_with(confinement, &mut command, root).unwrap().wait().unwrap().code().unwrap()
    }

    fn changes_nothing(confinement: Confinement, scripts: &[&str]) {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = outside.path().join("file");
        fs::write(&file, "content").unwrap();
        for script in scripts {
            assert_ne!(run(confinement, root.path(), script, outside.path()), 0, "{script}");
            assert_eq!(fs::read_to_string(&file).unwrap(), "content", "{script}");
            assert_eq!(outside.path().read_dir().unwrap().count(), 1, "{script}");
        }
        let script = "cat \"$1/file\" > here 2> /dev/null && mkdir below && mv here other && mkdir below/there && \
                      truncate -s 0 other && rm -r below";
        assert_eq!(run(confinement, root.path(), script, outside.path()), 0);
        // This process is not confined
        fs::write(outside.path().join("other"), "").unwrap();
    }

    /// What no confinement allows.
    const SCRIPTS: [&str; 8] = [
        "echo x > \"$1/file\"",
        "echo x >> \"$1/file\"",
        "rm \"$1/file\"",
        "mkdir \"$1/new\"",
        "mv \"$1/file\" here",
        "ln -s \"$1\" link && echo x > link/file",
        "ln \"$1/file\" hard",
        "ln -s x \"$1/link\"",
    ];

    #[test]
    fn program_changes_nothing_outside_of_its_directory() {
        let more = ["truncate -s 0 \"$1/file\"", "ln -s \"$1\" link2 && truncate -s 0 link2/file"];
        changes_nothing(Confinement::Complete, &[&SCRIPTS[..], &more].concat());
    }

    #[test]
    fn program_on_an_older_kernel_can_make_no_link_and_changes_nothing_else() {
        changes_nothing(Confinement::WithoutLinks, &[&SCRIPTS[..], &["ln -s \"$1\" link3", "ln -s x link4"]].concat());
    }
}
