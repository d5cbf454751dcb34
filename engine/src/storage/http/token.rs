//! Tokens that expire: kept until shortly before, and then asked for again.

use std::future::Future;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::sync::Mutex;

use crate::{Error, ErrorCode, Result};

/// A token and when a new one is needed (`None`: never).
pub(crate) struct Token<T> {
    pub(crate) value: T,
    pub(crate) renew_at: Option<SystemTime>,
}

/// The token of a store, shared by all requests.
pub(crate) struct Kept<T>(Mutex<Option<Token<T>>>);

impl<T: Clone> Kept<T> {
    pub(crate) fn new() -> Self {
        Kept(Mutex::new(None))
    }

    /// The token; `ask` gets one where there is none that will do. Whoever comes while one is on its way waits for it.
    pub(crate) async fn get<E>(
        &self,
        ask: impl Future<Output = std::result::Result<Token<T>, E>>,
    ) -> std::result::Result<T, E> {
        let mut current = self.0.lock().await;
        if let Some(token) = &*current
            && token.renew_at.is_none_or(|at| SystemTime::now() < at)
        {
            return Ok(token.value.clone());
        }
        let token = ask.await?;
        let value = token.value.clone();
        *current = Some(token);
        Ok(value)
    }
}

/// When a token has to be exchanged: as long before `expires_in` of the answer as requests may be tried again with it.
pub(crate) fn renew_at(answer: &Value, asked_at: SystemTime, io_timeout: Duration) -> Result<SystemTime> {
    let expires_in = answer.get("expires_in");
    let seconds = expires_in.and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
    seconds
        .and_then(|seconds| asked_at.checked_add(Duration::from_secs(seconds).saturating_sub(io_timeout * 2)))
        .ok_or_else(|| missing("expiry"))
}

/// The error for an answer or a file that lacks something.
pub(crate) fn missing(what: &str) -> Error {
    Error::new(ErrorCode::Format, format!("{what} missing"))
}
