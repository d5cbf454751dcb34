//! Converts the configuration to the clusters that the engine connects to.

use std::path::PathBuf;
use std::sync::Arc;

use engine::pg::cluster::ArchiveCheck;
use engine::pg::{PgHost, PgSettings, RemoteHost, RemotePgSettings};
use engine::{Error, ErrorCode, Result};
use repo_format::pg::PgVersion;

use crate::config::{Config, opt};
use crate::remote;

/// Returns the host of the cluster with this number.
///
/// # Errors
/// The same as [`settings`].
pub fn host(config: &Config, key: u32) -> Result<Arc<dyn PgHost>> {
    match remote::PG.host(config, key) {
        Some(_) => Ok(Arc::new(RemoteHost::new(remote_settings(config, key)?))),
        None => Ok(settings(config, key)?.into()),
    }
}

fn remote_settings(config: &Config, key: u32) -> Result<RemotePgSettings> {
    // A backup from a standby has one worker more, which copies from the primary
    let workers = config.find(opt::PROCESS_MAX).map_or(0, |workers| u32::try_from(workers).unwrap_or(0) + 1);
    Ok(RemotePgSettings {
        key,
        path: PathBuf::from(config.get_at(opt::PG_PATH, key)?),
        version_force: version_force(config)?,
        command: config.command().name().to_owned(),
        network_level: remote::network_level(config),
        processes: (0..=workers).map(|process| remote::PG.settings(config, key, process)).collect::<Result<_>>()?,
    })
}

fn version_force(config: &Config) -> Result<Option<PgVersion>> {
    config.find(opt::PG_VERSION_FORCE).map(str::parse).transpose()
}

/// Returns how to reach the cluster with this number on this host.
///
/// # Errors
/// [`ErrorCode::OptionInvalidValue`] for an invalid port or version, [`ErrorCode::Assert`] if the command has no
/// clusters.
pub fn settings(config: &Config, key: u32) -> Result<PgSettings> {
    let files = PgSettings { key, ..PgSettings::new(config.get_at(opt::PG_PATH, key)?) };
    // A command that only reads files knows no server
    let Some(port) = config.find_at(opt::PG_PORT, key) else { return Ok(files) };
    Ok(PgSettings {
        port: u16::try_from(port).map_err(|_| {
            let text = format!("'{port}' is out of range for 'pg{key}-port' option");
            Error::new(ErrorCode::OptionInvalidValue, text)
        })?,
        socket_path: config.find_at(opt::PG_SOCKET_PATH, key).map(PathBuf::from),
        user: config.find_at(opt::PG_USER, key).map(str::to_owned),
        database: config.get_at(opt::PG_DATABASE, key)?.to_owned(),
        db_timeout: config.get(opt::DB_TIMEOUT)?,
        version_force: version_force(config)?,
        command: config.command().name().to_owned(),
        ..files
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
