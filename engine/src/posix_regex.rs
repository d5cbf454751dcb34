//! POSIX extended regular expressions, as pgBackRest passes them to glibc's `regcomp` in the C locale.
//!
//! They are translated for `regex-lite`, which matches any expression in linear time. The C locale knows only bytes, so
//! each byte becomes the character of its number, both in the expression and in the text. Only whether there is a match
//! counts, so the order in which alternatives are tried does not matter.
//!
//! Source: glibc `posix/regcomp.c` with `RE_SYNTAX_POSIX_EXTENDED`; the messages are those of its `regerror`.

mod bracket;

use regex_lite::{Regex, RegexBuilder};

use crate::{Error, ErrorCode, Result};

/// The maximum number of repetitions that glibc accepts.
const REPEAT_MAX: u32 = 0x7fff;
/// The maximum nesting of groups and repetitions.
const DEPTH_MAX: usize = 100;
/// The maximum memory of a compiled expression, which also bounds the time of a match.
const COMPILED_SIZE_MAX: usize = 512 << 10;

const TOO_BIG: &str = "Regular expression too big";
const BAD_REPEAT: &str = "Invalid preceding regular expression";
const BAD_INTERVAL: &str = "Invalid content of \\{\\}";

/// A regular expression.
#[derive(Clone, Debug)]
pub struct PosixRegex(Regex);

impl PosixRegex {
    /// Compiles an expression.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if the expression is invalid or too big, or has back references, which take unbounded
    /// time.
    pub fn new(expression: &str) -> Result<Self> {
        let translated = Translator::new(expression).run()?;
        RegexBuilder::new(&translated)
            .dot_matches_new_line(true)
            .size_limit(COMPILED_SIZE_MAX)
            // Each of our levels is a group and its content
            .nest_limit(4 * DEPTH_MAX as u32)
            .build()
            .map(PosixRegex)
            .map_err(|error| invalid(TOO_BIG).cause(error))
    }

    /// Returns whether any part of the text matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.is_match(&text.bytes().map(char::from).collect::<String>())
    }
}

fn invalid(text: &str) -> Error {
    Error::new(ErrorCode::Format, text)
}

/// A group that is open.
struct Group {
    /// Where it begins in the output.
    start: usize,
    number: usize,
}

/// Something that can be repeated.
#[derive(Clone, Copy)]
struct Atom {
    /// Where it begins in the output.
    start: usize,
    /// How often it is repeated already.
    depth: usize,
}

struct Translator<'a> {
    input: &'a [u8],
    at: usize,
    out: String,
    groups: Vec<Group>,
    groups_begun: usize,
    groups_done: Vec<usize>,
    /// What an operator at this position would repeat.
    atom: Option<Atom>,
}

impl<'a> Translator<'a> {
    fn new(expression: &'a str) -> Self {
        Translator {
            input: expression.as_bytes(),
            at: 0,
            out: String::new(),
            groups: Vec::new(),
            groups_begun: 0,
            groups_done: Vec::new(),
            atom: None,
        }
    }

    fn run(mut self) -> Result<String> {
        while let Some(byte) = self.next() {
            match byte {
                b'(' => self.open()?,
                b')' => self.close(),
                b'|' => {
                    self.out.push('|');
                    self.atom = None;
                }
                b'^' => self.anchor("^"),
                b'$' => self.anchor("$"),
                b'*' => self.repeat("*")?,
                b'+' => self.repeat("+")?,
                b'?' => self.repeat("?")?,
                b'{' => {
                    if self.atom.is_none() {
                        return Err(invalid(BAD_REPEAT));
                    }
                    let interval = self.interval()?;
                    self.repeat(&interval)?;
                }
                b'.' => self.atom("."),
                b'[' => {
                    let class = bracket::parse(self.input, &mut self.at)?;
                    self.atom(&class);
                }
                b'\\' => self.escape()?,
                literal => self.literal(literal),
            }
        }
        if !self.groups.is_empty() {
            return Err(invalid("Unmatched ( or \\("));
        }
        Ok(self.out)
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.input.get(self.at).copied()?;
        self.at += 1;
        Some(byte)
    }

    fn atom(&mut self, text: &str) {
        self.atom = Some(Atom { start: self.out.len(), depth: 0 });
        self.out.push_str(text);
    }

    fn literal(&mut self, byte: u8) {
        self.atom(&character(byte));
    }

    /// Matches a position; glibc does not repeat these.
    fn anchor(&mut self, text: &str) {
        self.out.push_str(text);
        self.atom = None;
    }

    fn open(&mut self) -> Result<()> {
        if self.groups.len() >= DEPTH_MAX {
            return Err(invalid(TOO_BIG));
        }
        self.groups_begun += 1;
        self.groups.push(Group { start: self.out.len(), number: self.groups_begun });
        self.out.push_str("(?:");
        self.atom = None;
        Ok(())
    }

    fn close(&mut self) {
        match self.groups.pop() {
            Some(group) => {
                self.out.push(')');
                self.groups_done.push(group.number);
                self.atom = Some(Atom { start: group.start, depth: 0 });
            }
            // Without its counterpart it is an ordinary character
            None => self.literal(b')'),
        }
    }

    fn repeat(&mut self, operator: &str) -> Result<()> {
        let Some(Atom { start, depth }) = self.atom else { return Err(invalid(BAD_REPEAT)) };
        if depth >= DEPTH_MAX {
            return Err(invalid(TOO_BIG));
        }
        // In its own group, because otherwise a second operator would have another meaning
        self.out.insert_str(start, "(?:");
        self.out.push_str(operator);
        self.out.push(')');
        self.atom = Some(Atom { start, depth: depth + 1 });
        Ok(())
    }

    /// Parses the rest of `{from,to}` to an operator. Both numbers may be omitted.
    fn interval(&mut self) -> Result<String> {
        let (from, end) = self.number()?;
        let from = match (from, end) {
            (Some(from), _) => from,
            (None, b',') => 0,
            (None, _) => return Err(invalid(BAD_INTERVAL)),
        };
        let to = if end == b',' {
            let (to, end) = self.number()?;
            if end == b',' {
                return Err(invalid(BAD_INTERVAL));
            }
            to
        } else {
            Some(from)
        };
        if to.is_some_and(|to| from > to) {
            return Err(invalid(BAD_INTERVAL));
        }
        if to.unwrap_or(from) > REPEAT_MAX {
            return Err(invalid(TOO_BIG));
        }
        Ok(to.map_or_else(|| format!("{{{from},}}"), |to| format!("{{{from},{to}}}")))
    }

    /// A number and what ends it: a comma or a closing brace.
    fn number(&mut self) -> Result<(Option<u32>, u8)> {
        let mut number = None;
        let mut valid = true;
        loop {
            match self.next() {
                None => return Err(invalid("Unmatched \\{")),
                Some(end @ (b',' | b'}')) if valid => return Ok((number, end)),
                Some(b',' | b'}') => return Err(invalid(BAD_INTERVAL)),
                Some(digit @ b'0'..=b'9') => {
                    let value = number.unwrap_or(0) * 10 + u32::from(digit - b'0');
                    number = Some(value.min(REPEAT_MAX + 1));
                }
                Some(_) => valid = false,
            }
        }
    }

    fn escape(&mut self) -> Result<()> {
        match self.next() {
            None => return Err(invalid("Trailing backslash")),
            Some(b'w') => self.atom(r"\w"),
            Some(b'W') => self.atom(r"\W"),
            Some(b's') => self.atom(r"\s"),
            Some(b'S') => self.atom(r"\S"),
            Some(b'b') => self.anchor(r"\b"),
            Some(b'B') => self.anchor(r"\B"),
            Some(b'<') => self.anchor(r"\b{start}"),
            Some(b'>') => self.anchor(r"\b{end}"),
            Some(b'`') => self.anchor(r"\A"),
            Some(b'\'') => self.anchor(r"\z"),
            Some(digit @ b'1'..=b'9') => {
                let text = match self.groups_done.contains(&usize::from(digit - b'0')) {
                    true => "back references in regular expressions are not supported",
                    false => "Invalid back reference",
                };
                return Err(invalid(text));
            }
            Some(literal) => self.literal(literal),
        }
        Ok(())
    }
}

/// A byte as a character of the translated expression.
fn character(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!(r"\x{{{byte:X}}}") }
}

#[cfg(test)]
mod tests;
