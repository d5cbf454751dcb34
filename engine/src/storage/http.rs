//! What all object stores share on the wire: TLS, certificates, time limits and retries.

pub(crate) mod checked;
mod failure;
pub(crate) mod foreign;
pub(crate) mod listing;
#[cfg(test)]
pub(crate) mod mock;
pub(crate) mod multipart;
mod patience;
pub(crate) mod refusal;
pub(crate) mod request;
pub(crate) mod service;
mod stall;
pub(crate) mod token;
pub(crate) mod xml;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::{BackoffConfig, RetryConfig};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use reqwest::Certificate;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use rustls_pki_types::CertificateDer;

use crate::tls;
use crate::work::backoff::{Backoff, Growth};
use crate::{Error, ErrorCode, Result};

/// Encodes everything in parts of a URL except RFC 3986's unreserved characters.
pub(crate) const URL_ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The maximum number of retries of a request of `object_store`. Mostly the time runs out earlier.
const RETRIES_MAX: usize = 100;
/// The first pause between two tries.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The maximum pause.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How many times as long as the pause before it a pause can be.
const BACKOFF_GROWTH: f64 = 3.0;
/// How much later than the time limit of one request its retries may begin.
const AFTER_TIMEOUT: Duration = Duration::from_secs(1);

/// How to reach a server (pgBackRest's `repo-storage-*` options).
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// The host to connect to instead of the endpoint. It may be a URL.
    pub host: Option<String>,
    /// Check the server's certificate.
    pub verify_tls: bool,
    /// Trust only the certificates of this PEM file.
    pub ca_file: Option<PathBuf>,
    /// Trust only the certificates of the PEM files in this directory.
    pub ca_path: Option<PathBuf>,
    /// The maximum wait for a connection or for the next bytes of an answer.
    pub io_timeout: Duration,
}

impl HttpSettings {
    /// Creates a client with these settings. [`service::Connector`] limits how long it waits for answers.
    ///
    /// # Errors
    /// A certificate file can't be read or contains no certificate.
    fn client(&self) -> Result<reqwest::Client> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("rbr/", env!("CARGO_PKG_VERSION")))
            // Direct, like pgBackRest's connections: a proxy that the environment names for other programs must not see
            // tokens of metadata services
            .no_proxy()
            // Otherwise another host would receive our tokens, and its answer would count as the store's
            .redirect(Policy::none())
            .referer(false)
            .http1_only()
            .connect_timeout(self.io_timeout)
            .dns_resolver(Arc::new(Shuffled))
            .tls_danger_accept_invalid_certs(!self.verify_tls);
        // An unchecked certificate needs nothing to compare it with
        let trusted = if self.verify_tls { self.trusted()? } else { None };
        let client = match trusted {
            Some(certificates) => client.tls_certs_only(certificates),
            None => client,
        };
        client.build().map_err(|error| {
            Error::new(ErrorCode::Service, format!("unable to set up requests: {}", error_text(&error))).cause(error)
        })
    }

    /// Returns the only certificates to trust, if options name any.
    fn trusted(&self) -> Result<Option<Vec<Certificate>>> {
        let options = "repo-storage-ca-file or repo-storage-ca-path";
        let found = tls::authorities_in(self.ca_file.as_deref(), self.ca_path.as_deref(), options)?;
        let convert = |certificate: CertificateDer<'_>| {
            Certificate::from_der(&certificate)
                .map_err(|error| Error::new(ErrorCode::Crypto, format!("unable to load certificates: {error}")))
        };
        found.map(|found| found.into_iter().map(convert).collect()).transpose()
    }
}

/// Resolves a host's addresses and shuffles them, so that connections spread over the servers behind the name.
struct Shuffled;

impl Resolve for Shuffled {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // Without random bytes the order stays
            let mut random = vec![0; addresses.len()];
            let _ = getrandom::fill(&mut random);
            let mut random = random.into_iter();
            addresses.sort_by_cached_key(|_| random.next());
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// An error and its causes in one line.
fn error_text(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The retries of every request: temporary failures (5xx, 429, resets, timeouts) are retried with growing pauses. No
/// retry begins later than `io_timeout` after the request, except after a timeout of just this length.
fn backoff(io_timeout: Duration) -> Backoff {
    Backoff {
        first: BACKOFF_FIRST,
        max: BACKOFF_MAX,
        growth: Growth::Random(BACKOFF_GROWTH),
        limit: io_timeout + AFTER_TIMEOUT,
        tries_min: 0,
    }
}

/// The same for `object_store`.
pub(crate) fn retry_config(io_timeout: Duration) -> RetryConfig {
    let Backoff { first, max, limit, .. } = backoff(io_timeout);
    RetryConfig {
        backoff: BackoffConfig { init_backoff: first, max_backoff: max, base: BACKOFF_GROWTH },
        max_retries: RETRIES_MAX,
        retry_timeout: limit,
    }
}

/// A server's address as configured: `host`, `host:port`, or a URL with either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The host's name or address (an IPv6 address in brackets).
    pub host: String,
    /// The port, when it was given.
    pub port: Option<u16>,
}

impl Endpoint {
    /// Parses an address.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if it has a path, another scheme, or no host.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || Error::new(ErrorCode::Format, format!("invalid URL '{text}'"));
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) => return Err(bad()),
            None => (true, text),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            // The colons of a bracketed IPv6 address do not precede a port
            Some((host, port)) if !port.contains(']') => (host, Some(port.parse().map_err(|_| bad())?)),
            _ => (rest, None),
        };
        if host.is_empty() || host.contains(['/', '@', '?', '#', ' ']) {
            return Err(bad());
        }
        Ok(Endpoint { tls, host: host.to_owned(), port })
    }

    /// Returns the address as a URL, with `prefix` before the host, and with this port instead of its own if one is
    /// given.
    ///
    /// # Errors
    /// [`ErrorCode::HostConnect`] if no host can have that name, such as a bucket before an IP address.
    pub(crate) fn url(&self, prefix: &str, port: Option<u16>) -> Result<String> {
        let scheme = if self.tls { "https" } else { "http" };
        let host = format!("{prefix}{}", self.host);
        let url = match port.or(self.port) {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        };
        reqwest::Url::parse(&url).map_err(|error| {
            Error::new(ErrorCode::HostConnect, format!("unable to get address for '{host}': {error}"))
                .hint("an IP address as endpoint requires path-style addresses.")
                .cause(error)
        })?;
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_forms_are_taken_apart() {
        let parse = |text| Endpoint::parse(text).map(|e| (e.tls, e.host, e.port)).ok();
        assert_eq!(parse("s3.example.com"), Some((true, "s3.example.com".into(), None)));
        assert_eq!(parse("http://127.0.0.1:9000/"), Some((false, "127.0.0.1".into(), Some(9000))));
        assert_eq!(parse("https://[::1]:19000"), Some((true, "[::1]".into(), Some(19000))));
        assert_eq!(parse("[::1]"), Some((true, "[::1]".into(), None)));
        for bad in ["", "ftp://x", "http://", "x/y", "a@b", "host:port", "host:70000"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn endpoint_url_prefers_the_given_port() {
        let endpoint = Endpoint::parse("localhost:1").unwrap();
        assert_eq!(endpoint.url("bucket.", Some(2)).unwrap(), "https://bucket.localhost:2");
        assert_eq!(endpoint.url("", None).unwrap(), "https://localhost:1");
        let error = Endpoint::parse("127.0.0.1").unwrap().url("bucket.", None).unwrap_err();
        assert_eq!(error.code, ErrorCode::HostConnect);
        assert!(error.message.starts_with("unable to get address for 'bucket.127.0.0.1': "), "{error}");
    }
}
