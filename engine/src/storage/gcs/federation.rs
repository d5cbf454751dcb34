//! Workload Identity Federation (`repo-gcs-key-type=web-id`): exchanges the token of another identity provider, which
//! is in a file, for a token of Google.

use std::fs::File;
use std::io::Read;

use object_store::client::HttpRequest;
use percent_encoding::utf8_percent_encode;
use serde_json::Value;

use super::exchange::{KEY_FILE_SIZE_MAX_BYTES, SCOPE, form_request, key_json, open_key_file, token_server};
use crate::storage::http::URL_ENCODED;
use crate::storage::http::token::missing;
use crate::{Error, ErrorCode, Result};

/// The content of an external account's credential file.
#[derive(Debug)]
pub(super) struct ExternalAccount {
    audience: String,
    token_url: String,
    token_file: String,
}

fn unsupported(text: &str) -> Error {
    Error::new(ErrorCode::Format, text)
}

/// Returns a text of the file. Errors use pgBackRest's name for it.
fn text(json: &Value, key: &str, name: &str) -> Result<String> {
    match json.get(key) {
        None => Err(missing(name)),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(Error::new(ErrorCode::Format, format!("{name} must be a string"))),
    }
}

impl ExternalAccount {
    /// Reads the file. The order of the checks is pgBackRest's.
    ///
    /// # Errors
    /// The file can't be read, or requires something that is not supported.
    pub(super) fn load(path: &str) -> Result<Self> {
        let json = key_json(path)?;
        if json.get("type").and_then(Value::as_str) != Some("external_account") {
            return Err(unsupported("not an external account credential file"));
        }
        if json.get("service_account_impersonation_url").is_some_and(|url| !url.is_null()) {
            return Err(unsupported("service account impersonation is not supported"));
        }
        let audience = text(&json, "audience", "audience")?;
        let token_url = text(&json, "token_url", "token url")?;
        let source = json.get("credential_source").ok_or_else(|| missing("credential source"))?;
        if !source.is_object() {
            return Err(unsupported("credential source must be an object"));
        }
        if source.get("file").is_none() {
            return Err(unsupported("only the file credential source is supported"));
        }
        let token_file = text(source, "file", "token file")?;
        let format = source.get("format").filter(|format| !format.is_null());
        if format.is_some_and(|format| format.get("type").and_then(Value::as_str) != Some("text")) {
            return Err(unsupported("credential source format is not supported"));
        }
        token_server(&token_url)?;
        Ok(ExternalAccount { audience, token_url, token_file })
    }

    /// Returns the request for a token, with the other provider's token that is in the file now.
    ///
    /// # Errors
    /// The token can't be read.
    pub(super) fn request(&self) -> Result<HttpRequest> {
        let failed =
            |error| Error::from_io(ErrorCode::FileRead, format!("unable to read '{}'", self.token_file), error);
        let mut token = String::new();
        let file: File = open_key_file(&self.token_file)?;
        file.take(KEY_FILE_SIZE_MAX_BYTES).read_to_string(&mut token).map_err(failed)?;
        let token = token.trim();
        if token.is_empty() {
            return Err(Error::new(ErrorCode::Format, "web identity token is empty"));
        }
        let parameters = [
            ("audience", self.audience.as_str()),
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("scope", SCOPE),
            ("subject_token", token),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ]
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, URL_ENCODED)));
        form_request(&self.token_url, parameters.join("&"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(json: &str) -> Result<ExternalAccount> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), json).unwrap();
        ExternalAccount::load(file.path().to_str().unwrap())
    }

    #[test]
    fn credential_file_that_is_not_supported_is_refused_in_the_words_of_pgbackrest() {
        let account = r#""type":"external_account","audience":"a""#;
        let url = format!(r#"{account},"token_url":"https://localhost/x""#);
        for (json, text) in [
            (r#"{"type":"service_account"}"#.to_owned(), "not an external account credential file"),
            ("{}".to_owned(), "not an external account credential file"),
            (r#"{"type":"external_account"}"#.to_owned(), "audience missing"),
            (r#"{"type":"external_account","audience":1}"#.to_owned(), "audience must be a string"),
            (format!("{{{account}}}"), "token url missing"),
            (format!(r#"{{{account},"token_url":3}}"#), "token url must be a string"),
            (format!("{{{url}}}"), "credential source missing"),
            (format!(r#"{{{url},"credential_source":"s"}}"#), "credential source must be an object"),
            (format!(r#"{{{url},"credential_source":{{"url":"u"}}}}"#), "only the file credential source is supported"),
            (format!(r#"{{{url},"credential_source":{{"file":3}}}}"#), "token file must be a string"),
            (
                format!(r#"{{{url},"credential_source":{{"file":"/x","format":"text"}}}}"#),
                "credential source format is not supported",
            ),
            (
                format!(r#"{{{url},"credential_source":{{"file":"/x","format":{{"type":"json"}}}}}}"#),
                "credential source format is not supported",
            ),
            (
                format!(r#"{{{url},"service_account_impersonation_url":"u","credential_source":{{"file":"/x"}}}}"#),
                "service account impersonation is not supported",
            ),
            (
                format!(r#"{{{account},"token_url":"http://sts.example.com/x","credential_source":{{"file":"/x"}}}}"#),
                "expected protocol 'https' in URL 'http://sts.example.com/x'",
            ),
        ] {
            let error = load(&json).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (ErrorCode::Format, text), "{json}");
        }
        assert_eq!(load("secret").unwrap_err().code, ErrorCode::JsonFormat);
        for format in ["", r#","format":null"#, r#","format":{"type":"text"}"#] {
            load(&format!(r#"{{{url},"credential_source":{{"file":"/x"{format}}}}}"#)).unwrap();
        }
    }

    #[test]
    fn token_file_is_read_for_each_request_and_must_hold_a_token() {
        let token = tempfile::NamedTempFile::new().unwrap();
        let path = token.path().to_str().unwrap();
        let account = load(&format!(
            r#"{{"type":"external_account","audience":"//iam/x y","token_url":"https://localhost/x","credential_source":{{"file":"{path}"}}}}"#
        ))
        .unwrap();
        assert_eq!(account.request().unwrap_err().message, "web identity token is empty");
        for (content, encoded) in [(" to/ken+=\n", "to%2Fken%2B%3D"), ("second", "second")] {
            std::fs::write(token.path(), content).unwrap();
            let request = account.request().unwrap();
            let body = String::from_utf8(request.body().as_bytes().unwrap().to_vec()).unwrap();
            let exchange = "audience=%2F%2Fiam%2Fx%20y&grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
                &requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token\
                &scope=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fdevstorage.read_write";
            let expected = format!(
                "{exchange}&subject_token={encoded}&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt"
            );
            assert_eq!(body, expected);
        }
        drop(token);
        assert_eq!(account.request().unwrap_err().code, ErrorCode::FileMissing);
    }
}
