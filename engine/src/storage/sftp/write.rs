//! Writes a file with many requests in flight.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;

use ::protocol::message::NoSpace;
use bytes::{Bytes, BytesMut};
use futures_util::future::join;

use super::client::{Client, Pending, SftpFailure};
use super::protocol::{SftpAttributes, open};
use super::{Shared, create_path, parent};
use crate::storage::full::with_no_space;
use crate::storage::posix::{FILE_MODE, wrong_size};
use crate::storage::{RepoWriter, WriteOptions, temporary};
use crate::{ErrorCode, Result};

/// Bytes of one request, which every server takes.
const CHUNK_SIZE_BYTES: usize = 32 * 1024;
/// Requests in flight for one file: 2 MiB.
const IN_FLIGHT_MAX: usize = 64;

/// Returns what the failure of a step of a write says about the space of the server. Where it may mean anything, the file
/// system of `path` is asked. If that has space, there may be a quota; other steps than the write itself rarely fail for it.
async fn no_space(shared: &Shared, path: &str, code: ErrorCode, failure: &SftpFailure) -> Option<NoSpace> {
    let said = failure.no_space()?;
    if said == NoSpace::Certain {
        return Some(said);
    }
    let asked = shared.repeat(|client| async move { client.is_exhausted(path).await }).await;
    match asked {
        Ok(Some(true)) => Some(NoSpace::Certain),
        _ => Some(said).filter(|_| code == ErrorCode::FileWrite),
    }
}

/// A file being written. A lost connection ends it, because it is unknown what the server has.
pub(super) struct SftpWriter {
    shared: Arc<Shared>,
    client: Arc<Client>,
    /// `None` once closed.
    handle: Option<Bytes>,
    path: String,
    /// Where the bytes are written: the temporary name, or `path` itself if the write is not atomic.
    path_open: String,
    options: WriteOptions,
    buffer: BytesMut,
    /// Bytes sent.
    offset: u64,
    in_flight: VecDeque<Pending>,
}

/// Creates an empty file and opens it. An existing file is replaced, not truncated: it is mostly left over from an
/// attempt whose connection was lost, and the server may still be about to open it or write to it for that attempt.
async fn create(client: &Client, path: &str) -> std::result::Result<Bytes, SftpFailure> {
    // A server that does not know the last flag empties the file
    let new = open::WRITE | open::CREATE | open::TRUNCATE | open::EXCLUSIVE;
    let is_refusal = |failure: &SftpFailure| matches!(failure, SftpFailure::Status { .. }) && !failure.is_missing();
    let exists = match client.open(path, new, Some(FILE_MODE)).await {
        Err(failure) if is_refusal(&failure) => failure.may_exist(),
        done => return done,
    };
    if exists {
        match client.remove(path).await {
            Ok(()) => match client.open(path, new, Some(FILE_MODE)).await {
                Err(failure) if is_refusal(&failure) => {}
                done => return done,
            },
            Err(lost @ SftpFailure::Lost(_)) => return Err(lost),
            // It was something else, or it can't be removed
            Err(_) => {}
        }
    }
    // Or a server refuses the flag
    client.open(path, new & !open::EXCLUSIVE, Some(FILE_MODE)).await
}

impl SftpWriter {
    /// Opens the file (or its temporary name) for writing from its start, and creates missing directories.
    pub(super) fn open(shared: Arc<Shared>, path: String, options: WriteOptions) -> Result<Self> {
        let path_open = if options.atomic { temporary::name(&path) } else { path.clone() };
        let name = path_open.as_str();
        let opened = shared.runtime.block_on(shared.repeat(|client| async move {
            let handle = match create(&client, name).await {
                Err(failure) if failure.is_missing() => {
                    if let Some(parent) = parent(name) {
                        create_path(&client, parent).await?;
                    }
                    create(&client, name).await?
                }
                done => done?,
            };
            Ok((client, handle))
        }));
        let (client, handle) = opened.map_err(|failure| {
            let code = if failure.is_missing() { ErrorCode::FileMissing } else { ErrorCode::FileOpen };
            let error = shared.error(code, &format!("unable to open file '{path}' for write"), &failure);
            let directory = parent(name).unwrap_or(name);
            with_no_space(error, shared.runtime.block_on(no_space(&shared, directory, code, &failure)))
        })?;
        let abandoned = std::mem::take(&mut *shared.abandoned());
        if !abandoned.is_empty() {
            shared.runtime.block_on(async {
                for path in &abandoned {
                    if let Err(failure) = client.remove(path).await {
                        let message = format!("unable to remove file '{path}'");
                        crate::debug!("{}", shared.error(ErrorCode::FileRemove, &message, &failure).message);
                    }
                }
            });
        }
        Ok(SftpWriter {
            shared,
            client,
            handle: Some(handle),
            path,
            path_open,
            options,
            buffer: BytesMut::with_capacity(CHUNK_SIZE_BYTES),
            offset: 0,
            in_flight: VecDeque::new(),
        })
    }

    fn error(&self, code: ErrorCode, message: &str, failure: &SftpFailure) -> crate::Error {
        self.shared.error(code, &message.replace("{}", &self.path_open), failure)
    }

    /// The error of a failed write, which also tells whether the server has space left.
    async fn fail(&self, code: ErrorCode, message: &str, failure: &SftpFailure) -> crate::Error {
        let said = no_space(&self.shared, &self.path_open, code, failure).await;
        with_no_space(self.error(code, message, failure), said)
    }

    /// Sends the buffer. Waits only while too much is in flight.
    async fn send(&mut self) -> std::result::Result<(), SftpFailure> {
        let Some(handle) = self.handle.clone() else { return Ok(()) };
        while self.in_flight.len() >= IN_FLIGHT_MAX {
            if let Some(oldest) = self.in_flight.pop_front() {
                oldest.done().await?;
            }
        }
        let pending = self.client.write(&handle, self.offset, &self.buffer).await?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        self.in_flight.push_back(pending);
        Ok(())
    }

    /// Waits for all writes, the sync and the close, which are sent together: the server processes them in this order.
    async fn close(&mut self) -> std::result::Result<(), (ErrorCode, &'static str, SftpFailure)> {
        const WRITE: (ErrorCode, &str) = (ErrorCode::FileWrite, "unable to write '{}'");
        const SYNC: (ErrorCode, &str) = (ErrorCode::FileSync, "unable to sync file '{}' after write");
        const CLOSE: (ErrorCode, &str) = (ErrorCode::FileClose, "unable to close file '{}' after write");
        let during = |(code, message)| move |failure| (code, message, failure);
        if !self.buffer.is_empty() {
            self.send().await.map_err(during(WRITE))?;
        }
        let Some(handle) = self.handle.take() else { return Ok(()) };
        let sync = if self.options.sync_file && self.client.can_sync() {
            Some(self.client.sync(&handle).await.map_err(during(SYNC))?)
        } else {
            None
        };
        let close = self.client.close(&handle).await.map_err(during(CLOSE))?;
        for pending in self.in_flight.drain(..) {
            pending.done().await.map_err(during(WRITE))?;
        }
        if let Some(sync) = sync {
            sync.done().await.map_err(during(SYNC))?;
        }
        close.done().await.map_err(during(CLOSE))
    }

    /// Gives the file its final name.
    async fn rename(&self) -> std::result::Result<(), SftpFailure> {
        let (from, to) = (self.path_open.as_str(), self.path.as_str());
        let aside = &temporary::name(to);
        let done = self.client.replace(from, to, aside).await;
        let Err(SftpFailure::Lost(_)) = done else { return done };
        // If the outcome is unknown, the rename succeeded if the temporary name is gone, because only this writer uses
        // it. The final name is checked afterwards
        self.shared
            .repeat(|client| async move {
                match client.replace(from, to, aside).await {
                    Err(missing) if missing.is_missing() => match client.attributes(from, false).await {
                        Err(gone) if gone.is_missing() => client.attributes(to, true).await.map(drop),
                        _ => Err(missing),
                    },
                    done => done,
                }
            })
            .await
    }

    /// Checks that the final name has all the bytes that were sent. `found` was requested ahead, together with the
    /// rename. A server that answers in another order is asked again.
    async fn check_size(&self, found: std::result::Result<SftpAttributes, SftpFailure>) -> Result<()> {
        let is_whole = |found: &SftpAttributes| found.size.is_none_or(|size| size == self.offset);
        if found.is_ok_and(|found| is_whole(&found)) {
            return Ok(());
        }
        let path = self.path.as_str();
        let found = self.shared.repeat(|client| async move { client.attributes(path, true).await }).await;
        let message = format!("unable to get info for path/file '{path}' after write");
        let found = found.map_err(|failure| self.shared.error(ErrorCode::FileOpen, &message, &failure))?;
        if is_whole(&found) { Ok(()) } else { Err(wrong_size(path, found.size.unwrap_or(0), self.offset)) }
    }

    /// Closes the file, gives it its final name, and checks that it exists.
    async fn complete(&mut self) -> Result<()> {
        let (client, path) = (Arc::clone(&self.client), self.path.clone());
        let look = client.attributes(&path, true);
        if !self.options.atomic {
            let (done, found) = join(self.close(), look).await;
            if let Err((code, message, failure)) = done {
                return Err(self.fail(code, message, &failure).await);
            }
            return self.check_size(found).await;
        }
        if let Err((code, message, failure)) = self.close().await {
            return Err(self.fail(code, message, &failure).await);
        }
        let (done, found) = join(self.rename(), look).await;
        done.map_err(|failure| {
            let message = format!("unable to move '{}' to '{}'", self.path_open, self.path);
            self.shared.error(ErrorCode::FileClose, &message, &failure)
        })?;
        // Nothing is left to remove
        self.options.atomic = false;
        self.check_size(found).await
    }
}

impl Write for SftpWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= CHUNK_SIZE_BYTES {
            let runtime = self.shared.runtime.clone();
            runtime.block_on(async {
                match self.send().await {
                    Ok(()) => Ok(()),
                    Err(failure) => Err(self.fail(ErrorCode::FileWrite, "unable to write '{}'", &failure).await),
                }
            })?;
        }
        let size = data.len().min(CHUNK_SIZE_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&data[..size]);
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl RepoWriter for SftpWriter {
    fn is_ready(&self) -> bool {
        self.buffer.len() < CHUNK_SIZE_BYTES
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let runtime = self.shared.runtime.clone();
        runtime.block_on(self.complete())
    }
}

impl Drop for SftpWriter {
    fn drop(&mut self) {
        let handle = self.handle.take();
        // Still set only if the file did not get its name
        let abandoned = self.options.atomic;
        if handle.is_none() && !abandoned {
            return;
        }
        if self.client.is_lost() {
            if abandoned {
                self.shared.abandoned().push(self.path_open.clone());
            }
            return;
        }
        let done = self.shared.runtime.block_on(async {
            if let Some(handle) = handle {
                self.client.close(&handle).await?.done().await?;
            }
            if abandoned { self.client.remove(&self.path_open).await } else { Ok(()) }
        });
        // A temporary file that stays is harmless; a later run removes it
        if let Err(failure) = done {
            let error = self.error(ErrorCode::FileRemove, "unable to remove file '{}'", &failure);
            crate::debug!("{}", error.message);
        }
    }
}
