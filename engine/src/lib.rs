//! The data path: storage, copy pipelines, the PostgreSQL session, and the work of the commands.
//!
//! A program uses it through a [`Session`]. It never prints and reads no options, although messages name some, as in
//! pgBackRest.

pub mod annotate;
pub mod backup;
pub mod cancel;
pub mod check;
pub mod claim;
pub mod control;
pub mod decode;
pub mod diagnose;
pub mod ending;
pub mod expire;
pub mod file_limit;
#[doc(hidden)]
pub mod fuzzing;
pub mod growing;
pub mod host_locks;
pub mod info;
pub mod lock;
pub mod log;
pub mod manifest;
pub mod objectives;
pub mod pg;
mod pipeline;
pub mod posix_regex;
pub mod progress;
pub mod proof;
pub mod recovery_points;
pub mod remote;
pub mod repo;
pub mod restore;
pub mod serve;
pub mod session;
pub mod stanza;
pub mod storage;
pub mod tcp;
pub mod test_restore;
pub mod throttle;
pub mod time_zone;
pub mod tls;
pub mod users;
pub mod verify;
pub mod webhook;
pub mod work;

pub use cancel::CancelToken;
pub use repo::Repo;
pub use repo_format::cipher::{Cipher, Passphrase};
pub use repo_format::compress::{CompressType, Compression};
pub use repo_format::label::{BackupLabel, BackupType};
pub use repo_format::layout::Stanza;
pub use repo_format::{Error, ErrorCode, Result, system_text};
pub use session::Session;
pub use work::retry::is_stop;
