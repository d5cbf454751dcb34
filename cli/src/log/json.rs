//! Log lines as JSON, described in `docs/output.md`.

use serde_json::{Map, Value, json};

use super::{Level, LogLine};
use crate::render::control::valid_json;

/// Separates the message and the hints of a text.
const HINT: &str = "\nHINT: ";

/// What a line says besides its own content.
pub(super) struct LineContext<'a> {
    /// The command that runs.
    pub(super) command: Option<&'a str>,
    /// Its stanza.
    pub(super) stanza: Option<&'a str>,
    /// Whether it only says what it would do.
    pub(super) dry_run: bool,
    /// The time as [`now`] returns it; `None` if lines have none.
    pub(super) time: Option<String>,
}

/// Returns the line as one object, with a line feed. Members without a value are left out.
pub(super) fn render(line: &LogLine, context: &LineContext<'_>, detail: Option<&str>) -> String {
    let mut parts = line.text.split(HINT);
    let message = parts.next().unwrap_or_default();
    let hints: Vec<&str> = parts.collect();
    let mut out = Map::new();
    let mut add = |name: &str, value: Value| {
        out.insert(name.to_owned(), value);
    };
    if let Some(time) = &context.time {
        add("time", json!(time));
    }
    add("level", json!(name(line.level)));
    add("process", json!(line.process));
    if let Some(command) = context.command {
        add("command", json!(command));
    }
    if let Some(stanza) = context.stanza {
        add("stanza", json!(stanza));
    }
    if context.dry_run {
        add("dry-run", json!(true));
    }
    if let Some(code) = line.code {
        add("code", json!(code.number()));
    }
    add("message", json!(message));
    if !hints.is_empty() {
        add("hints", json!(hints));
    }
    if let Some(detail) = detail {
        add("detail", json!(detail));
    }
    let text = Value::Object(out).to_string() + "\n";
    valid_json(&text).into_owned()
}

/// The local time with milliseconds and offset, as in RFC 3339.
pub(super) fn now() -> String {
    let now = jiff::Timestamp::now().to_zoned(engine::time_zone::local().clone());
    now.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Off => "off",
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Detail => "detail",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

#[cfg(test)]
mod tests {
    use engine::ErrorCode;

    use super::*;

    const NO_CONTEXT: LineContext<'_> = LineContext { command: None, stanza: None, dry_run: false, time: None };

    #[test]
    fn line_with_everything_known_has_every_member_in_order() {
        let text = "unable to open\nNOTE: second line\nHINT: try this.\nmore of it\nHINT: or that.";
        let line =
            LogLine { level: Level::Error, process: 3, code: Some(ErrorCode::FileMissing), text: text.to_owned() };
        let context = LineContext {
            command: Some("backup"),
            stanza: Some("demo"),
            dry_run: true,
            time: Some("2026-11-22T07:02:21.494+01:00".to_owned()),
        };
        assert_eq!(
            render(&line, &context, Some("causes")),
            concat!(
                r#"{"time":"2026-11-22T07:02:21.494+01:00","level":"error","process":3,"command":"backup","#,
                r#""stanza":"demo","dry-run":true,"code":55,"message":"unable to open\nNOTE: second line","#,
                r#""hints":["try this.\nmore of it","or that."],"detail":"causes"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn line_with_control_characters_is_one_line_of_json() {
        let text = "a\u{1b}[2Jb\rc\u{9b}\u{7f}\n\"d\"\u{2028}";
        let rendered = render(&LogLine::of_main(Level::Info, text), &NO_CONTEXT, None);
        assert_eq!(rendered.matches('\n').count(), 1);
        assert!(!rendered.trim_end().contains(char::is_control), "{rendered:?}");
        let value: Value = serde_json::from_str(&rendered).unwrap();
        assert_eq!(value["message"], text);
    }

    #[test]
    fn time_is_one_that_rfc_3339_readers_parse() {
        let time = now();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
    }
}
