//! Reports in the forms for people and for programs.

pub mod check_report;
pub mod control;
pub mod diagnosis;
pub mod info_json;
pub mod info_lock;
pub mod info_text;
pub mod ls;
pub mod manifest_json;
pub mod manifest_text;
pub mod plan_json;
pub mod plan_text;
pub mod proof_text;
pub mod recovery_json;
pub mod recovery_text;
pub mod summary_json;
pub mod verify_text;
mod wal_time;
