//! `info`: shows the content of the repositories.

use engine::info::{self, Detail, InfoRequest};
use engine::{Error, ErrorCode, Result};

use crate::config::{Config, opt};
use crate::render::{info_json, info_text};
use crate::{ExitStatus, print, repos};

/// Prints the report. Unreadable files are part of it and not an error.
///
/// # Errors
/// Contradictory options; standard output can't be written.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let detail = match config.get(opt::DETAIL_LEVEL)? {
        "progress" => Detail::Progress,
        _ => Detail::Full,
    };
    let request = InfoRequest {
        set: config.find(opt::SET).map(str::to_owned),
        backup_type: config.find(opt::TYPE).map(str::parse).transpose()?,
        detail,
    };
    if request.set.is_some() && detail == Detail::Progress {
        let text = "option 'set' cannot be used with option 'detail-level' = 'progress'";
        return Err(Error::new(ErrorCode::OptionInvalid, text));
    }
    let stanzas = match config.find(opt::STANZA) {
        Some(_) => vec![repos::session(config, &config.repo_keys_selected())?.info(&request)?],
        None => info::of_all_stanzas(&request, &repos::open_each(config)?, &*repos::locks(config)?),
    };
    let text = match config.get(opt::OUTPUT)? {
        "json" => info_json::render(&stanzas, detail),
        _ => {
            let set = request.set.is_some();
            info_text::render(
                &stanzas,
                &info_text::TextSettings { detail, set, time_zone: engine::time_zone::local().clone() },
            )
        }
    };
    print(&text)?;
    Ok(ExitStatus::SUCCESS)
}
