//! Reading JSON forward only.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::DEPTH_MAX;
use crate::{Error, ErrorCode, Result};

/// The number of characters of the remaining text that an error message shows.
const CONTEXT_CHARS: usize = 80;
/// The maximum number of digits of a number (source: pgBackRest's number buffer holds 63 digits).
const DIGITS_MAX: usize = 63;

#[derive(Clone, Copy, Debug)]
struct Container {
    end: u8,
    first: bool,
}

/// A forward reader of one JSON value.
#[derive(Debug)]
pub struct Reader<'a> {
    text: &'a str,
    pos: usize,
    stack: Vec<Container>,
    after_key: bool,
}

/// A number before it is narrowed to the type asked for.
#[derive(Clone, Copy, Debug)]
struct Number<'a> {
    text: &'a str,
}

impl Number<'_> {
    fn narrow<T: std::str::FromStr>(self, name: &str) -> Result<T> {
        self.text
            .parse()
            .map_err(|_| Error::new(ErrorCode::JsonFormat, format!("{} is out of range for {name}", self.text)))
    }
}

/// Checks that `text` is a single JSON value.
///
/// # Errors
/// [`ErrorCode::JsonFormat`].
pub fn validate(text: &str) -> Result<()> {
    let mut reader = Reader::new(text);
    reader.skip()?;
    reader.finish()
}

impl<'a> Reader<'a> {
    /// A reader at the start of `text`.
    pub fn new(text: &'a str) -> Self {
        Reader { text, pos: 0, stack: Vec::new(), after_key: false }
    }

    fn error(&self, message: impl std::fmt::Display) -> Error {
        let rest: String = self.text.get(self.pos..).unwrap_or("").chars().take(CONTEXT_CHARS).collect();
        Error::new(ErrorCode::JsonFormat, format!("{message} at: {rest}"))
    }

    fn peek_raw(&self) -> Option<u8> {
        self.text.as_bytes().get(self.pos).copied()
    }

    fn whitespace(&mut self) {
        while matches!(self.peek_raw(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.pos += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.whitespace();
        self.peek_raw()
    }

    /// Moves to the start of the next value, past the comma if one is required.
    fn value_start(&mut self) -> Result<u8> {
        if self.after_key {
            self.after_key = false;
        } else if let Some(container) = self.stack.last().copied() {
            if container.end == b'}' {
                return Err(self.error("key has not been read"));
            }
            self.comma(container)?;
        }
        self.peek().ok_or_else(|| Error::new(ErrorCode::JsonFormat, "expected data"))
    }

    fn comma(&mut self, container: Container) -> Result<()> {
        if !container.first {
            if self.peek() != Some(b',') {
                return Err(self.error("missing comma"));
            }
            self.pos += 1;
        }
        if let Some(top) = self.stack.last_mut() {
            top.first = false;
        }
        Ok(())
    }

    fn begin(&mut self, open: u8, end: u8, name: &str) -> Result<()> {
        if self.value_start()? != open {
            return Err(self.error(format_args!("expected {name}")));
        }
        if self.stack.len() >= DEPTH_MAX {
            return Err(self.error(format_args!("more than {DEPTH_MAX} levels")));
        }
        self.pos += 1;
        self.stack.push(Container { end, first: true });
        Ok(())
    }

    fn end(&mut self, end: u8) -> Result<()> {
        if self.stack.last().map(|top| top.end) != Some(end) || self.peek() != Some(end) {
            return Err(self.error(format_args!("expected {}", char::from(end))));
        }
        self.stack.pop();
        self.pos += 1;
        Ok(())
    }

    /// Returns whether the first value is an object.
    pub fn is_object(&mut self) -> bool {
        self.peek() == Some(b'{')
    }

    /// Returns whether the first value is a string.
    pub fn is_string(&mut self) -> bool {
        self.peek() == Some(b'"')
    }

    /// Enters an object.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`] if the next value is not an object. The methods below fail in the same way.
    pub fn object_begin(&mut self) -> Result<()> {
        self.begin(b'{', b'}', "object")
    }

    /// Leaves an object that has no more keys.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`].
    pub fn object_end(&mut self) -> Result<()> {
        self.end(b'}')
    }

    /// Enters an array.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`].
    pub fn array_begin(&mut self) -> Result<()> {
        self.begin(b'[', b']', "array")
    }

    /// Leaves an array that has no more values.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`].
    pub fn array_end(&mut self) -> Result<()> {
        self.end(b']')
    }

    /// Returns whether the current object or array has another member.
    pub fn has_more(&mut self) -> bool {
        let end = self.stack.last().map(|top| top.end);
        match self.peek() {
            None => false,
            byte => byte != end,
        }
    }

    /// Reads the next key of the current object. The caller must then read or skip its value. A key has no escapes.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`].
    pub fn key(&mut self) -> Result<&'a str> {
        let Some(container) = self.stack.last().copied().filter(|top| top.end == b'}') else {
            return Err(self.error("expected object"));
        };
        self.comma(container)?;
        if self.peek() != Some(b'"') {
            return Err(self.error("expected key"));
        }
        let start = self.pos + 1;
        let bytes = self.text.as_bytes();
        let length = bytes[start..].iter().position(|byte| matches!(byte, b'"' | b'\\' | 0));
        match length.and_then(|length| bytes.get(start + length).map(|byte| (length, *byte))) {
            Some((length, b'"')) => {
                let key = &self.text[start..start + length];
                self.pos = start + length + 1;
                if self.peek() != Some(b':') {
                    return Err(self.error(format_args!("expected : after key '{key}'")));
                }
                self.pos += 1;
                self.after_key = true;
                Ok(key)
            }
            Some((length, b'\\')) => {
                self.pos = start + length;
                Err(self.error("escape character not allowed in key"))
            }
            _ => Err(Error::new(ErrorCode::JsonFormat, "expected '\"' but found null delimiter")),
        }
    }

    /// Moves to the value of `key` and returns true if the rest of the object contains it. Skips keys before it in byte
    /// order. A greater key or the end of the object means that the key is missing.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`].
    pub fn key_expect(&mut self, key: &str) -> Result<bool> {
        while self.has_more() {
            let before = (self.pos, self.stack.last().is_some_and(|top| top.first));
            match self.key()?.cmp(key) {
                std::cmp::Ordering::Equal => return Ok(true),
                std::cmp::Ordering::Less => self.skip()?,
                std::cmp::Ordering::Greater => {
                    self.pos = before.0;
                    self.after_key = false;
                    if let Some(top) = self.stack.last_mut() {
                        top.first = before.1;
                    }
                    return Ok(false);
                }
            }
        }
        Ok(false)
    }

    /// Moves to the value of `key`.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`], also if the key is missing.
    pub fn key_require(&mut self, key: &str) -> Result<()> {
        if self.key_expect(key)? {
            Ok(())
        } else {
            Err(Error::new(ErrorCode::JsonFormat, format!("required key '{key}' not found")))
        }
    }

    /// Reads `true` or `false`.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`].
    pub fn bool(&mut self) -> Result<bool> {
        self.value_start()?;
        for (word, value) in [("true", true), ("false", false)] {
            if self.word(word) {
                return Ok(value);
            }
        }
        Err(self.error("expected boolean"))
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.text.as_bytes()[self.pos..].starts_with(word.as_bytes());
        if found {
            self.pos += word.len();
        }
        found
    }

    fn number(&mut self) -> Result<Number<'a>> {
        self.value_start()?;
        let bytes = &self.text.as_bytes()[self.pos..];
        let sign = usize::from(bytes.first() == Some(&b'-'));
        let digits = bytes[sign..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        match digits {
            0 => Err(self.error("no digits found")),
            1..=DIGITS_MAX => {
                let start = self.pos;
                self.pos += sign + digits;
                Ok(Number { text: &self.text[start..self.pos] })
            }
            _ => Err(self.error("invalid number")),
        }
    }

    /// Reads a non-negative number.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`], also if the number is out of range.
    pub fn u64(&mut self) -> Result<u64> {
        self.number()?.narrow("uint64")
    }

    /// Reads a non-negative number of at most 32 bits.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`], also if the number is out of range.
    pub fn u32(&mut self) -> Result<u32> {
        self.number()?.narrow("uint")
    }

    /// Reads a number.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`], also if the number is out of range.
    pub fn i64(&mut self) -> Result<i64> {
        self.number()?.narrow("int64")
    }

    /// Reads a number of at most 32 bits.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`], also if the number is out of range.
    pub fn i32(&mut self) -> Result<i32> {
        self.number()?.narrow("int")
    }

    /// Reads a time in seconds since 1970. pgBackRest reads it as an unsigned number, so it cannot be negative.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`].
    pub fn timestamp(&mut self) -> Result<i64> {
        let value = self.u64()?;
        i64::try_from(value)
            .map_err(|_| Error::new(ErrorCode::JsonFormat, format!("{value} is out of range for a time")))
    }

    /// Reads a string or `null`.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`].
    pub fn string_or_null(&mut self) -> Result<Option<Cow<'a, str>>> {
        if self.value_start()? == b'n' {
            return if self.word("null") { Ok(None) } else { Err(self.error("expected null")) };
        }
        self.string_body().map(Some)
    }

    /// Reads a string.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`].
    pub fn string(&mut self) -> Result<Cow<'a, str>> {
        self.value_start()?;
        self.string_body()
    }

    /// Reads an owner: a name, or `false` for an owner without a name.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] for `true`, [`ErrorCode::JsonFormat`] for anything else.
    pub fn string_or_false(&mut self) -> Result<Option<Cow<'a, str>>> {
        if self.value_start()? == b'"' {
            return self.string_body().map(Some);
        }
        if self.word("false") {
            return Ok(None);
        }
        if self.word("true") {
            return Err(Error::new(ErrorCode::Format, "owner bool must be false"));
        }
        Err(self.error("expected string or false"))
    }

    /// Reads an object whose values are all strings.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`].
    pub fn string_map(&mut self) -> Result<BTreeMap<String, String>> {
        let mut map = BTreeMap::new();
        self.object_begin()?;
        while self.has_more() {
            let key = self.key()?.to_owned();
            map.insert(key, self.string()?.into_owned());
        }
        self.object_end()?;
        Ok(map)
    }

    /// Returns the first byte of the next value, which tells its type.
    pub fn next_start(&self) -> Option<u8> {
        let rest = self.text.as_bytes()[self.pos..].iter();
        rest.copied().find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b','))
    }

    /// Returns whether the next member of the current array is itself an array.
    pub fn next_is_array(&self) -> bool {
        self.next_start() == Some(b'[')
    }

    fn string_body(&mut self) -> Result<Cow<'a, str>> {
        if self.peek_raw() != Some(b'"') {
            return Err(self.error("expected string"));
        }
        let start = self.pos + 1;
        let mut plain_start = start;
        let mut decoded: Option<String> = None;
        self.pos = start;
        loop {
            match self.peek_raw() {
                Some(b'"') => break,
                None | Some(0) => {
                    return Err(Error::new(ErrorCode::JsonFormat, "expected '\"' but found null delimiter"));
                }
                Some(b'\\') => {
                    let text = decoded.get_or_insert_default();
                    text.push_str(&self.text[plain_start..self.pos]);
                    let (char, length) = self.escape()?;
                    text.push(char);
                    self.pos += length;
                    plain_start = self.pos;
                }
                Some(_) => self.pos += 1,
            }
        }
        let tail = &self.text[plain_start..self.pos];
        self.pos += 1;
        Ok(match decoded {
            Some(mut text) => {
                text.push_str(tail);
                Cow::Owned(text)
            }
            None => Cow::Borrowed(tail),
        })
    }

    /// Returns the character of the escape at the reader's position and the length of the escape in bytes. Writers
    /// escape only ASCII characters, so `\u` is decoded for ASCII only.
    fn escape(&self) -> Result<(char, usize)> {
        let rest = &self.text.as_bytes()[self.pos + 1..];
        let char = match rest.first() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'u') => {
                let digits = rest.get(1..5).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
                let code = digits
                    .and_then(|digits| std::str::from_utf8(digits).ok())
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                return match code {
                    Some(code @ 1..0x80) => Ok((char::from(code), 6)),
                    _ => Err(self.error("unable to decode")),
                };
            }
            _ => return Err(self.error("invalid escape character")),
        };
        Ok((char, 2))
    }

    /// Skips the next value.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`] if it is invalid.
    pub fn skip(&mut self) -> Result<()> {
        let depth = self.stack.len();
        loop {
            if self.stack.len() > depth && !self.has_more() {
                if self.stack.last().is_some_and(|top| top.end == b'}') {
                    self.object_end()?
                } else {
                    self.array_end()?
                }
            } else {
                if self.stack.len() > depth && self.stack.last().is_some_and(|top| top.end == b'}') {
                    self.key()?;
                }
                self.skip_step()?;
            }
            if self.stack.len() == depth {
                return Ok(());
            }
        }
    }

    /// Skips a scalar, or enters an object or array.
    fn skip_step(&mut self) -> Result<()> {
        // Look past the comma without consuming it: the typed methods below consume it themselves
        let before = (self.pos, self.after_key, self.stack.last().copied());
        let next = self.value_start()?;
        self.pos = before.0;
        self.after_key = before.1;
        if let (Some(top), Some(saved)) = (self.stack.last_mut(), before.2) {
            *top = saved;
        }
        match next {
            b'{' => self.object_begin(),
            b'[' => self.array_begin(),
            b'"' | b'n' => self.string_or_null().map(drop),
            b't' | b'f' => self.bool().map(drop),
            b'-' | b'0'..=b'9' => self.number().map(drop),
            _ => Err(self.error("invalid type")),
        }
    }

    /// Checks that nothing follows the value.
    ///
    /// # Errors
    /// [`ErrorCode::JsonFormat`].
    pub fn finish(&mut self) -> Result<()> {
        if !self.stack.is_empty() || self.peek().is_some() {
            return Err(self.error("characters after JSON"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{ObjectWriter, write_string};
    use proptest::prelude::*;

    #[test]
    fn key_expect_out_of_order_key_is_lost() -> Result<()> {
        let mut reader = Reader::new(r#"{"b":1,"a":2,"c":[1,{"x":null}],"d":true}"#);
        reader.object_begin()?;
        assert!(!reader.key_expect("a")?);
        assert!(reader.key_expect("b")?);
        assert_eq!(reader.u64()?, 1);
        assert!(reader.key_expect("d")?);
        assert!(reader.bool()?);
        assert!(!reader.key_expect("e")?);
        reader.object_end()?;
        reader.finish()
    }

    #[test]
    fn key_require_missing_key_names_it() -> Result<()> {
        let mut reader = Reader::new(r#"{"b":1}"#);
        reader.object_begin()?;
        let error = reader.key_require("a").map_err(|error| (error.code, error.message));
        assert_eq!(error, Err((ErrorCode::JsonFormat, "required key 'a' not found".to_owned())));
        reader.key_require("b")
    }

    #[test]
    fn validate_accepts_what_pgbackrest_writes() {
        for text in [
            "1",
            "-5",
            "\"a\\\"b\"",
            "null",
            "true",
            "{}",
            "[]",
            "[2,[5,7]]",
            "{\"a\":{\"b\":[]},\"c\":false}",
            " { \"a\" : 1 } ",
        ] {
            assert!(validate(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn validate_refuses_everything_else() {
        for text in [
            "",
            "1.5",
            "1e3",
            "{",
            "}",
            "[1,]",
            "[,1]",
            "{,\"a\":1}",
            "{\"a\":1,}",
            "{\"a\"}",
            "{\"a\" 1}",
            "{\"a\\\"\":1}",
            "\"a",
            "tru",
            "nul",
            "1 2",
            "{}{}",
            "\"\\x\"",
            "\"\\u00e9\"",
            "\"\\u12\"",
            "-",
            "{\"a\":1 \"b\":2}",
            "[1 2]",
            "]",
            "\"a\0b\"",
        ] {
            assert!(validate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn validate_deep_nesting_is_refused() {
        assert!(validate(&"[".repeat(1_000_000)).is_err());
        // pgBackRest 2.60 reads 32 levels and refuses 33
        let nested = |depth| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert!(validate(&nested(32)).is_ok());
        assert!(validate(&nested(33)).is_err());
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        assert!(Reader::new("4294967296").u32().is_err());
        assert!(Reader::new("-1").u64().is_err());
        assert!(Reader::new("18446744073709551616").u64().is_err());
        assert_eq!(Reader::new("18446744073709551615").u64().ok(), Some(u64::MAX));
        assert!(Reader::new(&"1".repeat(64)).u64().is_err());
        assert!(Reader::new("9223372036854775808").timestamp().is_err());
        assert_eq!(Reader::new("007").u32().ok(), Some(7));
    }

    proptest! {
        #[test]
        fn string_any_text_round_trips(text in "[^\0]*") {
            let mut out = String::new();
            write_string(&mut out, &text);
            prop_assert!(validate(&out).is_ok());
            prop_assert_eq!(Reader::new(&out).string().ok().map(Cow::into_owned), Some(text));
        }

        #[test]
        fn reader_any_text_never_panics(text in "[\\[\\]{}\",:0-9a-z\\\\ -]{0,60}") {
            let _ = validate(&text);
            let mut reader = Reader::new(&text);
            let _ = reader.object_begin();
            let _ = reader.key_expect("m");
            let _ = reader.string_or_false();
        }

        #[test]
        fn object_any_values_round_trip(a in any::<u64>(), b in any::<i64>(), c in any::<bool>(), d in "[^\0]*") {
            let mut out = String::new();
            let mut object = ObjectWriter::new(&mut out);
            object.scalar("a", a);
            object.scalar("b", b);
            object.scalar("c", c);
            object.string("d", &d);
            object.end();
            let mut reader = Reader::new(&out);
            let read = (|| {
                reader.object_begin()?;
                reader.key_require("a")?;
                let a = reader.u64()?;
                reader.key_require("b")?;
                let b = reader.i64()?;
                reader.key_require("c")?;
                let c = reader.bool()?;
                reader.key_require("d")?;
                let d = reader.string()?.into_owned();
                reader.object_end()?;
                reader.finish()?;
                Ok::<_, Error>((a, b, c, d))
            })();
            prop_assert_eq!(read.ok(), Some((a, b, c, d)));
        }
    }
}
