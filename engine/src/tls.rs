//! TLS between the hosts of a repository and of PostgreSQL: certificates, their checks, and sessions.
//!
//! The checks are pgBackRest's (`src/common/io/tls`). Certificates of version 1, which OpenSSL's examples create, are
//! accepted as there.

mod authorities;
pub(crate) mod certificate;
pub mod ciphers;
mod client;
mod identity;
mod peer;
mod server;
mod session;
mod validity;
mod version_1;
mod web;

pub(crate) use authorities::in_files as authorities_in;
pub use client::{ClientSettings, connect, connect_unchecked};
pub use identity::Identity;
pub use server::{AcceptedClient, ServerFiles, ServerTls};
pub use session::{Session, SessionReader, SessionWriter};
pub use validity::{Validity, ValidityState};
pub use web::web_server;
