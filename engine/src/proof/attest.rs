//! What stored proofs are worth: their signatures, and whether they are about the backup that is there now.

use std::collections::BTreeMap;

use repo_format::backup_info::BackupInfo;
use repo_format::cipher::Cipher;
use repo_format::label::BackupLabel;
use repo_format::layout::Stanza;

use super::report::Verdict;
use super::signature::ProofVerifier;
use super::store::{self, ProofPlace, StoredProof};
use crate::repo::info_files;
use crate::test_restore::manifest_sha256;
use crate::work::retry::is_stop;
use crate::{Repo, Result};

/// What a proof is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is about this backup, and its signature is valid if there is a key to check it with.
    Valid,
    /// It is not signed.
    Unsigned,
    /// Its signature is not valid for the key.
    WrongSignature,
    /// It is about another backup, or the manifest changed since.
    OtherBackup,
    /// The backup is gone.
    BackupGone,
    /// It or the manifest of its backup can't be read.
    Unreadable,
}

impl Standing {
    /// The word in reports.
    pub fn word(self) -> &'static str {
        match self {
            Standing::Valid => "valid",
            Standing::Unsigned => "not signed",
            Standing::WrongSignature => "wrong signature",
            Standing::OtherBackup => "of another backup",
            Standing::BackupGone => "backup is gone",
            Standing::Unreadable => "unreadable",
        }
    }

    /// Returns whether nothing speaks against the proof. A backup that expired does not.
    pub fn is_good(self) -> bool {
        matches!(self, Standing::Valid | Standing::BackupGone)
    }
}

/// A proof with its standing.
#[derive(Clone, Debug)]
pub struct AttestedProof {
    /// Where it is.
    pub place: ProofPlace,
    /// What it is worth.
    pub standing: Standing,
    /// The proof, unless it can't be read.
    pub proof: Option<StoredProof>,
    /// Why it can't be read.
    pub error: Option<String>,
}

impl AttestedProof {
    /// Returns whether the proof says that the backup can be recovered, and nothing speaks against it.
    pub fn is_proven(&self) -> bool {
        self.standing == Standing::Valid
            && self.proof.as_ref().is_some_and(|proof| proof.report.result == Verdict::Passed)
    }
}

/// Checks all proofs of a stanza, or those of one backup.
///
/// # Errors
/// The repository can't be read.
pub fn verify(
    repo: &Repo,
    stanza: &Stanza,
    set: Option<&str>,
    verifier: Option<&ProofVerifier>,
) -> Result<Vec<AttestedProof>> {
    let info = info_files::load_backup_info(repo, stanza)?;
    let cipher = info_files::manifest_cipher(&info);
    let mut places = store::list(repo, stanza)?;
    places.retain(|place| set.is_none_or(|set| place.label.as_str() == set));
    repo.each(&places, |place| {
        let attested = |standing, proof, error| AttestedProof { place: place.clone(), standing, proof, error };
        let proof = match store::load(repo, stanza, place) {
            Ok(proof) => proof,
            Err(error) if is_stop(&error) => return Err(error),
            Err(error) => return Ok(attested(Standing::Unreadable, None, Some(error.to_string()))),
        };
        let entry = info.backups.get(&place.label);
        let cluster = entry.and_then(|entry| info.history.iter().find(|pg| pg.id == entry.pg_id));
        let standing = match (signature_standing(&proof, verifier), cluster) {
            (Some(standing), _) => standing,
            (None, None) => Standing::BackupGone,
            (None, Some(cluster)) => {
                let is_same = proof.report.system_id == cluster.system_id
                    && proof.report.stanza == stanza.as_str()
                    && proof.report.backup.label == place.label.as_str();
                match has_manifest(repo, stanza, place, &cipher, &proof) {
                    Ok(true) if is_same => Standing::Valid,
                    Ok(_) => Standing::OtherBackup,
                    Err(error) if is_stop(&error) => return Err(error),
                    // Other proofs can be checked nevertheless
                    Err(error) => return Ok(attested(Standing::Unreadable, None, Some(error.to_string()))),
                }
            }
        };
        Ok(attested(standing, Some(proof), None))
    })
}

/// Returns what the signature says against a proof.
fn signature_standing(proof: &StoredProof, verifier: Option<&ProofVerifier>) -> Option<Standing> {
    let verifier = verifier?;
    match &proof.signature {
        None => Some(Standing::Unsigned),
        Some(signature) if verifier.verifies(&proof.line, signature) => None,
        Some(_) => Some(Standing::WrongSignature),
    }
}

fn has_manifest(
    repo: &Repo,
    stanza: &Stanza,
    place: &ProofPlace,
    cipher: &Cipher,
    proof: &StoredProof,
) -> Result<bool> {
    Ok(manifest_sha256(repo, stanza, &place.label, cipher)? == proof.report.backup.manifest_sha256)
}

/// What the proofs of a stanza say about the newest backup that can be recovered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NewestProven {
    /// The newest backup in `backup.info` whose last proof says that it can be recovered.
    pub proven: Option<BackupLabel>,
    /// Newer backups whose last proof can't be read, and why. They may be proven, too.
    pub unreadable: Vec<(BackupLabel, String)>,
}

/// Returns the newest proven backup. The last proof of a backup counts. No signature is checked.
///
/// # Errors
/// The proofs can't be listed; a signal arrived. A proof that can't be read is part of the result.
pub(crate) fn newest_proven(repo: &Repo, stanza: &Stanza, info: &BackupInfo) -> Result<NewestProven> {
    let mut found = NewestProven::default();
    let last: BTreeMap<BackupLabel, ProofPlace> =
        store::list(repo, stanza)?.into_iter().map(|place| (place.label.clone(), place)).collect();
    for (label, place) in last.iter().rev() {
        let cluster = info.backups.get(label).and_then(|entry| info.history.iter().find(|pg| pg.id == entry.pg_id));
        let Some(cluster) = cluster else { continue };
        let report = match store::load(repo, stanza, place) {
            Ok(proof) => proof.report,
            Err(error) if is_stop(&error) => return Err(error),
            Err(error) => {
                found.unreadable.push((label.clone(), error.to_string()));
                continue;
            }
        };
        if report.result == Verdict::Passed
            && report.system_id == cluster.system_id
            && report.backup.label == label.as_str()
        {
            found.proven = Some(label.clone());
            break;
        }
    }
    Ok(found)
}
