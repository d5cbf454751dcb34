//! Waits as long as a busy server asks for (`Retry-After`).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ::http::header::RETRY_AFTER;
use ::http::{Response, StatusCode};
use jiff::fmt::rfc2822;

/// When a server wants to be asked again. Applies to all requests to the server, because any of them would keep it
/// busy.
#[derive(Debug)]
pub(super) struct Patience {
    /// No request waits for a server that has been busy for longer.
    limit: Duration,
    busy: Mutex<Option<Busy>>,
}

#[derive(Clone, Copy, Debug)]
struct Busy {
    since: Instant,
    until: Instant,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Patience { limit, busy: Mutex::new(None) }
    }

    /// Waits until the server may be asked.
    pub(super) async fn wait(&self) {
        if let Some(until) = self.until() {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    fn until(&self) -> Option<Instant> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).map(|busy| busy.until)
    }

    /// Records an answer.
    pub(super) fn note<B>(&self, answer: &Response<B>) {
        let is_busy = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&answer.status());
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_busy {
            *busy = None;
            return;
        }
        let Some(pause) = asked_pause(answer) else { return };
        let now = Instant::now();
        let since = busy.map_or(now, |busy| busy.since);
        // A server that wants more time than there is gets the usual pauses
        let until = now.checked_add(pause).filter(|until| *until <= since + self.limit);
        *busy = Some(Busy { since, until: until.unwrap_or(now) });
    }
}

/// The pause in an answer: seconds, or a time.
fn asked_pause<B>(answer: &Response<B>) -> Option<Duration> {
    let text = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = SystemTime::from(rfc2822::parse(text).ok()?.timestamp());
    Some(time.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: &str) -> Response<()> {
        Response::builder().status(status).header(RETRY_AFTER, retry_after).body(()).unwrap()
    }

    #[test]
    fn busy_server_is_asked_again_when_it_says() {
        let patience = Patience::new(Duration::from_secs(60));
        assert!(patience.until().is_none());
        let before = Instant::now();
        patience.note(&answer(503, "20"));
        let until = patience.until().unwrap();
        assert!(until >= before + Duration::from_secs(20) && until <= Instant::now() + Duration::from_secs(20));
        patience.note(&answer(200, "20"));
        assert!(patience.until().is_none());
    }

    #[test]
    fn busy_server_that_asks_for_more_than_the_time_limit_is_not_waited_for() {
        let patience = Patience::new(Duration::from_secs(60));
        for asked in ["61", "18446744073709551615", "Fri, 01 Jan 2100 00:00:00 GMT"] {
            patience.note(&answer(429, asked));
            assert!(patience.until().unwrap() <= Instant::now(), "{asked}");
        }
        // All pauses together count
        patience.busy.lock().unwrap().as_mut().unwrap().since -= Duration::from_secs(50);
        patience.note(&answer(429, "20"));
        assert!(patience.until().unwrap() <= Instant::now());
    }

    #[test]
    fn pause_is_given_in_seconds_or_as_a_time() {
        assert_eq!(asked_pause(&answer(503, " 7 ")), Some(Duration::from_secs(7)));
        assert_eq!(asked_pause(&answer(503, "Thu, 01 Jan 2026 00:00:00 GMT")), Some(Duration::ZERO));
        for bad in ["", "-1", "soon"] {
            assert_eq!(asked_pause(&answer(503, bad)), None, "{bad}");
        }
    }
}
