//! Lists the versions that a container keeps (List Blobs with `include=versions`), which `object_store` can't.
//!
//! Nothing says when a blob was deleted: one that is gone now is seen at all times after it was written, as pgBackRest sees it.

use async_trait::async_trait;
use jiff::fmt::rfc2822;
use object_store::ObjectMeta;
use object_store::azure::{AzureAuthorizer, AzureCredentialProvider};
use object_store::client::{HttpRequest, HttpRequestBody};
use percent_encoding::utf8_percent_encode;

use crate::storage::as_of::{ListVersions, Order, Version, Versions};
use crate::storage::http::URL_ENCODED;
use crate::storage::http::request::{Failure, Requests, store_error};
use crate::storage::http::xml::Element;
use crate::storage::object::location;
use crate::{Error, ErrorCode, Result};

/// See the module.
#[derive(Debug)]
pub(super) struct VersionList {
    /// The container's URL without a slash at its end.
    pub container_url: String,
    pub account: String,
    pub credentials: AzureCredentialProvider,
    pub requests: Requests,
}

#[async_trait]
impl ListVersions for VersionList {
    fn order(&self) -> Order {
        Order::OldestFirst
    }

    async fn page(
        &self,
        prefix: &str,
        token: Option<&str>,
        found: &mut Versions,
    ) -> object_store::Result<Option<String>> {
        let mut request = self.request(prefix, token).map_err(failed)?;
        let credential = self.credentials.get_credential().await?;
        AzureAuthorizer::new(&credential, &self.account).try_authorize(&mut request)?;
        let page = self.requests.document(&request).await.map_err(failed)?;
        read_page(&page, prefix, found).map_err(failed)
    }
}

impl VersionList {
    fn request(&self, prefix: &str, token: Option<&str>) -> Result<HttpRequest> {
        let mut url = format!("{}?comp=list&delimiter=%2F&include=versions", self.container_url);
        for (key, value) in [("marker", token.unwrap_or_default()), ("prefix", prefix)] {
            if !value.is_empty() {
                url += &format!("&{key}={}", utf8_percent_encode(value, URL_ENCODED));
            }
        }
        url += "&restype=container";
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url
            .parse()
            .map_err(|_| Error::new(ErrorCode::Format, format!("'{}' is not a valid URL", self.container_url)))?;
        Ok(request)
    }
}

fn failed(failure: impl Into<Failure>) -> object_store::Error {
    store_error("Azure", failure)
}

/// Adds what is on a page; answers the token of the next one.
pub(crate) fn read_page(page: &Element, prefix: &str, found: &mut Versions) -> Result<Option<String>> {
    for child in &page.required_child("Blobs")?.children {
        let name = || child.required("Name");
        match child.name.as_str() {
            "BlobPrefix" => {
                found.prefixes.insert(location(name()?)?);
            }
            // A directory that someone made with a console is a blob of the prefix's own name
            "Blob" if name()? != prefix => found.versions.push(version(child, name()?)?),
            _ => {}
        }
    }
    Ok(page.child("NextMarker").map(|marker| marker.text.clone()))
}

fn version(blob: &Element, name: &str) -> Result<Version> {
    let invalid = |what: &str| Error::new(ErrorCode::Format, format!("'{what}' of a version of '{name}' is not valid"));
    let properties = blob.required_child("Properties")?;
    let modified = rfc2822::parse(properties.required("Last-Modified")?).map_err(|_| invalid("Last-Modified"))?;
    let last_modified = std::time::SystemTime::from(modified.timestamp());
    Ok(Version {
        meta: ObjectMeta {
            location: location(name)?,
            last_modified: last_modified.into(),
            size: properties.required("Content-Length")?.parse().map_err(|_| invalid("Content-Length"))?,
            e_tag: None,
            version: Some(blob.required("VersionId")?.to_owned()),
        },
        is_deletion: false,
        is_latest: blob.child("IsCurrentVersion").is_some_and(|current| current.text == "true"),
    })
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
        let token = read_page(&Element::parse(page.as_bytes())?, "p/", &mut found)?;
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
        ] {
            assert_eq!(read(&PAGE.replace(text, bad)).err().map(|error| error.code), Some(ErrorCode::Format), "{bad}");
        }
        assert_eq!(read(&PAGE.replace("2!4!x", "")).unwrap().1.as_deref(), Some(""));
    }
}
