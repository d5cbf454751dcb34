//! `repo-ls`: lists files of a repository.

use engine::posix_regex::PosixRegex;
use engine::repo::browse::{self, ListOrder, ListSettings};
use engine::storage::{Entry, EntryKind};
use engine::{Error, ErrorCode, Result};
use repo_format::json::write_string;
use repo_format::layout::RepoPath;

use crate::config::{Config, opt};
use crate::render::control::valid_json;
use crate::render::ls;
use crate::{ExitStatus, print, repos};

/// Characters that are printed at a time.
const FLUSH_SIZE: usize = 1 << 16;

/// Lists the given path, or the whole repository.
///
/// # Errors
/// The path is not in the repository, or it can't be read. A reader that closes the output early is not an error.
pub fn run(config: &Config) -> Result<ExitStatus> {
    match list(config) {
        // Most likely the output goes to a program that has read enough
        Err(error) if error.code == ErrorCode::FileWrite => Ok(ExitStatus::SUCCESS),
        done => done.map(|()| ExitStatus::SUCCESS),
    }
}

fn list(config: &Config) -> Result<()> {
    let repo = repos::open_default(config)?;
    let path = match config.params() {
        [] => RepoPath::root(),
        [path] => browse::user_path_read(&repo, path)?,
        _ => return Err(Error::new(ErrorCode::ParamInvalid, "only one path may be specified")),
    };
    let settings = ListSettings {
        recurse: config.get(opt::RECURSE)?,
        order: if config.get(opt::SORT)? == "desc" { ListOrder::Descending } else { ListOrder::Ascending },
        filter: config.find(opt::FILTER).map(PosixRegex::new).transpose()?,
    };
    let mut out = ListingText { json: config.get(opt::OUTPUT)? == "json", first: true, text: String::new() };
    if out.json {
        out.text.push('{');
    }
    match repo.storage.info(&path)? {
        Some(file) if file.kind == EntryKind::File => {
            if settings.matches(&repo.storage.display(&path)) {
                out.add(&Entry { name: ".".to_owned(), ..file }, None)?;
            }
        }
        _ => {
            // The directory itself is always listed, so that stores without directories give the same answer
            let itself = Entry { name: ".".to_owned(), kind: EntryKind::Path, size: 0, modified: 0, version: None };
            if out.json && settings.matches(".") {
                out.add(&itself, None)?;
            }
            browse::list(&repo, &path, &settings, &mut |entry, destination| out.add(entry, destination))?;
        }
    }
    if out.json {
        out.text.push_str("}\n");
    }
    print(&out.text)
}

/// Collects the output and prints it in chunks.
struct ListingText {
    json: bool,
    first: bool,
    text: String,
}

impl ListingText {
    fn add(&mut self, entry: &Entry, destination: Option<&str>) -> Result<()> {
        if self.json {
            if !self.first {
                self.text.push(',');
            }
            let mut name = String::new();
            write_string(&mut name, &entry.name);
            self.text.push_str(&valid_json(&name));
            self.text.push(':');
            self.text.push_str(&ls::json_value(entry, destination));
        } else {
            self.text.push_str(&ls::text_line(entry));
        }
        self.first = false;
        if self.text.len() >= FLUSH_SIZE {
            print(&self.text)?;
            self.text.clear();
        }
        Ok(())
    }
}
