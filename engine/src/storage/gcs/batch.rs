//! Many deletes in one request.

use std::collections::BTreeSet;
use std::fmt::Write;

use ::http::{Method, header};
use object_store::path::Path;

use super::api::{Api, ApiCall};
use super::{boundary, multipart_type};
use crate::storage::http::multipart;
use crate::storage::http::request::{Answer, Failure};

/// The maximum number of requests that the server accepts at once.
pub(super) const SIZE_MAX: usize = 100;

/// Deletes up to [`SIZE_MAX`] objects. Missing objects count as deleted. Deletes individually what the batch does not
/// confirm.
pub(super) async fn delete(api: &Api, locations: &[Path]) -> Result<(), Failure> {
    let done = if locations.len() > 1 { send(api, locations).await? } else { BTreeSet::new() };
    for (_, location) in locations.iter().enumerate().filter(|(at, _)| !done.contains(at)) {
        api.send(ApiCall::new(Method::DELETE, api.object_path(Some(location)), &[])).await?;
    }
    Ok(())
}

/// Sends a batch. Returns the positions of the deleted objects.
async fn send(api: &Api, locations: &[Path]) -> Result<BTreeSet<usize>, Failure> {
    let boundary = boundary()?;
    let mut body = String::new();
    for (at, location) in locations.iter().enumerate() {
        let target = api.target(&api.object_path(Some(location)), &[]);
        // Writing to a string can't fail
        let _ = write!(
            body,
            "--{boundary}\r\ncontent-type: application/http\r\ncontent-transfer-encoding: binary\r\ncontent-id: {at}\r\n\r\n\
             DELETE {target} HTTP/1.1\r\ncontent-length: 0\r\n\r\n"
        );
    }
    let _ = write!(body, "--{boundary}--\r\n");
    let mut call = ApiCall::new(Method::POST, "/batch/storage/v1".to_owned(), &[]);
    call.headers.insert(header::CONTENT_TYPE, multipart_type("mixed", &boundary)?);
    call.body = Some(body.into());
    Ok(confirmed(&api.send(call).await?))
}

/// The positions that an answer confirms.
fn confirmed(answer: &Answer) -> BTreeSet<usize> {
    let parts = multipart::parts(answer.headers(), answer.body());
    parts.into_iter().filter(|part| part.is_success() || part.status == 404).filter_map(|part| part.id).collect()
}
