//! `attest`: verifies the proofs that `test-restore` keeps in a repository.

use std::path::Path;

use engine::proof::{AttestedProof, ProofVerifier, attest};
use engine::{Error, ErrorCode, Result};

use crate::config::{Config, opt};
use crate::render::proof_text;
use crate::{ExitStatus, print, repos};

/// Verifies proofs and prints the result.
///
/// # Errors
/// [`ErrorCode::ParamRequired`] or [`ErrorCode::ParamInvalid`] unless the parameter is `verify`;
/// [`ErrorCode::Command`] if something speaks against a proof; the errors of [`attest::verify`].
pub fn run(config: &Config) -> Result<ExitStatus> {
    match config.params() {
        [word] if word == "verify" => {}
        [] => return Err(Error::new(ErrorCode::ParamRequired, "attest requires a parameter: verify")),
        _ => return Err(Error::new(ErrorCode::ParamInvalid, "the only parameter of attest is: verify")),
    }
    let verifier = config.find(opt::PUBLIC_KEY_FILE).map(|path| ProofVerifier::read(Path::new(path))).transpose()?;
    let stanza = repos::stanza(config)?;
    let found = attest::verify(&repos::open_default(config)?, &stanza, config.find(opt::SET), verifier.as_ref())?;
    print(&match config.get(opt::OUTPUT)? {
        "json" => proof_text::attested_json(&found) + "\n",
        _ => proof_text::attested_text(&found, verifier.is_some(), engine::time_zone::local()),
    })?;
    let bad: Vec<&AttestedProof> = found.iter().filter(|proof| !proof.standing.is_good()).collect();
    match bad.first() {
        None => Ok(ExitStatus::SUCCESS),
        Some(first) => {
            let text = format!(
                "{} proof(s) are not valid, first '{}' of backup {}: {}",
                bad.len(),
                first.place.name,
                first.place.label,
                first.standing.word()
            );
            Err(Error::new(ErrorCode::Command, text))
        }
    }
}
