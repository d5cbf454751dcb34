//! `backup`: makes a backup, then expires old backups.

use std::collections::BTreeMap;
use std::time::Instant;

use engine::backup::{BackupRequest, BlockSettings, BundleSettings, StandbyChoice};
use engine::{Compression, Error, ErrorCode, Result};
use repo_format::manifest::BLOCK_SIZE_FACTOR;

use crate::config::handle::OptIndexed;
use crate::config::value::parse_size;
use crate::config::{Command, Config, Source, opt};
use crate::exit::ExitStatus;
use crate::progress::LiveProgress;
use crate::render::summary_json;
use crate::{command, lifecycle, pg, repos, summary, throttle};

/// Bytes of a block checksum at least and at most.
const CHECKSUM_SIZES: std::ops::RangeInclusive<i64> = 6..=16;

/// Makes a backup.
///
/// # Errors
/// Commands are stopped, another backup or expire is running, or the backup fails.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let key = config.repo_default();
    let session = repos::session(config, &[key])?
        .with_progress(LiveProgress::of("backup"))
        .with_lock_keys(config.repo_keys_selected());
    // Held until the expire that follows has ended
    let mut turn = session.begin_backup()?;
    if config.source(opt::REPO) == Source::Default && config.repo_keys().len() > 1 {
        engine::info!("repo option not specified, defaulting to repo{key}");
    }
    let done = turn.run(&request(config, key)?)?;
    summary::add("backup", || summary_json::backup(&done));
    if !config.get(opt::EXPIRE_AUTO)? {
        turn.keep_phases(&done, None);
        return Ok(ExitStatus::SUCCESS);
    }
    let begun = Instant::now();
    let expired = command::run(&lifecycle::switch(config, Command::Expire));
    turn.keep_phases(&done, Some(begun.elapsed()).filter(|_| expired.is_ok()));
    expired
}

/// Converts the options to a request for the repository with this number.
fn request(config: &Config, key: u32) -> Result<BackupRequest> {
    let level = i32::try_from(config.get(opt::COMPRESS_LEVEL)?).ok();
    Ok(BackupRequest {
        kind: config.get(opt::TYPE)?.parse()?,
        online: config.get(opt::ONLINE)?,
        force: config.find(opt::FORCE).unwrap_or(false),
        pg: pg::all(config)?,
        standby: match config.get(opt::BACKUP_STANDBY)? {
            "y" => StandbyChoice::Always,
            "prefer" => StandbyChoice::Prefer,
            _ => StandbyChoice::Never,
        },
        start_fast: config.get(opt::START_FAST)?,
        archive_check: config.get(opt::ARCHIVE_CHECK)?,
        archive_mode_check: config.get(opt::ARCHIVE_MODE_CHECK)?,
        archive_copy: config.get(opt::ARCHIVE_COPY)?,
        archive_timeout: config.get(opt::ARCHIVE_TIMEOUT)?,
        compression: Compression::new(config.get(opt::COMPRESS_TYPE)?.parse()?, level)?,
        compress_level_network: small(config.get(opt::COMPRESS_LEVEL_NETWORK)?),
        checksum_page: config.find(opt::CHECKSUM_PAGE),
        checksum_page_error: config.get(opt::CHECKSUM_PAGE_ERROR)?,
        page_header_check: config.get(opt::PAGE_HEADER_CHECK)?,
        delta: config.get(opt::DELTA)?,
        resume: config.get(opt::RESUME)?,
        hardlink: config.get_at(opt::REPO_HARDLINK, key)?,
        bundle: bundle(config, key)?,
        block: block(config, key)?,
        exclude: config.find(opt::EXCLUDE).map(<[String]>::to_vec).unwrap_or_default(),
        annotation: config.find(opt::ANNOTATION).unwrap_or_default(),
        process_max: small(config.get(opt::PROCESS_MAX)?),
        buffer_size: config.get(opt::BUFFER_SIZE)?,
        manifest_save_threshold: config.get(opt::MANIFEST_SAVE_THRESHOLD)?,
        job_retry: small(config.get(opt::JOB_RETRY)?),
        job_retry_interval: config.get(opt::JOB_RETRY_INTERVAL)?,
        ease: throttle::ease(config)?,
    })
}

/// Converts a number that the option table keeps far below the limit.
fn small(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn bundle(config: &Config, key: u32) -> Result<Option<BundleSettings>> {
    if !config.get_at(opt::REPO_BUNDLE, key)? {
        return Ok(None);
    }
    Ok(Some(BundleSettings {
        size: config.get_at(opt::REPO_BUNDLE_SIZE, key)?,
        limit: config.get_at(opt::REPO_BUNDLE_LIMIT, key)?,
    }))
}

fn block(config: &Config, key: u32) -> Result<Option<BlockSettings>> {
    if config.find_at(opt::REPO_BLOCK, key) != Some(true) {
        return Ok(None);
    }
    Ok(Some(BlockSettings {
        super_full: config.get_at(opt::REPO_BLOCK_SIZE_SUPER_FULL, key)?,
        super_other: config.get_at(opt::REPO_BLOCK_SIZE_SUPER, key)?,
        size_map: map(config, opt::REPO_BLOCK_SIZE_MAP, key, size, block_size)?,
        age_map: map(config, opt::REPO_BLOCK_AGE_MAP, key, whole_number, whole_number)?,
        checksum_size_map: map(config, opt::REPO_BLOCK_CHECKSUM_SIZE_MAP, key, size, checksum_size)?,
    }))
}

/// Reads a map option.
fn map<K, V>(
    config: &Config,
    option: OptIndexed<BTreeMap<String, String>>,
    key: u32,
    read_key: fn(&str) -> Option<K>,
    read_value: fn(&str) -> Option<V>,
) -> Result<Vec<(K, V)>> {
    let name = option.decl().indexed_name(key);
    let invalid =
        |text: &str| Error::new(ErrorCode::OptionInvalidValue, format!("'{text}' is not valid for '{name}' option"));
    config
        .find_at(option, key)
        .into_iter()
        .flatten()
        .map(|(from, value)| {
            Ok((read_key(&from).ok_or_else(|| invalid(&from))?, read_value(&value).ok_or_else(|| invalid(&value))?))
        })
        .collect()
}

fn size(text: &str) -> Option<u64> {
    parse_size(text).filter(|size| (1..u64::from(u32::MAX)).contains(size))
}

/// The manifest holds block sizes in units of 8 KiB.
fn block_size(text: &str) -> Option<u64> {
    size(text).filter(|size| size.is_multiple_of(u64::from(BLOCK_SIZE_FACTOR)))
}

fn whole_number(text: &str) -> Option<u32> {
    text.parse().ok()
}

fn checksum_size(text: &str) -> Option<u8> {
    text.parse().ok().filter(|size| CHECKSUM_SIZES.contains(size)).and_then(|size| u8::try_from(size).ok())
}

#[cfg(test)]
mod tests {
    use engine::pg::PgSettings;

    use super::*;
    use crate::config::tests::resolved;

    #[test]
    fn request_without_options_is_the_request_of_the_engine() {
        let mut config = resolved("backup --stanza=demo --pg1-path=/pg --repo1-retention-full=1");
        config.adjust().unwrap();
        let asked = format!("{:#?}", request(&config, 1).unwrap());
        assert_eq!(asked, format!("{:#?}", BackupRequest::new(PgSettings::new("/pg"))));
    }

    #[test]
    fn block_map_values_out_of_range_are_refused() {
        assert_eq!(block_size("16KiB"), Some(16_384));
        assert_eq!(block_size("9KiB"), None);
        assert_eq!(size("0"), None);
        assert_eq!(size("5GiB"), None);
        assert_eq!(checksum_size("6"), Some(6));
        assert_eq!(checksum_size("5"), None);
        assert_eq!(checksum_size("17"), None);
        assert_eq!(whole_number("-1"), None);
    }
}
