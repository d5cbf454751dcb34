//! Google Cloud Storage.
//!
//! The driver sends requests of the JSON API, as pgBackRest does, below the general driver of object stores. `api.rs`
//! sends them, `token.rs`, `exchange.rs` and `federation.rs` authenticate them, `upload.rs` and `batch.rs` contain the two operations
//! with more than one call, `list.rs` reads listings, `missing.rs` recognizes missing objects. The crate `object_store`
//! uses the XML API, which emulators lack and which accepts no checksums.

mod api;
mod batch;
mod exchange;
mod federation;
pub(crate) mod list;
mod missing;
mod store;
#[cfg(test)]
mod tests;
mod token;
mod upload;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ::http::HeaderValue;
use secrecy::SecretString;

use self::api::Api;
use self::store::GcsStore;
use self::token::{Services, Tokens};
use super::http::request::{Failure, store_error};
use super::http::{Endpoint, HttpSettings};
use super::object::ObjectStorage;
use super::{OpenStorage, OpenedStorage, ReadAhead};
use crate::system_text;
use crate::{Error, ErrorCode, Result};

/// The source of credentials (`repo-gcs-key-type`).
#[derive(Clone, Debug)]
pub enum GcsCredentials {
    /// `service`: a service account's key file.
    Service {
        /// The file's path.
        file: String,
    },
    /// `web-id`: an external account's credential file.
    External {
        /// The file's path.
        file: String,
    },
    /// `token`: the content of the header `authorization`, type and token.
    Token(SecretString),
    /// `auto`: the host's metadata service.
    Auto {
        /// Another metadata service than that of Google's cloud.
        metadata_url: Option<String>,
    },
}

/// A GCS repository's options.
#[derive(Clone, Debug)]
pub struct GcsSettings {
    /// `repo-path`.
    pub repo_path: String,
    /// `repo-gcs-bucket`.
    pub bucket: String,
    /// `repo-gcs-endpoint`, which may contain a port.
    pub endpoint: String,
    /// `repo-gcs-key-type` and `repo-gcs-key`.
    pub credentials: GcsCredentials,
    /// `repo-gcs-user-project`.
    pub user_project: Option<String>,
    /// `repo-storage-tag`.
    pub tags: Vec<(String, String)>,
    /// `repo-storage-upload-chunk-size`, bytes.
    pub part_size_bytes: usize,
    /// `repo-target-time`, in seconds since the epoch. The repository is then read-only, as of that time.
    pub target_time: Option<i64>,
    /// The connection.
    pub http: HttpSettings,
    /// How to read several ranges of a file: `repo-storage-prefetch` and `repo-storage-read-over`.
    pub read_ahead: ReadAhead,
}

impl OpenStorage for GcsSettings {
    fn open(&self) -> Result<OpenedStorage> {
        Ok(open(self)?.with_read_ahead(self.read_ahead).into())
    }
}

/// Opens a GCS repository. Nothing is sent before it is used.
///
/// # Errors
/// An option can't be used: the endpoint is not an address, or certificates or a key file can't be read.
pub(crate) fn open(settings: &GcsSettings) -> Result<ObjectStorage> {
    let server = Endpoint::parse(&settings.endpoint)?.url("", None)?;
    let services = Services::new(&server, &settings.http)?;
    let api = Arc::new(Api {
        server,
        bucket: settings.bucket.clone(),
        user_project: settings.user_project.clone(),
        requests: Arc::clone(&services.storage),
        tokens: Tokens::new(&settings.credentials, services, settings.http.io_timeout)?,
        has_bucket: AtomicBool::new(false),
    });
    let store = Arc::new(GcsStore::new(Arc::clone(&api), &settings.tags));
    // The store puts the tags into the metadata of its objects
    let storage = ObjectStorage::new(store, &settings.repo_path, settings.part_size_bytes, &[])?;
    Ok(storage.with_versions(api, settings.target_time).without(|char| matches!(char, '\r' | '\n')))
}

fn failed(failure: impl Into<Failure>) -> object_store::Error {
    store_error("GCS", failure)
}

/// Returns a separator of body parts that cannot occur in data by chance.
fn boundary() -> Result<String> {
    let number = getrandom::u64().and_then(|first| Ok((first, getrandom::u64()?)));
    let (first, second) = number.map_err(|error| {
        Error::new(ErrorCode::Kernel, format!("unable to get random numbers: {}", system_text(&error))).cause(error)
    })?;
    Ok(format!("{first:016x}{second:016x}"))
}

/// The type of a body that has parts.
fn multipart_type(kind: &str, boundary: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(&format!("multipart/{kind}; boundary={boundary}"))
        .map_err(|error| Error::new(ErrorCode::Assert, "a boundary can't be sent").cause(error))
}
