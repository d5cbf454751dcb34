//! Lists the versions that a bucket keeps (ListObjectVersions), which `object_store` can't.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::ObjectMeta;
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::path::Path;
use percent_encoding::utf8_percent_encode;

use super::sign::Signer;
use super::xml::Element;
use crate::storage::as_of::{ListVersions, Version, Versions};
use crate::storage::http::URL_ENCODED;
use crate::storage::http::request::{Failure, Requests};
use crate::{Error, ErrorCode};

/// See the module.
#[derive(Debug)]
pub(super) struct VersionList {
    /// The bucket's URL with a slash at its end.
    pub bucket_url: String,
    pub signer: Arc<Signer>,
    pub requests: Requests,
}

/// Where a page of the listing begins: the last key and version of the page before.
#[derive(PartialEq, Eq)]
struct Marker {
    key: String,
    version: String,
}

#[async_trait]
impl ListVersions for VersionList {
    async fn list_versions(&self, prefix: Option<&Path>) -> object_store::Result<Versions> {
        let prefix = prefix.map_or_else(String::new, |prefix| format!("{prefix}/"));
        let mut found = Versions { versions: Vec::new(), prefixes: BTreeSet::new() };
        let mut marker: Option<Marker> = None;
        loop {
            let page = self.page(&prefix, marker.as_ref()).await?;
            let next = read_page(&page, &prefix, &mut found).map_err(|error| generic(error.into()))?;
            let Some(next) = next else { return Ok(found) };
            if marker.is_some_and(|before| next == before || next.key < before.key) {
                let error = Error::new(ErrorCode::Protocol, "a page of the listing is followed by an earlier one");
                return Err(generic(error.into()));
            }
            marker = Some(next);
        }
    }
}

impl VersionList {
    async fn page(&self, prefix: &str, marker: Option<&Marker>) -> object_store::Result<Element> {
        let encode = |text| utf8_percent_encode(text, URL_ENCODED);
        let mut url = format!("{}?delimiter=%2F", self.bucket_url);
        if let Some(marker) = marker {
            url += &format!("&key-marker={}", encode(&marker.key));
        }
        if !prefix.is_empty() {
            url += &format!("&prefix={}", encode(prefix));
        }
        if let Some(marker) = marker.filter(|marker| !marker.version.is_empty()) {
            url += &format!("&version-id-marker={}", encode(&marker.version));
        }
        url += "&versions=";
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.parse().map_err(|_| {
            generic(Error::new(ErrorCode::Format, format!("'{}' is not a valid URL", self.bucket_url)).into())
        })?;
        self.signer.sign(&mut request).await?;
        let answer = self.requests.send(&request).await.map_err(|failure| generic(failure.into()))?;
        if !answer.status().is_success() {
            return Err(generic(Failure::of(&answer).into()));
        }
        Element::parse(answer.body()).map_err(|error| generic(error.into()))
    }
}

/// Adds what is on a page; answers where the next one begins, if there is one.
fn read_page(page: &Element, prefix: &str, found: &mut Versions) -> crate::Result<Option<Marker>> {
    for child in &page.children {
        match child.name.as_str() {
            "CommonPrefixes" => {
                found.prefixes.insert(path(child.required("Prefix")?)?);
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
    let marker = Marker {
        key: page.required("NextKeyMarker")?.to_owned(),
        version: page.child("NextVersionIdMarker").map_or_else(String::new, |child| child.text.clone()),
    };
    Ok(Some(marker))
}

fn version(element: &Element, key: &str) -> crate::Result<Version> {
    let invalid = |name: &str| Error::new(ErrorCode::Format, format!("'{name}' of a version of '{key}' is not valid"));
    let is_deletion = element.name == "DeleteMarker";
    let size = if is_deletion { 0 } else { element.required("Size")?.parse().map_err(|_| invalid("Size"))? };
    Ok(Version {
        meta: ObjectMeta {
            location: path(key)?,
            last_modified: element.required("LastModified")?.parse().map_err(|_| invalid("LastModified"))?,
            size,
            e_tag: None,
            version: Some(element.required("VersionId")?.to_owned()),
        },
        is_deletion,
        is_latest: element.child("IsLatest").is_some_and(|latest| latest.text == "true"),
    })
}

fn path(key: &str) -> crate::Result<Path> {
    Path::parse(key)
        .map_err(|error| Error::new(ErrorCode::Format, format!("'{key}' can't be the name of an object")).cause(error))
}

fn generic(source: Box<dyn std::error::Error + Send + Sync>) -> object_store::Error {
    object_store::Error::Generic { store: "S3", source }
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

    fn read(page: &str) -> crate::Result<(Versions, Option<Marker>)> {
        let mut found = Versions::default();
        let marker = read_page(&Element::parse(page.as_bytes())?, "p/", &mut found)?;
        Ok((found, marker))
    }

    #[test]
    fn page_is_read() {
        let (found, marker) = read(PAGE).unwrap();
        let marker = marker.unwrap();
        assert_eq!((marker.key.as_str(), marker.version.as_str()), ("p/b", "2"));
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
    fn listing_that_goes_in_circles_is_refused() {
        let page = |key: &str| answer(&PAGE.replace("Marker>p/b<", &format!("Marker>{key}<")));
        for last in ["p/c", "p/a"] {
            let (address, requests) = server(vec![page("p/b"), page("p/c"), page(last), page("p/d")]);
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
            let error = network::handle().unwrap().block_on(list.list_versions(Some(&Path::from("p")))).unwrap_err();
            assert!(error.to_string().contains("followed by an earlier one"), "{error}");
            let lines: Vec<_> = requests.try_iter().map(|request| request.line).collect();
            assert_eq!(lines.len(), 3, "{lines:#?}");
        }
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
