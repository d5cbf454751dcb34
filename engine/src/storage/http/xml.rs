//! The answers of S3, its token service and Azure: small XML documents of elements with text.

use percent_encoding::percent_decode_str;
use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, Event};

use super::foreign::{foreign, shown};
use crate::{Error, ErrorCode, Result};

/// The maximum nesting of elements.
const DEPTH_MAX: usize = 16;

/// Azure's attribute for a text with URL encoding, because XML cannot contain it.
const ENCODED: &str = "Encoded";

/// An element without its attributes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: String,
    /// Decoded.
    pub(crate) text: String,
    pub(crate) children: Vec<Element>,
    is_encoded: bool,
}

impl Element {
    /// Parses a document and returns its root element.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if it is not XML. Its content is not shown, because it may be a secret.
    pub(crate) fn parse(document: &[u8]) -> Result<Self> {
        let invalid = || Error::new(ErrorCode::Format, "the server's answer is not valid XML");
        let document = str::from_utf8(document).map_err(|_| invalid())?;
        // Azure's answers begin with a byte order mark
        let document = document.trim_start_matches('\u{feff}');
        let mut reader = Reader::from_str(document);
        let mut open: Vec<Element> = Vec::new();
        loop {
            let closed = match reader.read_event().map_err(|_| invalid())? {
                Event::Start(tag) => {
                    if open.len() >= DEPTH_MAX {
                        return Err(invalid());
                    }
                    let encoded = tag.try_get_attribute(ENCODED).map_err(|_| invalid())?;
                    let is_encoded = encoded.is_some_and(|encoded| *encoded.value == *b"true");
                    open.push(Element { is_encoded, ..Element::named(tag.local_name().as_ref()) });
                    None
                }
                Event::Empty(tag) => Some(Element::named(tag.local_name().as_ref())),
                Event::End(_) => Some(open.pop().ok_or_else(invalid)?),
                Event::Text(text) => {
                    let text = text.decode().map_err(|_| invalid())?;
                    if let Some(element) = open.last_mut() {
                        element.text.push_str(&text);
                    }
                    None
                }
                Event::CData(text) => {
                    let text = text.decode().map_err(|_| invalid())?;
                    open.last_mut().ok_or_else(invalid)?.text.push_str(&text);
                    None
                }
                Event::GeneralRef(reference) => {
                    let meant = referenced(&reference).ok_or_else(invalid)?;
                    open.last_mut().ok_or_else(invalid)?.text.push_str(&meant);
                    None
                }
                Event::Eof => return Err(invalid()),
                _ => None,
            };
            let Some(mut closed) = closed else { continue };
            if closed.is_encoded {
                let text = percent_decode_str(&closed.text).decode_utf8().map_err(|_| invalid())?.into_owned();
                closed.text = text;
            }
            match open.last_mut() {
                Some(parent) => parent.children.push(closed),
                None => return Ok(closed),
            }
        }
    }

    fn named(name: &[u8]) -> Self {
        Element { name: String::from_utf8_lossy(name).into_owned(), ..Element::default() }
    }

    /// Checks that the document is what was requested.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if its root element has another name. If the root is an error, the server's message is
    /// included.
    pub(crate) fn expect(&self, name: &str) -> Result<()> {
        if self.name == name {
            return Ok(());
        }
        let text = |child: &str| self.child(child).map_or("", |child| child.text.as_str());
        let said = if self.name == "Error" { format!(": {} {}", text("Code"), text("Message")) } else { String::new() };
        Err(foreign(&format!("it is '{}' instead of '{name}'{}", shown(&self.name), shown(&said))))
    }

    /// Returns whether the text of an element with one of these names contains a character.
    pub(crate) fn holds(&self, names: &[&str], char: char) -> bool {
        (names.contains(&self.name.as_str()) && self.text.contains(char))
            || self.children.iter().any(|child| child.holds(names, char))
    }

    /// Changes the text of all elements with one of these names.
    pub(crate) fn change(&mut self, names: &[&str], change: &dyn Fn(&str) -> String) {
        if names.contains(&self.name.as_str()) {
            self.text = change(&self.text);
        }
        self.children.iter_mut().for_each(|child| child.change(names, change));
    }

    /// The children of this name.
    pub(crate) fn children_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The first child of this name.
    pub(crate) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// Returns the text of the first child with this name.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if there is none.
    pub(crate) fn required(&self, name: &str) -> Result<&str> {
        self.required_child(name).map(|child| child.text.as_str())
    }

    /// Returns the first child with this name.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] if there is none.
    pub(crate) fn required_child(&self, name: &str) -> Result<&Self> {
        self.child(name)
            .ok_or_else(|| Error::new(ErrorCode::Format, format!("unable to find child '{name}' in '{}'", self.name)))
    }
}

/// The text that a reference stands for.
fn referenced(reference: &BytesRef<'_>) -> Option<String> {
    let name = reference.decode().ok()?;
    let number = match (name.strip_prefix("#x"), name.strip_prefix('#')) {
        (Some(digits), _) => u32::from_str_radix(digits, 16).ok()?,
        (None, Some(digits)) => digits.parse().ok()?,
        (None, None) => return resolve_predefined_entity(&name).map(str::to_owned),
    };
    char::from_u32(number).map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let document = b"<?xml version=\"1.0\"?>\n<a xmlns=\"http://x/\">\n <b>1 &amp; &#50;&#x33;</b><c/><b><![CDATA[<4>]]></b></a>\n";
        let root = Element::parse(document).unwrap();
        assert_eq!(root.name, "a");
        let texts: Vec<(&str, &str)> =
            root.children.iter().map(|child| (child.name.as_str(), child.text.as_str())).collect();
        assert_eq!(texts, [("b", "1 & 23"), ("c", ""), ("b", "<4>")]);
        assert_eq!(root.required("b").unwrap(), "1 & 23");
        assert_eq!(root.required("d").unwrap_err().message, "unable to find child 'd' in 'a'");
    }

    #[test]
    fn document_of_another_kind_is_refused_with_what_it_says() {
        let page = Element::parse(b"<x:List xmlns:x='http://x/'/>").unwrap();
        page.expect("List").unwrap();
        let error = page.expect("Other").unwrap_err();
        assert_eq!(error.code, ErrorCode::Format);
        assert!(error.message.ends_with("it is 'List' instead of 'Other'"), "{error}");
        let error = Element::parse(b"<Error><Code>Slow</Code><Message>Wait.</Message></Error>").unwrap();
        assert!(error.expect("List").unwrap_err().message.ends_with("'Error' instead of 'List': Slow Wait."));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let deep = "<a>".repeat(DEPTH_MAX + 1);
        for bad in ["", "text", "<a>", "<a></b>", "</a>", "<a>&secret;</a>", "<a>&#xD800;</a>", &deep] {
            let error = Element::parse(bad.as_bytes()).unwrap_err();
            assert_eq!(error.code, ErrorCode::Format, "{bad}");
            assert!(!error.to_string().contains("secret"));
        }
        assert!(Element::parse(b"<a>\xff</a>").is_err());
    }
}
