//! `metrics`: prints metrics, or writes them into a file. The daemon runs it at intervals.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use engine::Result;
use monitor::compat::{self, CompatContext};
use monitor::snapshot::Snapshot;
use monitor::text::{self, Metrics};
use monitor::{files, info, metrics};

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
    let request = CollectRequest { daemon, previous: None, stanza: stanza.clone() };
    let collected = collect::collect(&request);
    let text = metrics_text(&collected, stanza.as_deref())?;
    if let Some(path) = request.daemon.find(opt::METRICS_FILE) {
        files::write_metrics_file(Path::new(path), &(text + text::END))?;
    } else if config.get(opt::OUTPUT)? == "json" {
        print(&(collected.snapshot.to_json() + "\n"))?;
    } else {
        print(&(text + text::END))?;
    }
    Ok(ExitStatus::SUCCESS)
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
