//! Writes the configuration file and creates directories.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use engine::pg::discover::Owner;
use engine::{Error, ErrorCode, Result};

use super::draft::Draft;

/// The mode of directories with backups and logs.
const DIRECTORY_MODE: u32 = 0o750;
/// The mode of the configuration file, and while root has not yet given it to the group.
const FILE_MODE: u32 = 0o640;
const FILE_MODE_PRIVATE: u32 = 0o600;

/// Where the configuration goes, and which directories it needs.
pub(super) struct Place<'a> {
    path: &'a Path,
    owner: &'a Owner,
    /// Directories that do not exist yet.
    missing: Vec<PathBuf>,
    /// Whether this is root, who gives everything to the owner of the cluster.
    is_root: bool,
}

impl<'a> Place<'a> {
    /// Finds out which directories are missing.
    pub(super) fn new(path: &'a str, owner: &'a Owner, draft: &Draft) -> Self {
        let mut needed: Vec<&str> = Vec::new();
        for key in 1..=256 {
            let value = |name: &str| draft.value(&format!("repo{key}-{name}"));
            if matches!(value("type"), None | Some("posix" | "cifs")) {
                needed.extend(value("path"));
            }
        }
        needed.push(draft.value("log-path").unwrap_or("/var/log/pgbackrest"));
        if draft.value("archive-async") == Some("y") {
            needed.push(draft.value("spool-path").unwrap_or("/var/spool/pgbackrest"));
        }
        let missing = needed.into_iter().map(PathBuf::from).filter(|path| !path.is_dir()).collect();
        Place { path: Path::new(path), owner, missing, is_root: rustix::process::geteuid().is_root() }
    }

    /// The file and who can read it.
    pub(super) fn title(&self) -> String {
        format!("File {} (readable by {})", self.path.display(), self.owner.name)
    }

    /// The directories that will be created.
    pub(super) fn directories_text(&self) -> String {
        if self.missing.is_empty() {
            return String::new();
        }
        let lines: String = self.missing.iter().map(|path| format!("    {}\n", path.display())).collect();
        format!("Directories to create, for {}\n\n{lines}\n", self.owner.name)
    }

    /// Writes the file, which must not exist, and creates the directories.
    ///
    /// # Errors
    /// [`ErrorCode::FileExists`], [`ErrorCode::FileOpen`], [`ErrorCode::FileWrite`], [`ErrorCode::PathCreate`].
    pub(super) fn write(&self, text: &str) -> Result<()> {
        for path in &self.missing {
            self.create_directory(path)?;
        }
        if let Some(parent) = self.path.parent() {
            let text = format!("unable to create path '{}'", parent.display());
            create_open(parent).map_err(|error| Error::from_io(ErrorCode::PathCreate, text, error).hint(AS_ROOT))?;
        }
        let name = self.path.display();
        let mut file = fs::OpenOptions::new()
            .write(true)
            // Never replaces a file, nor follows a link
            .create_new(true)
            .mode(FILE_MODE_PRIVATE)
            .open(self.path)
            .map_err(|error| {
                let code = match error.kind() {
                    std::io::ErrorKind::AlreadyExists => ErrorCode::FileExists,
                    _ => ErrorCode::FileOpen,
                };
                Error::from_io(code, format!("unable to create file '{name}'"), error).hint(AS_ROOT)
            })?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| self.give(&file));
        written.map_err(|error| {
            // Half a configuration is worse than none
            let _ = fs::remove_file(self.path);
            Error::from_io(ErrorCode::FileWrite, format!("unable to write file '{name}'"), error)
        })
    }

    /// Lets the owner of the cluster read a file of root.
    fn give(&self, file: &fs::File) -> std::io::Result<()> {
        if self.is_root {
            std::os::unix::fs::fchown(file, None, Some(self.owner.gid))?;
            file.set_permissions(fs::Permissions::from_mode(FILE_MODE))?;
        }
        Ok(())
    }

    fn create_directory(&self, path: &Path) -> Result<()> {
        let failed = |error| {
            Error::from_io(ErrorCode::PathCreate, format!("unable to create path '{}'", path.display()), error)
                .hint(AS_ROOT)
        };
        // The owner has to get through the directories above, which stay root's
        path.parent().map_or(Ok(()), create_open).map_err(failed)?;
        fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path).map_err(failed)?;
        if self.is_root {
            // Not of what somebody may have put in its place meanwhile
            lchown(path, Some(self.owner.uid), Some(self.owner.gid)).map_err(failed)?;
        }
        Ok(())
    }
}

/// Creates a directory that everybody can enter. The umask is neutral in commands.
fn create_open(path: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

const AS_ROOT: &str = "run init as root, or name another place with --config, --repo1-path and --log-path.";
