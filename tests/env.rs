//! The environment of the integration tests: throw-away folders, configuration files, PostgreSQL clusters, and the
//! programs under test.
//!
//! Everything that a test creates is in its own [`Space`] in the system's folder for temporary files. It belongs to an
//! unprivileged user (PostgreSQL and the backup programs refuse root) and is removed when the test ends.
//! `RBR_TEST_KEEP=1` keeps the folders and prints their paths.

mod authority;
pub mod azurite;
mod cluster;
mod command;
mod compare;
pub mod config;
mod distant;
pub mod gcs;
mod history;
mod namespaces;
pub mod network;
pub mod oracle;
mod part;
mod passage;
pub mod proxy;
mod rounds;
mod scenario;
mod space;
mod sshd;
mod template;
mod user;
pub mod weed;

pub use authority::Authority;
pub use azurite::Azurite;
pub use cluster::{Cluster, Shutdown};
pub use command::{Background, Run, Tool};
pub use compare::{Entry, Tree};
pub use distant::{DistantHosts, Far};
pub use gcs::Gcs;
pub use history::{History, Service};
pub use namespaces::Network;
pub use oracle::oracles;
pub use part::run_part;
pub use passage::{Link, Passage};
pub use scenario::{Scenario, ScenarioOptions, restored_matches};
pub use space::Space;
pub use sshd::Sshd;
pub use weed::Weed;
