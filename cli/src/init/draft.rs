//! The configuration that will be written.

use std::fmt::Write as _;

use engine::pg::discover::FoundCluster;
use engine::{Error, ErrorCode, Result};

use super::ask::{Ask, is_yes};
use crate::config::{CommandLine, Config, ConfigFiles, Environment, FileLine, opt};

/// The port and socket directory that need no option.
const PORT_DEFAULT: u16 = 5432;
const SOCKET_DIRS_DEFAULT: [&str; 2] = ["/var/run/postgresql", "/run/postgresql"];
/// The prefix of object names, unless another is given.
const OBJECT_PATH: &str = "/pgbackrest";
/// The most threads that are configured unasked.
const PROCESS_MAX_LIMIT: usize = 8;

/// What a type of repository needs: the option, the question, the default, and the option of key types that makes a
/// secret unnecessary unless it has its default.
struct Need {
    kind: &'static str,
    option: &'static str,
    question: &'static str,
    default: &'static str,
    secret: bool,
    unless: Option<(&'static str, &'static str)>,
}

const fn need(kind: &'static str, option: &'static str, question: &'static str, default: &'static str) -> Need {
    Need { kind, option, question, default, secret: false, unless: None }
}

const fn key(need: Need, key_type: &'static str, needs_key: &'static str) -> Need {
    Need { secret: true, unless: Some((key_type, needs_key)), ..need }
}

const NEEDS: [Need; 16] = [
    need("posix", "path", "Directory of the repository", "/var/lib/pgbackrest"),
    need("cifs", "path", "Directory of the repository", ""),
    need("s3", "s3-bucket", "Bucket", ""),
    need("s3", "s3-endpoint", "Endpoint (host name)", "s3.amazonaws.com"),
    need("s3", "s3-region", "Region", "us-east-1"),
    key(need("s3", "s3-key", "Access key", ""), "s3-key-type", "shared"),
    key(need("s3", "s3-key-secret", "Secret access key", ""), "s3-key-type", "shared"),
    need("azure", "azure-account", "Storage account", ""),
    need("azure", "azure-container", "Container", ""),
    key(need("azure", "azure-key", "Key of the account", ""), "azure-key-type", "shared"),
    need("gcs", "gcs-bucket", "Bucket", ""),
    Need {
        secret: false,
        ..key(need("gcs", "gcs-key", "File of the service account's key", ""), "gcs-key-type", "service")
    },
    need("sftp", "sftp-host", "Host", ""),
    need("sftp", "sftp-host-user", "User on the host", ""),
    need("sftp", "sftp-private-key-file", "File of the private key", ""),
    need("sftp", "sftp-host-key-hash-type", "Hash of the host key's fingerprint (sha256, sha1, md5)", "sha256"),
];

/// A configuration file before it is written.
#[derive(Clone, Default)]
pub(super) struct Draft {
    lines: Vec<FileLine>,
    /// The keys whose values nobody has seen yet.
    generated: Vec<String>,
}

/// Which secrets a text contains. The others have a placeholder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reveal {
    /// None.
    Nothing,
    /// Those that were generated.
    Generated,
    /// All, for the file.
    All,
}

impl Draft {
    /// Begins with the options of command line and environment.
    ///
    /// # Errors
    /// A value that a line can't contain.
    pub(super) fn of(config: &Config) -> Result<Self> {
        let mut draft = Draft::default();
        for line in config.lines_for_file() {
            draft.push(line)?;
        }
        Ok(draft)
    }

    /// The value of a key.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.lines.iter().find(|line| line.key == key).map(|line| line.value.as_str())
    }

    fn push(&mut self, line: FileLine) -> Result<()> {
        if line.value.trim() != line.value || line.value.contains(char::is_control) || line.value.is_empty() {
            let text = format!("the value of '{}' can't be written to a configuration file", line.key);
            return Err(Error::new(ErrorCode::OptionInvalidValue, text)
                .hint("it is empty, or has blanks at its ends or control characters."));
        }
        self.lines.push(line);
        Ok(())
    }

    /// Adds an option to the global section, unless it is there.
    fn add(&mut self, key: &str, value: &str) -> Result<()> {
        if self.value(key).is_some() {
            return Ok(());
        }
        self.push(FileLine {
            of_stanza: false,
            key: key.to_owned(),
            value: value.to_owned(),
            secure: false,
            typed: false,
        })
    }

    /// Adds a secret.
    ///
    /// # Errors
    /// A value that a line can't contain.
    pub(super) fn add_secret(&mut self, key: &str, value: &str) -> Result<()> {
        self.push(FileLine {
            of_stanza: false,
            key: key.to_owned(),
            value: value.to_owned(),
            secure: true,
            typed: false,
        })
    }

    /// Adds a secret that the user does not know yet.
    ///
    /// # Errors
    /// A value that a line can't contain.
    pub(super) fn add_generated(&mut self, key: &str, value: &str) -> Result<()> {
        self.generated.push(key.to_owned());
        self.add_secret(key, value)
    }

    /// Returns whether there are secrets that the user does not know yet.
    pub(super) fn has_generated(&self) -> bool {
        !self.generated.is_empty()
    }

    /// Adds how to reach a cluster, as far as it is not as usual.
    ///
    /// # Errors
    /// A path that a line can't contain.
    pub(super) fn add_cluster(&mut self, cluster: &FoundCluster) -> Result<()> {
        let data = cluster.data.to_str().ok_or_else(|| {
            let text = format!("the path '{}' is not UTF-8: a configuration can't contain it", cluster.data.display());
            Error::new(ErrorCode::OptionInvalidValue, text)
        })?;
        let mut lines = vec![("pg1-path", data.to_owned())];
        if let Some(server) = &cluster.running {
            if server.port != PORT_DEFAULT {
                lines.push(("pg1-port", server.port.to_string()));
            }
            let socket = server.socket_dir.as_ref().map(|dir| dir.display().to_string());
            lines.extend(
                socket.filter(|dir| !SOCKET_DIRS_DEFAULT.contains(&dir.as_str())).map(|dir| ("pg1-socket-path", dir)),
            );
        }
        for (key, value) in lines {
            if self.value(key).is_none() {
                self.push(FileLine { of_stanza: true, key: key.to_owned(), value, secure: false, typed: false })?;
            }
        }
        Ok(())
    }

    /// Adds what a new user would want, as far as nothing else was said.
    ///
    /// # Errors
    /// Does not fail.
    pub(super) fn add_defaults(&mut self, config: &Config) -> Result<()> {
        for key in config.repo_keys() {
            let kind = self.value(&format!("repo{key}-type")).unwrap_or("posix");
            match kind {
                "s3" | "azure" | "gcs" => self.add(&format!("repo{key}-path"), OBJECT_PATH)?,
                _ => self.add(&format!("repo{key}-path"), "/var/lib/pgbackrest")?,
            }
            self.add(&format!("repo{key}-retention-full"), "2")?;
            self.add(&format!("repo{key}-bundle"), "y")?;
            if self.value(&format!("repo{key}-bundle")) == Some("y") {
                self.add(&format!("repo{key}-block"), "y")?;
            }
        }
        self.add("compress-type", "zst")?;
        // The server needs the other processors
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        self.add("process-max", &(processors / 2).clamp(1, PROCESS_MAX_LIMIT).to_string())?;
        self.add("start-fast", "y")
    }

    /// What a file that has these global lines lacks, for the stanza alone: retention and the like of others stay.
    pub(super) fn lacking(&self, known: impl Fn(&str) -> bool) -> Self {
        let lines = self.lines.iter().filter(|line| line.of_stanza || !known(&line.key));
        let lines = lines.map(|line| FileLine { of_stanza: true, ..line.clone() }).collect();
        Draft { lines, generated: self.generated.clone() }
    }

    /// The content of the file.
    pub(super) fn text(&self, stanza: &str, reveal: Reveal) -> String {
        let mut text = String::new();
        for (section, of_stanza) in [("global", false), (stanza, true)] {
            let mut lines: Vec<&FileLine> = self.lines.iter().filter(|line| line.of_stanza == of_stanza).collect();
            // Repositories first, type and path before the rest. Sorting is stable: lists keep their order
            lines.sort_by_key(|line| {
                let (index, rest) = line.key.split_once('-').unwrap_or((&line.key, ""));
                let is_repo = index.starts_with("repo");
                let rank = ["type", "path"].iter().position(|first| *first == rest && is_repo).unwrap_or(2);
                (!is_repo, if is_repo { index } else { "" }, rank, &line.key)
            });
            if lines.is_empty() {
                continue;
            }
            if !text.is_empty() {
                text.push('\n');
            }
            let _ = writeln!(text, "[{section}]");
            for FileLine { key, value, secure, .. } in lines {
                let is_shown = match reveal {
                    Reveal::Nothing => !secure,
                    Reveal::Generated => !secure || self.generated.contains(key),
                    Reveal::All => true,
                };
                let _ = writeln!(text, "{key}={}", if is_shown { value } else { "<secret>" });
            }
        }
        text
    }

    /// Resolves the configuration for the commands that will use it.
    ///
    /// # Errors
    /// What these commands would say.
    pub(super) fn check(&self, stanza: &str, path: &str) -> Result<()> {
        let files = OneFile { path, text: self.text(stanza, Reveal::All) };
        let (config, stanza) = (format!("--config={path}"), format!("--stanza={stanza}"));
        for command in ["stanza-create", "backup", "archive-push"] {
            let line = CommandLine::parse(["rbr", config.as_str(), stanza.as_str(), command])?;
            let mut warnings = Vec::new();
            let mut resolved = Config::resolve(line, Environment::default(), &files, &mut |text| warnings.push(text))?;
            resolved.adjust()?;
            if let Some(warning) = warnings.into_iter().next() {
                return Err(Error::new(ErrorCode::OptionInvalid, warning));
            }
        }
        Ok(())
    }
}

/// The draft as the only configuration file.
struct OneFile<'a> {
    path: &'a str,
    text: String,
}

impl ConfigFiles for OneFile<'_> {
    fn read(&self, path: &str) -> Result<Option<String>> {
        Ok((path == self.path).then(|| self.text.clone()))
    }

    fn list(&self, _: &str) -> Result<Option<Vec<String>>> {
        Ok(None)
    }
}

/// Asks for what the first repository still needs.
///
/// # Errors
/// There is no answer, or it can't be written.
pub(super) fn ask(draft: &mut Draft, config: &Config, asked: &mut dyn Ask) -> Result<()> {
    if draft.value("repo1-type").is_none() && draft.value("repo1-path").is_none() {
        let kind = asked.ask("Where do backups go? (posix, s3, azure, gcs, sftp, cifs)", "posix")?;
        if !opt::REPO_TYPE.decl().allow.contains(&kind.as_str()) {
            return Err(Error::new(ErrorCode::OptionInvalidValue, format!("'{kind}' is no type of repository")));
        }
        if kind != "posix" {
            draft.add("repo1-type", &kind)?;
        }
    }
    let kind = draft.value("repo1-type").unwrap_or("posix").to_owned();
    for need in NEEDS.iter().filter(|need| need.kind == kind) {
        let key = format!("repo1-{}", need.option);
        let is_needed = need.unless.is_none_or(|(key_type, needs_key)| {
            draft.value(&format!("repo1-{key_type}")).is_none_or(|chosen| chosen == needs_key)
        });
        if !is_needed || draft.value(&key).is_some() {
            continue;
        }
        match need.secret {
            true => draft.add_secret(&key, &asked.secret(need.question)?)?,
            false => draft.add(&key, &asked.ask(&format!("{}?", need.question), need.default)?)?,
        }
    }
    if draft.value("repo1-cipher-type").is_none() {
        // What leaves the host is encrypted unless the user says otherwise
        let default = if ["posix", "cifs"].contains(&kind.as_str()) { "n" } else { "y" };
        if is_yes(&asked.ask("Encrypt the repository with a new passphrase?", default)?) {
            draft.add("repo1-cipher-type", "aes-256-cbc")?;
        }
    }
    if config.find_at(opt::REPO_RETENTION_FULL, 1).is_none() {
        draft.add("repo1-retention-full", &asked.ask("How many full backups to keep?", "2")?)?;
    }
    Ok(())
}
