//! The XML listings of S3 and Azure: requesting a page, and finding what is on it.
//!
//! `object_store` accepts any document as a page, treats one without entries as the end of a listing, and gives up on a
//! single invalid name. Here a page counts only if it belongs to the requested listing.

use std::fmt;

use async_trait::async_trait;
use object_store::client::{HttpRequest, HttpRequestBody};
use percent_encoding::utf8_percent_encode;

use super::URL_ENCODED;
use super::foreign::foreign;
use super::request::{Failure, Requests, store_error};
use super::xml::Element;
use crate::storage::pages::{Located, Reached};
use crate::{Error, ErrorCode, Result};

/// Signs requests to a store.
#[async_trait]
pub(crate) trait Sign: fmt::Debug + Send + Sync + 'static {
    /// The store's name in errors.
    const STORE: &'static str;

    /// Signs a request.
    ///
    /// # Errors
    /// There are no credentials, or the request can't be signed.
    async fn sign(&self, request: &mut HttpRequest) -> object_store::Result<()>;
}

/// Requests listings of one bucket or container.
#[derive(Debug)]
pub(crate) struct Listings<S> {
    /// The URL before the query.
    pub(crate) url: String,
    pub(crate) signer: S,
    pub(crate) requests: Requests,
}

impl<S: Sign> Listings<S> {
    /// Requests a page below a prefix.
    pub(crate) async fn ask(&self, prefix: &str, mut query: Vec<(&str, &str)>) -> object_store::Result<Element> {
        query.extend(Some(("prefix", prefix)).filter(|_| !prefix.is_empty()));
        query.sort_unstable();
        let query: Vec<String> = query
            .into_iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, URL_ENCODED)))
            .collect();
        let invalid = || Error::new(ErrorCode::Format, format!("'{}' is not a valid URL", self.url));
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() =
            format!("{}?{}", self.url, query.join("&")).parse().map_err(|_| Self::failed(invalid()))?;
        self.signer.sign(&mut request).await?;
        self.requests.document(&request).await.map_err(Self::failed)
    }

    /// Converts a failure to an error that `object_store` passes on.
    pub(crate) fn failed(failure: impl Into<Failure>) -> object_store::Error {
        store_error(S::STORE, failure)
    }
}

/// The names of elements on a store's pages.
pub(crate) struct Form {
    /// Elements that describe an object, and their child that contains the name.
    pub(crate) objects: (&'static [&'static str], &'static str),
    /// The element of a common prefix, and its child that contains the name.
    pub(crate) prefixes: (&'static str, &'static str),
}

impl Form {
    /// Returns the objects of a page with the elements that describe them, and common prefixes.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if an element has no name, or one that is not below the prefix.
    pub(crate) fn entries<'a>(&self, elements: &'a [Element], prefix: &str) -> Result<Located<'a, Element>> {
        let (mut reached, mut objects, mut prefixes) = (Reached::below(prefix), Vec::new(), Vec::new());
        for element in elements {
            if element.name == self.prefixes.0 {
                prefixes.extend(reached.common_prefix(element.required(self.prefixes.1)?)?);
            } else if self.objects.0.contains(&element.name.as_str()) {
                let location = reached.object(element.required(self.objects.1)?)?;
                objects.extend(location.map(|location| (location, element)));
            }
        }
        reached.warn();
        Ok((objects, prefixes))
    }
}

/// Checks that a document is a page of a prefix's listing.
///
/// # Errors
/// [`ErrorCode::Format`]
pub(crate) fn is_page(page: &Element, kind: &str, prefix: &str) -> Result<()> {
    page.expect(kind)?;
    match page.child("Prefix").filter(|found| found.text != prefix) {
        Some(other) => Err(foreign(&format!("it is a listing of '{}' instead of '{prefix}'", other.text))),
        None => Ok(()),
    }
}
