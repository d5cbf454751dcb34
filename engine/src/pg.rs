//! PostgreSQL: the session that backups and checks hold, and its control file.

pub mod client;
pub mod cluster;
pub mod control_file;
pub mod data_dir;
pub(crate) mod passfile;
pub mod session;

pub use client::PgSettings;
pub use session::PgSession;
