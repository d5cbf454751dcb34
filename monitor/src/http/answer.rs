//! The answer to a request.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::header::{REFERRER_POLICY, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use hyper::{Method, Request, Response, StatusCode};

use super::Rules;
use crate::compat;
use crate::files::MonitorFile;
use crate::page::STYLE;
use crate::text::{self, Metric, Metrics};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The age of the other metrics, which only the server knows.
pub const AGE: Metric =
    Metric { name: "rbr_collect_age_seconds", help: "Seconds since the other metrics were collected." };

type Answer = Response<Full<Bytes>>;

/// Returns the answer to a request.
pub(super) fn answer<B>(request: &Request<B>, rules: &Rules) -> Answer {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed\n");
        return with(answer, ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    if rules.access.is_foreign(request.headers()) {
        return plain(
            StatusCode::MISDIRECTED_REQUEST,
            "this server answers to addresses and localhost only, unless it has a token or asks for certificates\n",
        );
    }
    let path = request.uri().path();
    if path == "/healthz" {
        return health(rules);
    }
    if !rules.access.is_authorized(request.headers()) {
        let answer = plain(StatusCode::UNAUTHORIZED, "a bearer token is required\n");
        return with(answer, WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    match path {
        "/" => file(rules, MonitorFile::Page, HTML),
        "/metrics" => metrics(rules, accept),
        "/api/v1/status" => file(rules, MonitorFile::Snapshot, JSON),
        "/api/v1/stanzas" => file(rules, MonitorFile::Stanzas, JSON),
        "/api/v1/jobs" => file(rules, MonitorFile::Jobs, JSON),
        "/api/v1/info" => file(rules, MonitorFile::Info, JSON),
        _ => plain(StatusCode::NOT_FOUND, "there is no such page\n"),
    }
}

fn file(rules: &Rules, file: MonitorFile, kind: &'static str) -> Answer {
    if let Some(age) = too_old(rules) {
        return old(age);
    }
    match file.read(&rules.directory) {
        Ok(Some(content)) => response(StatusCode::OK, kind, content.into()),
        Ok(None) => not_yet(),
        // Its text names a path
        Err(error) => {
            engine::warn!("{error}");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "the file can't be read\n")
        }
    }
}

fn metrics(rules: &Rules, accept: &str) -> Answer {
    let kind = if accept.contains("application/openmetrics-text") { OPEN_METRICS } else { PROMETHEUS };
    let Some(age) = age(rules) else { return not_yet() };
    let mut own = Metrics::default();
    own.set(AGE, [], age.as_secs_f64().round());
    let mut body = if too_old(rules).is_some() {
        // Values that do not change any more would hide what is wrong
        compat::add_failure(&mut own);
        Vec::new()
    } else {
        match MonitorFile::Metrics.read(&rules.directory) {
            Ok(content) => content.unwrap_or_default(),
            Err(error) => {
                engine::warn!("{error}");
                return plain(StatusCode::INTERNAL_SERVER_ERROR, "the file can't be read\n");
            }
        }
    };
    body.extend_from_slice(own.render().as_bytes());
    body.extend_from_slice(text::END.as_bytes());
    response(StatusCode::OK, kind, body.into())
}

/// The age of the files, if it shows that the collector does not work.
fn too_old(rules: &Rules) -> Option<Duration> {
    age(rules).filter(|age| *age > rules.age_max)
}

/// Old values look like good ones, so they are not shown.
fn old(age: Duration) -> Answer {
    let text = format!(
        "The last collection is {} seconds old, so nothing is known now. The log of the daemon tells why.\n",
        age.as_secs()
    );
    let answer = response(StatusCode::SERVICE_UNAVAILABLE, TEXT, text.into());
    with(answer, HeaderName::from_static("refresh"), HeaderValue::from_static("60"))
}

/// How old the files are.
fn age(rules: &Rules) -> Option<Duration> {
    let modified = MonitorFile::Metrics.path(&rules.directory).metadata().and_then(|found| found.modified()).ok()?;
    Some(SystemTime::now().duration_since(modified).unwrap_or_default())
}

fn health(rules: &Rules) -> Answer {
    match (age(rules), too_old(rules)) {
        (None, _) => not_yet(),
        (_, Some(age)) => old(age),
        _ => plain(StatusCode::OK, "ok\n"),
    }
}

fn not_yet() -> Answer {
    let answer = plain(StatusCode::SERVICE_UNAVAILABLE, "nothing has been collected yet\n");
    with(answer, RETRY_AFTER, HeaderValue::from_static("10"))
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    response(status, TEXT, Bytes::from_static(text.as_bytes()))
}

fn with(mut answer: Answer, name: HeaderName, value: HeaderValue) -> Answer {
    answer.headers_mut().insert(name, value);
    answer
}

fn response(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    let fixed = [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(policy) = HeaderValue::from_str(policy()) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    answer
}

/// Only the page's own style sheet, by its hash. No scripts, images, frames or forms.
fn policy() -> &'static str {
    static POLICY: OnceLock<String> = OnceLock::new();
    POLICY.get_or_init(|| {
        let hash = BASE64_STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
        format!(
            "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
    })
}
