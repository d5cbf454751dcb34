//! Uploads: small objects in one request, larger ones in chunks of a resumable upload.
//!
//! In both cases the server's checksum of the object is compared with ours. Chunks of a resumable upload are sent one
//! after another. The next is filled while one is in flight.

use std::fmt;
use std::sync::Arc;

use ::http::{HeaderValue, Method, StatusCode, header};
use async_trait::async_trait;
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{Extensions, MultipartUpload, PutPayload, PutResult, UploadPart};
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::api::{Api, ApiCall};
use super::list::is_of;
use super::{boundary, failed, multipart_type};
use crate::storage::http::request::{Failure, json};
use crate::storage::object::key;
use crate::{Error, ErrorCode};

/// All chunks but the last must be multiples of this.
const CHUNK_UNIT_BYTES: usize = 256 << 10;
/// The fields of the answer to an upload.
const CHECKED_FIELDS: (&str, &str) = ("fields", "crc32c,name,size");
/// A cancelled upload is answered with this status.
const CANCELLED: u16 = 499;

fn put_result() -> PutResult {
    PutResult { e_tag: None, version: None, extensions: Extensions::new() }
}

/// A checksum as the server writes it.
fn checksum_text(crc: u32) -> String {
    BASE64_STANDARD.encode(crc.to_be_bytes())
}

/// Writes an object with one request, whose metadata contain its checksum. The server accepts it as a whole or not at
/// all.
pub(super) async fn put(
    api: &Api,
    location: &Path,
    mut metadata: Map<String, Value>,
    payload: PutPayload,
) -> Result<PutResult, Failure> {
    let crc = payload.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part));
    let size = payload.content_length() as u64;
    metadata.insert("crc32c".into(), checksum_text(crc).into());
    let boundary = boundary()?;
    let head = format!(
        "--{boundary}\r\ncontent-type: application/json; charset=utf-8\r\n\r\n{}\r\n\
         --{boundary}\r\ncontent-type: application/octet-stream\r\n\r\n",
        Value::Object(metadata)
    );
    let tail = format!("\r\n--{boundary}--\r\n");
    let query = [("uploadType", "multipart"), CHECKED_FIELDS];
    let mut call = ApiCall::new(Method::POST, api.upload_path(), &query);
    call.headers.insert(header::CONTENT_TYPE, multipart_type("related", &boundary)?);
    call.body = Some([Bytes::from(head)].into_iter().chain(payload).chain([Bytes::from(tail)]).collect());
    let answer = json(&api.send(call).await?)?;
    check(api, location, &answer, crc, size).await?;
    Ok(put_result())
}

/// Compares what the server stored with what was sent. An object that differs is removed, because nothing under its
/// name would reveal the difference.
async fn check(api: &Api, location: &Path, answer: &Value, crc: u32, size: u64) -> Result<(), Failure> {
    let text = |key: &str| answer.get(key).and_then(Value::as_str);
    is_of(location, answer)?;
    let found_crc = text("crc32c").ok_or_else(|| Error::new(ErrorCode::Format, "checksum missing"))?;
    let found_size = text("size").and_then(|size| size.parse::<u64>().ok());
    let found_size = found_size.ok_or_else(|| Error::new(ErrorCode::Format, "size missing"))?;
    let expected_crc = checksum_text(crc);
    if found_crc == expected_crc && found_size == size {
        return Ok(());
    }
    let text = format!(
        "expected crc32c '{expected_crc}' and {size} bytes for '/{location}' but actual is '{found_crc}' and {found_size} bytes"
    );
    let error = Error::new(ErrorCode::Format, text);
    Err(match api.send(ApiCall::new(Method::DELETE, api.object_path(Some(location)), &[])).await {
        Ok(_) => error,
        Err(other) => error.hint(format!("it must be removed, but that failed: {other}")),
    }
    .into())
}

/// The state of an upload between two chunks.
struct Progress {
    crc: u32,
    /// Bytes that the server has.
    sent: u64,
    /// Data that is sent when more follows, or as the last chunk.
    held: Bytes,
}

/// An upload in chunks. Each part takes the progress from the one before it, so parts are sent in order.
pub(super) struct Resumable {
    session: Arc<Session>,
    progress: oneshot::Receiver<Progress>,
}

/// The server's side of an upload.
struct Session {
    api: Arc<Api>,
    location: Path,
    /// Anybody who knows it may write to the upload, so it is never shown.
    id: String,
}

impl fmt::Debug for Resumable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resumable").field("location", &self.session.location).finish_non_exhaustive()
    }
}

impl Resumable {
    /// Starts an upload.
    pub(super) async fn begin(api: Arc<Api>, location: &Path, metadata: Map<String, Value>) -> Result<Self, Failure> {
        let name = key::name(location);
        let query = [("uploadType", "resumable"), ("name", &*name)];
        let mut call = ApiCall::new(Method::POST, api.upload_path(), &query);
        call.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        call.body = Some(Value::Object(metadata).to_string().into());
        let answer = api.send(call).await?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let from_location = || header("location").and_then(upload_id);
        let id = header("x-guploader-uploadid").map(str::to_owned).or_else(from_location);
        let id = id.ok_or_else(|| Error::new(ErrorCode::Format, "upload id missing"))?;
        let (first, progress) = oneshot::channel();
        // The receiver is right here
        let _ = first.send(Progress { crc: 0, sent: 0, held: Bytes::new() });
        Ok(Resumable { session: Arc::new(Session { api, location: location.clone(), id }), progress })
    }
}

/// The identifier in the address of an upload.
fn upload_id(location: &str) -> Option<String> {
    let (_, query) = location.split_once('?')?;
    let id = query.split('&').find_map(|pair| pair.strip_prefix("upload_id="))?;
    Some(percent_encoding::percent_decode_str(id).decode_utf8().ok()?.into_owned())
}

fn broken_off() -> Failure {
    Error::new(ErrorCode::Protocol, "an earlier chunk of the upload failed").into()
}

#[async_trait]
impl MultipartUpload for Resumable {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (done, next) = oneshot::channel();
        let before = std::mem::replace(&mut self.progress, next);
        let session = Arc::clone(&self.session);
        Box::pin(async move {
            let mut progress = before.await.map_err(|_| failed(broken_off()))?;
            session.add(&mut progress, data.into()).await.map_err(failed)?;
            // If nobody waits, the upload is being abandoned
            let _ = done.send(progress);
            Ok(())
        })
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        let mut progress = (&mut self.progress).await.map_err(|_| failed(broken_off()))?;
        self.session.finish(&mut progress).await.map_err(failed)?;
        Ok(put_result())
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        self.session.cancel().await.map_err(failed)
    }
}

impl Session {
    /// Sends held data in whole units, now that more follows.
    async fn add(&self, progress: &mut Progress, data: Bytes) -> Result<(), Failure> {
        let mut chunk = std::mem::replace(&mut progress.held, data);
        let rest = chunk.split_off(chunk.len() - chunk.len() % CHUNK_UNIT_BYTES);
        if !rest.is_empty() {
            let mut joined = BytesMut::with_capacity(rest.len() + progress.held.len());
            joined.extend_from_slice(&rest);
            joined.extend_from_slice(&progress.held);
            progress.held = joined.freeze();
        }
        if chunk.is_empty() {
            return Ok(());
        }
        progress.crc = crc32c::crc32c_append(progress.crc, &chunk);
        self.send(progress, chunk, None).await.map(drop)
    }

    /// Sends the last chunk and compares checksums.
    async fn finish(&self, progress: &mut Progress) -> Result<(), Failure> {
        let chunk = std::mem::take(&mut progress.held);
        progress.crc = crc32c::crc32c_append(progress.crc, &chunk);
        let size = progress.sent + chunk.len() as u64;
        let answer = self.send(progress, chunk, Some(size)).await?;
        check(&self.api, &self.location, &answer, progress.crc, size).await
    }

    /// Sends a chunk until the server has all of it. The total size marks it as the last, whose answer describes the
    /// object.
    async fn send(&self, progress: &mut Progress, mut chunk: Bytes, total: Option<u64>) -> Result<Value, Failure> {
        let mut pauses = self.api.requests.pauses();
        loop {
            let end = progress.sent + chunk.len() as u64;
            let range = if chunk.is_empty() { "*".to_owned() } else { format!("{}-{}", progress.sent, end - 1) };
            let total_text = total.map_or_else(|| "*".to_owned(), |total| total.to_string());
            let query = [("uploadType", "resumable"), ("upload_id", self.id.as_str()), CHECKED_FIELDS];
            let mut call = ApiCall::new(Method::PUT, self.api.upload_path(), &query);
            let range = HeaderValue::from_str(&format!("bytes {range}/{total_text}"));
            let range = range.map_err(|_| Error::new(ErrorCode::Assert, "a range can't be sent"))?;
            call.headers.insert(header::CONTENT_RANGE, range);
            call.body = Some(chunk.clone().into());
            call.with_token = false;
            let answer = self.api.send_any(call).await?;
            match answer.status() {
                StatusCode::PERMANENT_REDIRECT => {}
                status if status.is_success() && total.is_some() => return Ok(json(&answer)?),
                status if status.is_success() => {
                    return Err(Error::new(ErrorCode::Protocol, "the server ended the upload early").into());
                }
                _ => return Err(Failure::of(&answer)),
            }
            // A server that kept nothing names no range
            let stored = answer.headers().get(header::RANGE).map_or(Some(progress.sent), stored_bytes).unwrap_or(0);
            if stored == end && total.is_none() {
                progress.sent = end;
                return Ok(Value::Null);
            }
            // The server may keep only part of a chunk, or all of the last one without finishing: then it is asked
            // again
            let taken = stored.checked_sub(progress.sent).filter(|_| stored <= end);
            let taken = taken.and_then(|taken| usize::try_from(taken).ok());
            let may_go_on = match taken {
                Some(0) => pauses.wait_async().await,
                Some(_) => true,
                None => false,
            };
            let Some(taken) = taken.filter(|_| may_go_on) else {
                let text = format!("the server has {stored} bytes of an upload instead of {end}");
                return Err(Error::new(ErrorCode::Protocol, text).into());
            };
            if taken > 0 {
                pauses = self.api.requests.pauses();
            }
            chunk = chunk.split_off(taken);
            progress.sent = stored;
        }
    }

    /// Tells the server to discard the upload.
    async fn cancel(&self) -> Result<(), Failure> {
        let query = [("uploadType", "resumable"), ("upload_id", self.id.as_str())];
        let mut call = ApiCall::new(Method::DELETE, self.api.upload_path(), &query);
        call.with_token = false;
        let answer = self.api.send_any(call).await?;
        let status = answer.status();
        let is_gone = status.as_u16() == CANCELLED || status.is_success() || status == StatusCode::NOT_FOUND;
        if is_gone { Ok(()) } else { Err(Failure::of(&answer)) }
    }
}

/// Returns how many bytes the server has, from its header `range: bytes=0-LAST`.
fn stored_bytes(range: &HeaderValue) -> Option<u64> {
    let last: u64 = range.to_str().ok()?.strip_prefix("bytes=0-")?.parse().ok()?;
    last.checked_add(1)
}
