//! Configuration files: which are read, and what their sections set.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;

use engine::{Error, ErrorCode, Result};
use repo_format::ini;

use super::Source;
use super::decl::{Command, Role, Section, ValueKind};
use super::names::{self, FoundName, Match, find_option, shown};
use super::options::{self, ALL, OptionIndex, opt};
use super::parse::{FoundOption, FoundOptions};
use super::{suggest, text};

/// The main file if none is named.
pub(crate) const DEFAULT_FILE: &str = "/etc/pgbackrest/pgbackrest.conf";
const DEFAULT_INCLUDE_PATH: &str = "/etc/pgbackrest/conf.d";
/// The path of the file in old versions.
const OLD_FILE: &str = "/etc/pgbackrest.conf";
/// The largest size in bytes of a file, and of all files together. It is more than any configuration needs, so that a wrong
/// path does not fill the memory: the lines in memory take up to 100 times as much.
const SIZE_MAX: u64 = 1024 * 1024;

/// Access to the files. Tests use their own implementation.
pub trait ConfigFiles {
    /// Returns the content of a file; `None` if it does not exist.
    ///
    /// # Errors
    /// The file exists but can't be read.
    fn read(&self, path: &str) -> Result<Option<String>>;

    /// Returns the names in a directory; `None` if it does not exist.
    ///
    /// # Errors
    /// The directory exists but can't be read.
    fn list(&self, path: &str) -> Result<Option<Vec<String>>>;
}

/// The files of this host.
#[derive(Clone, Copy, Debug)]
pub struct SystemFiles;

impl ConfigFiles for SystemFiles {
    fn read(&self, path: &str) -> Result<Option<String>> {
        use std::io::Read;
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let text = format!("unable to open file '{path}' for read");
                return Err(Error::from_io(ErrorCode::FileOpen, text, error));
            }
        };
        let mut bytes = Vec::new();
        file.take(SIZE_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::from_io(ErrorCode::FileRead, format!("unable to read '{path}'"), error))?;
        if bytes.len() as u64 > SIZE_MAX {
            let text = format!("configuration file '{path}' is larger than {SIZE_MAX} bytes");
            return Err(Error::new(ErrorCode::FileInvalid, text));
        }
        Ok(Some(text::decode(&bytes)))
    }

    fn list(&self, path: &str) -> Result<Option<Vec<String>>> {
        let failed = |error| {
            let text = format!("unable to list file info for path '{path}'");
            Error::from_io(ErrorCode::PathOpen, text, error)
        };
        let entries = match std::fs::read_dir(Path::new(path)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(text::decode_os(&entry.map_err(failed)?.file_name()));
        }
        Ok(Some(names))
    }
}

/// One `key=value` line of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
struct IniLine {
    key: String,
    value: String,
    /// The file that contains it.
    path: Arc<str>,
}

/// The content of all files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ini(
    /// The lines of each section, in order. There may be as many sections as stanzas, and each is looked up by name.
    BTreeMap<String, Vec<IniLine>>,
);

impl Ini {
    /// Adds the lines of a file with this path.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] with the number of the line and the path.
    fn add(&mut self, path: &str, text: &str) -> Result<()> {
        let entries =
            ini::read_config(text).map_err(|error| error.context(format_args!("configuration file '{path}'")))?;
        let path = Arc::from(path);
        for entry in entries {
            let line = IniLine { key: entry.key.to_owned(), value: entry.value.to_owned(), path: Arc::clone(&path) };
            match self.0.get_mut(entry.section) {
                Some(lines) => lines.push(line),
                None => drop(self.0.insert(entry.section.to_owned(), vec![line])),
            }
        }
        Ok(())
    }

    /// The names of the sections, in order.
    pub(super) fn sections(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Returns the file whose line sets this option in a section, and its key.
    pub(super) fn place_of(&self, section: &str, option: (OptionIndex, u32)) -> Option<&str> {
        let sets = |key: &str| {
            let found = find_option(key, Match::Exact).ok().flatten();
            found.is_some_and(|found| (found.option, found.key) == option && !found.negate && !found.reset)
        };
        self.0.get(section)?.iter().find(|line| sets(&line.key)).map(|line| &*line.path)
    }

    /// Returns the keys of a section in the order of their first appearance, each with all its values.
    pub(super) fn keys(&self, section: &str) -> Vec<(&str, Vec<&str>)> {
        let mut keys: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for line in self.0.get(section).into_iter().flatten() {
            let place = *places.entry(&line.key).or_insert(keys.len());
            match keys.get_mut(place) {
                Some((_, values)) => values.push(&line.value),
                None => keys.push((&line.key, vec![&line.value])),
            }
        }
        keys
    }
}

/// A path to read. It must exist if the user named it.
struct ConfigPath {
    path: String,
    required: bool,
}

/// The paths to read, as chosen on the command line and in the environment.
struct ConfigPaths {
    file: Option<ConfigPath>,
    include: Option<ConfigPath>,
}

impl ConfigPaths {
    fn of(found: &FoundOptions) -> Result<Self> {
        let given = |decl: &super::OptionDecl| {
            // Only the command line and the environment have been read at this point
            options::find(decl.name).and_then(|index| found.get(index, 1))
        };
        let decls = [opt::CONFIG.decl(), opt::CONFIG_PATH.decl(), opt::CONFIG_INCLUDE_PATH.decl()];
        for decl in decls {
            if given(decl).is_some_and(|found| found.values.iter().any(|value| !text::is_whole(value))) {
                return Err(text::not_whole(decl.name));
            }
        }
        let [config, config_path, include_path] = decls.map(given);
        debug_assert!(config.is_none_or(|found| found.source != Source::File));
        // Paths are relative to the root, not to the working directory
        let path_of = |entry: Option<&FoundOption>| {
            let path = entry?.values.first()?;
            Some(if path.starts_with('/') { path.clone() } else { format!("/{path}") })
        };
        let base = path_of(config_path);
        let path = |named: Option<String>, name: &str, default: &str| ConfigPath {
            required: named.is_some(),
            path: named.unwrap_or_else(|| match &base {
                Some(base) => format!("{base}/{name}"),
                None => default.to_owned(),
            }),
        };
        let (file, include) = (path_of(config), path_of(include_path));
        let no_config = config.is_some_and(|found| found.negate);
        // An explicit file is the only one unless a directory is named too; --no-config counts as one
        let file_only = config.is_some() && base.is_none() && include.is_none();
        Ok(ConfigPaths {
            file: (!no_config).then(|| path(file, "pgbackrest.conf", DEFAULT_FILE)),
            include: (!file_only).then(|| path(include, "conf.d", DEFAULT_INCLUDE_PATH)),
        })
    }
}

/// Returns the paths that [`load`] reads, for the configuration of a running process.
pub(super) fn paths(config: &super::Config) -> Vec<std::path::PathBuf> {
    let mut found = config.input.line().found.clone();
    let (environment, _) = config.input.environment_and_files();
    // Both were valid when the process started
    let _ = super::env::add(&mut found, environment, config.command(), config.role(), &mut |_| ());
    let Ok(ConfigPaths { file, include }) = ConfigPaths::of(&found) else { return Vec::new() };
    let mut paths = Vec::new();
    if let Some(file) = file {
        if file.path == DEFAULT_FILE {
            paths.push(OLD_FILE.into());
        }
        paths.push(file.path.into());
    }
    paths.extend(include.map(|include| include.path.into()));
    paths
}

/// Reads the files that the command line names, or the default files. Returns `None` if there are none.
///
/// # Errors
/// A file that the command line names is missing, a file can't be read, or its syntax is wrong.
pub(super) fn load(files: &dyn ConfigFiles, found: &FoundOptions) -> Result<Option<Ini>> {
    read_all(files, ConfigPaths::of(found)?)
}

/// Like [`load`], but no file has to exist.
///
/// # Errors
/// A file can't be read, or its syntax is wrong.
pub(super) fn load_existing(files: &dyn ConfigFiles, found: &FoundOptions) -> Result<Option<Ini>> {
    let ConfigPaths { file, include } = ConfigPaths::of(found)?;
    let optional = |path: ConfigPath| ConfigPath { required: false, ..path };
    read_all(files, ConfigPaths { file: file.map(optional), include: include.map(optional) })
}

/// Returns the path of the main file of a configuration, whether or not it exists.
pub(super) fn main_path(config: &super::Config) -> Option<String> {
    let mut found = config.input.line().found.clone();
    let (environment, _) = config.input.environment_and_files();
    // Both were valid when the process started
    let _ = super::env::add(&mut found, environment, config.command(), config.role(), &mut |_| ());
    ConfigPaths::of(&found).ok()?.file.map(|file| file.path)
}

fn read_all(files: &dyn ConfigFiles, paths: ConfigPaths) -> Result<Option<Ini>> {
    let mut ini = None;
    let mut size = 0;
    if let Some(chosen) = paths.file
        && let Some((path, text)) = read_file(files, chosen)?
    {
        size = text.len() as u64;
        // An empty file is a configuration without options
        ini.get_or_insert_with(Ini::default).add(&path, &text)?;
    }
    let Some(include) = paths.include else { return Ok(ini) };
    for name in list_parts(files, &include)? {
        let path = &include.path;
        if !text::is_whole(&name) {
            let name = text::show(&name);
            let text = format!("name of configuration file '{name}' in path '{path}' is not valid UTF-8");
            return Err(Error::new(ErrorCode::FileOpen, text).hint("rename the file."));
        }
        // It may have been removed since
        let path_of_part = format!("{path}/{name}");
        let Some(part) = files.read(&path_of_part)? else { continue };
        size = size.saturating_add(part.len() as u64);
        if size > SIZE_MAX {
            let text = format!("configuration files in '{path}' are larger than {SIZE_MAX} bytes together");
            return Err(Error::new(ErrorCode::FileInvalid, text));
        }
        // Each file must be complete by itself. An empty one counts as none
        if !part.is_empty() {
            ini.get_or_insert_with(Ini::default).add(&path_of_part, &part)?;
        }
    }
    Ok(ini)
}

/// Reads the main file, or the one that old versions read by default. Returns its path and content.
fn read_file(files: &dyn ConfigFiles, chosen: ConfigPath) -> Result<Option<(String, String)>> {
    let ConfigPath { path, required } = chosen;
    if let Some(text) = files.read(&path)? {
        return Ok(Some((path, text)));
    }
    if required {
        let text = format!("unable to open missing file '{path}' for read");
        return Err(Error::new(ErrorCode::FileMissing, text));
    }
    if path != DEFAULT_FILE {
        return Ok(None);
    }
    Ok(files.read(OLD_FILE)?.map(|text| (OLD_FILE.to_owned(), text)))
}

/// Returns the names of the files in the include path, in order.
fn list_parts(files: &dyn ConfigFiles, include: &ConfigPath) -> Result<Vec<String>> {
    let mut names = match files.list(&include.path)? {
        Some(names) => names,
        None if include.required => {
            let text = format!("unable to list file info for missing path '{}'", include.path);
            return Err(Error::new(ErrorCode::PathMissing, text));
        }
        None => Vec::new(),
    };
    names.retain(|name| name.len() > ".conf".len() && name.ends_with(".conf"));
    names.sort();
    Ok(names)
}

/// Adds options that the files set and neither command line nor environment do. Sections of the stanza precede global
/// sections, and sections of the command precede general sections.
///
/// A value that contains the assignment of a secure option is an error, because two lines became one and messages show
/// the value.
///
/// # Errors
/// [`ErrorCode::OptionInvalid`] for an option set twice, [`ErrorCode::OptionInvalidValue`] for a missing value, a wrong
/// boolean, or a value that contains a secret. Unknown and misplaced options only cause warnings.
pub(super) fn add(
    found: &mut FoundOptions,
    content: &Ini,
    command: Command,
    role: Role,
    warn: &mut dyn FnMut(String),
) -> Result<()> {
    let stanza = options::find("stanza").and_then(|index| found.get(index, 1)).and_then(|found| found.values.first());
    for (section, of_command) in &sections(stanza.map(String::as_str), command) {
        let mut seen: Vec<(usize, u32, &str)> = Vec::new();
        for (key, values) in content.keys(section) {
            let is_own = *of_command && command.decl().own;
            let Some(option) = option_of(key, is_own, warn)? else { continue };
            let decl = ALL[option.option];
            let same = seen.iter().find(|(index, number, _)| (*index, *number) == (option.option, option.key));
            if let Some((_, _, other)) = same {
                let text = format!(
                    "configuration file contains duplicate options ('{key}', '{other}') in section '[{section}]'"
                );
                return Err(Error::new(ErrorCode::OptionInvalid, text));
            }
            seen.push((option.option, option.key, key));
            // pgBackRest's command does not know an option that depends on one of our own
            let is_unknown = *of_command
                && decl.depend_for(command).is_some_and(|depend| {
                    !command.decl().own && options::find(depend.option).is_some_and(|index| ALL[index].own)
                });
            if is_unknown || !decl.is_valid(command, role) {
                if *of_command {
                    warn(format!("configuration file contains option '{key}' invalid for section '{section}'"));
                }
                continue;
            }
            if decl.section == Section::Stanza && (section == "global" || section.starts_with("global:")) {
                warn(format!("configuration file contains stanza-only option '{key}' in global section '{section}'"));
                continue;
            }
            if found.get(option.option, option.key).is_none() {
                found.add(option.option, option.key, read_values(option, section, key, &values)?);
            }
        }
    }
    Ok(())
}

/// The sections that apply to a command, the first of which has precedence, and whether they are only for this command.
pub(super) fn sections(stanza: Option<&str>, command: Command) -> Vec<(String, bool)> {
    let owners = [stanza, Some("global")].into_iter().flatten();
    owners.flat_map(|name| [(format!("{name}:{}", command.name()), true), (name.to_owned(), false)]).collect()
}

/// Returns the option that a key sets. Warns about a key that sets none. `is_own` says that the section is one of a
/// command that pgBackRest lacks.
fn option_of(key: &str, is_own: bool, warn: &mut dyn FnMut(String)) -> Result<Option<FoundName>> {
    // pgBackRest reads the same file and does not know our own options, but passes over sections of our own commands
    let Some(option) = find_option(key, Match::Exact)?.filter(|option| is_own || !ALL[option.option].own) else {
        let text = format!("configuration file contains invalid option '{}'", text::show(&shown(key)));
        warn(suggest::with_hint(text, suggest::option_in_file(key)));
        return Ok(None);
    };
    let refused = match option {
        FoundName { negate: true, .. } => "negate",
        FoundName { reset: true, .. } => "reset",
        _ if ALL[option.option].section == Section::CommandLine => "command-line only",
        _ => return Ok(Some(option)),
    };
    warn(format!("configuration file contains {refused} option '{key}'"));
    Ok(None)
}

/// Reads the values that the lines of a section give to an option.
pub(super) fn read_values(option: FoundName, section: &str, key: &str, values: &[&str]) -> Result<FoundOption> {
    let decl = ALL[option.option];
    let invalid = |text: String| Err(Error::new(ErrorCode::OptionInvalidValue, text));
    if !decl.secure
        && let Some(secret) = values.iter().find_map(|value| names::secure_option_in(value))
    {
        let text = format!("section '{section}', key '{key}' has a value that holds '{secret}='");
        return Err(Error::new(ErrorCode::OptionInvalidValue, text)
            .hint("put each option on its own line; a line feed may be missing."));
    }
    let mut entry = FoundOption { negate: false, reset: false, source: Source::File, values: Vec::new() };
    match (decl.kind, values) {
        (kind, [_, _, ..]) if !kind.is_multi() => {
            let name = decl.indexed_name(option.key);
            let text = format!("option '{name}' cannot be set multiple times");
            return Err(Error::new(ErrorCode::OptionInvalid, text));
        }
        (_, [_, _, ..]) => entry.values = values.iter().map(|&value| value.to_owned()).collect(),
        (_, [] | [""]) => return invalid(format!("section '{section}', key '{key}' must have a value")),
        (ValueKind::Boolean, ["y"]) => (),
        (ValueKind::Boolean, ["n"]) => entry.negate = true,
        (ValueKind::Boolean, [_]) => return invalid(format!("boolean option '{key}' must be 'y' or 'n'")),
        (_, [value]) => entry.values.push((*value).to_owned()),
    }
    Ok(entry)
}
