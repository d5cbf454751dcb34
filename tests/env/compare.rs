//! Compares two directory trees entry by entry.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use sha1::{Digest, Sha1};

/// The compared properties of an entry. Times of folders are not compared, because creating a file changes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    Folder { mode: u32 },
    File { mode: u32, size: u64, modified: i64, sha1: String },
    Link { target: String },
}

impl fmt::Display for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder { mode } => write!(out, "d {mode:o}"),
            Self::File { mode, size, modified, sha1 } => write!(out, "f {mode:o} {size} {modified} {sha1}"),
            Self::Link { target } => write!(out, "l {target}"),
        }
    }
}

/// An entry that is not the same on both sides.
#[derive(Clone, Debug)]
pub struct Difference {
    pub path: String,
    pub left: Option<Entry>,
    pub right: Option<Entry>,
}

impl fmt::Display for Difference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |entry: &Option<Entry>| entry.as_ref().map_or_else(|| "missing".to_owned(), Entry::to_string);
        write!(out, "{}: {} | {}", self.path, show(&self.left), show(&self.right))
    }
}

/// A directory tree, by path relative to its top.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<String, Entry>);

impl Tree {
    /// Reads a tree. Tablespaces are read through their links. The targets of the links are not recorded, because two
    /// restored copies can't share them.
    pub fn read(top: &Path) -> Self {
        let mut tree = Self::default();
        tree.add(top, "");
        tree
    }

    /// Reads a restored data directory without `postgresql.auto.conf`, into which every restore writes the time.
    pub fn read_restored(top: &Path) -> Self {
        Self::read(top).without(|path| path == "postgresql.auto.conf")
    }

    fn add(&mut self, folder: &Path, prefix: &str) {
        for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let entry = entry.expect("directory entry");
            let name = entry.file_name().into_string().expect("UTF-8 name");
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            let on_disk = entry.path();
            let info = fs::symlink_metadata(&on_disk).expect("metadata");
            let mode = info.permissions().mode() & 0o7777;
            let found = if info.is_symlink() {
                if prefix == "pg_tblspc" {
                    self.add(&on_disk, &path);
                    Entry::Link { target: "(tablespace)".to_owned() }
                } else {
                    Entry::Link { target: fs::read_link(&on_disk).expect("link").to_string_lossy().into_owned() }
                }
            } else if info.is_dir() {
                self.add(&on_disk, &path);
                Entry::Folder { mode }
            } else {
                let content = fs::read(&on_disk).expect("file");
                let sha1 = Sha1::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
                Entry::File { mode, size: info.len(), modified: info.mtime(), sha1 }
            };
            self.0.insert(path, found);
        }
    }

    /// Parses the listing that [`Tree`]'s `Display` writes.
    pub fn parse(text: &str) -> Self {
        let parse = |line: &str| -> Option<(String, Entry)> {
            let (path, entry) = line.split_once('\t')?;
            let mut fields = entry.split(' ');
            let entry = match fields.next()? {
                "d" => Entry::Folder { mode: u32::from_str_radix(fields.next()?, 8).ok()? },
                "f" => Entry::File {
                    mode: u32::from_str_radix(fields.next()?, 8).ok()?,
                    size: fields.next()?.parse().ok()?,
                    modified: fields.next()?.parse().ok()?,
                    sha1: fields.next()?.to_owned(),
                },
                _ => Entry::Link { target: entry.strip_prefix("l ")?.to_owned() },
            };
            Some((path.to_owned(), entry))
        };
        Self(text.lines().map(|line| parse(line).unwrap_or_else(|| panic!("bad listing line: {line}"))).collect())
    }

    /// Omits the entries whose path `unwanted` selects.
    pub fn without(mut self, unwanted: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|path, _| !unwanted(path));
        self
    }

    /// Every entry that is not the same in `other`.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let paths: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        paths
            .into_iter()
            .filter_map(|path| {
                let (left, right) = (self.0.get(path).cloned(), other.0.get(path).cloned());
                (left != right).then(|| Difference { path: path.clone(), left, right })
            })
            .collect()
    }

    /// The two trees must be the same.
    #[track_caller]
    pub fn assert_same(&self, other: &Self) {
        let differences = self.differences(other);
        let shown: Vec<_> = differences.iter().take(20).map(Difference::to_string).collect();
        assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), shown.join("\n"));
        assert!(!self.0.is_empty(), "both trees are empty");
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(path, entry)| writeln!(out, "{path}\t{entry}"))
    }
}
