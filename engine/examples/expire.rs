//! Removes all but the newest full backups, with their WAL.
//!
//! ```text
//! cargo run --example expire -- STANZA REPOSITORY FULL_BACKUPS
//! ```

use engine::expire::plan::Retention;
use engine::expire::{ExpireRequest, ExpireSummary};
use engine::repo::RepoSettings;
use engine::storage::posix::PosixSettings;
use engine::{Result, Session};

/// Keeps so many full backups and what depends on them, and prints what was removed.
pub fn keep_full_backups(session: &Session, count: u32) -> Result<ExpireSummary> {
    let request = ExpireRequest::default().keep(1, Retention::full_backups(count));
    for repo in session.expire(&request.clone().dry_run())?.repos {
        println!("would remove {} backup(s) from repo{}", repo.backups.len(), repo.repo_key);
    }
    let expired = session.expire(&request)?;
    for repo in &expired.repos {
        for backup in &repo.backups {
            println!("removed {backup} from repo{}", repo.repo_key);
        }
        for wal in &repo.wal {
            match &wal.range {
                Some((first, last)) => println!("removed WAL of {} from {first} to {last}", wal.archive_id),
                None => println!("removed all WAL of {}", wal.archive_id),
            }
        }
    }
    for warning in &expired.warnings.texts {
        println!("warning: {warning}");
    }
    Ok(expired)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [stanza, repository, count] = arguments.as_slice() else {
        eprintln!("usage: expire STANZA REPOSITORY FULL_BACKUPS");
        std::process::exit(2);
    };
    let Ok(count) = count.parse() else {
        eprintln!("FULL_BACKUPS must be a number");
        std::process::exit(2);
    };
    let session = Session::new(stanza.parse()?, [RepoSettings::new(PosixSettings::new(repository))])?;
    keep_full_backups(&session, count).map(|_| ())
}
