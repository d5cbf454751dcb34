//! A cluster on this host.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use repo_format::cipher::Cipher;
use repo_format::compress::CompressType;
use repo_format::layout::RepoPath;
use repo_format::pg::control::PgControl;
use rustix::fs::OFlags;

use super::PgHost;
use crate::pg::PgSettings;
use crate::pg::client::PgClient;
use crate::pg::connection::PgConnection;
use crate::pg::control_file;
use crate::pg::data_dir::files::LocalFiles;
use crate::pg::data_dir::{self, DataDir, Scan, ScanOptions, ServerTablespace};
use crate::pipeline::backup::{CopyRules, CopyWorker, LocalWorker};
use crate::pipeline::restore::{BlockGeometry, Hashed, RestorePipeline};
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

    fn hash_blocks(&self, path: &RepoPath, geometry: BlockGeometry, cancel: &CancelToken) -> Result<Hashed> {
        let path = self.settings.path.join(path.as_str());
        let file = open_existing(&path)?;
        let mut pipeline = RestorePipeline::new(Cipher::None, CompressType::None, &Turn::FREE);
        pipeline.begin_job(cancel);
        pipeline.hash_file(&file, &path.display().to_string(), u64::MAX, Some(geometry))
    }

    fn copy_worker<'a>(&self, _: u32, rules: &'a CopyRules, turn: &Turn) -> Result<Box<dyn CopyWorker + 'a>> {
        let data_dir = DataDir::new(&self.settings.path);
        Ok(Box::new(LocalWorker::new(data_dir, self.settings.version_force, rules, turn)))
    }
}

/// Opens a file of the data directory. Links are followed, and a pipe does not block.
fn open_existing(path: &Path) -> Result<File> {
    let name = path.display();
    let failed = |error| Error::from_io(ErrorCode::FileOpen, format!("unable to open file '{name}' for read"), error);
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            Error::new(ErrorCode::FileMissing, format!("unable to open missing file '{name}' for read"))
        }
        _ => failed(error),
    })?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::new(ErrorCode::FileRead, format!("unable to read '{name}': it is not a regular file")));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipe_or_directory_in_the_data_directory_is_an_error_and_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        for path in [pipe.as_path(), folder.path()] {
            assert_eq!(open_existing(path).unwrap_err().code, ErrorCode::FileRead);
        }
        assert_eq!(open_existing(&folder.path().join("missing")).unwrap_err().code, ErrorCode::FileMissing);
    }
}
