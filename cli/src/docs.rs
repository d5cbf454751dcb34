//! Documents made from the option table: `rbr docs NAME` prints one. It is no part of pgBackRest's command line and not listed
//! in help.

mod compatibility;
mod reference;
mod shell;

use std::ffi::OsString;

use engine::{Error, ErrorCode, Result};

use crate::exit::ExitStatus;

/// Makes one document.
type Maker = fn() -> Result<String>;

/// The documents by name.
const DOCUMENTS: [(&str, Maker); 7] = [
    ("compatibility", || Ok(compatibility::render())),
    ("reference", || Ok(reference::render())),
    ("sample", || Ok(reference::sample())),
    ("man", shell::man),
    ("bash", shell::bash),
    ("zsh", shell::zsh),
    ("fish", shell::fish),
];

/// Runs `rbr docs NAME`, if that is what the arguments are.
pub(crate) fn run_if_asked(args: &[OsString]) -> Option<Result<ExitStatus>> {
    let [_, command, rest @ ..] = args else { return None };
    if command != "docs" {
        return None;
    }
    let document = match rest {
        [name] => DOCUMENTS.iter().find(|(known, _)| name == known),
        _ => None,
    };
    Some(match document {
        Some((_, make)) => make().and_then(|text| crate::print(&text)).map(|()| ExitStatus::SUCCESS),
        None => {
            let names: Vec<&str> = DOCUMENTS.iter().map(|(name, _)| *name).collect();
            Err(Error::new(ErrorCode::ParamInvalid, "docs needs the name of one document")
                .hint(format!("documents are {}.", names.join(", "))))
        }
    })
}

/// The text of a document, for tests that compare it with the committed one.
///
/// # Errors
/// [`ErrorCode::ParamInvalid`] where there is none of that name.
pub fn render(name: &str) -> Result<String> {
    match DOCUMENTS.iter().find(|(known, _)| *known == name) {
        Some((_, make)) => make(),
        None => Err(Error::new(ErrorCode::ParamInvalid, format!("there is no document '{name}'"))),
    }
}
