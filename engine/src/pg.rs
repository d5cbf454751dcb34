//! PostgreSQL: the session of backups and checks, and the control file.

pub mod archiving;
mod cancel_query;
mod channel_binding;
pub(crate) mod client;
pub mod cluster;
pub(crate) mod connection;
pub mod control_file;
pub mod data_dir;
pub mod discover;
mod environment;
mod error_text;
pub mod host;
pub(crate) mod passfile;
mod service;
pub mod session;
mod session_kind;
mod settings;
pub(crate) mod statements;
mod target;
mod tls;

pub use connection::PgConnection;
pub use host::{LocalHost, PgHost, RemoteHost, RemotePgSettings};
pub use session::PgSession;
pub use settings::PgSettings;
