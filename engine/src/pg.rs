//! PostgreSQL: the session that backups and checks hold, and its control file.

pub mod client;
pub mod cluster;
pub mod control_file;
mod passfile;
pub mod session;

pub use client::PgSettings;
pub use session::PgSession;
