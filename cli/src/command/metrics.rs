//! `metrics`: prints metrics, or writes them into a file. The daemon runs it at intervals.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use engine::{Error, Result};
use monitor::compat::{self, CompatContext};
use monitor::files::MonitorFile;
use monitor::snapshot::Snapshot;
use monitor::text::{self, Metrics};
use monitor::{files, info, metrics, page};

use crate::collect::{self, CollectRequest, Collected};
use crate::config::{Config, opt};
use crate::{ExitStatus, print};

/// Collects and prints.
///
/// # Errors
/// The configuration is not valid, or the result can't be written. What can't be reached is no error.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let daemon = Arc::new(config.for_daemon()?);
    let stanza = config.find(opt::STANZA).map(str::to_owned);
    let path = config.find(opt::MONITOR_PATH).map(Path::new);
    let request = CollectRequest { daemon, previous: path.and_then(previous).map(Arc::new), stanza: stanza.clone() };
    let mut collected = collect::collect(&request);
    let mut text = metrics_text(&collected, stanza.as_deref())?;
    let file = request.daemon.find(opt::METRICS_FILE);
    if let Some(file) = file {
        let written = files::write_metrics_file(Path::new(file), &format!("{text}{}", text::END));
        match (written, path) {
            (Ok(()), _) => (),
            (Err(error), None) => return Err(error),
            // The page tells it, and is not missing because of it
            (Err(error), Some(_)) => {
                tell_once(&mut collected, request.previous.as_deref(), &error);
                text = metrics_text(&collected, stanza.as_deref())?;
            }
        }
    }
    match (path, file, config.get(opt::OUTPUT)?) {
        (Some(path), ..) => write_all(path, &collected, &text)?,
        (None, _, "json") => print(&(collected.snapshot.to_json() + "\n"))?,
        (None, None, _) => print(&(text + text::END))?,
        (None, Some(_), _) => (),
    }
    Ok(ExitStatus::SUCCESS)
}

/// Adds an error of the file for metrics to what could not be collected. The log has it once, not at each collection.
fn tell_once(collected: &mut Collected, previous: Option<&Snapshot>, error: &Error) {
    let text = format!("metrics file: [{}] {error}", error.code);
    if previous.is_none_or(|previous| !previous.errors.contains(&text)) {
        engine::error!(error.code, "{error}");
    }
    collected.snapshot.errors.push(text);
}

/// The last collection, as far as it is there and of use.
fn previous(path: &Path) -> Option<Snapshot> {
    let bytes = MonitorFile::Snapshot.read(path).ok().flatten()?;
    // Another version may have written it
    Snapshot::parse(std::str::from_utf8(&bytes).ok()?).ok()
}

/// Writes what the daemon serves. The metrics come last, since their age is that of the collection.
fn write_all(path: &Path, collected: &Collected, metrics: &str) -> Result<()> {
    files::create(path)?;
    let snapshot = &collected.snapshot;
    let part = |name: &str, value: serde_json::Result<serde_json::Value>| {
        let value = value.unwrap_or_default();
        format!("{}\n", serde_json::json!({ "format": snapshot.format, "time": snapshot.time, name: value }))
    };
    MonitorFile::Page.write(path, &page::render(snapshot, engine::time_zone::local()))?;
    MonitorFile::Stanzas.write(path, &part("stanzas", serde_json::to_value(&snapshot.stanzas)))?;
    MonitorFile::Jobs.write(path, &part("jobs", serde_json::to_value(&snapshot.jobs)))?;
    MonitorFile::Info.write(path, &collected.info)?;
    MonitorFile::Snapshot.write(path, &(snapshot.to_json() + "\n"))?;
    MonitorFile::Metrics.write(path, metrics)
}

/// All metrics without their end mark.
fn metrics_text(collected: &Collected, stanza: Option<&str>) -> Result<String> {
    let snapshot = &collected.snapshot;
    let mut all = Metrics::default();
    let context =
        CompatContext { now: snapshot.time, zone: engine::time_zone::local().clone(), databases: databases(snapshot) };
    compat::add(&mut all, &info::parse(&collected.info)?, &context);
    compat::add_exporter(&mut all, stanza, snapshot.errors.is_empty(), &snapshot.version);
    metrics::add(&mut all, snapshot);
    Ok(all.render())
}

/// The number of databases of each backup for which it is known.
fn databases(snapshot: &Snapshot) -> BTreeMap<(String, u32, String), u64> {
    let mut databases = BTreeMap::new();
    for stanza in &snapshot.stanzas {
        for backup in &stanza.backups {
            if let Some(count) = backup.databases {
                databases.insert((stanza.name.clone(), backup.repo_key, backup.label.clone()), count);
            }
        }
    }
    databases
}
