//! Google Cloud Storage as a store for the general driver of object stores.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use ::http::{HeaderValue, Method, StatusCode, header};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::client::{HttpError, HttpResponse};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, Extensions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use serde_json::Value;

use super::api::{Api, ApiCall};
use super::list::{is_of, object, text};
use super::upload::{Resumable, put};
use super::{batch, failed};
use crate::storage::http::foreign::{foreign, shown};
use crate::storage::http::request::{Failure, json};
use crate::storage::object::key;
use crate::storage::pages;
use crate::{Error as EngineError, ErrorCode};

/// Batches of deletes in flight at the same time.
const BATCHES_IN_FLIGHT_MAX: usize = 4;
/// How often reading is resumed without receiving anything.
const RESUMES_IN_VAIN_MAX: usize = 3;
/// The version of an object, in an answer with its content.
const GENERATION_HEADER: &str = "x-goog-generation";

/// The driver. Tags are given once, for all objects.
pub(super) struct GcsStore {
    api: Arc<Api>,
    /// The metadata of every object, in addition to its name.
    tags: Vec<(String, String)>,
}

impl GcsStore {
    pub(super) fn new(api: Arc<Api>, tags: &[(String, String)]) -> Self {
        GcsStore { api, tags: tags.to_vec() }
    }

    fn metadata(&self, location: &Path) -> serde_json::Map<String, Value> {
        let mut metadata = serde_json::Map::new();
        metadata.insert("name".into(), key::name(location).into());
        if !self.tags.is_empty() {
            let tags = self.tags.iter().map(|(key, value)| (key.clone(), value.as_str().into()));
            metadata.insert("metadata".into(), Value::Object(tags.collect()));
        }
        metadata
    }
}

impl fmt::Debug for GcsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcsStore").field("bucket", &self.api.bucket).finish_non_exhaustive()
    }
}

impl fmt::Display for GcsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GCS bucket '{}'", self.api.bucket)
    }
}

/// A failure that belongs to an object, which may be missing.
async fn object_failed(api: &Api, location: &Path, failure: Failure) -> Error {
    match api.is_missing(&failure).await {
        Ok(true) => Error::NotFound { path: location.to_string(), source: Box::new(failure) },
        Ok(false) => failed(failure),
        Err(other) => failed(other),
    }
}

fn not_supported(what: &str) -> Error {
    Error::NotSupported { source: format!("{what} is not used in repositories").into() }
}

#[async_trait]
impl ObjectStore for GcsStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if options.mode != PutMode::Overwrite {
            return Err(not_supported("writing on a condition"));
        }
        put(&self.api, location, self.metadata(location), payload).await.map_err(failed)
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let upload = Resumable::begin(Arc::clone(&self.api), location, self.metadata(location)).await;
        Ok(Box::new(upload.map_err(failed)?))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.head {
            let meta = match head(&self.api, location, options.version.as_deref()).await {
                Ok(meta) => meta,
                Err(failure) => return Err(object_failed(&self.api, location, failure).await),
            };
            let (range, payload) = (0..meta.size, GetResultPayload::Stream(stream::empty().boxed()));
            return Ok(result(meta, range, payload));
        }
        let range = options.range.as_ref().map(GetRange::to_string);
        let response = match media(&self.api, location, range, options.version.as_deref()).await {
            Ok(response) => response,
            Err(failure) => return Err(object_failed(&self.api, location, failure).await),
        };
        let (range, size) = content_range(&response, options.range.is_some()).map_err(failed)?;
        let asked = options.range.map_or(Ok(0..size), |asked| asked.as_range(size));
        if !asked.is_ok_and(|asked| asked == range) {
            let text =
                format!("the server's answer holds the bytes {range:?} of {size}, which are others than asked for");
            return Err(failed(EngineError::new(ErrorCode::Protocol, text)));
        }
        let generation = response.headers().get(GENERATION_HEADER).and_then(|value| value.to_str().ok());
        let content = Content {
            api: Arc::clone(&self.api),
            location: location.clone(),
            generation: generation.map(str::to_owned),
            body: response.into_body().bytes_stream(),
            rest: range.clone(),
            in_vain: 0,
        };
        let meta = ObjectMeta {
            location: location.clone(),
            // Nobody uses the age of an object that is being read
            last_modified: SystemTime::UNIX_EPOCH.into(),
            size,
            e_tag: None,
            version: None,
        };
        let stream = stream::try_unfold(content, |mut content| async move {
            let chunk = content.next().await.map_err(failed)?;
            Ok(chunk.map(|chunk| (chunk, content)))
        });
        Ok(result(meta, range, GetResultPayload::Stream(stream.boxed())))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let api = Arc::clone(&self.api);
        locations
            .try_chunks(batch::SIZE_MAX)
            .map(move |chunk| {
                let api = Arc::clone(&api);
                async move {
                    let locations = chunk.map_err(|error| error.1)?;
                    batch::delete(&api, &locations).await.map_err(failed)?;
                    Ok::<_, Error>(stream::iter(locations.into_iter().map(Ok)))
                }
            })
            .buffered(BATCHES_IN_FLIGHT_MAX)
            .try_flatten()
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        pages::list(Arc::clone(&self.api), prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        pages::list_with_delimiter(Arc::clone(&self.api), prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(not_supported("copying objects"))
    }
}

fn result(meta: ObjectMeta, range: Range<u64>, payload: GetResultPayload) -> GetResult {
    GetResult { payload, meta, range, attributes: Attributes::new(), extensions: Extensions::new() }
}

/// Asks for the size and age of an object, or of one of its generations.
async fn head(api: &Api, location: &Path, generation: Option<&str>) -> std::result::Result<ObjectMeta, Failure> {
    let fields = if generation.is_some() { "generation,name,size,updated" } else { "name,size,updated" };
    let query: Vec<_> = [("fields", fields)].into_iter().chain(generation.map(|value| ("generation", value))).collect();
    let answer = api.send(ApiCall::new(Method::GET, api.object_path(Some(location)), &query)).await?;
    let found = json(&answer)?;
    is_of(location, &found)?;
    if let Some(wanted) = generation {
        is_generation(text(&found, "generation")?, wanted)?;
    }
    Ok(object(location.clone(), &found)?)
}

/// Asks for an object's content.
async fn media(
    api: &Api,
    location: &Path,
    range: Option<String>,
    generation: Option<&str>,
) -> std::result::Result<HttpResponse, Failure> {
    let query: Vec<_> = [("alt", "media")].into_iter().chain(generation.map(|value| ("generation", value))).collect();
    let mut call = ApiCall::new(Method::GET, api.object_path(Some(location)), &query);
    if let Some(range) = range {
        let value = HeaderValue::from_str(&range);
        let value = value.map_err(|_| EngineError::new(ErrorCode::Assert, format!("'{range}' is not a range")))?;
        call.headers.insert(header::RANGE, value);
    }
    let response = api.stream(call).await?;
    let found = response.headers().get(GENERATION_HEADER).and_then(|value| value.to_str().ok());
    let found = found.ok_or_else(|| foreign("it does not say which generation of the object it is"))?;
    generation.map_or(Ok(()), |wanted| is_generation(found, wanted))?;
    api.has_bucket.store(true, Ordering::Relaxed);
    Ok(response)
}

/// Refuses an answer about another generation of an object.
fn is_generation(found: &str, wanted: &str) -> std::result::Result<(), EngineError> {
    if found == wanted {
        return Ok(());
    }
    Err(foreign(&format!("it is generation {} of the object instead of {wanted}", shown(found))))
}

/// Returns which bytes an answer contains, and the size of the object.
fn content_range(response: &HttpResponse, is_part: bool) -> std::result::Result<(Range<u64>, u64), EngineError> {
    let bad = |what: &str| EngineError::new(ErrorCode::Protocol, format!("the server's answer has no valid {what}"));
    let text = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if response.status() != StatusCode::PARTIAL_CONTENT {
        let size = text(header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
        let size = size.ok_or_else(|| bad("content-length"))?;
        return if is_part { Err(bad("content-range")) } else { Ok((0..size, size)) };
    }
    let parse = |text: &str| {
        let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        Some((first..last.checked_add(1).filter(|end| *end > first)?, size.parse().ok()?))
    };
    text(header::CONTENT_RANGE).and_then(parse).ok_or_else(|| bad("content-range"))
}

/// The content of an object while it arrives. It is requested again if the connection breaks.
struct Content {
    api: Arc<Api>,
    location: Path,
    generation: Option<String>,
    body: BoxStream<'static, std::result::Result<Bytes, HttpError>>,
    /// The bytes that are still missing.
    rest: Range<u64>,
    in_vain: usize,
}

impl Content {
    async fn next(&mut self) -> std::result::Result<Option<Bytes>, Failure> {
        loop {
            if self.rest.is_empty() {
                return Ok(None);
            }
            let broken: Failure = match self.body.next().await {
                Some(Ok(chunk)) => {
                    let left = usize::try_from(self.rest.end - self.rest.start).unwrap_or(usize::MAX);
                    let chunk = chunk.slice(..chunk.len().min(left));
                    self.rest.start += chunk.len() as u64;
                    self.in_vain = 0;
                    return Ok(Some(chunk));
                }
                Some(Err(error)) => error.into(),
                None => EngineError::new(ErrorCode::Protocol, "the server's answer ended early").into(),
            };
            // Without the generation, another version of the object might continue this one
            if self.in_vain >= RESUMES_IN_VAIN_MAX || self.generation.is_none() {
                return Err(broken);
            }
            self.in_vain += 1;
            let range = format!("bytes={}-{}", self.rest.start, self.rest.end - 1);
            let response = media(&self.api, &self.location, Some(range), self.generation.as_deref()).await?;
            let (range, _) = content_range(&response, true)?;
            if range != self.rest {
                return Err(broken);
            }
            self.body = response.into_body().bytes_stream();
        }
    }
}
