//! `stanza-create`: creates a stanza in every repository.

use std::collections::BTreeMap;

use engine::Result;
use engine::stanza::StanzaRequest;
use repo_format::format::RepoFormat;

use crate::config::{Config, Source, opt};
use crate::render::summary_json;
use crate::{ExitStatus, pg, repos, summary};

/// Creates the stanza, or checks it if it exists.
///
/// # Errors
/// The stanza can't be created or belongs to another cluster.
pub fn run(config: &Config) -> Result<ExitStatus> {
    let session = repos::session(config, config.repo_keys())?;
    if config.find(opt::FORCE) == Some(true) {
        engine::warn!("option --force is no longer supported");
    }
    let done = session.stanza_create(&request(config)?)?;
    summary::add("stanza-create", || summary_json::stanza(&done));
    Ok(ExitStatus::SUCCESS)
}

/// What stanza-create and stanza-upgrade are asked to do.
pub(super) fn request(config: &Config) -> Result<StanzaRequest> {
    Ok(StanzaRequest { online: config.get(opt::ONLINE)?, pg: pg::all(config)?, formats: formats(config)? })
}

/// The formats that are asked for.
fn formats(config: &Config) -> Result<BTreeMap<u32, RepoFormat>> {
    let given = config.repo_keys().iter().filter(|key| config.source_at(opt::REPO_FORMAT, **key) != Source::Default);
    given
        .map(|&key| {
            let number = config.get_at(opt::REPO_FORMAT, key)?;
            // The option allows only numbers of formats
            Ok((key, RepoFormat::from_number(u64::try_from(number).unwrap_or_default())?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use engine::pg::PgSettings;

    use super::*;
    use crate::config::tests::resolved;

    #[test]
    fn request_without_options_is_the_request_of_the_engine() {
        let config = resolved("stanza-create --stanza=demo --pg1-path=/pg");
        let wanted = StanzaRequest::new(PgSettings { command: "stanza-create".to_owned(), ..PgSettings::new("/pg") });
        assert_eq!(format!("{:#?}", request(&config).unwrap()), format!("{wanted:#?}"));
    }
}
