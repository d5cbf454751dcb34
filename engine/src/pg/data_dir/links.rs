//! Checks that links of a data directory lead neither back into it nor to the same destination: a restore could not
//! create both.

use std::collections::BTreeMap;

use crate::{Error, ErrorCode, Result};

/// Checks each link against the data directory and all links before it.
#[derive(Debug)]
pub(crate) struct LinkCheck {
    base: String,
    /// Links to directories. The key is the absolute destination with a trailing slash, so that a prefix is a parent
    /// directory. The value is the link relative to the data directory. No key is a prefix of another.
    directories: BTreeMap<String, String>,
    /// Links to files: from the destination's directory, as above, and the file name there.
    files: BTreeMap<String, BTreeMap<String, String>>,
}

impl LinkCheck {
    /// Creates a check for the data directory at this absolute path.
    pub(crate) fn new(pg_path: &str) -> Self {
        LinkCheck { base: format!("{pg_path}/"), directories: BTreeMap::new(), files: BTreeMap::new() }
    }

    /// Checks a link, named relative to the data directory, and records it.
    ///
    /// # Errors
    /// [`ErrorCode::LinkDestination`].
    pub(crate) fn add(&mut self, link: &str, destination: &str, file: Option<&str>) -> Result<()> {
        let path = format!("{destination}/");
        let fail = |message: String| Err(Error::new(ErrorCode::LinkDestination, message));
        if path.starts_with(&self.base) {
            return fail(format!("link '{link}' destination '{destination}' is in PGDATA"));
        }
        let other_path = path.trim_end_matches('/');
        let same_path = match file {
            // Other files of the same directory do not conflict
            Some(file) => {
                if let Some(other) = self.files.get(&path).and_then(|files| files.get(file)) {
                    return fail(format!(
                        "link '{link}' ({destination}/{file}) destination is the same file as link '{other}' ({other_path}/{file})"
                    ));
                }
                self.directories.get(&path)
            }
            None => self.directories.get(&path).or_else(|| self.files.get(&path)?.values().next()),
        };
        if let Some(other) = same_path {
            return fail(format!(
                "link '{link}' ({destination}) destination is the same directory as link '{other}' ({other_path})"
            ));
        }
        let Some(file) = file else { return self.add_directory(link, destination, path) };
        self.files.entry(path).or_default().insert(file.to_owned(), link.to_owned());
        Ok(())
    }

    /// The nearest directory link before a path is its parent, if it has one; the nearest after it may be below it.
    /// Links to files may lead anywhere.
    fn add_directory(&mut self, link: &str, destination: &str, path: String) -> Result<()> {
        let fail = |message: String| Err(Error::new(ErrorCode::LinkDestination, message));
        if let Some((parent_path, parent)) = self.directories.range(..path.clone()).next_back()
            && path.starts_with(parent_path)
        {
            return fail(format!(
                "link '{link}' ({destination}) destination is a subdirectory of link '{parent}' ({})",
                parent_path.trim_end_matches('/')
            ));
        }
        if let Some((child_path, child)) = self.directories.range(path.clone()..).next()
            && child_path.starts_with(&path)
        {
            return fail(format!(
                "link '{child}' ({}) destination is a subdirectory of link '{link}' ({destination})",
                child_path.trim_end_matches('/')
            ));
        }
        self.directories.insert(path, link.to_owned());
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
