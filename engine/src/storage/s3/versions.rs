//! Lists the versions that a bucket keeps (ListObjectVersions), which `object_store` can't.

use std::sync::Arc;

use async_trait::async_trait;
use object_store::ObjectMeta;
use object_store::client::{HttpRequest, HttpRequestBody};
use percent_encoding::{PercentEncode, utf8_percent_encode};

use super::sign::Signer;
use crate::storage::as_of::{ListVersions, Order, Version, Versions};
use crate::storage::http::URL_ENCODED;
use crate::storage::http::request::{Failure, Requests, store_error};
use crate::storage::http::xml::Element;
use crate::storage::object::location;
use crate::{Error, ErrorCode, Result};

/// See the module.
#[derive(Debug)]
pub(super) struct VersionList {
    /// The bucket's URL with a slash at its end.
    pub bucket_url: String,
    pub signer: Arc<Signer>,
    pub requests: Requests,
}

#[async_trait]
impl ListVersions for VersionList {
    fn order(&self) -> Order {
        Order::NewestFirst
    }

    async fn page(
        &self,
        prefix: &str,
        token: Option<&str>,
        found: &mut Versions,
    ) -> object_store::Result<Option<String>> {
        let mut request = self.request(prefix, token).map_err(failed)?;
        self.signer.sign(&mut request).await?;
        let page = self.requests.document(&request).await.map_err(failed)?;
        read_page(&page, prefix, found).map_err(failed)
    }
}

impl VersionList {
    fn request(&self, prefix: &str, token: Option<&str>) -> Result<HttpRequest> {
        let mut url = format!("{}?delimiter=%2F", self.bucket_url);
        if !prefix.is_empty() {
            url += &format!("&prefix={}", encode(prefix));
        }
        if let Some(token) = token {
            url += &format!("&{token}");
        }
        url += "&versions=";
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url
            .parse()
            .map_err(|_| Error::new(ErrorCode::Format, format!("'{}' is not a valid URL", self.bucket_url)))?;
        Ok(request)
    }
}

fn encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, URL_ENCODED)
}

/// Adds what is on a page. Where the next one begins is said by the last key and version of this one: they are the token, in the
/// form in which a request names them.
pub(crate) fn read_page(page: &Element, prefix: &str, found: &mut Versions) -> Result<Option<String>> {
    for child in &page.children {
        match child.name.as_str() {
            "CommonPrefixes" => {
                found.prefixes.insert(location(child.required("Prefix")?)?);
            }
            "Version" | "DeleteMarker" => {
                let key = child.required("Key")?;
                // A directory that someone made with a console is an object of the prefix's own name
                if key != prefix {
                    found.versions.push(version(child, key)?);
                }
            }
            _ => {}
        }
    }
    if page.required("IsTruncated")? != "true" {
        return Ok(None);
    }
    let mut token = format!("key-marker={}", encode(page.required("NextKeyMarker")?));
    if let Some(version) = page.child("NextVersionIdMarker").filter(|version| !version.text.is_empty()) {
        token += &format!("&version-id-marker={}", encode(&version.text));
    }
    Ok(Some(token))
}

fn version(element: &Element, key: &str) -> Result<Version> {
    let invalid = |name: &str| Error::new(ErrorCode::Format, format!("'{name}' of a version of '{key}' is not valid"));
    let is_deletion = element.name == "DeleteMarker";
    let size = if is_deletion { 0 } else { element.required("Size")?.parse().map_err(|_| invalid("Size"))? };
    Ok(Version {
        meta: ObjectMeta {
            location: location(key)?,
            last_modified: element.required("LastModified")?.parse().map_err(|_| invalid("LastModified"))?,
            size,
            e_tag: None,
            version: Some(element.required("VersionId")?.to_owned()),
        },
        is_deletion,
        is_latest: element.child("IsLatest").is_some_and(|latest| latest.text == "true"),
    })
}

fn failed(failure: impl Into<Failure>) -> object_store::Error {
    store_error("S3", failure)
}

#[cfg(test)]
mod tests {
    use object_store::StaticCredentialProvider;
    use object_store::aws::AwsCredential;

    use super::*;
    use crate::storage::http::HttpSettings;
    use crate::storage::http::mock::{answer, server};
    use crate::storage::network;

    const PAGE: &str = "<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>p/b</NextKeyMarker>\
        <NextVersionIdMarker>2</NextVersionIdMarker>\
        <Version><Key>p/</Key><VersionId>0</VersionId><IsLatest>true</IsLatest>\
        <LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>0</Size></Version>\
        <Version><Key>p/a</Key><VersionId>null</VersionId><IsLatest>false</IsLatest>\
        <LastModified>2026-01-01T00:00:00.500Z</LastModified><Size>7</Size></Version>\
        <DeleteMarker><Key>p/a</Key><VersionId>2</VersionId><IsLatest>true</IsLatest>\
        <LastModified>2026-01-02T00:00:00.000Z</LastModified></DeleteMarker>\
        <CommonPrefixes><Prefix>p/d/</Prefix></CommonPrefixes></ListVersionsResult>";

    fn read(page: &str) -> Result<(Versions, Option<String>)> {
        let mut found = Versions::default();
        let marker = read_page(&Element::parse(page.as_bytes())?, "p/", &mut found)?;
        Ok((found, marker))
    }

    #[test]
    fn page_is_read() {
        let (found, marker) = read(PAGE).unwrap();
        assert_eq!(marker.as_deref(), Some("key-marker=p%2Fb&version-id-marker=2"));
        assert_eq!(found.prefixes.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["p/d"]);
        let versions: Vec<_> = found
            .versions
            .iter()
            .map(|version| (version.meta.version.as_deref().unwrap(), version.meta.size, version.is_deletion))
            .collect();
        assert_eq!(versions, [("null", 7, false), ("2", 0, true)]);
        assert_eq!(found.versions[0].meta.last_modified.timestamp(), 1_767_225_600);
    }

    #[test]
    fn pages_are_asked_for_one_after_the_other() {
        let last = PAGE.replace("<IsTruncated>true", "<IsTruncated>false");
        let (address, requests) = server(vec![answer(PAGE), answer(&last)]);
        let io_timeout = std::time::Duration::from_secs(5);
        let http = HttpSettings { host: None, verify_tls: true, ca_file: None, ca_path: None, io_timeout };
        let credential = AwsCredential { key_id: "k".into(), secret_key: "s".into(), token: None };
        let signer = Arc::new(Signer {
            credentials: Arc::new(StaticCredentialProvider::new(credential)),
            region: "us-east-1".into(),
            service: "s3".into(),
            host: None,
            requester_pays: false,
        });
        let requests_of_ours = Requests::new(&http).unwrap();
        let list = VersionList { bucket_url: format!("{address}/bucket/"), signer, requests: requests_of_ours };
        let (mut found, mut token) = (Versions::default(), None);
        for _ in 0..2 {
            let page = list.page("p/", token.as_deref(), &mut found);
            token = network::handle().unwrap().block_on(page).unwrap();
        }
        assert_eq!((token, found.versions.len()), (None, 4));
        let lines: Vec<_> = requests.iter().map(|request| request.line).collect();
        assert_eq!(
            lines,
            [
                "GET /bucket/?delimiter=%2F&prefix=p%2F&versions=",
                "GET /bucket/?delimiter=%2F&prefix=p%2F&key-marker=p%2Fb&version-id-marker=2&versions="
            ]
        );
    }

    #[test]
    fn last_page_has_no_marker_and_bad_ones_are_refused() {
        assert!(read(&PAGE.replace("<IsTruncated>true", "<IsTruncated>false")).unwrap().1.is_none());
        for (text, bad) in [
            ("<NextKeyMarker>p/b</NextKeyMarker>", ""),
            ("<Size>7</Size>", "<Size>-1</Size>"),
            ("2026-01-02T00:00:00.000Z", "today"),
            ("<Prefix>p/d/</Prefix>", ""),
            ("<Key>p/a</Key>", "<Key>../a</Key>"),
            ("<IsTruncated>true</IsTruncated>", ""),
        ] {
            assert_eq!(read(&PAGE.replace(text, bad)).err().map(|error| error.code), Some(ErrorCode::Format), "{bad}");
        }
    }
}
