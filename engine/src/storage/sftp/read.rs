//! Reads a file ahead of the reader, with many requests in flight.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::Shared;
use super::client::{Client, Pending, SftpFailure, unexpected};
use super::protocol::{Response, open, status};
use crate::ErrorCode;
use crate::storage::{ReadRange, RepoReader};

/// Bytes of one request, which every server takes.
const CHUNK_SIZE_BYTES: u32 = 32 * 1024;
/// Requests in flight at the start of a file. The number doubles with each answer, so that a small file needs few.
const IN_FLIGHT_FIRST: usize = 2;
/// Requests in flight for one file: 2 MiB.
const IN_FLIGHT_MAX: usize = 64;
/// Chunks that may wait for the reader.
const CHUNKS_AHEAD_MAX: usize = 32;
/// Maximum number of lost connections without any byte read in between.
const LOST_MAX: u32 = 2;

/// A file being read.
pub(super) struct SftpReader {
    chunks: mpsc::Receiver<std::result::Result<Bytes, SftpFailure>>,
    current: Bytes,
    shared: Arc<Shared>,
    path: String,
}

impl SftpReader {
    /// Opens a file and starts reading.
    pub(super) async fn open(
        shared: Arc<Shared>,
        path: &str,
        range: ReadRange,
    ) -> std::result::Result<Self, SftpFailure> {
        let (client, handle) = shared
            .repeat(|client| async move {
                let handle = client.open(path, open::READ, None).await?;
                Ok((client, handle))
            })
            .await?;
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD_MAX);
        let end = range.limit.map_or(u64::MAX, |limit| range.offset.saturating_add(limit));
        let task = ReadTask { shared: Arc::clone(&shared), path: path.to_owned(), at: range.offset, end, sender };
        tokio::spawn(task.run(client, handle));
        Ok(SftpReader { chunks, current: Bytes::new(), shared, path: path.to_owned() })
    }
}

impl Read for SftpReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                None => return Ok(0),
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(failure)) => {
                    let message = format!("unable to read '{}'", self.path);
                    return Err(self.shared.error(ErrorCode::FileRead, &message, &failure).into());
                }
            }
        }
        let size = buffer.len().min(self.current.len());
        buffer[..size].copy_from_slice(&self.current.split_to(size));
        Ok(size)
    }
}

impl RepoReader for SftpReader {
    fn is_ready(&self) -> bool {
        !self.current.is_empty() || !self.chunks.is_empty() || self.chunks.is_closed()
    }
}

/// The task that reads.
struct ReadTask {
    shared: Arc<Shared>,
    path: String,
    /// The next byte for the reader.
    at: u64,
    /// The byte after the last one for the reader.
    end: u64,
    sender: mpsc::Sender<std::result::Result<Bytes, SftpFailure>>,
}

impl ReadTask {
    async fn run(mut self, mut client: Arc<Client>, mut handle: Bytes) {
        let mut lost = 0;
        loop {
            let before = self.at;
            match self.pump(&client, &handle).await {
                Ok(()) => {
                    // It does not matter when the server closes it
                    drop(client.close(&handle).await);
                    return;
                }
                Err(SftpFailure::Lost(why)) => {
                    lost = if self.at > before { 1 } else { lost + 1 };
                    if lost > LOST_MAX {
                        drop(self.sender.send(Err(SftpFailure::Lost(why))).await);
                        return;
                    }
                }
                Err(failure) => {
                    drop(client.close(&handle).await);
                    drop(self.sender.send(Err(failure)).await);
                    return;
                }
            }
            // A repository's files do not change, so reading continues where it stopped
            let path = self.path.as_str();
            let again = self.shared.repeat(|client| async move {
                let handle = client.open(path, open::READ, None).await?;
                Ok((client, handle))
            });
            match again.await {
                Ok(opened) => (client, handle) = opened,
                Err(failure) => {
                    drop(self.sender.send(Err(failure)).await);
                    return;
                }
            }
        }
    }

    /// Reads to the end, in order.
    async fn pump(&mut self, client: &Client, handle: &Bytes) -> std::result::Result<(), SftpFailure> {
        let mut in_flight: VecDeque<(u32, Pending)> = VecDeque::new();
        let mut width = IN_FLIGHT_FIRST;
        let mut asked = self.at;
        loop {
            while asked < self.end && in_flight.len() < width {
                let size = u32::try_from(self.end - asked).unwrap_or(CHUNK_SIZE_BYTES).min(CHUNK_SIZE_BYTES);
                in_flight.push_back((size, client.read(handle, asked, size).await?));
                asked += u64::from(size);
            }
            let Some((size, pending)) = in_flight.pop_front() else { return Ok(()) };
            let data = match pending.response().await? {
                Response::Data(data) if !data.is_empty() && data.len() <= size as usize => data,
                Response::Status { code: status::EOF, .. } => return Ok(()),
                Response::Data(_) => return Err(SftpFailure::Protocol),
                other => return Err(unexpected(other)),
            };
            let received = data.len() as u64;
            self.at += received;
            if self.sender.send(Ok(data)).await.is_err() {
                // The reader was dropped: nobody wants the rest
                return Ok(());
            }
            if received < u64::from(size) {
                // Less than requested: the requests after it leave a gap, or this is the end
                in_flight.clear();
                asked = self.at;
                width = IN_FLIGHT_FIRST;
            } else {
                width = (width * 2).min(IN_FLIGHT_MAX);
            }
        }
    }
}
