//! Proofs of recovery: what a test restore found out about a backup, how it is kept in the repository, and how it is
//! signed.

pub mod attest;
pub mod report;
pub mod signature;
pub mod store;

pub use attest::{AttestedProof, Standing};
pub use report::{
    BackupFacts, CheckOutcome, CheckReport, Phases, ProofReport, RecoveryFacts, Verdict, Versions, WalPosition,
};
pub use signature::{ProofSignature, ProofSigner, ProofVerifier};
pub use store::{ProofFact, ProofPlace, StoredProof};
