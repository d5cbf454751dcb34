//! Every request that a server accepts, with its parameters.

use crate::database::QueryRequest;
use crate::message::{RequestMessage, Step};
use crate::options::{ConfigRequest, OptionsRequest};
use crate::pack::{EMPTY, PackReader, PackWriter, Packed};
use crate::storage::{
    InfoRequest, LinkRequest, ListRequest, PathCreateRequest, PathRemoveRequest, ReadManyRequest, ReadRequest,
    RemoveRequest, WriteRequest,
};
use crate::{Dialect, StringId, format_error};
use repo_format::{Error, ErrorCode, Result};

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Does nothing. The first one is answered when the server is ready; later ones keep the connection alive.
    Noop,
    /// Ends the server. It has no answer.
    Exit,
    /// Sets the server's command line; over TLS only, and first.
    Config,
    /// Asks for values of options.
    Options,
    /// Queries.
    Database,
    /// Asks what the storage is.
    StorageFeatures,
    /// Asks for information about a file.
    StorageInfo,
    /// Lists a directory.
    StorageList,
    /// Creates a link.
    StorageLink,
    /// Creates a directory.
    StoragePathCreate,
    /// Removes a directory.
    StoragePathRemove,
    /// Syncs a directory.
    StoragePathSync,
    /// Removes a file.
    StorageRemove,
    /// Reads a file.
    StorageRead,
    /// Reads parts of files.
    StorageReadMany,
    /// Writes a file.
    StorageWrite,
}

impl Command {
    /// Every command.
    pub const ALL: [Command; 16] = [
        Command::Noop,
        Command::Exit,
        Command::Config,
        Command::Options,
        Command::Database,
        Command::StorageFeatures,
        Command::StorageInfo,
        Command::StorageList,
        Command::StorageLink,
        Command::StoragePathCreate,
        Command::StoragePathRemove,
        Command::StoragePathSync,
        Command::StorageRemove,
        Command::StorageRead,
        Command::StorageReadMany,
        Command::StorageWrite,
    ];

    /// The name on the wire.
    pub const fn id(self) -> StringId {
        StringId::known(match self {
            Command::Noop => "noop",
            Command::Exit => "exit",
            Command::Config => "config",
            Command::Options => "opt-g",
            Command::Database => "db",
            Command::StorageFeatures => "s-f",
            Command::StorageInfo => "s-i",
            Command::StorageList => "s-l",
            Command::StorageLink => "s-lc",
            Command::StoragePathCreate => "s-pc",
            Command::StoragePathRemove => "s-pr",
            Command::StoragePathSync => "s-ps",
            Command::StorageRemove => "s-r",
            Command::StorageRead => "s-rd",
            Command::StorageReadMany => "s-rdm",
            Command::StorageWrite => "s-wr",
        })
    }

    /// Whether its requests belong to sessions.
    pub fn has_sessions(self) -> bool {
        matches!(self, Command::Database | Command::StorageRead | Command::StorageReadMany | Command::StorageWrite)
    }
}

/// A request with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// [`Command::Noop`].
    Noop,
    /// [`Command::Exit`].
    Exit,
    /// [`Command::Config`].
    Config(ConfigRequest<'a>),
    /// [`Command::Options`]. The answer is an [`crate::options::OptionsAnswer`].
    Options(OptionsRequest<'a>),
    /// [`Command::StorageFeatures`]. The answer is a [`crate::storage::FeaturesAnswer`].
    Features,
    /// [`Command::StorageInfo`]. The answer is a [`crate::storage::InfoAnswer`].
    Info(InfoRequest<'a>),
    /// [`Command::StorageList`]. The answer is a [`crate::storage::ListAnswer`].
    List(ListRequest<'a>),
    /// [`Command::StorageLink`].
    Link(LinkRequest<'a>),
    /// [`Command::StoragePathCreate`].
    PathCreate(PathCreateRequest<'a>),
    /// [`Command::StoragePathRemove`]. The answer is a [`crate::storage::PathRemoveAnswer`].
    PathRemove(PathRemoveRequest<'a>),
    /// [`Command::StoragePathSync`] with the directory.
    PathSync(&'a str),
    /// [`Command::StorageRemove`].
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
    /// Closes a session. A written file answers with a [`crate::storage::WriteAnswer`], others have an empty answer.
    Close(Command),
    /// Drops a session. The answer is empty.
    Cancel(Command),
}

impl<'a> Call<'a> {
    /// The command.
    pub fn command(&self) -> Command {
        match self {
            Call::Noop => Command::Noop,
            Call::Exit => Command::Exit,
            Call::Config(_) => Command::Config,
            Call::Options(_) => Command::Options,
            Call::Features => Command::StorageFeatures,
            Call::Info(_) => Command::StorageInfo,
            Call::List(_) => Command::StorageList,
            Call::Link(_) => Command::StorageLink,
            Call::PathCreate(_) => Command::StoragePathCreate,
            Call::PathRemove(_) => Command::StoragePathRemove,
            Call::PathSync(_) => Command::StoragePathSync,
            Call::Remove(_) => Command::StorageRemove,
            Call::ReadOpen(_) | Call::ReadNext => Command::StorageRead,
            Call::ReadManyOpen(_) | Call::ReadManyNext => Command::StorageReadMany,
            Call::WriteOpen(_) | Call::WriteBlock(_) => Command::StorageWrite,
            Call::DatabaseOpen | Call::DatabaseQuery(_) => Command::Database,
            Call::Close(command) | Call::Cancel(command) => *command,
        }
    }

    /// What it does with its session.
    pub fn step(&self) -> Step {
        match self {
            Call::ReadOpen(_) | Call::ReadManyOpen(_) | Call::WriteOpen(_) | Call::DatabaseOpen => Step::Open,
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
            Call::DatabaseOpen | Call::Close(_) | Call::Cancel(_) => return None,
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

    fn decode_open(command: Command, reader: &mut PackReader<'a>, dialect: &Dialect) -> Result<Self> {
        Ok(match command {
            Command::StorageRead => Call::ReadOpen(ReadRequest::read(reader, dialect)?),
            Command::StorageReadMany => Call::ReadManyOpen(ReadManyRequest::read(reader, dialect)?),
            Command::StorageWrite => Call::WriteOpen(WriteRequest::read(reader, dialect)?),
            _ => Call::DatabaseOpen,
        })
    }

    fn decode_process(command: Command, reader: &mut PackReader<'a>) -> Result<Self> {
        Ok(match command {
            Command::Noop => Call::Noop,
            Command::Exit => Call::Exit,
            Command::Config => Call::Config(ConfigRequest::read(reader)?),
            Command::Options => Call::Options(OptionsRequest::read(reader)?),
            Command::Database => Call::DatabaseQuery(QueryRequest::read(reader)?),
            Command::StorageFeatures => Call::Features,
            Command::StorageInfo => Call::Info(InfoRequest::read(reader)?),
            Command::StorageList => Call::List(ListRequest::read(reader)?),
            Command::StorageLink => Call::Link(LinkRequest::read(reader)?),
            Command::StoragePathCreate => Call::PathCreate(PathCreateRequest::read(reader)?),
            Command::StoragePathRemove => Call::PathRemove(PathRemoveRequest::read(reader)?),
            Command::StoragePathSync => Call::PathSync(reader.text_required("path")?),
            Command::StorageRemove => Call::Remove(RemoveRequest::read(reader)?),
            Command::StorageRead => Call::ReadNext,
            Command::StorageReadMany => Call::ReadManyNext,
            Command::StorageWrite => {
                Call::WriteBlock(reader.binary()?.ok_or_else(|| format_error("block is missing"))?)
            }
        })
    }
}

#[cfg(test)]
mod tests;
