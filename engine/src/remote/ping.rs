//! Asks whether a server answers.

use std::io::BufReader;
use std::time::{Duration, Instant};

use protocol::{AnswerMessage, Call, Dialect};

use super::answers::read_greeting;
use crate::tls::Session;
use crate::{Error, ErrorCode, Result};

/// The largest answer to nothing, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Sends a request that does nothing, and waits for the answer. `host` is for messages.
///
/// # Errors
/// The server does not answer as one of this version does.
pub fn ping(host: &str, session: Session, timeout: Duration) -> Result<()> {
    session.set_deadline(Some(Instant::now() + timeout));
    let mut input = BufReader::new(session.reader(Some(timeout)));
    let dialect: &Dialect = read_greeting(&mut input)?;
    let sent = Call::Noop.encode(1, dialect).write_to(&mut session.writer(timeout));
    sent.map_err(|e| Error::from_io(ErrorCode::FileWrite, format!("unable to write to '{}'", session.name()), e))?;
    let mut message = Vec::new();
    AnswerMessage::read(&mut input, &mut message, ANSWER_BYTES_MAX)?;
    let answer = AnswerMessage::decode(&message)?;
    answer.outcome.map(drop).map_err(|error| error.to_error(&format!("remote socket protocol on '{host}'")))?;
    session.close(Duration::ZERO);
    Ok(())
}
