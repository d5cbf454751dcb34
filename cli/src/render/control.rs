//! Escapes control characters in output.
//!
//! Names, annotations and messages come from repositories and databases, where anybody may have inserted characters
//! that move a terminal's cursor or break a JSON parser. pgBackRest prints them unchanged.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Replaces control characters by escapes such as `\x1b`. Line feeds and tabs stay, because texts have several lines.
pub fn visible_text(text: &str) -> Cow<'_, str> {
    escape(text, |c| c.is_control() && c != '\n' && c != '\t', |out, c| write!(out, "\\x{:02x}", u32::from(c)))
}

/// Like [`visible_text`], for a value within a line. Line feeds and tabs are escaped too.
pub fn visible_value(text: &str) -> Cow<'_, str> {
    escape(text, char::is_control, |out, c| match c {
        '\n' => out.write_str("\\n"),
        '\t' => out.write_str("\\t"),
        c => write!(out, "\\x{:02x}", u32::from(c)),
    })
}

/// Escapes control characters in JSON strings, without which the JSON is invalid. Between its values, the text must not
/// contain white space other than line feeds at the end.
pub fn valid_json(json: &str) -> Cow<'_, str> {
    let body = json.trim_end_matches('\n');
    match escape(body, char::is_control, |out, c| write!(out, "\\u{:04x}", u32::from(c))) {
        Cow::Borrowed(_) => Cow::Borrowed(json),
        Cow::Owned(escaped) => Cow::Owned(escaped + &json[body.len()..]),
    }
}

fn escape(
    text: &str,
    is_escaped: impl Fn(char) -> bool,
    write_escape: impl Fn(&mut String, char) -> std::fmt::Result,
) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_escaped(c) {
            // Writing into a String can't fail
            let _ = write_escape(&mut out, c);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_with_terminal_escapes_is_shown_as_text() {
        assert_eq!(visible_text("a\x1b[2Jb\nHINT: \tc\r\u{9b}"), "a\\x1b[2Jb\nHINT: \tc\\x0d\\x9b");
        assert!(matches!(visible_text("plain \u{e9}\n"), Cow::Borrowed(_)));
    }

    #[test]
    fn value_stays_in_its_line() {
        assert_eq!(visible_value("line1\n    backup: false\x07"), "line1\\n    backup: false\\x07");
    }

    #[test]
    fn json_with_control_characters_is_json() {
        let json = "{\"a\u{1}b\":\"x\u{2}\u{1f}\u{7f}\"}\n";
        let valid = valid_json(json);
        assert_eq!(valid, "{\"a\\u0001b\":\"x\\u0002\\u001f\\u007f\"}\n");
        let parsed: serde_json::Value = serde_json::from_str(&valid).unwrap();
        assert_eq!(parsed["a\u{1}b"], "x\u{2}\u{1f}\u{7f}");
        assert!(matches!(valid_json("[]\n"), Cow::Borrowed(_)));
    }
}
