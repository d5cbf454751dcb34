//! Every request that a server accepts, with its parameters.

pub use crate::call_kind::CallKind;
use crate::capability::Offer;
use crate::copy::{JobRequest, WorkerRequest};
use crate::database::QueryRequest;
use crate::message::{RequestMessage, Step};
use crate::options::{ConfigRequest, OptionsRequest};
use crate::pack::{EMPTY, PackReader, PackWriter, Packed};
use crate::storage::{
    FileInfoRequest, LinkRequest, ListRequest, PathCreateRequest, PathRemoveRequest, ReadManyRequest, ReadRequest,
    RemoveRequest, WriteRequest,
};
use crate::{Dialect, format_error};
use repo_format::{Error, ErrorCode, Result};

/// A request with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// [`CallKind::Noop`].
    Noop,
    /// [`CallKind::Noop`] of a client that can do more than pgBackRest. The answer may contain [`crate::Capabilities`].
    Offer(Offer),
    /// [`CallKind::Exit`].
    Exit,
    /// [`CallKind::Config`].
    Config(ConfigRequest<'a>),
    /// [`CallKind::Options`]. The answer is an [`crate::options::OptionsAnswer`].
    Options(OptionsRequest<'a>),
    /// [`CallKind::StorageFeatures`]. The answer is a [`crate::storage::FeaturesAnswer`].
    Features,
    /// [`CallKind::StorageInfo`]. The answer is a [`crate::storage::InfoAnswer`].
    Info(FileInfoRequest<'a>),
    /// [`CallKind::StorageList`]. The answer is a [`crate::storage::ListAnswer`].
    List(ListRequest<'a>),
    /// [`CallKind::StorageLink`].
    Link(LinkRequest<'a>),
    /// [`CallKind::StoragePathCreate`].
    PathCreate(PathCreateRequest<'a>),
    /// [`CallKind::StoragePathRemove`]. The answer is a [`crate::storage::PathRemoveAnswer`].
    PathRemove(PathRemoveRequest<'a>),
    /// [`CallKind::StoragePathSync`] with the directory.
    PathSync(&'a str),
    /// [`CallKind::StorageRemove`].
    Remove(RemoveRequest<'a>),
    /// Opens a file. The answer is a [`crate::storage::ReadAnswer`].
    ReadOpen(ReadRequest<'a>),
    /// Asks for the next chunk of a file. The answer is a [`crate::storage::Chunk`].
    ReadNext,
    /// Opens parts of files. The answer is a [`crate::storage::Chunk`].
    ReadManyOpen(ReadManyRequest<'a>),
    /// Asks for the next chunk of the parts. The answer is a [`crate::storage::Chunk`].
    ReadManyNext,
    /// Opens a file for writing.
    WriteOpen(WriteRequest<'a>),
    /// Writes a block.
    WriteBlock(&'a [u8]),
    /// Opens a connection to PostgreSQL.
    DatabaseOpen,
    /// Runs a statement. The answer is a [`crate::database::QueryAnswer`].
    DatabaseQuery(QueryRequest<'a>),
    /// Begins a worker that copies jobs. Only with [`crate::Capability::CopyJobs`].
    WorkerOpen(WorkerRequest<'a>),
    /// Gives a worker its next job. The answer is a [`crate::copy::JobChunk`].
    JobBegin(JobRequest<'a>),
    /// Asks for the next chunk of a job. The answer is a [`crate::copy::JobChunk`].
    JobNext,
    /// Closes a session. A written file answers with a [`crate::storage::WriteAnswer`], others have an empty answer.
    Close(CallKind),
    /// Drops a session. The answer is empty.
    Cancel(CallKind),
}

impl<'a> Call<'a> {
    /// The command.
    pub fn command(&self) -> CallKind {
        match self {
            Call::Noop | Call::Offer(_) => CallKind::Noop,
            Call::Exit => CallKind::Exit,
            Call::Config(_) => CallKind::Config,
            Call::Options(_) => CallKind::Options,
            Call::Features => CallKind::StorageFeatures,
            Call::Info(_) => CallKind::StorageInfo,
            Call::List(_) => CallKind::StorageList,
            Call::Link(_) => CallKind::StorageLink,
            Call::PathCreate(_) => CallKind::StoragePathCreate,
            Call::PathRemove(_) => CallKind::StoragePathRemove,
            Call::PathSync(_) => CallKind::StoragePathSync,
            Call::Remove(_) => CallKind::StorageRemove,
            Call::ReadOpen(_) | Call::ReadNext => CallKind::StorageRead,
            Call::ReadManyOpen(_) | Call::ReadManyNext => CallKind::StorageReadMany,
            Call::WriteOpen(_) | Call::WriteBlock(_) => CallKind::StorageWrite,
            Call::DatabaseOpen | Call::DatabaseQuery(_) => CallKind::Database,
            Call::WorkerOpen(_) | Call::JobBegin(_) | Call::JobNext => CallKind::Copy,
            Call::Close(command) | Call::Cancel(command) => *command,
        }
    }

    /// What it does with its session.
    pub fn step(&self) -> Step {
        match self {
            Call::ReadOpen(_) | Call::ReadManyOpen(_) | Call::WriteOpen(_) => Step::Open,
            Call::DatabaseOpen | Call::WorkerOpen(_) => Step::Open,
            Call::Close(_) => Step::Close,
            Call::Cancel(_) => Step::Cancel,
            _ => Step::Process,
        }
    }

    /// Writes the request as message number `session`, or as a message of that session.
    pub fn encode(&self, session: u64, dialect: &Dialect) -> Packed<'a> {
        let (command, step) = (self.command(), self.step());
        let is_open = command.has_sessions() && step != Step::Open;
        let message = RequestMessage { command: command.id(), step, session, is_open, parameters: None };
        message.encode_with(self.parameters(dialect))
    }

    fn parameters(&self, dialect: &Dialect) -> Option<PackWriter<'a>> {
        let mut writer = PackWriter::new();
        match self {
            Call::Noop | Call::Exit | Call::Features | Call::ReadNext | Call::ReadManyNext => return None,
            Call::DatabaseOpen | Call::JobNext | Call::Close(_) | Call::Cancel(_) => return None,
            Call::Offer(offer) => offer.write(&mut writer),
            Call::Config(request) => request.write(&mut writer),
            Call::Options(request) => request.write(&mut writer),
            Call::Info(request) => request.write(&mut writer),
            Call::List(request) => request.write(&mut writer),
            Call::Link(request) => request.write(&mut writer),
            Call::PathCreate(request) => request.write(&mut writer),
            Call::PathRemove(request) => request.write(&mut writer),
            Call::PathSync(path) => {
                writer.text(*path);
            }
            Call::Remove(request) => request.write(&mut writer),
            Call::ReadOpen(request) => request.write(&mut writer, dialect),
            Call::ReadManyOpen(request) => request.write(&mut writer, dialect),
            Call::WriteOpen(request) => request.write(&mut writer, dialect),
            Call::WriteBlock(block) => {
                writer.binary(*block);
            }
            Call::DatabaseQuery(request) => request.write(&mut writer),
            Call::WorkerOpen(request) => request.write(&mut writer),
            Call::JobBegin(request) => request.write(&mut writer),
        }
        Some(writer)
    }

    /// Reads the parameters of a request. Parameters that are not known are passed over.
    ///
    /// # Errors
    /// [`ErrorCode::Protocol`] for an unknown command or a step that it does not have; [`ErrorCode::Format`] and others
    /// for damaged or unsupported parameters.
    pub fn decode(message: &RequestMessage<'a>, dialect: &Dialect) -> Result<Self> {
        let RequestMessage { command, step, session, is_open, parameters } = *message;
        let invalid = |text: String| Err(Error::new(ErrorCode::Protocol, text));
        let Some(known) = dialect.command(command) else {
            return invalid(format!("invalid request '{command}' (0x{:x})", command.0));
        };
        if known.has_sessions() && step != Step::Open && !is_open {
            return invalid(format!("request {command}:{} of session {session} is not in a session", step.id()));
        }
        let mut reader = PackReader::new(parameters.unwrap_or(EMPTY));
        let call = match (known, step) {
            (_, Step::Close) if known.has_sessions() => Call::Close(known),
            (_, Step::Cancel) if known.has_sessions() => Call::Cancel(known),
            (_, Step::Open) if known.has_sessions() => Self::decode_open(known, &mut reader, dialect)?,
            (_, Step::Process) => Self::decode_process(known, &mut reader)?,
            _ => return invalid(format!("request {command} has no step '{}'", step.id())),
        };
        reader.finish()?;
        Ok(call)
    }

    fn decode_open(command: CallKind, reader: &mut PackReader<'a>, dialect: &Dialect) -> Result<Self> {
        Ok(match command {
            CallKind::StorageRead => Call::ReadOpen(ReadRequest::read(reader, dialect)?),
            CallKind::StorageReadMany => Call::ReadManyOpen(ReadManyRequest::read(reader, dialect)?),
            CallKind::StorageWrite => Call::WriteOpen(WriteRequest::read(reader, dialect)?),
            CallKind::Copy => Call::WorkerOpen(WorkerRequest::read(reader)?),
            _ => Call::DatabaseOpen,
        })
    }

    fn decode_process(command: CallKind, reader: &mut PackReader<'a>) -> Result<Self> {
        Ok(match command {
            CallKind::Noop if reader.at_end()? => Call::Noop,
            CallKind::Noop => Call::Offer(Offer::read(reader)?),
            CallKind::Exit => Call::Exit,
            CallKind::Config => Call::Config(ConfigRequest::read(reader)?),
            CallKind::Options => Call::Options(OptionsRequest::read(reader)?),
            CallKind::Database => Call::DatabaseQuery(QueryRequest::read(reader)?),
            CallKind::Copy if reader.at_end()? => Call::JobNext,
            CallKind::Copy => Call::JobBegin(JobRequest::read(reader)?),
            CallKind::StorageFeatures => Call::Features,
            CallKind::StorageInfo => Call::Info(FileInfoRequest::read(reader)?),
            CallKind::StorageList => Call::List(ListRequest::read(reader)?),
            CallKind::StorageLink => Call::Link(LinkRequest::read(reader)?),
            CallKind::StoragePathCreate => Call::PathCreate(PathCreateRequest::read(reader)?),
            CallKind::StoragePathRemove => Call::PathRemove(PathRemoveRequest::read(reader)?),
            CallKind::StoragePathSync => Call::PathSync(reader.text_required("path")?),
            CallKind::StorageRemove => Call::Remove(RemoveRequest::read(reader)?),
            CallKind::StorageRead => Call::ReadNext,
            CallKind::StorageReadMany => Call::ReadManyNext,
            CallKind::StorageWrite => {
                Call::WriteBlock(reader.binary()?.ok_or_else(|| format_error("block is missing"))?)
            }
        })
    }
}

#[cfg(test)]
mod tests;
