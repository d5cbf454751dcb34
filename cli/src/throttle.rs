//! Converts the options that limit the rate of a command.

use std::path::PathBuf;
use std::sync::Arc;

use engine::throttle::{EaseSettings, RateLimit};
use engine::{Error, ErrorCode, Result};

use crate::config::value::parse_size;
use crate::config::{Config, opt};

/// Returns the limit of a command; `None` if it has none.
pub(crate) fn limit(config: &Config) -> Option<Arc<RateLimit>> {
    let (rate, file) = (config.find(opt::MAX_RATE), config.find(opt::MAX_RATE_FILE));
    let limit = RateLimit::new(rate);
    match file {
        Some(file) => Some(Arc::new(limit.with_file(PathBuf::from(file), parse_size))),
        None => rate.is_some().then(|| Arc::new(limit)),
    }
}

/// Returns when a backup slows down.
///
/// # Errors
/// [`ErrorCode::FeatureNotSupported`] for a cluster on another host, whose load and standbys can't be seen from here.
pub(crate) fn ease(config: &Config) -> Result<EaseSettings> {
    let (load, lag) = (config.find(opt::MAX_LOAD), config.find(opt::MAX_REPLICA_LAG));
    let name = match (load, lag) {
        (Some(_), _) => opt::MAX_LOAD.decl().name,
        (None, Some(_)) => opt::MAX_REPLICA_LAG.decl().name,
        (None, None) => return Ok(EaseSettings::default()),
    };
    if let Some(key) = config.pg_keys().iter().find(|&&key| config.find_at(opt::PG_HOST, key).is_some()) {
        let text = format!("option '{name}' is not supported for a cluster on another host (pg{key})");
        return Err(Error::new(ErrorCode::FeatureNotSupported, text));
    }
    Ok(EaseSettings { load_max: load.and_then(|load| u32::try_from(load).ok()), replica_lag_max: lag })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::resolved;

    #[test]
    fn nothing_is_limited_without_options() {
        let config = resolved("backup --stanza=demo --pg1-path=/pg");
        assert!(limit(&config).is_none());
        assert_eq!(ease(&config).unwrap(), EaseSettings::default());
    }

    #[test]
    fn each_option_gets_to_the_engine() {
        let config =
            resolved("backup --stanza=demo --pg1-path=/pg --max-load=8 --max-replica-lag=64MiB --max-rate=5MiB");
        let wanted = EaseSettings { load_max: Some(8), replica_lag_max: Some(64 << 20) };
        assert_eq!(ease(&config).unwrap(), wanted);
        assert!(limit(&config).is_some());
        assert!(limit(&resolved("verify --stanza=demo --max-rate-file=/rate")).is_some());
    }

    #[test]
    fn cluster_on_another_host_is_refused() {
        for option in ["--max-load=8", "--max-replica-lag=1MiB"] {
            let config =
                resolved(&format!("backup --stanza=demo --pg1-path=/pg --pg2-path=/pg --pg2-host=db {option}"));
            assert_eq!(ease(&config).unwrap_err().code, ErrorCode::FeatureNotSupported);
        }
    }
}
