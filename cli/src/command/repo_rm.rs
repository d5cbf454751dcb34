//! `repo-rm`: removes a file or directory of a repository.

use engine::repo::{browse, remove};
use engine::{Error, ErrorCode, Result};
use repo_format::layout::RepoPath;

use crate::config::{Config, opt};
use crate::{ExitStatus, cancel_token, repos};

/// Removes the given path, or the whole repository.
///
/// # Errors
/// The path is not in the repository, it is a directory that is not empty and `--recurse` is not given, or it can't be
/// removed.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let repo = repos::open_default(config)?;
    let path = match config.params() {
        [] => RepoPath::root(),
        [path] => browse::user_path(&repo, path)?,
        _ => return Err(Error::new(ErrorCode::ParamInvalid, "only one path may be specified")),
    };
    remove::remove(&repo, &path, config.get(opt::RECURSE)?, &repos::claimant(config)?, cancel_token())?;
    Ok(ExitStatus::SUCCESS)
}
