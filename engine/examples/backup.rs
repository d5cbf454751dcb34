//! Makes a full backup of a running cluster and lists all backups.
//!
//! ```text
//! cargo run --example backup -- STANZA REPOSITORY DATA_DIRECTORY
//! ```

use engine::backup::{BackupRequest, BackupSummary};
use engine::pg::PgSettings;
use engine::repo::RepoSettings;
use engine::storage::posix::PosixSettings;
use engine::{BackupType, Result, Session};

/// Makes a full backup and prints what it did and which backups exist.
pub fn make_backup(session: &Session, pg: PgSettings) -> Result<BackupSummary> {
    let backup = session.backup(&BackupRequest::new(pg).kind(BackupType::Full).start_fast().process_max(2))?;
    println!("{}: {} file(s), {} bytes in {:?}", backup.label, backup.files, backup.entry.size, backup.duration);
    for warning in &backup.warnings.texts {
        println!("warning: {warning}");
    }
    for backup in session.backups()? {
        println!("repo{} has {} ({})", backup.repo_key, backup.label, backup.entry.backup_type);
    }
    Ok(backup)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [stanza, repository, data_directory] = arguments.as_slice() else {
        eprintln!("usage: backup STANZA REPOSITORY DATA_DIRECTORY");
        std::process::exit(2);
    };
    let session = Session::new(stanza.parse()?, [RepoSettings::new(PosixSettings::new(repository))])?;
    make_backup(&session, PgSettings::new(data_directory)).map(|_| ())
}
