//! PostgreSQL: the session that backups and checks hold, and its control file.

pub mod client;
pub mod cluster;
pub mod control_file;
pub mod data_dir;
mod environment;
pub(crate) mod passfile;
pub mod session;
mod tls;

pub use client::PgSettings;
pub use session::PgSession;
