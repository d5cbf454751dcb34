//! The value of an option: how its text is read, and what is checked.

use engine::{Error, ErrorCode, Result};

use super::super::decl::{Depend, Range, ValueKind};
use super::super::parse::FoundOption;
use super::super::{Slot, Value, text, value};
use super::Resolver;
use crate::config::Source;

impl Resolver<'_> {
    /// A value from a declaration.
    pub(super) fn own_value(&self, text: &'static str) -> Result<Value> {
        Ok(match self.decl.kind {
            ValueKind::Boolean => Value::Bool(text == "y"),
            ValueKind::Integer | ValueKind::Size | ValueKind::Time => Value::Number(self.number(text)?),
            _ => Value::Text(text.into()),
        })
    }

    /// A number with the option's units.
    fn number(&self, text: &str) -> Result<i64> {
        let number = match self.decl.kind {
            ValueKind::Size => value::parse_size(text).and_then(|size| size.try_into().ok()),
            ValueKind::Time => value::parse_time(text),
            _ => value::parse_integer(text),
        };
        number.ok_or_else(|| {
            self.invalid_value(format!("'{}' is not valid for '{}' option", self.shown(text), self.name()))
        })
    }

    /// The value as a message may show it.
    fn shown<'t>(&self, text: &'t str) -> &'t str {
        if self.decl.secure { "<redacted>" } else { text }
    }

    fn invalid_value(&self, text: String) -> Error {
        Error::new(ErrorCode::OptionInvalidValue, text)
    }

    pub(super) fn set_value(
        &self,
        slot: &mut Slot,
        found: &FoundOption,
        matched: Option<(Depend, &'static str)>,
        warn: &mut dyn FnMut(String),
    ) -> Result<()> {
        if found.values.iter().any(|value| !text::is_whole(value)) {
            return Err(text::not_whole(&self.name()));
        }
        let first = || found.values.first().cloned().unwrap_or_default();
        slot.value = Some(match self.decl.kind {
            ValueKind::Boolean => Value::Bool(!found.negate),
            ValueKind::List => Value::List(found.values.clone()),
            ValueKind::Hash => Value::Map(self.pairs(&found.values, warn)?),
            ValueKind::Integer | ValueKind::Size | ValueKind::Time => {
                let text = first();
                let number = self.number(&text)?;
                self.check_range(&text, number, matched)?;
                self.check_allowed(&text, Some(number), found.source)?;
                slot.display = Some(text.into());
                Value::Number(number)
            }
            ValueKind::StringId => {
                let text = first();
                self.check_allowed(&text, None, found.source)?;
                slot.display = Some(text.clone().into());
                Value::Text(text.into())
            }
            ValueKind::String | ValueKind::Path => {
                let text = first();
                slot.display = Some(text.clone().into());
                if text.is_empty() {
                    let text = format!("'' must be >= 1 character for '{}' option", self.name());
                    return Err(self.invalid_value(text));
                }
                let text = if self.decl.kind == ValueKind::Path { self.clean_path(text)? } else { text };
                self.check_allowed(&text, None, found.source)?;
                Value::Text(text.into())
            }
        });
        Ok(())
    }

    /// Parses the pairs of a hash. A later value of a key replaces the first.
    fn pairs(&self, values: &[String], warn: &mut dyn FnMut(String)) -> Result<Vec<(String, String)>> {
        let mut pairs: Vec<(String, String)> = Vec::with_capacity(values.len());
        for pair in values {
            let Some((key, value)) = pair.split_once('=') else {
                let text = format!("key/value '{}' not valid for '{}' option", self.shown(pair), self.name());
                return Err(Error::new(ErrorCode::OptionInvalid, text));
            };
            match pairs.iter_mut().find(|(known, _)| known == key) {
                Some((_, old)) => {
                    let name = self.name();
                    let (before, after) = (self.shown(old), self.shown(value));
                    warn(format!("key '{key}' value '{before}' is overwritten with '{after}' for '{name}' option"));
                    *old = value.to_owned();
                }
                None => pairs.push((key.to_owned(), value.to_owned())),
            }
        }
        Ok(pairs)
    }

    fn clean_path(&self, mut path: String) -> Result<String> {
        let problem = if !path.starts_with('/') {
            "must begin with /"
        } else if path.contains("//") {
            "cannot contain //"
        } else {
            if path.len() > 1 && path.ends_with('/') {
                path.pop();
            }
            return Ok(path);
        };
        Err(self.invalid_value(format!("'{}' {problem} for '{}' option", self.shown(&path), self.name())))
    }

    fn check_range(&self, text: &str, number: i64, matched: Option<(Depend, &'static str)>) -> Result<()> {
        let (min, max, condition) = match self.decl.range {
            Range::Any => return Ok(()),
            Range::Fixed(min, max) => (min, max, String::new()),
            Range::ByDepend(map) => {
                let Some((depend, value)) = matched else { return Ok(()) };
                let Some((_, min, max)) = map.iter().find(|(known, ..)| *known == value) else { return Ok(()) };
                let name = self
                    .depend_slot(&depend)
                    .map_or_else(|| depend.option.to_owned(), |(decl, _)| decl.indexed_name(self.key));
                (*min, *max, format!(" when '{name}' option = '{value}'"))
            }
        };
        if number >= self.number(min)? && number <= self.number(max)? {
            return Ok(());
        }
        let text = format!("'{}' is out of range for '{}' option{condition}", self.shown(text), self.name());
        Err(self.invalid_value(text).hint(format!("allowed range is {min} to {max} inclusive")))
    }

    fn check_allowed(&self, text: &str, number: Option<i64>, source: Source) -> Result<()> {
        let own = match source {
            Source::CommandLine => &[],
            _ => self.decl.own_allow_for(self.config.command),
        };
        let allowed = self.decl.allow_for(self.config.command).iter().filter(|word| !own.contains(word));
        let allowed: Vec<&str> = allowed.copied().collect();
        let fits = |word: &&str| match number {
            Some(number) => self.number(word).ok() == Some(number),
            None => *word == text,
        };
        if allowed.is_empty() || allowed.iter().any(fits) {
            return Ok(());
        }
        let words: Vec<String> = allowed.iter().map(|word| format!("'{word}'")).collect();
        let text = format!("'{}' is not allowed for '{}' option", self.shown(text), self.name());
        Err(self.invalid_value(text).hint(format!("allowed values are {}", words.join(", "))))
    }
}
