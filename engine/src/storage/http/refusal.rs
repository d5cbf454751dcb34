//! The form in which an error shows a server's refusal of a request: without the secrets that were sent.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use ::http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HeaderMap, HeaderName, PROXY_AUTHORIZATION};
use ::http::{Response, StatusCode};
use object_store::client::HttpRequest;
use percent_encoding::percent_decode_str;

use super::foreign::shown;
use super::xml::Element;

/// Shorter values are not replaced, because they occur in texts by chance.
const SECRET_SIZE_MIN_BYTES: usize = 6;
/// The replacement of a secret, as in pgBackRest.
const REDACTED: &str = "<redacted>";
/// Headers that authenticate a request, or open what is stored.
const SECRET_HEADERS: [HeaderName; 9] = [
    AUTHORIZATION,
    COOKIE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("x-amz-security-token"),
    HeaderName::from_static("x-amz-server-side-encryption-customer-key"),
    HeaderName::from_static("x-amz-server-side-encryption-customer-key-md5"),
    HeaderName::from_static("x-aws-ec2-metadata-token"),
    HeaderName::from_static("x-ms-encryption-key"),
    HeaderName::from_static("x-ms-encryption-key-sha256"),
];
/// Parameters of URLs and forms with the same purpose.
const SECRET_PARAMETERS: [&str; 7] =
    ["WebIdentityToken", "X-Amz-Security-Token", "X-Amz-Signature", "assertion", "sig", "subject_token", "upload_id"];
/// Headers of answers that help to find out why a request was refused.
const SHOWN_HEADERS: [&str; 9] = [
    "content-type",
    "retry-after",
    "server",
    "x-amz-bucket-region",
    "x-amz-id-2",
    "x-amz-request-id",
    "x-cloud-trace-context",
    "x-ms-error-code",
    "x-ms-request-id",
];

/// What was sent, in the form for errors. It is attached to the answer.
#[derive(Clone)]
pub(crate) struct Sent(Arc<Shown>);

struct Shown {
    /// Method, path and query.
    line: String,
    secrets: Vec<String>,
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sent").field("line", &self.0.line).finish_non_exhaustive()
    }
}

impl Sent {
    /// Records a request.
    pub(crate) fn of(request: &HttpRequest) -> Self {
        let mut secrets = header_secrets(request.headers());
        let (uri, mut query) = (request.uri(), String::new());
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let shown = match secret_parameter(pair) {
                Some((name, value)) => {
                    secrets.push(value.to_owned());
                    Cow::from(format!("{name}={REDACTED}"))
                }
                None => Cow::from(pair),
            };
            query.push(if query.is_empty() { '?' } else { '&' });
            query.push_str(&shown);
        }
        let content_type = request.headers().get(CONTENT_TYPE).map(|value| value.as_bytes());
        if content_type == Some(b"application/x-www-form-urlencoded")
            && let Some(form) = request.body().as_bytes().and_then(|form| str::from_utf8(form).ok())
        {
            secrets.extend(form.split('&').filter_map(secret_parameter).map(|(_, value)| value.to_owned()));
        }
        // A server may show a value in either form
        let decoded: Vec<String> =
            secrets.iter().map(|secret| percent_decode_str(secret).decode_utf8_lossy().into_owned()).collect();
        secrets.extend(decoded);
        secrets.retain(|secret| secret.len() >= SECRET_SIZE_MIN_BYTES);
        // The whole before its parts
        secrets.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        Sent(Arc::new(Shown { line: format!("{} {}{query}", request.method(), uri.path()), secrets }))
    }

    /// Removes the secrets of the request from a text.
    pub(crate) fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::from(text);
        for secret in self.0.secrets.iter().filter(|secret| !secret.is_empty()) {
            if text.contains(secret.as_str()) {
                text = Cow::from(text.replace(secret.as_str(), REDACTED));
            }
        }
        text
    }
}

/// The name and the value of a parameter that is a secret.
fn secret_parameter(pair: &str) -> Option<(&str, &str)> {
    let (name, value) = pair.split_once('=')?;
    SECRET_PARAMETERS.iter().any(|secret| secret.eq_ignore_ascii_case(name)).then_some((name, value))
}

/// Returns the values of secret headers, and the parts of them that are secret: `Bearer TOKEN`, `SharedKey
/// ACCOUNT:SIGNATURE`, `AWS4-HMAC-SHA256 ..., Signature=SIGNATURE`.
fn header_secrets(headers: &HeaderMap) -> Vec<String> {
    let mut secrets = Vec::new();
    for (name, value) in headers.iter().filter(|(name, value)| SECRET_HEADERS.contains(name) || value.is_sensitive()) {
        let Ok(value) = value.to_str() else { continue };
        secrets.push(value.to_owned());
        if *name == AUTHORIZATION
            && let Some((_, credential)) = value.split_once(' ')
        {
            let signature = credential.rsplit_once("Signature=").or_else(|| credential.rsplit_once(':'));
            secrets.push(signature.map_or(credential, |(_, signature)| signature).to_owned());
        }
    }
    secrets
}

/// A request that the server refused.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) struct Refusal {
    /// The status of the answer.
    pub(crate) status: StatusCode,
    /// Method, path and query of the request; empty if unknown.
    line: String,
    headers: Vec<String>,
    message: String,
}

/// Formats the refusal as pgBackRest does, without the headers of the request.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP request failed with {}", self.status.as_u16())?;
        if let Some(reason) = self.status.canonical_reason() {
            write!(f, " ({reason})")?;
        }
        let request: Vec<&str> = Some(self.line.as_str()).filter(|line| !line.is_empty()).into_iter().collect();
        let headers: Vec<&str> = self.headers.iter().map(String::as_str).collect();
        let content: Vec<&str> = Some(self.message.as_str()).filter(|text| !text.is_empty()).into_iter().collect();
        let parts = [("Path/Query", request), ("Response Headers", headers), ("Response Content", content)];
        let mut separator = ":";
        for (title, lines) in parts.into_iter().filter(|(_, lines)| !lines.is_empty()) {
            write!(f, "{separator}\n*** {title} ***:\n{}", lines.join("\n"))?;
            separator = "";
        }
        Ok(())
    }
}

impl Refusal {
    /// Creates a refusal from a server's answer.
    pub(crate) fn of<B>(answer: &Response<B>, body: &[u8]) -> Self {
        Refusal { message: message(body, sent(answer)), ..Refusal::silent(answer) }
    }

    /// Returns the server's message.
    pub(crate) fn said(&self) -> &str {
        &self.message
    }

    /// Returns the server's message and its id of the request.
    pub(crate) fn explanation(&self) -> String {
        let number = self.headers.iter().find(|line| line.contains("request-id: "));
        match number {
            Some(number) if self.message.is_empty() => number.clone(),
            Some(number) => format!("{} ({number})", self.message),
            None => self.message.clone(),
        }
    }

    /// Creates a refusal whose explanation can't be read, or may contain anything.
    pub(crate) fn silent<B>(answer: &Response<B>) -> Self {
        let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let shown = |name: &str| Some(format!("{name}: {}", redacted(answer, shown(text(name)?))));
        let headers = SHOWN_HEADERS.iter().filter_map(|name| shown(name));
        let line = sent(answer).map(|sent| sent.0.line.clone()).unwrap_or_default();
        Refusal { status: answer.status(), line, headers: headers.collect(), message: String::new() }
    }
}

/// The request that an answer belongs to.
fn sent<B>(answer: &Response<B>) -> Option<&Sent> {
    answer.extensions().get::<Sent>()
}

/// Returns a server's message without the secrets of the request that it answers.
pub(crate) fn redacted<B>(answer: &Response<B>, said: &str) -> String {
    sent(answer).map_or_else(|| said.to_owned(), |sent| sent.redact(said).into_owned())
}

/// Returns the message in an answer: that of a JSON error, code and message of an XML error, otherwise the text itself.
pub(crate) fn message(body: &[u8], sent: Option<&Sent>) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let json = json.as_ref().and_then(|json| json.pointer("/error/message")).and_then(serde_json::Value::as_str);
    let text = json.map(Cow::from).or_else(|| xml_message(body).map(Cow::from));
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(body));
    let text = sent.map_or_else(|| Cow::from(text.trim()), |sent| sent.redact(text.trim()));
    shown(&text).to_owned()
}

/// Returns code and message of an error of S3, its token service or Azure. The other elements of such an error contain
/// what was signed and how.
fn xml_message(body: &[u8]) -> Option<String> {
    let root = Element::parse(body).ok()?;
    let error = if root.name == "Error" { &root } else { root.child("Error")? };
    let (code, message) = (error.child("Code")?.text.trim(), error.child("Message").map_or("", |child| &child.text));
    Some(if message.trim().is_empty() { code.to_owned() } else { format!("{code}: {}", message.trim()) })
}

#[cfg(test)]
mod tests {
    use super::super::foreign::MESSAGE_SIZE_MAX_BYTES;
    use super::*;

    fn sent(url: &str, headers: &[(&'static str, &str)], form: &str) -> Sent {
        let mut request = ::http::Request::post(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Sent::of(&request.body(form.to_owned().into()).unwrap())
    }

    fn answer(status: u16, sent: Option<Sent>, headers: &[(&'static str, &str)]) -> Response<()> {
        let mut answer = Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        let mut answer = answer.body(()).unwrap();
        if let Some(sent) = sent {
            answer.extensions_mut().insert(sent);
        }
        answer
    }

    #[test]
    fn refusal_shows_path_request_id_and_the_servers_message() {
        let sent = sent("https://s3.example.com/bucket/demo/backup.info?versionId=1", &[], "");
        let answer = answer(403, Some(sent), &[("x-amz-request-id", "4442587FB7D0A2F9"), ("date", "today")]);
        let body = b"<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>The signature does not match</Message>\
            <StringToSign>AWS4</StringToSign></Error>";
        assert_eq!(
            Refusal::of(&answer, body).to_string(),
            "HTTP request failed with 403 (Forbidden):\n*** Path/Query ***:\n\
             POST /bucket/demo/backup.info?versionId=1\n*** Response Headers ***:\n\
             x-amz-request-id: 4442587FB7D0A2F9\n*** Response Content ***:\n\
             SignatureDoesNotMatch: The signature does not match"
        );
        assert_eq!(
            Refusal::silent(&Response::builder().status(599).body(()).unwrap()).to_string(),
            "HTTP request failed with 599"
        );
    }

    #[test]
    fn server_that_echoes_what_was_sent_shows_no_secret() {
        let sent = sent(
            "https://h/p?sv=1&sig=secret%2Fsignature%3D&WebIdentityToken=secret-identity&upload_id=secret-upload",
            &[
                ("authorization", "Bearer secret-token"),
                ("x-amz-security-token", "secret-session"),
                ("x-amz-server-side-encryption-customer-key", "secret-customer"),
                ("x-aws-ec2-metadata-token", "secret-metadata"),
                ("content-type", "application/x-www-form-urlencoded"),
            ],
            "grant_type=x&assertion=secret-assertion&subject_token=secret%2Dsubject",
        );
        let echo = "secret/signature= secret%2Fsignature%3D secret-identity secret-upload Bearer secret-token secret-token \
            secret-session secret-customer secret-metadata secret-assertion secret-subject grant";
        let refusal =
            Refusal::of(&answer(400, Some(sent), &[("server", "x secret-token")]), echo.as_bytes()).to_string();
        assert!(!refusal.contains("secret"), "{refusal}");
        assert!(refusal.contains("POST /p?sv=1&sig=<redacted>&WebIdentityToken=<redacted>"), "{refusal}");
        assert!(refusal.ends_with(" grant"), "{refusal}");
    }

    #[test]
    fn signatures_are_secret_without_what_they_sign() {
        for value in [
            "AWS4-HMAC-SHA256 Credential=KEY/20260101/r/s3/aws4_request, SignedHeaders=host, Signature=0123456789abcdef",
            "SharedKey account:0123456789abcdef",
        ] {
            let sent = sent("https://h/p", &[("authorization", value)], "");
            assert_eq!(
                sent.redact("the signature 0123456789abcdef is wrong"),
                "the signature <redacted> is wrong",
                "{value}"
            );
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        // Characters of two bytes after an odd number of bytes
        let long = format!("x{}", "\u{e4}".repeat(MESSAGE_SIZE_MAX_BYTES));
        let cut = &long[..MESSAGE_SIZE_MAX_BYTES - 1];
        let json = format!("{{\"error\":{{\"message\":\"{long}\"}}}}");
        for body in [&long, &json] {
            assert_eq!(message(body.as_bytes(), None), cut);
        }
        assert_eq!(message(b" refused\n", None), "refused");
    }
}
