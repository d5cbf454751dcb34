//! Options that cross hosts.
//!
//! A client asks for values of the server's configuration: the cipher of a repository with its passphrase, and
//! `db-timeout`. The answer is a JSON list in one text. Choices are the numbers of [`StringId`]s, times are in
//! milliseconds (source: pgBackRest `src/config/protocol.c`).
//!
//! Over TLS the first request contains the command line that SSH would start; its last argument is the command.

use std::fmt;

use crate::pack::{PackReader, PackWriter};
use crate::{StringId, format_error};
use repo_format::json::{Reader, write_string};
use repo_format::{Error, ErrorCode, Result};

/// The largest number of options or arguments in a request.
pub const OPTIONS_MAX: usize = 10_000;

/// The command line of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigRequest<'a> {
    /// Options, and the command as the last argument.
    pub arguments: Vec<&'a str>,
}

impl<'a> ConfigRequest<'a> {
    pub(crate) fn write(&self, writer: &mut PackWriter<'a>) {
        writer.array(|list| write_texts(list, &self.arguments));
    }

    pub(crate) fn read(reader: &mut PackReader<'a>) -> Result<Self> {
        let mut list = reader.array()?.ok_or_else(|| format_error("arguments are missing"))?;
        Ok(ConfigRequest { arguments: read_texts(&mut list)? })
    }
}

/// A request for the values of options, by their names with index, such as `repo1-cipher-type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionsRequest<'a> {
    /// The names.
    pub names: Vec<&'a str>,
}

impl<'a> OptionsRequest<'a> {
    pub(crate) fn write(&self, writer: &mut PackWriter<'a>) {
        write_texts(writer, &self.names);
    }

    pub(crate) fn read(reader: &mut PackReader<'a>) -> Result<Self> {
        Ok(OptionsRequest { names: read_texts(reader)? })
    }
}

fn write_texts(writer: &mut PackWriter<'_>, texts: &[&str]) {
    for text in texts {
        writer.text(*text);
    }
}

fn read_texts<'a>(reader: &mut PackReader<'a>) -> Result<Vec<&'a str>> {
    let mut texts = Vec::new();
    while !reader.at_end()? {
        if texts.len() == OPTIONS_MAX {
            return Err(format_error(format!("more than {OPTIONS_MAX} options")));
        }
        texts.push(reader.text_required("option")?);
    }
    Ok(texts)
}

/// The value of an option.
#[derive(Clone, PartialEq, Eq)]
pub enum OptionValue {
    /// The option is not set.
    Null,
    /// True or false.
    Bool(bool),
    /// A number, a time in milliseconds, or the number of a choice.
    Number(u64),
    /// Text. It may be a passphrase.
    Text(String),
}

impl OptionValue {
    /// The choice, if the value can be one.
    pub fn choice(&self) -> Option<StringId> {
        if let OptionValue::Number(number) = self { Some(StringId(*number)) } else { None }
    }
}

impl fmt::Debug for OptionValue {
    // The text may be a passphrase
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OptionValue::Null => f.write_str("Null"),
            OptionValue::Bool(value) => write!(f, "Bool({value})"),
            OptionValue::Number(value) => write!(f, "Number({value})"),
            OptionValue::Text(_) => f.write_str("Text(..)"),
        }
    }
}

/// The values, in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionsAnswer {
    /// The values.
    pub values: Vec<OptionValue>,
}

impl OptionsAnswer {
    /// The data of the answer.
    pub fn encode(&self) -> PackWriter<'static> {
        let mut json = String::from("[");
        for (index, value) in self.values.iter().enumerate() {
            if index > 0 {
                json.push(',');
            }
            match value {
                OptionValue::Null => json.push_str("null"),
                OptionValue::Bool(value) => json.push_str(if *value { "true" } else { "false" }),
                OptionValue::Number(value) => json.push_str(&value.to_string()),
                OptionValue::Text(value) => write_string(&mut json, value),
            }
        }
        json.push(']');
        let mut writer = PackWriter::new();
        writer.text(&*json);
        writer
    }

    /// Reads the answer to a request for `count` options.
    ///
    /// # Errors
    /// [`ErrorCode::Format`] or [`ErrorCode::JsonFormat`] if it is damaged, [`ErrorCode::Protocol`] if it has another
    /// number of values.
    pub fn decode(data: Option<&[u8]>, count: usize) -> Result<Self> {
        let mut reader = PackReader::new(data.unwrap_or(crate::pack::EMPTY));
        let json = reader.text_required("option list")?;
        reader.finish()?;
        let mut list = Reader::new(json);
        let mut values = Vec::new();
        list.array_begin()?;
        while list.has_more() && values.len() < count {
            values.push(match list.next_start() {
                Some(b't' | b'f') => OptionValue::Bool(list.bool()?),
                Some(b'"' | b'n') => {
                    list.string_or_null()?.map_or(OptionValue::Null, |text| OptionValue::Text(text.into_owned()))
                }
                _ => OptionValue::Number(list.u64()?),
            });
        }
        if values.len() != count || list.has_more() {
            return Err(Error::new(ErrorCode::Protocol, format!("expected the values of {count} options")));
        }
        list.array_end()?;
        list.finish()?;
        Ok(OptionsAnswer { values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(json: &str, count: usize) -> Result<OptionsAnswer> {
        let mut writer = PackWriter::new();
        writer.text(json);
        OptionsAnswer::decode(Some(&writer.finish().to_vec()), count)
    }

    #[test]
    fn values_round_trip() {
        let values = vec![
            OptionValue::Number(55_237_246_849_960_464),
            OptionValue::Text("a\"b\\".to_owned()),
            OptionValue::Null,
            OptionValue::Bool(true),
            OptionValue::Text(String::new()),
        ];
        let answer = OptionsAnswer { values };
        let data = answer.encode().finish().to_vec();
        assert_eq!(OptionsAnswer::decode(Some(&data), 5).unwrap(), answer);
        assert_eq!(answer.values[0].choice().unwrap().text(), "aes-256-cbc");
        assert!(!format!("{answer:?}").contains("a\\"), "{answer:?}");
    }

    #[test]
    fn answer_with_another_number_of_values_is_refused() {
        for (json, count) in [("[1]", 2), ("[1,2]", 1), ("[]", 1)] {
            let error = decoded(json, count).unwrap_err();
            assert_eq!(error.to_string(), format!("expected the values of {count} options"), "{json}");
        }
        assert_eq!(OptionsAnswer::decode(None, 0).unwrap_err().to_string(), "option list is missing");
        for json in ["", "[1", "[1]x", "[[1]]", "[-1]", "{}"] {
            assert!(decoded(json, 1).is_err(), "{json}");
        }
    }
}
