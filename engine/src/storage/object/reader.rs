//! Reads an object, a chunk or two ahead of the reader.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore};
use tokio::sync::mpsc;

use super::ObjectStorage;
use super::error::request_error;
use crate::storage::http::request::store_error;
use crate::storage::{RepoPath, RepoReader, RepoStorage};
use crate::{Error, ErrorCode};

/// Chunks that wait for the reader while the next is in flight. The HTTP client returns at most a few hundred KiB at a
/// time, and the system buffers more of what has arrived.
const CHUNKS_AHEAD_MAX: usize = 1;

/// Reads an object while a task fetches the next chunks.
pub(super) struct ObjectReader {
    chunks: mpsc::Receiver<object_store::Result<Bytes>>,
    current: Bytes,
    name: String,
}

impl ObjectReader {
    pub(super) fn start(storage: &ObjectStorage, path: &RepoPath, source: Source, result: GetResult) -> Self {
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD_MAX);
        storage.runtime.spawn(fetch(Arc::clone(&storage.store), source, result, sender));
        ObjectReader { chunks, current: Bytes::new(), name: storage.display(path) }
    }
}

/// What is read.
pub(super) struct Source {
    pub(super) key: Path,
    /// An old version of the object instead of the current one.
    pub(super) version: Option<String>,
}

/// Passes on the content of an object. If the connection breaks, the rest is requested again, as long as each try
/// returns something and the object is the same. (`object_store` does so too, but only for the first minute.)
async fn fetch(
    store: Arc<dyn ObjectStore>,
    source: Source,
    mut result: GetResult,
    sender: mpsc::Sender<object_store::Result<Bytes>>,
) {
    loop {
        let (mut left, tag) = (result.range.clone(), result.meta.e_tag.clone());
        let begin = left.start;
        let mut stream = result.into_stream();
        let failed = loop {
            match stream.next().await {
                None if left.is_empty() => return,
                // An answer may come to a proper end and yet lack something
                None => break incomplete(&left),
                Some(Err(error)) => break error,
                Some(Ok(mut chunk)) => {
                    chunk.truncate(usize::try_from(left.end - left.start).unwrap_or(usize::MAX));
                    left.start += chunk.len() as u64;
                    // The reader may have been dropped: nobody wants the rest
                    if sender.send(Ok(chunk)).await.is_err() {
                        return;
                    }
                }
            }
        };
        if left.start > begin && tag.is_some() {
            let range = Some(GetRange::Bounded(left));
            let version = source.version.clone();
            let options = GetOptions { range, if_match: tag.clone(), version, ..GetOptions::default() };
            // Not every server honors the condition
            if let Ok(rest) = store.get_opts(&source.key, options).await
                && rest.meta.e_tag == tag
            {
                result = rest;
                continue;
            }
        }
        // Without a receiver there is nobody to tell
        let _ = sender.send(Err(failed)).await;
        return;
    }
}

fn incomplete(left: &Range<u64>) -> object_store::Error {
    let text = format!("the answer ends {} byte(s) early", left.end - left.start);
    store_error("remote", Error::new(ErrorCode::FileRead, text))
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
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

impl RepoReader for ObjectReader {
    fn is_ready(&self) -> bool {
        !self.current.is_empty() || !self.chunks.is_empty() || self.chunks.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use object_store::{GetResultPayload, ObjectStoreExt};

    use super::*;
    use crate::storage::network;

    /// Returns what is read of an object if an answer contains only these bytes.
    fn read(content: &'static [u8], answered: &'static [u8], e_tag: bool) -> object_store::Result<Vec<u8>> {
        network::handle().unwrap().block_on(async {
            let (store, key) = (Arc::new(InMemory::new()), Path::from("key"));
            store.put(&key, content.into()).await?;
            let mut result = store.get(&key).await?;
            if !e_tag {
                result.meta.e_tag = None;
            }
            let answer = futures_util::stream::iter([Ok(Bytes::from_static(answered))]);
            result.payload = GetResultPayload::Stream(answer.boxed());
            let (sender, mut chunks) = mpsc::channel(10);
            fetch(store, Source { key, version: None }, result, sender).await;
            let mut read = Vec::new();
            while let Some(chunk) = chunks.recv().await {
                read.extend_from_slice(&chunk?);
            }
            Ok(read)
        })
    }

    #[test]
    fn answer_that_ends_early_is_completed_or_an_error() {
        assert_eq!(read(b"hello world", b"hello", true).unwrap(), b"hello world");
        let error = read(b"hello world", b"hello", false).unwrap_err();
        assert!(error.to_string().contains("ends 6 byte(s) early"), "{error}");
        assert!(read(b"hello world", b"", true).is_err());
        assert_eq!(read(b"", b"", true).unwrap(), b"");
    }

    #[test]
    fn nothing_beyond_the_object_is_read() {
        assert_eq!(read(b"hello", b"hello world", true).unwrap(), b"hello");
    }
}
