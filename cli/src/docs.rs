//! Documents generated from the option table. `rbr docs NAME` prints one. It is not part of pgBackRest's command line
//! and help does not list it.

mod compatibility;
mod reference;
mod shell;
mod troubleshooting;

use std::ffi::OsString;

use engine::{Error, ErrorCode, Result};

use crate::exit::ExitStatus;

/// Generates a document.
type Maker = fn() -> Result<String>;

/// The documents by name.
const DOCUMENTS: [(&str, Maker); 8] = [
    ("compatibility", || Ok(compatibility::render())),
    ("reference", || Ok(reference::render())),
    ("troubleshooting", || Ok(troubleshooting::render())),
    ("sample", || Ok(reference::sample())),
    ("man", shell::man),
    ("bash", shell::bash),
    ("zsh", shell::zsh),
    ("fish", shell::fish),
];

/// Runs `rbr docs NAME`, if these are the arguments.
pub(crate) fn run_if_asked(args: &[OsString]) -> Option<Result<ExitStatus>> {
    let [_, command, rest @ ..] = args else { return None };
    if command != "docs" {
        return None;
    }
    if let [name, command] = rest
        && name == "man"
    {
        let page = shell::man_of(&command.to_string_lossy());
        return Some(page.and_then(|text| crate::print(&text)).map(|()| ExitStatus::SUCCESS));
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

/// Returns the text of a document, for tests that compare it with the committed one.
///
/// # Errors
/// [`ErrorCode::ParamInvalid`] if there is no document of that name.
pub fn render(name: &str) -> Result<String> {
    match DOCUMENTS.iter().find(|(known, _)| *known == name) {
        Some((_, make)) => make(),
        None => Err(Error::new(ErrorCode::ParamInvalid, format!("there is no document '{name}'"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_can_be_made() {
        for (name, _) in DOCUMENTS {
            assert!(render(name).unwrap().len() > 1000, "{name}");
        }
        assert_eq!(render("bogus").unwrap_err().code, ErrorCode::ParamInvalid);
    }

    /// To update them: `cargo run -- docs NAME > docs/NAME.md`.
    #[test]
    fn committed_documents_are_up_to_date() {
        for (name, folder) in [("compatibility", ""), ("reference", ""), ("troubleshooting", "guide/")] {
            let path = format!("{}/../docs/{folder}{name}.md", env!("CARGO_MANIFEST_DIR"));
            let committed = std::fs::read_to_string(&path).unwrap();
            assert!(committed == render(name).unwrap(), "docs/{folder}{name}.md is not what `rbr docs {name}` prints");
        }
    }

    #[test]
    fn sample_configuration_is_valid_when_uncommented() {
        let text: String = render("sample")
            .unwrap()
            .lines()
            .map(|line| {
                line.strip_prefix('#').filter(|line| line.contains('=') && !line.starts_with(' ')).unwrap_or(line)
            })
            .filter(|line| !line.ends_with('='))
            .map(|line| format!("{line}\n"))
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let config = format!("--config={}", file.path().display());
        let line =
            crate::config::CommandLine::parse(["rbr", "--stanza=demo", "--pg1-path=/p", &config, "backup"]).unwrap();
        let mut warnings = Vec::new();
        let environment = crate::config::Environment::default();
        let files = crate::config::SystemFiles;
        crate::Config::resolve(line, environment, &files, &mut |text| warnings.push(text)).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
    }
}
