//! Checks answers of Azure and completes requests to it.

use std::collections::BTreeSet;

use ::http::Method;
use ::http::header::{AUTHORIZATION, CONTENT_LENGTH};
use ::http::response::Parts;
use bytes::Bytes;
use object_store::azure::{AzureAuthorizer, AzureCredential, AzureCredentialProvider};
use object_store::client::{HttpRequest, HttpRequestBody};

use crate::storage::http::checked::{
    Asked, CONTENT_MD5, Store, Wrong, body_parts, describes_object, header, is_empty, is_status, md5_header,
};
use crate::storage::http::foreign::foreign;
use crate::storage::http::multipart;
use crate::{Error, ErrorCode, Result};

/// The store behind the requests of one container.
#[derive(Debug)]
pub(super) struct AzureStore {
    pub(super) account: String,
    pub(super) credentials: AzureCredentialProvider,
}

#[async_trait::async_trait]
impl Store for AzureStore {
    async fn prepare(&self, request: &mut HttpRequest) -> object_store::Result<()> {
        if *request.method() == Method::PUT {
            if Asked::of(request).parameter("comp") == Some("blocklist") {
                let list = with_committed(&body_parts(request).await);
                request.headers_mut().insert(CONTENT_LENGTH, list.content_length().into());
                *request.body_mut() = list;
            }
            let md5 = md5_header(&body_parts(request).await);
            let md5 = md5.map_err(|error| object_store::Error::Generic { store: "Azure", source: error.into() })?;
            request.headers_mut().insert(CONTENT_MD5, md5);
        }
        let credential = self.credentials.get_credential().await?;
        let is_signed = match &*credential {
            // A key signs the checksum and the address too
            AzureCredential::AccessKey(_) => {
                request.headers_mut().remove(AUTHORIZATION);
                false
            }
            AzureCredential::SASToken(_) => Asked::of(request).parameter("sig").is_some(),
            AzureCredential::BearerToken(_) => request.headers().contains_key(AUTHORIZATION),
        };
        if !is_signed {
            AzureAuthorizer::new(&credential, &self.account).try_authorize(request)?;
        }
        Ok(())
    }

    fn check(&self, asked: &Asked, head: &Parts, body: Option<&[u8]>) -> std::result::Result<(), Wrong> {
        match asked.method {
            Method::HEAD | Method::GET => Ok(describes_object(asked, head)?),
            Method::PUT => Ok(stored(asked, head, body)?),
            Method::DELETE => {
                is_status(head, &[202])?;
                Ok(is_empty(body)?)
            }
            _ => {
                is_status(head, &[202])?;
                Ok(removed(asked, head, body.unwrap_or_default())?)
            }
        }
    }
}

/// Changes a block list to accept blocks that are already committed. The crate requires uncommitted blocks, so a
/// repeated list would be refused if the first answer was lost. A block has a unique id and is in no other list.
fn with_committed(list: &[Bytes]) -> HttpRequestBody {
    String::from_utf8_lossy(&list.concat()).replace("Uncommitted>", "Latest>").into()
}

/// Checks that an object, a part of one or the list of its parts was stored as it was sent.
fn stored(asked: &Asked, head: &Parts, body: Option<&[u8]>) -> Result<()> {
    is_status(head, &[201])?;
    is_empty(body)?;
    let (sent, found) = (asked.headers.get(CONTENT_MD5), head.headers.get(CONTENT_MD5));
    if found.is_none_or(|found| sent == Some(found)) {
        return Ok(());
    }
    let found = header(&head.headers, CONTENT_MD5.as_str()).unwrap_or_default();
    let text = format!("the server stored something else than was sent: its checksum is {found}");
    Err(Error::new(ErrorCode::Checksum, text).hint("does a gateway or a proxy change the data?"))
}

/// Checks that the answer reports every object of a removal, and no other. (If the request itself is refused, its
/// single answer has no number.)
fn removed(asked: &Asked, head: &Parts, body: &[u8]) -> Result<()> {
    let request = String::from_utf8_lossy(asked.body.as_deref().unwrap_or_default()).into_owned();
    let wanted = request.lines().filter(|line| line.starts_with("Content-ID: ")).count();
    let parts = multipart::parts(&head.headers, body);
    if parts.iter().any(|part| part.id.is_none() && !part.is_success()) {
        return Ok(());
    }
    let told: BTreeSet<usize> = parts.iter().filter_map(|part| part.id).collect();
    if told == (0..wanted).collect() && parts.len() == wanted {
        return Ok(());
    }
    Err(foreign(&format!("it tells of {} of {wanted} object(s) that were to be removed", told.len())))
}
