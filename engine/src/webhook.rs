//! Requests of a webhook.

use std::path::PathBuf;
use std::time::Duration;

use crate::storage::http::HttpSettings;
use crate::storage::network;
use crate::system_text;
use crate::{Error, ErrorCode, Result};

/// A request.
pub struct WebhookRequest {
    /// Where it goes. It may contain a secret, so errors do not show it.
    pub url: String,
    /// Names and values of headers, which may be secret.
    pub headers: Vec<(String, String)>,
    /// A file of the certificates to trust instead of those of the system.
    pub ca_file: Option<PathBuf>,
    /// How long connecting and waiting for the answer may take.
    pub timeout: Duration,
    /// JSON.
    pub body: String,
}

/// Sends a request. The answer has to have a status of 2xx.
///
/// # Errors
/// [`ErrorCode::OptionInvalidValue`] for an invalid URL or header, [`ErrorCode::Service`] for anything else.
pub fn post(request: &WebhookRequest) -> Result<()> {
    let settings = HttpSettings {
        host: None,
        verify_tls: true,
        ca_file: request.ca_file.clone(),
        ca_path: None,
        io_timeout: request.timeout,
    };
    let invalid = |text: &str| Error::new(ErrorCode::OptionInvalidValue, text);
    let url = reqwest::Url::parse(&request.url).map_err(|_| invalid("the value of 'webhook-url' is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(invalid("the value of 'webhook-url' does not begin with http:// or https://"));
    }
    let host = url.host_str().unwrap_or_default().to_owned();
    let mut message = settings
        .client()?
        .post(url)
        .timeout(request.timeout)
        .header("content-type", "application/json")
        .body(request.body.clone());
    for (name, value) in &request.headers {
        let name = reqwest::header::HeaderName::try_from(name)
            .map_err(|_| invalid("a name in 'webhook-header' is not valid"))?;
        let mut value = reqwest::header::HeaderValue::try_from(value)
            .map_err(|_| invalid("a value in 'webhook-header' is not valid"))?;
        value.set_sensitive(true);
        message = message.header(name, value);
    }
    let answer = network::handle()?.block_on(async { message.send().await }).map_err(|error| {
        // The path may be a secret
        let error = error.without_url();
        let mut text = format!("unable to send the result to the webhook at '{host}': {}", system_text(&error));
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            text += &format!(": {}", system_text(inner));
            cause = inner.source();
        }
        Error::new(ErrorCode::Service, text)
    })?;
    if answer.status().is_success() {
        return Ok(());
    }
    let text = format!("the webhook at '{host}' answers with status {}", answer.status().as_u16());
    Err(Error::new(ErrorCode::Service, text))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Sends a request to a server with this answer. Returns the result and what the server received.
    fn send(answer: &'static str, path: &str) -> (Result<()>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}{path}", listener.local_addr().unwrap());
        let serve = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut received = Vec::new();
            while !received.ends_with(b"{\"a\":1}") {
                let mut buffer = [0; 4096];
                let count = stream.read(&mut buffer).unwrap();
                assert!(count > 0);
                received.extend_from_slice(&buffer[..count]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(received).unwrap()
        });
        let result = post(&WebhookRequest {
            url,
            headers: vec![("authorization".to_owned(), "Bearer token".to_owned())],
            ca_file: None,
            timeout: Duration::from_secs(20),
            body: "{\"a\":1}".to_owned(),
        });
        (result, serve.join().unwrap())
    }

    #[test]
    fn request_is_a_post_of_json_with_the_configured_headers() {
        let (result, received) = send("HTTP/1.1 204 No Content\r\n\r\n", "/hook");
        result.unwrap();
        let received = received.to_ascii_lowercase();
        assert!(received.starts_with("post /hook http/1.1\r\n"), "{received}");
        for header in ["content-type: application/json", "authorization: bearer token"] {
            assert!(received.contains(header), "{received}");
        }
    }

    #[test]
    fn answer_without_success_is_an_error_that_does_not_show_the_path() {
        for answer in
            ["HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 302 No\r\nlocation: /x\r\n\r\n", "junk"]
        {
            let (result, _) = send(answer, "/secret-token");
            let error = result.unwrap_err();
            assert_eq!(error.code, ErrorCode::Service);
            assert!(!error.to_string().contains("secret-token") && error.to_string().contains("127.0.0.1"), "{error}");
        }
    }

    #[test]
    fn url_of_another_kind_is_refused_without_showing_it() {
        for url in ["secret", "ftp://secret/", "file:///secret", ""] {
            let request = WebhookRequest {
                url: url.to_owned(),
                headers: Vec::new(),
                ca_file: None,
                timeout: Duration::from_secs(1),
                body: String::new(),
            };
            let error = post(&request).unwrap_err();
            assert_eq!(error.code, ErrorCode::OptionInvalidValue);
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
