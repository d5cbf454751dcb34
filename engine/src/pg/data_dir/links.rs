//! Links of a data directory must not lead back into it, nor two of them to the same place: a restore could not make both.

use crate::{Error, ErrorCode, Result};

/// One link as the checks see it.
#[derive(Clone, Debug)]
struct Known {
    /// Absolute destination directory with a slash at the end, so that a prefix is a parent directory.
    path: String,
    /// File name in the destination directory, for links to files.
    file: Option<String>,
    /// Path of the link relative to the data directory, for messages.
    link: String,
}

/// Checks each link against the data directory and all links before it.
#[derive(Debug)]
pub(crate) struct LinkCheck {
    base: String,
    /// Sorted by path.
    known: Vec<Known>,
}

impl LinkCheck {
    /// For the data directory at this absolute path.
    pub(crate) fn new(pg_path: &str) -> Self {
        LinkCheck { base: format!("{pg_path}/"), known: Vec::new() }
    }

    /// Checks a link, named relative to the data directory, and remembers it.
    ///
    /// # Errors
    /// [`ErrorCode::LinkDestination`].
    pub(crate) fn add(&mut self, link: &str, destination: &str, file: Option<&str>) -> Result<()> {
        let path = format!("{destination}/");
        let fail = |message: String| Err(Error::new(ErrorCode::LinkDestination, message));
        if path.starts_with(&self.base) {
            return fail(format!("link '{link}' destination '{destination}' is in PGDATA"));
        }
        let index = self.known.partition_point(|known| known.path < path);
        let same_path = self.known[index..].iter().take_while(|known| known.path == path);
        for other in same_path {
            let other_path = other.path.trim_end_matches('/');
            match (file, &other.file) {
                (Some(file), Some(other_file)) if file == other_file => {
                    return fail(format!(
                        "link '{link}' ({destination}/{file}) destination is the same file as link '{}' ({other_path}/{other_file})",
                        other.link
                    ));
                }
                // Other files of the same directory are no conflict
                (Some(_), Some(_)) => {}
                _ => {
                    return fail(format!(
                        "link '{link}' ({destination}) destination is the same directory as link '{}' ({other_path})",
                        other.link
                    ));
                }
            }
        }
        if file.is_none() {
            // The nearest directory link before this path is its parent if it has one; the nearest after it may be below it.
            // Links to files may lie anywhere.
            let parent = self.known[..index].iter().rev().find(|known| known.file.is_none());
            if let Some(parent) = parent.filter(|known| path.starts_with(&known.path)) {
                return fail(format!(
                    "link '{link}' ({destination}) destination is a subdirectory of link '{}' ({})",
                    parent.link,
                    parent.path.trim_end_matches('/')
                ));
            }
            let child = self.known[index..].iter().find(|known| known.file.is_none());
            if let Some(child) = child.filter(|known| known.path.starts_with(&path)) {
                return fail(format!(
                    "link '{}' ({}) destination is a subdirectory of link '{link}' ({destination})",
                    child.link,
                    child.path.trim_end_matches('/')
                ));
            }
        }
        self.known.insert(index, Known { path, file: file.map(str::to_owned), link: link.to_owned() });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(result: Result<()>) -> String {
        let error = result.unwrap_err();
        assert_eq!(error.code, ErrorCode::LinkDestination);
        error.message
    }

    #[test]
    fn link_into_the_data_directory_is_refused() {
        let mut check = LinkCheck::new("/pg");
        assert_eq!(message(check.add("a", "/pg/b", None)), "link 'a' destination '/pg/b' is in PGDATA");
        assert_eq!(message(check.add("a", "/pg", None)), "link 'a' destination '/pg' is in PGDATA");
        check.add("a", "/pg2", None).unwrap();
    }

    #[test]
    fn links_to_one_directory_are_refused() {
        let mut check = LinkCheck::new("/pg");
        check.add("a", "/x/y", None).unwrap();
        assert_eq!(
            message(check.add("b", "/x/y", None)),
            "link 'b' (/x/y) destination is the same directory as link 'a' (/x/y)"
        );
        assert_eq!(
            message(check.add("b", "/x/y/z", None)),
            "link 'b' (/x/y/z) destination is a subdirectory of link 'a' (/x/y)"
        );
        assert_eq!(
            message(check.add("b", "/x", None)),
            "link 'a' (/x/y) destination is a subdirectory of link 'b' (/x)"
        );
        check.add("b", "/x/y2", None).unwrap();
    }

    #[test]
    fn links_to_files_of_one_directory_are_allowed_but_not_to_one_file() {
        let mut check = LinkCheck::new("/pg");
        check.add("a", "/etc", Some("a.conf")).unwrap();
        check.add("b", "/etc", Some("b.conf")).unwrap();
        let text = message(check.add("c", "/etc", Some("b.conf")));
        assert_eq!(text, "link 'c' (/etc/b.conf) destination is the same file as link 'b' (/etc/b.conf)");
        assert_eq!(
            message(check.add("d", "/etc", None)).split_once(" as ").unwrap().0,
            "link 'd' (/etc) destination is the same directory"
        );
        check.add("e", "/etc/sub", None).unwrap();
    }
}
