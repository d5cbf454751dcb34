//! `repo-rm`: removes a file or directory of a repository.

use engine::claim;
use engine::repo::browse;
use engine::storage::EntryKind;
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
    let _claims = claim::claim_path(&repo, &path, &repos::claimant(config)?, cancel_token())?;
    match repo.storage.info(&path)? {
        // A link goes itself, never what it leads to
        Some(entry) if entry.kind != EntryKind::Path && !path.as_str().is_empty() => repo.storage.remove(&path)?,
        _ => {
            let is_empty = repo.storage.list(&path)?.is_none_or(|entries| entries.is_empty());
            if !is_empty && !config.get(opt::RECURSE)? {
                let text = "recurse option must be used to delete non-empty path";
                return Err(Error::new(ErrorCode::OptionInvalid, text));
            }
            repo.storage.remove_all(&path)?;
        }
    }
    Ok(ExitStatus::SUCCESS)
}
