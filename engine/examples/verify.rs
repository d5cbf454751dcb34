//! Checks every file of a repository against its checksum.
//!
//! ```text
//! cargo run --example verify -- STANZA REPOSITORY
//! ```

use engine::repo::RepoSettings;
use engine::storage::posix::PosixSettings;
use engine::verify::{VerifyRequest, VerifySummary};
use engine::{Result, Session};

/// Checks everything and prints what is invalid. Faults are in the summary, and no error.
pub fn verify(session: &Session) -> Result<VerifySummary> {
    let verified = session.verify(&VerifyRequest::default().process_max(2))?;
    if verified.is_valid() {
        println!("all files are valid, checked in {:?}", verified.duration);
    } else {
        println!("{} fault(s)\n{}", verified.errors + verified.half_whole, verified.text);
    }
    for warning in &verified.warnings.texts {
        println!("warning: {warning}");
    }
    Ok(verified)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [stanza, repository] = arguments.as_slice() else {
        eprintln!("usage: verify STANZA REPOSITORY");
        std::process::exit(2);
    };
    let session = Session::new(stanza.parse()?, [RepoSettings::new(PosixSettings::new(repository))])?;
    // Whether something is invalid must not depend on somebody reading the report
    match verify(&session)?.into_error() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
