//! The meaning of "404 Not Found": the object is missing, the bucket is missing, or another server answers.
//!
//! Google says `No such object: BUCKET/OBJECT` in the first case, and in the second that the bucket does not exist.
//! Emulators say the same in both cases, each in its own words. There a listing distinguishes them. Only a page, such as
//! that of a gateway, is refused at once.

use std::sync::atomic::Ordering;

use ::http::Method;

use super::api::{Api, ApiCall};
use super::list::Page;
use crate::storage::http::foreign::foreign;
use crate::storage::http::request::{Failure, json};

/// Google's text for a missing object. The object's name follows.
const NO_OBJECT: &str = "No such object";

impl Api {
    /// Returns whether a failure means that the object is missing.
    ///
    /// # Errors
    /// The bucket is missing, or the answer is not the store's.
    pub(super) async fn is_missing(&self, failure: &Failure) -> Result<bool, Failure> {
        let refusal = match failure {
            Failure::Refused(refusal) if failure.is_missing() => refusal,
            _ => return Ok(false),
        };
        let said = refusal.said();
        if said.starts_with(NO_OBJECT) {
            return Ok(true);
        }
        if said.contains("bucket") {
            return Ok(false);
        }
        if said.starts_with('<') {
            return Err(foreign(&refusal.to_string()).into());
        }
        if !self.has_bucket.load(Ordering::Relaxed) {
            let query = [("fields", "kind"), ("maxResults", "1")];
            let answer = self.send_any(ApiCall::new(Method::GET, self.object_path(None), &query)).await?;
            if !answer.status().is_success() {
                return Err(Failure::of(&answer));
            }
            Page::of(json(&answer)?)?;
            self.has_bucket.store(true, Ordering::Relaxed);
        }
        Ok(true)
    }
}
