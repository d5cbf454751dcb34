//! Listings (List Blobs): current objects, and all their versions.
//!
//! Azure does not report when a blob was deleted. As in pgBackRest, a deleted blob is visible at all times after it was
//! written.

use async_trait::async_trait;
use jiff::fmt::rfc2822;
use object_store::azure::{AzureAuthorizer, AzureCredentialProvider};
use object_store::client::HttpRequest;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::path::Path;
use object_store::{Extensions, ListResult, ObjectMeta};

use crate::storage::as_of::{ListVersions, Order, Version, Versions};
use crate::storage::http::listing::{Form, Listings, Sign, is_page};
use crate::storage::http::xml::Element;
use crate::storage::pages::Located;
use crate::{Error, ErrorCode, Result};

/// The parameters of every request for a listing.
const LIST: [(&str, &str); 2] = [("comp", "list"), ("restype", "container")];
/// The elements of a page.
const BLOBS: Form = Form { objects: (&["Blob"], "Name"), prefixes: ("BlobPrefix", "Name") };

/// See the module documentation.
pub(super) type AzureList = Listings<AzureSigner>;

/// Signs requests for one account.
#[derive(Debug)]
pub(super) struct AzureSigner {
    pub(super) account: String,
    pub(super) credentials: AzureCredentialProvider,
}

#[async_trait]
impl Sign for AzureSigner {
    const STORE: &'static str = "Azure";

    async fn sign(&self, request: &mut HttpRequest) -> object_store::Result<()> {
        let credential = self.credentials.get_credential().await?;
        AzureAuthorizer::new(&credential, &self.account).try_authorize(request)
    }
}

#[async_trait]
impl PaginatedListStore for AzureList {
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        options: PaginatedListOptions,
    ) -> object_store::Result<PaginatedListResult> {
        let prefix = prefix.unwrap_or_default();
        let mut query = LIST.to_vec();
        query.extend(options.delimiter.as_deref().map(|delimiter| ("delimiter", delimiter)));
        match &options.page_token {
            Some(token) => query.push(("marker", token)),
            None => query.extend(options.offset.as_deref().map(|offset| ("startFrom", offset))),
        }
        let page = self.ask(prefix, query).await?;
        read_page(&page, prefix).map_err(Self::failed)
    }
}

#[async_trait]
impl ListVersions for AzureList {
    fn order(&self) -> Order {
        Order::OldestFirst
    }

    async fn page(&self, prefix: &str, token: Option<&str>) -> object_store::Result<(Versions, Option<String>)> {
        let mut query = [&LIST[..], &[("delimiter", "/"), ("include", "versions")]].concat();
        query.extend(token.map(|token| ("marker", token)));
        let page = self.ask(prefix, query).await?;
        read_versions(&page, prefix).map_err(Self::failed)
    }
}

/// Returns the objects of a page with the elements that describe them, and common prefixes.
fn entries<'a>(page: &'a Element, prefix: &str) -> Result<Located<'a, Element>> {
    is_page(page, "EnumerationResults", prefix)?;
    BLOBS.entries(&page.required_child("Blobs")?.children, prefix)
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

/// Returns the content of a page of versions and the token of the next page.
pub(crate) fn read_versions(page: &Element, prefix: &str) -> Result<(Versions, Option<String>)> {
    let (versions, prefixes) = entries(page, prefix)?;
    let versions = versions.into_iter().map(|(location, blob)| version(location, blob)).collect::<Result<_>>()?;
    Ok((Versions { versions, prefixes: prefixes.into_iter().collect() }, next(page)))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::object::key;

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
        read_versions(&Element::parse(page.as_bytes())?, "p/")
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
    fn name_that_xml_can_not_hold_is_encoded() {
        let page = PAGE.replace("<Name>p/a</Name>", "<Name Encoded=\"true\">p%2Fa%01%25%EF%BF%BE+</Name>");
        let page = page.replace("<Name>p/d/</Name>", "<Name Encoded=\"true\">p%2Fd%0A%2F</Name>");
        let page = read_page(&Element::parse(page.as_bytes()).unwrap(), "p/").unwrap();
        let names: Vec<_> = page.result.objects.iter().map(|found| key::name(&found.location)).collect();
        assert_eq!(names, ["p/a\u{1}%\u{fffe}+"; 2]);
        assert_eq!(key::name(&page.result.common_prefixes[0]), "p/d\n");
        let plain = PAGE.replace("<Name>p/a</Name>", "<Name Encoded=\"false\">p/a%25</Name>");
        let page = read_page(&Element::parse(plain.as_bytes()).unwrap(), "p/").unwrap();
        assert_eq!(key::name(&page.result.objects[0].location), "p/a%25");
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
