//! The first requests of a connection, and what they tell.
//!
//! None needs the answer to another. They don't need the greeting either, which only shows whether the versions fit. So all
//! are sent before the first answer is waited for, and take one way to the host and back together.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};

use protocol::options::{ConfigRequest, OptionsRequest};
use protocol::storage::FeaturesAnswer;
use protocol::{AnswerMessage, Call, Capabilities, Capability, Dialect};

use super::{Answer, Connection, Reply, Shared, WARNINGS_MAX};
use crate::Result;
use crate::remote::{RemoteSettings, Way};

/// Requests that were sent.
pub(super) struct FirstRequests {
    /// The command line, which a process that serves a TLS session does not have.
    config: Option<Receiver<Reply>>,
    offer: Receiver<Reply>,
    cipher: Option<Receiver<Reply>>,
    /// Must come before all other requests about files.
    features: Receiver<Reply>,
}

/// Their answers.
pub(super) struct FirstAnswers {
    /// What both sides can do beyond pgBackRest's protocol.
    pub(super) common: Capabilities,
    /// The values of [`cipher_options`], if they were asked for.
    pub(super) cipher: Option<Answer>,
    pub(super) features: Answer,
}

/// The options of a repository that only the configuration of its host may contain.
pub(crate) fn cipher_options(key: u32) -> [String; 2] {
    [format!("repo{key}-cipher-type"), format!("repo{key}-cipher-pass")]
}

impl FirstRequests {
    /// Sends them.
    ///
    /// # Errors
    /// The error that ended the connection.
    pub(super) fn send(shared: &Shared, settings: &RemoteSettings) -> Result<Self> {
        let send = |call: &Call<'_>| {
            let (sender, reply) = channel();
            // A server of another dialect is not used, whatever it makes of them
            shared.send(call, None, Dialect::NEWEST, sender).map(|_| reply)
        };
        let config = match &settings.way {
            Way::Tls { arguments, .. } => {
                let arguments = arguments.iter().map(String::as_str).collect();
                Some(send(&Call::Config(ConfigRequest { arguments }))?)
            }
            Way::Ssh(_) => None,
        };
        // pgBackRest passes over what is offered, and answers without data
        let offer = send(&Call::Offer(Capabilities::own()))?;
        let cipher = match settings.asks_passphrase {
            true => {
                let names = cipher_options(settings.key);
                let names = names.iter().map(String::as_str).collect();
                Some(send(&Call::Options(OptionsRequest { names }))?)
            }
            false => None,
        };
        Ok(FirstRequests { config, offer, cipher, features: send(&Call::Features)? })
    }

    /// Waits for the answers.
    ///
    /// # Errors
    /// The server's first error, such as a lock that is held there, or the error that ended the connection.
    pub(super) fn wait(self, connection: &Connection) -> Result<FirstAnswers> {
        let answer = |reply: Receiver<Reply>| connection.receive(&reply, None);
        self.config.map(answer).transpose()?;
        let common = Capabilities::own().common(&Capabilities::decode(answer(self.offer)?.data())?);
        let cipher = self.cipher.map(answer).transpose()?;
        let features = answer(self.features)?;
        if common.has(Capability::Warnings) {
            // The thread that reads did not know what these answers may contain
            for answer in cipher.iter().chain([&features]) {
                pass_on_warnings(&answer.message, WARNINGS_MAX, &connection.name)?;
            }
            connection.shared.has_warnings.store(true, Ordering::Relaxed);
        }
        Ok(FirstAnswers { common, cipher, features })
    }
}

impl Connection {
    /// Returns what the repository or the data directory there is like.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if the server's answer is damaged.
    pub(crate) fn features(&self) -> Result<FeaturesAnswer<'_>> {
        FeaturesAnswer::decode(self.first.get().and_then(|first| first.features.data()))
    }

    /// Returns the server's answer to the question for [`cipher_options`], if it was asked.
    pub(crate) fn cipher_answer(&self) -> Option<&Answer> {
        self.first.get()?.cipher.as_ref()
    }
}

/// Logs up to `max` warnings of an answer. Returns their number.
pub(super) fn pass_on_warnings(message: &[u8], max: usize, name: &str) -> Result<usize> {
    let warnings = AnswerMessage::warnings(message)?;
    warnings.iter().take(max).for_each(|text| crate::warn!("raised from {name}: {text}"));
    Ok(warnings.len())
}
