//! Proofs in a repository: `proof/<stanza>/<label>/<time>-<random>.json`.
//!
//! A file has one or two lines: the report, and its signature if it is signed. The signature covers the bytes of the
//! first line. In an encrypted repository, proofs are encrypted like info files. pgBackRest never looks into this
//! directory, and does not remove it with the stanza.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};

use jiff::Timestamp;
use repo_format::cipher::{self, Decryptor, Framing};
use repo_format::label::BackupLabel;
use repo_format::layout::{self, RepoPath, Stanza};

use super::report::ProofReport;
use super::signature::{ProofSignature, ProofSigner};
use crate::storage::{self, ReadRange, WriteOptions};
use crate::system_text;
use crate::{Error, ErrorCode, Repo, Result};

/// The maximum size of a proof, in bytes.
const PROOF_BYTES_MAX: u64 = 4 << 20;
/// The suffix of a proof's name.
const SUFFIX: &str = ".json";

/// A proof as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredProof {
    /// The report's line, which the signature covers.
    pub line: String,
    /// The report.
    pub report: ProofReport,
    /// The signature, if the report is signed.
    pub signature: Option<ProofSignature>,
}

/// What `info` shows of the last proof of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProofFact {
    /// The proof.
    Known(Box<StoredProof>),
    /// Its file can't be read, for this reason.
    Unreadable(String),
}

/// The place of a proof.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProofPlace {
    /// The backup.
    pub label: BackupLabel,
    /// The name of the file, which begins with the time of the test.
    pub name: String,
}

/// Stores a report, signed if there is a key. Returns its path.
///
/// # Errors
/// The repository can't be written, or the report is too large.
pub fn save(repo: &Repo, report: &ProofReport, signer: Option<&ProofSigner>) -> Result<RepoPath> {
    let line = report.to_json()?;
    let mut text = line.clone() + "\n";
    if let Some(signer) = signer {
        let signature = serde_json::to_string(&signer.sign(&line))
            .map_err(|error| Error::new(ErrorCode::JsonFormat, format!("unable to write a signature: {error}")))?;
        text += &signature;
        text.push('\n');
    }
    if u64::try_from(text.len()).is_ok_and(|size| size > PROOF_BYTES_MAX) {
        return Err(Error::new(ErrorCode::Format, format!("proof has more than {PROOF_BYTES_MAX} bytes")));
    }
    let (stanza, label) = (report.stanza.parse()?, report.backup.label.parse()?);
    let path = layout::proof_file(&stanza, &label, &file_name(report.stop)?)?;
    let stored = cipher::encrypt(&repo.cipher, text.as_bytes())?;
    storage::put(&*repo.storage, &path, &stored, WriteOptions::ATOMIC)?;
    Ok(path)
}

/// Returns a name that sorts by time and is used once.
fn file_name(time: i64) -> Result<String> {
    let time = Timestamp::from_second(time)
        .map_err(|error| Error::new(ErrorCode::Format, format!("{time} is not a time: {error}")))?;
    let mut random = [0; 4];
    getrandom::fill(&mut random).map_err(|error| {
        Error::new(ErrorCode::Kernel, format!("unable to get random bytes: {}", system_text(&error)))
    })?;
    Ok(format!("{}-{:08x}{SUFFIX}", time.strftime("%Y%m%d-%H%M%SZ"), u32::from_be_bytes(random)))
}

/// Lists all proofs of a stanza, by backup and time. Files with other names are left alone.
///
/// # Errors
/// The repository can't be read.
pub fn list(repo: &Repo, stanza: &Stanza) -> Result<Vec<ProofPlace>> {
    let files = repo.storage.list_files(&layout::proof_stanza(stanza))?;
    let place = |path: &str| {
        let (label, name) = path.split_once('/')?;
        let is_proof = name.ends_with(SUFFIX) && !name.contains('/');
        is_proof.then_some(ProofPlace { label: label.parse().ok()?, name: name.to_owned() })
    };
    let mut places: Vec<ProofPlace> = files.iter().filter_map(|file| place(&file.path)).collect();
    places.sort_unstable();
    Ok(places)
}

/// Reads a proof.
///
/// # Errors
/// It is missing, damaged, too large or of another format.
pub fn load(repo: &Repo, stanza: &Stanza, place: &ProofPlace) -> Result<StoredProof> {
    let path = layout::proof_file(stanza, &place.label, &place.name)?;
    let shown = repo.storage.display(&path);
    let storage = &*repo.storage;
    let stored = storage.read(&path, ReadRange::default())?.ok_or_else(|| storage::missing(storage, &path))?;
    let plain = Decryptor::new(&repo.cipher, Framing::Full, BufReader::new(stored));
    let mut bytes = Vec::new();
    plain
        .take(PROOF_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::from_io(ErrorCode::FileRead, format!("unable to read '{shown}'"), error))?;
    parse(&bytes).map_err(|error| error.context(format!("proof '{shown}'")))
}

fn parse(bytes: &[u8]) -> Result<StoredProof> {
    let invalid = |text: &str| Error::new(ErrorCode::Format, text);
    if u64::try_from(bytes.len()).is_ok_and(|size| size > PROOF_BYTES_MAX) {
        return Err(invalid("it is too large"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| invalid("it is not text"))?;
    let mut lines = text.lines();
    let line = lines.next().ok_or_else(|| invalid("it is empty"))?;
    let signature = match lines.next() {
        None => None,
        Some(signature) => Some(
            serde_json::from_str(signature)
                .map_err(|error| Error::new(ErrorCode::JsonFormat, format!("invalid signature: {error}")))?,
        ),
    };
    if lines.next().is_some() {
        return Err(invalid("it has more than two lines"));
    }
    Ok(StoredProof { line: line.to_owned(), report: ProofReport::from_json(line)?, signature })
}

/// Reads the last proof of each backup of a stanza.
///
/// # Errors
/// The proofs can't be listed. A proof that can't be read is a fact.
pub fn last_proofs(repo: &Repo, stanza: &Stanza) -> Result<BTreeMap<BackupLabel, ProofFact>> {
    let newest: BTreeMap<BackupLabel, ProofPlace> =
        list(repo, stanza)?.into_iter().map(|place| (place.label.clone(), place)).collect();
    let places: Vec<ProofPlace> = newest.into_values().collect();
    let facts = repo.each(&places, |place| {
        let fact = match load(repo, stanza, place) {
            Ok(proof) => ProofFact::Known(Box::new(proof)),
            Err(error) => ProofFact::Unreadable(error.to_string()),
        };
        Ok((place.label.clone(), fact))
    })?;
    Ok(facts.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use repo_format::cipher::{Cipher, Passphrase};

    use super::super::report::tests::report;
    use super::super::signature::tests::keys;
    use super::*;
    use crate::proof::Verdict;
    use crate::storage::memory::MemoryStorage;

    fn repo(cipher: Cipher) -> Repo {
        Repo { key: 1, storage: Arc::new(MemoryStorage::new()), cipher }
    }

    fn only(repo: &Repo) -> StoredProof {
        let stanza = "demo".parse().unwrap();
        let places = list(repo, &stanza).unwrap();
        assert_eq!(places.len(), 1);
        load(repo, &stanza, &places[0]).unwrap()
    }

    #[test]
    fn signed_proof_is_read_back_from_an_encrypted_repository() {
        let dir = tempfile::tempdir().unwrap();
        let (signer, verifier) = keys(dir.path());
        let repo = repo(Cipher::Aes256Cbc(Passphrase::new("secret")));
        let path = save(&repo, &report(Vec::new()), Some(&signer)).unwrap();
        assert!(path.as_str().starts_with("proof/demo/20231114-220000F/20231114-221330Z-"), "{path}");
        let proof = only(&repo);
        assert_eq!(proof.report, report(Vec::new()));
        assert!(verifier.verifies(&proof.line, proof.signature.as_ref().unwrap()));
        let mut stored = Vec::new();
        repo.storage.read(&path, ReadRange::default()).unwrap().unwrap().read_to_end(&mut stored).unwrap();
        assert!(stored.starts_with(cipher::MAGIC));
    }

    #[test]
    fn last_proof_of_each_backup_is_the_newest_and_damage_is_a_fact() {
        let repo = repo(Cipher::None);
        let stanza: Stanza = "demo".parse().unwrap();
        let mut proof = report(Vec::new());
        save(&repo, &proof, None).unwrap();
        proof.stop += 60;
        proof.result = Verdict::Failed;
        save(&repo, &proof, None).unwrap();
        let damaged = layout::proof_file(&stanza, &"20240101-000000F".parse().unwrap(), "x.json").unwrap();
        storage::put(&*repo.storage, &damaged, b"{}\n{}\n{}\n", WriteOptions::ATOMIC).unwrap();
        let other = RepoPath::new("proof/demo/notes/x.json").unwrap();
        storage::put(&*repo.storage, &other, b"", WriteOptions::ATOMIC).unwrap();

        let facts = last_proofs(&repo, &stanza).unwrap();
        assert_eq!(facts.len(), 2);
        match &facts[&"20231114-220000F".parse().unwrap()] {
            ProofFact::Known(stored) => assert_eq!(stored.report, proof),
            unreadable => panic!("{unreadable:?}"),
        }
        assert!(matches!(facts[&"20240101-000000F".parse().unwrap()], ProofFact::Unreadable(_)));
    }

    #[test]
    fn proof_that_is_damaged_or_endless_is_an_error() {
        for bytes in [&b""[..], b"\xff", b"{}", b"[]\n", &vec![b' '; 5 << 20]] {
            assert!(parse(bytes).is_err());
        }
        let line = report(Vec::new()).to_json().unwrap();
        assert!(parse(format!("{line}\nno signature\n").as_bytes()).is_err());
        assert_eq!(parse(format!("{line}\n").as_bytes()).unwrap().signature, None);
    }
}
