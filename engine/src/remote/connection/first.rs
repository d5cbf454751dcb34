//! The first requests of a connection, and what they tell.
//!
//! None needs the answer to another. They don't need the greeting either, which only shows whether the versions fit. So all
//! are sent before the first answer is waited for, and take one way to the host and back together.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};

use protocol::options::{ConfigRequest, OptionsRequest};
use protocol::storage::FeaturesAnswer;
use protocol::{AnswerMessage, Call, Capabilities, Capability, Dialect, Offer};

use super::{Answer, Beginning, Connection, Reply, Shared};
use crate::Result;
use crate::remote::answers::{WARNINGS_MAX, pass_on_warnings};
use crate::remote::channels::Channels;
use crate::remote::shared::UNKNOWN_US;

/// The first requests, which wait for their answers. A server that refuses one ends the connection, maybe before the next one
/// is sent. The answer to that one is the end, which comes after the refusal.
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

impl Beginning<'_> {
    /// The number of requests that follow the offer without frames. Nothing is said of them to a server that is not to send frames.
    fn following(&self) -> u32 {
        match self.offered.has(Capability::Channels) {
            true => 1 + u32::from(self.cipher_key.is_some()),
            false => 0,
        }
    }
}

/// Finds the last answer before frames come. The first frame may follow at once, for example if the server ends, so the thread
/// that reads must know it.
pub(in crate::remote) struct FirstFrame {
    channels: Arc<Channels>,
    offered: Capabilities,
    /// Answers before that to the offer.
    before: u32,
    /// Answers that follow it.
    following: u32,
    has_agreed: bool,
}

impl FirstFrame {
    pub(super) fn new(beginning: &Beginning<'_>, channels: Arc<Channels>) -> Self {
        FirstFrame {
            channels,
            offered: beginning.offered.clone(),
            before: u32::from(beginning.arguments.is_some()),
            following: beginning.following(),
            has_agreed: false,
        }
    }

    /// Takes each answer in turn, before the thread that waits for it. From the last one on there are frames if both sides have
    /// agreed on them. An error counts like any other answer, because the end of the connection is a frame, too.
    pub(in crate::remote) fn pass(&mut self, answer: &AnswerMessage<'_>) {
        if self.before > 0 {
            self.before -= 1;
        } else if self.has_agreed {
            self.following = self.following.saturating_sub(1);
            if self.following == 0 {
                self.channels.begin();
                self.has_agreed = false;
            }
        } else if self.following > 0 {
            let data = answer.outcome.as_ref().ok().copied().flatten();
            // Whoever waits for the answer refuses one that can't be read
            let common = Capabilities::decode(data).map(|known| self.offered.common(&known));
            self.has_agreed = common.is_ok_and(|common| common.has(Capability::Channels));
            if !self.has_agreed {
                self.following = 0;
            }
        }
    }
}

impl FirstRequests {
    /// Sends them.
    pub(super) fn send(shared: &Shared, beginning: &Beginning<'_>) -> Self {
        let send = |call: &Call<'_>| {
            let (sender, reply) = channel();
            // A server of another dialect is not used, whatever it makes of them
            shared.send(call, None, Dialect::NEWEST, sender);
            reply
        };
        let config = beginning.arguments.map(|arguments| {
            let arguments = arguments.iter().map(String::as_str).collect();
            send(&Call::Config(ConfigRequest { arguments }))
        });
        let (capabilities, following) = (beginning.offered.clone(), beginning.following());
        // pgBackRest passes over what is offered, and answers without data
        let offer = send(&Call::Offer(Offer { capabilities, following }));
        let cipher = beginning.cipher_key.map(|key| {
            let names = cipher_options(key);
            let names = names.iter().map(String::as_str).collect();
            send(&Call::Options(OptionsRequest { names }))
        });
        FirstRequests { config, offer, cipher, features: send(&Call::Features) }
    }

    /// Waits for the answers. `offered` is what the server was offered.
    ///
    /// # Errors
    /// The server's first error, such as a lock that is held there, or the error that ended the connection.
    pub(super) fn wait(self, connection: &Connection, offered: &Capabilities) -> Result<FirstAnswers> {
        let answer = |reply: Receiver<Reply>| connection.receive(&reply, None);
        self.config.map(answer).transpose()?;
        let common = offered.common(&answer(self.offer)?.read(Capabilities::decode)?);
        let cipher = self.cipher.map(answer).transpose();
        // The last answer, after which frames may be sent: also the end of a connection that has an error
        let features = answer(self.features);
        let (cipher, features) = (cipher?, features?);
        if common.has(Capability::Warnings) {
            // The thread that reads did not know what these answers may contain
            for answer in cipher.iter().chain([&features]) {
                answer.read(|_| pass_on_warnings(&answer.message, WARNINGS_MAX, &connection.name))?;
            }
            connection.shared.has_warnings.store(true, Ordering::Relaxed);
        }
        // These answers took as long as the server needed to start
        connection.shared.round_trip_us.store(UNKNOWN_US, Ordering::Relaxed);
        Ok(FirstAnswers { common, cipher, features })
    }
}

impl Connection {
    /// Returns what the repository or the data directory there is like.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if the server's answer is damaged.
    pub(crate) fn features(&self) -> Result<FeaturesAnswer<'_>> {
        match self.first.get() {
            Some(first) => first.features.read(FeaturesAnswer::decode),
            None => FeaturesAnswer::decode(None),
        }
    }

    /// Returns the server's answer to the question for [`cipher_options`], if it was asked.
    pub(crate) fn cipher_answer(&self) -> Option<&Answer> {
        self.first.get()?.cipher.as_ref()
    }
}
