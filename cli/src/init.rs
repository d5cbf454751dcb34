//! Sets up backups of a cluster: finds it, writes a configuration, sets what PostgreSQL needs, creates the stanza.

mod ask;
mod choose;
mod draft;
mod finish;
mod write;

use engine::{Error, ErrorCode, Result};
use repo_format::cipher::Passphrase;
use repo_format::format::RepoFormat;

use self::ask::{Ask, Terminal, is_yes};
use self::draft::{Draft, Reveal};
use crate::config::{Config, opt};

pub(crate) use self::finish::finish;

/// How far a step got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next step can follow.
    Done,
    /// Something is left to do for the user, who was told what.
    LeftToDo,
}

/// Someone who answers questions; `None` if nobody does.
pub(crate) type Asked = Option<Box<dyn Ask>>;

/// Returns the terminal if there is one and questions are wanted.
pub(crate) fn terminal(yes: bool) -> Asked {
    Terminal::open().filter(|_| !yes).map(|terminal| Box::new(terminal) as Box<dyn Ask>)
}

/// Shows a configuration for one cluster and writes it.
///
/// # Errors
/// The same as `init`.
pub(crate) fn configure(config: &Config, path: &str, asked: &mut Asked) -> Result<Step> {
    let cluster = choose::cluster(config, asked)?;
    let stanza = config.get(opt::STANZA)?;
    let mut draft = Draft::of(config)?;
    draft.add_cluster(&cluster)?;
    if let Some(asked) = asked {
        draft::ask(&mut draft, config, &mut **asked)?;
    }
    draft.add_defaults(config)?;
    add_passphrases(&mut draft, config)?;
    if config.has_files() {
        return Err(offer(&draft, config, stanza, path)?);
    }
    draft.check(stanza, path)?;

    let place = write::Place::new(path, &cluster.owner, &draft);
    // A passphrase that nobody but the user sees is shown, because it has to be kept
    if asked.is_some() {
        // Between the questions and what they led to
        crate::print("\n")?;
    }
    let shown = draft.text(stanza, if asked.is_some() { Reveal::Generated } else { Reveal::Nothing });
    crate::print(&format!("{}\n{}", indent(&shown, &place.title()), place.directories_text()))?;
    let wanted = match asked {
        Some(asked) => is_yes(&asked.ask("Write it?", "n")?),
        None => config.get(opt::YES)?,
    };
    if !wanted {
        crate::print("Nothing was written. To write it, run init with --yes, or on a terminal.\n")?;
        return Ok(Step::LeftToDo);
    }
    place.write(&draft.text(stanza, Reveal::All))?;
    if draft.has_generated() {
        crate::print(&format!(
            "The repository is encrypted. Its passphrase is in {path} (cipher-pass). Keep a copy in a place that survives this \
             host: nobody can read the repository without it.\n\n"
        ))?;
    }
    Ok(Step::Done)
}

/// Checks that an existing configuration has what the command line asks for, since it will not be changed.
///
/// # Errors
/// [`ErrorCode::OptionInvalid`] for an option that it does not have.
pub(crate) fn check_configured(config: &Config, stanza: &str) -> Result<()> {
    let other = config.lines_for_file().into_iter().find(|line| {
        let has = |section| config.files_set_to(section, &line.key, &line.value);
        line.typed && !has(stanza) && !has("global")
    });
    match other {
        None => Ok(()),
        Some(line) => {
            let text =
                format!("the configuration of the stanza '{stanza}' does not have this value of option '{}'", line.key);
            Err(Error::new(ErrorCode::OptionInvalid, text)
                .hint("init does not change an existing configuration: edit the file, or omit the option."))
        }
    }
}

/// Generates the passphrases of encrypted repositories that have none.
fn add_passphrases(draft: &mut Draft, config: &Config) -> Result<()> {
    for &key in config.repo_keys() {
        if draft.value(&format!("repo{key}-cipher-type")).is_some_and(|kind| kind != "none")
            && draft.value(&format!("repo{key}-cipher-pass")).is_none()
        {
            draft.add_generated(
                &format!("repo{key}-cipher-pass"),
                Passphrase::generate(RepoFormat::default())?.expose(),
            )?;
        }
    }
    Ok(())
}

/// Shows what an existing configuration lacks, and returns the error.
fn offer(draft: &Draft, config: &Config, stanza: &str, path: &str) -> Result<Error> {
    let missing = draft.lacking(|key| config.files_set("global", key));
    crate::print(&format!("{}\n", indent(&missing.text(stanza, Reveal::Nothing), "To add")))?;
    let text = format!("there is a configuration already, without the stanza '{stanza}'");
    Ok(Error::new(ErrorCode::FileExists, text)
        .hint("init does not change existing files: add what is shown, then run init again.")
        .hint(format!("or name another file than '{path}' with --config.")))
}

/// The text with four spaces before each line, below a title.
fn indent(text: &str, title: &str) -> String {
    let lines = text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("    {line}\n") });
    format!("{title}\n\n{}", lines.collect::<String>())
}

#[cfg(test)]
mod tests;
