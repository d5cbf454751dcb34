//! `repo-rm`: removes a file or directory of a repository.

use engine::claim;
use engine::repo::browse;
use engine::storage::EntryKind;
use engine::{Error, ErrorCode, Repo, Result};
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
    // A link goes itself, never what it leads to
    let entry = repo.storage.info(&path)?;
    let is_file = !path.as_str().is_empty() && entry.is_some_and(|entry| entry.kind != EntryKind::Path);
    if !is_file && !config.get(opt::RECURSE)? {
        check_empty(&repo, &path)?;
    }
    let _claims = claim::claim_path(&repo, &path, &repos::claimant(config)?, cancel_token())?;
    if is_file {
        repo.storage.remove(&path)?
    } else {
        repo.storage.remove_all(&path)?
    }
    Ok(ExitStatus::SUCCESS)
}

/// Before there is a claim, which would be an entry of the directory.
fn check_empty(repo: &Repo, path: &RepoPath) -> Result<()> {
    if repo.storage.list(path)?.is_some_and(|entries| !entries.is_empty()) {
        let text = "recurse option must be used to delete non-empty path";
        return Err(Error::new(ErrorCode::OptionInvalid, text));
    }
    Ok(())
}
