//! Shows what `check --diagnose` found, as text and as JSON.

use std::fmt::Write as _;

use engine::diagnose::{DiagnoseSummary, Diagnosis, Severity};
use serde_json::json;

use super::control::{valid_json, visible_text};

/// What was found about one stanza.
type Found = (String, DiagnoseSummary);

/// Shows one line each, the worst last, with advice below it.
pub fn text(found: &[Found]) -> String {
    let mut text = String::new();
    for (stanza, summary) in found {
        let mut lines: Vec<&Diagnosis> = summary.found.iter().collect();
        // What needs attention is next to the prompt
        lines.sort_by_key(|diagnosis| diagnosis.severity);
        let topic_width = lines.iter().map(|diagnosis| diagnosis.topic.len()).max().unwrap_or(0);
        let _ = writeln!(text, "stanza: {stanza}");
        for Diagnosis { severity, topic, subject, text: found, advice } in lines {
            let found = found.replace('\n', "\n            ");
            let _ = writeln!(text, "  {:7}  {topic:topic_width$}  {subject}: {found}", severity.name());
            for advice in advice {
                let _ = writeln!(text, "           -> {advice}");
            }
        }
        let count = |severity| summary.found.iter().filter(|diagnosis| diagnosis.severity == severity).count();
        let _ = writeln!(text, "status: {} error(s), {} warning(s)", count(Severity::Error), count(Severity::Warning));
    }
    visible_text(&text).into_owned()
}

/// Shows an array with an object per stanza.
pub fn json(found: &[Found]) -> String {
    let text = format!("{}\n", value(found));
    valid_json(&text).into_owned()
}

/// The array with an object per stanza.
pub fn value(found: &[Found]) -> serde_json::Value {
    let diagnosis = |diagnosis: &Diagnosis| {
        json!({
            "severity": diagnosis.severity.name(),
            "topic": diagnosis.topic,
            "subject": diagnosis.subject,
            "text": diagnosis.text,
            "advice": diagnosis.advice,
        })
    };
    let stanza = |(stanza, summary): &Found| {
        json!({
            "stanza": stanza,
            "status": summary.severity().name(),
            "found": summary.found.iter().map(diagnosis).collect::<Vec<_>>(),
        })
    };
    serde_json::Value::Array(found.iter().map(stanza).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Vec<Found> {
        let diagnosis = |severity, topic, text: &str, advice: &[&str]| Diagnosis {
            severity,
            topic,
            subject: "repo1".to_owned(),
            text: text.to_owned(),
            advice: advice.iter().map(|&advice| advice.to_owned()).collect(),
        };
        let found = vec![
            diagnosis(Severity::Error, "stanza", "there is no stanza \"demo\"", &["run this.", "then that."]),
            diagnosis(Severity::Ok, "repository", "can be read\u{1b}[2J", &[]),
            diagnosis(Severity::Warning, "retention", "no backup ever expires", &["set it."]),
        ];
        let summary = DiagnoseSummary { found, warnings: Default::default(), duration: std::time::Duration::ZERO };
        vec![("demo".to_owned(), summary)]
    }

    #[test]
    fn text_ends_with_what_is_worst_and_hides_control_characters() {
        insta::assert_snapshot!(text(&found()));
    }

    #[test]
    fn json_has_everything_in_the_order_in_which_it_was_found() {
        let value: serde_json::Value = serde_json::from_str(&json(&found())).unwrap();
        assert_eq!((&value[0]["stanza"], &value[0]["status"]), (&json!("demo"), &json!("error")));
        assert_eq!(value[0]["found"][0]["advice"], json!(["run this.", "then that."]));
        assert_eq!(value[0]["found"][1]["topic"], "repository");
    }
}
