//! The requests of a connection and its sessions.

use std::collections::HashMap;
use std::sync::Arc;

use protocol::call::CallKind;
use protocol::message::{AnswerMessage, ErrorAnswer, RequestMessage, Step};
use protocol::options::{OptionsAnswer, OptionsRequest};
use protocol::pack::{PackWriter, Packed};
use protocol::storage::{
    Chunk, FileInfoRequest, InfoAnswer, ListAnswerWriter, ListRequest, PathRemoveAnswer, ReadAnswer, WriteAnswer,
};
use protocol::{Call, Capabilities, Capability, Dialect, StringId};

use super::Served;
use super::database::DatabaseSession;
use super::entry::FileInfo;
use super::files::Files;
use super::filters::OwnedResult;
use super::memory::{Seat, Usage};
use super::read::{ReadSession, SentChunk};
use super::worker::{StoredChunk, WorkerSession, Workers};
use super::write::WriteSession;
use crate::storage::full::no_space;
use crate::{CancelToken, Error, ErrorCode, Result};

/// The most sessions of a connection. Each may hold an open file.
const SESSIONS_MAX: usize = 4096;

/// An open session.
enum Session {
    Read(ReadSession),
    Write(Box<WriteSession>),
    Database(Box<DatabaseSession>),
    Worker(Box<WorkerSession>),
}

impl Session {
    fn belongs_to(&self, command: CallKind) -> bool {
        matches!(
            (self, command),
            (Session::Read(_), CallKind::StorageRead | CallKind::StorageReadMany)
                | (Session::Write(_), CallKind::StorageWrite)
                | (Session::Database(_), CallKind::Database)
                | (Session::Worker(_), CallKind::Copy)
        )
    }
}

/// What a request is answered with.
pub(super) struct Reply {
    data: Data,
    is_closed: bool,
}

enum Data {
    None,
    Pack(PackWriter<'static>),
    /// A chunk in the block. `opens` tells whether it is the answer that says whether the file exists.
    Chunk {
        chunk: SentChunk,
        opens: bool,
    },
    Results(Vec<OwnedResult>),
    /// A chunk of a job in the block.
    Job(StoredChunk),
}

impl Reply {
    fn empty() -> Self {
        Reply { data: Data::None, is_closed: false }
    }

    fn pack(pack: PackWriter<'static>) -> Self {
        Reply { data: Data::Pack(pack), is_closed: false }
    }

    fn closed() -> Self {
        Reply { data: Data::None, is_closed: true }
    }
}

/// The state of a connection.
pub(super) struct Handlers {
    served: Served,
    /// Open once the client has asked for the features.
    files: Option<Arc<Files>>,
    sessions: HashMap<u64, (Session, Seat)>,
    /// Where chunks are read to.
    block: Vec<u8>,
    /// What both sides can do beyond pgBackRest's protocol.
    capabilities: Capabilities,
    workers: Workers,
}

impl Handlers {
    /// `capabilities` are those of both sides.
    pub(super) fn new(served: Served, capabilities: Capabilities) -> Self {
        let block = vec![0; served.block_bytes.max(1)];
        let (sessions, workers) = (HashMap::new(), Workers::default());
        Handlers { served, files: None, sessions, block, capabilities, workers }
    }

    /// Returns whether a command has a handler here. The others belong to the connection.
    pub(super) fn knows(&self, command: StringId, dialect: &Dialect) -> bool {
        let command = dialect.command(command).filter(|command| *command != CallKind::Config);
        command.is_some_and(|command| command.capability().is_none_or(|needed| self.capabilities.has(needed)))
    }

    /// What the connection uses.
    pub(super) fn usage(&self) -> &Usage {
        &self.served.usage
    }

    /// Ends long work.
    pub(super) fn cancel(&self) -> &CancelToken {
        &self.served.cancel
    }

    /// Reads a request.
    ///
    /// # Errors
    /// Those of [`Call::decode`], after which the file that the session writes is not completed: it lacks a block.
    pub(super) fn decode<'a>(&mut self, request: &RequestMessage<'a>, dialect: &Dialect) -> Result<Call<'a>> {
        let call = Call::decode(request, dialect);
        if call.is_err() && matches!(self.sessions.get(&request.session), Some((Session::Write(_), _))) {
            self.sessions.remove(&request.session);
        }
        call
    }

    /// Returns whether the client gets warnings.
    pub(super) fn passes_warnings(&self) -> bool {
        self.capabilities.has(Capability::Warnings)
    }

    /// The error as the client gets it.
    pub(super) fn error_answer(&self, error: &Error) -> ErrorAnswer<'static> {
        let tells = self.capabilities.has(Capability::NoSpace);
        ErrorAnswer { no_space: no_space(error).filter(|_| tells), ..ErrorAnswer::from(error) }
    }

    /// The message with a reply, and with warnings.
    pub(super) fn message<'a>(&'a self, session: u64, reply: &'a Reply, warnings: &[String]) -> Packed<'a> {
        fn results(results: &[OwnedResult]) -> Vec<protocol::filter::FilterResult<'_>> {
            results.iter().map(OwnedResult::result).collect()
        }
        let data = match &reply.data {
            Data::None => None,
            Data::Pack(pack) => Some(pack.clone()),
            Data::Chunk { chunk, opens } => {
                let data = self.block.get(..chunk.size).unwrap_or_default();
                let chunk = Chunk { data, results: chunk.results.as_deref().map(results) };
                Some(if *opens { ReadAnswer::Chunk(chunk).encode() } else { chunk.encode() })
            }
            Data::Job(chunk) => Some(chunk.answer(&self.block).encode()),
            Data::Results(owned) => Some(WriteAnswer { results: results(owned) }.encode()),
        };
        AnswerMessage::encode_with_warnings(session, reply.is_closed, data, warnings)
    }

    /// Handles a request of the session with this number.
    ///
    /// # Errors
    /// Those of the request. [`ErrorCode::Assert`] ends the connection.
    pub(super) fn handle(&mut self, call: &Call<'_>, session: u64) -> Result<Reply> {
        if call.step() != Step::Open && call.command().has_sessions() {
            return self.in_session(call, session);
        }
        if call.command().has_sessions() {
            // Before anything is opened: a file that is written in place loses its content at once
            let seat = self.seat(session)?;
            return self.open(call, session, seat);
        }
        Ok(match call {
            Call::Options(request) => Reply::pack(self.options(request)?),
            Call::Features => self.features()?,
            Call::Info(request) => self.info(request)?,
            Call::List(request) => self.list(request)?,
            Call::Link(request) => self.changed(|files| files.link(request))?,
            Call::PathCreate(request) => self.changed(|files| files.create_path(request))?,
            Call::PathRemove(request) => {
                let existed = self.files()?.remove_path(request)?;
                Reply::pack(PathRemoveAnswer { existed }.encode())
            }
            Call::PathSync(path) => self.changed(|files| files.sync_path(path))?,
            Call::Remove(request) => self.changed(|files| files.remove(request))?,
            // The rest belongs to the connection or to a session
            _ => Reply::empty(),
        })
    }

    /// Opens a session.
    fn open(&mut self, call: &Call<'_>, session: u64, seat: Seat) -> Result<Reply> {
        let usage = &self.served.usage;
        Ok(match call {
            Call::ReadOpen(request) => {
                let opened = ReadSession::open(request, self.files()?, usage, &self.served.cancel)?;
                match opened {
                    Some(reading) => self.begin_read(reading, session, seat, true)?,
                    None => Reply { data: Data::Pack(ReadAnswer::Missing.encode()), is_closed: true },
                }
            }
            Call::ReadManyOpen(request) => {
                let reading = ReadSession::open_many(request, self.files()?, usage, &self.served.cancel)?;
                self.begin_read(reading, session, seat, false)?
            }
            Call::WriteOpen(request) => {
                let writing = WriteSession::open(request, self.files()?, usage)?;
                self.enter(session, Session::Write(Box::new(writing)), seat)
            }
            Call::DatabaseOpen => {
                let database = DatabaseSession::open(self.served.database.as_ref(), usage, &self.served.cancel)?;
                self.enter(session, Session::Database(Box::new(database)), seat)
            }
            Call::WorkerOpen(request) => {
                let data_dir = self.files()?.data_dir()?;
                let worker = self.workers.begin(request, data_dir, usage, &self.served.cancel)?;
                self.enter(session, Session::Worker(Box::new(worker)), seat)
            }
            _ => Reply::empty(),
        })
    }

    fn options(&self, request: &OptionsRequest<'_>) -> Result<PackWriter<'static>> {
        let values = request.names.iter().map(|name| self.served.options.value(name)).collect::<Result<_>>()?;
        Ok(OptionsAnswer { values }.encode())
    }

    fn features(&mut self) -> Result<Reply> {
        let files = match &self.files {
            Some(files) => files,
            None => self.files.insert(Arc::new(Files::open(&self.served.storage)?)),
        };
        Ok(Reply::pack(files.features().encode()))
    }

    fn files(&self) -> Result<&Arc<Files>> {
        self.files
            .as_ref()
            .ok_or_else(|| Error::new(ErrorCode::Assert, "features of the storage must be asked for first"))
    }

    fn changed(&self, change: impl FnOnce(&Files) -> Result<()>) -> Result<Reply> {
        change(self.files()?).map(|()| Reply::empty())
    }

    fn info(&self, request: &FileInfoRequest<'_>) -> Result<Reply> {
        let found = self.files()?.info(request)?;
        Ok(Reply::pack(InfoAnswer { info: found.as_ref().map(FileInfo::info) }.encode()))
    }

    fn list(&self, request: &ListRequest<'_>) -> Result<Reply> {
        let entries = self.files()?.list(request)?;
        let mut list = ListAnswerWriter::new(entries.is_some());
        for entry in entries.iter().flatten() {
            list.entry(&entry.entry());
        }
        Ok(Reply::pack(list.finish()))
    }

    /// Checks that a session with this number can be opened, and takes its seat.
    fn seat(&self, session: u64) -> Result<Seat> {
        if self.sessions.contains_key(&session) {
            return Err(Error::new(ErrorCode::Protocol, format!("session id {session} is in use")));
        }
        self.served.usage.sessions.take(SESSIONS_MAX, "sessions")
    }

    /// Keeps a session.
    fn enter(&mut self, session: u64, opened: Session, seat: Seat) -> Reply {
        self.sessions.insert(session, (opened, seat));
        Reply::empty()
    }

    /// Answers with the first chunk, and keeps the session if there is more. `opens` tells whether the answer says whether the
    /// file exists.
    fn begin_read(&mut self, mut reading: ReadSession, session: u64, seat: Seat, opens: bool) -> Result<Reply> {
        let chunk = reading.next(&mut self.block, &self.served.cancel)?;
        let is_closed = chunk.results.is_some();
        if !is_closed {
            self.enter(session, Session::Read(reading), seat);
        }
        Ok(Reply { data: Data::Chunk { chunk, opens }, is_closed })
    }

    fn in_session(&mut self, call: &Call<'_>, number: u64) -> Result<Reply> {
        let command = call.command();
        let Some((session, _)) = self.sessions.get_mut(&number).filter(|(session, _)| session.belongs_to(command))
        else {
            if let Call::Cancel(_) = call {
                return Ok(Reply::closed());
            }
            let (id, step) = (command.id(), call.step().id());
            let text = format!("unable to find session id {number} for request {id}:{step}");
            return Err(Error::new(ErrorCode::Protocol, text));
        };
        let cancel = &self.served.cancel;
        match (call, session) {
            (Call::ReadNext | Call::ReadManyNext, Session::Read(reading)) => {
                let chunk = reading.next(&mut self.block, cancel);
                let is_closed = chunk.as_ref().map_or(true, |chunk| chunk.results.is_some());
                if is_closed {
                    // Also after an error: what follows would not be the rest of the file
                    self.sessions.remove(&number);
                }
                Ok(Reply { data: Data::Chunk { chunk: chunk?, opens: false }, is_closed })
            }
            (Call::WriteBlock(block), Session::Write(writing)) => {
                let written = writing.write(block, cancel);
                if written.is_err() {
                    // The file lacks the block, so it must not be completed
                    self.sessions.remove(&number);
                }
                written.map(|()| Reply::empty())
            }
            (Call::JobBegin(_) | Call::JobNext, Session::Worker(_)) => {
                let chunk = self.job(call, number);
                if chunk.is_err() {
                    // The worker may have half a stream
                    self.sessions.remove(&number);
                }
                Ok(Reply { data: Data::Job(chunk?), is_closed: false })
            }
            (Call::DatabaseQuery(request), Session::Database(database)) => Ok(Reply::pack(database.query(request)?)),
            (Call::Close(_), _) => match self.sessions.remove(&number) {
                Some((Session::Write(writing), _)) => {
                    let results = writing.finish(&self.served.cancel)?;
                    Ok(Reply { data: Data::Results(results), is_closed: true })
                }
                _ => Ok(Reply::closed()),
            },
            _ => {
                self.sessions.remove(&number);
                Ok(Reply::closed())
            }
        }
    }

    /// Begins a job, if there is one, and returns the next chunk.
    fn job(&mut self, call: &Call<'_>, number: u64) -> Result<StoredChunk> {
        let files = Arc::clone(self.files()?);
        let Some((Session::Worker(worker), _)) = self.sessions.get_mut(&number) else {
            return Err(Error::new(ErrorCode::Assert, "session has no worker"));
        };
        if let Call::JobBegin(request) = call {
            worker.begin(request, &files, &self.served.usage)?;
        }
        worker.next(&mut self.block, &self.served.cancel)
    }
}

#[cfg(test)]
mod tests;
