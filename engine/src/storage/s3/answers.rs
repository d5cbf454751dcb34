//! Checks answers of S3 and compatible servers, and completes requests to them.

use std::collections::BTreeSet;

use ::http::Method;
use ::http::header::HeaderMap;
use ::http::response::Parts;
use base64::prelude::{BASE64_STANDARD, Engine};
use md5::{Digest, Md5};
use object_store::client::HttpRequest;

use super::sign::Signer;
use crate::storage::http::checked::{
    Asked, CONTENT_MD5, Completion, Store, Wrong, describes_object, header, is_empty, is_status, not_html,
};
use crate::storage::http::foreign::foreign;
use crate::storage::http::xml::Element;
use crate::{Error, ErrorCode, Result};

/// The server's encryption, with which an ETag may not be a checksum.
const ENCRYPTION: &str = "x-amz-server-side-encryption";
const CUSTOMER_ENCRYPTION: &str = "x-amz-server-side-encryption-customer-algorithm";
/// Failures that the server reports in a success, because it had started to answer before it knew.
const PASSING: [&str; 3] = ["InternalError", "ServiceUnavailable", "SlowDown"];

/// The store behind the requests of one bucket.
#[derive(Debug)]
pub(super) struct S3Store {
    pub(super) signer: std::sync::Arc<Signer>,
}

#[async_trait::async_trait]
impl Store for S3Store {
    async fn prepare(&self, request: &mut HttpRequest) -> object_store::Result<()> {
        self.signer.sign(request).await
    }

    fn check(&self, asked: &Asked, head: &Parts, body: Option<&[u8]>) -> std::result::Result<(), Wrong> {
        match &asked.method {
            &Method::HEAD | &Method::GET => Ok(describes_object(asked, head)?),
            &Method::PUT => Ok(stored(asked, head, body)?),
            &Method::DELETE => {
                is_status(head, &[204, 200])?;
                not_html(&head.headers)?;
                Ok(is_empty(body)?)
            }
            _ => {
                is_status(head, &[200])?;
                let document = Element::parse(body.unwrap_or_default()).map_err(|error| foreign(&error.message))?;
                if is_passing(&document) {
                    return Err(Wrong::Passing);
                }
                Ok(posted(asked, &document)?)
            }
        }
    }

    fn completes(&self, asked: &Asked) -> Option<Completion> {
        if asked.method != Method::POST || asked.parameter("uploadId").is_none() {
            return None;
        }
        let tag = tag_of_parts(&Element::parse(asked.body.as_deref()?).ok()?)?;
        let answer = format!(
            "<CompleteMultipartUploadResult><ETag>{tag}</ETag></CompleteMultipartUploadResult>",
            tag = quick_xml::escape::escape(&tag)
        );
        Some(Completion { tag, answer: answer.into() })
    }
}

/// Returns the ETag of an object that consists of parts: the MD5 of their MD5s, and their number. Returns `None` if a
/// part has no ETag.
fn tag_of_parts(upload: &Element) -> Option<String> {
    let (mut md5, mut count) = (Md5::new(), 0);
    for part in upload.children_named("Part") {
        md5.update(checksum(&part.child("ETag")?.text)?);
        count += 1;
    }
    let digits: String = md5.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    (count > 0).then(|| format!("\"{digits}-{count}\""))
}

/// Returns whether a success reports a temporary failure.
fn is_passing(document: &Element) -> bool {
    let code = document.child("Code").map_or("", |code| code.text.as_str());
    document.name == "Error" && PASSING.contains(&code)
}

/// Checks that an object or a part of one was stored as it was sent.
fn stored(asked: &Asked, head: &Parts, body: Option<&[u8]>) -> Result<()> {
    is_status(head, &[200])?;
    not_html(&head.headers)?;
    is_empty(body)?;
    let tag = header(&head.headers, "etag").ok_or_else(|| foreign("it has no ETag"))?;
    let Some(found) = checksum(tag).filter(|_| !is_encrypted(&asked.headers) && !is_encrypted(&head.headers)) else {
        return Ok(());
    };
    let Some(sent) = asked.headers.get(CONTENT_MD5).and_then(|md5| BASE64_STANDARD.decode(md5).ok()) else {
        return Ok(());
    };
    if sent == found {
        return Ok(());
    }
    let text = format!("the server stored something else than was sent: its ETag is {tag}");
    Err(Error::new(ErrorCode::Checksum, text).hint("does a gateway or a proxy change the data?"))
}

/// Returns whether the server encrypts in a way in which ETags are not checksums.
fn is_encrypted(headers: &HeaderMap) -> bool {
    let encryption = header(headers, ENCRYPTION).is_some_and(|kind| kind != "AES256");
    encryption || headers.contains_key(CUSTOMER_ENCRYPTION)
}

/// The MD5 that an ETag is, unless it has another form.
fn checksum(tag: &str) -> Option<Vec<u8>> {
    let digits = tag.trim().strip_prefix("W/").unwrap_or(tag.trim()).trim_matches('"');
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    (0..16).map(|at| u8::from_str_radix(&digits[at * 2..at * 2 + 2], 16).ok()).collect()
}

/// An upload was begun or completed, or objects were removed.
fn posted(asked: &Asked, document: &Element) -> Result<()> {
    let has = |name: &str| match document.child(name) {
        Some(child) if !child.text.trim().is_empty() => Ok(()),
        _ => Err(foreign(&format!("its '{name}' is missing"))),
    };
    if asked.parameter("uploads").is_some() {
        document.expect("InitiateMultipartUploadResult")?;
        has("UploadId")
    } else if asked.parameter("uploadId").is_some() {
        document.expect("CompleteMultipartUploadResult")?;
        has("ETag")
    } else if asked.parameter("delete").is_some() {
        document.expect("DeleteResult")?;
        removed(asked, document)
    } else {
        Err(Error::new(ErrorCode::Assert, "an answer to an unknown request"))
    }
}

/// Checks that the answer reports every object of a removal, and no other.
fn removed(asked: &Asked, document: &Element) -> Result<()> {
    let request = Element::parse(asked.body.as_deref().unwrap_or_default())?;
    let keys = |parent: &Element, name: &str| -> Result<BTreeSet<String>> {
        parent.children_named(name).map(|entry| entry.required("Key").map(str::to_owned)).collect()
    };
    let wanted = keys(&request, "Object")?;
    let mut told = keys(document, "Deleted")?;
    told.extend(keys(document, "Error")?);
    if wanted == told {
        return Ok(());
    }
    let text = match told.difference(&wanted).next() {
        Some(other) => format!("it tells of '{other}', which was not to be removed"),
        None => format!("it tells of {} of {} object(s) that were to be removed", told.len(), wanted.len()),
    };
    Err(foreign(&text))
}
