//! `manifest`: shows the manifest of a backup.

use std::sync::Arc;

use engine::manifest::StoredManifest;
use engine::pg::PgHost;
use engine::{Error, ErrorCode, Result};
use repo_format::manifest::ManifestFile;

use crate::config::{Config, opt};
use crate::render::{manifest_json, manifest_text};
use crate::{ExitStatus, cancel_token, pg, print, repos};

/// Characters that are printed at a time.
const FLUSH_SIZE: usize = 1 << 16;
/// The value of `reference` for files that are in the backup itself.
const REFERENCE_LATEST: &str = "latest";

/// Prints the backup and its files, or the file of `--filter` with what a restore of it would read.
///
/// # Errors
/// The manifest can't be read, or it does not have the file. A reader that closes the output early is not an error.
pub fn run(config: &Config) -> Result<ExitStatus> {
    match show(config) {
        // Most likely the output goes to a program that has read enough
        Err(error) if error.code == ErrorCode::FileWrite => Ok(ExitStatus::SUCCESS),
        done => done.map(|()| ExitStatus::SUCCESS),
    }
}

fn show(config: &Config) -> Result<()> {
    let repo = repos::open_default(config)?;
    let stanza = repos::stanza(config)?;
    let stored = StoredManifest::load(&repo, &stanza, config.get(opt::SET)?)?;
    let json = config.get(opt::OUTPUT)? == "json";
    let mut out = ManifestText { json, first: true, text: String::new() };
    out.text = match json {
        true => manifest_json::head(&stored.manifest),
        false => manifest_text::head(&stored.manifest, engine::time_zone::local()),
    };
    match config.find(opt::FILTER) {
        Some(name) => out.add_single(config, &stored, name)?,
        None => {
            let reference = config.find(opt::REFERENCE);
            for file in &stored.manifest.files {
                cancel_token().check()?;
                if reference.is_none_or(|reference| is_in(&stored, file, reference)) {
                    out.add(&stored, file)?;
                }
            }
        }
    }
    if json {
        out.text.push_str(manifest_json::END);
    }
    print(&out.text)
}

/// Returns whether the manifest refers to this backup for the file.
fn is_in(stored: &StoredManifest<'_>, file: &ManifestFile, reference: &str) -> bool {
    match reference {
        REFERENCE_LATEST => file.reference.is_none(),
        label => file.reference.is_some() && stored.manifest.holder(file).as_ref() == label,
    }
}

/// The cluster whose file is compared; `None` unless `--pg` chooses one.
fn cluster(config: &Config) -> Result<Option<Arc<dyn PgHost>>> {
    if config.find(opt::PG).is_none() {
        return Ok(None);
    }
    pg::host(config, config.pg_default()).map(Some)
}

/// Collects the output and prints it in chunks.
struct ManifestText {
    json: bool,
    first: bool,
    text: String,
}

impl ManifestText {
    fn add(&mut self, stored: &StoredManifest<'_>, file: &ManifestFile) -> Result<()> {
        if !self.first {
            self.text.push(if self.json { ',' } else { '\n' });
        }
        self.first = false;
        self.text.push_str(&match self.json {
            true => manifest_json::file(&stored.manifest, file, None),
            false => manifest_text::file(&stored.manifest, file, None),
        });
        if self.text.len() >= FLUSH_SIZE {
            print(&self.text)?;
            self.text.clear();
        }
        Ok(())
    }

    fn add_single(&mut self, config: &Config, stored: &StoredManifest<'_>, name: &str) -> Result<()> {
        let file = stored
            .manifest
            .file(name)
            .ok_or_else(|| Error::new(ErrorCode::Assert, format!("unable to find '{name}' in manifest file list")))?;
        let restore = match file.stored_blocks() {
            None => None,
            Some(block) => {
                let cluster = cluster(config)?;
                Some(stored.block_restore(file, block, cluster.as_deref(), cancel_token())?)
            }
        };
        self.text.push_str(&match self.json {
            true => manifest_json::file(&stored.manifest, file, restore.as_ref()),
            false => manifest_text::file(&stored.manifest, file, restore.as_ref()),
        });
        Ok(())
    }
}
