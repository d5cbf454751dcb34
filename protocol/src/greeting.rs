//! The first line that a server sends: JSON with a name, a service and a version.
//!
//! pgBackRest requires that all three match. Keys that it does not know are passed over by its reader, which only looks
//! forward, if they sort before the one it looks for (source: pgBackRest `src/protocol/client.c`). This reader passes
//! over those at the end, too.

use crate::Dialect;
use repo_format::json::{ObjectWriter, Reader};
use repo_format::{Error, ErrorCode, Result};

/// The name in the greeting.
const NAME: &str = "pgBackRest";
/// The largest greeting that a client accepts, in bytes. pgBackRest's has 60.
pub const GREETING_SIZE_MAX: usize = 4096;

/// Who a server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// A main process or a worker on another host.
    Remote,
    /// A main process on the same host.
    Local,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Service::Remote => "remote",
            Service::Local => "local",
        }
    }
}

/// The greeting, including the end of its line.
pub fn encode(service: Service, dialect: &Dialect) -> String {
    let mut line = String::new();
    let mut object = ObjectWriter::new(&mut line);
    object.string("name", NAME);
    object.string("service", service.name());
    object.string("version", dialect.version);
    object.end();
    line.push('\n');
    line
}

/// Checks a greeting, without the end of its line, and returns the dialect of the server's version.
///
/// # Errors
/// [`ErrorCode::Protocol`] for another name or service or a version without a dialect, [`ErrorCode::JsonFormat`] for a
/// line that is no such JSON, as a banner of the login, [`ErrorCode::FileRead`] for [`GREETING_SIZE_MAX`] bytes, whose line
/// has no end.
pub fn check(line: &[u8], service: Service) -> Result<&'static Dialect> {
    if line.len() >= GREETING_SIZE_MAX {
        let text = format!("unable to find line in {GREETING_SIZE_MAX} byte buffer");
        return Err(Error::new(ErrorCode::FileRead, text));
    }
    let line = String::from_utf8_lossy(line);
    let mut reader = Reader::new(&line);
    if !line.trim_start().starts_with('{') {
        return Err(Error::new(ErrorCode::JsonFormat, format!("invalid type at: {}", line.trim_end())));
    }
    reader.object_begin()?;
    expect(&mut reader, "name", NAME)?;
    expect(&mut reader, "service", service.name())?;
    let version = value(&mut reader, "version")?;
    let dialect = Dialect::of(&version).ok_or_else(|| unexpected("version", Dialect::NEWEST.version, &version))?;
    while reader.has_more() {
        reader.key()?;
        reader.skip()?;
    }
    reader.object_end()?;
    reader.finish()?;
    Ok(dialect)
}

fn value(reader: &mut Reader<'_>, key: &str) -> Result<String> {
    if !reader.key_expect(key)? {
        return Err(Error::new(ErrorCode::Protocol, format!("unable to find greeting key '{key}'")));
    }
    if reader.next_start() != Some(b'"') {
        return Err(Error::new(ErrorCode::Protocol, format!("greeting key '{key}' must be string type")));
    }
    Ok(reader.string()?.into_owned())
}

fn expect(reader: &mut Reader<'_>, key: &str, expected: &str) -> Result<()> {
    let actual = value(reader, key)?;
    if actual == expected { Ok(()) } else { Err(unexpected(key, expected, &actual)) }
}

fn unexpected(key: &str, expected: &str, actual: &str) -> Error {
    let message = format!("expected value '{expected}' for greeting key '{key}' but got '{actual}'");
    Error::new(ErrorCode::Protocol, message)
        .hint("is the same version of pgBackRest installed on the local and remote host?")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(line: &str) -> (u8, String) {
        let error = check(line.as_bytes(), Service::Remote).unwrap_err();
        (error.code.number(), error.to_string())
    }

    #[test]
    fn encode_matches_pgbackrest() {
        let line = encode(Service::Remote, Dialect::NEWEST);
        assert_eq!(line, "{\"name\":\"pgBackRest\",\"service\":\"remote\",\"version\":\"2.60.0\"}\n");
        assert_eq!(line.len(), 60);
        assert_eq!(check(line.trim_end().as_bytes(), Service::Remote).unwrap(), Dialect::NEWEST);
    }

    #[test]
    fn check_passes_over_unknown_keys() {
        let line = br#"{"a":[1,{"b":null}],"name":"pgBackRest","q":true,"service":"local","version":"2.60.0","z":{}}"#;
        assert_eq!(check(line, Service::Local).unwrap(), Dialect::NEWEST);
    }

    #[test]
    fn check_of_other_values_names_them() {
        let hint = "\nHINT: is the same version of pgBackRest installed on the local and remote host?";
        let greeting = |name: &str, service: &str, version: &str| {
            failure(&format!(r#"{{"name":{name},"service":{service},"version":{version}}}"#))
        };
        let expected = |key: &str, expected: &str, actual: &str| {
            (39, format!("expected value '{expected}' for greeting key '{key}' but got '{actual}'{hint}"))
        };
        assert_eq!(greeting(r#""x""#, r#""remote""#, r#""2.60.0""#), expected("name", "pgBackRest", "x"));
        assert_eq!(greeting(r#""pgBackRest""#, r#""local""#, r#""2.60.0""#), expected("service", "remote", "local"));
        assert_eq!(greeting(r#""pgBackRest""#, r#""remote""#, r#""2.59.1""#), expected("version", "2.60.0", "2.59.1"));
        let number = greeting(r#""pgBackRest""#, r#""remote""#, "2");
        assert_eq!(number, (39, "greeting key 'version' must be string type".to_owned()));
    }

    #[test]
    fn check_of_what_is_no_greeting_fails() {
        assert_eq!(failure("Welcome to h!"), (99, "invalid type at: Welcome to h!".to_owned()));
        assert_eq!(failure("Welcome to h!\r"), (99, "invalid type at: Welcome to h!".to_owned()));
        assert_eq!(failure(""), (99, "invalid type at: ".to_owned()));
        assert_eq!(failure(&"y".repeat(4096)), (42, "unable to find line in 4096 byte buffer".to_owned()));
        assert_eq!(failure("{}"), (39, "unable to find greeting key 'name'".to_owned()));
        assert_eq!(failure("{\"name\":\"pgBackRest\"").0, 39);
        assert_eq!(failure("{\"name\":\"pgBackRest\",\"service\":\"remote\",\"version\":\"2.60.0\"").0, 99);
        assert_eq!(failure("{\"name\":\"pgBackRest\",\"service\":\"remote\",\"version\":\"2.60.0\"}x").0, 99);
    }
}
