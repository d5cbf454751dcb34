//! Proofs of recovery: what a test restore found out about a backup.

pub mod report;

pub use report::{
    BackupFacts, CheckOutcome, CheckReport, Phases, ProofReport, RecoveryFacts, Verdict, Versions, WalPosition,
};
