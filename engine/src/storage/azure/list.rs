//! Listings (List Blobs): current objects, and all their versions.
//!
//! A page counts only if it belongs to the requested listing. Names that are not paths are skipped. `object_store` does
//! neither.
//!
//! Azure does not report when a blob was deleted. As in pgBackRest, a deleted blob is visible at all times after it was
//! written.

use async_trait::async_trait;
use jiff::fmt::rfc2822;
use object_store::azure::{AzureAuthorizer, AzureCredentialProvider};
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::path::Path;
use object_store::{Extensions, ListResult, ObjectMeta};
use percent_encoding::utf8_percent_encode;

use crate::storage::as_of::{ListVersions, Order, Version, Versions};
use crate::storage::http::URL_ENCODED;
use crate::storage::http::checked::foreign;
use crate::storage::http::request::{Failure, Requests, store_error};
use crate::storage::http::xml::Element;
use crate::storage::pages::{Located, Reached};
use crate::{Error, ErrorCode, Result};

/// See the module documentation.
#[derive(Debug)]
pub(super) struct AzureList {
    /// The container's URL without a slash at its end.
    pub container_url: String,
    pub account: String,
    pub credentials: AzureCredentialProvider,
    pub requests: Requests,
}

#[async_trait]
impl PaginatedListStore for AzureList {
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        options: PaginatedListOptions,
    ) -> object_store::Result<PaginatedListResult> {
        let prefix = prefix.unwrap_or_default();
        let mut query = Vec::new();
        query.extend(options.delimiter.as_deref().map(|delimiter| ("delimiter", delimiter)));
        match &options.page_token {
            Some(token) => query.push(("marker", token)),
            None => query.extend(options.offset.as_deref().map(|offset| ("startFrom", offset))),
        }
        let page = self.ask(prefix, query).await?;
        read_page(&page, prefix).map_err(failed)
    }
}

#[async_trait]
impl ListVersions for AzureList {
    fn order(&self) -> Order {
        Order::OldestFirst
    }

    async fn page(
        &self,
        prefix: &str,
        token: Option<&str>,
        found: &mut Versions,
    ) -> object_store::Result<Option<String>> {
        let mut query = vec![("delimiter", "/"), ("include", "versions")];
        query.extend(token.map(|token| ("marker", token)));
        let page = self.ask(prefix, query).await?;
        read_versions(&page, prefix, found).map_err(failed)
    }
}

impl AzureList {
    /// Asks for a page below a prefix.
    async fn ask(&self, prefix: &str, mut query: Vec<(&str, &str)>) -> object_store::Result<Element> {
        query.extend([("comp", "list"), ("prefix", prefix), ("restype", "container")]);
        query.retain(|(_, value)| !value.is_empty());
        query.sort_unstable();
        let query: Vec<String> = query
            .into_iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, URL_ENCODED)))
            .collect();
        let invalid = || Error::new(ErrorCode::Format, format!("'{}' is not a valid URL", self.container_url));
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() =
            format!("{}?{}", self.container_url, query.join("&")).parse().map_err(|_| failed(invalid()))?;
        let credential = self.credentials.get_credential().await?;
        AzureAuthorizer::new(&credential, &self.account).try_authorize(&mut request)?;
        self.requests.document(&request).await.map_err(failed)
    }
}

/// Returns the objects of a page with the elements that describe them, and common prefixes.
fn entries<'a>(page: &'a Element, prefix: &str) -> Result<Located<'a, Element>> {
    page.expect("EnumerationResults")?;
    if let Some(other) = page.child("Prefix").filter(|found| found.text != prefix) {
        return Err(foreign(&format!("it is a listing of '{}' instead of '{prefix}'", other.text)));
    }
    let (mut reached, mut objects, mut prefixes) = (Reached::below(prefix), Vec::new(), Vec::new());
    for child in &page.required_child("Blobs")?.children {
        match child.name.as_str() {
            "BlobPrefix" => prefixes.extend(reached.common_prefix(child.required("Name")?)?),
            "Blob" => objects.extend(reached.object(child.required("Name")?)?.map(|location| (location, child))),
            _ => {}
        }
    }
    reached.warn();
    Ok((objects, prefixes))
}

/// The token of the page after this one.
fn next(page: &Element) -> Option<String> {
    page.child("NextMarker").map(|marker| marker.text.clone()).filter(|marker| !marker.is_empty())
}

pub(crate) fn read_page(page: &Element, prefix: &str) -> Result<PaginatedListResult> {
    let (objects, common_prefixes) = entries(page, prefix)?;
    let objects = objects.into_iter().map(|(location, blob)| object(location, blob)).collect::<Result<_>>()?;
    let result = ListResult { objects, common_prefixes, extensions: Extensions::new() };
    Ok(PaginatedListResult { result, page_token: next(page) })
}

/// Adds the content of a page of versions. Returns the token of the next page.
pub(crate) fn read_versions(page: &Element, prefix: &str, found: &mut Versions) -> Result<Option<String>> {
    let (versions, prefixes) = entries(page, prefix)?;
    found.prefixes.extend(prefixes);
    for (location, blob) in versions {
        found.versions.push(version(location, blob)?);
    }
    Ok(next(page))
}

/// Reads the description of an object.
fn object(location: Path, blob: &Element) -> Result<ObjectMeta> {
    let invalid = |what: &str| Error::new(ErrorCode::Format, format!("'{what}' of '{location}' is not valid"));
    let properties = blob.required_child("Properties")?;
    let modified = rfc2822::parse(properties.required("Last-Modified")?).map_err(|_| invalid("Last-Modified"))?;
    let last_modified = std::time::SystemTime::from(modified.timestamp()).into();
    let size = properties.required("Content-Length")?.parse().map_err(|_| invalid("Content-Length"))?;
    Ok(ObjectMeta { location, last_modified, size, e_tag: None, version: None })
}

fn version(location: Path, blob: &Element) -> Result<Version> {
    let version = Some(blob.required("VersionId")?.to_owned());
    Ok(Version {
        meta: ObjectMeta { version, ..object(location, blob)? },
        is_deletion: false,
        is_latest: blob.child("IsCurrentVersion").is_some_and(|current| current.text == "true"),
    })
}

fn failed(failure: impl Into<Failure>) -> object_store::Error {
    store_error("Azure", failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\
        <EnumerationResults ServiceEndpoint=\"https://a/\" ContainerName=\"c\"><Prefix>p/</Prefix><Blobs>\
        <BlobPrefix><Name>p/d/</Name></BlobPrefix>\
        <Blob><Name>p/</Name><Properties/></Blob>\
        <Blob><Name>p/a</Name><VersionId>2026-01-01T00:00:00.0000001Z</VersionId><Properties>\
        <Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT</Last-Modified><Content-Length>7</Content-Length></Properties></Blob>\
        <Blob><Name>p/a</Name><VersionId>2</VersionId><IsCurrentVersion>true</IsCurrentVersion><Properties>\
        <Last-Modified>Fri, 02 Jan 2026 00:00:00 GMT</Last-Modified><Content-Length>8</Content-Length></Properties></Blob>\
        </Blobs><NextMarker>2!4!x</NextMarker></EnumerationResults>";

    fn read(page: &str) -> Result<(Versions, Option<String>)> {
        let mut found = Versions::default();
        let token = read_versions(&Element::parse(page.as_bytes())?, "p/", &mut found)?;
        Ok((found, token))
    }

    #[test]
    fn page_is_read() {
        let (found, token) = read(PAGE).unwrap();
        assert_eq!(token.as_deref(), Some("2!4!x"));
        assert_eq!(found.prefixes.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["p/d"]);
        let versions: Vec<_> = found
            .versions
            .iter()
            .map(|found| (found.meta.version.as_deref().unwrap(), found.meta.size, found.is_latest))
            .collect();
        assert_eq!(versions, [("2026-01-01T00:00:00.0000001Z", 7, false), ("2", 8, true)]);
        assert_eq!(found.versions[0].meta.last_modified.timestamp(), 1_767_225_600);
    }

    #[test]
    fn page_that_lacks_something_is_refused() {
        for (text, bad) in [
            ("<VersionId>2</VersionId>", ""),
            ("<Content-Length>7</Content-Length>", "<Content-Length>-7</Content-Length>"),
            ("Thu, 01 Jan 2026 00:00:00 GMT", "today"),
            ("<Name>p/d/</Name>", ""),
            ("<Name>p/a</Name>", "<Name>../a</Name>"),
            ("Blobs>", "Blubs>"),
            ("EnumerationResults", "html"),
            ("<Prefix>p/</Prefix>", "<Prefix>q/</Prefix>"),
        ] {
            assert_eq!(read(&PAGE.replace(text, bad)).err().map(|error| error.code), Some(ErrorCode::Format), "{bad}");
        }
        assert_eq!(read(&PAGE.replace("2!4!x", "")).unwrap().1, None);
    }

    #[test]
    fn foreign_name_in_a_listing_is_passed_over() {
        let page = PAGE.replace("<Name>p/d/</Name>", "<Name>p/d/</Name></BlobPrefix><BlobPrefix><Name>p//</Name>");
        let page = page.replacen("<Name>p/a</Name>", "<Name>p/../b</Name>", 1);
        let page = read_page(&Element::parse(page.as_bytes()).unwrap(), "p/").unwrap();
        assert_eq!(page.result.common_prefixes, [Path::from("p/d")]);
        let objects: Vec<_> = page.result.objects.iter().map(|found| (found.location.as_ref(), found.size)).collect();
        assert_eq!(objects, [("p/a", 8)]);
    }

    #[test]
    fn document_that_is_no_page_of_this_listing_is_no_empty_listing() {
        for page in [
            "<html><body>login</body></html>".to_owned(),
            "<Error><Code>ServerBusy</Code></Error>".to_owned(),
            "<EnumerationResults></EnumerationResults>".to_owned(),
            PAGE.replace("p/a", "q/a"),
            PAGE[..PAGE.len() - 30].to_owned(),
        ] {
            let page = Element::parse(page.as_bytes()).and_then(|page| read_page(&page, "p/"));
            assert_eq!(page.err().map(|error| error.code), Some(ErrorCode::Format));
        }
    }
}
