//! Azure Blob Storage.
//!
//! The requests are `object_store`'s; this file says how pgBackRest's `repo-azure-*` options reach it.

mod identity;

use std::sync::Arc;

use base64::DecodeError;
use base64::prelude::{BASE64_STANDARD, Engine};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use secrecy::{ExposeSecret, SecretString};

use self::identity::ManagedIdentity;
use super::http::{Endpoint, HttpSettings, retry_config};
use super::network::CountingConnector;
use super::object::{ObjectStorage, UriStyle};
use crate::{Error, ErrorCode, Result};

/// Where the credentials come from (`repo-azure-key-type`).
#[derive(Clone, Debug)]
pub enum AzureCredentials {
    /// `shared`: the account's key.
    Shared(SecretString),
    /// `sas`: a shared access signature, with or without its leading `?`.
    Sas(SecretString),
    /// `auto`: the machine's managed identity.
    ManagedIdentity {
        /// Another metadata service than that of Azure's machines.
        metadata_url: Option<String>,
    },
}

/// An Azure repository's options.
#[derive(Clone, Debug)]
pub struct AzureSettings {
    /// `repo-path`.
    pub repo_path: String,
    /// `repo-azure-account`.
    pub account: String,
    /// `repo-azure-container`.
    pub container: String,
    /// `repo-azure-endpoint`: the service without the account, e.g. `blob.core.windows.net`.
    pub endpoint: String,
    /// `repo-storage-port`, when it was set.
    pub port: Option<u16>,
    /// `repo-azure-uri-style`: whether the account stands in the host or in the path.
    pub uri_style: UriStyle,
    /// `repo-azure-key-type` and `repo-azure-key`.
    pub credentials: AzureCredentials,
    /// `repo-storage-tag`.
    pub tags: Vec<(String, String)>,
    /// `repo-storage-upload-chunk-size`, bytes.
    pub part_size_bytes: usize,
    /// The connection.
    pub http: HttpSettings,
}

/// Opens an Azure repository. Nothing is sent before it is used.
///
/// # Errors
/// An option can't be used: an endpoint that is no address, certificates that can't be read, a key that is not base64.
pub fn open(settings: &AzureSettings) -> Result<ObjectStorage> {
    let (endpoint, http) = settings.http.route(Endpoint::parse(&settings.endpoint)?)?;
    let (host, url) = match settings.uri_style {
        UriStyle::Host => (
            format!("{}.{}", settings.account, endpoint.host),
            endpoint.url(&format!("{}.", settings.account), settings.port),
        ),
        UriStyle::Path => (endpoint.host.clone(), format!("{}/{}", endpoint.url("", settings.port), settings.account)),
    };
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(&settings.account)
        .with_container_name(&settings.container)
        .with_endpoint(url)
        .with_client_options(http.client_options()?)
        .with_retry(retry_config(http.io_timeout))
        .with_http_connector(CountingConnector::new()?);
    builder = match &settings.credentials {
        AzureCredentials::Shared(key) => builder.with_access_key(key.expose_secret()),
        AzureCredentials::Sas(signature) => {
            builder.with_config(AzureConfigKey::SasKey, signature.expose_secret().trim_start_matches('?'))
        }
        AzureCredentials::ManagedIdentity { metadata_url } => {
            builder.with_credentials(Arc::new(ManagedIdentity::new(&host, metadata_url.as_deref(), &settings.http)?))
        }
    };
    let store = builder.build().map_err(|error| {
        Error::new(ErrorCode::Config, format!("unable to use Azure container '{}': {error}", settings.container))
            .cause(error)
    })?;
    ObjectStorage::new(Arc::new(store), &settings.repo_path, settings.part_size_bytes, &settings.tags)
}

/// What is wrong with an account's key, which has to be base64.
pub fn key_fault(key: &str) -> Option<String> {
    let error = BASE64_STANDARD.decode(key).err()?;
    Some(match error {
        _ if !key.len().is_multiple_of(4) => format!("base64 size {} is not evenly divisible by 4", key.len()),
        DecodeError::InvalidByte(at, _) => format!("base64 invalid character found at position {at}"),
        _ => "base64 last character may only be '=' if second to last is".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::http::tests::from_environment;
    use super::*;

    /// Runs the conformance suite against a real server, named by the environment as `RBR_TEST_AZURE_ENDPOINT` and so on.
    #[test]
    fn azure_server_conforms() {
        let Some((env, http)) = from_environment("RBR_TEST_AZURE") else { return };
        let settings = AzureSettings {
            repo_path: format!("/conformance-{}", std::process::id()),
            account: env("ACCOUNT"),
            container: env("CONTAINER"),
            endpoint: env("ENDPOINT"),
            port: None,
            uri_style: UriStyle::Path,
            credentials: AzureCredentials::Shared(env("KEY").into()),
            tags: Vec::new(),
            part_size_bytes: 4 << 20,
            http,
        };
        super::super::object::tests::server_conforms(&open(&settings).unwrap());
    }
}
