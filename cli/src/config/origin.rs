//! Where exactly a value comes from, for help.

use std::fmt;

use super::decl::Section;
use super::env::PREFIX;
use super::{Config, OptionDecl, Source, file, opt, options};

/// The place where a value was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    CommandLine,
    /// The variable of this name.
    Environment(String),
    /// A configuration file.
    File {
        /// Its path.
        path: String,
        /// The section with the option.
        section: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::CommandLine => f.write_str("command line"),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::File { path, section } => write!(f, "{path}, section [{section}]"),
        }
    }
}

impl Config {
    /// Returns where the value of an option (with the user's number) was set; `None` for a default.
    pub fn origin(&self, decl: &OptionDecl, key: u32) -> Option<Origin> {
        match self.slot(decl, key)?.source {
            Source::Default => None,
            Source::CommandLine => Some(Origin::CommandLine),
            Source::Environment => Some(Origin::Environment(variable_name(decl, key))),
            Source::File => {
                let (_, ini) = self.input.environment_and_files();
                let option = (options::find(decl.name)?, key.max(1));
                let sections = file::sections(self.find(opt::STANZA), self.command());
                sections.into_iter().find_map(|(section, _)| {
                    let is_global = section.split(':').next() == Some("global");
                    if is_global && decl.section == Section::Stanza {
                        return None;
                    }
                    let path = ini?.place_of(&section, option)?.to_owned();
                    Some(Origin::File { path, section })
                })
            }
        }
    }
}

/// Returns the name of the environment variable that sets an option.
pub(crate) fn variable_name(decl: &OptionDecl, key: u32) -> String {
    format!("{PREFIX}{}", decl.indexed_name(key).to_ascii_uppercase().replace('-', "_"))
}
