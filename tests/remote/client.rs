//! The client's side of a connection.

mod database;
mod reading;
mod writing;

use std::io::{BufRead, Read as _, Write};

use protocol::Call;
use protocol::greeting::{self, GREETING_SIZE_MAX, Service};
use protocol::options::{OptionValue, OptionsAnswer, OptionsRequest};
use protocol::storage::{
    FeaturesAnswer, FileInfoRequest, InfoAnswer, ListAnswer, ListRequest, PathRemoveAnswer, PathRemoveRequest,
};
use repo_format::{Error, ErrorCode, Result};

use super::link::Link;

/// A connection to a server.
///
/// Every method fails with the server's error, whose message begins with the name of the server. If the connection
/// itself fails, the call fails with [`ErrorCode::FileRead`] or [`ErrorCode::FileWrite`], or with [`ErrorCode::Format`]
/// or [`ErrorCode::Protocol`] for what is no answer. Every further call then fails in the same way.
#[derive(Debug)]
pub struct Client<R, W> {
    link: Link<R, W>,
}

/// A request that was sent, whose answer is still to be received.
#[derive(Debug)]
#[must_use = "answers that are not received are kept"]
pub struct Ticket {
    session: u64,
}

impl<R: BufRead, W: Write> Client<R, W> {
    /// Reads and checks the greeting. `peer` is the server as messages name it, such as `remote-0 ssh protocol on 'HOST'`.
    ///
    /// # Errors
    /// [`ErrorCode::FileRead`] if there is no line, and those of [`greeting::check`].
    pub fn connect(mut input: R, output: W, service: Service, peer: impl Into<String>) -> Result<Self> {
        let mut line = Vec::new();
        input
            .by_ref()
            .take(GREETING_SIZE_MAX as u64)
            .read_until(b'\n', &mut line)
            .map_err(|error| Error::from_io(ErrorCode::FileRead, "unable to read greeting", error))?;
        if line.pop_if(|byte| *byte == b'\n').is_none() && line.len() < GREETING_SIZE_MAX {
            return Err(Error::new(ErrorCode::FileRead, "unexpected eof while reading line"));
        }
        let dialect = greeting::check(&line, service)?;
        Ok(Client { link: Link::new(input, output, peer.into(), dialect) })
    }

    /// Sends a request that belongs to no session and does not wait for its answer.
    ///
    /// # Errors
    /// As all methods; [`ErrorCode::Assert`] for a request of a session.
    pub fn send(&mut self, call: &Call<'_>) -> Result<Ticket> {
        if call.command().has_sessions() || *call == Call::Exit {
            return Err(Error::new(ErrorCode::Assert, format!("request {} needs a session", call.command().id())));
        }
        Ok(Ticket { session: self.link.send(call)? })
    }

    /// The data of the answer to a request that was sent.
    ///
    /// # Errors
    /// As all methods.
    pub fn receive(&mut self, ticket: Ticket) -> Result<Option<&[u8]>> {
        let answer = self.link.receive(ticket.session)?;
        Ok(answer.outcome.unwrap_or_default())
    }

    fn call(&mut self, call: &Call<'_>) -> Result<Option<&[u8]>> {
        let ticket = self.send(call)?;
        self.receive(ticket)
    }

    /// Carries out a request whose answer has no data.
    ///
    /// # Errors
    /// As all methods.
    pub fn run(&mut self, call: &Call<'_>) -> Result<()> {
        self.call(call).map(drop)
    }

    /// Waits until the server is ready, as the first request (over TLS: after [`Call::Config`]), or keeps the connection
    /// alive. The server reports here that it can't take a lock or that there is a stop file.
    ///
    /// # Errors
    /// As all methods.
    pub fn noop(&mut self) -> Result<()> {
        self.run(&Call::Noop)
    }

    /// Asks for the values of options of the server.
    ///
    /// # Errors
    /// As all methods.
    pub fn options(&mut self, names: &[&str]) -> Result<Vec<OptionValue>> {
        let data = self.call(&Call::Options(OptionsRequest { names: names.to_vec() }))?;
        Ok(OptionsAnswer::decode(data, names.len())?.values)
    }

    /// Asks what the storage is. It must be the first request to the storage.
    ///
    /// # Errors
    /// As all methods.
    pub fn features(&mut self) -> Result<FeaturesAnswer<'_>> {
        FeaturesAnswer::decode(self.call(&Call::Features)?)
    }

    /// Asks for information about a file.
    ///
    /// # Errors
    /// As all methods.
    pub fn info(&mut self, request: FileInfoRequest<'_>) -> Result<InfoAnswer<'_>> {
        InfoAnswer::decode(self.call(&Call::Info(request))?, request.level)
    }

    /// Lists a directory.
    ///
    /// # Errors
    /// As all methods.
    pub fn list(&mut self, request: ListRequest<'_>) -> Result<ListAnswer<'_>> {
        ListAnswer::decode(self.call(&Call::List(request))?, request.level)
    }

    /// Removes a directory. Returns whether it existed.
    ///
    /// # Errors
    /// As all methods.
    pub fn remove_path(&mut self, request: PathRemoveRequest<'_>) -> Result<bool> {
        Ok(PathRemoveAnswer::decode(self.call(&Call::PathRemove(request))?)?.existed)
    }

    /// Asks the server to end and returns the streams. There is no answer: the end of the input is the server's end.
    ///
    /// # Errors
    /// [`ErrorCode::FileWrite`] if the request can't be sent.
    pub fn exit(mut self) -> Result<(R, W)> {
        self.link.send(&Call::Exit)?;
        Ok(self.link.into_streams())
    }
}
