//! What "404 Not Found" means: that there is no such object, that there is no bucket, or that somebody else answers.
//!
//! Google says `No such object: BUCKET/OBJECT` of the one and that the bucket does not exist of the other. Its emulators say the
//! same of both; there a listing tells.

use std::sync::atomic::Ordering;

use ::http::Method;

use super::api::{Api, Call};
use super::list::Page;
use crate::storage::http::checked::foreign;
use crate::storage::http::request::{Failure, json};

/// What Google says of an object that is not there. The object's name follows.
const NO_OBJECT: &str = "No such object";
/// What emulators say of anything that is not there.
const NOTHING: &str = "Not Found";

impl Api {
    /// Whether a failure says that there is no such object.
    ///
    /// # Errors
    /// It says that there is no bucket, or something that is not the store's.
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
        if !said.eq_ignore_ascii_case(NOTHING) {
            return Err(foreign(&refusal.to_string()).into());
        }
        if !self.has_bucket.load(Ordering::Relaxed) {
            let query = [("fields", "kind"), ("maxResults", "1")];
            let answer = self.send_any(Call::new(Method::GET, self.object_path(None), &query)).await?;
            if !answer.status().is_success() {
                return Err(Failure::of(&answer));
            }
            Page::of(json(&answer)?)?;
            self.has_bucket.store(true, Ordering::Relaxed);
        }
        Ok(true)
    }
}
