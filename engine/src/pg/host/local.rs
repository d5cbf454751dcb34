//! A cluster on this host.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use repo_format::pg::control::PgControl;

use super::PgHost;
use crate::pg::client::{PgClient, PgSettings};
use crate::pg::connection::PgConnection;
use crate::pg::control_file;
use crate::pg::data_dir::files::LocalFiles;
use crate::pg::data_dir::{self, DataDir, Scan, ScanOptions, ServerTablespace};
use crate::pipeline::backup::{CopyRules, CopyWorker, LocalWorker};
use crate::work::turn::Turn;
use crate::{CancelToken, Error, ErrorCode, Result};

/// This host, with the settings of one cluster.
#[derive(Clone, Debug)]
pub struct LocalHost {
    settings: PgSettings,
}

impl LocalHost {
    /// The host of the cluster with these settings.
    pub fn new(settings: PgSettings) -> Self {
        LocalHost { settings }
    }
}

impl From<PgSettings> for Arc<dyn PgHost> {
    fn from(settings: PgSettings) -> Self {
        Arc::new(LocalHost::new(settings))
    }
}

impl PgHost for LocalHost {
    fn key(&self) -> u32 {
        self.settings.key
    }

    fn path(&self) -> &Path {
        &self.settings.path
    }

    fn command(&self) -> &str {
        &self.settings.command
    }

    fn control(&self) -> Result<PgControl> {
        control_file::read(&self.settings.path, self.settings.version_force)
    }

    fn has_postmaster_pid(&self) -> Result<bool> {
        let path = self.settings.path.join("postmaster.pid");
        path.try_exists().map_err(|error| {
            Error::from_io(ErrorCode::FileOpen, format!("unable to get info for path/file '{}'", path.display()), error)
        })
    }

    fn check_data_dir(&self) -> Result<()> {
        match fs::read_dir(&self.settings.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                let text = format!("unable to list file info for path '{}'", self.settings.path.display());
                Err(Error::from_io(ErrorCode::PathOpen, text, error))
            }
            _ => Ok(()),
        }
    }

    fn connect(&self, cancel: &CancelToken) -> Result<Box<dyn PgConnection>> {
        Ok(Box::new(PgClient::connect(&self.settings, cancel)?))
    }

    fn scan(
        &self,
        options: &ScanOptions<'_>,
        tablespaces_now: &mut dyn FnMut() -> Result<Vec<ServerTablespace>>,
    ) -> Result<Scan> {
        data_dir::scan(&mut LocalFiles::default(), &self.settings.path, options, tablespaces_now)
    }

    fn copy_worker<'a>(&self, rules: &'a CopyRules, turn: &Turn) -> Result<Box<dyn CopyWorker + 'a>> {
        let data_dir = DataDir::new(&self.settings.path);
        Ok(Box::new(LocalWorker::new(data_dir, self.settings.version_force, rules, turn)?))
    }
}
