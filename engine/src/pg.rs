//! PostgreSQL: the session of backups and checks, and the control file.

pub mod client;
pub mod cluster;
pub mod connection;
pub mod control_file;
pub mod data_dir;
mod environment;
pub mod host;
pub(crate) mod passfile;
mod service;
pub mod session;
mod tls;

pub use client::PgSettings;
pub use connection::PgConnection;
pub use host::{LocalHost, PgHost};
pub use session::PgSession;
