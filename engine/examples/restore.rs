//! Restores the newest backup into an empty directory.
//!
//! ```text
//! cargo run --example restore -- STANZA REPOSITORY DATA_DIRECTORY RESTORE_COMMAND
//! ```

use engine::repo::RepoSettings;
use engine::restore::{RestoreRequest, RestoreSummary};
use engine::storage::posix::PosixSettings;
use engine::{Result, Session};

/// Restores the newest backup and prints what it did. PostgreSQL will get its WAL with `restore_command`.
pub fn restore(session: &Session, data_directory: &str, restore_command: &str) -> Result<RestoreSummary> {
    let request = RestoreRequest::new(data_directory).restore_command(restore_command).process_max(2);
    let restored = session.restore(&request)?;
    println!("{} from repo{}: {} file(s)", restored.label, restored.repo_key, restored.files);
    if let Some((first, last)) = restored.wal {
        println!("consistent with WAL from {first} to {last}");
    }
    for warning in &restored.warnings.texts {
        println!("warning: {warning}");
    }
    Ok(restored)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [stanza, repository, data_directory, restore_command] = arguments.as_slice() else {
        eprintln!("usage: restore STANZA REPOSITORY DATA_DIRECTORY RESTORE_COMMAND");
        std::process::exit(2);
    };
    let session = Session::new(stanza.parse()?, [RepoSettings::new(PosixSettings::new(repository))])?;
    restore(&session, data_directory, restore_command).map(|_| ())
}
