//! Managed identities of hosts in Azure (`repo-azure-key-type=auto`).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use http::Request;
use object_store::CredentialProvider;
use object_store::azure::AzureCredential;
use object_store::client::{HttpRequest, HttpRequestBody};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::storage::http::HttpSettings;
use crate::storage::http::request::{Failure, Requests, json, store_error};
use crate::storage::http::token::{Kept, Token, missing, validity};
use crate::{Error, ErrorCode, Result};

/// The service that issues tokens for a host's identity.
const METADATA_URL: &str = "http://169.254.169.254/metadata/identity/oauth2/token";
/// The version of that service's interface.
const API_VERSION: &str = "2018-02-01";

/// Gets tokens for one account.
pub(super) struct ManagedIdentity {
    request: HttpRequest,
    requests: Requests,
    io_timeout: Duration,
    current: Kept<Arc<AzureCredential>>,
}

impl std::fmt::Debug for ManagedIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManagedIdentity").finish_non_exhaustive()
    }
}

impl ManagedIdentity {
    /// Creates a source of tokens that are valid for requests to `host`.
    ///
    /// # Errors
    /// The connection's settings can't be used.
    pub(super) fn new(host: &str, metadata_url: Option<&str>, http: &HttpSettings) -> Result<Self> {
        let resource = format!("https://{host}");
        let resource = utf8_percent_encode(&resource, NON_ALPHANUMERIC);
        let url = metadata_url.unwrap_or(METADATA_URL);
        let request = Request::get(format!("{url}?api-version={API_VERSION}&resource={resource}"))
            .header("metadata", "true")
            .body(HttpRequestBody::empty())
            .map_err(|error| Error::new(ErrorCode::Format, format!("invalid URL '{url}'")).cause(error))?;
        // The other host, and the disabled certificate check, apply only to the store
        let http = HttpSettings { host: None, verify_tls: true, ..http.clone() };
        let requests = Requests::new(&http)?;
        Ok(ManagedIdentity { request, requests, io_timeout: http.io_timeout, current: Kept::new() })
    }

    async fn ask(&self) -> std::result::Result<Token<Arc<AzureCredential>>, Failure> {
        let now = SystemTime::now();
        let answer = self.requests.send(&self.request).await?;
        if !answer.status().is_success() {
            return Err(Failure::of(&answer));
        }
        let answer = json(&answer)?;
        let token = answer.get("access_token").and_then(Value::as_str).ok_or_else(|| missing("access token"))?;
        let value = Arc::new(AzureCredential::BearerToken(token.to_owned()));
        Ok(Token { value, validity: Some(validity(&answer, now, self.io_timeout)?) })
    }
}

#[async_trait]
impl CredentialProvider for ManagedIdentity {
    type Credential = AzureCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AzureCredential>> {
        self.current.get(self.ask()).await.map_err(|failure| store_error("Azure", failure))
    }
}
