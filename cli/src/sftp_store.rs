//! Converts the configuration to the settings of an SFTP repository.

use std::env;
use std::path::PathBuf;

use engine::storage::sftp::{HashType, HostKeyCheck, SftpSettings};
use engine::users::Users;
use engine::{Error, ErrorCode, Result};

use crate::config::{Config, opt};

/// Returns the settings of an SFTP repository.
///
/// # Errors
/// [`ErrorCode::OptionRequired`] if keys are checked by a fingerprint, but there is none.
pub fn sftp(config: &Config, key: u32) -> Result<SftpSettings> {
    let port = config.get_at(opt::REPO_SFTP_HOST_PORT, key)?;
    let known = config.find_at(opt::REPO_SFTP_KNOWN_HOST, key);
    Ok(SftpSettings {
        repo_path: config.get_at(opt::REPO_PATH, key)?.to_owned(),
        host: config.get_at(opt::REPO_SFTP_HOST, key)?.to_owned(),
        port: u16::try_from(port).map_err(|error| {
            let text = format!("'{port}' is out of range for 'repo{key}-sftp-host-port' option");
            Error::new(ErrorCode::OptionInvalidValue, text).cause(error)
        })?,
        user: config.get_at(opt::REPO_SFTP_HOST_USER, key)?.to_owned(),
        private_key_file: config.get_at(opt::REPO_SFTP_PRIVATE_KEY_FILE, key)?.to_owned(),
        private_key_passphrase: config.find_at(opt::REPO_SFTP_PRIVATE_KEY_PASSPHRASE, key).map(Into::into),
        public_key_file: config.find_at(opt::REPO_SFTP_PUBLIC_KEY_FILE, key).map(str::to_owned),
        host_key_hash: match config.get_at(opt::REPO_SFTP_HOST_KEY_HASH_TYPE, key)? {
            "md5" => HashType::Md5,
            "sha1" => HashType::Sha1,
            _ => HashType::Sha256,
        },
        host_key_check: host_key_check(config, key)?,
        known_host_files: known.map(|files| files.to_vec()).unwrap_or_default(),
        home: home(),
        io_timeout: config.get(opt::IO_TIMEOUT)?,
    })
}

/// Returns the home directory from the environment, or from the user's entry, because a server started by a service
/// manager has no `HOME`. pgBackRest uses only the entry.
fn home() -> Option<PathBuf> {
    env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from).or_else(|| Users::new().current_home())
}

fn host_key_check(config: &Config, key: u32) -> Result<HostKeyCheck> {
    let fingerprint = config.find_at(opt::REPO_SFTP_HOST_FINGERPRINT, key);
    match (config.get_at(opt::REPO_SFTP_HOST_KEY_CHECK_TYPE, key)?, fingerprint) {
        ("fingerprint", Some(fingerprint)) => Ok(HostKeyCheck::Fingerprint(fingerprint.to_owned())),
        ("fingerprint", None) => {
            let command = config.command().decl().name;
            let text = format!("{command} command requires option: repo{key}-sftp-host-fingerprint");
            Err(Error::new(ErrorCode::OptionRequired, text))
        }
        ("accept-new", _) => Ok(HostKeyCheck::AcceptNew),
        ("none", _) => Ok(HostKeyCheck::None),
        (_, fingerprint) => {
            if fingerprint.is_some() {
                // The option table allows both together, and pgBackRest ignores it too
                engine::debug!("option 'repo{key}-sftp-host-fingerprint' is not used with check type strict");
            }
            Ok(HostKeyCheck::Strict)
        }
    }
}
