//! The report of `check --report`, byte for byte pgBackRest's JSON. The only difference is that names are escaped.

use repo_format::json::{ObjectWriter, write_string};

use super::control::valid_json;
use crate::config::{ConfigReport, Setting, SettingValue};

/// The report as one object, without a line feed at the end.
pub fn render(report: &ConfigReport) -> String {
    let mut out = String::new();
    let mut json = ObjectWriter::new(&mut out);
    let mut config = json.object("cfg");
    render_settings(config.object("env"), &report.environment);
    match &report.sections {
        None => config.raw("file", "null"),
        Some(sections) => {
            let mut file = config.object("file");
            for (name, settings) in sections {
                render_settings(file.object(&key(name)), settings);
            }
            file.end();
        }
    }
    config.end();
    json.end();
    valid_json(&out).into_owned()
}

fn render_settings(mut out: ObjectWriter<'_>, settings: &[Setting]) {
    for setting in settings {
        let mut json = out.object(&key(&setting.name));
        match &setting.value {
            None => (),
            Some(SettingValue::One(value)) => json.string("val", value),
            Some(SettingValue::Many(values)) => {
                let mut list = json.array("val");
                for value in values {
                    list.string(value);
                }
                list.end();
            }
        }
        if let Some(warning) = setting.warning {
            json.string("warn", warning);
        }
        json.end();
    }
    out.end();
}

/// The text between the quotes of a key.
fn key(name: &str) -> String {
    let mut quoted = String::new();
    write_string(&mut quoted, name);
    quoted.trim_matches('"').to_owned()
}
