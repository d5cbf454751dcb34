//! Bracket expressions: `[a-z]`, `[^[:space:]]`, `[]-]`.

use super::invalid;
use crate::Result;

const UNMATCHED: &str = "Unmatched [, [^, [:, [., or [=";
const BAD_RANGE: &str = "Invalid range end";
/// The longest name of a class that glibc reads.
const NAME_MAX: usize = 32;

/// An element between the brackets.
enum BracketElement {
    Byte(u8),
    /// A set that can't be the end of a range.
    Set(Vec<u8>),
}

/// Parses after the opening bracket and returns the class for the translated expression.
///
/// # Errors
/// glibc's messages.
pub(super) fn parse(input: &[u8], at: &mut usize) -> Result<String> {
    let mut reader = BracketReader { input, at: *at };
    let mut set = [false; 256];
    let complement = reader.peek() == Some(b'^');
    if complement {
        reader.at += 1;
    }
    let mut first = true;
    loop {
        match reader.peek() {
            None => return Err(invalid(UNMATCHED)),
            // The first one is an ordinary character
            Some(b']') if !first => break,
            _ => {}
        }
        let begin = reader.element(first)?;
        first = false;
        if reader.peek() != Some(b'-') || matches!(reader.peek_second(), Some(b']')) {
            begin.add(&mut set);
            continue;
        }
        reader.at += 1;
        if reader.peek().is_none() {
            return Err(invalid(UNMATCHED));
        }
        let (BracketElement::Byte(from), BracketElement::Byte(to)) = (begin, reader.element(true)?) else {
            return Err(invalid(BAD_RANGE));
        };
        if from > to {
            return Err(invalid(BAD_RANGE));
        }
        (from..=to).for_each(|byte| set[usize::from(byte)] = true);
    }
    *at = reader.at + 1;
    Ok(class(&set, complement))
}

impl BracketElement {
    fn add(self, set: &mut [bool; 256]) {
        match self {
            BracketElement::Byte(byte) => set[usize::from(byte)] = true,
            BracketElement::Set(bytes) => bytes.into_iter().for_each(|byte| set[usize::from(byte)] = true),
        }
    }
}

struct BracketReader<'a> {
    input: &'a [u8],
    at: usize,
}

impl BracketReader<'_> {
    fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    fn peek_second(&self) -> Option<u8> {
        self.input.get(self.at + 1).copied()
    }

    /// Parses an element; there is at least one byte. A hyphen stands for itself only if a range can't continue there.
    fn element(&mut self, accept_hyphen: bool) -> Result<BracketElement> {
        let byte = self.peek().ok_or_else(|| invalid(UNMATCHED))?;
        match (byte, self.peek_second()) {
            (b'[', Some(kind @ (b':' | b'.' | b'='))) => {
                self.at += 2;
                let name = self.name(kind)?;
                match (kind, name.as_slice()) {
                    (b':', name) => Ok(BracketElement::Set(named(name)?)),
                    (b'=', [byte]) => Ok(BracketElement::Set(vec![*byte])),
                    (_, [byte]) => Ok(BracketElement::Byte(*byte)),
                    _ => Err(invalid("Invalid collation character")),
                }
            }
            (b'-', next) if !accept_hyphen && next != Some(b']') => Err(invalid(BAD_RANGE)),
            _ => {
                self.at += 1;
                Ok(BracketElement::Byte(byte))
            }
        }
    }

    /// The name up to its end, e.g. `:]`.
    fn name(&mut self, kind: u8) -> Result<Vec<u8>> {
        let mut name = Vec::new();
        loop {
            let byte = self.peek().filter(|_| name.len() < NAME_MAX).ok_or_else(|| invalid(UNMATCHED))?;
            if byte == kind && self.peek_second() == Some(b']') {
                self.at += 2;
                return Ok(name);
            }
            self.at += 1;
            name.push(byte);
        }
    }
}

/// The bytes of a class in the C locale.
fn named(name: &[u8]) -> Result<Vec<u8>> {
    let is_in: fn(&u8) -> bool = match name {
        b"alnum" => u8::is_ascii_alphanumeric,
        b"alpha" => u8::is_ascii_alphabetic,
        b"blank" => |byte| matches!(byte, b' ' | b'\t'),
        b"cntrl" => u8::is_ascii_control,
        b"digit" => u8::is_ascii_digit,
        b"graph" => u8::is_ascii_graphic,
        b"lower" => u8::is_ascii_lowercase,
        b"print" => |byte| matches!(byte, b' '..=b'~'),
        b"punct" => u8::is_ascii_punctuation,
        b"space" => |byte| matches!(byte, b' ' | b'\t'..=b'\r'),
        b"upper" => u8::is_ascii_uppercase,
        b"xdigit" => u8::is_ascii_hexdigit,
        _ => return Err(invalid("Invalid character class name")),
    };
    Ok((0..=u8::MAX).filter(is_in).collect())
}

/// The class of these bytes in the translated expression.
fn class(set: &[bool; 256], complement: bool) -> String {
    let mut text = String::from("[");
    let mut byte = 0;
    while byte < set.len() {
        if set[byte] == complement {
            byte += 1;
            continue;
        }
        let begin = byte;
        while byte < set.len() && set[byte] != complement {
            byte += 1;
        }
        text.push_str(&format!(r"\x{{{begin:X}}}-\x{{{:X}}}", byte - 1));
    }
    // A class without bytes matches nothing
    if text.len() == 1 {
        text.push_str(r"^\x{0}-\x{10FFFF}");
    }
    text.push(']');
    text
}
