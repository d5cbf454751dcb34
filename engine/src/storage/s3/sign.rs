//! Signatures (AWS Signature Version 4). `object_store` cannot sign for services other than `s3`, requests to another
//! host than the one they are addressed to, and requests that it does not know.

use std::fmt;
use std::fmt::Write as _;

use ::http::Method;
use ::http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use ::http::uri::Uri;
use aws_lc_rs::{digest, hmac};
use jiff::Timestamp;
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use object_store::client::HttpRequest;
use percent_encoding::{percent_decode_str, utf8_percent_encode};

use crate::storage::http::URL_ENCODED;
use crate::storage::http::checked::{CONTENT_MD5, body_parts, md5_header};
use crate::{Error, ErrorCode, Result};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const CONTENT_HASH: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const REQUEST_PAYER: HeaderName = HeaderName::from_static("x-amz-request-payer");
/// SHA-256 of nothing.
const EMPTY_HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Signs requests with the current credentials.
pub(super) struct Signer {
    pub credentials: AwsCredentialProvider,
    pub region: String,
    /// The service's name, part of the signature.
    pub service: String,
    /// The host that requests are addressed to, if it differs from that of their URL.
    pub host: Option<String>,
    pub requester_pays: bool,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("service", &self.service).field("host", &self.host).finish_non_exhaustive()
    }
}

impl Signer {
    /// Adds the checksums of the body and a signature, and replaces existing ones.
    ///
    /// # Errors
    /// There are no credentials, or a header can't be signed.
    pub(super) async fn sign(&self, request: &mut HttpRequest) -> object_store::Result<()> {
        let credential = self.credentials.get_credential().await?;
        let signed = match add_checksums(request).await {
            Ok(()) => self.sign_at(request, &credential, Timestamp::now()),
            Err(error) => Err(error),
        };
        signed.map_err(|error| object_store::Error::Generic { store: "S3", source: error.into() })
    }

    fn sign_at(&self, request: &mut HttpRequest, credential: &AwsCredential, now: Timestamp) -> Result<()> {
        let host = self.host.clone().unwrap_or_else(|| host_of(request.uri()));
        let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let date = now.strftime("%Y%m%d").to_string();
        let query = canonical_query(request.uri());
        let path = request.uri().path().to_owned();
        let method = request.method().clone();
        let headers = request.headers_mut();
        headers.remove(AUTHORIZATION);
        headers.insert(HOST, value(&host)?);
        headers.insert(DATE, value(&time)?);
        if let Some(token) = &credential.token {
            headers.insert(TOKEN, value(token)?);
        }
        if self.requester_pays {
            headers.insert(REQUEST_PAYER, HeaderValue::from_static("requester"));
        }
        let content_hash = match headers.get(CONTENT_HASH) {
            Some(hash) => text(hash)?.to_owned(),
            None => {
                headers.insert(CONTENT_HASH, HeaderValue::from_static(EMPTY_HASH));
                EMPTY_HASH.to_owned()
            }
        };
        let (names, lines) = canonical_headers(headers)?;
        let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{content_hash}");
        let scope = format!("{date}/{}/{}/aws4_request", self.region, self.service);
        let hash = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let signature = self.signature(credential, &date, &format!("{ALGORITHM}\n{time}\n{scope}\n{hash}"));
        let key = &credential.key_id;
        let authorization =
            format!("{ALGORITHM} Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}");
        headers.insert(AUTHORIZATION, value(&authorization)?);
        Ok(())
    }

    fn signature(&self, credential: &AwsCredential, date: &str, text: &str) -> String {
        let sign = |key: &[u8], data: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data.as_bytes());
        let key = sign(format!("AWS4{}", credential.secret_key).as_bytes(), date);
        let key = sign(key.as_ref(), &self.region);
        let key = sign(key.as_ref(), &self.service);
        let key = sign(key.as_ref(), "aws4_request");
        hex(sign(key.as_ref(), text).as_ref())
    }
}

/// Adds the checksum that is part of the signature. For objects to store it also adds the checksum that pgBackRest
/// sends, which buckets with object locks require.
async fn add_checksums(request: &mut HttpRequest) -> Result<()> {
    let parts = body_parts(request).await;
    let mut sha256 = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| sha256.update(part));
    let is_upload = *request.method() == Method::PUT || parts.iter().any(|part| !part.is_empty());
    let md5 = if is_upload && !request.headers().contains_key(CONTENT_MD5) { Some(md5_header(&parts)?) } else { None };
    let headers = request.headers_mut();
    headers.insert(CONTENT_HASH, value(&hex(sha256.finish().as_ref()))?);
    headers.extend(md5.map(|md5| (CONTENT_MD5, md5)));
    Ok(())
}

/// Returns host and port of a URL. The port that its scheme implies is omitted, as clients do.
fn host_of(uri: &Uri) -> String {
    let implied = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let host = uri.host().unwrap_or_default();
    match uri.port_u16().filter(|port| *port != implied) {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Returns the parameters in canonical form: decoded, strictly encoded, sorted.
fn canonical_query(uri: &Uri) -> String {
    let strict = |part: &str| {
        let spaced = part.replace('+', " ");
        utf8_percent_encode(&percent_decode_str(&spaced).decode_utf8_lossy(), URL_ENCODED).to_string()
    };
    let mut parameters: Vec<(String, String)> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            (strict(key), strict(value))
        })
        .collect();
    parameters.sort_unstable();
    let parameters: Vec<String> = parameters.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    parameters.join("&")
}

/// Returns the names of the signed headers and the headers themselves, both sorted and in canonical form.
fn canonical_headers(headers: &HeaderMap) -> Result<(String, String)> {
    let mut names: Vec<&HeaderName> =
        headers.keys().filter(|name| ![AUTHORIZATION, CONTENT_LENGTH, USER_AGENT].contains(name)).collect();
    names.sort_unstable_by_key(|name| name.as_str());
    let mut lines = String::new();
    for name in &names {
        let values = headers.get_all(*name).iter().map(|value| {
            let words: Vec<&str> = text(value)?.split_whitespace().collect();
            Ok(words.join(" "))
        });
        let values: Vec<String> = values.collect::<Result<_>>()?;
        // Writing to a String can't fail
        let _ = writeln!(lines, "{name}:{}", values.join(","));
    }
    let names: Vec<&str> = names.into_iter().map(HeaderName::as_str).collect();
    Ok((names.join(";"), lines))
}

fn value(text: &str) -> Result<HeaderValue> {
    // The text is not shown: it may be a secret
    HeaderValue::from_str(text)
        .map_err(|_| Error::new(ErrorCode::Format, "a credential or option can't be sent: it has control characters"))
}

fn text(value: &HeaderValue) -> Result<&str> {
    value
        .to_str()
        .map_err(|_| Error::new(ErrorCode::Format, "a header with other than ASCII characters can't be signed"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String can't fail
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::StaticCredentialProvider;
    use object_store::client::HttpRequestBody;

    use super::*;

    fn signer(service: &str) -> Signer {
        Signer {
            credentials: Arc::new(StaticCredentialProvider::new(credential())),
            region: "us-east-1".into(),
            service: service.into(),
            host: None,
            requester_pays: false,
        }
    }

    /// The credential of the examples in the documentation of S3.
    fn credential() -> AwsCredential {
        AwsCredential {
            key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            token: None,
        }
    }

    fn get(url: &str) -> HttpRequest {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.uri_mut() = url.parse().unwrap();
        request
    }

    fn signed(signer: &Signer, request: &mut HttpRequest) -> String {
        signer.sign_at(request, &credential(), "2013-05-24T00:00:00Z".parse().unwrap()).unwrap();
        request.headers()[AUTHORIZATION].to_str().unwrap().to_owned()
    }

    #[test]
    fn signatures_are_those_of_the_documentation() {
        let mut request = get("https://examplebucket.s3.amazonaws.com/test.txt");
        request.headers_mut().insert("range", HeaderValue::from_static("bytes=0-9"));
        assert_eq!(
            signed(&signer("s3"), &mut request),
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, \
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        for (url, signature) in [
            ("/?max-keys=2&prefix=J", "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
            ("/?lifecycle", "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        ] {
            let authorization =
                signed(&signer("s3"), &mut get(&format!("https://examplebucket.s3.amazonaws.com{url}")));
            assert!(authorization.ends_with(signature), "{url}: {authorization}");
        }
    }

    #[test]
    fn signature_names_the_service_and_the_addressed_host() {
        let mut outposts = signer("s3-outposts");
        outposts.host = Some("bucket.example.com".into());
        outposts.requester_pays = true;
        let mut request = get("https://127.0.0.1:9000/a%20b");
        let authorization = signed(&outposts, &mut request);
        assert!(authorization.contains("/us-east-1/s3-outposts/aws4_request, "), "{authorization}");
        assert!(authorization.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-request-payer,"));
        assert_eq!(request.headers()[HOST], "bucket.example.com");
        // Signing again replaces the signature
        assert_eq!(signed(&outposts, &mut request), authorization);
        assert_eq!(request.headers().get_all(AUTHORIZATION).iter().count(), 1);
    }

    #[test]
    fn implied_ports_are_not_signed() {
        let host = |url: &str| host_of(&url.parse().unwrap());
        assert_eq!(host("https://a.b:443/x"), "a.b");
        assert_eq!(host("http://a.b:443/x"), "a.b:443");
        assert_eq!(host("https://[::1]:9/x"), "[::1]:9");
    }

    #[test]
    fn queries_have_one_form() {
        let query = |url: &str| canonical_query(&url.parse().unwrap());
        assert_eq!(query("http://h/?versions&prefix=a/b%3D&delimiter=%2f"), "delimiter=%2F&prefix=a%2Fb%3D&versions=");
        assert_eq!(query("http://h/?a=x+y%2B"), "a=x%20y%2B");
        assert_eq!(query("http://h/"), "");
    }
}
