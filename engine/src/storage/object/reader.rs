//! Reading an object, ahead of the reader by a chunk or two.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore};
use tokio::sync::mpsc::{self, error::TryRecvError};

use super::ObjectStorage;
use super::error::request_error;
use crate::slots;
use crate::storage::{RepoPath, RepoStorage};

/// Chunks that wait for the reader while the next is on its way; the HTTP client hands over at most a few hundred KiB, and the
/// system keeps more of what has arrived.
const CHUNKS_AHEAD_MAX: usize = 1;

/// Reads an object while a task fetches the next chunks.
pub(super) struct ObjectReader {
    chunks: mpsc::Receiver<object_store::Result<Bytes>>,
    current: Bytes,
    name: String,
}

impl ObjectReader {
    pub(super) fn start(storage: &ObjectStorage, path: &RepoPath, key: Path, result: GetResult) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD_MAX);
        storage.runtime.spawn(fetch(Arc::clone(&storage.store), key, result, sender));
        ObjectReader { chunks, current: Bytes::new(), name: storage.display(path) }
    }
}

/// Hands over the content of an object. Where the connection breaks off the rest is asked for again, as long as each time
/// brings something and the object is still the same. (`object_store` does so too, but only for the first minute.)
async fn fetch(
    store: Arc<dyn ObjectStore>,
    key: Path,
    mut result: GetResult,
    sender: mpsc::Sender<object_store::Result<Bytes>>,
) {
    loop {
        let (mut left, same) = (result.range.clone(), result.meta.e_tag.clone());
        let begin = left.start;
        let mut stream = result.into_stream();
        let failed = loop {
            match stream.next().await {
                None => return,
                Some(Err(error)) => break error,
                Some(Ok(chunk)) => {
                    left.start += chunk.len() as u64;
                    // The reader may have been dropped: nobody wants the rest
                    if sender.send(Ok(chunk)).await.is_err() {
                        return;
                    }
                }
            }
        };
        if left.start > begin && same.is_some() {
            let range = Some(GetRange::Bounded(left));
            let options = GetOptions { range, if_match: same, ..GetOptions::default() };
            if let Ok(rest) = store.get_opts(&key, options).await {
                result = rest;
                continue;
            }
        }
        // Without a receiver there is nobody to tell
        let _ = sender.send(Err(failed)).await;
        return;
    }
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            let next = match self.chunks.try_recv() {
                Err(TryRecvError::Empty) => slots::waiting(|| self.chunks.blocking_recv()),
                next => next.ok(),
            };
            match next {
                None => return Ok(0),
                Some(Ok(chunk)) => self.current = chunk,
                Some(Err(error)) => {
                    return Err(request_error(&format!("unable to read '{}'", self.name), error).into());
                }
            }
        }
        let size = buffer.len().min(self.current.len());
        buffer[..size].copy_from_slice(&self.current.split_to(size));
        Ok(size)
    }
}
