//! Resolves paths, even if a part of them does not exist yet.

use std::fs;
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use crate::{Error, ErrorCode, Result};

/// Maximum number of links to follow before they count as a loop, as in Linux.
const LINKS_MAX: u32 = 40;

/// Returns the absolute path with every link and `..` resolved in the order of the kernel, so that two paths to the
/// same file are equal. A part that does not exist, or must not be read, is taken literally.
///
/// # Errors
/// [`ErrorCode::FileOpen`] if a part can't be checked, or links form a loop.
pub(super) fn resolve(path: &str) -> Result<PathBuf> {
    let mut links = 0;
    follow(PathBuf::from("/"), Path::new(path), &mut links).map_err(|error| {
        Error::from_io(ErrorCode::FileOpen, format!("unable to get info for path/file '{path}'"), error)
    })
}

fn follow(mut real: PathBuf, path: &Path, links: &mut u32) -> std::io::Result<PathBuf> {
    for part in path.components() {
        match part {
            Component::RootDir | Component::Prefix(_) => real = PathBuf::from("/"),
            Component::CurDir => {}
            // The part before it is real, so its parent is the one that the kernel uses
            Component::ParentDir => {
                real.pop();
            }
            Component::Normal(name) => {
                real.push(name);
                match fs::read_link(&real) {
                    Ok(destination) => {
                        *links += 1;
                        if *links > LINKS_MAX {
                            return Err(rustix::io::Errno::LOOP.into());
                        }
                        real.pop();
                        real = follow(real, &destination, links)?;
                    }
                    // InvalidInput: it exists and is not a link. If a part must not be read, the restore can't write
                    // there either
                    Err(error)
                        if matches!(
                            error.kind(),
                            ErrorKind::NotFound
                                | ErrorKind::NotADirectory
                                | ErrorKind::InvalidInput
                                | ErrorKind::PermissionDenied
                        ) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(real)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn resolve_follows_links_before_it_goes_up() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        symlink("a/b", root.join("link")).unwrap();
        symlink(root.join("link/none"), root.join("dangling")).unwrap();
        for (path, real) in
            [("link/../x", "a/x"), ("link/./y//z", "a/b/y/z"), ("dangling/deep", "a/b/none/deep"), ("none/../q", "q")]
        {
            assert_eq!(resolve(&format!("{}/{path}", root.display())).unwrap(), root.join(real), "{path}");
        }
        assert_eq!(resolve("/../..").unwrap(), Path::new("/"));
    }

    #[test]
    fn resolve_of_a_loop_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        symlink("two", dir.path().join("one")).unwrap();
        symlink("one", dir.path().join("two")).unwrap();
        assert_eq!(resolve(dir.path().join("one").to_str().unwrap()).unwrap_err().code, ErrorCode::FileOpen);
    }
}
