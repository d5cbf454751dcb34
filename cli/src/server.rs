//! The server: other hosts reach this one by TLS instead of SSH.
//!
//! The server itself only speaks TLS, checks who a client is ([`mod@self::admit`]) and passes bytes on. What a client is
//! allowed to do is done by a process of its own, the one that SSH would start ([`mod@self::session`]). So a session that
//! fails or needs much memory does not disturb others, its locks have a process that `stop --force` can end, and a process
//! exists only for a client that is known. The private key stays in the server.

mod admit;
mod child;
mod command_line;
pub mod fuzzing;
mod limits;
mod listen;
mod notify;
mod places;
mod session;
mod sessions;
mod state;

pub use listen::run;
