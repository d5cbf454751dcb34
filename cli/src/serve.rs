//! Converts the configuration of the role `remote` to what the engine serves to a client on another host.

use std::path::PathBuf;
use std::sync::Arc;

use engine::serve::{
    RepositoryKind, ServeMore, Served, ServedLocks, ServedOptions, ServedRepository, ServedStorage, StandardInput,
    StandardOutput,
};
use engine::{CancelToken, Error, ErrorCode, Result};
use protocol::StringId;
use protocol::options::OptionValue;

use crate::config::{Config, IndexGroup, NameMatch, Role, find_option, opt, options};
use crate::{cancel_token, pg, repos};

/// The cluster that a client gets. Its own number is only known to the client.
const PG_KEY: u32 = 1;

/// Returns what a client gets that sent this command line.
///
/// # Errors
/// [`ErrorCode::OptionRequired`] if it does not say what it asks for; errors of the storage's options.
pub fn served(config: &Config, cancel: &CancelToken) -> Result<Served> {
    // All connections share it
    let config = Arc::new(config.clone());
    let mut served = without_locks(&config, cancel)?;
    served.locks = locks(&config)?;
    let silence_max = config.get(opt::PROTOCOL_TIMEOUT)?;
    let serve = Box::new(move |cancel: &CancelToken| without_locks(&config, cancel));
    served.more = Some(ServeMore { serve, silence_max });
    Ok(served)
}

/// What each connection of a process gets.
fn without_locks(config: &Arc<Config>, cancel: &CancelToken) -> Result<Served> {
    let kind = config.find(opt::REMOTE_TYPE).ok_or_else(|| required("remote-type"))?;
    let (storage, database) = match kind {
        "repo" => (ServedStorage::Repository(repository(config)?), None),
        _ => {
            let settings = pg::settings(config, PG_KEY)?;
            (ServedStorage::DataDirectory(settings.path.clone()), Some(settings))
        }
    };
    let mut served = Served::new(storage, Box::new(Values(Arc::clone(config))), cancel.clone());
    served.database = database;
    served.block_bytes = usize::try_from(config.get(opt::BUFFER_SIZE)?).unwrap_or(served.block_bytes);
    Ok(served)
}

fn required(option: &str) -> Error {
    Error::new(ErrorCode::OptionRequired, format!("remote command requires option: {option}"))
}

fn repository(config: &Config) -> Result<ServedRepository> {
    let key = config.repo_default();
    let settings = repos::settings(config, key)?;
    let kind = match config.get_at(opt::REPO_TYPE, key)? {
        "posix" => RepositoryKind::Posix,
        "cifs" => RepositoryKind::Cifs,
        "sftp" => RepositoryKind::Sftp,
        _ => RepositoryKind::Objects,
    };
    let path = config.get_at(opt::REPO_PATH, key)?.to_owned();
    Ok(ServedRepository { storage: settings.storage, path, kind, stanza: repos::stanza_if_set(config)? })
}

/// The locks that the client asks for. Only the process that its main process started takes them.
fn locks(config: &Config) -> Result<Option<ServedLocks>> {
    let is_locking = opt::LOCK.decl().is_valid(config.command(), Role::Remote);
    if !is_locking || config.find(opt::PROCESS).unwrap_or(0) != 0 {
        return Ok(None);
    }
    Ok(Some(ServedLocks {
        lock_path: PathBuf::from(repos::lock_path(config)?),
        names: config.find(opt::LOCK).unwrap_or_default().to_vec(),
        stanza: repos::stanza(config)?,
        exec_id: config.get(opt::EXEC_ID)?.to_owned(),
    }))
}

/// Returns standard input and output as the streams of a connection.
///
/// # Errors
/// [`ErrorCode::Kernel`] if they can't be set up.
pub fn standard_streams(config: &Config) -> Result<(StandardInput, StandardOutput)> {
    let name = format!("remote-{}", config.find(opt::PROCESS).unwrap_or(0));
    let timeout = config.get(opt::PROTOCOL_TIMEOUT)?;
    let output = StandardOutput::new(&name, timeout, cancel_token().clone())?;
    Ok((StandardInput::new(&name, timeout, cancel_token().clone()), output))
}

/// The options that clients ask for.
struct Values(Arc<Config>);

impl ServedOptions for Values {
    fn value(&self, name: &str) -> Result<OptionValue> {
        let found = find_option(name, NameMatch::Exact)?;
        let found = found.ok_or_else(|| Error::new(ErrorCode::Assert, "option not found"))?;
        let (decl, key) = (options::ALL[found.option], found.key);
        if decl.group == Some(IndexGroup::Repo) && !self.0.repo_keys().contains(&key) {
            let text = format!("key '{key}' is not valid for '{}' option", decl.name);
            return Err(Error::new(ErrorCode::Assert, text));
        }
        let value = match () {
            () if decl.name == opt::DB_TIMEOUT.decl().name => {
                let limit = self.0.find(opt::DB_TIMEOUT).map(|limit| limit.as_millis());
                limit.and_then(|limit| u64::try_from(limit).ok()).map(OptionValue::Number)
            }
            () if decl.name == opt::REPO_CIPHER_TYPE.decl().name && self.is_served(key) => {
                let kind = self.0.find_at(opt::REPO_CIPHER_TYPE, key).and_then(StringId::encode);
                kind.map(|kind| OptionValue::Number(kind.0))
            }
            () if decl.name == opt::REPO_CIPHER_PASS.decl().name && self.is_served(key) => {
                self.0.find_at(opt::REPO_CIPHER_PASS, key).map(|pass| OptionValue::Text(pass.to_owned()))
            }
            () => {
                let text = format!("option '{name}' is not for clients on other hosts");
                engine::warn!("{text}");
                return Err(Error::new(ErrorCode::Access, text));
            }
        };
        Ok(value.unwrap_or(OptionValue::Null))
    }
}

impl Values {
    /// Whether the client gets the repository with this number.
    fn is_served(&self, key: u32) -> bool {
        self.0.find(opt::REMOTE_TYPE) == Some("repo") && self.0.repo_default() == key
    }
}
