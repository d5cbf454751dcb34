//! Refuses options and values whose feature is not built yet.

use engine::{Error, ErrorCode, Result};

use super::decl::{DefaultValue, Support};
use super::{Config, Source, Value, opt};

impl Config {
    /// Refuses configured options and values whose feature is not built. A value that equals the default is accepted.
    ///
    /// # Errors
    /// [`ErrorCode::FeatureNotSupported`]
    pub fn check_support(&self) -> Result<()> {
        if self.find(opt::REPORT) == Some(true) {
            // A report of the configuration uses no feature
            return Ok(());
        }
        for (decl, key, slot) in self.each_slot() {
            let Some(value) = slot.value.as_ref().filter(|_| slot.source != Source::Default) else { continue };
            let word = match value {
                Value::Bool(true) => "y",
                Value::Bool(false) => "n",
                Value::Text(text) => text,
                Value::Number(number) => &number.to_string(),
                Value::List(_) | Value::Map(_) => "",
            };
            let name = decl.indexed_name(key);
            let refuse = |what: String, feature: &str| {
                Err(Error::new(
                    ErrorCode::FeatureNotSupported,
                    format!("{what} is not supported yet: it needs {feature}"),
                ))
            };
            let is_default = matches!(decl.default_for(self.command), DefaultValue::Fixed(text) if text == word);
            if let Support::NotYet(feature) = decl.support
                && !is_default
            {
                return refuse(format!("option '{name}'"), feature);
            }
            let special = decl.for_command(self.command).map_or(&[][..], |special| special.not_yet);
            if let Some((_, feature)) = decl.not_yet.iter().chain(special).find(|(value, _)| *value == word) {
                return refuse(format!("value '{word}' of option '{name}'"), feature);
            }
        }
        Ok(())
    }
}
