//! Writes JSON byte for byte as pgBackRest does.

use std::fmt::Write as _;

use super::KEY_SIZE_MAX;
use crate::{Error, ErrorCode, Result};

/// Appends `value` as a JSON string.
pub fn write_string(out: &mut String, value: &str) {
    out.push('"');
    let mut start = 0;
    for (index, byte) in value.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x08 => "\\b",
            0x0c => "\\f",
            _ => continue,
        };
        out.push_str(&value[start..index]);
        out.push_str(escape);
        start = index + 1;
    }
    out.push_str(&value[start..]);
    out.push('"');
}

/// Checks that `key` can be an object key that pgBackRest reads back. Keys are written without any escaping.
///
/// # Errors
/// [`ErrorCode::OptionInvalidValue`] if the key is empty, contains `"`, `\` or a control character, or is longer than
/// [`KEY_SIZE_MAX`] bytes.
pub fn check_key(key: &str) -> Result<()> {
    let problem = if key.is_empty() {
        "must not be empty"
    } else if key.len() > KEY_SIZE_MAX {
        "must not be longer than 66 bytes"
    } else if key.bytes().any(|byte| byte == b'"' || byte == b'\\' || byte < 0x20 || byte == 0x7f) {
        "must not contain '\"', '\\' or control characters"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorCode::OptionInvalidValue, format!("key '{}' {problem}", key.escape_debug())))
}

/// Writes an object. The caller passes the keys in ascending byte order.
#[derive(Debug)]
pub struct ObjectWriter<'a> {
    out: &'a mut String,
    first: bool,
}

impl<'a> ObjectWriter<'a> {
    /// Opens an object at the end of `out`.
    pub fn new(out: &'a mut String) -> Self {
        out.push('{');
        ObjectWriter { out, first: true }
    }

    fn key(&mut self, key: &str) {
        if !self.first {
            self.out.push(',');
        }
        self.first = false;
        self.out.push('"');
        self.out.push_str(key);
        self.out.push_str("\":");
    }

    /// A string value.
    pub fn string(&mut self, key: &str, value: &str) {
        self.key(key);
        write_string(self.out, value);
    }

    /// A string value, or `null`.
    pub fn string_or_null(&mut self, key: &str, value: Option<&str>) {
        match value {
            Some(value) => self.string(key, value),
            None => self.raw(key, "null"),
        }
    }

    /// Writes a string whose text needs no escapes, such as a checksum, a label or a mode.
    pub fn plain(&mut self, key: &str, value: impl std::fmt::Display) {
        self.key(key);
        // Writing into a String cannot fail
        let _ = write!(self.out, "\"{value}\"");
    }

    /// An integer or boolean value.
    pub fn scalar(&mut self, key: &str, value: impl Scalar) {
        self.key(key);
        let _ = write!(self.out, "{value}");
    }

    /// A value that is JSON text already.
    pub fn raw(&mut self, key: &str, json: &str) {
        self.key(key);
        self.out.push_str(json);
    }

    /// An array value, to be filled by the caller.
    pub fn array(&mut self, key: &str) -> ArrayWriter<'_> {
        self.key(key);
        ArrayWriter::new(self.out)
    }

    /// An object value, to be filled by the caller.
    pub fn object(&mut self, key: &str) -> ObjectWriter<'_> {
        self.key(key);
        ObjectWriter::new(self.out)
    }

    /// Closes the object.
    pub fn end(self) {
        self.out.push('}');
    }
}

/// Writes one array.
#[derive(Debug)]
pub struct ArrayWriter<'a> {
    out: &'a mut String,
    first: bool,
}

impl<'a> ArrayWriter<'a> {
    /// Opens an array at the end of `out`.
    pub fn new(out: &'a mut String) -> Self {
        out.push('[');
        ArrayWriter { out, first: true }
    }

    fn comma(&mut self) {
        if !self.first {
            self.out.push(',');
        }
        self.first = false;
    }

    /// A string.
    pub fn string(&mut self, value: &str) {
        self.comma();
        write_string(self.out, value);
    }

    /// An integer or boolean.
    pub fn scalar(&mut self, value: impl Scalar) {
        self.comma();
        let _ = write!(self.out, "{value}");
    }

    /// An array in the array.
    pub fn array(&mut self) -> ArrayWriter<'_> {
        self.comma();
        ArrayWriter::new(self.out)
    }

    /// Closes the array.
    pub fn end(self) {
        self.out.push(']');
    }
}

/// Values whose `Display` is their JSON form.
pub trait Scalar: std::fmt::Display {}
impl Scalar for bool {}
impl Scalar for u8 {}
impl Scalar for u32 {}
impl Scalar for u64 {}
impl Scalar for i32 {}
impl Scalar for i64 {}
