//! Google Cloud Storage.
//!
//! The requests are `object_store`'s; this file says how pgBackRest's `repo-gcs-*` options reach it.

use std::sync::Arc;

use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{HeaderMap, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::http::{Endpoint, HttpSettings, retry_config};
use super::network::CountingConnector;
use super::object::ObjectStorage;
use crate::{Error, ErrorCode, Result};

/// The header that names the project which pays for requests.
const USER_PROJECT_HEADER: &str = "x-goog-user-project";

/// Where the credentials come from (`repo-gcs-key-type`).
#[derive(Clone, Debug)]
pub enum GcsCredentials {
    /// `service`: a service account's key file.
    Service {
        /// The file's path.
        file: String,
    },
    /// `token`: a bearer token.
    Token(SecretString),
    /// `auto`: from the environment of the machine (workload identity, metadata service).
    Auto,
}

/// A GCS repository's options.
#[derive(Clone, Debug)]
pub struct GcsSettings {
    /// `repo-path`.
    pub repo_path: String,
    /// `repo-gcs-bucket`.
    pub bucket: String,
    /// `repo-gcs-endpoint`, which may have a port.
    pub endpoint: String,
    /// `repo-gcs-key-type` and `repo-gcs-key`.
    pub credentials: GcsCredentials,
    /// `repo-gcs-user-project`.
    pub user_project: Option<String>,
    /// `repo-storage-tag`.
    pub tags: Vec<(String, String)>,
    /// `repo-storage-upload-chunk-size`, bytes.
    pub part_size_bytes: usize,
    /// The connection.
    pub http: HttpSettings,
}

/// Opens a GCS repository. Nothing is sent before it is used.
///
/// # Errors
/// An option can't be used: an endpoint that is no address, certificates or a key file that can't be read.
pub fn open(settings: &GcsSettings) -> Result<ObjectStorage> {
    let endpoint = Endpoint::parse(&settings.endpoint)?;
    let mut options = settings.http.client_options()?;
    if let Some(project) = &settings.user_project {
        let value = HeaderValue::from_str(project).map_err(|error| {
            Error::new(ErrorCode::OptionInvalidValue, format!("'{project}' can't be the name of a project"))
                .cause(error)
        })?;
        let mut headers = HeaderMap::new();
        headers.insert(USER_PROJECT_HEADER, value);
        options = options.with_default_headers(headers);
    }
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&settings.bucket)
        .with_base_url(&endpoint.url("", None))
        .with_client_options(options)
        .with_retry(retry_config(settings.http.io_timeout))
        .with_http_connector(CountingConnector::new()?);
    builder = match &settings.credentials {
        GcsCredentials::Service { file } => builder.with_service_account_path(file),
        GcsCredentials::Token(token) => builder.with_bearer_token(token.expose_secret()),
        GcsCredentials::Auto => builder,
    };
    let store = builder.build().map_err(|error| {
        Error::new(ErrorCode::Config, format!("unable to use GCS bucket '{}': {error}", settings.bucket)).cause(error)
    })?;
    ObjectStorage::new(Arc::new(store), &settings.repo_path, settings.part_size_bytes, &settings.tags)
}

#[cfg(test)]
mod tests {
    use super::super::http::tests::from_environment;
    use super::*;

    /// Runs the conformance suite against a real server, named by the environment as `RBR_TEST_GCS_ENDPOINT` and so on.
    #[test]
    fn gcs_server_conforms() {
        let Some((env, http)) = from_environment("RBR_TEST_GCS") else { return };
        let settings = GcsSettings {
            repo_path: format!("/conformance-{}", std::process::id()),
            bucket: env("BUCKET"),
            endpoint: env("ENDPOINT"),
            credentials: GcsCredentials::Token(env("TOKEN").into()),
            user_project: None,
            tags: Vec::new(),
            part_size_bytes: 4 << 20,
            http,
        };
        super::super::object::tests::server_conforms(&open(&settings).unwrap());
    }
}
