//! The protocol that pgBackRest speaks with its processes on other hosts, as pure functions on bytes.
//!
//! Nothing here opens a connection or a file, reads a clock or the environment, or logs.
//!
//! A server is a `pgbackrest COMMAND:remote` process behind SSH, or a child of `pgbackrest server` behind TLS. It sends
//! its [greeting], one line of JSON. From then on the client sends requests and the server sends one answer to each, in
//! order, except to the request that ends the connection. Every message is a [pack], a sequence of numbered fields, and
//! ends with it: messages have no length in front ([`pack::PackScanner`]).
//!
//! | layer | module |
//! | --- | --- |
//! | fields and short names in numbers | [`pack`], [`string_id`] |
//! | request, answer and error messages | [`message`] |
//! | the parameters of every request | [`call`] |
//! | parameters and answers by subject | [`storage`], [`filter`], [`database`], [`options`] |
//! | what differs between versions of pgBackRest | [`dialect`] |
//! | what two programs of this project can do beyond pgBackRest's protocol | [`capability`], [`copy`] |
//!
//! Sessions that read, write or query keep a state in the server: a request opens the session, further ones process it,
//! the last one closes or cancels it ([`message::Step`]).
//!
//! The jobs that pgBackRest's main process gives to its workers have messages of the same form, but stay on one host.
//! They are not here: workers of rbr are threads. Locks and stop files have no messages either. A server takes the
//! locks that its command line names before it answers the first `noop`, and reports a stop file in the same answer.
//!
//! What a peer sends is not trusted. Every length and depth has a limit, errors replace what does not fit, and blocks
//! of data are slices of the message that contains them.
//!
//! Sources: pgBackRest `src/common/type/pack.c`, `src/common/type/stringId.c`, `src/protocol/`, `src/storage/remote/`,
//! `src/db/protocol.c` and `src/config/protocol.c`, and streams captured from pgBackRest 2.60.0, whose filters for
//! ciphers differ from the published source.

pub mod call;
mod call_kind;
pub mod capability;
pub mod channel;
pub mod copy;
pub mod database;
pub mod dialect;
pub mod filter;
pub mod greeting;
pub mod message;
pub mod options;
pub mod pack;
pub mod storage;
pub mod string_id;

// Tests share code with the integration tests, which know the crate by its name
#[cfg(test)]
extern crate self as protocol;
#[cfg(test)]
mod captured;

pub use call::Call;
pub use capability::{Capabilities, Capability, Offer};
pub use dialect::Dialect;
pub use message::{AnswerMessage, RequestMessage};
pub use pack::{PackReader, PackWriter, Packed};
pub use string_id::StringId;

use repo_format::{Error, ErrorCode};

/// An error for bytes that violate the format.
pub(crate) fn format_error(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::Format, message)
}
