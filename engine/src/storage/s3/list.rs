//! Listings: current objects (ListObjectsV2), and all their versions (ListObjectVersions).

use std::sync::Arc;

use async_trait::async_trait;
use object_store::client::HttpRequest;
use object_store::list::{PaginatedListOptions, PaginatedListResult, PaginatedListStore};
use object_store::path::Path;
use object_store::{Extensions, ListResult, ObjectMeta};
use percent_encoding::{PercentEncode, percent_decode_str, utf8_percent_encode};

use super::sign::Signer;
use crate::storage::as_of::{ListVersions, Order, Version, Versions};
use crate::storage::http::URL_ENCODED;
use crate::storage::http::foreign::foreign;
use crate::storage::http::listing::{Form, Listings, Sign, is_page};
use crate::storage::http::xml::Element;
use crate::{Error, ErrorCode, Result};

/// The elements of a page.
const OBJECTS: Form = Form { objects: (&["Contents"], "Key"), prefixes: ("CommonPrefixes", "Prefix") };
const VERSIONS: Form = Form { objects: (&["Version", "DeleteMarker"], "Key"), prefixes: ("CommonPrefixes", "Prefix") };
/// Elements that contain names, which a page may encode.
const NAMES: [&str; 4] = ["Key", "KeyMarker", "NextKeyMarker", "Prefix"];

/// See the module documentation.
pub(super) type S3List = Listings<Arc<Signer>>;

#[async_trait]
impl Sign for Arc<Signer> {
    const STORE: &'static str = "S3";

    async fn sign(&self, request: &mut HttpRequest) -> object_store::Result<()> {
        Signer::sign(self, request).await
    }
}

#[async_trait]
impl PaginatedListStore for S3List {
    async fn list_paginated(
        &self,
        prefix: Option<&str>,
        options: PaginatedListOptions,
    ) -> object_store::Result<PaginatedListResult> {
        let prefix = prefix.unwrap_or_default();
        let mut query = vec![("list-type", "2")];
        query.extend(options.page_token.as_deref().map(|token| ("continuation-token", token)));
        query.extend(options.delimiter.as_deref().map(|delimiter| ("delimiter", delimiter)));
        query.extend(options.offset.as_deref().map(|offset| ("start-after", offset)));
        let page = named(self, prefix, query).await?;
        read_page(&page, prefix).map_err(Self::failed)
    }
}

#[async_trait]
impl ListVersions for S3List {
    fn order(&self) -> Order {
        Order::NewestFirst
    }

    async fn page(&self, prefix: &str, token: Option<&str>) -> object_store::Result<(Versions, Option<String>)> {
        // As it was read from the page before
        let markers = token.unwrap_or_default().split('&').filter_map(|marker| marker.split_once('='));
        let markers: Vec<_> =
            markers.map(|(name, value)| (name, percent_decode_str(value).decode_utf8_lossy())).collect();
        let mut query = vec![("delimiter", "/"), ("versions", "")];
        query.extend(markers.iter().map(|(name, value)| (*name, &**value)));
        let page = named(self, prefix, query).await?;
        read_versions(&page, prefix).map_err(Self::failed)
    }
}

/// Requests a page. If XML cannot contain one of the names, requests it again with encoded names.
async fn named(list: &S3List, prefix: &str, mut query: Vec<(&str, &str)>) -> object_store::Result<Element> {
    let page = list.ask(prefix, query.clone()).await?;
    if !page.holds(&NAMES, char::REPLACEMENT_CHARACTER) {
        return Ok(page);
    }
    query.push(("encoding-type", "url"));
    let mut page = list.ask(prefix, query).await?;
    if page.child("EncodingType").is_some_and(|kind| kind.text == "url") {
        page.change(&NAMES, &|text| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned());
    }
    Ok(page)
}

fn encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, URL_ENCODED)
}

/// Checks that a document is a page of a prefix's listing. Returns whether other pages follow.
fn is_truncated(page: &Element, kind: &str, prefix: &str) -> Result<bool> {
    is_page(page, kind, prefix)?;
    match page.required("IsTruncated")? {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(foreign(&format!("its 'IsTruncated' is '{other}'"))),
    }
}

/// Returns the content of a page, and the token of the next one.
pub(crate) fn read_page(page: &Element, prefix: &str) -> Result<PaginatedListResult> {
    let page_token = if is_truncated(page, "ListBucketResult", prefix)? {
        let token = page.child("NextContinuationToken").map(|token| token.text.clone()).unwrap_or_default();
        if token.is_empty() {
            return Err(foreign("the listing is incomplete and does not say where it continues"));
        }
        Some(token)
    } else {
        None
    };
    let (objects, common_prefixes) = OBJECTS.entries(&page.children, prefix)?;
    let objects = objects.into_iter().map(|(location, entry)| object(location, entry)).collect::<Result<_>>()?;
    Ok(PaginatedListResult {
        result: ListResult { objects, common_prefixes, extensions: Extensions::new() },
        page_token,
    })
}

/// Returns the content of a page of versions and the token of the next page, which consists of this page's last key and
/// version, in the form of a request.
pub(crate) fn read_versions(page: &Element, prefix: &str) -> Result<(Versions, Option<String>)> {
    let is_truncated = is_truncated(page, "ListVersionsResult", prefix)?;
    let (versions, prefixes) = VERSIONS.entries(&page.children, prefix)?;
    let versions = versions.into_iter().map(|(location, entry)| version(location, entry)).collect::<Result<_>>()?;
    let found = Versions { versions, prefixes: prefixes.into_iter().collect() };
    if !is_truncated {
        return Ok((found, None));
    }
    let mut token = format!("key-marker={}", encode(page.required("NextKeyMarker")?));
    if let Some(version) = page.child("NextVersionIdMarker").filter(|version| !version.text.is_empty()) {
        token += &format!("&version-id-marker={}", encode(&version.text));
    }
    Ok((found, Some(token)))
}

/// Reads the description of an object.
fn object(location: Path, entry: &Element) -> Result<ObjectMeta> {
    let invalid = |name: &str| Error::new(ErrorCode::Format, format!("'{name}' of '{location}' is not valid"));
    let last_modified = entry.required("LastModified")?.parse().map_err(|_| invalid("LastModified"))?;
    // A version that is a deletion has none
    let size = if entry.name == "DeleteMarker" { "0" } else { entry.required("Size")? };
    let size = size.parse().map_err(|_| invalid("Size"))?;
    Ok(ObjectMeta { location, last_modified, size, e_tag: None, version: None })
}

fn version(location: Path, entry: &Element) -> Result<Version> {
    let version = Some(entry.required("VersionId")?.to_owned());
    Ok(Version {
        meta: ObjectMeta { version, ..object(location, entry)? },
        is_deletion: entry.name == "DeleteMarker",
        is_latest: entry.child("IsLatest").is_some_and(|latest| latest.text == "true"),
    })
}

#[cfg(test)]
mod tests {
    use object_store::StaticCredentialProvider;
    use object_store::aws::AwsCredential;

    use super::*;
    use crate::storage::http::HttpSettings;
    use crate::storage::http::mock::{answer, server};
    use crate::storage::http::request::Requests;
    use crate::storage::network;
    use crate::storage::object::key;

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
        read_versions(&Element::parse(page.as_bytes())?, "p/")
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

    /// Creates a listing that asks this server.
    fn list_at(address: &str) -> S3List {
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
        S3List { url: format!("{address}/bucket/"), signer, requests: Requests::new(&http).unwrap() }
    }

    #[test]
    fn pages_are_asked_for_one_after_the_other() {
        let last = PAGE.replace("<IsTruncated>true", "<IsTruncated>false");
        let (address, requests) = server(vec![answer(PAGE), answer(&last)]);
        let list = list_at(&address);
        let (mut versions, mut token) = (0, None);
        for _ in 0..2 {
            let page = list.page("p/", token.as_deref());
            let (found, next) = network::handle().unwrap().block_on(page).unwrap();
            (versions, token) = (versions + found.versions.len(), next);
        }
        assert_eq!((token, versions), (None, 4));
        let lines: Vec<_> = requests.iter().map(|request| request.line).collect();
        assert_eq!(
            lines,
            [
                "GET /bucket/?delimiter=%2F&prefix=p%2F&versions=",
                "GET /bucket/?delimiter=%2F&key-marker=p%2Fb&prefix=p%2F&version-id-marker=2&versions="
            ]
        );
    }

    #[test]
    fn name_that_the_server_can_not_show_is_asked_for_in_another_form() {
        let shown = LIST.replace("p/a&amp;b", "p/a\u{fffd}+");
        let encoded = shown.replace("p/", "p%2F").replace("a\u{fffd}+", "a+%01%2B");
        let encoded = encoded.replace("<IsTruncated>", "<EncodingType>url</EncodingType><IsTruncated>");
        // A server other than S3 may not support the encoding
        for (again, expected) in [(encoded, "p/a \u{1}+"), (shown.clone(), "p/a\u{fffd}+")] {
            let (address, requests) = server(vec![answer(&shown), answer(&again)]);
            let options = PaginatedListOptions { delimiter: Some("/".into()), ..PaginatedListOptions::default() };
            let list = list_at(&address);
            let page = network::handle().unwrap().block_on(list.list_paginated(Some("p/"), options)).unwrap();
            let names: Vec<_> = page.result.objects.iter().map(|found| key::name(&found.location)).collect();
            assert_eq!(names, [expected]);
            assert_eq!(page.result.common_prefixes, [Path::from("p/d")]);
            let lines: Vec<_> = requests.iter().map(|request| request.line).collect();
            let query = "GET /bucket/?delimiter=%2F";
            let expected = [
                format!("{query}&list-type=2&prefix=p%2F"),
                format!("{query}&encoding-type=url&list-type=2&prefix=p%2F"),
            ];
            assert_eq!(lines, expected);
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
            ("ListVersionsResult", "ListBucketResult"),
            ("<IsTruncated>true", "<Prefix>q/</Prefix><IsTruncated>true"),
            ("<IsTruncated>true</IsTruncated>", ""),
        ] {
            assert_eq!(read(&PAGE.replace(text, bad)).err().map(|error| error.code), Some(ErrorCode::Format), "{bad}");
        }
    }

    const LIST: &str = "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix>p/</Prefix>\
        <IsTruncated>false</IsTruncated><Contents><Key>p/</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>0</Size>\
        </Contents><Contents><Key>p/a&amp;b</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>7</Size></Contents>\
        <Contents><Key>p/x//y</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><Size>7</Size></Contents>\
        <CommonPrefixes><Prefix>p/d/</Prefix></CommonPrefixes><CommonPrefixes><Prefix>p//</Prefix></CommonPrefixes></ListBucketResult>";

    fn list(page: &str) -> Result<PaginatedListResult> {
        read_page(&Element::parse(page.as_bytes())?, "p/")
    }

    #[test]
    fn foreign_key_in_a_listing_is_passed_over() {
        let page = list(LIST).unwrap();
        let names: Vec<&str> = page.result.objects.iter().map(|object| object.location.as_ref()).collect();
        assert_eq!((names, page.result.objects[0].size), (vec!["p/a&b"], 7));
        assert_eq!(page.result.common_prefixes, [Path::from("p/d")]);
        assert_eq!(page.page_token, None);
    }

    #[test]
    fn document_that_is_no_page_of_this_listing_is_no_empty_listing() {
        for page in [
            "<html><body>login</body></html>".to_owned(),
            "<Error><Code>InternalError</Code></Error>".to_owned(),
            "<ListBucketResult></ListBucketResult>".to_owned(),
            LIST.replace("ListBucketResult", "ListVersionsResult"),
            LIST.replace("<Prefix>p/</Prefix>", "<Prefix>q/</Prefix>"),
            LIST.replace(">false<", ">maybe<"),
            LIST.replace(">false<", ">true<"),
            LIST.replace("<IsTruncated>false<", "<NextContinuationToken></NextContinuationToken><IsTruncated>true<"),
            LIST.replace("p/a&amp;b", "q/a"),
            LIST[..LIST.len() - 30].to_owned(),
            "login".to_owned(),
            String::new(),
        ] {
            assert_eq!(list(&page).err().map(|error| error.code), Some(ErrorCode::Format), "{page}");
        }
        let token = "<IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>";
        let page = list(&LIST.replace("<IsTruncated>false</IsTruncated>", token)).unwrap();
        assert_eq!(page.page_token.as_deref(), Some("x"));
    }
}
