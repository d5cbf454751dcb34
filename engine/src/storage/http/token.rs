//! Tokens that expire. They are kept until shortly before they expire and then requested again.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::sync::Mutex;

use super::request::Failure;
use crate::{Error, ErrorCode, Result};

/// After a failed renewal, a token is requested again after this time, as long as the previous token is valid.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// How long a token lasts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenValidity {
    /// When to request a new token.
    pub(crate) renew_at: SystemTime,
    /// When this token becomes unusable.
    pub(crate) expires_at: SystemTime,
}

/// A token.
pub(crate) struct Token<T> {
    pub(crate) value: T,
    /// `None` for a token that never expires.
    pub(crate) validity: Option<TokenValidity>,
}

/// The token of a store, shared by all requests.
pub(crate) struct Kept<T> {
    current: Mutex<Current<T>>,
    /// The number of completed attempts, successful or not.
    attempts: AtomicU64,
}

/// The token, and the failure of the last attempt to renew it, if it failed.
struct Current<T> {
    token: Option<Token<T>>,
    failure: Option<Failure>,
}

impl<T: Clone> Kept<T> {
    pub(crate) fn new() -> Self {
        Kept { current: Mutex::new(Current { token: None, failure: None }), attempts: AtomicU64::new(0) }
    }

    /// Returns the token; `ask` requests a new one if there is none or it must be renewed. Concurrent callers wait for
    /// the same request and share its failure. As long as the previous token is valid, it is used instead.
    pub(crate) async fn get(
        &self,
        ask: impl Future<Output = std::result::Result<Token<T>, Failure>>,
    ) -> std::result::Result<T, Failure> {
        let attempts = self.attempts.load(Ordering::Relaxed);
        let mut current = self.current.lock().await;
        if let Some(token) = &current.token
            && token.validity.is_none_or(|validity| SystemTime::now() < validity.renew_at)
        {
            return Ok(token.value.clone());
        }
        if let Some(failure) = &current.failure
            && self.attempts.load(Ordering::Relaxed) != attempts
        {
            return Err(failure.again());
        }
        let asked = ask.await;
        self.attempts.fetch_add(1, Ordering::Relaxed);
        match (asked, &mut current.token) {
            (Ok(token), _) => {
                let value = token.value.clone();
                *current = Current { token: Some(token), failure: None };
                Ok(value)
            }
            (Err(failure), Some(Token { value, validity: Some(validity) }))
                if SystemTime::now() < validity.expires_at =>
            {
                crate::debug!("unable to renew the token in use, will be retried: {failure}");
                validity.renew_at = SystemTime::now() + ASK_AGAIN;
                Ok(value.clone())
            }
            (Err(failure), _) => {
                current.failure = Some(failure.again());
                Err(failure)
            }
        }
    }
}

/// Returns how long a token lasts. It is renewed as long before the `expires_in` of the answer as requests may be
/// retried with it.
pub(crate) fn validity(answer: &Value, asked_at: SystemTime, io_timeout: Duration) -> Result<TokenValidity> {
    let expires_in = answer.get("expires_in");
    let seconds = expires_in.and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
    let validity = seconds.map(Duration::from_secs).and_then(|lasts| {
        let expires_at = asked_at.checked_add(lasts)?;
        let renew_at = asked_at.checked_add(lasts.saturating_sub(io_timeout * 2))?;
        Some(TokenValidity { renew_at, expires_at })
    });
    validity.ok_or_else(|| missing("expiry"))
}

/// The error for an answer or a file that lacks something.
pub(crate) fn missing(what: &str) -> Error {
    Error::new(ErrorCode::Format, format!("{what} missing"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::network;

    fn token(value: u32, renews_in: i64, expires_in: u64) -> Token<u32> {
        let now = SystemTime::now();
        let seconds = Duration::from_secs(renews_in.unsigned_abs());
        let renew_at = if renews_in < 0 { now - seconds } else { now + seconds };
        Token { value, validity: Some(TokenValidity { renew_at, expires_at: now + Duration::from_secs(expires_in) }) }
    }

    fn refused() -> Failure {
        Error::new(ErrorCode::Service, "refused").into()
    }

    #[test]
    fn token_that_cannot_be_renewed_is_used_until_it_expires() {
        network::handle().unwrap().block_on(async {
            let kept = Kept::new();
            assert_eq!(kept.get(async { Ok(token(1, -1, 60)) }).await.ok(), Some(1));
            assert_eq!(kept.get(async { Err(refused()) }).await.ok(), Some(1));
            // And nobody is asked for a while
            assert_eq!(kept.get(async { panic!("asked") }).await.ok(), Some(1));
            let kept = Kept::new();
            assert_eq!(kept.get(async { Ok(token(1, -1, 0)) }).await.ok(), Some(1));
            assert!(kept.get(async { Err(refused()) }).await.is_err());
            assert_eq!(kept.get(async { Ok(token(2, 60, 60)) }).await.ok(), Some(2));
        });
    }

    #[test]
    fn who_waits_for_a_token_shares_the_failure_to_have_one() {
        network::handle().unwrap().block_on(async {
            let (kept, asked) = (Kept::<u32>::new(), AtomicU64::new(0));
            let get = || {
                kept.get(async {
                    asked.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    Err(refused())
                })
            };
            let (first, second, third) = tokio::join!(get(), get(), get());
            for failure in [first, second, third] {
                assert!(matches!(failure, Err(Failure::Other(error)) if error.message == "refused"));
            }
            assert_eq!(asked.load(Ordering::Relaxed), 1);
            assert!(get().await.is_err());
            assert_eq!(asked.load(Ordering::Relaxed), 2);
        });
    }
}
