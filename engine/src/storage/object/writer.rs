//! Writes an object: with one request, or in parts of which several are in flight while the next is filled.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, TagSet};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::ObjectStorage;
use super::error::request_error;
use crate::ending::{self, UnderWay};
use crate::storage::{RepoPath, RepoStorage, RepoWriter};
use crate::{Error, ErrorCode, Result};

/// Parts per doubling of the part size. Stores allow 10,000 parts, so files of terabytes need larger parts.
const PARTS_PER_SIZE: usize = 1000;
/// The maximum part size.
const PART_SIZE_MAX_BYTES: usize = 1 << 30;

/// A multi-part upload that has begun.
struct Upload {
    upload: Box<dyn MultipartUpload>,
    in_flight: JoinSet<object_store::Result<()>>,
    /// Parts of an abandoned upload have to be removed.
    _cleaning: UnderWay,
}

/// Writes one object, in parts if it is larger than one part.
pub(super) struct ObjectUpload {
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
    parts_free: Arc<Semaphore>,
    key: Path,
    name: String,
    tags: TagSet,
    part_size_bytes: usize,
    /// Parts sent so far.
    parts: usize,
    /// The next part; full at [`Self::part_size_bytes`].
    buffer: Vec<u8>,
    upload: Option<Upload>,
}

impl ObjectUpload {
    pub(super) fn new(storage: &ObjectStorage, path: &RepoPath) -> Result<Self> {
        Ok(ObjectUpload {
            store: Arc::clone(&storage.store),
            runtime: storage.runtime.clone(),
            parts_free: Arc::clone(&storage.parts_free),
            key: storage.key(path)?,
            name: storage.display(path),
            tags: storage.tags.clone(),
            part_size_bytes: storage.part_size_bytes,
            parts: 0,
            buffer: Vec::new(),
            upload: None,
        })
    }

    fn fail(&self, error: object_store::Error) -> Error {
        request_error(&format!("unable to write '{}'", self.name), error)
    }

    /// Makes room for more bytes of the part by doubling, but not beyond the part's end, because many parts are in
    /// memory at a time.
    fn reserve(&mut self, size: usize) {
        let wanted = self.buffer.len() + size;
        if wanted > self.buffer.capacity() {
            let capacity = wanted.max(self.buffer.capacity() * 2).min(self.part_size_bytes);
            self.buffer.reserve_exact(capacity - self.buffer.len());
        }
    }

    /// Sends the buffer as the next part. Waits only while too many parts are in flight.
    fn send_part(&mut self) -> Result<()> {
        let data = Bytes::from(std::mem::take(&mut self.buffer));
        let (runtime, parts_free) = (self.runtime.clone(), Arc::clone(&self.parts_free));
        let result = runtime.block_on(async {
            let state = match &mut self.upload {
                Some(state) => state,
                None => {
                    let options = PutMultipartOptions { tags: self.tags.clone(), ..PutMultipartOptions::default() };
                    let upload = self.store.put_multipart_opts(&self.key, options).await?;
                    self.upload.insert(Upload { upload, in_flight: JoinSet::new(), _cleaning: ending::cleaning() })
                }
            };
            // Report earlier failures before sending more
            while let Some(sent) = state.in_flight.try_join_next() {
                sent??;
            }
            let free = Arc::clone(&parts_free).acquire_owned().await;
            let part = state.upload.put_part(PutPayload::from_bytes(data));
            state.in_flight.spawn(async move {
                let _free = free;
                part.await
            });
            Ok(())
        });
        result.map_err(|error| self.fail(error))?;
        self.parts += 1;
        if self.parts.is_multiple_of(PARTS_PER_SIZE) {
            self.part_size_bytes = (self.part_size_bytes * 2).min(PART_SIZE_MAX_BYTES.max(self.part_size_bytes));
        }
        Ok(())
    }
}

impl ObjectUpload {
    /// Removes an object that the store reports to differ from what was sent, because nothing under its name would
    /// reveal the difference. An object with the sent content stays. Returns the error of the upload.
    fn withdraw(&self, data: &[u8], error: Error) -> Error {
        let removed = self.runtime.block_on(async {
            if self.store.get(&self.key).await?.bytes().await? == data {
                return Ok(());
            }
            self.store.delete(&self.key).await
        });
        match removed {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => error,
            Err(other) => {
                let other = request_error("unable to remove it", other);
                error.hint(format!("'{}' may be damaged and has to be removed: {}", self.name, other.message))
            }
        }
    }
}

/// Waits for one part and returns its result.
async fn join_one(in_flight: &mut JoinSet<object_store::Result<()>>) -> object_store::Result<()> {
    match in_flight.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(error)) => Err(error.into()),
        None => Ok(()),
    }
}

impl Write for ObjectUpload {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= self.part_size_bytes {
            self.send_part()?;
        }
        let size = data.len().min(self.part_size_bytes - self.buffer.len());
        self.reserve(size);
        self.buffer.extend_from_slice(&data[..size]);
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl RepoWriter for ObjectUpload {
    fn is_ready(&self) -> bool {
        self.buffer.len() < self.part_size_bytes
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        if self.upload.is_none() {
            let data = Bytes::from(std::mem::take(&mut self.buffer));
            let options = PutOptions { tags: self.tags.clone(), ..PutOptions::default() };
            let put = self.store.put_opts(&self.key, PutPayload::from_bytes(data.clone()), options);
            return match self.runtime.block_on(put).map_err(|error| self.fail(error)) {
                Err(error) if error.code == ErrorCode::Checksum => Err(self.withdraw(&data, error)),
                result => result.map(drop),
            };
        }
        if !self.buffer.is_empty() {
            self.send_part()?;
        }
        let result = self.runtime.clone().block_on(async {
            if let Some(state) = &mut self.upload {
                while !state.in_flight.is_empty() {
                    join_one(&mut state.in_flight).await?;
                }
                state.upload.complete().await?;
            }
            Ok(())
        });
        result.map_err(|error| self.fail(error))?;
        self.upload = None;
        Ok(())
    }
}

impl Drop for ObjectUpload {
    fn drop(&mut self) {
        if let Some(mut state) = self.upload.take() {
            // Nothing was completed, so no reader sees the object; the parts are removed so that they cost nothing
            let name = std::mem::take(&mut self.name);
            self.runtime.block_on(async {
                state.in_flight.shutdown().await;
                if let Err(error) = state.upload.abort().await {
                    crate::warn!("unable to abort the upload of '{name}': {error}");
                }
            });
        }
    }
}
