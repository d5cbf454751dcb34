//! Names of objects as paths of the crate `object_store`, which rejects control characters.
//!
//! pgBackRest stores the files of a cluster under their own names, with any character. In a path, each control character has a
//! stand-in: one of Unicode's noncharacters, which exchanged text never contains. Requests contain the names themselves.

use std::borrow::Cow;

use ::http::Uri;
use object_store::path::Path;

use crate::{Error, ErrorCode, Result};

/// The first stand-in, for DEL. The 31 after it stand for the control characters from U+0001.
const STAND_IN_FIRST: u32 = 0xFDD0;
const CONTROL_MAX: u32 = 0x1F;
const DEL: u32 = 0x7F;
/// The start of a stand-in in a URL. The last byte is [`LAST_BYTE_FIRST`] or more.
const STAND_IN_ENCODED: &str = "%EF%B7%";
const LAST_BYTE_FIRST: u32 = 0x90;

fn stand_in(control: char) -> Option<char> {
    match u32::from(control) {
        DEL => char::from_u32(STAND_IN_FIRST),
        code @ 1..=CONTROL_MAX => char::from_u32(STAND_IN_FIRST + code),
        _ => None,
    }
}

/// Returns the control character of a stand-in, by its number from the first.
fn control(number: u32) -> Option<char> {
    match number {
        0 => char::from_u32(DEL),
        1..=CONTROL_MAX => char::from_u32(number),
        _ => None,
    }
}

fn behind(stand_in: char) -> Option<char> {
    u32::from(stand_in).checked_sub(STAND_IN_FIRST).and_then(control)
}

/// Returns the path of an object.
///
/// # Errors
/// [`ErrorCode::Format`] for a name that no object of a repository can have.
pub(crate) fn path(name: &str) -> Result<Path> {
    let bad = |what: &str| {
        let text = format!("'{}' can't be the name of an object: it has {what}", name.escape_debug());
        Error::new(ErrorCode::Format, text)
    };
    if name.chars().any(|char| behind(char).is_some()) {
        return Err(bad("characters that are none"));
    }
    let visible: String = name.chars().map(|char| stand_in(char).unwrap_or(char)).collect();
    Path::parse(visible).map_err(|error| bad("parts that lead elsewhere").cause(error))
}

/// Returns the name of the object at a path.
pub(crate) fn name(path: &Path) -> Cow<'_, str> {
    let visible = path.as_ref();
    if is_plain(path) {
        return visible.into();
    }
    visible.chars().map(|char| behind(char).unwrap_or(char)).collect::<String>().into()
}

/// Returns whether the name has no control characters.
pub(crate) fn is_plain(path: &Path) -> bool {
    !path.as_ref().chars().any(|char| behind(char).is_some())
}

/// Returns the address of an object if it differs from that of its path.
pub(crate) fn address(of_path: &Uri) -> Option<Uri> {
    let text = of_path.to_string();
    let mut parts = text.split(STAND_IN_ENCODED);
    let mut address = parts.next()?.to_owned();
    for part in parts {
        let number = part.get(..2).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        match number.and_then(|byte| byte.checked_sub(LAST_BYTE_FIRST)).and_then(control) {
            Some(control) => address += &format!("%{:02X}{}", u32::from(control), part.get(2..).unwrap_or_default()),
            None => address += &format!("{STAND_IN_ENCODED}{part}"),
        }
    }
    if address == text { None } else { address.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_control_character_comes_back() {
        let text: String = (1..=0x7F).filter_map(char::from_u32).filter(|&char| char != '/').collect();
        let found = path(&format!("a/{text}ä/b")).unwrap();
        assert!(!found.as_ref().chars().any(|char| char.is_ascii_control()));
        assert_eq!(name(&found), format!("a/{text}ä/b"));
        assert!(!is_plain(&found) && is_plain(&path("a/ä b").unwrap()));
    }

    #[test]
    fn address_has_the_control_characters() {
        let path = path("a\t/\u{7f}ﷰﷺ\u{1}").unwrap();
        let encoded =
            percent_encoding::utf8_percent_encode(path.as_ref(), crate::storage::http::URL_ENCODED).to_string();
        let uri: Uri = format!("https://host/bucket/{}?x=%EF%B7", encoded.replace("%2F", "/")).parse().unwrap();
        let expected = "https://host/bucket/a%09/%7F%EF%B7%B0%EF%B7%BA%01?x=%EF%B7";
        assert_eq!(address(&uri).unwrap().to_string(), expected);
        assert_eq!(address(&expected.parse().unwrap()), None);
    }

    #[test]
    fn name_that_no_object_can_have_is_refused() {
        for (bad, why) in [("a\u{fdd1}", "characters that are none"), ("a//b", "elsewhere"), ("a/../b", "elsewhere")] {
            let error = path(bad).unwrap_err();
            assert_eq!(error.code, ErrorCode::Format);
            assert!(error.message.contains(why), "{error}");
        }
    }
}
