//! Converts the configuration to the clusters that the engine connects to.

use std::path::PathBuf;
use std::sync::Arc;

use engine::pg::cluster::ArchiveCheck;
use engine::pg::{PgHost, PgSettings};
use engine::{Error, ErrorCode, Result};

use crate::config::{Config, opt};

/// Returns the host of the cluster with this number.
///
/// # Errors
/// The same as [`settings`].
pub fn host(config: &Config, key: u32) -> Result<Arc<dyn PgHost>> {
    Ok(settings(config, key)?.into())
}

/// Returns how to reach the cluster with this number on this host.
///
/// # Errors
/// [`ErrorCode::OptionInvalidValue`] for an invalid port or version, [`ErrorCode::Assert`] if the command has no
/// clusters.
pub fn settings(config: &Config, key: u32) -> Result<PgSettings> {
    let port = config.get_at(opt::PG_PORT, key)?;
    Ok(PgSettings {
        key,
        path: PathBuf::from(config.get_at(opt::PG_PATH, key)?),
        port: u16::try_from(port).map_err(|_| {
            let text = format!("'{port}' is out of range for 'pg{key}-port' option");
            Error::new(ErrorCode::OptionInvalidValue, text)
        })?,
        socket_path: config.find_at(opt::PG_SOCKET_PATH, key).map(PathBuf::from),
        user: config.find_at(opt::PG_USER, key).map(str::to_owned),
        database: config.get_at(opt::PG_DATABASE, key)?.to_owned(),
        db_timeout: config.get(opt::DB_TIMEOUT)?,
        version_force: config.find(opt::PG_VERSION_FORCE).map(str::parse).transpose()?,
        command: config.command().name().to_owned(),
    })
}

/// Returns the hosts of all configured clusters, in the order of their numbers.
///
/// # Errors
/// The same as [`host`].
pub fn all(config: &Config) -> Result<Vec<Arc<dyn PgHost>>> {
    config.pg_keys().iter().map(|&key| host(config, key)).collect()
}

/// Returns the archive settings to require; `None` if the archive is not checked.
pub fn archive_check(config: &Config) -> Option<ArchiveCheck> {
    let wanted = config.find(opt::ARCHIVE_CHECK).unwrap_or(false);
    wanted.then(|| ArchiveCheck { mode_check: config.find(opt::ARCHIVE_MODE_CHECK).unwrap_or(true) })
}
