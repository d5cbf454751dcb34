//! Who may do what: checks the command line that a client sends.
//!
//! Source of the order: pgBackRest `protocolServer` (`src/protocol/helper.c`). pgBackRest checks the client's name and
//! the stanza only. Here a client can't run anything but the role `remote` either, and can't name other places of this
//! host than its configuration ([`mod@super::places`]).

use engine::{Error, ErrorCode, Result};

use super::command_line::resolve;
use super::places;
use super::state::ServerState;
use crate::config::opt;

/// A client that may do what it asks for.
pub(super) struct Admitted {
    /// The arguments of the process that serves it.
    pub(super) arguments: Vec<String>,
    /// What it does, for the log.
    pub(super) purpose: String,
}

/// Checks the command line of a client with this name.
///
/// # Errors
/// [`ErrorCode::Access`] if the client may not do that, and errors of the options.
pub(super) fn admit(state: &ServerState, client: &str, arguments: &[String]) -> Result<Admitted> {
    let allowed = state.auth.get(client).ok_or_else(denied)?;
    let program = state.program.to_string_lossy().into_owned();
    let mut all = Vec::new();
    if !arguments.iter().any(|argument| argument.starts_with("--config") || argument.starts_with("--no-config")) {
        all.extend(state.config_options.iter().cloned());
    }
    all.extend(arguments.iter().cloned());
    let config = resolve(&program, &all)?;
    let stanza = config.find(opt::STANZA);
    if !is_allowed(allowed, stanza) {
        return Err(denied());
    }
    places::check(&config, &program, &state.config_options)?;
    let purpose = config.command().role_name(config.role());
    let purpose = stanza.map_or_else(|| purpose.clone(), |stanza| format!("{purpose} of stanza '{stanza}'"));
    Ok(Admitted { arguments: all, purpose })
}

fn denied() -> Error {
    Error::new(ErrorCode::Access, "access denied")
}

/// Returns whether a list of stanzas contains this one. Only `*` allows a command without a stanza.
fn is_allowed(allowed: &str, stanza: Option<&str>) -> bool {
    allowed.trim() == "*" || stanza.is_some_and(|stanza| allowed.split(',').any(|allowed| allowed.trim() == stanza))
}

#[cfg(test)]
mod tests {
    use super::is_allowed;

    #[test]
    fn list_allows_its_stanzas_and_an_asterisk_everything() {
        for (allowed, stanza, expected) in [
            ("*", Some("demo"), true),
            (" * ", None, true),
            ("demo", Some("demo"), true),
            ("demo", None, false),
            ("a, demo ,b", Some("demo"), true),
            ("a,demo2", Some("demo"), false),
            // Not a pattern
            ("*,a", Some("demo"), false),
            ("d*", Some("demo"), false),
        ] {
            assert_eq!(is_allowed(allowed, stanza), expected, "{allowed} {stanza:?}");
        }
    }
}
